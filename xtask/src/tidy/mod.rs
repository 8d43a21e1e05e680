//! What the tree must look like: checked against the manifests, not against a wish.

mod edges;
mod sizes;

use std::path::Path;

use anyhow::bail;

use crate::shell;

/// Crates that decide, and run on a microcontroller as they are.
pub(crate) const NO_STD: [&str; 5] = ["drift", "features", "package", "protocol", "rollout"];

/// Runs each check and lists everything that is wrong, with the line that says why.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = shell::root();
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(vec!["--locked".into()])
        .exec()?;
    let mut faults = edges::faults(&root, &metadata)?;
    faults.extend(edges::tract_faults()?);
    faults.extend(no_std_faults(&root)?);
    faults.extend(sql_faults(&root)?);
    faults.extend(topic_faults(&root)?);
    faults.extend(sizes::faults(&root)?);
    for fault in &faults {
        println!("tidy: {fault}");
    }
    if !faults.is_empty() {
        bail!("{} things are out of place", faults.len());
    }
    println!("tidy: edges, no_std, tract, SQL, topics and sizes are as ARCHITECTURE.md says");
    Ok(())
}

fn no_std_faults(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for name in NO_STD {
        let source = std::fs::read_to_string(root.join(name).join("src/lib.rs"))?;
        if !source.contains("#![no_std]") {
            faults.push(format!(
                "{name}/src/lib.rs lacks #![no_std]: its decisions must run on microcontrollers"
            ));
        }
    }
    Ok(faults)
}

/// SQL stands only in `fleet-server/src/store/`.
fn sql_faults(root: &Path) -> anyhow::Result<Vec<String>> {
    let store = root.join("fleet-server/src/store");
    let mut faults = Vec::new();
    for file in sizes::rust_files(root)? {
        let elsewhere = !file.starts_with(&store) && !file.starts_with(root.join("xtask"));
        if elsewhere && std::fs::read_to_string(&file)?.contains("sqlx::query") {
            faults.push(format!(
                "{}: SQL stands only in fleet-server/src/store/",
                shown(root, &file)
            ));
        }
    }
    Ok(faults)
}

/// Topic strings stand only in `protocol`.
fn topic_faults(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for file in sizes::rust_files(root)? {
        let test = file.components().any(|part| part.as_os_str() == "tests")
            || file.file_name().is_some_and(|name| name == "tests.rs");
        let exempt =
            test || file.starts_with(root.join("protocol")) || file.starts_with(root.join("xtask"));
        if !exempt && std::fs::read_to_string(&file)?.contains("\"bw/") {
            faults.push(format!(
                "{}: topic strings stand only in protocol",
                shown(root, &file)
            ));
        }
    }
    Ok(faults)
}

fn shown(root: &Path, file: &Path) -> String {
    file.strip_prefix(root)
        .unwrap_or(file)
        .display()
        .to_string()
}

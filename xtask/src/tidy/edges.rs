//! ARCHITECTURE.md's edge table against the manifests, and where tract may be linked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata};

use crate::shell;

const BEGIN: &str = "<!-- edges -->";
const END: &str = "<!-- /edges -->";

/// Crates whose programs must not carry an inference engine.
const NO_TRACT: [&str; 2] = ["bellwether-agent", "bellwether-server"];

/// Differences between the table and the manifests, both ways.
pub(super) fn faults(root: &Path, metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md"))
        .context("ARCHITECTURE.md cannot be read")?;
    let written =
        table(&text).context("ARCHITECTURE.md has no edge table between its two markers")?;
    let real = manifests(root, metadata);
    let mut faults = Vec::new();
    for (folder, uses) in &real {
        match written.get(folder) {
            None => faults.push(format!(
                "{folder} is missing from ARCHITECTURE.md's edge table"
            )),
            Some(listed) => {
                let extra = uses.difference(listed).map(|name| {
                    format!("{folder} uses {name}, which the edge table does not allow")
                });
                let stale = listed.difference(uses).map(|name| {
                    format!("{folder} no longer uses {name}: take it out of the edge table")
                });
                faults.extend(extra.chain(stale));
            }
        }
    }
    faults.extend(
        written
            .keys()
            .filter(|folder| !real.contains_key(*folder))
            .map(|folder| format!("the edge table names {folder}, which is not a crate")),
    );
    Ok(faults)
}

/// Rows of the form `| folder | uses, uses |`.
fn table(text: &str) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let body = text.split_once(BEGIN)?.1.split_once(END)?.0;
    let mut rows = BTreeMap::new();
    for line in body.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let folder = cells.next()?.trim_matches('`').to_owned();
        let uses = cells
            .next()?
            .split(',')
            .map(|name| name.trim().trim_matches('`').to_owned());
        rows.insert(
            folder,
            uses.filter(|name| !name.is_empty() && name != "nothing")
                .collect(),
        );
    }
    Some(rows)
}

/// What each crate's manifest really names of our own crates, tests' needs apart.
fn manifests(root: &Path, metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let folder_of = |path: &Path| {
        path.strip_prefix(root)
            .ok()
            .map(|folder| folder.display().to_string())
    };
    metadata
        .workspace_packages()
        .iter()
        .filter_map(|package| {
            let folder = folder_of(package.manifest_path.parent()?.as_std_path())?;
            let uses = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind == DependencyKind::Normal)
                .filter_map(|dependency| folder_of(dependency.path.as_ref()?.as_std_path()))
                .collect();
            Some((folder, uses))
        })
        .collect()
}

/// Asks cargo itself what the agent and the server link.
pub(super) fn tract_faults() -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for package in NO_TRACT {
        let output = shell::cargo([
            "tree", "--locked", "-e", "normal", "--prefix", "none", "-p", package,
        ])
        .output()?;
        anyhow::ensure!(
            output.status.success(),
            "cargo tree -p {package} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        if String::from_utf8_lossy(&output.stdout)
            .lines()
            .any(|line| line.starts_with("tract-"))
        {
            faults.push(format!(
                "{package} links tract: only runtime/engine and cli may"
            ));
        }
    }
    Ok(faults)
}

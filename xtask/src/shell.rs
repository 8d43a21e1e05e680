//! Runs other programs: which one, where, and what to do when it is not there.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// The folder that holds the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_path_buf()
}

/// A cargo command at the workspace's root, by the cargo that runs this task.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Runs a command to its end with its output shown.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{} could not be started", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Whether a program is there and can be started. Not every program knows `--version`, and Debian
/// keeps some where only root's path leads.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"))
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// Sees to it that a program is there: on Debian as root installs its package, elsewhere says what to run.
pub(crate) fn need(program: &str, debian_package: &str) -> anyhow::Result<()> {
    if has(program) {
        return Ok(());
    }
    let line = format!("apt-get install -y --no-install-recommends {debian_package}");
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| {
        use std::os::unix::fs::MetadataExt as _;
        meta.uid() == 0
    });
    if !Path::new("/etc/debian_version").exists() || !is_root {
        bail!(
            "{program} is missing. On Debian: `sudo {line}`; elsewhere install {program} by your package manager."
        );
    }
    println!("{program} is missing: {line}");
    let quiet = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // An index that cannot be refreshed may still know the package.
    let _ = quiet(&["update", "-q"]).status();
    run(&mut quiet(&[
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
        debian_package,
    ]))?;
    if !has(program) {
        bail!("{program} is still missing after `{line}`");
    }
    Ok(())
}

/// A program of cargo's that is not part of it: the one on the path, or `version` built into
/// target/tools.
pub(crate) fn cargo_tool(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    if has(name) {
        return Ok(name.into());
    }
    let tools = root().join("target/tools");
    let program = tools.join("bin").join(name);
    if !program.exists() {
        println!("{name} is missing: building {version} into target/tools (a few minutes, once)");
        let arguments = [
            "--locked",
            "--debug",
            "--quiet",
            "--version",
            version,
            "--root",
        ];
        run(cargo(["install", name])
            .args(arguments)
            .arg(&tools)
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env("CARGO_TARGET_DIR", tools.join("build")))?;
    }
    Ok(program)
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

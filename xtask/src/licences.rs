//! Licences and sources of every dependency, by cargo-deny as `deny.toml` says.

use std::{path::PathBuf, process::Command};

use crate::shell;

const VERSION: &str = "0.20.2";

/// Installs cargo-deny beside the build's output when it is not there, then checks.
pub(crate) fn run() -> anyhow::Result<()> {
    let program = program()?;
    shell::run(
        Command::new(program)
            .args(["--locked", "check", "licenses", "bans", "sources"])
            .current_dir(shell::root()),
    )
}

fn program() -> anyhow::Result<PathBuf> {
    if shell::has("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    let tools = shell::root().join("target/tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        println!(
            "cargo-deny is missing: building {VERSION} into target/tools (a few minutes, once)"
        );
        shell::run(
            shell::cargo([
                "install",
                "cargo-deny",
                "--locked",
                "--debug",
                "--quiet",
                "--version",
                VERSION,
                "--root",
            ])
            .arg(&tools)
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env("CARGO_TARGET_DIR", shell::root().join("target/tools/build")),
        )?;
    }
    Ok(program)
}

//! Licences and sources of every dependency, by cargo-deny as `deny.toml` says.

use std::process::Command;

use crate::shell;

const VERSION: &str = "0.20.2";

/// Installs cargo-deny beside the build's output when it is not there, then checks.
pub(crate) fn run() -> anyhow::Result<()> {
    let program = shell::cargo_tool("cargo-deny", VERSION)?;
    shell::run(
        Command::new(program)
            .args(["--locked", "check", "licenses", "bans", "sources"])
            .current_dir(shell::root()),
    )
}

//! The programs that devices get: small, for one thread a run.

use std::path::PathBuf;

use crate::shell;

/// A panic ends these programs, so nothing ever unwinds through their frames.
const RUSTFLAGS: &str = "-Cforce-unwind-tables=no";
/// The profile of what is flashed.
pub(crate) const PROFILE: &str = "device";

/// Builds agent and worker under a profile; `device` takes some ten minutes. Returns their folder.
pub(crate) fn build(profile: &str) -> anyhow::Result<PathBuf> {
    let mut build = shell::cargo([
        "build",
        "--profile",
        profile,
        "--package",
        "bellwether-agent",
        "--package",
        "bellwether-engine",
        "--no-default-features",
        "--bins",
    ]);
    if profile == PROFILE {
        build.env("RUSTFLAGS", RUSTFLAGS);
    }
    shell::run(&mut build)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(shell::root().join("target").join(folder))
}

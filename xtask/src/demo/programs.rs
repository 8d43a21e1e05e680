//! Builds the four binaries with one cargo call, and finds them.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::shell;

/// Where the binaries are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// `bellwether`, the operator's command.
    pub(crate) cli: PathBuf,
    /// `bellwether-server`.
    pub(crate) server: PathBuf,
    /// `bellwether-agent`.
    pub(crate) agent: PathBuf,
    /// `bellwether-worker`, which runs the models.
    pub(crate) worker: PathBuf,
}

impl Programs {
    /// The folder that they were built into. A folder beside them is on the same disk, and programs may run there.
    pub(crate) fn folder(&self) -> &Path {
        self.cli.parent().unwrap_or(Path::new("."))
    }
}

/// Builds them, with cargo's own progress on the terminal.
pub(crate) fn build() -> anyhow::Result<Programs> {
    let names = [
        "bellwether",
        "bellwether-server",
        "bellwether-agent",
        "bellwether-worker",
    ];
    let mut command = shell::cargo(["build", "--workspace"]);
    for name in names {
        command.args(["--bin", name]);
    }
    shell::run(&mut command)?;
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(shell::root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    let folder = metadata.target_directory.into_std_path_buf().join("debug");
    let found = names.map(|name| folder.join(name));
    for path in &found {
        ensure!(
            path.exists(),
            "{} was built and is not there",
            path.display()
        );
    }
    let [cli, server, agent, worker] = found;
    Ok(Programs {
        cli,
        server,
        agent,
        worker,
    })
}

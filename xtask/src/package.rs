//! `cargo xtask package`: the agent and its worker as a Debian package, as agent/Cargo.toml says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{device, shell};

const VERSION: &str = "3.8.0";
/// All files that the package may hold, and all that it must.
const FILES: [&str; 7] = [
    "/etc/bellwether/agent.toml",
    "/usr/bin/bellwether-agent",
    "/usr/bin/bellwether-worker",
    "/usr/lib/systemd/system/bellwether-agent.service",
    "/usr/share/doc/bellwether-agent/LICENSE-APACHE",
    "/usr/share/doc/bellwether-agent/copyright",
    "/usr/share/doc/bellwether-agent/device.md",
];
/// What its scripts must do: make the user, start and stop the unit, leave nothing behind.
const SCRIPTS: [(&str, &str); 6] = [
    ("postinst", "adduser --system"),
    (
        "postinst",
        "deb-systemd-helper enable bellwether-agent.service",
    ),
    (
        "postinst",
        "deb-systemd-invoke $_dh_action bellwether-agent.service",
    ),
    ("prerm", "deb-systemd-invoke stop bellwether-agent.service"),
    (
        "postrm",
        "deb-systemd-helper purge bellwether-agent.service",
    ),
    ("postrm", "rm -rf /var/lib/bellwether"),
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Cargo profile; `device` is what is flashed, and takes some ten minutes to build
    #[arg(long, default_value = device::PROFILE)]
    profile: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: device::PROFILE.to_owned(),
        }
    }
}

/// Builds both programs, packs them, and looks the result over.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    shell::need("dpkg-deb", "dpkg")?;
    shell::need("dpkg-shlibdeps", "dpkg-dev")?;
    let packer = shell::cargo_tool("cargo-deb", VERSION)?;
    let profile = options.profile.as_str();
    device::build(profile)?;
    let folder = shell::root().join("target/debian");
    std::fs::create_dir_all(&folder)?;
    let package = folder.join("bellwether-agent.deb");
    shell::run(
        Command::new(packer)
            .args(["deb", "--no-build", "--package", "bellwether-agent"])
            .args(["--profile", profile, "--output"])
            .arg(&package)
            .current_dir(shell::root()),
    )?;
    inspect(&package)?;
    let bytes = std::fs::metadata(&package)?.len();
    println!("{}: {bytes} bytes", package.display());
    println!("install it by `apt-get install {}`", package.display());
    Ok(())
}

/// Fails unless the package holds the files that it should, and its scripts do what they should.
fn inspect(package: &Path) -> anyhow::Result<()> {
    let listed = output(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    let found: BTreeSet<String> = listed.lines().filter_map(file).collect();
    let expected = FILES.map(str::to_owned).into();
    ensure!(found == expected, "the package holds {found:#?}");
    let control = shell::root().join("target/debian/control");
    let _ = std::fs::remove_dir_all(&control);
    shell::run(
        Command::new("dpkg-deb")
            .arg("--control")
            .arg(package)
            .arg(&control),
    )?;
    let read = |name: &str| {
        let path: PathBuf = control.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    ensure!(
        read("conffiles")?.trim() == FILES[0],
        "the configuration is no conffile"
    );
    for (script, line) in SCRIPTS {
        shell::run(Command::new("sh").arg("-n").arg(control.join(script)))?;
        let text = read(script)?;
        let there = text.contains(line) || text.contains(&line.replace(' ', " '"));
        ensure!(there, "{script} lacks `{line}`:\n{text}");
    }
    print!("{}", read("control")?);
    Ok(())
}

/// The path in a line of `dpkg-deb --contents`, if it is a file's.
fn file(line: &str) -> Option<String> {
    let is_file = line.starts_with('-');
    let path = line.split_whitespace().last()?.trim_start_matches('.');
    is_file.then(|| path.to_owned())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

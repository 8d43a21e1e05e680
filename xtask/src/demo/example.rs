//! The Shuttle example as packages: keys of three persons, a trust root, and the committed models packed and
//! approved by two of them, all through the `bellwether` command.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::programs::{self, Programs};
use crate::shell;

/// The slot that the example's releases are for.
pub(crate) const SLOT: &str = "anomaly";
/// The cohort that they are approved for.
pub(crate) const COHORT: &str = "class=pump";
/// The persons; any two of them approve.
const PERSONS: [&str; 3] = ["alice", "bob", "carol"];

/// How the example is made.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Options {
    /// Train the models anew first: needs Python 3 with venv, and fetches the pinned packages
    #[arg(long)]
    train: bool,
    /// Where keys, trust root and packages go
    #[arg(long, default_value = "target/shuttle")]
    out: PathBuf,
}

/// `cargo xtask shuttle`: makes keys, trust root and approved packages, ready to be looked at and run.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if options.train {
        train()?;
    }
    let programs = programs::build()?;
    let out = shell::root().join(&options.out);
    ensure!(
        !out.exists(),
        "{} is there already; remove it, or give another --out",
        out.display()
    );
    std::fs::create_dir_all(&out)?;
    let workshop = Workshop::found(&programs, &out, None)?;
    for number in 1..=RELEASES {
        let package = workshop.pack(number)?;
        workshop.approve(&package, &PERSONS[..2], SLOT)?;
        println!("{}  {}", package.id, package.path.display());
    }
    println!("trust root: {}", workshop.root().display());
    println!("examples/shuttle/README.md says what to do with them");
    Ok(())
}

/// Releases that `train.py` makes.
pub(crate) const RELEASES: usize = 5;

/// The example's folder.
pub(crate) fn folder() -> PathBuf {
    shell::root().join("examples/shuttle")
}

/// A folder with the persons' keys and the trust root, where packages are made.
pub(crate) struct Workshop {
    folder: PathBuf,
    cli: PathBuf,
}

/// A package on disk.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    /// Its id.
    pub(crate) id: String,
    /// The model's version.
    pub(crate) version: String,
    /// Its file.
    pub(crate) path: PathBuf,
}

impl Workshop {
    /// Makes the keys and the trust root. Without a server's director key one is made, so that packages can be
    /// verified and run with no fleet at all.
    pub(crate) fn found(
        programs: &Programs,
        folder: &Path,
        director: Option<&str>,
    ) -> anyhow::Result<Self> {
        let workshop = Self {
            folder: folder.to_owned(),
            cli: programs.cli.clone(),
        };
        for person in PERSONS {
            let passphrase = workshop.passphrase(person);
            std::fs::write(&passphrase, format!("a long passphrase of {person}\n"))?;
            owner_only(&passphrase)?;
            workshop.new_key(person, person)?;
        }
        let director = match director {
            Some(director) => director.to_owned(),
            None => {
                workshop.new_key("director", PERSONS[0])?;
                workshop.public("director").display().to_string()
            }
        };
        workshop.found_root(&director)?;
        Ok(workshop)
    }

    fn new_key(&self, name: &str, passphrase_of: &str) -> anyhow::Result<()> {
        let mut arguments: Vec<OsString> = vec!["key".into(), "new".into()];
        arguments.extend(["--out".into(), self.key(name).into()]);
        arguments.extend([
            "--passphrase-file".into(),
            self.passphrase(passphrase_of).into(),
        ]);
        self.cli(arguments).map(drop)
    }

    fn found_root(&self, director: &str) -> anyhow::Result<()> {
        let mut arguments: Vec<OsString> = [
            "trust",
            "init",
            "--root-threshold",
            "2",
            "--approvers-threshold",
            "2",
        ]
        .map(Into::into)
        .into();
        for person in PERSONS {
            arguments.extend([
                "--person".into(),
                format!("{person}={}", self.public(person).display()).into(),
            ]);
        }
        arguments.extend(["--director".into(), director.into()]);
        arguments.extend(self.signers());
        arguments.extend(["--out".into(), self.root().into()]);
        self.cli(arguments).map(drop)
    }

    /// Two persons sign.
    fn signers(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        for person in &PERSONS[..2] {
            arguments.extend(["--sign-with".into(), self.key(person).into()]);
            arguments.extend(["--passphrase-file".into(), self.passphrase(person).into()]);
        }
        arguments
    }

    /// Packs a release of the example as its TOML says.
    pub(crate) fn pack(&self, number: usize) -> anyhow::Result<Package> {
        self.pack_from(
            &folder().join(format!("out/release-{number}.toml")),
            number,
            &format!("release-{number}"),
        )
    }

    /// Packs a release under another version, to make packages that differ in their approvals only.
    pub(crate) fn pack_as(
        &self,
        number: usize,
        version: &str,
        name: &str,
    ) -> anyhow::Result<Package> {
        let out = folder().join("out");
        let mut table = read_toml(&out.join(format!("release-{number}.toml")))?;
        // The copy lies elsewhere, so the files that it names are named in full.
        for (section, key) in [("model", "onnx"), ("sample", "path")] {
            let file = table[section][key].as_str().context("a path")?;
            table[section][key] = out.join(file).display().to_string().into();
        }
        table["model"]["version"] = version.into();
        let config = self.folder.join(format!("{name}.toml"));
        std::fs::write(&config, table.to_string())?;
        self.pack_from(&config, number, name)
    }

    fn pack_from(&self, config: &Path, number: usize, name: &str) -> anyhow::Result<Package> {
        let path = self.folder.join(format!("{name}.bwp"));
        let golden = folder().join(format!("out/release-{number}-golden.npz"));
        let mut arguments: Vec<OsString> = vec!["pack".into(), config.into()];
        arguments.extend([
            "--golden".into(),
            golden.into(),
            "--out".into(),
            path.clone().into(),
        ]);
        if number == WITHOUT_SCALING {
            arguments.push("--allow-mismatch".into());
        }
        self.cli(arguments)?;
        let shown = self.cli(["inspect".as_ref(), path.as_os_str()])?;
        let id = shown["id"]
            .as_str()
            .context("`bellwether inspect --json` names no id")?;
        let version = read_toml(config)?["model"]["version"]
            .as_str()
            .context("a version")?
            .to_owned();
        Ok(Package {
            version,
            id: id.to_owned(),
            path,
        })
    }

    /// Has persons approve a package for a slot.
    pub(crate) fn approve(
        &self,
        package: &Package,
        persons: &[&str],
        slot: &str,
    ) -> anyhow::Result<()> {
        for person in persons {
            let mut arguments: Vec<OsString> = vec!["approve".into(), package.path.clone().into()];
            arguments.extend(["--key".into(), self.key(person).into()]);
            arguments.extend(["--passphrase-file".into(), self.passphrase(person).into()]);
            arguments.extend(["--trust-root".into(), self.root().into()]);
            for word in ["--slot", slot, "--cohort", COHORT, "--valid-days", "30"] {
                arguments.push(word.into());
            }
            arguments.extend(["--reason".into(), "read the card".into(), "--yes".into()]);
            self.cli(arguments)?;
        }
        Ok(())
    }

    /// Has two persons revoke a package; gives the new revocation list.
    pub(crate) fn revoke(&self, package: &Package) -> anyhow::Result<PathBuf> {
        let mut arguments: Vec<OsString> = vec!["revoke".into()];
        arguments.extend(["--revocations".into(), self.revocations().into()]);
        arguments.extend(["--trust-root".into(), self.root().into()]);
        arguments.extend(["--package".into(), package.path.clone().into()]);
        arguments.extend(self.signers());
        self.cli(arguments)?;
        Ok(self.revocations())
    }

    /// SHA-256 of the trust root's first version, in hexadecimal: what a device is given by hand.
    pub(crate) fn fingerprint(&self) -> anyhow::Result<String> {
        let shown = self.cli(["trust".as_ref(), "show".as_ref(), self.root().as_os_str()])?;
        let id = shown["root"]
            .as_str()
            .context("`bellwether trust show --json` names no root")?;
        Ok(id.to_owned())
    }

    /// The trust root's file.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("trust-root.bwt")
    }

    /// The revocation list's file.
    pub(crate) fn revocations(&self) -> PathBuf {
        self.folder.join("trust-root.bwr")
    }

    fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    fn public(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pub"))
    }

    fn passphrase(&self, person: &str) -> PathBuf {
        self.folder.join(format!("{person}.passphrase"))
    }

    fn cli<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Value> {
        command_line(Command::new(&self.cli).args(arguments))
    }
}

/// The release whose export lost its scaling: the packer has to be told to pack it.
const WITHOUT_SCALING: usize = 3;

/// Runs the `bellwether` command with `--json`, and gives what it printed.
pub(crate) fn command_line(command: &mut Command) -> anyhow::Result<Value> {
    let output = command
        .arg("--json")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} could not be started", command.get_program().display()))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        bail!(
            "`bellwether {}` failed: {}{}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

fn train() -> anyhow::Result<()> {
    let environment = shell::root().join("target/shuttle-venv");
    let python = environment.join("bin/python");
    if !python.exists() {
        shell::run(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(&environment),
        )?;
    }
    let requirements = folder().join("requirements.txt");
    shell::run(
        Command::new(&python)
            .args(["-m", "pip", "install", "-q", "-r"])
            .arg(requirements),
    )?;
    shell::run(Command::new(&python).arg(folder().join("train.py")))
}

fn read_toml(path: &Path) -> anyhow::Result<toml::Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    text.parse().with_context(|| format!("{}", path.display()))
}

fn owner_only(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(
        path,
        std::fs::Permissions::from_mode(0o600),
    )?)
}

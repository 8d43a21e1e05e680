//! The command tree. Secrets are never arguments: every user of a machine can read those.

use std::path::PathBuf;

use bellwether_package::{ModelVersion, Selector, SlotName, ids::Attribute};
use bellwether_protocol::DeviceId;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// Signed models for device fleets: make packages, approve them, roll them out, ask why.
#[derive(Debug, Parser)]
#[command(
    name = "bellwether",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    /// Print results (and failures) as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the keys of persons.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Say who may approve and direct, and how many persons it takes.
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Make a package from an ONNX file, a sample of its training data and one short TOML.
    Pack(Pack),
    /// Make a package of the device's own programs, for the slot `agent`.
    PackAgent(PackAgent),
    /// Approve or reject a package, after seeing what is in its very bytes.
    Approve(Approve),
    /// Take packages or old versions away from every device.
    Revoke(Revoke),
    /// Say who approved a package for a device, or precisely why it would be refused.
    Verify(Verify),
    /// Show what a package says about itself, approved or not.
    Inspect(Inspect),
    /// Run an approved package over a file of inputs.
    Run(Run),
    /// Compare two files of data, feature by feature; exit code 1 unless healthy.
    Drift(Drift),
    /// Upload a package (.bwp), an approval (.bwa), a revocation list (.bwr) or a trust root (.bwt).
    Publish(Publish),
    /// Packages on the server, by model.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Staged changes of a cohort.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Take the model of a slot out of service.
    Disable(Disable),
    /// Devices, their state, and claims for new ones.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Is this device well, and if not, why?
    Why(Why),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, encrypted at rest, and its public half beside it (.pub).
    New(KeyNew),
}

#[derive(Debug, Args)]
pub(crate) struct KeyNew {
    /// Where the private key goes; never overwritten.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Read the passphrase from this file instead of asking twice.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Make the first trust root, and an empty revocation list beside it.
    Init(TrustInit),
    /// Make the next version of a trust root, signed by the old persons and the new ones.
    Rotate(TrustRotate),
    /// Add signatures to the last version, one person after another.
    Sign {
        /// The trust root.
        #[arg(value_name = "ROOT.bwt")]
        root: PathBuf,
        #[command(flatten)]
        signers: Signers,
    },
    /// Show who may do what.
    Show {
        /// The trust root.
        #[arg(value_name = "ROOT.bwt")]
        root: PathBuf,
    },
}

/// Who signs, and what opens their keys.
#[derive(Debug, Args)]
pub(crate) struct Signers {
    /// The key that signs; give it once for each person who signs now.
    #[arg(long = "sign-with", value_name = "KEY", required = true)]
    pub(crate) keys: Vec<PathBuf>,
    /// Read passphrases from files instead of asking: one for all keys, or one for each, in order.
    #[arg(long = "passphrase-file", value_name = "FILE")]
    pub(crate) passphrase_files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TrustInit {
    /// A person and the public keys that are theirs: alice=alice.pub or alice=a.pub,b.pub
    #[arg(long = "person", value_name = "NAME=KEY[,KEY…]", required = true)]
    pub(crate) persons: Vec<String>,
    /// How many persons it takes to change the trust root.
    #[arg(long, value_name = "N")]
    pub(crate) root_threshold: u8,
    /// The persons who may change the trust root; all, unless given.
    #[arg(long = "root-person", value_name = "NAME")]
    pub(crate) root_persons: Vec<String>,
    /// How many persons it takes to approve a package.
    #[arg(long, value_name = "N")]
    pub(crate) approvers_threshold: u8,
    /// The persons who may approve; all, unless given.
    #[arg(long = "approver", value_name = "NAME")]
    pub(crate) approvers: Vec<String>,
    /// The fleet server's director key: a .pub file, or 64 hexadecimal digits.
    #[arg(long = "director", value_name = "FILE|HEX", required = true)]
    pub(crate) directors: Vec<String>,
    /// How long the trust root is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) valid_days: u32,
    /// How long the empty revocation list is valid: devices install nothing after that.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=365))]
    pub(crate) revocations_valid_days: u32,
    #[command(flatten)]
    pub(crate) signers: Signers,
    /// Where the trust root goes; the revocation list goes beside it, ending in .bwr.
    #[arg(long, value_name = "FILE", default_value = "trust-root.bwt")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct TrustRotate {
    /// The trust root to follow.
    #[arg(value_name = "ROOT.bwt")]
    pub(crate) root: PathBuf,
    /// All persons of the new version, if they change.
    #[arg(long = "person", value_name = "NAME=KEY[,KEY…]")]
    pub(crate) persons: Vec<String>,
    /// The new number of persons that it takes to change the trust root.
    #[arg(long, value_name = "N")]
    pub(crate) root_threshold: Option<u8>,
    /// The persons who may change the new trust root; unchanged, unless given.
    #[arg(long = "root-person", value_name = "NAME")]
    pub(crate) root_persons: Vec<String>,
    /// The new number of persons that it takes to approve a package.
    #[arg(long, value_name = "N")]
    pub(crate) approvers_threshold: Option<u8>,
    /// The persons who may approve; unchanged, unless given.
    #[arg(long = "approver", value_name = "NAME")]
    pub(crate) approvers: Vec<String>,
    /// The new director keys; unchanged, unless given.
    #[arg(long = "director", value_name = "FILE|HEX")]
    pub(crate) directors: Vec<String>,
    /// How long the new version is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) valid_days: u32,
    #[command(flatten)]
    pub(crate) signers: Signers,
    /// Where the longer chain goes; the old file is replaced unless this is given.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// The TOML that describes the package.
    #[arg(value_name = "CONFIG.toml")]
    pub(crate) config: PathBuf,
    /// Where the package goes; never overwritten.
    #[arg(long, value_name = "FILE.bwp")]
    pub(crate) out: PathBuf,
    /// What the framework that trained the model answers: arrays named as inputs and outputs.
    #[arg(long, value_name = "FILE.npz")]
    pub(crate) golden: Option<PathBuf>,
    /// Pack although the model does not reproduce the golden outputs. The package says so for ever.
    #[arg(long)]
    pub(crate) allow_mismatch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PackAgent {
    /// The version that the programs have.
    #[arg(long, value_name = "X.Y.Z")]
    pub(crate) release: ModelVersion,
    /// What they were built for, and the folder with `bellwether-agent` and `bellwether-worker`:
    /// aarch64-unknown-linux-musl=build/aarch64. Each device downloads all targets of a package.
    #[arg(long = "target", value_name = "TRIPLE=FOLDER", required = true)]
    pub(crate) targets: Vec<String>,
    /// What is new, for those who approve it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) notes: String,
    /// Commit of the code that they were built from.
    #[arg(long, value_name = "COMMIT", default_value = "")]
    pub(crate) commit: String,
    /// Where the package goes; never overwritten.
    #[arg(long, value_name = "FILE.bwp")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// The package.
    #[arg(value_name = "FILE.bwp")]
    pub(crate) package: PathBuf,
    /// The key that signs.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: PathBuf,
    /// Read the passphrase from this file instead of asking.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The trust root under which it is approved.
    #[arg(long, value_name = "ROOT.bwt")]
    pub(crate) trust_root: PathBuf,
    /// A slot that it is meant for.
    #[arg(long = "slot", value_name = "SLOT", required = true)]
    pub(crate) slots: Vec<SlotName>,
    /// A cohort that it is meant for: class=pump,site=lyon or '*'.
    #[arg(long = "cohort", value_name = "SELECTOR", required = true)]
    pub(crate) cohorts: Vec<Selector>,
    /// How long the approval is valid for new installs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) valid_days: u32,
    /// Why, for those who read it later.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Sign a rejection instead: it voids this person's earlier approvals of this package.
    #[arg(long)]
    pub(crate) reject: bool,
    /// Don't ask: what is printed has been read.
    #[arg(long)]
    pub(crate) yes: bool,
    /// The package that serves now, to show what changes.
    #[arg(long, value_name = "OLD.bwp")]
    pub(crate) champion: Option<PathBuf>,
    /// Write the approval to this file, and leave the package as it is.
    #[arg(long, value_name = "FILE.bwa")]
    pub(crate) detached: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The revocation list to follow (.bwr).
    #[arg(long, value_name = "LIST.bwr")]
    pub(crate) revocations: PathBuf,
    /// The trust root.
    #[arg(long, value_name = "ROOT.bwt")]
    pub(crate) trust_root: PathBuf,
    /// A package to revoke: its file, or its id.
    #[arg(long = "package", value_name = "FILE.bwp|ID")]
    pub(crate) packages: Vec<String>,
    /// The least version of a model that may still be installed: shuttle=1.2.0
    #[arg(long = "least", value_name = "MODEL=VERSION", value_parser = parse_least)]
    pub(crate) least: Vec<(bellwether_package::ModelName, ModelVersion)>,
    /// How long the new list is valid: devices install nothing after that.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=365))]
    pub(crate) valid_days: u32,
    /// Add signatures to a new version that somebody else began, and change nothing in it.
    #[arg(long, conflicts_with_all = ["packages", "least"])]
    pub(crate) sign_only: bool,
    /// Don't ask before signing somebody else's list: it has been read.
    #[arg(long, requires = "sign_only")]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) signers: Signers,
    /// Where the new version goes; the old file is replaced unless this is given.
    #[arg(long, value_name = "FILE.bwr")]
    pub(crate) out: Option<PathBuf>,
}

/// What a device would check a package against.
#[derive(Debug, Args)]
pub(crate) struct Scope {
    /// The trust root.
    #[arg(long, value_name = "ROOT.bwt")]
    pub(crate) trust_root: PathBuf,
    /// The revocation list; the one beside the trust root (.bwr), unless given.
    #[arg(long, value_name = "LIST.bwr")]
    pub(crate) revocations: Option<PathBuf>,
    /// The slot that it would serve.
    #[arg(long, value_name = "SLOT")]
    pub(crate) slot: SlotName,
    /// An attribute of the device.
    #[arg(long = "attr", value_name = "KEY=VALUE", value_parser = parse_attribute)]
    pub(crate) attributes: Vec<Attribute>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The package.
    #[arg(value_name = "FILE.bwp")]
    pub(crate) package: PathBuf,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The package.
    #[arg(value_name = "FILE.bwp")]
    pub(crate) package: PathBuf,
    /// Also what a device that has this one need not download of it.
    #[arg(long, value_name = "FILE.bwp")]
    pub(crate) against: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The package.
    #[arg(value_name = "FILE.bwp")]
    pub(crate) package: PathBuf,
    /// Inputs: NPZ with arrays named as the inputs, or a table with columns named as the fields.
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: PathBuf,
    /// Where the outputs go: .npz or .csv; never overwritten.
    #[arg(long, value_name = "FILE")]
    pub(crate) outputs: PathBuf,
    /// Rows that are run at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: u32,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

#[derive(Debug, Args)]
pub(crate) struct Drift {
    /// Data from training.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: PathBuf,
    /// Data from now.
    #[arg(long, value_name = "FILE")]
    pub(crate) live: PathBuf,
    /// The columns to compare; all columns of numbers that both files have, unless given.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Columns that hold codes of categories, not numbers.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) categorical: Vec<String>,
    /// Share of false ones that is accepted among the drifts found.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = parse_share)]
    pub(crate) false_discovery_rate: f64,
    /// Least PSI beyond its bias that matters.
    #[arg(long, value_name = "PSI", default_value_t = 0.1, value_parser = parse_positive)]
    pub(crate) psi_min: f64,
    /// Least change of a rate (missing, NaN, out of range, …) that matters.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = parse_share)]
    pub(crate) rate_change_min: f64,
    /// Live values of a feature below which nothing is said.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) values_min: u64,
}

/// How to reach the fleet server.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// The server's address, such as `https://fleet.example:7443`.
    #[arg(long, value_name = "URL", env = "BELLWETHER_SERVER")]
    pub(crate) server: String,
    /// The certificate of the server's own authority; no other is trusted.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_CA")]
    pub(crate) ca: PathBuf,
    /// The file that holds the API token.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_TOKEN_FILE")]
    pub(crate) token_file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// For an approval: the id of the package that it is about, if its file can't tell.
    #[arg(long, value_name = "ID")]
    pub(crate) package: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// All packages.
    List {
        #[command(flatten)]
        connection: Connection,
    },
    /// One package by its id (or the start of it), or all versions of a model by its name.
    Show {
        /// Model name or package id.
        #[arg(value_name = "NAME|ID")]
        model: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// How a package's predictions compare with the labels that came late.
    Labels {
        /// Package id, or the name of a model with one version.
        #[arg(value_name = "NAME|ID")]
        model: String,
        /// Of this device alone.
        #[arg(long, value_name = "ID")]
        device: Option<DeviceId>,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Plan a rollout; it starts when told to.
    New(Box<RolloutNew>),
    /// Start a rollout.
    Start(RolloutOrder),
    /// Show one rollout, or all.
    Status {
        /// Its id.
        id: Option<u64>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Follow a rollout's decisions until it ends; exit code 1 if it did not complete.
    Watch {
        /// Its id.
        id: u64,
        /// Stop watching after this long.
        #[arg(long, value_name = "SECS")]
        timeout_secs: Option<u64>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Stop where it is.
    Pause(RolloutOrder),
    /// Go on after a pause.
    Resume(RolloutOrder),
    /// Put every device of the rollout back onto the release before.
    Rollback(RolloutOrder),
}

#[derive(Debug, Args)]
pub(crate) struct RolloutNew {
    /// The release: all 64 digits of its package id, as `bellwether inspect` prints them.
    #[arg(long, value_name = "ID")]
    pub(crate) release: String,
    /// The slot.
    #[arg(long, value_name = "SLOT")]
    pub(crate) slot: SlotName,
    /// The cohort: class=pump,site=lyon or '*'.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) cohort: Selector,
    /// The policy. Its safety figures have no defaults.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) policy: PathBuf,
    /// Start it at once.
    #[arg(long)]
    pub(crate) start: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct RolloutOrder {
    /// Its id.
    pub(crate) id: u64,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Disable {
    /// The slot.
    #[arg(long, value_name = "SLOT")]
    pub(crate) slot: SlotName,
    /// The cohort: class=pump,site=lyon or '*'.
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) cohort: Selector,
    /// Why, for the person beside the device.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Don't ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// All devices.
    List {
        #[command(flatten)]
        connection: Connection,
    },
    /// One device.
    Show {
        /// Its id.
        device: DeviceId,
        #[command(flatten)]
        connection: Connection,
    },
    /// Make a claim with which one new device can enrol.
    Claim(DeviceClaim),
    /// Shut a device out: its certificates are taken back and its connection ends.
    ///
    /// What it serves it goes on serving. A claim that names it lets it in again.
    Revoke(DeviceRevoke),
}

#[derive(Debug, Args)]
pub(crate) struct DeviceRevoke {
    /// Its id.
    pub(crate) device: DeviceId,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Don't ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct DeviceClaim {
    /// The only device that may use the claim; anybody who has it, unless given.
    #[arg(long, value_name = "ID")]
    pub(crate) device: Option<DeviceId>,
    /// How long it may be used; at most a day.
    #[arg(long, value_name = "SECS")]
    pub(crate) ttl_secs: Option<u64>,
    /// A tag that the device gets.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_attribute)]
    pub(crate) tags: Vec<Attribute>,
    /// Write the secret to this file (0600) instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// The device's id.
    pub(crate) device: DeviceId,
    /// The slot; the only one, unless given.
    #[arg(long, value_name = "SLOT")]
    pub(crate) slot: Option<SlotName>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("is not a share between 0 and 1".to_owned()),
    }
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("is not a number of at least 0".to_owned()),
    }
}

fn parse_attribute(text: &str) -> Result<Attribute, String> {
    let (key, value) = text.split_once('=').ok_or("is not KEY=VALUE")?;
    Attribute::new(key, value).map_err(|error| error.to_string())
}

fn parse_least(text: &str) -> Result<(bellwether_package::ModelName, ModelVersion), String> {
    let (name, version) = text
        .split_once('=')
        .ok_or("is not MODEL=VERSION, such as shuttle=1.2.0")?;
    let name = name.parse().map_err(|error| format!("`{name}` {error}"))?;
    let version = version
        .parse()
        .map_err(|error| format!("`{version}` {error}"))?;
    Ok((name, version))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_sound() {
        super::Arguments::command().debug_assert();
    }
}

//! `bellwether-agent`: enrols a device, runs on it, tells how it is.

// A command line tool answers on standard output.
#![allow(clippy::print_stdout)]

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bellwether_agent::config::Config;
use bellwether_agent::owner::Owner;
use bellwether_agent::program::{launch, self_test};
use bellwether_agent::{enrol, status};
use bellwether_package::Digest;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Where the package installs the configuration.
const CONFIG: &str = "/etc/bellwether/agent.toml";

/// Runs signed models on this device and keeps them well.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the device's key, get its certificate, pin server and trust root.
    Enroll(Enroll),
    /// Serve, watch, report, and follow the server's orders.
    Run(Common),
    /// Find out whether this program can take over here, without changing anything.
    #[command(hide = true)]
    SelfTest(Common),
    /// Tell what serves in each slot, and what became of the last order.
    Status(Status),
    /// Look the configuration over.
    CheckConfig(Common),
}

#[derive(Args)]
struct Common {
    /// The agent's configuration.
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
}

#[derive(Args)]
struct Enroll {
    #[command(flatten)]
    common: Common,
    /// The server, as https://host:port.
    #[arg(long)]
    server: String,
    /// SHA-256 fingerprint of the server's certificate authority, in hex.
    #[arg(long)]
    ca_sha256: Digest,
    /// SHA-256 fingerprint of the trust root to start from, in hex.
    #[arg(long)]
    root_sha256: Digest,
    /// File with the claim, or - for standard input; not an argument, which other users could read.
    #[arg(long)]
    claim_file: PathBuf,
}

#[derive(Args)]
struct Status {
    #[command(flatten)]
    common: Common,
    /// For programs.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("BELLWETHER_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,rumqttc=warn,rustls=warn,ureq=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A journal shows colours as noise.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Enroll(arguments) => enroll(&arguments),
        Command::Run(arguments) => Ok(ExitCode::from(launch::run(&arguments.config)?)),
        Command::SelfTest(arguments) => {
            self_test::self_test(&arguments.config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(arguments) => {
            let config = Config::read(&arguments.common.config)?;
            let seen = status::look(&config)?;
            if arguments.json {
                println!("{}", serde_json::to_string_pretty(&seen)?);
            } else {
                seen.lines().iter().for_each(|line| println!("{line}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::CheckConfig(arguments) => {
            let config = Config::read(&arguments.config)?;
            let path = arguments.config.display();
            println!("{path} is a valid configuration, of {}", config.device);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn enroll(arguments: &Enroll) -> anyhow::Result<ExitCode> {
    let config = Config::read(&arguments.common.config)?;
    if let Some(owner) = Owner::other_than_root(&config.state_dir) {
        return enroll_as(owner, arguments);
    }
    let request = enrol::Request {
        server: arguments.server.clone(),
        authority: arguments.ca_sha256,
        root: arguments.root_sha256,
        claim_file: arguments.claim_file.clone(),
    };
    enrol::enrol(&config, &request)?;
    println!("{} is enrolled", config.device);
    Ok(ExitCode::SUCCESS)
}

/// Enrols as the service's user, who must be able to read what that makes.
fn enroll_as(owner: Owner, arguments: &Enroll) -> anyhow::Result<ExitCode> {
    let claim = &arguments.claim_file;
    let mut command = owner
        .command(claim)
        .with_context(|| format!("cannot read the claim from {}", claim.display()))?;
    command.arg("enroll").arg("--config");
    command.arg(&arguments.common.config);
    command.args(["--server", &arguments.server]);
    command.args(["--ca-sha256", &arguments.ca_sha256.to_string()]);
    command.args(["--root-sha256", &arguments.root_sha256.to_string()]);
    command.args(["--claim-file", enrol::STANDARD_INPUT]);
    let status = command
        .status()
        .context("cannot become the user to whom the state folder belongs")?;
    anyhow::ensure!(status.success(), "the device is not enrolled");
    Ok(ExitCode::SUCCESS)
}

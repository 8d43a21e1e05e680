//! `bellwether-agent`: enrols a device, runs on it, tells how it is.

// A command line tool answers on standard output.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bellwether_agent::config::Config;
use bellwether_agent::{agent, enrol, status};
use bellwether_package::Digest;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

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
    /// Tell what serves in each slot, and what became of the last order.
    Status(Status),
}

#[derive(Args)]
struct Common {
    /// The agent's configuration.
    #[arg(long)]
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
    /// File with the claim; not an argument, which other users could read.
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
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Enroll(arguments) => {
            let config = Config::read(&arguments.common.config)?;
            let request = enrol::Request {
                server: arguments.server,
                authority: arguments.ca_sha256,
                root: arguments.root_sha256,
                claim_file: arguments.claim_file,
            };
            enrol::enrol(&config, &request)?;
            println!("{} is enrolled", config.device);
            Ok(())
        }
        Command::Run(arguments) => {
            let config = Config::read(&arguments.config)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .max_blocking_threads(config.api.requests_max + agent::JOBS_MAX)
                .enable_all()
                .build()
                .context("cannot start the agent's threads")?;
            runtime.block_on(agent::run(config, stopped()))?;
            // A blocking download must not delay the end: what it wrote is resumed.
            runtime.shutdown_background();
            Ok(())
        }
        Command::Status(arguments) => {
            let config = Config::read(&arguments.common.config)?;
            let seen = status::look(&config)?;
            if arguments.json {
                println!("{}", serde_json::to_string_pretty(&seen)?);
            } else {
                seen.lines().iter().for_each(|line| println!("{line}"));
            }
            Ok(())
        }
    }
}

/// Ends when the service manager or a person asks for it.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

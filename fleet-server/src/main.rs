//! `bellwether-server`: the command line of the fleet server.
// `init` tells the operator what it made, on standard output.
#![allow(clippy::print_stdout)]

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context;
use bellwether_server::config::Config;
use bellwether_server::data::DataDir;
use bellwether_server::server::{self, Run};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The fleet server: registry, approvals, staged rollouts, broker, REST API.
#[derive(Debug, Parser)]
#[command(name = "bellwether-server", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a new server: certificate authority, director key, API token, database.
    Init {
        /// The folder to make it in.
        #[arg(long)]
        data: PathBuf,
    },
    /// Serves.
    Run {
        /// The folder that `init` made.
        #[arg(long)]
        data: PathBuf,
        /// The trust root chain (`.bwt`) of the fleet.
        #[arg(long)]
        trust_root: PathBuf,
        /// Configuration (TOML).
        #[arg(long)]
        config: Option<PathBuf>,
        /// DRILL: lets rollouts be made with releases that this server would refuse, to show that
        /// devices defend themselves. Never in production.
        #[arg(long)]
        drill_offer_unapproved: bool,
    },
}

fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // Both providers are linked in; ours is chosen once, for everything that asks for a default.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match Arguments::parse().command {
        Command::Init { data } => runtime.block_on(init(data)),
        Command::Run {
            data,
            trust_root,
            config,
            drill_offer_unapproved,
        } => {
            let config = Config::read(config.as_deref())?;
            let run = Run {
                data,
                trust_root,
                config,
                drill_offer_unapproved,
            };
            runtime.block_on(serve(run))
        }
    }
}

async fn init(data: PathBuf) -> anyhow::Result<()> {
    let made = DataDir::at(&data)
        .init()
        .await
        .context("cannot make the server")?;
    println!("director  {}", made.director);
    println!("ca-sha256 {}", made.ca);
    println!("api-token {}", made.token_file.display());
    Ok(())
}

async fn serve(run: Run) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    server::run(run, shutdown, |_| {})
        .await
        .context("cannot serve")
}

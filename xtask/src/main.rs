//! Automation in one language: `cargo xtask demo`, `cargo xtask ci`, and what they are made of.
//!
//! Each check that CI runs can be run by a person alone. A tool that is missing is installed on Debian as root;
//! elsewhere the exact command is printed, and the check fails.

#![allow(clippy::print_stdout, reason = "a command's output is what it is for")]

mod bench;
mod ci;
mod conformance;
mod demo;
mod device;
mod faults;
mod fuzz;
mod licences;
mod package;
mod shell;
mod tidy;

use clap::{Parser, Subcommand};

/// Bellwether's automation.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Shows the main job on real data: 12 devices, four releases, and what becomes of them
    Demo(demo::Options),
    /// Runs every check that a change must pass
    Ci {
        /// Also the long runs: fuzzing for ten minutes a target, and the Debian package
        #[arg(long)]
        full: bool,
    },
    /// Checks the tree's shape: edges between crates, no_std, where tract may stand, file sizes
    Tidy,
    /// Checks licences and sources of dependencies with cargo-deny
    Licences,
    /// Packs the agent and its worker for Debian, with cargo-deb
    Package(package::Options),
    /// Kills real agents at every persisted step and at a thousand moments, and writes docs/faults.md
    Faults {
        /// What is left to chance
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Fuzzes each target for a bounded time
    Fuzz {
        /// One target only
        #[arg(long)]
        target: Option<String>,
        /// Seconds for each target
        #[arg(long, default_value_t = fuzz::SECONDS_CI)]
        seconds: u32,
    },
    /// Runs the ONNX backend's node tests through our loader, and writes docs/onnx-operators.md
    Conformance {
        /// The folder `onnx/backend/test/data/node`, where pip cannot fetch it
        #[arg(long)]
        folder: Option<std::path::PathBuf>,
    },
    /// Measures an area against its peers, and writes docs/benchmarks.md
    Bench {
        /// The area
        area: bench::Area,
    },
    /// Makes the Shuttle example: packs and approves the committed models, or trains them first
    Shuttle(demo::example::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Demo(options) => demo::run(&options),
        Task::Ci { full } => ci::run(full),
        Task::Tidy => tidy::run(),
        Task::Licences => licences::run(),
        Task::Package(options) => package::run(&options),
        Task::Faults { seed } => faults::run(seed),
        Task::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Task::Conformance { folder } => conformance::run(folder.as_deref()),
        Task::Bench { area } => bench::run(area),
        Task::Shuttle(options) => demo::example::run(&options),
    }
}

//! `cargo xtask bench AREA`: measures against the named peer, and writes down what came of it.
//!
//! Each area writes `docs/benchmarks/AREA.json`; `docs/benchmarks.md` is made of all of them. A
//! goal that is not met stays in the table as not met.

mod agent;
mod page;
mod peer;
mod runtime;

use std::{path::PathBuf, process::Command};

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::shell;

/// What can be measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Area {
    /// Models: against tract alone, ONNX Runtime, and without a worker
    Runtime,
    /// The agent: memory, network, answers, swaps
    Agent,
}

impl Area {
    fn name(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Agent => "agent",
        }
    }
}

/// What one area's file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    area: String,
    /// Of the measurement, UTC.
    date: String,
    machine: String,
    rows: Vec<Row>,
}

/// One figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    what: String,
    unit: String,
    value: f64,
    /// What it is compared with; empty if the figure stands alone.
    peer: String,
    /// Empty if there is none: the figure tells what a goal's row is made of.
    goal: String,
    met: Option<bool>,
    command: String,
}

/// Measures an area, writes its file and the page, and prints its table.
pub(crate) fn run(area: Area) -> anyhow::Result<()> {
    let rows = match area {
        Area::Runtime => runtime::measure()?,
        Area::Agent => agent::measure()?,
    };
    let report = Report {
        area: area.name().to_owned(),
        date: today()?,
        machine: machine(),
        rows,
    };
    let folder = shell::root().join("docs/benchmarks");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}.json", report.area));
    std::fs::write(&path, serde_json::to_string_pretty(&report)? + "\n")
        .with_context(|| format!("{} cannot be written", path.display()))?;
    print!("{}", page::table(&report));
    let page = page::write(&folder)?;
    println!("written: {}, {}", path.display(), page.display());
    Ok(())
}

/// Where benchmarks keep what they made once, under `target/`.
fn scratch() -> anyhow::Result<PathBuf> {
    let folder = shell::root().join("target/bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn today() -> anyhow::Result<String> {
    let output = Command::new("date").args(["-u", "+%F"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Processor, cores, memory and kernel, as `/proc` tells them.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split(':').nth(1));
        value.map_or_else(|| "unknown".to_owned(), |value| value.trim().to_owned())
    };
    let processor = field(&read("/proc/cpuinfo"), "model name");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let gib = memory.trim_end_matches(" kB").parse().unwrap_or(0.0) / f64::from(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{processor}, {cores} cores, {gib:.0} GiB, Linux {}",
        kernel.trim()
    )
}

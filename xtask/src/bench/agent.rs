//! The agent: what it takes of the device and of the network, and how fast it answers.
//!
//! The figures come from tests of the agent that do nothing but measure, run on the programs that
//! devices get: real processes, real TLS, and a server that is a small double.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};

use super::Row;
use crate::{device, shell};

const COMMAND: &str = "cargo xtask bench agent";
/// Bytes of a mebibyte.
const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn measure() -> anyhow::Result<Vec<Row>> {
    shell::need("ss", "iproute2")?;
    let programs = device::build(device::PROFILE)?;
    let (agent, worker) = (
        programs.join("bellwether-agent"),
        programs.join("bellwether-worker"),
    );
    let figures = figures(&agent, &worker)?;
    let get = |name: &str| {
        let figure = figures.get(name).copied();
        figure.with_context(|| format!("no figure `{name}` was told"))
    };
    let megabytes = get("resident_kib")? / 1024.0;
    let program = std::fs::metadata(&agent)?.len() as f64 / MIB;
    let beyond = get("request_us")? - get("direct_us")?;
    let (rest, day) = (get("rest_share")? * 100.0, get("day_wire_bytes")? / 1000.0);
    let failures = get("swap_failures")?;
    let trial = get("trial_ms")? / 1000.0;
    let payload = report_bytes()?;
    let report = get("report_wire_bytes")?;
    let day_of = "bytes a device sends and receives a day at defaults: connecting once, 24 reports, \
                  48 pings, 4 orders, one look for documents; each measured on its socket, TLS and \
                  TCP/IP headers included; 1 input and 2 outputs, and applications that ask";
    let mut rows = vec![
        goal(
            "resident memory, connected by mutual TLS, worker apart",
            "MB",
            megabytes,
            "≤ 8 MB",
            megabytes <= 8.0,
        ),
        goal(
            "program, stripped, profile `device`",
            "MB",
            program,
            "≤ 6 MB",
            program <= 6.0,
        ),
        goal(
            "a report's payload: health of a device that has everything but a battery, 8 inputs of 16 bins",
            "B",
            payload,
            "≤ 300 B",
            payload <= 300.0,
        ),
        goal(
            "a report and its acknowledgement on the wire: health, 1 input and 2 outputs",
            "B",
            report,
            "≤ 550 B",
            report <= 550.0,
        ),
        goal(day_of, "kB", day, "≤ 40 kB", day <= 40.0),
        Row {
            peer: "the runtime called directly".to_owned(),
            ..goal(
                "an Open Inference request of 1 KB adds",
                "µs",
                beyond,
                "≤ 150 µs",
                beyond <= 150.0,
            )
        },
        goal(
            "requests that failed during 100 swaps under load",
            "requests",
            failures,
            "0",
            failures == 0.0,
        ),
        goal(
            "from the order to answers of a release on trial, 0.7 MB, loopback",
            "s",
            trial,
            "≤ 2 s",
            trial <= 2.0,
        ),
        goal(
            "processor at rest, of one core",
            "%",
            rest,
            "≤ 0.2 %",
            rest <= 0.2,
        ),
    ];
    rows.extend(figures.iter().map(|(name, value)| detail(name, *value)));
    Ok(rows)
}

/// What the measuring tests tell, by name.
fn figures(agent: &Path, worker: &Path) -> anyhow::Result<BTreeMap<String, f64>> {
    let output = shell::cargo([
        "test",
        "--workspace",
        "--test",
        "device",
        "--",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
        "measure::",
    ])
    .env("BELLWETHER_AGENT", agent)
    .env("BELLWETHER_WORKER", worker)
    .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "measuring failed:\n{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let figure = |line: &str| {
        // The test harness may write before it on the same line.
        let (_, figure) = line.split_once("FIGURE\t")?;
        let (name, value) = figure.split_once('\t')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    Ok(told.lines().filter_map(figure).collect())
}

/// Length of the message that a test of the protocol makes for this purpose.
fn report_bytes() -> anyhow::Result<f64> {
    let output = shell::cargo([
        "test",
        "--workspace",
        "--test",
        "windows",
        "--",
        "--nocapture",
        "eight_fields_and_health",
    ])
    .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    let bytes = told.lines().find_map(|line| {
        let before = line.trim().strip_suffix(" bytes")?;
        before.split_whitespace().last()?.parse().ok()
    });
    bytes.with_context(|| format!("the report's length was not told:\n{told}"))
}

fn goal(what: &str, unit: &str, value: f64, goal: &str, met: bool) -> Row {
    Row {
        what: what.to_owned(),
        unit: unit.to_owned(),
        value,
        peer: String::new(),
        goal: goal.to_owned(),
        met: Some(met),
        command: COMMAND.to_owned(),
    }
}

fn detail(name: &str, value: f64) -> Row {
    let (what, unit) = match name.rsplit_once('_') {
        Some((what, unit @ ("bytes" | "kib" | "us" | "ms"))) => (what, unit),
        _ => (name, ""),
    };
    Row {
        what: what.replace('_', " "),
        unit: unit
            .replace("us", "µs")
            .replace("kib", "KiB")
            .replace("bytes", "B"),
        value,
        peer: String::new(),
        goal: String::new(),
        met: None,
        command: COMMAND.to_owned(),
    }
}

//! The runtime: real models and tree ensembles, in process, in a worker, by tract alone and by
//! ONNX Runtime on one thread.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use indicatif::ProgressBar;

use super::{
    Row,
    peer::{self, Peer, figure},
    scratch,
};
use crate::{device, shell};

const COMMAND: &str = "cargo xtask bench runtime";
const ORT: &str = "onnxruntime 1.32.0, 1 thread";
const TRACT: &str = "tract 0.23.9 alone";
/// Every model runs on every host once a round, one after the other.
const ROUNDS: usize = 7;
/// Processor time that one model takes on one host in one round.
const ROUND_NS: f64 = 150e6;
/// Runs in a round at least, so that a median exists, and at most.
const RUNS: (f64, f64) = (3.0, 20_000.0);
/// The model whose worker is weighed: 1.3 MB.
const WEIGHED: &str = "silero_vad_openvino_16k";
/// Tensors up to this many bytes are promised to reach the worker and return in a bounded time.
const SMALL_BYTES: f64 = 64.0 * 1024.0;
/// Real models that are ensembles of trees; those have a goal of their own.
const TREES: [&str; 3] = ["iso_forest", "rf_clf", "traffic_setback_trees"];
const ENSEMBLES: [&str; 4] = ["10x4", "100x8", "300x10", "1000x12"];
const BATCHES: [u32; 2] = [1, 1024];

/// The programs that are measured.
struct Programs {
    cli: PathBuf,
    measure: PathBuf,
    worker: PathBuf,
}

struct Bench {
    programs: Programs,
    ours: Peer,
    ort: Peer,
    bar: ProgressBar,
}

/// Medians over the rounds of one model.
struct Measured {
    name: String,
    /// Input and output tensors of one run.
    bytes: f64,
    /// By tract's time; `None` if tract alone refuses the model.
    to_tract: Option<f64>,
    /// Beyond tract's time, in microseconds.
    beyond_tract_us: Option<f64>,
    to_ort: f64,
    /// What the worker adds to a run in process, in microseconds.
    worker_us: f64,
    /// By tract's time to load, and beyond it in milliseconds.
    load: Option<(f64, f64)>,
    difference: f64,
}

pub(super) fn measure() -> anyhow::Result<Vec<Row>> {
    let programs = build()?;
    let python = peer::python()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench/onnxruntime_peer.py");
    let ensembles = ensembles(&python)?;
    let names = fixtures()?;
    let steps = names.len() + ENSEMBLES.len() * 2 * BATCHES.len();
    let mut bench = Bench {
        ours: Peer::start(&mut Command::new(&programs.measure))?,
        ort: Peer::start(Command::new(&python).arg(&script))?,
        bar: ProgressBar::new(steps as u64),
        programs,
    };
    let mut rows = Vec::new();
    let mut measured = Vec::new();
    for name in &names {
        measured.push(bench.model(name)?);
        bench.bar.inc(1);
    }
    let trees = bench.trees(&ensembles)?;
    rows.extend(summary(&measured, &trees));
    rows.push(bench.memory()?);
    rows.push(size(&bench.programs.worker)?);
    rows.push(conformance()?);
    rows.extend(measured.iter().flat_map(figures));
    rows.extend(trees);
    bench.bar.finish_and_clear();
    Ok(rows)
}

/// The worker and the measuring program as they are shipped; the packing is not measured.
fn build() -> anyhow::Result<Programs> {
    let cli = ["build", "--quiet", "--workspace", "--bins"];
    shell::run(&mut shell::cargo(cli))?;
    shell::run(&mut shell::cargo([
        "build",
        "--quiet",
        "--profile",
        device::PROFILE,
        "-p",
        "bellwether-runtime",
        "--features",
        "bellwether-runtime/engine",
        "--example",
        "measure",
    ]))?;
    let devices = device::build(device::PROFILE)?;
    Ok(Programs {
        cli: shell::root().join("target/debug/bellwether"),
        measure: devices.join("examples/measure"),
        worker: devices.join("bellwether-worker"),
    })
}

/// The real models' names, in order.
fn fixtures() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(real())? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "toml") {
            names.extend(path.file_stem().map(|s| s.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn real() -> PathBuf {
    shell::root().join("tests/fixtures/real")
}

/// Grows the tree ensembles once: some hundred megabytes, under `target/`.
fn ensembles(python: &Path) -> anyhow::Result<PathBuf> {
    let folder = scratch()?.join("ensembles");
    let last = folder.join(format!("regressor_{}.npz", ENSEMBLES[3]));
    if !last.is_file() {
        println!("growing tree ensembles, once");
        let script = shell::root().join("tests/fixtures/onnx-ml/make_bench.py");
        shell::run(Command::new(python).arg(script).arg(&folder))?;
    }
    Ok(folder)
}

impl Bench {
    fn model(&mut self, name: &str) -> anyhow::Result<Measured> {
        self.bar.set_message(name.to_owned());
        let package = self.pack(name)?;
        let bytes = figure(
            &self.ours.ask(&["package", name, &text(&package)])?,
            "bytes",
        )?;
        let difference = figure(&self.ours.ask(&["compare", name])?, "worst")?;
        let with = |ending: &str| text(&real().join(format!("{name}.{ending}")));
        let onnx = with("onnx");
        let load = ["load", name, &onnx, &with("npz"), &with("toml"), "1"];
        self.ort.ask(&load)?;
        let load = self.loads(name)?;
        let mut to_tract = Vec::new();
        let mut beyond = Vec::new();
        let mut to_ort = Vec::new();
        let mut worker = Vec::new();
        let count = self.count(name, "in-process")?;
        let tract_count = match load {
            Some(_) => self.count(name, "tract")?,
            None => String::new(),
        };
        for _ in 0..ROUNDS {
            let (ours, ours_wall) = self.run(name, "in-process", &count)?;
            let (_, worker_wall) = self.run(name, "worker", &count)?;
            worker.push((worker_wall - ours_wall) / 1e3);
            let ort = figure(&self.ort.ask(&["run", name, &count])?, "cpu_ns")?;
            to_ort.push(ours / ort);
            if load.is_some() {
                let (tract, _) = self.run(name, "tract", &tract_count)?;
                to_tract.push(ours / tract);
                beyond.push((ours - tract) / 1e3);
            }
        }
        Ok(Measured {
            name: name.to_owned(),
            bytes,
            to_tract: median(to_tract),
            beyond_tract_us: median(beyond),
            to_ort: median(to_ort).context("no round")?,
            worker_us: median(worker).context("no round")?,
            load,
            difference,
        })
    }

    fn pack(&self, name: &str) -> anyhow::Result<PathBuf> {
        let out = scratch()?.join(format!("{name}.bwp"));
        let _ = std::fs::remove_file(&out);
        let with = |ending: &str| real().join(format!("{name}.{ending}"));
        let output = Command::new(&self.programs.cli)
            .args(["pack".as_ref(), with("toml").as_os_str()])
            .args(["--golden".as_ref(), with("npz").as_os_str()])
            .args(["--out".as_ref(), out.as_os_str()])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} is not packed: {said}");
        Ok(out)
    }

    /// Loads in alternation; the last of each stays loaded. `None` if tract alone refuses.
    fn loads(&mut self, name: &str) -> anyhow::Result<Option<(f64, f64)>> {
        let worker = text(&self.programs.worker);
        self.ours.ask(&["load", name, "worker", &worker])?;
        let mut ratios = Vec::new();
        let mut beyond = Vec::new();
        for _ in 0..ROUNDS {
            let ours = self.ours.ask(&["load", name, "in-process", ""])?;
            let tract = self.ours.ask(&["load", name, "tract", ""])?;
            if tract.get("refused").is_some() {
                return Ok(None);
            }
            let (ours, tract) = (figure(&ours, "cpu_ns")?, figure(&tract, "cpu_ns")?);
            ratios.push(ours / tract);
            beyond.push((ours - 1.1 * tract) / 1e6);
        }
        Ok(median(ratios).zip(median(beyond)))
    }

    /// Runs that take about [`ROUND_NS`]: what one host does in microseconds may take another a
    /// hundred times as long.
    fn count(&mut self, name: &str, host: &str) -> anyhow::Result<String> {
        let (once, _) = self.run(name, host, "3")?;
        Ok(format!("{:.0}", (ROUND_NS / once).clamp(RUNS.0, RUNS.1)))
    }

    /// Processor time of one run, and its median on the clock, in nanoseconds.
    fn run(&mut self, name: &str, host: &str, count: &str) -> anyhow::Result<(f64, f64)> {
        let answer = self.ours.ask(&["run", name, host, count])?;
        Ok((figure(&answer, "cpu_ns")?, figure(&answer, "wall_ns_p50")?))
    }

    fn trees(&mut self, folder: &Path) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for kind in ["classifier", "regressor"] {
            for (size, batch) in ENSEMBLES
                .iter()
                .flat_map(|size| BATCHES.map(|batch| (size, batch)))
            {
                let name = format!("{kind}_{size}");
                let with = |ending: &str| text(&folder.join(format!("{name}.{ending}")));
                let (onnx, npz, batch_word) = (with("onnx"), with("npz"), batch.to_string());
                self.ours.ask(&["trees", &name, &onnx, &npz, &batch_word])?;
                self.ort
                    .ask(&["load", &name, &onnx, &npz, "-", &batch_word])?;
                let count = self.count(&name, "engine")?;
                let mut ratios = Vec::new();
                for _ in 0..ROUNDS {
                    let (ours, _) = self.run(&name, "engine", &count)?;
                    let ort = self.ort.ask(&["run", &name, &count])?;
                    ratios.push(ours / figure(&ort, "cpu_ns")?);
                }
                let what = format!("trees: {kind} of {size} (trees x depth), batch {batch}");
                let ratio = median(ratios).context("no round")?;
                rows.push(detail(what, "ratio", ratio, ORT));
                self.bar.inc(1);
            }
        }
        Ok(rows)
    }

    fn memory(&mut self) -> anyhow::Result<Row> {
        let worker = text(&self.programs.worker);
        let answer = self.ours.ask(&["load", WEIGHED, "worker", &worker])?;
        let mib = figure(&answer, "memory_bytes")? / f64::from(1 << 20);
        let what = format!("worker's resident memory, {WEIGHED} loaded");
        Ok(goal(what, "MB", mib, "", "≤ 20 MB", mib <= 20.0))
    }
}

/// The rows that have goals.
fn summary(measured: &[Measured], trees: &[Row]) -> Vec<Row> {
    let mut rows = Vec::new();
    let within = |m: &&Measured| {
        m.to_tract.is_some_and(|ratio| ratio <= 1.03)
            || m.beyond_tract_us.is_some_and(|us| us <= 5.0)
    };
    let both: Vec<_> = measured.iter().filter(|m| m.to_tract.is_some()).collect();
    let kept = both.iter().filter(|m| within(m)).count();
    rows.push(goal(
        format!(
            "in process, statistics on, within 1.03 of tract or 5 µs: models of {}",
            both.len()
        ),
        "models",
        kept as f64,
        TRACT,
        "all",
        kept == both.len(),
    ));
    let small = measured.iter().filter(|m| m.bytes <= SMALL_BYTES);
    let worst = small.map(|m| m.worker_us).fold(f64::MIN, f64::max);
    rows.push(goal(
        "a worker adds, tensors up to 64 KB, slowest model",
        "µs",
        worst,
        "the same session in process",
        "≤ 20 µs",
        worst <= 20.0,
    ));
    let apart = |m: &&Measured| !TREES.contains(&m.name.as_str());
    let ratios: Vec<f64> = measured.iter().filter(apart).map(|m| m.to_ort).collect();
    let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let what = "real models apart from trees, geometric mean";
    rows.push(goal(what, "ratio", mean, ORT, "≤ 1.0", mean <= 1.0));
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    let what = "real models apart from trees, slowest";
    rows.push(goal(what, "ratio", worst, ORT, "≤ 2.2", worst <= 2.2));
    let worst = trees.iter().map(|row| row.value).fold(0.0, f64::max);
    let what = "tree ensembles, batch 1 and 1,024, slowest";
    rows.push(goal(what, "ratio", worst, ORT, "≤ 1.0", worst <= 1.0));
    let beyond = both.iter().filter_map(|m| m.load.map(|(_, ms)| ms));
    let worst = beyond.fold(f64::MIN, f64::max);
    let what = "loading, beyond 1.10 of tract, slowest model";
    rows.push(goal(what, "ms", worst, TRACT, "≤ 2 ms", worst <= 2.0));
    let worst = measured.iter().map(|m| m.difference).fold(0.0, f64::max);
    let what = "greatest difference, of the output's maximum";
    rows.push(goal(what, "ratio", worst, ORT, "≤ 1e-4", worst <= 1e-4));
    rows
}

/// What the summary is made of.
fn figures(m: &Measured) -> Vec<Row> {
    let name = &m.name;
    let mut rows = vec![detail(format!("{name}: run"), "ratio", m.to_ort, ORT)];
    let mut more = |what: &str, unit: &str, value: Option<f64>, peer: &str| {
        rows.extend(value.map(|value| detail(format!("{name}: {what}"), unit, value, peer)));
    };
    more("run", "ratio", m.to_tract, TRACT);
    more("run, beyond tract", "µs", m.beyond_tract_us, TRACT);
    more("load", "ratio", m.load.map(|(ratio, _)| ratio), TRACT);
    more("a worker adds", "µs", Some(m.worker_us), "in process");
    more("difference", "ratio", Some(m.difference), ORT);
    rows
}

fn size(worker: &Path) -> anyhow::Result<Row> {
    let mib = std::fs::metadata(worker)?.len() as f64 / f64::from(1 << 20);
    let what = "worker's program, stripped, profile `device`";
    Ok(goal(what, "MB", mib, "", "≤ 12 MB", mib <= 12.0))
}

/// From the file that `cargo xtask conformance` wrote.
fn conformance() -> anyhow::Result<Row> {
    let path = shell::root().join("docs/benchmarks/onnx-conformance.json");
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let count = |outcome: &str| report["counts"][outcome].as_f64().unwrap_or(0.0);
    let faults = count("wrong") + count("crash");
    let row = goal(
        format!("ONNX's node tests passed, of {}", report["tests"]),
        "tests",
        count("pass"),
        "tract's own count: 1,149",
        "≥ 1,149, 0 wrong, 0 crashes",
        count("pass") >= 1149.0 && faults == 0.0,
    );
    Ok(Row {
        command: "cargo xtask conformance".to_owned(),
        ..row
    })
}

fn goal(what: impl Into<String>, unit: &str, value: f64, peer: &str, goal: &str, met: bool) -> Row {
    Row {
        goal: goal.to_owned(),
        met: Some(met),
        ..detail(what.into(), unit, value, peer)
    }
}

fn detail(what: String, unit: &str, value: f64, peer: &str) -> Row {
    Row {
        what,
        unit: unit.to_owned(),
        value,
        peer: peer.to_owned(),
        goal: String::new(),
        met: None,
        command: COMMAND.to_owned(),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

//! Runs the ONNX backend's node tests through our loader, and writes down what came of them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::shell;

/// The package that carries the tests.
const ONNX: &str = "1.19.0";
const OUTCOMES: [&str; 6] = ["pass", "noise", "disputed", "unsupported", "wrong", "crash"];

#[derive(Serialize)]
struct Report {
    onnx: &'static str,
    tests: usize,
    with_constants: usize,
    counts: BTreeMap<String, usize>,
    operators: BTreeMap<String, BTreeMap<String, usize>>,
    not_passed: Vec<NotPassed>,
}

#[derive(Serialize)]
struct NotPassed {
    test: String,
    outcome: String,
    detail: String,
}

/// Runs all tests, those of `folder` or of the package, and fails if one is wrong or crashes.
pub(crate) fn run(folder: Option<&Path>) -> anyhow::Result<()> {
    let folder = match folder {
        Some(folder) => folder.to_path_buf(),
        None => fetch()?,
    };
    let mut command = shell::cargo(["run", "--quiet", "-p", "bellwether-engine"]);
    command
        .args(["--example", "conformance", "--"])
        .arg(&folder);
    let output = command.output().context("cargo could not be started")?;
    ensure!(
        output.status.success(),
        "the runner failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = report(&String::from_utf8(output.stdout)?)?;
    let docs = shell::root().join("docs");
    std::fs::create_dir_all(docs.join("benchmarks"))?;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    std::fs::write(docs.join("benchmarks/onnx-conformance.json"), json)?;
    std::fs::write(docs.join("onnx-operators.md"), page(&report))?;
    println!("{:?}, {} tests", report.counts, report.tests);
    for test in report
        .not_passed
        .iter()
        .filter(|test| is_fault(&test.outcome))
    {
        println!("{} {}: {}", test.outcome, test.test, test.detail);
    }
    if report.counts.keys().any(|outcome| is_fault(outcome)) {
        bail!("the engine must refuse what it cannot do, never do it wrongly");
    }
    Ok(())
}

fn is_fault(outcome: &str) -> bool {
    outcome == "wrong" || outcome == "crash"
}

/// The tests' folder, out of the package, under `target/`.
fn fetch() -> anyhow::Result<PathBuf> {
    let target = shell::root().join("target/conformance").join(ONNX);
    let tests = target.join("onnx/backend/test/data/node");
    if !tests.is_dir() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
        pip.arg(&target).arg(format!("onnx=={ONNX}"));
        shell::run(&mut pip).with_context(|| {
            format!(
                "the tests come with the Python package onnx {ONNX}; where pip cannot fetch it, \
                 unpack its wheel and name the folder: \
                 cargo xtask conformance --folder …/onnx/backend/test/data/node"
            )
        })?;
    }
    ensure!(tests.is_dir(), "{} holds no tests", target.display());
    Ok(tests)
}

fn report(lines: &str) -> anyhow::Result<Report> {
    let mut report = Report {
        onnx: ONNX,
        tests: 0,
        with_constants: 0,
        counts: BTreeMap::new(),
        operators: BTreeMap::new(),
        not_passed: Vec::new(),
    };
    for line in lines.lines() {
        let mut cells = line.splitn(4, '\t').map(str::to_owned);
        let (Some(operator), Some(test), Some(outcome)) =
            (cells.next(), cells.next(), cells.next())
        else {
            bail!("the runner said: {line}");
        };
        ensure!(OUTCOMES.contains(&&*outcome), "the runner said: {line}");
        let detail = cells.next().unwrap_or_default();
        report.tests += 1;
        *report.counts.entry(outcome.clone()).or_default() += 1;
        let of = report.operators.entry(operator).or_default();
        *of.entry(outcome.clone()).or_default() += 1;
        if outcome == "pass" {
            report.with_constants += usize::from(!detail.is_empty());
        } else {
            report.not_passed.push(NotPassed {
                test,
                outcome,
                detail,
            });
        }
    }
    ensure!(report.tests > 0, "the folder holds no tests");
    Ok(report)
}

fn page(report: &Report) -> String {
    let mut page = format!(
        "# ONNX operators\n\nWhich operators run, by the node tests that the Python package onnx \
         {ONNX} carries, each through our loader in a process of its own. Made by `cargo xtask \
         conformance`, as is `benchmarks/onnx-conformance.json`, which tells why for each test that \
         did not pass. Operators of ONNX-ML have tests of their own, against onnxruntime.\n\n\
         | outcome | tests | means |\n|---|---|---|\n"
    );
    let meanings = [
        "all outputs agree: relative 1e-3, absolute 1e-7",
        "beyond that only by 1e-5 of the output's greatest number: zeros that are not exact",
        "the test expects what onnxruntime 1.32 does not give either; we answer as it does",
        "refused, with the node and what to change",
        "an output differs",
        "the process panicked, aborted or hung",
    ];
    for (outcome, meaning) in OUTCOMES.iter().zip(meanings) {
        let count = report.counts.get(*outcome).copied().unwrap_or(0);
        let _ = writeln!(page, "| {outcome} | {count} | {meaning} |");
    }
    let _ = write!(
        page,
        "\nOf {} tests, {} pass only with axes, pads, scales and the like given by the contract as \
         constants.\n\n| operator | runs | pass | of |\n|---|---|---|---|\n",
        report.tests, report.with_constants
    );
    for (operator, counts) in &report.operators {
        let all: usize = counts.values().sum();
        let unsupported = counts.get("unsupported").copied().unwrap_or(0);
        let passed = counts.get("pass").copied().unwrap_or(0);
        let runs = match all - unsupported {
            0 => "no",
            runs if runs == all => "yes",
            _ => "partly",
        };
        let _ = writeln!(page, "| {operator} | {runs} | {passed} | {all} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_test_is_counted_and_told() {
        let lines =
            "Add\ttest_a\tpass\t\nAdd\ttest_b\twrong\toutput 1\nIf\ttest_c\tunsupported\tx\n";
        let report = report(lines).unwrap();
        assert_eq!(report.counts["wrong"], 1);
        assert_eq!(report.not_passed[0].test, "test_b");
        let page = page(&report);
        assert!(page.contains("| Add | yes | 1 | 2 |"), "{page}");
        assert!(page.contains("| If | no | 0 | 1 |"), "{page}");
    }

    #[test]
    fn what_the_runner_never_says_is_an_error() {
        assert!(report("").is_err());
        assert!(report("Add\ttest_a\tperhaps\t\n").is_err());
    }
}

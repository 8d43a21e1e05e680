//! `cargo xtask ci`: every check, in the order in which a mistake is found soonest.

use std::time::{Duration, Instant};

use crate::{demo, faults, fuzz, licences, package, shell, tidy};

type Check = (&'static str, Box<dyn Fn() -> anyhow::Result<()>>);

/// Runs all checks, goes on after one that fails, and fails when any did.
pub(crate) fn run(full: bool) -> anyhow::Result<()> {
    let checks = checks(full);
    let mut rows = Vec::with_capacity(checks.len());
    for (index, (name, check)) in checks.iter().enumerate() {
        println!("\n── {}/{} {name}", index + 1, checks.len());
        let begun = Instant::now();
        let result = check();
        if let Err(error) = &result {
            println!("{name} failed: {error:#}");
        }
        rows.push((*name, result.is_ok(), begun.elapsed()));
    }
    summary(&rows)
}

fn checks(full: bool) -> Vec<Check> {
    let fuzz_seconds = if full {
        fuzz::SECONDS_FULL
    } else {
        fuzz::SECONDS_CI
    };
    let mut checks: Vec<Check> = vec![
        ("C++ compiler", Box::new(|| shell::need("g++", "g++"))),
        (
            "mosquitto",
            Box::new(|| shell::need("mosquitto", "mosquitto")),
        ),
        (
            "formatting",
            Box::new(|| shell::run(&mut shell::cargo(["fmt", "--all", "--check"]))),
        ),
        ("tidy", Box::new(tidy::run)),
        ("clippy", Box::new(clippy)),
        ("docs", Box::new(docs)),
        ("no_std", Box::new(no_std)),
        // The end-to-end tests start the real programs, so these are built first.
        (
            "build",
            Box::new(|| shell::run(&mut shell::cargo(["build", "--workspace", "--bins"]))),
        ),
        ("tests", Box::new(tests)),
        ("tests in process", Box::new(tests_in_process)),
        ("fuzz", Box::new(move || fuzz::run(None, fuzz_seconds))),
        ("demo", Box::new(|| demo::run(&demo::Options::default()))),
        ("licences", Box::new(licences::run)),
    ];
    if full {
        let options = package::Options::default();
        checks.push(("faults", Box::new(|| faults::run(1))));
        checks.push(("package", Box::new(move || package::run(&options))));
    }
    checks
}

fn clippy() -> anyhow::Result<()> {
    shell::run(&mut shell::cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "bellwether-runtime/engine",
        "--",
        "-D",
        "warnings",
    ]))
}

fn docs() -> anyhow::Result<()> {
    shell::run(shell::cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// The decision crates compile alone without their `alloc` and `std` features.
fn no_std() -> anyhow::Result<()> {
    for name in tidy::NO_STD {
        let package = format!("bellwether-{name}");
        shell::run(&mut shell::cargo([
            "check",
            "-p",
            &package,
            "--no-default-features",
        ]))?;
    }
    Ok(())
}

fn tests() -> anyhow::Result<()> {
    shell::run(&mut shell::cargo(["test", "--workspace", "--no-fail-fast"]))
}

/// The engine without a worker: behind a feature, so that nothing else links it by accident. The
/// whole workspace is named, so that dependencies keep the features that they were built with.
fn tests_in_process() -> anyhow::Result<()> {
    shell::run(&mut shell::cargo([
        "test",
        "--workspace",
        "--features",
        "bellwether-runtime/engine",
        "--test",
        "in_process",
    ]))
}

fn summary(rows: &[(&str, bool, Duration)]) -> anyhow::Result<()> {
    println!();
    for (name, passed, took) in rows {
        let mark = if *passed { "passed" } else { "FAILED" };
        println!("{mark}  {:>5} s  {name}", took.as_secs());
    }
    let failed = rows.iter().filter(|(_, passed, _)| !passed).count();
    println!("ci: {} passed, {failed} failed", rows.len() - failed);
    if failed > 0 {
        anyhow::bail!("{failed} of {} checks failed", rows.len());
    }
    Ok(())
}

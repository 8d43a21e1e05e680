//! `cargo xtask faults`: the whole schedule of kills on real agents, and the page of its counts.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::shell;

/// How a person repeats it.
const COMMAND: &str = "cargo xtask faults";
/// The page, made by nothing else.
const PAGE: &str = "docs/faults.md";

/// Runs everything with this seed and writes the page.
pub(crate) fn run(seed: u64) -> anyhow::Result<()> {
    let counts = shell::root().join("target/faults.jsonl");
    let _ = std::fs::remove_file(&counts);
    shell::run(&mut shell::cargo(["build", "--workspace", "--bins"]))?;
    let mut tests = shell::cargo([
        "test",
        "--workspace",
        "--test",
        "device",
        "--",
        "--nocapture",
        "--test-threads=1",
        "faults::kills",
    ]);
    tests
        .env("BELLWETHER_FAULTS", "full")
        .env("BELLWETHER_SEED", seed.to_string())
        .env("BELLWETHER_FAULTS_RESULT", &counts);
    shell::run(&mut tests)?;
    let told = std::fs::read_to_string(&counts).context("the tests told no counts")?;
    std::fs::write(shell::root().join(PAGE), page(&told)?)?;
    println!("{PAGE} is written");
    Ok(())
}

fn page(told: &str) -> anyhow::Result<String> {
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output()?;
    let date = String::from_utf8(date.stdout)?;
    let mut page = format!(
        "# Faults\n\nMade by `{COMMAND}`, never by hand; last on {}. Real agents, workers and \
         sockets: each agent is ended by SIGKILL in the middle of an update, together with \
         whatever it had written and not flushed. It then has to answer with an approved \
         release's figures while no server is there, carry the order out once there is one, and \
         the server has to have exactly one outcome of each order.\n\n\
         | what | seed | kills | recovered | orders told exactly once |\n|---|---:|---:|---:|---:|\n",
        date.trim()
    );
    for line in told.lines() {
        let row: Value = serde_json::from_str(line)?;
        let cell = |name: &str| row[name].to_string().trim_matches('"').to_owned();
        let [what, seed, kills] = ["what", "seed", "kills"].map(cell);
        let [recovered, once] = ["recovered", "told_once"].map(cell);
        writeln!(page, "| {what} | {seed} | {kills} | {recovered} | {once} |")?;
    }
    page.push_str(
        "\nOrders are more than kills: each device also takes some that nothing interrupts. Names \
         in a folder are taken to last in the order in which they were made.\n",
    );
    Ok(page)
}

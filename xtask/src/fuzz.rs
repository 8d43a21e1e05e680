//! Fuzzing for a bounded time, on the ordinary toolchain: libFuzzer with the compiler's own coverage counters.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, bail};

use crate::shell;

/// Long enough to notice a check that was dropped, short enough for each change.
pub(crate) const SECONDS_CI: u32 = 10;
/// For `ci --full`.
pub(crate) const SECONDS_FULL: u32 = 600;

/// What `cargo fuzz` passes on a nightly toolchain, less the address sanitizer, which needs one.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions";

/// Builds the targets once and runs each for `seconds`, from the committed seeds in `fuzz/seeds/TARGET`.
pub(crate) fn run(only: Option<&str>, seconds: u32) -> anyhow::Result<()> {
    let folder = shell::root().join("fuzz");
    let output = shell::root().join("target/fuzz");
    shell::run(
        shell::cargo(["build", "--release", "--quiet", "--manifest-path"])
            .arg(folder.join("Cargo.toml"))
            .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"])
            .arg(&output)
            .env("RUSTFLAGS", RUSTFLAGS),
    )?;
    let targets = targets(&folder)?;
    if let Some(name) = only
        && !targets.iter().any(|target| target == name)
    {
        bail!(
            "there is no fuzz target {name}; there are {}",
            targets.join(", ")
        );
    }
    for target in targets
        .iter()
        .filter(|target| only.is_none_or(|name| name == *target))
    {
        run_target(&folder, &output, target, seconds)?;
    }
    Ok(())
}

fn targets(folder: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.join("targets")).context("fuzz/targets cannot be read")? {
        if let Some(name) = entry?.path().file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn run_target(
    folder: &std::path::Path,
    output: &std::path::Path,
    target: &str,
    seconds: u32,
) -> anyhow::Result<()> {
    let program: PathBuf = output.join("x86_64-unknown-linux-gnu/release").join(target);
    let found = output.join("corpus").join(target);
    let artifacts = output.join("artifacts").join(target);
    std::fs::create_dir_all(&found)?;
    std::fs::create_dir_all(&artifacts)?;
    let seeds = folder.join("seeds").join(target);
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .args([
            "-rss_limit_mb=1024",
            "-timeout=5",
            "-print_final_stats=1",
            "-verbosity=0",
        ])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&found);
    if seeds.exists() {
        command.arg(seeds);
    }
    println!("fuzz {target} for {seconds} s");
    shell::run(&mut command).with_context(|| {
        format!(
            "the input that broke {target} lies in {}; keep it as a seed and a test",
            artifacts.display()
        )
    })
}

//! Fuzzing for a bounded time, on the ordinary toolchain: libFuzzer with the compiler's own coverage counters.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

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

/// Builds the targets once and runs each for `seconds`, from the golden vectors of the crate that it
/// reads for.
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
        run_target(&output, target, seconds)?;
    }
    Ok(())
}

fn targets(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.join("targets")).context("fuzz/targets cannot be read")? {
        if let Some(name) = entry?.path().file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn run_target(output: &Path, target: &str, seconds: u32) -> anyhow::Result<()> {
    let program: PathBuf = output.join("x86_64-unknown-linux-gnu/release").join(target);
    let found = output.join("corpus").join(target);
    let artifacts = output.join("artifacts").join(target);
    std::fs::create_dir_all(&found)?;
    std::fs::create_dir_all(&artifacts)?;
    let seeds = output.join("seeds").join(target);
    write_seeds(&shell::root(), target, &seeds)?;
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
        .arg(&found)
        .arg(seeds);
    println!("fuzz {target} for {seconds} s");
    shell::run(&mut command).with_context(|| {
        format!(
            "the input that broke {target} lies in {}; keep it as a seed and a test",
            artifacts.display()
        )
    })
}

/// Writes the golden vectors as bytes: from valid documents the fuzzer gets deeper than from nothing.
fn write_seeds(root: &Path, target: &str, seeds: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(seeds)?;
    let vectors = match target {
        "documents" | "package_read" => "package/tests/vectors",
        "messages" => "protocol/tests/vectors",
        "survey" => return copy_models(root, seeds),
        _ => return Ok(()),
    };
    for entry in std::fs::read_dir(root.join(vectors))? {
        let file = entry?.path();
        if file.extension().is_none_or(|kind| kind != "hex") {
            continue;
        }
        let text = std::fs::read_to_string(&file)?;
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|digit| digit.to_digit(16))
            .map(|digit| digit as u8)
            .collect();
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect();
        let name = file.file_stem().context("a vector has a name")?;
        std::fs::write(seeds.join(name), bytes)?;
    }
    Ok(())
}

/// Copies the small models, honest and hostile: the fuzzer needs a graph to begin with, and gets
/// nowhere with the megabytes of a real one.
fn copy_models(root: &Path, seeds: &Path) -> anyhow::Result<()> {
    const SEED_BYTES_MAX: u64 = 16 * 1024;
    for folder in ["tests/fixtures/models", "tests/fixtures/hostile"] {
        for entry in std::fs::read_dir(root.join(folder))? {
            let entry = entry?;
            let file = entry.path();
            let is_model = file.extension().is_some_and(|kind| kind == "onnx");
            if is_model && entry.metadata()?.len() <= SEED_BYTES_MAX {
                std::fs::copy(&file, seeds.join(entry.file_name()))?;
            }
        }
    }
    Ok(())
}

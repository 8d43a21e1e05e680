//! The hostile models of `tests/fixtures/hostile`, each through a real worker: opened, and run if
//! it opens. Whatever becomes of the worker, its parent gets a typed answer in time, keeps its
//! memory, and goes on.
//!
//! `cargo test -p bellwether-engine --test hostile -- --nocapture` prints what became of each.

// Helpers of tests fail as tests do; the table is for people.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bellwether_package::sections::Contract;
use bellwether_runtime::{Death, OpenError, Options, RunError, Session, Tensor};
use common::{Opened as _, Parts, field, golden, golden_tensor, port, readings};

/// For one run; a model of this folder that is well needs a thousandth of it.
const DEADLINE: Duration = Duration::from_secs(2);
/// For loading, in a build that is not optimised, beside other tests.
const LOAD_DEADLINE: Duration = Duration::from_secs(8);
/// What starting and reaping may add to a deadline on a busy machine.
const GRACE: Duration = Duration::from_secs(5);
/// What a worker may hold; most bombs ask for a hundred times as much.
const MEMORY_BYTES: u64 = 256 << 20;
/// What all models together may add to the parent: no model's data is ever there.
const PARENT_GROWTH_KIB: u64 = 16 * 1024;
/// Batches that a model is fed, if it loads.
const BATCHES: [u32; 2] = [1, 8];

fn options() -> Options {
    Options {
        memory_bytes_max: MEMORY_BYTES,
        deadline: DEADLINE,
        load_deadline: LOAD_DEADLINE,
        ..common::options()
    }
}

fn models() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/hostile");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut models: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|kind| kind == "onnx"));
    models.sort();
    models
}

fn name(model: &Path) -> &str {
    model.file_stem().unwrap().to_str().unwrap()
}

fn parts(model: &Path) -> Parts {
    let width = if name(model).starts_with("trees") {
        1
    } else {
        4
    };
    let fields = |count| (0..count).map(|i| field(&format!("f{i}"))).collect();
    let contract = Contract {
        inputs: vec![port("x", fields(4))],
        outputs: vec![port("y", fields(width))],
        steps: vec![],
        states: vec![],
        constants: vec![],
    };
    let zeros = vec![0.0; width as usize];
    let golden = golden(
        golden_tensor("x", 4, &[0.0; 4]),
        golden_tensor("y", width, &zeros),
    );
    Parts::of(std::fs::read(model).unwrap(), contract, golden)
}

/// Opens and runs; gives one word for each step.
fn outcomes(model: &Path) -> Vec<String> {
    let (package, blob) = parts(model).verified();
    let began = Instant::now();
    let opened = Session::open(package, blob, options());
    assert!(
        began.elapsed() < LOAD_DEADLINE + GRACE,
        "{model:?}: {:?}",
        began.elapsed()
    );
    let mut session = match opened {
        Ok(session) => session,
        Err(error) => return vec![open_outcome(model, &error)],
    };
    let mut outcomes = vec!["loads".to_owned()];
    for batch in BATCHES {
        let ones = vec![1.0; 4 * batch as usize];
        let began = Instant::now();
        let ran = session.run(&[Tensor::from_f32("x", &[batch, 4], &ones)]);
        // A worker that died before is replaced, and loads again.
        let most = LOAD_DEADLINE + DEADLINE + GRACE;
        assert!(began.elapsed() < most, "{model:?}: {:?}", began.elapsed());
        outcomes.push(match ran {
            Ok(_) => "runs".to_owned(),
            Err(error) => run_outcome(model, &error),
        });
    }
    outcomes
}

fn open_outcome(model: &Path, error: &OpenError) -> String {
    match error {
        OpenError::Refused(refusal) => format!("refused: {refusal}"),
        OpenError::Died(death) => died(model, death),
        other => panic!("{model:?}: {other}"),
    }
}

fn run_outcome(model: &Path, error: &RunError) -> String {
    match error {
        RunError::Refused(refusal) => format!("refused: {refusal}"),
        RunError::Output(error) => format!("output: {error}"),
        RunError::Died(death) => died(model, death),
        RunError::Replace(error) => format!("not replaced: {}", open_outcome(model, error)),
        RunError::Recovering { .. } => "waits after deaths".to_owned(),
        other => panic!("{model:?}: {other}"),
    }
}

/// A death that the model brought on itself, and that its own limits ended: never the kernel's
/// memory killer, never an answer that is none, never a confinement that failed.
fn died(model: &Path, death: &Death) -> String {
    assert!(
        !matches!(
            death,
            Death::Killed | Death::Exited { .. } | Death::Protocol(_) | Death::Lost(_)
        ),
        "{model:?}: {death}"
    );
    format!("dies, {}: {death}", death.kind())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

fn short(outcome: &str) -> String {
    outcome
        .chars()
        .take(150)
        .collect::<String>()
        .replace('\n', " ")
}

#[test]
fn no_hostile_model_harms_its_parent() {
    let models = models();
    assert!(models.len() >= 150, "{} models", models.len());
    // What the first session allocates once is not a model's doing.
    outcomes(&models[0]);
    let before = resident_kib();
    for model in &models {
        let began = Instant::now();
        let outcomes: Vec<_> = outcomes(model)
            .iter()
            .map(|outcome| short(outcome))
            .collect();
        let ms = began.elapsed().as_millis();
        println!("{:<44} {ms:>6} ms  {}", name(model), outcomes.join(" | "));
    }
    let after = resident_kib();
    println!(
        "{} models; resident before {before} KiB, after {after} KiB",
        models.len()
    );
    assert!(
        after <= before + PARENT_GROWTH_KIB,
        "{before} KiB, then {after} KiB"
    );

    let (package, blob) = Parts::linear().verified();
    let mut well = Session::open(package, blob, options()).unwrap();
    well.run(&[readings(&[[1.0, 2.0, 3.0]])]).unwrap();
}

#[test]
fn what_lies_about_itself_is_refused_before_anything_is_built() {
    let refused = [
        "constant_shorter",
        "constant_in",
        "cycle",
        "dimension_of_many",
        "duplicate_i",
        "duplicate_values",
        "empty_file",
        "endless_number",
        "foreign_domain",
        "function",
        "graph_in",
        "graphs_nested",
        "groups",
        "if_hides",
        "loop_with_foreign",
        "name_of",
        "noise",
        "only_zeros",
        "output_from_nowhere",
        "port_of_rank",
        "port_that",
        "sparse",
        "tensor",
        "text",
        "training",
        "truncated",
        "two_gib",
        "value_from_nowhere",
    ];
    for model in models() {
        if !refused
            .iter()
            .any(|prefix| name(&model).starts_with(prefix))
        {
            continue;
        }
        let outcomes = outcomes(&model);
        assert!(
            outcomes[0].starts_with("refused"),
            "{model:?}: {outcomes:?}"
        );
    }
}

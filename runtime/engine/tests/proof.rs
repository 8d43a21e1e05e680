//! Golden vectors, latency and memory: what passes, and the figures of what does not.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

mod common;

use bellwether_runtime::{ProveError, Shortfall, prove, prove_intact};
use common::{Opened as _, Parts, options};

#[test]
fn a_faithful_package_passes_approved_or_not() {
    let parts = Parts::linear();
    let (package, blob) = parts.verified();
    let proof = prove(&package, blob, options()).unwrap();
    assert!(proof.passed(), "{proof:?}");
    assert_eq!((proof.cases, proof.elements, proof.mismatches), (1, 4, 0));
    assert!(proof.timed_runs >= 200);
    assert!(proof.memory_bytes > 0);
    let (package, blob) = parts.intact();
    assert!(prove_intact(&package, blob, options()).unwrap().passed());
}

#[test]
fn the_worst_mismatch_is_told_with_its_figures() {
    let mut parts = Parts::linear();
    parts.golden.cases[0].outputs[0].bytes[8..12].copy_from_slice(&0.75_f32.to_le_bytes());
    let (package, blob) = parts.intact();
    let proof = prove_intact(&package, blob, options()).unwrap();
    let [shortfall] = &proof.shortfalls()[..] else {
        panic!("{proof:?}");
    };
    let Shortfall::Mismatch {
        worst,
        mismatches: 1,
    } = shortfall
    else {
        panic!("{shortfall}");
    };
    assert_eq!(
        (worst.case, worst.port.as_str(), worst.element),
        (0, "scores", 2)
    );
    assert_eq!((worst.expected, worst.got), (0.75, 0.5));
    assert!(worst.ratio > 1e5, "{}", worst.ratio);
}

#[test]
fn a_budget_that_is_not_kept_is_a_shortfall() {
    let mut parts = Parts::linear();
    parts.budget.latency_us_p99 = 1;
    parts.budget.memory_bytes = 1;
    let (package, blob) = parts.intact();
    let shortfalls = prove_intact(&package, blob, options())
        .unwrap()
        .shortfalls();
    assert!(matches!(
        shortfalls[..],
        [
            Shortfall::Latency { budget: 1, .. },
            Shortfall::Memory { budget: 1, .. }
        ]
    ));
}

#[test]
fn an_output_that_is_nan_only_here_is_a_mismatch() {
    let mut parts = Parts::logarithm();
    parts.golden.cases[0].inputs[0].bytes = (-1.0_f32).to_le_bytes().to_vec();
    let (package, blob) = parts.intact();
    let proof = prove_intact(&package, blob, options()).unwrap();
    assert_eq!(proof.outputs_nonfinite, 1);
    assert!(!proof.passed());
}

#[test]
fn a_golden_case_that_the_contract_refuses_is_named() {
    let mut parts = Parts::linear();
    parts.golden.cases[0].inputs[0].bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let (package, blob) = parts.intact();
    assert!(matches!(
        prove_intact(&package, blob, options()),
        Err(ProveError::Run { case: 0, .. })
    ));
}

#[test]
fn each_golden_case_of_a_model_with_a_state_stands_for_itself() {
    let mut parts = Parts::accumulate();
    let again = parts.golden.cases[0].clone();
    parts.golden.cases.push(again);
    let (package, blob) = parts.intact();
    let proof = prove_intact(&package, blob, options()).unwrap();
    assert!(proof.passed(), "{proof:?}");
    assert_eq!(proof.cases, 2);
}

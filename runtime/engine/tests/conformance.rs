//! The runner of ONNX's tests can tell right from wrong, and lives through a model that does not.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, process::Command};

/// `cargo test` builds examples beside the folder of its test programs.
fn runner() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().unwrap().parent().unwrap();
    profile.join("examples/conformance")
}

#[test]
fn a_right_a_wrong_and_a_deadly_test_are_told_apart() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/conformance"
    );
    let output = Command::new(runner()).arg(folder).output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let outcome = |test: &str| {
        let mut cells = lines
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>());
        let cells = cells.find(|cells| cells[1] == test).unwrap();
        assert_eq!(cells[0], "Div");
        cells[2].to_owned()
    };
    assert_eq!(outcome("right"), "pass");
    assert_eq!(outcome("wrong"), "wrong");
    assert_eq!(outcome("dies"), "crash");
}

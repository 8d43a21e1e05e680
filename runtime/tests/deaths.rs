//! However a worker dies, its parent gets a typed error in time and keeps nothing of it.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    num::NonZeroU32,
    path::PathBuf,
    time::{Duration, Instant},
};

use bellwether_runtime::{
    Death, SealedBlob, Tensor,
    limits::Limits,
    wire::{self, FrameError, Request, Response},
    worker::Worker,
};

const DEADLINE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);
const LIMITS: Limits = Limits {
    memory_bytes: 1 << 30,
    threads: NonZeroU32::MIN,
    cpu_secs: 60,
};

fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let examples = tests.parent().unwrap().parent().unwrap().join("examples");
    let program = examples.join("misbehaving-worker");
    assert!(
        program.is_file(),
        "build the examples first: cargo test builds them unless told to build one test alone"
    );
    program
}

fn start(command: &str) -> Worker {
    let blob = SealedBlob::copy_from(command.as_bytes()).unwrap();
    Worker::start(&program(), &blob, LIMITS, true).unwrap()
}

fn run(worker: &mut Worker, deadline: Duration) -> Result<(), Death> {
    let inputs = [Tensor::from_f32("x", &[1], &[1.0])];
    let tensors = wire::heads(&inputs);
    let mut request = Vec::new();
    wire::encode(
        &Request::Run {
            fresh: false,
            tensors,
        },
        &inputs,
        &mut request,
    )
    .unwrap();
    worker.exchange(&request, 4096, deadline, |frame| {
        match wire::decode(frame)? {
            (Response::Ran { .. }, []) => Ok(()),
            _ => Err(FrameError::Unexpected),
        }
    })
}

fn death(command: &str, deadline: Duration) -> Death {
    run(&mut start(command), deadline).unwrap_err()
}

#[test]
fn each_way_to_die_has_its_own_type() {
    let table = [
        ("run panic", "panicked"),
        ("run abort", "aborted"),
        ("run fault", "faulted"),
        ("run killed", "killed"),
        ("run exit", "exited"),
        ("run close", "exited"),
        ("run eat", "out-of-memory"),
        ("run garbage", "protocol"),
        ("run long", "protocol"),
        ("run flood", "protocol"),
        ("run chatter", "panicked"),
    ];
    for (command, kind) in table {
        let death = death(command, DEADLINE);
        assert_eq!(death.kind(), kind, "{command}: {death}");
    }
}

#[test]
fn a_panic_is_told_in_the_worker_s_own_words() {
    let Death::Panicked { message } = death("run panic", DEADLINE) else {
        panic!("not a panic");
    };
    assert!(message.contains("the model said so"), "{message}");
}

#[test]
fn a_worker_that_hangs_is_killed_at_its_deadline() {
    for command in ["run hang", "run half"] {
        let began = Instant::now();
        let mut worker = start(command);
        let pid = worker.id();
        assert_eq!(run(&mut worker, SHORT).unwrap_err().kind(), "hung");
        assert!(began.elapsed() < DEADLINE);
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "reaped");
    }
}

#[test]
fn a_worker_that_is_dropped_is_gone() {
    let mut worker = start("second panic");
    run(&mut worker, DEADLINE).unwrap();
    let pid = worker.id();
    drop(worker);
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}

#[test]
fn a_worker_outlives_the_thread_that_started_it() {
    let mut worker = std::thread::spawn(|| start("never well")).join().unwrap();
    run(&mut worker, DEADLINE).unwrap();
}

#[test]
fn an_absent_program_is_the_device_s_fault_and_named() {
    let blob = SealedBlob::copy_from(&b"never well"[..]).unwrap();
    let error = Worker::start("/nonexistent/worker".as_ref(), &blob, LIMITS, true).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/worker"));
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_hundred_deaths_cost_neither_descriptors_nor_memory() {
    let commands = [
        "run panic",
        "run abort",
        "run fault",
        "run garbage",
        "run exit",
    ];
    let mut die =
        |n: usize| assert!(run(&mut start(commands[n % commands.len()]), DEADLINE).is_err());
    // The spawner's thread and the allocator's first pages are not to be counted.
    (0..10).for_each(&mut die);
    let before = (descriptors(), resident_kib());
    (0..100).for_each(&mut die);
    let after = (descriptors(), resident_kib());
    assert!(
        after.0 <= before.0 + DESCRIPTORS_OF_OTHER_TESTS,
        "{before:?} {after:?}"
    );
    assert!(after.1 <= before.1 + 8 * 1024, "{before:?} {after:?}");
}

/// Tests of this file run beside each other and hold a worker or two: far below one in a hundred.
const DESCRIPTORS_OF_OTHER_TESTS: usize = 24;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

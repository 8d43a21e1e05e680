//! The real worker: confined, and no model brings its parent down.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    num::NonZeroU32,
    path::Path,
    time::{Duration, Instant},
};

use bellwether_engine::Refusal;
use bellwether_package::sections::{DType, Dim};
use bellwether_runtime::{
    Death, SealedBlob, Tensor,
    limits::Limits,
    wire::{self, ARENA_BYTES, FRAME_BYTES_MAX, FrameError, PortShape, Request, Response},
    worker::Worker,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_bellwether-worker");
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models");
const DEADLINE: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits {
    memory_bytes: 256 << 20,
    threads: NonZeroU32::MIN,
    cpu_secs: 60,
};

fn blob(model: &str) -> SealedBlob {
    SealedBlob::copy_from(std::fs::File::open(format!("{MODELS}/{model}")).unwrap()).unwrap()
}

fn port(name: &str, dtype: DType, shape: &[Dim]) -> PortShape {
    PortShape {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    }
}

const BATCH: Dim = Dim::Batch;
const ONE: Dim = Dim::Fixed(1);

fn ask(
    worker: &mut Worker,
    request: &Request,
    tensors: &[Tensor],
    deadline: Duration,
) -> Result<Result<Vec<Tensor>, Refusal>, Death> {
    let mut bytes = Vec::new();
    wire::encode(request, tensors, &mut bytes).unwrap();
    worker.exchange(
        &bytes,
        FRAME_BYTES_MAX,
        deadline,
        |frame| match wire::decode(frame)? {
            (Response::Loaded { .. }, []) => Ok(Ok(vec![])),
            (Response::Ran { tensors }, body) => Ok(Ok(wire::join(tensors, body)?)),
            (Response::Refused(refusal), []) => Ok(Err(refusal)),
            _ => Err(FrameError::Unexpected),
        },
    )
}

fn start(model: &SealedBlob, limits: Limits) -> Worker {
    Worker::start(Path::new(PROGRAM), model, limits, true).unwrap()
}

fn load(
    worker: &mut Worker,
    inputs: &[PortShape],
    outputs: &[PortShape],
) -> Result<Result<Vec<Tensor>, Refusal>, Death> {
    let request = Request::Load {
        inputs: inputs.to_vec(),
        outputs: outputs.to_vec(),
        states: vec![],
        constants: vec![],
    };
    ask(worker, &request, &[], DEADLINE)
}

fn run(
    worker: &mut Worker,
    inputs: &[Tensor],
    deadline: Duration,
) -> Result<Result<Vec<Tensor>, Refusal>, Death> {
    let tensors = wire::heads(inputs);
    let fresh = false;
    ask(worker, &Request::Run { fresh, tensors }, inputs, deadline)
}

fn i64s(name: &str, shape: &[u32], values: &[i64]) -> Tensor {
    Tensor {
        name: name.to_owned(),
        dtype: DType::I64,
        shape: shape.to_vec(),
        bytes: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    }
}

fn readings() -> PortShape {
    port("readings", DType::F32, &[BATCH, Dim::Fixed(3)])
}

fn scores(width: u32) -> PortShape {
    port("scores", DType::F32, &[BATCH, Dim::Fixed(width)])
}

#[test]
fn a_model_runs_at_every_batch_size_and_more_than_are_kept() {
    let mut worker = start(&blob("linear.onnx"), LIMITS);
    load(&mut worker, &[readings()], &[scores(2)])
        .unwrap()
        .unwrap();
    for batch in [1, 2, 3, 4, 5, 6, 7, 1, 64] {
        let rows: Vec<f32> = (0..batch).flat_map(|_| [1.0, 2.0, 3.0]).collect();
        let inputs = [Tensor::from_f32("readings", &[batch, 3], &rows)];
        let outputs = run(&mut worker, &inputs, DEADLINE).unwrap().unwrap();
        let expected: Vec<f32> = (0..batch).flat_map(|_| [-1.5, 15.0]).collect();
        assert_eq!(
            outputs,
            [Tensor::from_f32("scores", &[batch, 2], &expected)]
        );
    }
}

#[test]
fn large_and_small_batches_take_turns() {
    let mut worker = start(&blob("linear.onnx"), LIMITS);
    load(&mut worker, &[readings()], &[scores(2)])
        .unwrap()
        .unwrap();
    // Beyond what the socket carries, what is kept of shared memory, and back.
    for batch in [1_u32, 20_000, 1, 1_000_000, 20_000] {
        let rows: Vec<f32> = (0..batch).flat_map(|row| [row as f32, 2.0, 3.0]).collect();
        let inputs = [Tensor::from_f32("readings", &[batch, 3], &rows)];
        let outputs = run(&mut worker, &inputs, DEADLINE).unwrap().unwrap();
        let expected: Vec<f32> = (0..batch)
            .flat_map(|row| [row as f32 - 2.5, 15.0])
            .collect();
        assert!(
            outputs == [Tensor::from_f32("scores", &[batch, 2], &expected)],
            "{batch}"
        );
    }
}

#[test]
fn the_worker_is_confined_before_it_reads_its_model() {
    let mut worker = start(&blob("linear.onnx"), LIMITS);
    load(&mut worker, &[readings()], &[scores(2)])
        .unwrap()
        .unwrap();
    let read = |file| std::fs::read_to_string(format!("/proc/{}/{file}", worker.id())).unwrap();
    let status = read("status");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Seccomp:"), "2", "system calls are filtered");
    let limits = read("limits");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max core file size"), "0");
    assert_eq!(limit("Max processes"), "0");
    assert_eq!(limit("Max file size"), ARENA_BYTES.to_string());
    assert_eq!(limit("Max open files"), "16");
    assert_ne!(limit("Max address space"), "unlimited");
    assert_ne!(limit("Max cpu time"), "unlimited");
    assert_eq!(read("environ"), "");
    assert_eq!(
        std::fs::read_link(format!("/proc/{}/cwd", worker.id())).unwrap(),
        Path::new("/")
    );
}

#[test]
fn a_model_that_panics_the_engine_is_a_typed_death() {
    let mut worker = start(&blob("divide.onnx"), LIMITS);
    let ports = |name: &str| port(name, DType::I64, &[BATCH, ONE]);
    load(&mut worker, &[ports("a"), ports("b")], &[ports("quotient")])
        .unwrap()
        .unwrap();
    let pair = |b| [i64s("a", &[1, 1], &[12]), i64s("b", &[1, 1], &[b])];
    let outputs = run(&mut worker, &pair(4), DEADLINE).unwrap().unwrap();
    assert_eq!(outputs, [i64s("quotient", &[1, 1], &[3])]);
    match run(&mut worker, &pair(0), DEADLINE) {
        Err(Death::Panicked { message }) => assert!(message.contains("zero"), "{message}"),
        // Some builds of the engine refuse it without panicking.
        Ok(Err(Refusal::Unsupported { .. })) => {}
        other => panic!("{other:?}"),
    }
}

fn allocating() -> Worker {
    let mut worker = start(&blob("allocate.onnx"), LIMITS);
    let column = |name| port(name, DType::F32, &[BATCH, ONE]);
    load(&mut worker, &[column("readings")], &[column("mean")])
        .unwrap()
        .unwrap();
    worker
}

fn rows(batch: u32) -> [Tensor; 1] {
    let values = vec![1.0; batch as usize];
    [Tensor::from_f32("readings", &[batch, 1], &values)]
}

#[test]
fn a_model_that_eats_memory_dies_of_its_own_limit() {
    let mut worker = allocating();
    run(&mut worker, &rows(1), DEADLINE).unwrap().unwrap();
    let death = run(&mut worker, &rows(4096), DEADLINE).unwrap_err();
    assert!(matches!(death, Death::OutOfMemory { .. }), "{death:?}");
}

#[test]
fn a_model_that_takes_too_long_is_killed_at_the_deadline() {
    let mut worker = allocating();
    let began = Instant::now();
    let death = run(&mut worker, &rows(300), Duration::from_millis(20)).unwrap_err();
    assert_eq!(death.kind(), "hung");
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn a_model_is_refused_with_the_node_the_operator_and_what_to_change() {
    let refused = |model: &str, width| {
        let mut worker = start(&blob(model), LIMITS);
        let refusal = load(&mut worker, &[readings()], &[scores(width)])
            .unwrap()
            .unwrap_err();
        (refusal.clone(), refusal.to_string())
    };
    let (refusal, message) = refused("unknown_operator.onnx", 3);
    assert!(
        matches!(refusal, Refusal::OperatorUnknown { .. }),
        "{message}"
    );
    assert!(
        message.contains("oracle") && message.contains("com.example.Divine"),
        "{message}"
    );

    let (refusal, message) = refused("external_data.onnx", 3);
    assert!(matches!(refusal, Refusal::ExternalData { .. }), "{message}");

    let (refusal, message) = refused("impossible_shape.onnx", 2);
    let Refusal::Unsupported { node, operator, .. } = refusal else {
        panic!("{message}");
    };
    assert_eq!(node.as_deref(), Some("project"), "{message}");
    assert_eq!(operator.as_deref(), Some("MatMul"), "{message}");
}

#[test]
fn a_contract_that_is_not_the_model_s_is_refused_by_port() {
    let refused = |inputs: &[PortShape], outputs: &[PortShape]| {
        let mut worker = start(&blob("linear.onnx"), LIMITS);
        match load(&mut worker, inputs, outputs).unwrap().unwrap_err() {
            Refusal::Port { port, .. } => port,
            other => panic!("{other}"),
        }
    };
    let wide = port("readings", DType::F32, &[BATCH, Dim::Fixed(4)]);
    let double = port("readings", DType::F64, &[BATCH, Dim::Fixed(3)]);
    let other = port("other", DType::F32, &[BATCH, Dim::Fixed(3)]);
    assert_eq!(refused(&[wide], &[scores(2)]), "readings");
    assert_eq!(refused(&[double], &[scores(2)]), "readings");
    assert_eq!(refused(std::slice::from_ref(&other), &[scores(2)]), "other");
    assert_eq!(refused(&[], &[scores(2)]), "readings");
    assert_eq!(refused(&[readings()], &[other]), "other");
}

#[test]
fn an_output_of_another_shape_than_the_contract_reaches_the_parent_as_it_is() {
    // The parent compares; the worker only speaks the truth.
    let mut worker = start(&blob("linear.onnx"), LIMITS);
    load(&mut worker, &[readings()], &[scores(5)])
        .unwrap()
        .unwrap();
    let inputs = [Tensor::from_f32("readings", &[1, 3], &[0.0; 3])];
    let outputs = run(&mut worker, &inputs, DEADLINE).unwrap().unwrap();
    assert_eq!(outputs[0].shape, [1, 2]);
}

#[test]
fn bytes_that_are_no_model_are_refused_and_never_crash_the_parent() {
    let linear = std::fs::read(format!("{MODELS}/linear.onnx")).unwrap();
    // Every cut of a real model, and every byte of it turned over.
    let cuts = (0..linear.len()).step_by(7).map(|at| linear[..at].to_vec());
    let turned = (0..linear.len()).step_by(3).map(|at| {
        let mut bytes = linear.clone();
        bytes[at] ^= 0xff;
        bytes
    });
    for bytes in cuts.chain(turned) {
        let blob = SealedBlob::copy_from(&bytes[..]).unwrap();
        // Refused, dead with a type, or even loaded: all is well while this test goes on.
        let _ = load(&mut start(&blob, LIMITS), &[readings()], &[scores(2)]);
    }
}

#[test]
fn a_worker_started_by_hand_or_by_another_release_says_so() {
    let output = std::process::Command::new(PROGRAM).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("started by bellwether"), "{message}");
}

#[test]
fn a_scikit_learn_pipeline_gives_what_the_onnx_reference_gives() {
    let mut worker = start(&blob("mlp_reg.onnx"), LIMITS);
    let x = port("X", DType::F32, &[BATCH, Dim::Fixed(20)]);
    let variable = port("variable", DType::F32, &[BATCH, ONE]);
    load(&mut worker, &[x], &[variable]).unwrap().unwrap();
    let ramp = (0..20).map(|i| (f64::from(i) / 10.0 - 1.0) as f32);
    let values: Vec<f32> = ramp.chain([0.0; 20]).collect();
    let inputs = [Tensor::from_f32("X", &[2, 20], &values)];
    let outputs = run(&mut worker, &inputs, DEADLINE).unwrap().unwrap();
    let found = outputs[0].to_f32().unwrap();
    // onnx.reference.ReferenceEvaluator, onnx 1.23.
    for (found, expected) in found.iter().zip([1.454_051_6, 0.057_658_52]) {
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
    }
}

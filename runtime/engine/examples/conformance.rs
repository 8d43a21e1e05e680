//! Runs the ONNX backend's node tests through [`Model`], each in a process of its own.
//!
//! `conformance FOLDER` takes the folder `onnx/backend/test/data/node` of the `onnx` package and
//! prints a line for each test: `operator ⇥ test ⇥ outcome ⇥ detail`. `cargo xtask conformance`
//! fetches the folder, calls this, and writes what it found.
//!
//! | outcome | means |
//! |---|---|
//! | `pass` | all outputs agree, by the tolerances of the backend's own runner |
//! | `unsupported` | a typed refusal, at load or at run |
//! | `wrong` | it ran, and an output differs |
//! | `noise` | beyond those tolerances only by [`NOISE_SHARE`] of the output's greatest number |
//! | `disputed` | it ran and differs, and so does onnxruntime; [`DISPUTED`] says why |
//! | `crash` | the process panicked, aborted, faulted or did not end |

// A program for people who work on the engine: it prints, and gives up where its folder is broken.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a development program"
)]

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use bellwether_engine::{PortFacts, inspect, model::Model};
use bellwether_package::sections::{DType, Dim};
use bellwether_wire::{ModelPorts, PortShape, Tensor};
use tract_onnx::{
    pb::{TensorProto, tensor_proto::DataType},
    prelude::Framework,
    tensor::proto_from_reader,
};

/// The backend's own: `onnx/backend/test/case/node/__init__.py`.
const TOLERANCE_REL: f64 = 1e-3;
/// The backend's own.
const TOLERANCE_ABS: f64 = 1e-7;
/// Rounding noise of single precision, as a share of a tensor's greatest number.
const NOISE_SHARE: f64 = 1e-5;
/// Each test is a few numbers; what takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often an unfinished test is looked at.
const POLL: Duration = Duration::from_millis(2);

/// Fields of ONNX messages: `ModelProto.graph`, `GraphProto.initializer`, `TensorProto.name`.
const MODEL_GRAPH: u8 = 7;
const GRAPH_INITIALIZER: u8 = 5;
const TENSOR_NAME: u8 = 8;

/// Tests whose expectation onnxruntime 1.32 does not meet either, and answers as we do.
const DISPUTED: [(&str, &str); 5] = [
    (
        "test_l2normalization_axis_0",
        "a vector of zeros is left as it is, as onnxruntime does; the test has NaN",
    ),
    ("test_qlinearmatmul_2D_int8_float16", WRAPPED),
    ("test_qlinearmatmul_2D_int8_float32", WRAPPED),
    ("test_qlinearmatmul_3D_int8_float16", WRAPPED),
    ("test_qlinearmatmul_3D_int8_float32", WRAPPED),
];
const WRAPPED: &str =
    "the test's data wraps around where the specification, and onnxruntime, saturate";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [flag, case] if flag == "--case" => {
            println!("{}", outcome(Path::new(case)));
            ExitCode::SUCCESS
        }
        [folder] => {
            for case in cases(Path::new(folder)) {
                let name = case.file_name().unwrap().to_string_lossy().into_owned();
                println!("{}\t{name}\t{}", operator(&case), confined(&case));
            }
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("conformance FOLDER, where FOLDER holds a folder for each test");
            ExitCode::from(64)
        }
    }
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder of tests is readable");
    let mut cases: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("model.onnx").is_file())
        .collect();
    cases.sort();
    cases
}

/// The operator that a test is about. A function's expanded body is about the function, which the
/// test of the same name shows.
fn operator(case: &Path) -> String {
    let name = case.to_string_lossy();
    let whole = name.find("_expanded").map(|at| PathBuf::from(&name[..at]));
    let case = whole.filter(|path| path.is_dir());
    let case = case.as_deref().unwrap_or(Path::new(&*name));
    let model = tract_onnx::onnx().proto_model_for_path(case.join("model.onnx"));
    let nodes = model.unwrap().graph.unwrap().node;
    match nodes.as_slice() {
        [node] if node.domain.is_empty() => node.op_type.clone(),
        [node] => format!("{}.{}", node.domain, node.op_type),
        _ => "graphs of several nodes".to_owned(),
    }
}

/// Runs one test in a process of its own, so that whatever becomes of it is only its own.
fn confined(case: &Path) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("--case")
        .arg(case)
        .env_remove("RUST_BACKTRACE")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return format!("crash\tno answer within {} s", DEADLINE.as_secs());
        }
        std::thread::sleep(POLL);
    }
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    let words = String::from_utf8_lossy(&output.stderr).replace(['\n', '\t'], " ");
    format!("crash\t{}: {}", output.status, words.trim())
}

/// Runs one test here: as it is, and where that is refused, with constants in the contract.
fn outcome(case: &Path) -> String {
    let onnx = std::fs::read(case.join("model.onnx")).unwrap();
    let fed = run(case, &onnx);
    let (constants, detail) = match (&fed, with_constants(case, &onnx)) {
        (Err(Failure::Unsupported(_)), Some(fixed)) => (run(case, &fixed), "with constants"),
        _ => (fed, ""),
    };
    match constants {
        Ok(()) => format!("pass\t{detail}"),
        Err(Failure::Unsupported(why)) => format!("unsupported\t{}", one_line(&why)),
        Err(Failure::Noise(why)) => format!("noise\t{}", one_line(&why)),
        Err(Failure::Wrong(why)) => match disputed(case) {
            Some(reason) => format!("disputed\t{reason}"),
            None => format!("wrong\t{}", one_line(&why)),
        },
    }
}

/// Why the expectation of a test is not to be met, where onnxruntime 1.32 does not meet it either.
fn disputed(case: &Path) -> Option<&'static str> {
    let name = case.file_name()?.to_str()?;
    let row = DISPUTED.iter().find(|(test, _)| *test == name)?;
    Some(row.1)
}

/// The model with each input but the first that is a number or a list of numbers folded in, as a
/// contract's constants are: axes, pads and scales are known when a model is packed. `None` if
/// there is none.
fn with_constants(case: &Path, onnx: &[u8]) -> Option<Vec<u8>> {
    let facts = inspect(onnx).ok()?;
    let mut graph = Vec::new();
    for (at, port) in facts.inputs.iter().enumerate().skip(1) {
        let file = case.join(format!("test_data_set_0/input_{at}.pb"));
        let mut held = std::fs::read(&file).unwrap();
        let dims = proto_from_reader(&held[..]).ok()?.dims;
        if dims.len() <= 1 {
            field(TENSOR_NAME, port.name.as_bytes(), &mut held);
            field(GRAPH_INITIALIZER, &held, &mut graph);
        }
    }
    (!graph.is_empty()).then(|| into_graph(onnx, &graph))
}

/// An encoded model with more fields in its graph.
fn into_graph(onnx: &[u8], more: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (onnx, Vec::new());
    while !rest.is_empty() {
        let whole = rest;
        let key = varint(&mut rest);
        let length = varint(&mut rest);
        if key & 7 == 0 {
            // A number: what was read as a length is the number itself.
            out.extend_from_slice(&whole[..whole.len() - rest.len()]);
            continue;
        }
        let (bytes, later) = rest.split_at(length);
        rest = later;
        let mut bytes = bytes.to_vec();
        if key >> 3 == usize::from(MODEL_GRAPH) {
            bytes.extend_from_slice(more);
        }
        field((key >> 3) as u8, &bytes, &mut out);
    }
    out
}

fn varint(bytes: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// Appends a field of bytes to an encoded protobuf message.
fn field(number: u8, bytes: &[u8], to: &mut Vec<u8>) {
    const BYTES: u8 = 2;
    to.push(number << 3 | BYTES);
    let mut length = bytes.len();
    while length > 0x7f {
        to.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
    to.extend_from_slice(bytes);
}

enum Failure {
    Unsupported(String),
    Noise(String),
    Wrong(String),
}

fn run(case: &Path, onnx: &[u8]) -> Result<(), Failure> {
    let refused = |refusal: bellwether_engine::Refusal| Failure::Unsupported(refusal.to_string());
    let facts = inspect(onnx).map_err(refused)?;
    let data = case.join("test_data_set_0");
    let inputs = tensors(&data, "input", &facts.inputs)?;
    let expected = tensors(&data, "output", &facts.outputs)?;
    let ports = |tensors: &[Tensor]| tensors.iter().map(port).collect::<Vec<_>>();
    let mut model =
        Model::load(onnx, ModelPorts::of(ports(&inputs), ports(&expected))).map_err(refused)?;
    let outputs = model.run(&inputs, true).map_err(refused)?;
    let pairs = || expected.iter().zip(&outputs);
    let Some(difference) = pairs().find_map(difference) else {
        return Ok(());
    };
    Err(if pairs().all(is_noise) {
        Failure::Noise(difference)
    } else {
        Failure::Wrong(difference)
    })
}

fn port(tensor: &Tensor) -> PortShape {
    PortShape {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.iter().map(|dim| Dim::Fixed(*dim)).collect(),
    }
}

fn tensors(data: &Path, kind: &str, ports: &[PortFacts]) -> Result<Vec<Tensor>, Failure> {
    let read = |port: &PortFacts| {
        let at = place(data, kind, port);
        let file = std::fs::File::open(data.join(format!("{kind}_{at}.pb"))).unwrap();
        // Sequences and optional values lie in the same place, and are not tensors.
        let held = port.dtype.and(proto_from_reader(file).ok());
        held.and_then(|held| tensor(port, &held)).ok_or_else(|| {
            Failure::Unsupported(format!("{kind} `{}` has a type no contract has", port.name))
        })
    };
    ports.iter().map(read).collect()
}

/// A port's place in the graph as the test has it, constants counted.
fn place(data: &Path, kind: &str, port: &PortFacts) -> usize {
    let model = data.parent().unwrap().join("model.onnx");
    let graph = tract_onnx::onnx().proto_model_for_path(model).unwrap();
    let graph = graph.graph.unwrap();
    let ports = if kind == "input" {
        graph.input
    } else {
        graph.output
    };
    ports.iter().position(|own| own.name == port.name).unwrap()
}

fn tensor(port: &PortFacts, held: &TensorProto) -> Option<Tensor> {
    let dtype = match DataType::try_from(held.data_type).ok()? {
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        DataType::Float16 => DType::F16,
        DataType::Int64 => DType::I64,
        DataType::Int32 => DType::I32,
        DataType::Int16 => DType::I16,
        DataType::Int8 => DType::I8,
        DataType::Uint64 => DType::U64,
        DataType::Uint32 => DType::U32,
        DataType::Uint16 => DType::U16,
        DataType::Uint8 => DType::U8,
        DataType::Bool => DType::Bool,
        _ => return None,
    };
    let tensor = Tensor {
        name: port.name.clone(),
        dtype,
        shape: held.dims.iter().map(|dim| *dim as u32).collect(),
        bytes: held.raw_data.to_vec(),
    };
    tensor.fills_shape().then_some(tensor)
}

/// Whether what differs is rounding of numbers far below the tensor's greatest.
fn is_noise((expected, found): (&Tensor, &Tensor)) -> bool {
    let is_float = matches!(expected.dtype, DType::F32 | DType::F64 | DType::F16);
    let alike = (found.dtype, &found.shape) == (expected.dtype, &expected.shape);
    let sizes = expected.values().map(f64::abs);
    let greatest = sizes.filter(|size| size.is_finite()).fold(0.0, f64::max);
    let near = |(e, f): (f64, f64)| agree(e, f) || (e - f).abs() <= NOISE_SHARE * greatest;
    is_float && alike && expected.values().zip(found.values()).all(near)
}

fn difference((expected, found): (&Tensor, &Tensor)) -> Option<String> {
    let name = &expected.name;
    if (found.dtype, &found.shape) != (expected.dtype, &expected.shape) {
        return Some(format!(
            "output `{name}` is {:?} {:?} instead of {:?} {:?}",
            found.dtype, found.shape, expected.dtype, expected.shape
        ));
    }
    let pairs = expected.values().zip(found.values());
    let mut apart = pairs.enumerate().filter(|(_, (e, f))| !agree(*e, *f));
    let (at, (e, f)) = apart.next()?;
    let more = apart.count();
    Some(format!(
        "output `{name}`, element {at}: {f} instead of {e}, and {more} more"
    ))
}

/// As `numpy.testing.assert_allclose` has it.
fn agree(expected: f64, found: f64) -> bool {
    expected == found
        || (expected.is_nan() && found.is_nan())
        || (expected.is_finite()
            && (found - expected).abs() <= TOLERANCE_ABS + TOLERANCE_REL * expected.abs())
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\t'], " ")
}

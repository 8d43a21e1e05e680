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
use bellwether_wire::{PortShape, Tensor};
use tract_onnx::{
    pb::{TensorProto, tensor_proto::DataType},
    prelude::Framework,
    tensor::proto_from_reader,
};

/// The backend's own: `onnx/backend/test/case/node/__init__.py`.
const TOLERANCE_REL: f64 = 1e-3;
/// The backend's own.
const TOLERANCE_ABS: f64 = 1e-7;
/// Each test is a few numbers; what takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often an unfinished test is looked at.
const POLL: Duration = Duration::from_millis(2);

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

/// Runs one test here.
fn outcome(case: &Path) -> String {
    match run(case) {
        Ok(()) => "pass\t".to_owned(),
        Err(Failure::Unsupported(why)) => format!("unsupported\t{}", one_line(&why)),
        Err(Failure::Wrong(why)) => format!("wrong\t{}", one_line(&why)),
    }
}

enum Failure {
    Unsupported(String),
    Wrong(String),
}

fn run(case: &Path) -> Result<(), Failure> {
    let refused = |refusal: bellwether_engine::Refusal| Failure::Unsupported(refusal.to_string());
    let onnx = std::fs::read(case.join("model.onnx")).unwrap();
    let facts = inspect(&onnx).map_err(refused)?;
    let data = case.join("test_data_set_0");
    let inputs = tensors(&data, "input", &facts.inputs)?;
    let expected = tensors(&data, "output", &facts.outputs)?;
    let ports = |tensors: &[Tensor]| tensors.iter().map(port).collect::<Vec<_>>();
    let mut model = Model::load(&onnx, ports(&inputs), ports(&expected)).map_err(refused)?;
    let outputs = model.run(&inputs).map_err(refused)?;
    let differences = expected.iter().zip(&outputs).filter_map(difference);
    differences.map(Failure::Wrong).next().map_or(Ok(()), Err)
}

fn port(tensor: &Tensor) -> PortShape {
    PortShape {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.iter().map(|dim| Dim::Fixed(*dim)).collect(),
    }
}

fn tensors(data: &Path, kind: &str, ports: &[PortFacts]) -> Result<Vec<Tensor>, Failure> {
    let read = |(at, port): (usize, &PortFacts)| {
        let file = std::fs::File::open(data.join(format!("{kind}_{at}.pb"))).unwrap();
        // Sequences and optional values lie in the same place, and are not tensors.
        let held = port.dtype.and(proto_from_reader(file).ok());
        held.and_then(|held| tensor(port, &held)).ok_or_else(|| {
            Failure::Unsupported(format!("{kind} `{}` has a type no contract has", port.name))
        })
    };
    ports.iter().enumerate().map(read).collect()
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

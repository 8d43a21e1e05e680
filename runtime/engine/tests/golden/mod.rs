//! What models are fed and must answer, from one archive: `NAME|in|PORT` and `NAME|out|PORT`.

// Helpers of tests fail as tests do.
#![allow(unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::{collections::BTreeMap, fs::File, io::BufReader, path::Path};

use bellwether_package::sections::DType;
use bellwether_wire::Tensor;
use half::f16;
use npyz::{TypeChar, npz::NpzArchive};

#[derive(Default)]
pub struct Case {
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
}

/// By model; the archive's order is that of the ports.
pub fn cases(archive: &Path) -> BTreeMap<String, Case> {
    let file = BufReader::new(File::open(archive).unwrap());
    let mut archive = NpzArchive::new(file).unwrap();
    let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    let mut cases = BTreeMap::<String, Case>::new();
    for name in names {
        let array = archive.by_name(&name).unwrap().unwrap();
        let [model, side, port] = name.split('|').collect::<Vec<_>>()[..] else {
            panic!("{name}");
        };
        let tensor = tensor(port, array);
        let case = cases.entry(model.to_owned()).or_default();
        match side {
            "in" => case.inputs.push(tensor),
            _ => case.outputs.push(tensor),
        }
    }
    cases
}

fn tensor<R: std::io::Read>(name: &str, array: npyz::NpyFile<R>) -> Tensor {
    let shape = array.shape().iter().map(|dim| *dim as u32).collect();
    let npyz::DType::Plain(kind) = array.dtype() else {
        panic!("{name} is no plain array");
    };
    let (dtype, bytes) = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 2) => (DType::F16, bytes(array, f16::to_le_bytes)),
        (TypeChar::Float, 4) => (DType::F32, bytes(array, f32::to_le_bytes)),
        (TypeChar::Float, 8) => (DType::F64, bytes(array, f64::to_le_bytes)),
        (TypeChar::Int, 4) => (DType::I32, bytes(array, i32::to_le_bytes)),
        (TypeChar::Int, 8) => (DType::I64, bytes(array, i64::to_le_bytes)),
        (TypeChar::Bool, 1) => (DType::Bool, bytes(array, |bit: bool| [bit.into()])),
        other => panic!("{name} is of type {other:?}"),
    };
    Tensor {
        name: name.to_owned(),
        dtype,
        shape,
        bytes,
    }
}

fn bytes<R: std::io::Read, T: npyz::Deserialize, const N: usize>(
    array: npyz::NpyFile<R>,
    to_bytes: impl Fn(T) -> [u8; N],
) -> Vec<u8> {
    let values: Vec<T> = array.into_vec().unwrap();
    values.into_iter().flat_map(to_bytes).collect()
}

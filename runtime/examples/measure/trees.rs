//! A bare tree ensemble by the engine: too large to be packed for every measurement.

use std::{fs::File, io::BufReader};

use bellwether_engine::{PortFacts, inspect, inspect::DimFacts, model::Model};
use bellwether_package::sections::Dim;
use bellwether_runtime::{
    Tensor,
    wire::{ModelPorts, PortShape},
};
use npyz::npz::NpzArchive;

pub(crate) struct Trees {
    model: Model,
    inputs: Vec<Tensor>,
}

impl Trees {
    /// The first `batch` rows of the archive's `X`.
    pub(crate) fn load(onnx: &str, npz: &str, batch: u32) -> Self {
        let onnx = std::fs::read(onnx).unwrap();
        let facts = inspect(&onnx).unwrap();
        let port = |port: &PortFacts| PortShape {
            name: port.name.clone(),
            dtype: port.dtype.unwrap(),
            shape: match port.shape.as_deref().unwrap() {
                [_] => vec![Dim::Batch],
                [_, DimFacts::Fixed(width)] => vec![Dim::Batch, Dim::Fixed(*width)],
                other => panic!("not a table: {other:?}"),
            },
        };
        let ports = ModelPorts {
            inputs: facts.inputs.iter().map(port).collect(),
            outputs: facts.outputs.iter().map(port).collect(),
            states: vec![],
            constants: vec![],
        };
        Self {
            model: Model::load(&onnx, ports).unwrap(),
            inputs: vec![rows(npz, batch)],
        }
    }

    pub(crate) fn run(&mut self) {
        self.model.run(&self.inputs, true).unwrap();
    }
}

fn rows(npz: &str, batch: u32) -> Tensor {
    let mut archive = NpzArchive::new(BufReader::new(File::open(npz).unwrap())).unwrap();
    let array = archive.by_name("X").unwrap().unwrap();
    let width = array.shape()[1];
    let values: Vec<f32> = array.into_vec().unwrap();
    let length = batch as usize * width as usize;
    Tensor::from_f32(
        "X",
        &[batch, u32::try_from(width).unwrap()],
        &values[..length],
    )
}

//! Operators of ONNX-ML with attributes that nobody would write: whole models of one node, changed
//! at random, loaded, and run on a few rows where they load.
#![no_main]

use std::sync::LazyLock;

use bellwether_engine::{inspect, inspect::DimFacts, model::Model};
use bellwether_package::sections::{DType, Dim};
use bellwether_wire::{ModelPorts, PortShape, Tensor, byte_length};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tract_onnx::pb::{AttributeProto, ModelProto};

/// Changes to one model at most: more make one that is refused at the first look.
const CHANGES_MAX: usize = 8;
/// Elements of an input at most.
const ELEMENTS_MAX: usize = 1 << 12;

macro_rules! models {
    ($($name:literal,)*) => {
        [$(include_bytes!(concat!("../../tests/fixtures/onnx-ml/", $name, ".onnx")).as_slice(),)*]
    };
}

/// One model or more of each operator.
static MODELS: LazyLock<Vec<ModelProto>> = LazyLock::new(|| {
    let models = models![
        "class2_LOGISTIC_1_0_True",
        "class3_SOFTMAX_True_1",
        "class3_double_in",
        "tree_modes_True",
        "tree_orders_True",
        "tree_double",
        "tree_MIN_3_True",
        "tree5_7_False",
        "tree5_6_True",
        "linear1_LOGISTIC",
        "linear3_SOFTMAX",
        "linear_reg3_NONE",
        "svm_linear_NONE",
        "svm3_RBF_NONE",
        "svm2_POLY_LOGISTIC",
        "svm_reg_one_class",
        "normalizer_L2_double",
        "scaler_double",
        "imputer_nan",
        "imputer_int64",
        "binarizer_one",
        "one_hot_int64",
        "extractor_columns",
        "vectorizer_cut_and_pad",
        "encoder4_double",
        "encoder2_int_float",
        "zipmap_many",
        "svc_probability_many",
    ];
    models
        .map(|bytes| ModelProto::decode(bytes).expect("a fixture is readable"))
        .to_vec()
});

fuzz_target!(|bytes: &[u8]| {
    let mut source = Source(bytes);
    let mut model = MODELS[usize::from(source.byte()) % MODELS.len()].clone();
    for _ in 0..usize::from(source.byte()) % CHANGES_MAX + 1 {
        change(&mut model, &mut source);
    }
    let onnx = model.encode_to_vec();
    let Ok(facts) = inspect(&onnx) else {
        return;
    };
    let port = |facts: &inspect::PortFacts| PortShape {
        name: facts.name.clone(),
        dtype: facts.dtype.unwrap_or(DType::F32),
        shape: facts.shape.iter().flatten().map(dim).collect(),
    };
    let inputs: Vec<PortShape> = facts.inputs.iter().map(port).collect();
    let outputs: Vec<PortShape> = facts.outputs.iter().map(port).collect();
    let rows = u32::from(source.byte()) % 20 + 1;
    let Some(fed) = inputs
        .iter()
        .map(|port| feed(port, rows, &mut source))
        .collect::<Option<Vec<_>>>()
    else {
        return;
    };
    if let Ok(mut model) = Model::load(&onnx, ModelPorts::of(inputs, outputs)) {
        let _ = model.run(&fed, true);
    }
});

fn dim(facts: &DimFacts) -> Dim {
    match facts {
        DimFacts::Fixed(size) => Dim::Fixed(*size),
        _ => Dim::Batch,
    }
}

fn feed(port: &PortShape, rows: u32, source: &mut Source<'_>) -> Option<Tensor> {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Batch => rows,
    };
    let shape: Vec<u32> = port.shape.iter().map(size).collect();
    let count = byte_length(port.dtype, &shape)? / port.dtype.bytes();
    if count > ELEMENTS_MAX {
        return None;
    }
    let bytes = (0..count).flat_map(|_| match port.dtype {
        DType::F32 => source.number().to_le_bytes().to_vec(),
        DType::F64 => f64::from(source.number()).to_le_bytes().to_vec(),
        DType::I64 => i64::from(source.byte() as i8).to_le_bytes().to_vec(),
        dtype => vec![0; dtype.bytes()],
    });
    Some(Tensor {
        name: port.name.clone(),
        dtype: port.dtype,
        bytes: bytes.collect(),
        shape,
    })
}

fn change(model: &mut ModelProto, source: &mut Source<'_>) {
    let nodes = model.graph.iter_mut().flat_map(|graph| &mut graph.node);
    let mut attributes: Vec<_> = nodes.map(|node| &mut node.attribute).collect();
    let node = usize::from(source.byte()) % attributes.len().max(1);
    let Some(attributes) = attributes.get_mut(node).filter(|list| !list.is_empty()) else {
        return;
    };
    let at = usize::from(source.byte()) % attributes.len();
    match source.byte() % 12 {
        0 => drop(attributes.remove(at)),
        1 => attributes[at].r#type = i32::from(source.byte() % 12),
        2 => {
            let other = attributes[usize::from(source.byte()) % attributes.len()].clone();
            let name = std::mem::take(&mut attributes[at].name);
            attributes[at] = AttributeProto { name, ..other };
        }
        _ => change_values(&mut attributes[at], source),
    }
}

fn change_values(attribute: &mut AttributeProto, source: &mut Source<'_>) {
    attribute.i = source.whole();
    attribute.f = source.number();
    edit(&mut attribute.ints, source, |source| source.whole());
    edit(&mut attribute.floats, source, |source| source.number());
    edit(&mut attribute.s, source, |source| source.byte());
    edit(&mut attribute.strings, source, |source| source.mode());
    if let Some(tensor) = &mut attribute.t {
        edit(&mut tensor.raw_data, source, |source| source.byte());
        edit(&mut tensor.dims, source, |source| source.whole());
        tensor.data_type = i32::from(source.byte() % 14);
    }
}

/// Puts a value in, takes one out, or cuts the list short; an empty one is left alone.
fn edit<T>(list: &mut Vec<T>, source: &mut Source<'_>, value: fn(&mut Source<'_>) -> T) {
    if list.is_empty() {
        return;
    }
    let at = usize::from(source.byte()) % list.len();
    match source.byte() % 8 {
        0 => list.truncate(at),
        1 => drop(list.remove(at)),
        2 => list.insert(at, value(source)),
        _ => list[at] = value(source),
    }
}

/// The fuzzer's bytes, and zeros after them.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn mode(&mut self) -> Vec<u8> {
        let modes = ["LEAF", "BRANCH_LEQ", "BRANCH_GT", "BRANCH_EQ", ""];
        modes[usize::from(self.byte()) % modes.len()].into()
    }

    fn whole(&mut self) -> i64 {
        match self.byte() {
            250 => i64::MAX,
            251 => i64::MIN,
            252 => 1 << 40,
            253 => i64::from(u32::MAX),
            254 => 1 << 16,
            byte => i64::from(byte as i8),
        }
    }

    fn number(&mut self) -> f32 {
        match self.byte() {
            250 => f32::NAN,
            251 => f32::INFINITY,
            252 => f32::NEG_INFINITY,
            253 => f32::MAX,
            254 => f32::MIN_POSITIVE / 2.0,
            byte => f32::from(byte as i8) / 4.0,
        }
    }
}

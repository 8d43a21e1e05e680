//! What a model is made of, and whether the engine could build it.

use std::collections::BTreeSet;

use bellwether_package::sections::DType;
use bellwether_wire::{Refusal, bounded_message};
use tract_onnx::{
    pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
        tensor_proto::{DataLocation, DataType},
        tensor_shape_proto::dimension,
        type_proto,
    },
    prelude::{Framework, tract_itertools::Itertools},
};

use crate::{
    model::prepare::{is_rewritten, quantised::is_quantised, refuse},
    names,
    operators::{self, ml::ZipMap},
    survey::survey,
};

/// The largest model that is parsed. Parsing takes about three times as much memory.
pub const MODEL_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Graphs inside graphs at most; loops within loops within conditions are rare already.
pub const SUBGRAPH_DEPTH_MAX: usize = 16;

/// What `inspect` finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// What must be fed, in the graph's order; initialisers left out.
    pub inputs: Vec<PortFacts>,
    /// What comes out, in the graph's order.
    pub outputs: Vec<PortFacts>,
    /// Operator sets the model imports: domain (empty for ai.onnx) and version.
    pub opset_imports: Vec<(String, i64)>,
    /// Operators used anywhere in it, sorted: `Gemm`, or `ai.onnx.ml.Normalizer`.
    pub operators: Vec<String>,
    /// Bytes of its weights.
    pub initializer_bytes: u64,
    /// Nodes, those of inner graphs included.
    pub nodes: u64,
    /// Whether it computes on quantised integers. The engine computes such a model in f32, on the
    /// values that the integers stand for: the outputs agree to within a step or two of
    /// quantisation with those of an integer runtime, and the speed is that of an f32 model.
    pub quantised: bool,
}

/// One input or output as the graph declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFacts {
    /// Its name.
    pub name: String,
    /// Its type; `None` if undeclared or one that no contract can name, such as text.
    pub dtype: Option<DType>,
    /// Its dimensions; `None` if the rank itself is unknown.
    pub shape: Option<Vec<DimFacts>>,
}

/// One dimension as the graph declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DimFacts {
    /// Always this.
    Fixed(u32),
    /// Named, and so the same wherever the name stands.
    Named(String),
    /// Anything.
    Unknown,
}

/// Reads a model without building it.
pub fn inspect(onnx: &[u8]) -> Result<ModelFacts, Refusal> {
    let proto = parse(onnx)?;
    check(&proto)?;
    facts(&proto)
}

/// Decodes a model, after a look over its bytes.
pub(crate) fn parse(onnx: &[u8]) -> Result<ModelProto, Refusal> {
    let bytes = onnx.len() as u64;
    if bytes > MODEL_BYTES_MAX {
        return Err(Refusal::TooLarge {
            bytes,
            bytes_max: MODEL_BYTES_MAX,
        });
    }
    survey(onnx)?;
    let proto = operators::onnx()
        .proto_model_for_read(&mut &onnx[..])
        .map_err(|error| malformed(&error.to_string()))?;
    if proto.graph.is_none() {
        return Err(malformed("it holds no graph"));
    }
    Ok(proto)
}

/// Refuses what the engine could not build, before it tries: operators it lacks, and weights that
/// lie elsewhere.
pub(crate) fn check(proto: &ModelProto) -> Result<(), Refusal> {
    let known = operators::onnx().op_register.0;
    walk(graph(proto)?, 0, &mut |item| match item {
        Item::Node(node) if !is_known(node, &known) => Err(Refusal::OperatorUnknown {
            node: node_name(node),
            operator: operator(node),
        }),
        Item::Node(node) => refuse::check(node),
        Item::Graph(graph) => names::check(graph),
        Item::Tensor(tensor) if is_external(tensor) => Err(Refusal::ExternalData {
            tensor: bounded_message(&tensor.name),
        }),
        _ => Ok(()),
    })?;
    match proto.functions.first() {
        // The engine would look for the function among its operators, and not find it.
        Some(function) => Err(Refusal::OperatorUnknown {
            node: "model function".to_owned(),
            operator: bounded_message(function.name()),
        }),
        None => Ok(()),
    }
}

/// The graph's inputs that are not initialisers, and its outputs.
pub(crate) fn ports(proto: &ModelProto) -> Result<(Vec<PortFacts>, Vec<PortFacts>), Refusal> {
    let graph = graph(proto)?;
    let initialisers: BTreeSet<_> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let fed = |port: &&ValueInfoProto| !initialisers.contains(port.name.as_str());
    Ok((
        graph.input.iter().filter(fed).map(port_facts).collect(),
        graph
            .output
            .iter()
            .map(|port| output_facts(graph, port))
            .collect(),
    ))
}

fn facts(proto: &ModelProto) -> Result<ModelFacts, Refusal> {
    let (inputs, outputs) = ports(proto)?;
    let mut operators = BTreeSet::new();
    let (mut initializer_bytes, mut nodes, mut quantised) = (0_u64, 0, false);
    walk(graph(proto)?, 0, &mut |item| {
        match item {
            Item::Graph(_) => {}
            Item::Node(node) => {
                nodes += 1;
                quantised |= is_quantised(node);
                operators.insert(operator(node));
            }
            Item::Tensor(tensor) => {
                initializer_bytes = initializer_bytes.saturating_add(tensor_bytes(tensor));
            }
        }
        Ok(())
    })?;
    let imports = proto.opset_import.iter();
    Ok(ModelFacts {
        inputs,
        outputs,
        opset_imports: imports
            .map(|import| (bounded_message(&import.domain), import.version))
            .sorted()
            .collect(),
        operators: operators.into_iter().collect(),
        initializer_bytes,
        nodes,
        quantised,
    })
}

enum Item<'a> {
    Graph(&'a GraphProto),
    Node(&'a NodeProto),
    Tensor(&'a TensorProto),
}

/// Visits all graphs, nodes and constant tensors, those of inner graphs included.
fn walk<'a>(
    graph: &'a GraphProto,
    depth: usize,
    visit: &mut impl FnMut(Item<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if depth > SUBGRAPH_DEPTH_MAX {
        return Err(malformed("graphs are nested too deeply"));
    }
    visit(Item::Graph(graph))?;
    for tensor in &graph.initializer {
        visit(Item::Tensor(tensor))?;
    }
    for node in &graph.node {
        visit(Item::Node(node))?;
        for attribute in &node.attribute {
            walk_attribute(attribute, depth, visit)?;
        }
    }
    Ok(())
}

fn walk_attribute<'a>(
    attribute: &'a AttributeProto,
    depth: usize,
    visit: &mut impl FnMut(Item<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for tensor in attribute.t.iter().chain(&attribute.tensors) {
        visit(Item::Tensor(tensor))?;
    }
    for graph in attribute.g.iter().chain(&attribute.graphs) {
        walk(graph, depth + 1, visit)?;
    }
    Ok(())
}

/// The engine looks operators up by their name alone; a foreign domain's `Add` is not ours.
fn is_known<V>(node: &NodeProto, known: &std::collections::HashMap<String, V>) -> bool {
    matches!(
        node.domain.as_str(),
        "" | "ai.onnx" | "ai.onnx.ml" | "com.microsoft"
    ) && (known.contains_key(&node.op_type) || is_rewritten(node))
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32) || !tensor.external_data.is_empty()
}

fn graph(proto: &ModelProto) -> Result<&GraphProto, Refusal> {
    proto
        .graph
        .as_ref()
        .ok_or_else(|| malformed("it holds no graph"))
}

pub(crate) fn malformed(message: &str) -> Refusal {
    Refusal::Malformed {
        message: bounded_message(message),
    }
}

/// The name people see in viewers: the node's own, else its first output's.
pub(crate) fn node_name(node: &NodeProto) -> String {
    let first_output = node.output.first().map_or("", String::as_str);
    let own = Some(node.name.as_str()).filter(|name| !name.is_empty());
    bounded_message(own.unwrap_or(first_output))
}

pub(crate) fn operator(node: &NodeProto) -> String {
    bounded_message(&match node.domain.as_str() {
        "" | "ai.onnx" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    })
}

/// A map of classes is the matrix of probabilities that it is made from.
fn output_facts(graph: &GraphProto, port: &ValueInfoProto) -> PortFacts {
    let makes = |node: &&NodeProto| node.op_type == "ZipMap" && node.output.contains(&port.name);
    let classes = graph.node.iter().find(makes).and_then(ZipMap::classes_of);
    let Some(classes) = classes.and_then(|classes| u32::try_from(classes).ok()) else {
        return port_facts(port);
    };
    PortFacts {
        name: bounded_message(&port.name),
        dtype: Some(DType::F32),
        shape: Some(vec![DimFacts::Unknown, DimFacts::Fixed(classes)]),
    }
}

fn port_facts(port: &ValueInfoProto) -> PortFacts {
    let value = port.r#type.as_ref().and_then(|t| t.value.as_ref());
    let tensor = value.map(|type_proto::Value::TensorType(tensor)| tensor);
    let dims = tensor.and_then(|tensor| tensor.shape.as_ref());
    PortFacts {
        name: bounded_message(&port.name),
        dtype: tensor.and_then(|tensor| dtype(tensor.elem_type)),
        shape: dims.map(|shape| {
            shape
                .dim
                .iter()
                .map(|dim| dim_facts(dim.value.as_ref()))
                .collect()
        }),
    }
}

fn dim_facts(dim: Option<&dimension::Value>) -> DimFacts {
    match dim {
        Some(dimension::Value::DimValue(value)) => {
            u32::try_from(*value).map_or(DimFacts::Unknown, DimFacts::Fixed)
        }
        Some(dimension::Value::DimParam(name)) if !name.is_empty() && name != "?" => {
            DimFacts::Named(bounded_message(name))
        }
        _ => DimFacts::Unknown,
    }
}

/// The contract's word for an ONNX element type.
fn dtype(code: i32) -> Option<DType> {
    Some(match DataType::try_from(code).ok()? {
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        DataType::Float16 => DType::F16,
        DataType::Uint64 => DType::U64,
        DataType::Uint32 => DType::U32,
        DataType::Int64 => DType::I64,
        DataType::Int32 => DType::I32,
        DataType::Int16 => DType::I16,
        DataType::Int8 => DType::I8,
        DataType::Uint16 => DType::U16,
        DataType::Uint8 => DType::U8,
        DataType::Bool => DType::Bool,
        _ => return None,
    })
}

fn tensor_bytes(tensor: &TensorProto) -> u64 {
    let typed = tensor.float_data.len() * 4
        + tensor.int32_data.len() * 4
        + tensor.int64_data.len() * 8
        + tensor.double_data.len() * 8
        + tensor.uint64_data.len() * 8;
    (tensor.raw_data.len() + typed) as u64
}

//! Lists of one number where the engine takes a number alone.
//!
//! ONNX takes both, and exporters write either.

use std::collections::BTreeSet;

use tract_onnx::pb::{
    AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};

use super::{attribute, node};
use crate::inspect;

/// Operators, and the first and last of their inputs that are one number.
const SINGLE: [(&str, usize, usize); 3] = [("Pad", 2, 2), ("Range", 0, 2), ("Trilu", 1, 1)];

/// Takes the list's brackets away, in one graph.
pub(super) fn unwrap(graph: &mut GraphProto) {
    let mut numbers = numbers(graph);
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut of in std::mem::take(&mut graph.node) {
        if let Some((_, first, last)) = SINGLE.iter().find(|row| row.0 == of.op_type) {
            for at in *first..=*last {
                unwrap_input(&mut of, at, &mut numbers, &mut nodes);
            }
        }
        nodes.push(of);
    }
    graph.node = nodes;
}

fn unwrap_input(
    of: &mut NodeProto,
    at: usize,
    numbers: &mut BTreeSet<String>,
    nodes: &mut Vec<NodeProto>,
) {
    let node_name = inspect::node_name(of);
    let output = of.output.first().cloned().unwrap_or_default();
    let Some(input) = of.input.get_mut(at) else {
        return;
    };
    if input.is_empty() || numbers.contains(input.as_str()) {
        return;
    }
    let (number, shape) = (
        format!("{output}#number-{at}"),
        format!("{output}#shape-{at}"),
    );
    let mut made = node(format!("{node_name}#shape-{at}"), "Constant", &[], &shape);
    made.attribute = vec![empty_list()];
    nodes.push(made);
    let name = format!("{node_name}#number-{at}");
    nodes.push(node(name, "Reshape", &[input, &shape], &number));
    numbers.insert(number.clone());
    *input = number;
}

/// The shape of a number alone.
fn empty_list() -> AttributeProto {
    AttributeProto {
        name: "value".to_owned(),
        r#type: AttributeType::Tensor as i32,
        t: Some(TensorProto {
            dims: vec![0],
            data_type: DataType::Int64 as i32,
            ..TensorProto::default()
        }),
        ..AttributeProto::default()
    }
}

/// Constants that are numbers alone already.
fn numbers(graph: &GraphProto) -> BTreeSet<String> {
    let initialisers = graph.initializer.iter();
    let initialisers = initialisers.filter(|tensor| tensor.dims.is_empty());
    let constants = graph.node.iter().filter(|node| {
        let tensor = attribute(node, "value").and_then(|value| value.t.as_ref());
        node.op_type == "Constant" && tensor.is_some_and(|tensor| tensor.dims.is_empty())
    });
    initialisers
        .map(|tensor| tensor.name.clone())
        .chain(constants.flat_map(|node| node.output.iter().cloned()))
        .collect()
}

//! Divisions whose quotient is rounded to a whole number.
//!
//! The engine divides by multiplying with the reciprocal, which is off by an ulp now and then:
//! 41 / 41 becomes 0.999 999 94, and its floor 0. Where a floor, a rounding or a cast to integers
//! follows, the division is done as such.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::{GraphProto, NodeProto, tensor_proto::DataType};

use super::attribute;
use crate::operators::division::EXACT;

/// Operators between a division and a rounding that are looked through at most.
const DEPTH_MAX: usize = 8;
/// Operators after which a quotient is still one.
const THROUGH: [&str; 13] = [
    "Abs",
    "Add",
    "Clip",
    "Div",
    "Identity",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Reshape",
    "Sub",
    "Transpose",
    "Unsqueeze",
];
const ROUNDING: [&str; 6] = [
    "Ceil",
    "DynamicQuantizeLinear",
    "Floor",
    "Mod",
    "QuantizeLinear",
    "Round",
];

/// Renames such divisions in one graph to the operator that divides.
pub(super) fn make_exact(graph: &mut GraphProto) {
    let divides = |node: &NodeProto| node.op_type == "Div";
    if !graph.node.iter().any(divides) || !graph.node.iter().any(rounds) {
        return;
    }
    let mut readers: BTreeMap<&str, Vec<&NodeProto>> = BTreeMap::new();
    for node in &graph.node {
        for input in &node.input {
            readers.entry(input).or_default().push(node);
        }
    }
    let rounded = |node: &&NodeProto| divides(node) && is_rounded(node, &readers);
    let exact: BTreeSet<String> = graph
        .node
        .iter()
        .filter(rounded)
        .flat_map(|node| node.output.iter().cloned())
        .collect();
    for node in &mut graph.node {
        if node
            .output
            .first()
            .is_some_and(|output| exact.contains(output))
        {
            EXACT.clone_into(&mut node.op_type);
        }
    }
}

fn rounds(node: &NodeProto) -> bool {
    let floats = [DataType::Float, DataType::Double, DataType::Float16];
    let is_integer = |to: i64| !floats.iter().any(|float| *float as i64 == to);
    ROUNDING.contains(&node.op_type.as_str())
        || (node.op_type == "Cast" && attribute(node, "to").is_some_and(|to| is_integer(to.i)))
}

fn is_rounded(node: &NodeProto, readers: &BTreeMap<&str, Vec<&NodeProto>>) -> bool {
    let mut reached: BTreeSet<&str> = node.output.iter().map(String::as_str).collect();
    for _ in 0..DEPTH_MAX {
        let mut next = BTreeSet::new();
        let after = reached
            .iter()
            .filter_map(|name| readers.get(name))
            .flatten();
        for reader in after {
            if rounds(reader) {
                return true;
            }
            if THROUGH.contains(&reader.op_type.as_str()) {
                next.extend(reader.output.iter().map(String::as_str));
            }
        }
        reached = next;
    }
    false
}

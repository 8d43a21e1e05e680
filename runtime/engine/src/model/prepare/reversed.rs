//! Recurrent cells that read backwards alone, which the engine takes for reading forwards: what is
//! read is turned around, and what comes out again.
//! <https://onnx.ai/onnx/operators/onnx__LSTM.html>

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, attribute_proto::AttributeType};

use super::{attribute, node};
use crate::inspect;

const CELLS: [&str; 3] = ["GRU", "LSTM", "RNN"];

/// Rewrites one graph.
pub(super) fn rewrite(graph: &mut GraphProto) {
    if graph.node.iter().any(is_meant) {
        let nodes = std::mem::take(&mut graph.node);
        for node in nodes {
            if is_meant(&node) {
                graph.node.extend(forwards(node));
            } else {
                graph.node.push(node);
            }
        }
    }
}

fn is_meant(node: &NodeProto) -> bool {
    let reverse = |direction: &AttributeProto| direction.s.eq_ignore_ascii_case(b"reverse");
    CELLS.contains(&node.op_type.as_str())
        && !node.input.is_empty()
        && attribute(node, "direction").is_some_and(reverse)
}

fn forwards(mut cell: NodeProto) -> Vec<NodeProto> {
    let name = inspect::node_name(&cell);
    let by_batch = attribute(&cell, "layout").is_some_and(|layout| layout.i == 1);
    let axis = i64::from(by_batch);
    // The tensor's name keeps those of what is put in apart.
    let anchor = cell.output.iter().find(|output| !output.is_empty());
    let tensor = |part: &str| format!("{}#{part}", anchor.unwrap_or(&name));
    let constants = ["start", "end", "axis", "step"].map(&tensor);
    let mut made: Vec<NodeProto> = [-1, i64::MIN, axis, -1]
        .iter()
        .zip(&constants)
        .map(|(value, constant)| int_list(format!("{name}#{constant}"), *value, constant))
        .collect();
    let turned = |part: &str, from: &str, to: &str| {
        let [start, end, axis, step] = &constants;
        let inputs = [from, start, end, axis, step];
        node(format!("{name}#{part}"), "Slice", &inputs, to)
    };
    let read = tensor("reversed");
    made.push(turned("reversed", &cell.input[0], &read));
    let all = cell.output.first().filter(|all| !all.is_empty()).cloned();
    let backwards = tensor("backwards");
    cell.input[0] = read;
    cell.attribute.retain(|found| found.name != "direction");
    if all.is_some() {
        cell.output[0].clone_from(&backwards);
    }
    made.push(cell);
    made.extend(all.map(|all| turned("forwards", &backwards, &all)));
    made
}

/// A constant list of one number.
fn int_list(name: String, value: i64, output: &str) -> NodeProto {
    let mut made = node(name, "Constant", &[], output);
    made.attribute = vec![AttributeProto {
        name: "value_ints".to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: vec![value],
        ..AttributeProto::default()
    }];
    made
}

//! What the engine builds, and then computes wrongly or panics over: refused before it does.
//!
//! Each row was found by running the ONNX backend's node tests (`cargo xtask conformance`), or small
//! models against onnxruntime, and goes when the engine learns it.

use bellwether_wire::{Refusal, bounded_message};
use tract_onnx::pb::{ModelProto, NodeProto};

use super::attribute;
use crate::{inspect, operators::recurrent};

/// One row: an operator, when it is meant, and what to change in the model.
struct Rule {
    operator: &'static str,
    when: fn(&NodeProto) -> bool,
    advice: &'static str,
}

const RECURRENT: &str = "clip, input_forget and activations beyond Relu, LeakyRelu, Tanh, Sigmoid, HardSigmoid, Elu, ThresholdedRelu, Softplus and Softsign, the same in both directions, are not supported; export the cell without them";

const RULES: [Rule; 6] = [
    Rule {
        operator: "GlobalLpPool",
        when: |_| true,
        advice: "the engine takes the mean where ONNX has the sum; use ReduceL1 or ReduceL2 over the spatial axes",
    },
    Rule {
        operator: "GRU",
        when: recurrent::is_beyond,
        advice: RECURRENT,
    },
    Rule {
        operator: "LSTM",
        when: recurrent::is_beyond,
        advice: RECURRENT,
    },
    Rule {
        operator: "RNN",
        when: recurrent::is_beyond,
        advice: RECURRENT,
    },
    Rule {
        operator: "QLinearAveragePool",
        when: |node| is_set(node, "channels_last"),
        advice: "channels_last is not supported; quantise without it",
    },
    Rule {
        operator: "QLinearGlobalAveragePool",
        when: |node| is_set(node, "channels_last"),
        advice: "channels_last is not supported; quantise without it",
    },
];

/// Refuses a node that a row of the table means.
pub(crate) fn check(node: &NodeProto) -> Result<(), Refusal> {
    let rule = RULES
        .iter()
        .find(|rule| rule.operator == node.op_type && (rule.when)(node));
    rule.map_or(Ok(()), |rule| Err(refusal(node, rule.advice)))
}

/// Refuses what is wrong only over tensors of no elements, which a contract asks for here: for the
/// greatest of no numbers the engine has the type's own least, and ONNX has infinity.
pub(crate) fn check_empty(proto: &ModelProto) -> Result<(), Refusal> {
    let mut nodes = proto.graph.iter().flat_map(|graph| &graph.node);
    let extreme = nodes.find(|node| matches!(node.op_type.as_str(), "ReduceMax" | "ReduceMin"));
    let advice = "the greatest or least of no numbers; give each input at least one element";
    extreme.map_or(Ok(()), |node| Err(refusal(node, advice)))
}

fn refusal(node: &NodeProto, advice: &str) -> Refusal {
    Refusal::Unsupported {
        node: Some(inspect::node_name(node)),
        operator: Some(inspect::operator(node)),
        stage: "load".to_owned(),
        message: bounded_message(advice),
    }
}

/// An integer attribute that is there, and not 0.
fn is_set(node: &NodeProto, name: &str) -> bool {
    attribute(node, name).is_some_and(|attribute| attribute.i != 0)
}

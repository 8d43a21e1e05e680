//! Passes over a model as it was read, before the engine builds it.
//!
//! | pass | does |
//! |---|---|
//! | [`names`] | tells nodes of one name apart |
//! | [`scalars`] | takes lists of one number for a number |
//! | [`division`] | divides where the quotient is rounded |
//! | [`reversed`] | turns around what a recurrent cell reads backwards |
//! | [`pooling`] | turns `LpPool` into averages |
//! | [`quantised`] | turns operators on integers into the same on f32, between rounding to the grid |
//! | [`refuse`] | refuses what the engine would compute wrongly, or panic over |
//!
//! A pass rewrites what means the same, and never by a model's name.

mod division;
mod names;
mod pooling;
pub(crate) mod quantised;
pub(crate) mod refuse;
mod reversed;
mod scalars;

use std::collections::BTreeSet;

use bellwether_wire::Refusal;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, attribute_proto::AttributeType,
};

use crate::inspect::malformed;

/// Makes a model ready for the engine, which has passed `inspect::check`.
pub(crate) fn prepare(proto: &mut ModelProto) -> Result<(), Refusal> {
    let graph = proto.graph.as_mut();
    let graph = graph.ok_or_else(|| malformed("it holds no graph"))?;
    let mut taken = BTreeSet::new();
    each_graph(graph, &mut |graph| {
        names::make_unique(graph, &mut taken);
        division::make_exact(graph);
        scalars::unwrap(graph);
        reversed::rewrite(graph);
        pooling::rewrite(graph);
        quantised::rewrite(graph);
    });
    Ok(())
}

/// Whether a pass takes the node away, so that the engine need not know its operator.
pub(crate) fn is_rewritten(node: &NodeProto) -> bool {
    let operator = node.op_type.as_str();
    operator == pooling::LP_POOL || quantised::REWRITTEN.contains(&operator)
}

/// Applies a pass to a graph and to all graphs inside it. Their depth was bounded when the model
/// was checked.
fn each_graph(graph: &mut GraphProto, pass: &mut impl FnMut(&mut GraphProto)) {
    pass(graph);
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    for inner in
        attributes.flat_map(|attribute| attribute.g.iter_mut().chain(&mut attribute.graphs))
    {
        each_graph(inner, pass);
    }
}

/// A node that a pass puts in. `name` begins with that of the node it stands for, and a sign that
/// ends a word, so that a refusal finds the node that people know.
fn node(name: String, operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name,
        op_type: operator.to_owned(),
        input: inputs.iter().map(|input| (*input).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn int_attribute(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

fn float_constant(name: String, value: f32, output: &str) -> NodeProto {
    let mut made = node(name, "Constant", &[], output);
    made.attribute = vec![AttributeProto {
        name: "value_float".to_owned(),
        r#type: AttributeType::Float as i32,
        f: value,
        ..AttributeProto::default()
    }];
    made
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
}

//! The graph's ports against the contract's.

use bellwether_package::sections::Dim;
use bellwether_wire::{PortShape, Refusal};
use tract_onnx::pb::ModelProto;

use super::refuse::port_refusal;
use crate::{
    inspect::{self, PortFacts},
    operators::ml::text,
};

pub(super) fn check_inputs(ports: &[PortShape], declared: &[PortFacts]) -> Result<(), Refusal> {
    for port in ports {
        let found = declared.iter().find(|facts| facts.name == port.name);
        let found = found.ok_or_else(|| {
            let names: Vec<_> = declared.iter().map(|facts| facts.name.as_str()).collect();
            let message = format!("the graph has no such input; it has {}", names.join(", "));
            port_refusal(&port.name, &message)
        })?;
        check_port(port, found)?;
    }
    match declared
        .iter()
        .find(|facts| ports.iter().all(|port| port.name != facts.name))
    {
        Some(facts) => Err(port_refusal(
            &facts.name,
            "the graph needs this input: the contract must feed it, keep it as a state, or give its value as a constant",
        )),
        None => Ok(()),
    }
}

fn check_port(port: &PortShape, facts: &PortFacts) -> Result<(), Refusal> {
    if facts.dtype != Some(port.dtype) {
        let message = format!(
            "the graph's type is {:?}, the contract's {:?}",
            facts.dtype, port.dtype
        );
        return Err(port_refusal(&port.name, &message));
    }
    let Some(shape) = &facts.shape else {
        return Ok(());
    };
    let fits = shape.len() == port.shape.len()
        && shape
            .iter()
            .zip(&port.shape)
            .all(|(declared, dim)| match (declared, dim) {
                (inspect::DimFacts::Fixed(declared), Dim::Fixed(size)) => declared == size,
                // A graph that fixes its batch takes one row at a time.
                (inspect::DimFacts::Fixed(_), Dim::Batch) => false,
                _ => true,
            });
    if fits {
        return Ok(());
    }
    let message = format!(
        "the graph's shape is {shape:?}, the contract's {:?}",
        port.shape
    );
    Err(port_refusal(&port.name, &message))
}

/// Leaves the graph these outputs alone, in this order: what nobody reads is not computed.
pub(super) fn select_outputs(
    proto: &mut ModelProto,
    outputs: &[&str],
    declared: &[PortFacts],
) -> Result<(), Refusal> {
    for name in outputs {
        text::refuse(proto, name)?;
    }
    let Some(graph) = proto.graph.as_mut() else {
        return Err(inspect::malformed("it holds no graph"));
    };
    let mut selected = Vec::with_capacity(outputs.len());
    for name in outputs {
        let at = declared.iter().position(|facts| facts.name == *name);
        let output = at.and_then(|at| graph.output.get(at)).ok_or_else(|| {
            let names: Vec<_> = declared.iter().map(|facts| facts.name.as_str()).collect();
            let message = format!("the graph has no such output; it has {}", names.join(", "));
            port_refusal(name, &message)
        })?;
        // The reader takes it for granted that somebody computes what is named.
        let computed = graph
            .node
            .iter()
            .any(|node| node.output.iter().any(|output| output == name))
            || graph.input.iter().any(|input| input.name == *name)
            || graph.initializer.iter().any(|tensor| tensor.name == *name);
        if !computed {
            return Err(port_refusal(name, "no node computes this output"));
        }
        selected.push(output.clone());
    }
    graph.output = selected;
    Ok(())
}

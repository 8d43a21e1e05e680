//! That every value of a graph is given once.
//!
//! The engine keeps the last of two values with one name, other runtimes the first, and neither
//! says so: such a model computes one thing where it was tested and another where it runs.

use std::collections::HashSet;

use bellwether_wire::Refusal;
use tract_onnx::pb::GraphProto;

use crate::inspect::malformed;

/// Refuses a graph that gives a value twice. Inner graphs are looked at one by one: a name of the
/// outer graph may be covered there.
pub(crate) fn check(graph: &GraphProto) -> Result<(), Refusal> {
    let mut inputs = HashSet::new();
    for input in &graph.input {
        once(&mut inputs, &input.name)?;
    }
    // Before format version 4, an initialiser was an input too: its default.
    let mut computed = HashSet::new();
    for tensor in &graph.initializer {
        once(&mut computed, &tensor.name)?;
    }
    computed.extend(inputs);
    let outputs = graph.node.iter().flat_map(|node| &node.output);
    for output in outputs.filter(|name| !name.is_empty()) {
        once(&mut computed, output)?;
    }
    Ok(())
}

fn once<'a>(names: &mut HashSet<&'a str>, name: &'a str) -> Result<(), Refusal> {
    if names.insert(name) {
        return Ok(());
    }
    Err(malformed(&format!("value `{name}` is given twice")))
}

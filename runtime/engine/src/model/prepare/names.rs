//! Names of nodes, each once in the whole model.
//!
//! The engine merges the graphs inside a model into it, and fails over two nodes of one name; ONNX
//! lets every branch use the same names, and exporters write `anon` many times.

use std::collections::BTreeSet;

use tract_onnx::pb::GraphProto;

use crate::inspect;

/// Names the nodes of one graph apart from all names in `taken`.
pub(super) fn make_unique(graph: &mut GraphProto, taken: &mut BTreeSet<String>) {
    taken.extend(graph.input.iter().map(|input| input.name.clone()));
    taken.extend(graph.initializer.iter().map(|tensor| tensor.name.clone()));
    for node in &mut graph.node {
        let name = inspect::node_name(node);
        // The sign ends a word, so that a refusal still finds the name that people know.
        let numbered = (2_u64..).map(|count| format!("{name}#{count}"));
        let free = [name.clone()].into_iter().chain(numbered);
        let free = free.into_iter().find(|name| !taken.contains(name));
        node.name = free.unwrap_or(name);
        taken.insert(node.name.clone());
    }
}

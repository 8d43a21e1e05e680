//! What the engine says, as refusals that name a node.

use bellwether_wire::{Refusal, bounded_message};
use tract_onnx::{
    pb::{ModelProto, NodeProto},
    prelude::TractError,
};

use crate::inspect;

/// Turns the engine's errors into refusals that name a node, where the error does.
pub(super) struct Stage<'a> {
    pub(super) nodes: &'a [(String, String)],
    pub(super) name: &'static str,
}

impl Stage<'_> {
    pub(super) fn refuse(&self, error: &TractError) -> Refusal {
        // The engine tells the node only in words, in one of the error's layers.
        let text = format!("{error:#}");
        let named = self
            .nodes
            .iter()
            .filter(|(name, _)| !name.is_empty() && mentions(&text, name))
            .max_by_key(|(name, _)| name.len());
        Refusal::Unsupported {
            node: named.map(|(name, _)| name.clone()),
            operator: named.map(|(_, operator)| operator.clone()),
            stage: self.name.to_owned(),
            message: bounded_message(&text),
        }
    }
}

/// True if `name` stands in `text` as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '.');
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

pub(super) fn node_names(proto: &ModelProto) -> Vec<(String, String)> {
    let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
    let names = |node: &NodeProto| (inspect::node_name(node), inspect::operator(node));
    nodes.map(names).collect()
}

pub(super) fn port_refusal(port: &str, message: &str) -> Refusal {
    Refusal::Port {
        port: bounded_message(port),
        message: bounded_message(message),
    }
}

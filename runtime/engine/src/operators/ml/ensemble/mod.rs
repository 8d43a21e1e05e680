//! Ensembles of decision trees: described, checked, laid out, and walked.
//!
//! Nothing here knows ONNX or the engine. [`Trees`] is what an exporter wrote, node by node, and
//! is checked in full before anything is built from it. [`Ensemble`] is the same laid out for
//! speed: [`layout`] packs nodes into eight bytes where they fit, [`walk`] keeps eight rows or
//! eight trees in flight without a branch that depends on data. Trees that ask for more than an
//! order between a reading and a number are walked as described ([`plain`]).

mod layout;
mod plain;
mod rows;
mod scalar;
mod score;
mod trees;
mod walk;

pub(crate) use scalar::Scalar;
pub(crate) use score::{Aggregate, Ensemble, Scores};
pub(crate) use trees::{Branch, Node, TARGETS_MAX, Test, TreeError, Trees, Weight};

#[cfg(test)]
mod tests;

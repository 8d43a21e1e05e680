//! Every run begins anew.
//!
//! The engine was made for streams: what a loop carries from step to step it carries from run to
//! run as well. In ONNX a run knows nothing of the one before; a state that is to be kept goes out
//! and comes in again.

use tract_onnx::{
    prelude::TypedModel,
    tract_core::ops::{gru_seq::GruSeq, scan::Scan},
};

/// Makes all loops of a model begin with their initial state whenever the model is run; loops
/// within loops whenever the outer one takes a step. Graphs are nested no deeper than was read.
pub(crate) fn begin_anew(model: &mut TypedModel) {
    for node in model.nodes_mut() {
        if let Some(scan) = node.op_as_mut::<Scan>() {
            scan.reset_every_turn = true;
            begin_anew(&mut scan.body);
        } else if let Some(gru) = node.op_as_mut::<GruSeq>() {
            gru.reset_every_turn = true;
        }
    }
}

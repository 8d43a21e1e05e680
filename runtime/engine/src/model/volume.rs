//! Values that no device could hold, found in the shapes before anything computes them.

use bellwether_wire::{Refusal, bounded_message};
use tract_onnx::prelude::{TypedFact, TypedModel};

/// Bytes of one value at most. Far above what a worker may have: whatever lies between dies of the
/// worker's own limit, and what the engine never lays out in memory is not refused for its shape.
const VALUE_BYTES_MAX: u64 = 1 << 32;

/// Refuses a graph with a value beyond [`VALUE_BYTES_MAX`]; the engine would multiply such a shape
/// without looking whether the product still is one.
pub(super) fn check(graph: &TypedModel) -> Result<(), Refusal> {
    for node in graph.nodes() {
        let sizes = node.outputs.iter().map(|output| bytes(&output.fact));
        if let Some(found) = sizes.max().filter(|bytes| *bytes > VALUE_BYTES_MAX) {
            return Err(Refusal::Excess {
                place: bounded_message(&format!("node `{}`", node.name)),
                what: "bytes in one value".to_owned(),
                found,
                most: VALUE_BYTES_MAX,
            });
        }
    }
    Ok(())
}

/// Bytes of a value; 0 where the shape is not known yet, the greatest number where it overflows.
fn bytes(fact: &TypedFact) -> u64 {
    let Some(shape) = fact.shape.as_concrete() else {
        return 0;
    };
    let element = fact.datum_type.size_of() as u64;
    let product = shape
        .iter()
        .try_fold(element, |bytes, size| bytes.checked_mul(*size as u64));
    product.unwrap_or(u64::MAX)
}

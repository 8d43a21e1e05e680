//! What can be refused only once shapes are known.

use tract_onnx::{
    prelude::TypedModel,
    tract_core::ops::nn::{Reduce, Reducer},
};

/// The name of a node that the engine would compute wrongly with these shapes, and why.
pub(crate) fn fault(model: &TypedModel) -> Option<(String, &'static str)> {
    let node = model.nodes().iter().find(|node| {
        let extreme = node
            .op_as::<Reduce>()
            .is_some_and(|reduce| matches!(reduce.reducer, Reducer::Max | Reducer::Min));
        let input = node.inputs.first();
        let fact = input.and_then(|input| model.outlet_fact(*input).ok());
        // The engine has the type's own least number for it, and ONNX has infinity.
        let sizes = fact.and_then(|fact| fact.shape.as_concrete());
        extreme && sizes.is_some_and(|sizes| sizes.contains(&0))
    })?;
    Some((
        node.name.clone(),
        "the greatest or least of no numbers; give the input at least one element",
    ))
}

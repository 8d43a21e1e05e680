//! What the engine would simplify, as if there were no NaN.

use tract_onnx::tract_core::{
    internal::*,
    ops::{
        binary::TypedBinOp,
        element_wise::{ElementWiseMiniOp, ElementWiseOp},
        math::{Mul, Pow, Sqrt, Square},
    },
};

use super::{
    number::{Number, by_float, is_float},
    pair::Pair,
};

/// Keeps `0 · x` from becoming 0, and the square of a root from becoming what the root was of.
pub(crate) fn keep_from_simplifying(model: &mut TypedModel) -> TractResult<()> {
    for at in 0..model.nodes().len() {
        if is_product_with_nothing(model, at)? {
            model.node_mut(at).op = Box::new(TypedBinOp(Box::new(Pair::Product), None));
        } else if is_squared_root(model, at)? {
            model.node_mut(at).op = Box::new(ElementWiseOp(Box::new(Root), None));
        }
    }
    Ok(())
}

fn is_product_with_nothing(model: &TypedModel, node: usize) -> TractResult<bool> {
    let op = model.node(node).op_as::<TypedBinOp>();
    if !op.is_some_and(|op| op.0.is::<Mul>() && op.1.is_none()) {
        return Ok(false);
    }
    let facts = model.node_input_facts(node)?;
    let floats = is_float(facts[0].datum_type) && facts[0].datum_type == facts[1].datum_type;
    let is_zero = |fact: &&TypedFact| {
        let uniform = fact.uniform.as_ref();
        let number = uniform.and_then(|uniform| uniform.cast_to_scalar::<f64>().ok());
        number == Some(0.0)
    };
    Ok(floats && facts.iter().any(is_zero))
}

fn is_squared_root(model: &TypedModel, node: usize) -> TractResult<bool> {
    let Some(op) = model.node(node).op_as::<ElementWiseOp>() else {
        return Ok(false);
    };
    if !op.0.is::<Sqrt>() || !is_float(model.outlet_fact(node.into())?.datum_type) {
        return Ok(false);
    }
    let squares = |inlet: &InletId| {
        let reader = model.node(inlet.node);
        let squares = |op: &ElementWiseOp| op.0.is::<Square>();
        let product = |op: &TypedBinOp| {
            op.0.is::<Pow>() || op.0.is::<Mul>() && reader.inputs[0] == reader.inputs[1]
        };
        reader.op_as::<ElementWiseOp>().is_some_and(squares)
            || reader.op_as::<TypedBinOp>().is_some_and(product)
    };
    Ok(model.node(node).outputs[0].successors.iter().any(squares))
}

/// The square root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Root;

impl ElementWiseMiniOp for Root {
    fn name(&self) -> String {
        "Root".to_owned()
    }

    fn eval_in_place(&self, x: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        fn roots<T: Number>(x: &mut Tensor) -> TractResult<()> {
            let mut plain = x.try_as_plain_ram_mut()?;
            for x in plain.as_slice_mut::<T>()? {
                *x = x.sqrt();
            }
            Ok(())
        }
        by_float!(x.datum_type(), roots(x))
    }
}

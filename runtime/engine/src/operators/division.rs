//! Division that divides.

use tract_onnx::{
    Onnx,
    model::ParsingContext,
    pb::NodeProto,
    tract_core::ops::math::div,
    tract_hir::{
        internal::*, ops::binary::wire_rank_broadcast, tract_core::broadcast::multi_broadcast,
    },
};

/// The operator's name: `Div`, without the engine's reciprocal.
pub(crate) const EXACT: &str = "BellwetherDiv";

pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert(EXACT, divide);
}

fn divide(
    _: &ParsingContext<'_>,
    _: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(Divide), vec![]))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Divide;

impl Expansion for Divide {
    fn name(&self) -> StaticName {
        "Divide".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[1].datum_type, &outputs[0].datum_type)?;
        solver.given_2(&inputs[0].shape, &inputs[1].shape, |solver, a, b| {
            let shape = multi_broadcast(&[a, b])?;
            solver.equals(&outputs[0].shape, shape)
        })?;
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let dtype = model.outlet_fact(inputs[0])?.datum_type;
        let wires = wire_rank_broadcast(prefix, model, inputs)?;
        if dtype == DatumType::F32 || dtype == DatumType::F64 {
            model.wire_node(prefix, Division, &wires)
        } else {
            model.wire_node(prefix, div(), &wires)
        }
    }
}

/// `a / b` of two tensors of f32 or of f64, of one rank.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Division;

impl Op for Division {
    fn name(&self) -> StaticName {
        "Division".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Division {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let quotient = if inputs[0].datum_type() == DatumType::F64 {
            quotient::<f64>(&inputs[0], &inputs[1])
        } else {
            quotient::<f32>(&inputs[0], &inputs[1])
        };
        Ok(tvec![quotient?.into_tvalue()])
    }
}

fn quotient<T: Datum + Copy + std::ops::Div<Output = T>>(
    a: &Tensor,
    b: &Tensor,
) -> TractResult<Tensor> {
    let shape = multi_broadcast(&[a.shape(), b.shape()])?;
    let (a, b) = (a.to_plain_array_view::<T>()?, b.to_plain_array_view::<T>()?);
    let broadcast = "shapes that broadcast together";
    let a = a.broadcast(&*shape).context(broadcast)?;
    let b = b.broadcast(&*shape).context(broadcast)?;
    Ok((&a / &b).into_tensor())
}

impl TypedOp for Division {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = multi_broadcast(&[&inputs[0].shape, &inputs[1].shape])?;
        Ok(tvec![inputs[0].datum_type.fact(shape)])
    }

    as_op!();
}

//! `Sigmoid` in f64, which tract has in f32 alone: neural networks that scikit-learn exports for
//! doubles end in it.

use tract_onnx::{
    model::ParsingContext,
    pb::NodeProto,
    tract_core::ops::{math, nn},
    tract_hir::{internal::*, ops::logic::wire_with_rank_broadcast},
};

#[derive(Debug, Clone)]
struct Sigmoid;

pub(super) fn sigmoid(
    _: &ParsingContext<'_>,
    _: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(Sigmoid), vec![]))
}

impl Expansion for Sigmoid {
    fn name(&self) -> StaticName {
        "Sigmoid".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        if model.outlet_fact(inputs[0])?.datum_type != DatumType::F64 {
            return model.wire_node(prefix, nn::sigmoid(), inputs);
        }
        // 1 / (1 + exp(−x))
        let one = model.add_const(format!("{prefix}.one"), rctensor0(1.0_f64))?;
        let minus = model.wire_node(format!("{prefix}.minus"), math::neg(), inputs)?;
        let exp = model.wire_node(format!("{prefix}.exp"), math::exp(), &minus)?[0];
        let name = format!("{prefix}.plus");
        let plus = wire_with_rank_broadcast(name, model, math::add(), &[exp, one])?[0];
        wire_with_rank_broadcast(prefix, model, math::div(), &[one, plus])
    }
}

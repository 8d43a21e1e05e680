//! The engine's operators: tract's own, and those of ONNX-ML that it lacks and exporters need.
//!
//! The same map is the allowlist: what is not in it is refused before anything is built.

mod quantised;

use tract_onnx::{
    Onnx,
    model::ParsingContext,
    pb::NodeProto,
    tract_core::ops::{cast::cast, math},
    tract_hir::{internal::*, ops::logic::wire_with_rank_broadcast},
};

/// The reader of models, with all operators.
pub(crate) fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    onnx.op_register.insert("Scaler", scaler);
    quantised::register(&mut onnx);
    onnx
}

/// `Scaler` of ai.onnx.ml 1: `(X − offset) · scale`, in f32, along the last axis. With it begins
/// every pipeline that scikit-learn's `StandardScaler` begins.
/// <https://onnx.ai/onnx/operators/onnx_aionnxml_Scaler.html>
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scaler {
    offset: Arc<Tensor>,
    scale: Arc<Tensor>,
}

fn scaler(
    _: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let attribute = |name: &str, default: f32| -> TractResult<Arc<Tensor>> {
        let values: Option<Vec<f32>> = node.get_attr_opt_vec(name)?;
        let values = values.unwrap_or_else(|| vec![default]);
        node.expect(
            !values.is_empty(),
            "a value for each column, or one for all",
        )?;
        Ok(rctensor1(&values))
    };
    let offset = attribute("offset", 0.0)?;
    let scale = attribute("scale", 1.0)?;
    Ok((expand(Scaler { offset, scale }), vec![]))
}

impl Expansion for Scaler {
    fn name(&self) -> StaticName {
        "Scaler".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, DatumType::F32)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let columns = model.outlet_fact(inputs[0])?.shape.last().cloned();
        for values in [&self.offset, &self.scale] {
            // More values than columns would broadcast into another shape.
            let fits = values.len() == 1 || columns == Some(values.len().to_dim());
            ensure!(fits, "{} values for {columns:?} columns", values.len());
        }
        let x = model.wire_node(format!("{prefix}.f32"), cast(DatumType::F32), inputs)?[0];
        let offset = model.add_const(format!("{prefix}.offset"), self.offset.clone())?;
        let scale = model.add_const(format!("{prefix}.scale"), self.scale.clone())?;
        let name = format!("{prefix}.centred");
        let centred = wire_with_rank_broadcast(name, model, math::sub(), &[x, offset])?[0];
        let name = format!("{prefix}.scaled");
        wire_with_rank_broadcast(name, model, math::mul(), &[centred, scale])
    }
}

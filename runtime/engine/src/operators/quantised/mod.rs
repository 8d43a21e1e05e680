//! `QuantizeLinear` and `DequantizeLinear` of ai.onnx 10 to 23.
//!
//! A quantised model is computed in f32, on the values that its integers stand for: weights are
//! dequantised once, at load, and each activation is rounded to its grid where the model says so.
//! An integer kernel would give the same numbers to within one step; the engine's own are slower
//! than its f32 kernels, and wrong in places.
//! <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>,
//! <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>

mod dynamic;
mod grid;
mod wiring;

use tract_onnx::{
    Onnx, model::ParsingContext, pb::NodeProto, tract_core::ops::element_wise::ElementWiseOp,
    tract_hir::internal::*,
};

use grid::{Dequantise, Grid, Quantise};
use wiring::{Layout, dequantised_constant, wire_dequantise, wire_quantise};

pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert("QuantizeLinear", quantize);
    onnx.op_register.insert("DequantizeLinear", dequantize);
    onnx.op_register
        .insert("DynamicQuantizeLinear", dynamic::dynamic_quantize);
}

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

fn quantize(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let has_zero = node.input.get(2).is_some_and(|name| !name.is_empty());
    let told: Option<DatumType> = match node.get_attr_opt::<i64>("output_dtype")? {
        None | Some(0) => None,
        Some(_) => node.get_attr_opt("output_dtype")?,
    };
    let layout = Layout::of(node)?;
    let dtype = told.unwrap_or(DatumType::U8);
    let quantize = QuantizeLinear {
        has_zero,
        dtype,
        layout,
    };
    Ok((expand(quantize), vec![]))
}

fn dequantize(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let has_zero = node.input.get(2).is_some_and(|name| !name.is_empty());
    let layout = Layout::of(node)?;
    Ok((expand(DequantizeLinear { has_zero, layout }), vec![]))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct QuantizeLinear {
    has_zero: bool,
    /// Where no zero point tells the type.
    dtype: DatumType,
    layout: Layout,
}

impl Expansion for QuantizeLinear {
    fn name(&self) -> StaticName {
        "QuantizeLinear".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2 + usize::from(self.has_zero))?;
        check_output_arity(outputs, 1)?;
        if self.has_zero {
            solver.equals(&outputs[0].datum_type, &inputs[2].datum_type)?;
        } else {
            solver.equals(&outputs[0].datum_type, self.dtype)?;
        }
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let dtype = match inputs.get(2) {
            Some(zero) => model.outlet_fact(*zero)?.datum_type,
            None => self.dtype,
        };
        let x = model.outlet_fact(inputs[0])?;
        if x.datum_type == DatumType::F32
            && let Some(grid) = grid_of(model, inputs, dtype)?
        {
            return model.wire_node(prefix, quantise(grid), &inputs[..1]);
        }
        wire_quantise(prefix, model, inputs, dtype, self.layout)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DequantizeLinear {
    has_zero: bool,
    layout: Layout,
}

impl Expansion for DequantizeLinear {
    fn name(&self) -> StaticName {
        "DequantizeLinear".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2 + usize::from(self.has_zero))?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, &inputs[1].datum_type)?;
        if self.has_zero {
            solver.equals(&inputs[0].datum_type, &inputs[2].datum_type)?;
        }
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        if let Some(weights) = dequantised_constant(model, inputs, self.layout)? {
            return Ok(tvec!(model.add_const(prefix, weights)?));
        }
        let dtype = model.outlet_fact(inputs[0])?.datum_type;
        let is_f32 = model.outlet_fact(inputs[1])?.datum_type == DatumType::F32;
        if is_f32 && let Some(grid) = grid_of(model, inputs, dtype)? {
            return model.wire_node(prefix, dequantise(grid), &inputs[..1]);
        }
        wire_dequantise(prefix, model, inputs, self.layout)
    }
}

fn quantise(grid: Grid) -> ElementWiseOp {
    ElementWiseOp(Box::new(Quantise(grid)), None)
}

fn dequantise(grid: Grid) -> ElementWiseOp {
    ElementWiseOp(Box::new(Dequantise(grid)), None)
}

/// The grid, if one constant scale and one constant zero point make it.
fn grid_of(model: &TypedModel, inputs: &[OutletId], dtype: DatumType) -> TractResult<Option<Grid>> {
    let constant = |outlet: &OutletId| -> TractResult<Option<f32>> {
        let Some(tensor) = &model.outlet_fact(*outlet)?.konst else {
            return Ok(None);
        };
        if tensor.len() != 1 {
            return Ok(None);
        }
        let tensor = tensor.cast_to::<f32>()?;
        Ok(tensor
            .try_as_plain_ram()?
            .as_slice::<f32>()?
            .first()
            .copied())
    };
    let zero = inputs.get(2).map_or(Ok(Some(0.0)), constant)?;
    let (Some(scale), Some(zero)) = (constant(&inputs[1])?, zero) else {
        return Ok(None);
    };
    Ok(Grid::new(scale, zero, dtype))
}

//! `DynamicQuantizeLinear` of ai.onnx 11: scale and zero point from the tensor itself.
//! <https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>

use tract_onnx::{model::ParsingContext, pb::NodeProto, tract_hir::internal::*};

use super::{
    Built,
    grid::{Grid, Quantise},
};

pub(super) fn dynamic_quantize(_: &ParsingContext<'_>, _: &NodeProto) -> Built {
    Ok((expand(DynamicQuantizeLinear), vec![]))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DynamicQuantizeLinear;

impl Expansion for DynamicQuantizeLinear {
    fn name(&self) -> StaticName {
        "DynamicQuantizeLinear".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(3)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 3)?;
        solver.equals(&inputs[0].datum_type, DatumType::F32)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        solver.equals(&outputs[0].datum_type, DatumType::U8)?;
        solver.equals(&outputs[1].datum_type, DatumType::F32)?;
        solver.equals(&outputs[1].rank, 0)?;
        solver.equals(&outputs[2].datum_type, DatumType::U8)?;
        solver.equals(&outputs[2].rank, 0)?;
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, DynamicQuantise, &inputs[..1])
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DynamicQuantise;

impl Op for DynamicQuantise {
    fn name(&self) -> StaticName {
        "DynamicQuantise".into()
    }

    op_as_typed_op!();
}

impl EvalOp for DynamicQuantise {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let plain = inputs[0].try_as_plain_ram()?;
        let (scale, zero) = scale_and_zero(plain.as_slice::<f32>()?);
        let grid = Grid::new(scale, zero, DatumType::U8).context("u8 has a grid")?;
        let quantised = Quantise(grid).eval_out_of_place(&inputs[0], None)?;
        Ok(tvec![
            quantised.into_tvalue(),
            tensor0(scale).into_tvalue(),
            tensor0(zero as u8).into_tvalue(),
        ])
    }
}

/// Extremes kept side by side, so that the loop over them is vectorised.
const LANES: usize = 16;

/// The range is made to hold zero, so that zero is exact. A NaN makes the scale NaN, and so
/// everything that is computed with it: integers could not carry it further.
fn scale_and_zero(values: &[f32]) -> (f32, f32) {
    let (mut least, mut greatest, mut sum) = ([0.0_f32; LANES], [0.0_f32; LANES], [0.0_f32; LANES]);
    let (lanes, rest) = values.as_chunks::<LANES>();
    let mut tail = [0.0; LANES];
    tail[..rest.len()].copy_from_slice(rest);
    for chunk in lanes.iter().chain([&tail]) {
        for (lane, x) in chunk.iter().enumerate() {
            least[lane] = if *x < least[lane] { *x } else { least[lane] };
            greatest[lane] = if *x > greatest[lane] {
                *x
            } else {
                greatest[lane]
            };
            sum[lane] += *x * 0.0;
        }
    }
    let least = least.into_iter().fold(0.0, f32::min);
    let greatest = greatest.into_iter().fold(0.0, f32::max);
    // Infinities make the sum NaN as well, and leave no scale either.
    if sum.iter().any(|sum| sum.is_nan()) {
        return (f32::NAN, 0.0);
    }
    let scale = (greatest - least) / 255.0;
    if scale == 0.0 {
        // All zeros: any scale does, and onnxruntime takes this one.
        return (1.0, 0.0);
    }
    (scale, (-least / scale).clamp(0.0, 255.0).round_ties_even())
}

impl TypedOp for DynamicQuantise {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![
            DatumType::U8.fact(inputs[0].shape.clone()),
            DatumType::F32.scalar_fact(),
            DatumType::U8.scalar_fact(),
        ])
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_and_zero_are_those_of_the_specification_s_examples() {
        for (values, scale, zero) in [
            (&[0., 2., -3., -2.5, 1.34, 0.5][..], 0.019_607_844, 153.0),
            (&[-1., -2.1, -1.3, -2.5, -3.34, -4.], 0.015_686_275, 255.0),
            (
                &[1., 2.1, 1.3, 2.5, 3.34, 4., 1.5, 2.6, 3.9, 4., 3., 2.345],
                0.015_686_275,
                0.0,
            ),
            (&[0.0; 40], 1.0, 0.0),
        ] {
            assert_eq!(scale_and_zero(values), (scale, zero));
        }
    }

    #[test]
    fn a_nan_anywhere_is_not_lost() {
        for at in [0, 15, 16, 20] {
            let mut values = [1.0; 21];
            values[at] = f32::NAN;
            assert!(scale_and_zero(&values).0.is_nan(), "{at}");
        }
    }
}

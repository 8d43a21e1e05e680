//! One scale and one zero point: rounding to their grid, element by element.

use tract_onnx::{
    tract_core::ops::{
        array::Slice,
        cnn::MaxPool,
        element_wise::{ElementWiseMiniOp, ElementWiseOp},
    },
    tract_hir::internal::*,
};

/// 1.5 · 2^23. Added and taken away again it rounds an f32 of up to 2^22 to a whole number, ties to
/// even, as IEEE 754 adds; a loop of it is vectorised on every processor, where the instruction
/// for rounding is not.
const ROUNDER: f32 = 12_582_912.0;
/// Operators looked back over for an earlier rounding; a graph has a few between two.
const MOVERS_MAX: usize = 16;

/// The numbers that a quantised tensor can hold: `(q − zero) · scale`, `q` of the type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    scale: f32,
    zero: f32,
    /// Least and greatest `q − zero`.
    least: f32,
    greatest: f32,
    dtype: DatumType,
}

impl Eq for Grid {}

impl Grid {
    /// `None` for a type whose numbers do not all fit an f32.
    pub(super) fn new(scale: f32, zero: f32, dtype: DatumType) -> Option<Self> {
        let (least, greatest) = bounds(dtype)?;
        Some(Self {
            scale,
            zero,
            least: least - zero,
            greatest: greatest - zero,
            dtype,
        })
    }

    /// `q − zero` of a number. NaN stays NaN: a device watches for it.
    #[inline(always)]
    fn steps(&self, x: f32) -> f32 {
        ((x / self.scale).clamp(self.least, self.greatest) + ROUNDER) - ROUNDER
    }
}

/// Least and greatest number of a quantised type.
pub(super) fn bounds(dtype: DatumType) -> Option<(f32, f32)> {
    Some(match dtype {
        DatumType::U8 => (0.0, u8::MAX.into()),
        DatumType::I8 => (i8::MIN.into(), i8::MAX.into()),
        DatumType::U16 => (0.0, u16::MAX.into()),
        DatumType::I16 => (i16::MIN.into(), i16::MAX.into()),
        _ => return None,
    })
}

/// f32 to integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quantise(pub(super) Grid);

impl ElementWiseMiniOp for Quantise {
    fn name(&self) -> String {
        "Quantise".to_owned()
    }

    fn output_type(&self, _: DatumType) -> Option<DatumType> {
        Some(self.0.dtype)
    }

    fn eval_out_of_place(&self, x: &Tensor, _: Option<DatumType>) -> TractResult<Tensor> {
        let grid = self.0;
        let plain = x.try_as_plain_ram()?;
        let from = plain.as_slice::<f32>()?;
        macro_rules! each {
            ($integer:ty) => {{
                let mut y = Tensor::zero::<$integer>(x.shape())?;
                let mut to = y.try_as_plain_ram_mut()?;
                for (y, x) in to.as_slice_mut::<$integer>()?.iter_mut().zip(from) {
                    *y = (grid.steps(*x) + grid.zero) as $integer;
                }
                Ok(y)
            }};
        }
        match grid.dtype {
            DatumType::U8 => each!(u8),
            DatumType::I8 => each!(i8),
            DatumType::U16 => each!(u16),
            DatumType::I16 => each!(i16),
            other => bail!("nothing is quantised to {other:?}"),
        }
    }
}

/// Integers to f32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dequantise(pub(super) Grid);

impl ElementWiseMiniOp for Dequantise {
    fn name(&self) -> String {
        "Dequantise".to_owned()
    }

    fn output_type(&self, _: DatumType) -> Option<DatumType> {
        Some(DatumType::F32)
    }

    fn eval_out_of_place(&self, x: &Tensor, _: Option<DatumType>) -> TractResult<Tensor> {
        let grid = self.0;
        let mut y = Tensor::zero::<f32>(x.shape())?;
        let plain = x.try_as_plain_ram()?;
        let mut to = y.try_as_plain_ram_mut()?;
        let to = to.as_slice_mut::<f32>()?;
        macro_rules! each {
            ($integer:ty) => {
                for (y, x) in to.iter_mut().zip(plain.as_slice::<$integer>()?) {
                    *y = (f32::from(*x) - grid.zero) * grid.scale;
                }
            };
        }
        match x.datum_type() {
            DatumType::U8 => each!(u8),
            DatumType::I8 => each!(i8),
            DatumType::U16 => each!(u16),
            DatumType::I16 => each!(i16),
            other => bail!("{other:?} is not dequantised"),
        }
        Ok(y)
    }

    /// Straight after a [`Quantise`] of the same grid both are one pass over f32.
    fn declutter(
        &self,
        model: &TypedModel,
        node: &TypedNode,
    ) -> TractResult<Option<TypedModelPatch>> {
        let before = model.node(node.inputs[0].node);
        let Some(quantise) = mini_op::<Quantise>(before) else {
            return Ok(None);
        };
        if quantise.0 != self.0 {
            return Ok(None);
        }
        let round = ElementWiseOp(Box::new(RoundToGrid(self.0)), None);
        TypedModelPatch::replace_single_op(model, node, &before.inputs, round).map(Some)
    }
}

/// f32 to the nearest number of the grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoundToGrid(Grid);

impl ElementWiseMiniOp for RoundToGrid {
    fn name(&self) -> String {
        "RoundToGrid".to_owned()
    }

    fn eval_in_place(&self, x: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        let grid = self.0;
        let mut plain = x.try_as_plain_ram_mut()?;
        for x in plain.as_slice_mut::<f32>()? {
            *x = grid.steps(*x) * grid.scale;
        }
        Ok(())
    }

    /// What was rounded to this grid already, and only moved since, stays as it is: `q · scale`
    /// is within an ulp of the grid, and divided again rounds to the same `q`.
    fn declutter(
        &self,
        model: &TypedModel,
        node: &TypedNode,
    ) -> TractResult<Option<TypedModelPatch>> {
        let mut before = model.node(node.inputs[0].node);
        for _ in 0..MOVERS_MAX {
            if mini_op::<Self>(before) == Some(self) {
                return TypedModelPatch::shunt_one_op(model, node);
            }
            if !only_moves(before) {
                return Ok(None);
            }
            before = model.node(before.inputs[0].node);
        }
        Ok(None)
    }
}

fn only_moves(node: &TypedNode) -> bool {
    let moves = node.op_is::<AxisOp>()
        || node.op_is::<IntoShape>()
        || node.op_is::<Slice>()
        // The greatest of numbers on a grid is on it.
        || node.op_as::<MaxPool>().is_some_and(|pool| pool.with_index_outputs.is_none());
    moves && node.inputs.len() == 1
}

fn mini_op<T: ElementWiseMiniOp>(node: &TypedNode) -> Option<&T> {
    node.op_as::<ElementWiseOp>()?.0.downcast_ref::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_even_saturates_and_keeps_nan() {
        let grid = Grid::new(0.5, 10.0, DatumType::U8).unwrap();
        let q = |x: f32| grid.steps(x) + 10.0;
        for (x, expected) in [
            (0.25, 10.0),
            (0.75, 12.0),
            (1.25, 12.0),
            (-0.75, 8.0),
            (-1000.0, 0.0),
            (1000.0, 255.0),
            (f32::INFINITY, 255.0),
        ] {
            assert_eq!(q(x), expected, "{x}");
        }
        assert!(q(f32::NAN).is_nan());
    }

    #[test]
    fn every_number_of_a_grid_rounds_to_itself() {
        for scale in [0.003_921_569, 0.1, 7.3e-6, 1.0 / 3.0, 1234.567] {
            for (zero, dtype) in [(3.0, DatumType::U8), (-7.0, DatumType::I16)] {
                let grid = Grid::new(scale, zero, dtype).unwrap();
                let (least, greatest) = bounds(dtype).unwrap();
                for q in least as i32..=greatest as i32 {
                    let x = (q as f32 - zero) * scale;
                    assert_eq!(grid.steps(x) * scale, x, "{scale} {q}");
                }
            }
        }
    }
}

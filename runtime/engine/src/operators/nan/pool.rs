//! The greatest of each window.
//!
//! A window's greatest number is the greatest of its rows' greatest numbers, so one axis goes after
//! the other, the last axis last: all but that are folds of whole rows.

use std::borrow::Cow;

use pulp::Arch;
use tract_onnx::tract_core::{internal::*, ops::cnn::MaxPool};

use super::number::{Number, by_float, greater};

/// Numbers in one row of a window at most. Beyond it the engine may try.
const WINDOW_MAX: usize = 1 << 16;

/// Max pooling over a known shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pool {
    engine: MaxPool,
    shape: TVec<usize>,
    result: TVec<usize>,
    axes: TVec<Windows>,
}

/// The windows along one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Windows {
    axis: usize,
    size: usize,
    stride: usize,
    dilation: usize,
    /// Padding before the first number.
    before: usize,
}

impl Pool {
    /// `None` where it is left to the engine.
    pub(super) fn of(engine: &MaxPool, fact: &TypedFact) -> TractResult<Option<Self>> {
        let Some(shape) = fact.shape.as_concrete() else {
            return Ok(None);
        };
        let spec = &engine.pool_spec;
        let data = spec.data_format.shape(shape)?;
        let padding = spec.computed_padding(data.hw_dims());
        let windows = |at: usize| Windows {
            axis: data.h_axis() + at,
            size: spec.kernel_shape[at],
            stride: spec.stride(at),
            dilation: spec.dilation(at),
            before: padding[at].pad_before,
        };
        let axes: TVec<Windows> = (0..spec.rank()).map(windows).collect();
        let is_sound = |w: &Windows| {
            let sizes = [w.size, w.stride, w.dilation];
            let most = [w.size, w.stride, w.dilation, w.before, shape[w.axis]];
            sizes.iter().all(|size| *size > 0) && most.iter().all(|size| *size <= WINDOW_MAX)
        };
        let is_sound = axes.iter().all(is_sound) && !shape.contains(&0);
        Ok(is_sound.then_some(Self {
            engine: engine.clone(),
            result: spec.output_shape(shape)?.shape.iter().copied().collect(),
            shape: shape.into(),
            axes,
        }))
    }
}

impl Op for Pool {
    fn name(&self) -> StaticName {
        "GreatestOfWindow".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Pool {
    op_out_of_plan!();

    fn eval(&self, ctx: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = &inputs[0];
        ensure!(input.shape() == &*self.shape, "an image of another size");
        let greatest = by_float!(input.datum_type(), pooled(self, input))?.into_tvalue();
        if self.engine.with_index_outputs.is_none() {
            return Ok(tvec!(greatest));
        }
        let mut outputs = self.engine.eval(ctx, inputs)?;
        outputs[0] = greatest;
        Ok(outputs)
    }
}

impl TypedOp for Pool {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.engine.output_facts(inputs)
    }

    as_op!();
}

fn pooled<T: Number>(pool: &Pool, input: &Tensor) -> TractResult<Tensor> {
    let plain = input.try_as_plain_ram()?;
    let mut values = Cow::Borrowed(plain.as_slice::<T>()?);
    let mut shape = pool.shape.clone();
    for windows in &pool.axes {
        let axis = windows.axis;
        let (len, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        shape[axis] = pool.result[axis];
        let mut result = vec![T::min_value(); shape.iter().product()];
        let blocks = values.chunks_exact(len * inner);
        let results = result.chunks_exact_mut(shape[axis] * inner);
        Arch::new().dispatch(|| {
            for (block, result) in blocks.zip(results) {
                match inner {
                    1 => along(windows, block, result),
                    _ => across(windows, block, result, inner),
                }
            }
        });
        values = Cow::Owned(result);
    }
    Tensor::from_shape(&shape, &values)
}

/// Windows of whole rows.
#[inline(always)]
fn across<T: Number>(w: &Windows, block: &[T], result: &mut [T], inner: usize) {
    let len = block.len() / inner;
    for (at, result) in result.chunks_exact_mut(inner).enumerate() {
        for tap in 0..w.size {
            let row = (at * w.stride + tap * w.dilation).checked_sub(w.before);
            if let Some(row) = row.filter(|row| *row < len) {
                let pairs = result.iter_mut().zip(&block[row * inner..][..inner]);
                pairs.for_each(|(found, x)| *found = greater(*found, *x));
            }
        }
    }
}

/// Windows within one row: each tap goes over all of them.
#[inline(always)]
fn along<T: Number>(w: &Windows, row: &[T], result: &mut [T]) {
    for tap in 0..w.size {
        let offset = tap * w.dilation;
        // The first window whose tap lies in the row, and what it reads there.
        let first = w.before.saturating_sub(offset).div_ceil(w.stride);
        let from = first * w.stride + offset - w.before;
        if first >= result.len() || from >= row.len() {
            continue;
        }
        let (found, read) = (result[first..].iter_mut(), &row[from..]);
        match w.stride {
            1 => take(found, read.iter()),
            2 => take(found, read.chunks(2).map(|pair| &pair[0])),
            stride => take(found, read.iter().step_by(stride)),
        }
    }
}

#[inline(always)]
fn take<'a, T: Number>(found: impl Iterator<Item = &'a mut T>, read: impl Iterator<Item = &'a T>) {
    found
        .zip(read)
        .for_each(|(found, x)| *found = greater(*found, *x));
}

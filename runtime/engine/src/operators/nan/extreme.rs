//! The greatest and the least along axes.

use std::borrow::Cow;

use pulp::Arch;
use tract_onnx::tract_core::{
    internal::*,
    ops::nn::{Reduce, Reducer},
};

use super::number::{Number, by_float, greater, lesser};

/// Numbers of one row kept side by side, so that the loop over them is vectorised.
const LANES: usize = 16;

/// The engine's `Reduce` to an extreme: reduced axes stay, of size 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extreme {
    axes: TVec<usize>,
    greatest: bool,
}

impl Extreme {
    pub(super) fn of(reduce: &Reduce) -> Option<Self> {
        let greatest = match reduce.reducer {
            Reducer::Max => true,
            Reducer::Min => false,
            _ => return None,
        };
        let axes = reduce.axes.clone();
        Some(Self { axes, greatest })
    }
}

impl Op for Extreme {
    fn name(&self) -> StaticName {
        if self.greatest {
            "GreatestAlong"
        } else {
            "LeastAlong"
        }
        .into()
    }

    op_as_typed_op!();
}

impl EvalOp for Extreme {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        fn of<T: Number>(op: &Extreme, input: &Tensor) -> TractResult<Tensor> {
            match op.greatest {
                true => reduced(input, &op.axes, T::min_value(), greater::<T>),
                false => reduced(input, &op.axes, T::max_value(), lesser::<T>),
            }
        }
        let input = args_1!(inputs);
        let output = by_float!(input.datum_type(), of(self, &input))?;
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Extreme {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        for axis in &self.axes {
            shape[*axis] = 1.to_dim();
        }
        Ok(tvec!(inputs[0].datum_type.fact(shape)))
    }

    as_op!();
}

fn reduced<T: Number>(
    input: &Tensor,
    axes: &[usize],
    first: T,
    f: impl Fn(T, T) -> T + Copy,
) -> TractResult<Tensor> {
    let mut shape: TVec<usize> = input.shape().into();
    let plain = input.try_as_plain_ram()?;
    let mut values = Cow::Borrowed(plain.as_slice::<T>()?);
    let mut axes: TVec<usize> = axes.into();
    axes.sort_unstable();
    // From the last axis on; neighbours are one axis.
    while let Some(last) = axes.pop() {
        let mut from = last;
        while axes.last().is_some_and(|axis| axis + 1 == from) {
            from -= 1;
            axes.pop();
        }
        let size = shape[from..=last].iter().product();
        let inner = shape[last + 1..].iter().product();
        let outer = shape[..from].iter().product::<usize>();
        let mut result = vec![first; outer * inner];
        Arch::new().dispatch(|| fold(&values, &mut result, size, inner, f));
        shape[from..=last].fill(1);
        values = Cow::Owned(result);
    }
    Tensor::from_shape(&shape, &values)
}

/// Folds blocks of `size` rows of `inner` numbers into one row each.
#[inline(always)]
fn fold<T: Number>(
    values: &[T],
    result: &mut [T],
    size: usize,
    inner: usize,
    f: impl Fn(T, T) -> T + Copy,
) {
    if size == 0 || inner == 0 {
        return;
    }
    if inner == 1 {
        for (row, result) in values.chunks_exact(size).zip(result) {
            *result = along(row, *result, f);
        }
        return;
    }
    let blocks = values.chunks_exact(size * inner);
    for (block, result) in blocks.zip(result.chunks_exact_mut(inner)) {
        for row in block.chunks_exact(inner) {
            let pairs = result.iter_mut().zip(row);
            pairs.for_each(|(result, x)| *result = f(*result, *x));
        }
    }
}

#[inline(always)]
fn along<T: Number>(row: &[T], first: T, f: impl Fn(T, T) -> T + Copy) -> T {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [first; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, *x);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(first, |found, x| f(found, *x))
}

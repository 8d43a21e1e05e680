//! The greatest, the least and the product of two.

use pulp::Arch;
use tract_onnx::{
    tract_core::{internal::*, ops::binary::BinMiniOp},
    tract_hir::internal::tract_ndarray::Zip,
};

use super::number::{Number, by_float, greater, lesser};

/// What is computed of two numbers of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pair {
    Greatest,
    Least,
    /// A product that nothing is known of beforehand: `0 · x` is NaN where `x` is.
    Product,
}

impl BinMiniOp for Pair {
    fn name(&self) -> &'static str {
        match self {
            Self::Greatest => "Greatest",
            Self::Least => "Least",
            Self::Product => "Product",
        }
    }

    fn result_datum_type(&self, a: DatumType, b: DatumType) -> TractResult<DatumType> {
        ensure!(a == b, "{} of {a:?} and {b:?}", self.name());
        Ok(a)
    }

    fn eval_in_a(&self, a: &mut Tensor, b: &Tensor) -> TractResult<()> {
        fn of<T: Number>(pair: Pair, a: &mut Tensor, b: &Tensor) -> TractResult<()> {
            match pair {
                Pair::Greatest => onto(a, b, greater::<T>),
                Pair::Least => onto(a, b, lesser::<T>),
                Pair::Product => onto(a, b, |a: T, b: T| a * b),
            }
        }
        by_float!(a.datum_type(), of(*self, a, b))
    }

    fn eval_out_of_place(&self, c: &mut Tensor, a: &Tensor, b: &Tensor) -> TractResult<()> {
        fn of<T: Number>(pair: Pair, c: &mut Tensor, a: &Tensor, b: &Tensor) -> TractResult<()> {
            match pair {
                Pair::Greatest => into(c, a, b, greater::<T>),
                Pair::Least => into(c, a, b, lesser::<T>),
                Pair::Product => into(c, a, b, |a: T, b: T| a * b),
            }
        }
        by_float!(c.datum_type(), of(*self, c, a, b))
    }
}

/// `a = f(a, b)`, where `b` spreads over `a`. What models do most goes by slices.
fn onto<T: Number>(a: &mut Tensor, b: &Tensor, f: impl Fn(T, T) -> T + Copy) -> TractResult<()> {
    let shape: TVec<usize> = a.shape().into();
    let (equal, single) = (
        |(a, b): (&usize, &usize)| a == b,
        |(_, b): (&usize, &usize)| *b == 1,
    );
    let dims = || shape.iter().zip(b.shape());
    // Along the last axes `b` is one number, along the first it is repeated.
    let by_block = dims().skip_while(|dims| equal(*dims)).all(single);
    let repeated = dims().skip_while(|dims| single(*dims)).all(equal);
    let mut plain = a.try_as_plain_ram_mut()?;
    let held = b.try_as_plain_ram()?;
    let (values, others) = (plain.as_slice_mut::<T>()?, held.as_slice::<T>()?);
    if values.is_empty() {
        return Ok(());
    }
    if by_block {
        let size = values.len() / others.len();
        Arch::new().dispatch(|| {
            for (values, other) in values.chunks_exact_mut(size).zip(others) {
                values.iter_mut().for_each(|x| *x = f(*x, *other));
            }
        });
    } else if repeated {
        Arch::new().dispatch(|| {
            for values in values.chunks_exact_mut(others.len()) {
                let pairs = values.iter_mut().zip(others);
                pairs.for_each(|(x, other)| *x = f(*x, *other));
            }
        });
    } else {
        let to = plain.to_array_view_mut::<T>()?;
        let b = b.to_plain_array_view::<T>()?;
        Zip::from(to)
            .and_broadcast(b)
            .for_each(|x, other| *x = f(*x, *other));
    }
    Ok(())
}

fn into<T: Number>(
    c: &mut Tensor,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(T, T) -> T,
) -> TractResult<()> {
    let (a, b) = (a.to_plain_array_view::<T>()?, b.to_plain_array_view::<T>()?);
    let mut to = c.try_as_plain_ram_mut()?;
    let to = to.to_array_view_mut::<T>()?;
    let each = Zip::from(to).and_broadcast(a).and_broadcast(b);
    each.for_each(|c, a, b| *c = f(*a, *b));
    Ok(())
}

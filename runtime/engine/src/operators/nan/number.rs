//! The types that have a NaN.

use pulp::Arch;
use tract_onnx::tract_core::internal::{tract_num_traits::Float, *};

/// A type of number with NaN.
pub(crate) trait Number: Datum + Float {}

impl<T: Datum + Float> Number for T {}

/// Calls a function of one of these types by the type of a tensor's elements.
macro_rules! by_float {
    ($dtype:expr, $call:ident($($argument:expr),*)) => {
        match $dtype {
            DatumType::F16 => $call::<f16>($($argument),*),
            DatumType::F32 => $call::<f32>($($argument),*),
            DatumType::F64 => $call::<f64>($($argument),*),
            other => bail!("{other:?} has no NaN"),
        }
    };
}
pub(super) use by_float;

pub(super) fn is_float(dtype: DatumType) -> bool {
    matches!(dtype, DatumType::F16 | DatumType::F32 | DatumType::F64)
}

/// The greater, NaN if either is.
#[inline(always)]
pub(crate) fn greater<T: Number>(a: T, b: T) -> T {
    if a > b || a.is_nan() { a } else { b }
}

/// The lesser, NaN if either is.
#[inline(always)]
pub(super) fn lesser<T: Number>(a: T, b: T) -> T {
    if a < b || a.is_nan() { a } else { b }
}

/// Whether a tensor holds a NaN; those of other types do not.
pub(super) fn holds_nan(tensor: &Tensor) -> TractResult<bool> {
    fn any<T: Number>(tensor: &Tensor) -> TractResult<bool> {
        let plain = tensor.try_as_plain_ram()?;
        let values = plain.as_slice::<T>()?;
        // All are looked at: a loop that may end early is not vectorised.
        let any = |values: &[T]| values.iter().fold(false, |any, x| any | x.is_nan());
        Ok(Arch::new().dispatch(|| any(values)))
    }
    if !is_float(tensor.datum_type()) {
        return Ok(false);
    }
    by_float!(tensor.datum_type(), any(tensor))
}

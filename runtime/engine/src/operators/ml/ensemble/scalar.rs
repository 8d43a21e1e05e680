//! The two number types that trees are made of.

use std::{fmt::Debug, ops::AddAssign};

/// `f32`, or `f64` where the readings are.
pub(crate) trait Scalar:
    Copy + PartialOrd + AddAssign + Default + Debug + Send + Sync + 'static
{
    const NAN: Self;

    /// The nearest of this type.
    fn of(value: f64) -> Self;

    fn to_f64(self) -> f64;

    fn is_nan(self) -> bool;

    /// The greatest number less than this one; NaN below the least.
    fn below(self) -> Self;

    /// A value that carries an index in its bits, and is only ever read by [`Self::index`].
    fn of_index(index: u32) -> Self;

    fn index(self) -> usize;
}

macro_rules! scalar {
    ($float:ident, $bits:ident) => {
        impl Scalar for $float {
            const NAN: Self = $float::NAN;

            fn of(value: f64) -> Self {
                value as $float
            }

            fn to_f64(self) -> f64 {
                self.into()
            }

            fn is_nan(self) -> bool {
                $float::is_nan(self)
            }

            fn below(self) -> Self {
                if self == $float::NEG_INFINITY {
                    $float::NAN
                } else {
                    self.next_down()
                }
            }

            fn of_index(index: u32) -> Self {
                $float::from_bits($bits::from(index))
            }

            fn index(self) -> usize {
                self.to_bits() as usize
            }
        }
    };
}

scalar!(f32, u32);
scalar!(f64, u64);

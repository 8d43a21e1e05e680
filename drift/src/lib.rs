//! What is counted, and what the counts say.
//!
//! A signed package carries a [`FieldBaseline`] for each input field and output: the bin edges
//! taken from the training data, and the training counts in those bins. A device only counts:
//! [`Counts`] are integers, so they merge exactly and in any order, and every statistic here
//! follows from them. Logarithms come from `libm` and tails of distributions from this crate, so
//! the same counts give the same bits on every target.
//!
//! - [`baseline`]: bins of one field, their training counts, and the fixed-point scale.
//! - [`counts`]: counting, exact merging, and the check of counts received from outside.
//! - [`divergence`]: PSI and chi-square with p-values, distances, PSI as other tools give it.
//! - [`mod@rates`]: exact tests of the special counters.
//! - `discovery`: many tests at once (feature `alloc`).
//! - `look`: the verdict of a single look (feature `alloc`).
//! - [`arms`]: figures and tests over devices rather than over rows.
//! - [`gamma`]: the tail of chi-square.
//!
//! It knows no device, release, clock or wire; who is to blame for a drift is decided in
//! `rollout`. Counting, PSI, chi-square and rate tests need no heap.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod arms;
pub mod baseline;
pub mod counts;
#[cfg(feature = "alloc")]
pub mod discovery;
pub mod divergence;
pub mod gamma;
#[cfg(feature = "alloc")]
pub mod look;
pub mod rates;
pub mod verdict;

pub use baseline::{BaselineError, Bins, FieldBaseline, FieldName, Slot};
pub use counts::{Counts, CountsError, MergeError, Special, Values};
#[cfg(feature = "alloc")]
pub use discovery::benjamini_hochberg;
pub use divergence::{
    ChiSquare, Distances, Psi, PsiMode, chi_square, distances, homogeneity, psi, psi_as,
};
#[cfg(feature = "alloc")]
pub use look::{Field, FieldLook, Look, Side, Thresholds, look};
pub use rates::{Counter, Rate, rate, rates, rates_differ, wilson};
pub use verdict::Verdict;

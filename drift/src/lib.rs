//! What is counted, and what the counts say.
//!
//! A signed package carries a [`FieldBaseline`] for each input field and output: the bin edges
//! taken from the training data, and the training counts in those bins. A device only counts:
//! [`Counts`] are integers, so they merge exactly and in any order, and every statistic here
//! follows from them. Logarithms and tails of distributions come from `libm` or from this crate, so
//! the same counts give the same bits on every target.
//!
//! - [`baseline`]: bins of one field, their training counts, and the fixed-point scale.
//! - [`counts`]: counting, exact merging, and the check of counts received from outside.
//!
//! It knows no device, release, clock or wire; who is to blame for a drift is decided in
//! `rollout`. Counting needs no heap.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod baseline;
pub mod counts;

pub use baseline::{BaselineError, Bins, FieldBaseline, FieldName, Slot};
pub use counts::{Counts, CountsError, MergeError, Special, Values};

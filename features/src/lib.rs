//! Signed steps from sensor readings to tensors.
//!
//! One implementation serves packing, the agent and microcontrollers, so that a feature is the
//! same in training and in the field, to the bit: plain IEEE operations in a fixed order, and one
//! NaN. The steps stand in the package's contract, under the approvers' signatures.
//!
//! It knows no sensor, clock or package: rows and their times come in, rows and windows go out.
#![no_std]

pub mod step;

pub use step::{CHANNELS_MAX, FillRule, Method, Step, StepError, WINDOW_MAX};

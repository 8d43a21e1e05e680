//! Signed steps from sensor readings to tensors.
//!
//! One implementation serves packing, the agent and microcontrollers, so that a feature is the
//! same in training and in the field, to the bit: plain IEEE operations in a fixed order, and one
//! NaN. The steps stand in the package's contract, under the approvers' signatures.
//!
//! - [`step`]: the steps, and why they are refused.
//! - [`plan`]: steps checked against a row's channels; single rows.
//! - [`pipeline`]: streams of timed rows into windows, in buffers that the caller gives.
//!
//! It knows no sensor, clock or package: rows and their times come in, rows and windows go out.
//! Nothing here needs a heap.
#![no_std]

pub mod pipeline;
pub mod plan;
pub mod step;

pub use pipeline::{GAP_ROWS_MAX, Pipeline, StreamError, TIME_US_MAX, Window};
pub use plan::{Plan, apply_row, validate};
pub use step::{CHANNELS_MAX, FillRule, Method, STEPS_MAX, Step, StepError, WINDOW_MAX};

//! The steps themselves.

use serde::{Deserialize, Serialize};

/// Steps of a contract at most: a few for each channel of a large sensor head.
pub const STEPS_MAX: usize = 256;
/// Channels of a row at most, so that row buffers of a microcontroller stay under 1 KiB.
pub const CHANNELS_MAX: usize = 64;
/// Rows of a window, and rows between two windows, at most.
pub const WINDOW_MAX: u16 = 1024;
/// Microseconds between resampled rows at most: one day.
pub const PERIOD_US_MAX: u64 = 86_400_000_000;

/// One step from readings to a tensor. `field` is the channel's place in the row.
///
/// Wire enum: append only; a reordered variant breaks devices in the field.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Converts a unit: `x · factor + offset`, the product rounded first.
    Unit {
        /// Channel.
        field: u16,
        /// Not zero.
        factor: f32,
        /// In the new unit.
        offset: f32,
    },
    /// Replaces NaN.
    Fill {
        /// Channel.
        field: u16,
        /// By what.
        rule: FillRule,
    },
    /// Standardises: `(x − centre) / deviation`.
    Scale {
        /// Channel.
        field: u16,
        /// In the channel's unit.
        centre: f32,
        /// In the channel's unit, positive.
        deviation: f32,
    },
    /// Maps a range to 0..1: `(x − lo) / (hi − lo)`. Values outside stay outside.
    Range {
        /// Channel.
        field: u16,
        /// Becomes 0.
        lo: f32,
        /// Becomes 1; greater than `lo`.
        hi: f32,
    },
    /// Limits a value to `lo..=hi`. NaN stays.
    Clip {
        /// Channel.
        field: u16,
        /// Least value.
        lo: f32,
        /// Greatest value.
        hi: f32,
    },
    /// Collects the last `len` rows, every `hop` rows. Only as the last step.
    Window {
        /// Rows of a window, 1 to [`WINDOW_MAX`].
        len: u16,
        /// Rows between the starts of two windows, 1 to [`WINDOW_MAX`].
        hop: u16,
    },
    /// Puts rows onto a regular grid that starts at the first row's time. At most once.
    Resample {
        /// Microseconds between rows, 1 to [`PERIOD_US_MAX`].
        period_us: u64,
        /// How a row of the grid comes from the rows around it.
        method: Method,
    },
}

/// What replaces NaN. Wire enum: append only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum FillRule {
    /// Always this value.
    Constant(f32),
    /// The last value that was not NaN; before any, `initial`. Needs a pipeline.
    Last {
        /// Until a first value has been seen.
        initial: f32,
    },
}

/// How a row of the regular grid is made. Wire enum: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// The last row at or before the grid's time.
    Previous,
    /// Between the rows before and after, in proportion to time.
    Linear,
    /// The mean of the rows since the grid's last time, NaN left out; NaN if there are none.
    Mean,
}

/// Why steps are refused. The package is at fault, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// No channel, or more than [`CHANNELS_MAX`].
    #[error("{0} channels; 1 to {CHANNELS_MAX} are possible")]
    Channels(usize),
    /// More steps than [`STEPS_MAX`].
    #[error("{0} steps; at most {STEPS_MAX} are possible")]
    TooMany(usize),
    /// A step names a channel that the row lacks.
    #[error("step {step} names channel {field}, which the row lacks")]
    FieldUnknown {
        /// Place of the step.
        step: usize,
        /// Channel named.
        field: u16,
    },
    /// A number is NaN, infinite, zero where it divides, or a range is reversed.
    #[error("step {0} has an impossible number")]
    NumberInvalid(usize),
    /// A window, hop or period of zero, or beyond its bound.
    #[error("step {0} has a length beyond its bounds")]
    LengthInvalid(usize),
    /// A second window or resampling, or a step after the window.
    #[error("step {0} stands where it cannot")]
    Misplaced(usize),
    /// The steps need earlier rows, and were applied to a single one. The caller is at fault.
    #[error("step {0} needs a stream of rows; use a pipeline")]
    NeedsStream(usize),
}

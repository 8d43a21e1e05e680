//! Streams of timed rows into windows.
//!
//! Each row is handled alone, so how rows are cut into chunks cannot matter. Memory is the
//! caller's, and one row makes at most [`GAP_ROWS_MAX`] + 1 rows, so time is bounded too.

use crate::plan::{Plan, initials, run};
use crate::step::Method;

/// Resampled rows that a gap may be bridged with. A longer silence starts afresh: a window across
/// it would mix readings that have nothing to do with each other.
pub const GAP_ROWS_MAX: u64 = 1024;
/// The latest time of a row, in microseconds: 146 000 years, and sums of times cannot overflow.
pub const TIME_US_MAX: u64 = 1 << 62;

/// Rows going out: a window, or a single row without a window step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window<'a> {
    /// Time of the last row, in microseconds.
    pub end_us: u64,
    /// Row after row, [`Plan::channels`] values each.
    pub rows: &'a [f32],
}

/// Why rows are refused. The caller is at fault, or the sensor's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The buffer holds fewer values than [`Plan::buffer_len`].
    #[error("the buffer holds {given} values, and {needed} are needed")]
    BufferTooSmall {
        /// Values needed.
        needed: usize,
        /// Values given.
        given: usize,
    },
    /// Times and rows do not go together.
    #[error("{values} values are not {times} rows of {channels} channels")]
    ShapeDiffers {
        /// Times given.
        times: usize,
        /// Values given.
        values: usize,
        /// Channels of a row.
        channels: usize,
    },
    /// The row is not later than the one before. Rows before it were taken, it was not.
    #[error("row {row} is not later than the one before it")]
    TimeWentBack {
        /// Place of the row in the chunk.
        row: usize,
    },
    /// The time is beyond [`TIME_US_MAX`]. Rows before it were taken, it was not.
    #[error("row {row} has an impossible time")]
    TimeInvalid {
        /// Place of the row in the chunk.
        row: usize,
    },
}

/// Takes timed rows and emits windows.
#[derive(Debug)]
pub struct Pipeline<'a, 'b> {
    plan: Plan<'a>,
    /// Time of the last row taken.
    last_us: Option<u64>,
    /// Time of the grid's next row.
    next_us: u64,
    before: Segment<'b>,
    outlet: Outlet<'a, 'b>,
    previous: &'b mut [f32],
    means: &'b mut [f32],
    numbers: &'b mut [f32],
}

/// The working row before resampling, and what its steps remember.
#[derive(Debug)]
struct Segment<'b> {
    row: &'b mut [f32],
    lasts: &'b mut [f32],
}

/// What follows resampling: steps, window.
#[derive(Debug)]
struct Outlet<'a, 'b> {
    steps: &'a [crate::Step],
    segment: Segment<'b>,
    window: &'b mut [f32],
    len: usize,
    hop: usize,
    held: usize,
    skip: usize,
}

impl<'a, 'b> Pipeline<'a, 'b> {
    /// A pipeline in `buffer`, of [`Plan::buffer_len`] values at least. What they hold doesn't
    /// matter.
    pub fn new(plan: Plan<'a>, buffer: &'b mut [f32]) -> Result<Self, StreamError> {
        let (needed, given) = (plan.buffer_len(), buffer.len());
        if given < needed {
            return Err(StreamError::BufferTooSmall { needed, given });
        }
        let at = plan.resampling().map_or(plan.steps().len(), |(at, ..)| at);
        let (before, after) = plan.steps().split_at(at);
        let channels = plan.channels();
        let (before_lasts, rest) = buffer.split_at_mut(initials(before).count());
        let (after_lasts, rest) = rest.split_at_mut(initials(after).count());
        let (before_row, rest) = rest.split_at_mut(channels);
        let (after_row, rest) = rest.split_at_mut(channels);
        let (previous, rest) = rest.split_at_mut(channels);
        let (means, rest) = rest.split_at_mut(channels);
        let (numbers, rest) = rest.split_at_mut(channels);
        let (len, hop) = plan.window();
        let outlet = Outlet {
            steps: after,
            segment: Segment {
                row: after_row,
                lasts: after_lasts,
            },
            window: &mut rest[..len * channels],
            len,
            hop,
            held: 0,
            skip: 0,
        };
        let before = Segment {
            row: before_row,
            lasts: before_lasts,
        };
        let mut pipeline = Self {
            plan,
            last_us: None,
            next_us: 0,
            before,
            outlet,
            previous,
            means,
            numbers,
        };
        pipeline.restart();
        Ok(pipeline)
    }

    /// Takes rows, `times_us.len()` of them one after another in `rows`, and hands each finished
    /// window to `emit`. Times ascend strictly.
    pub fn push(
        &mut self,
        times_us: &[u64],
        rows: &[f32],
        mut emit: impl FnMut(Window<'_>),
    ) -> Result<(), StreamError> {
        let channels = self.plan.channels();
        if times_us.len().checked_mul(channels) != Some(rows.len()) {
            let (times, values) = (times_us.len(), rows.len());
            return Err(StreamError::ShapeDiffers {
                times,
                values,
                channels,
            });
        }
        for (at, (time_us, row)) in times_us.iter().zip(rows.chunks_exact(channels)).enumerate() {
            if *time_us > TIME_US_MAX {
                return Err(StreamError::TimeInvalid { row: at });
            }
            if self.last_us.is_some_and(|last_us| *time_us <= last_us) {
                return Err(StreamError::TimeWentBack { row: at });
            }
            self.take(*time_us, row, &mut emit);
        }
        Ok(())
    }

    /// Forgets all rows, as if new.
    pub fn restart(&mut self) {
        self.last_us = None;
        self.outlet.held = 0;
        self.outlet.skip = 0;
        let at = self
            .plan
            .resampling()
            .map_or(self.plan.steps().len(), |(at, ..)| at);
        let (before, after) = self.plan.steps().split_at(at);
        for (segment, steps) in [
            (&mut self.before, before),
            (&mut self.outlet.segment, after),
        ] {
            for (last, initial) in segment.lasts.iter_mut().zip(initials(steps)) {
                *last = initial;
            }
        }
        self.clear_means();
    }

    fn take(&mut self, time_us: u64, row: &[f32], emit: &mut impl FnMut(Window<'_>)) {
        let resampling = self.plan.resampling();
        if let (Some((_, period_us, _)), Some(_)) = (resampling, self.last_us)
            && time_us.saturating_sub(self.next_us) / period_us >= GAP_ROWS_MAX
        {
            self.restart();
        }
        let end = resampling.map_or(self.plan.steps().len(), |(at, ..)| at);
        self.before.row.copy_from_slice(row);
        run(
            &self.plan.steps()[..end],
            self.before.row,
            self.before.lasts,
        );
        match (resampling, self.last_us) {
            (None, _) => self
                .outlet
                .put(time_us, |channel| self.before.row[channel], emit),
            (Some((_, period_us, _)), None) => {
                self.outlet
                    .put(time_us, |channel| self.before.row[channel], emit);
                self.next_us = time_us + period_us;
            }
            (Some((_, period_us, method)), Some(last_us)) => {
                self.resample(last_us, time_us, period_us, method, emit);
            }
        }
        self.previous.copy_from_slice(self.before.row);
        self.last_us = Some(time_us);
    }

    /// Emits the grid's rows after `last_us` up to `time_us`.
    fn resample(
        &mut self,
        last_us: u64,
        time_us: u64,
        period_us: u64,
        method: Method,
        emit: &mut impl FnMut(Window<'_>),
    ) {
        while self.next_us < time_us {
            let grid_us = self.next_us;
            let (previous, row) = (&*self.previous, &*self.before.row);
            match method {
                Method::Previous => self.outlet.put(grid_us, |channel| previous[channel], emit),
                Method::Linear => {
                    let share = (grid_us - last_us) as f64 / (time_us - last_us) as f64;
                    let between = |channel| interpolated(previous[channel], row[channel], share);
                    self.outlet.put(grid_us, between, emit);
                }
                Method::Mean => self.put_means(grid_us, emit),
            }
            self.next_us += period_us;
        }
        if method == Method::Mean {
            self.add_to_means();
        }
        if self.next_us == time_us {
            match method {
                Method::Previous | Method::Linear => {
                    let row = &*self.before.row;
                    self.outlet.put(time_us, |channel| row[channel], emit);
                }
                Method::Mean => self.put_means(time_us, emit),
            }
            self.next_us += period_us;
        }
    }

    /// Running means, which stay near the values where sums could overflow. A number of values
    /// beyond 2^24 no longer grows: later values then weigh as the 2^24th did.
    fn add_to_means(&mut self) {
        let means = self.means.iter_mut().zip(self.numbers.iter_mut());
        for ((mean, number), value) in means.zip(self.before.row.iter()) {
            if value.is_nan() {
                continue;
            }
            *number += 1.0;
            *mean = if *number == 1.0 {
                *value
            } else {
                *mean + (*value - *mean) / *number
            };
        }
    }

    fn put_means(&mut self, grid_us: u64, emit: &mut impl FnMut(Window<'_>)) {
        let (means, numbers) = (&*self.means, &*self.numbers);
        let mean = |channel| {
            if numbers[channel] > 0.0 {
                means[channel]
            } else {
                f32::NAN
            }
        };
        self.outlet.put(grid_us, mean, emit);
        self.clear_means();
    }

    fn clear_means(&mut self) {
        self.means.fill(0.0);
        self.numbers.fill(0.0);
    }
}

impl Outlet<'_, '_> {
    /// Runs the steps after resampling on one row, and emits the window that it completes.
    fn put(
        &mut self,
        time_us: u64,
        value: impl Fn(usize) -> f32,
        emit: &mut impl FnMut(Window<'_>),
    ) {
        let channels = self.segment.row.len();
        for (channel, slot) in self.segment.row.iter_mut().enumerate() {
            *slot = value(channel);
        }
        run(self.steps, self.segment.row, self.segment.lasts);
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        let start = self.held * channels;
        self.window[start..start + channels].copy_from_slice(self.segment.row);
        self.held += 1;
        if self.held < self.len {
            return;
        }
        emit(Window {
            end_us: time_us,
            rows: self.window,
        });
        if self.hop < self.len {
            self.window.copy_within(self.hop * channels.., 0);
            self.held = self.len - self.hop;
        } else {
            self.held = 0;
            self.skip = self.hop - self.len;
        }
    }
}

/// Between `from` and `to`; NaN if either is. In f64, where the difference of two f32 cannot
/// overflow, and rounded once.
fn interpolated(from: f32, to: f32, share: f64) -> f32 {
    let (from, to) = (f64::from(from), f64::from(to));
    (from + (to - from) * share) as f32
}

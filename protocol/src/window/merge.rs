//! Two windows become one that covers both.

use super::{ErrorCounts, Fields, Latency, WINDOW_SECS_MAX, Window};

/// Why two windows stay two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Apart {
    /// Of another slot, release or baseline, or with other fields.
    #[error("the windows are of different slots, releases, baselines or fields")]
    Foreign,
    /// The later one does not begin after the end of the earlier.
    #[error("the windows do not follow each other")]
    Overlapping,
    /// Together they would last longer than any window.
    #[error("the windows would last longer than {WINDOW_SECS_MAX} s together")]
    TooLong,
    /// A counter would pass its integer.
    #[error("a counter would overflow")]
    Full,
}

impl Window {
    /// One window for this one and a `later` one: counts add, times span. No count is lost.
    ///
    /// Percentiles do not add, so the greater one stands for both: a merged window never makes a
    /// release look faster than it was. Moments and extremes are kept where both windows have them.
    ///
    /// # Errors
    ///
    /// [`Apart`]; nothing was merged.
    pub fn merged(&self, later: &Self) -> Result<Self, Apart> {
        let of = |window: &Self| (window.slot.clone(), window.release, window.baseline);
        if of(self) != of(later) {
            return Err(Apart::Foreign);
        }
        let ended_at = self.started_at.plus_secs(self.secs.into());
        if later.started_at < ended_at {
            return Err(Apart::Overlapping);
        }
        let ends_at = later.started_at.plus_secs(later.secs.into());
        let secs = u32::try_from(ends_at.secs_since(self.started_at))
            .ok()
            .filter(|secs| *secs <= WINDOW_SECS_MAX)
            .ok_or(Apart::TooLong)?;
        Ok(Self {
            slot: self.slot.clone(),
            release: self.release,
            baseline: self.baseline,
            started_at: self.started_at,
            secs,
            rows: sum(self.rows, later.rows)?,
            inputs: self.inputs.merged(&later.inputs)?,
            outputs: self.outputs.merged(&later.outputs)?,
            errors: self.errors.merged(&later.errors)?,
            rows_nonfinite: sum(self.rows_nonfinite, later.rows_nonfinite)?,
            latency: match (self.latency, later.latency) {
                (Some(earlier), Some(later)) => Some(earlier.merged(&later)?),
                (earlier, later) => earlier.or(later),
            },
        })
    }
}

impl Fields {
    fn merged(&self, later: &Self) -> Result<Self, Apart> {
        if self.len() != later.len() {
            return Err(Apart::Foreign);
        }
        let mut fields = Self::new();
        for pair in self.iter().zip(later.iter()) {
            let field = match pair {
                (Some(earlier), Some(later)) => {
                    let mut merged = earlier.clone();
                    merged.merge(later).map_err(|error| match error {
                        bellwether_drift::MergeError::BinsDiffer => Apart::Foreign,
                        bellwether_drift::MergeError::Full => Apart::Full,
                    })?;
                    Some(merged)
                }
                (None, None) => None,
                _ => return Err(Apart::Foreign),
            };
            fields.push(field).map_err(|_| Apart::Full)?;
        }
        Ok(fields)
    }
}

impl ErrorCounts {
    fn merged(&self, later: &Self) -> Result<Self, Apart> {
        Ok(Self {
            input_refused: sum(self.input_refused, later.input_refused)?,
            worker_died: sum(self.worker_died, later.worker_died)?,
            deadline: sum(self.deadline, later.deadline)?,
            model: sum(self.model, later.model)?,
            other: sum(self.other, later.other)?,
        })
    }
}

impl Latency {
    fn merged(&self, later: &Self) -> Result<Self, Apart> {
        Ok(Self {
            answers: sum(self.answers, later.answers)?,
            us_p50: self.us_p50.max(later.us_p50),
            us_p99: self.us_p99.max(later.us_p99),
            us_max: self.us_max.max(later.us_max),
        })
    }
}

fn sum(earlier: u32, later: u32) -> Result<u32, Apart> {
    earlier.checked_add(later).ok_or(Apart::Full)
}

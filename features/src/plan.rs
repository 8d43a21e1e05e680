//! Steps checked against the channels of a row, and applied to single rows.

use crate::step::{
    CHANNELS_MAX, FillRule, Method, PERIOD_US_MAX, STEPS_MAX, Step, StepError, WINDOW_MAX,
};

/// Steps that are valid for rows of a number of channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan<'a> {
    steps: &'a [Step],
    channels: usize,
}

/// Checks `steps` for rows of `channels` channels.
pub fn validate(steps: &[Step], channels: usize) -> Result<(), StepError> {
    Plan::new(steps, channels).map(|_| ())
}

/// Applies `steps` to one row in place, its length being the number of channels. Steps that need
/// earlier rows (window, resample, filling with the last value) are refused, and the row is left
/// as it was.
pub fn apply_row(steps: &[Step], row: &mut [f32]) -> Result<(), StepError> {
    let plan = Plan::new(steps, row.len())?;
    if let Some(step) = plan.first_stream_step() {
        return Err(StepError::NeedsStream(step));
    }
    run(plan.steps, row, &mut []);
    Ok(())
}

impl<'a> Plan<'a> {
    /// Checks `steps` for rows of `channels` channels.
    pub fn new(steps: &'a [Step], channels: usize) -> Result<Self, StepError> {
        if channels == 0 || channels > CHANNELS_MAX {
            return Err(StepError::Channels(channels));
        }
        if steps.len() > STEPS_MAX {
            return Err(StepError::TooMany(steps.len()));
        }
        let mut resampled = false;
        for (at, step) in steps.iter().enumerate() {
            check(at, step, channels)?;
            let last = at + 1 == steps.len();
            let again = matches!(step, Step::Resample { .. }) && resampled;
            if again || (matches!(step, Step::Window { .. }) && !last) {
                return Err(StepError::Misplaced(at));
            }
            resampled |= matches!(step, Step::Resample { .. });
        }
        Ok(Self { steps, channels })
    }

    /// The steps, in order.
    pub fn steps(&self) -> &'a [Step] {
        self.steps
    }

    /// Values in a row.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Whether [`apply_row`] will do: no step needs earlier rows.
    pub fn is_rowwise(&self) -> bool {
        self.first_stream_step().is_none()
    }

    /// Rows of an emitted window; 1 without a window step.
    pub fn window_rows(&self) -> usize {
        self.window().0
    }

    /// Values that a [`crate::Pipeline`]'s buffer must hold.
    pub fn buffer_len(&self) -> usize {
        // Previous row, working row, row going out, sums, numbers of values, and the window.
        self.lasts() + (5 + self.window_rows()) * self.channels
    }

    /// Length of a window and the rows between the starts of two.
    pub(crate) fn window(&self) -> (usize, usize) {
        match self.steps.last() {
            Some(Step::Window { len, hop }) => (usize::from(*len), usize::from(*hop)),
            _ => (1, 1),
        }
    }

    /// Where the resampling stands, its period and its method.
    pub(crate) fn resampling(&self) -> Option<(usize, u64, Method)> {
        self.steps
            .iter()
            .enumerate()
            .find_map(|(at, step)| match step {
                Step::Resample { period_us, method } => Some((at, *period_us, *method)),
                _ => None,
            })
    }

    /// Steps that remember a last value.
    pub(crate) fn lasts(&self) -> usize {
        initials(self.steps).count()
    }

    fn first_stream_step(&self) -> Option<usize> {
        self.steps.iter().position(|step| {
            matches!(
                step,
                Step::Window { .. }
                    | Step::Resample { .. }
                    | Step::Fill {
                        rule: FillRule::Last { .. },
                        ..
                    }
            )
        })
    }
}

/// What each step that remembers a last value starts from, in order.
pub(crate) fn initials(steps: &[Step]) -> impl Iterator<Item = f32> + '_ {
    steps.iter().filter_map(|step| match step {
        Step::Fill {
            rule: FillRule::Last { initial },
            ..
        } => Some(*initial),
        _ => None,
    })
}

/// Applies the row-wise ones of `steps` to a row that they were checked for; `lasts` holds one
/// value for each of them that remembers one. Windows and resampling are the caller's.
pub(crate) fn run(steps: &[Step], row: &mut [f32], lasts: &mut [f32]) {
    let mut lasts = lasts.iter_mut();
    for step in steps {
        match *step {
            Step::Unit {
                field,
                factor,
                offset,
            } => {
                change(row, field, |x| x * factor + offset);
            }
            Step::Fill {
                field,
                rule: FillRule::Constant(value),
            } => {
                change(row, field, |x| if x.is_nan() { value } else { x });
            }
            Step::Fill {
                field,
                rule: FillRule::Last { .. },
            } => {
                if let Some(last) = lasts.next() {
                    change(row, field, |x| {
                        if !x.is_nan() {
                            *last = x;
                        }
                        *last
                    });
                }
            }
            Step::Scale {
                field,
                centre,
                deviation,
            } => {
                change(row, field, |x| (x - centre) / deviation);
            }
            Step::Range { field, lo, hi } => change(row, field, |x| (x - lo) / (hi - lo)),
            Step::Clip { field, lo, hi } => change(row, field, |x| {
                // Not `clamp`, which would pass −0.0 where the bound is 0.0.
                if x <= lo {
                    lo
                } else if x >= hi {
                    hi
                } else {
                    x
                }
            }),
            Step::Window { .. } | Step::Resample { .. } => {}
        }
    }
    for value in row.iter_mut().filter(|value| value.is_nan()) {
        // Which NaN an operation gives differs between processors.
        *value = f32::NAN;
    }
}

fn change(row: &mut [f32], field: u16, operation: impl FnOnce(f32) -> f32) {
    // The plan made sure that the channel exists.
    if let Some(value) = row.get_mut(usize::from(field)) {
        *value = operation(*value);
    }
}

fn check(at: usize, step: &Step, channels: usize) -> Result<(), StepError> {
    let (field, possible) = match *step {
        Step::Unit {
            field,
            factor,
            offset,
        } => (
            field,
            factor.is_finite() && factor != 0.0 && offset.is_finite(),
        ),
        Step::Fill {
            field,
            rule: FillRule::Constant(value),
        } => (field, value.is_finite()),
        Step::Fill {
            field,
            rule: FillRule::Last { initial },
        } => (field, initial.is_finite()),
        Step::Scale {
            field,
            centre,
            deviation,
        } => (
            field,
            centre.is_finite() && deviation.is_finite() && deviation > 0.0,
        ),
        // The difference must be finite too, or each value would become zero.
        Step::Range { field, lo, hi } => (field, lo < hi && (hi - lo).is_finite()),
        Step::Clip { field, lo, hi } => (field, lo <= hi && lo.is_finite() && hi.is_finite()),
        Step::Window { len, hop } => {
            let valid = 1..=WINDOW_MAX;
            let fits = valid.contains(&len) && valid.contains(&hop);
            return if fits {
                Ok(())
            } else {
                Err(StepError::LengthInvalid(at))
            };
        }
        Step::Resample { period_us, .. } => {
            let fits = (1..=PERIOD_US_MAX).contains(&period_us);
            return if fits {
                Ok(())
            } else {
                Err(StepError::LengthInvalid(at))
            };
        }
    };
    if usize::from(field) >= channels {
        Err(StepError::FieldUnknown { step: at, field })
    } else if possible {
        Ok(())
    } else {
        Err(StepError::NumberInvalid(at))
    }
}

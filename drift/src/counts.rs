//! Counting, exact merging, and the check of counts that arrive from outside.
//!
//! Everything counted is an integer, and extremes are ordered totally, so that merging is exact,
//! associative and commutative: any split of the same values over devices and windows, merged in
//! any order, gives the same bits.

use serde::{Deserialize, Serialize};

use crate::baseline::{BINS_MAX, Bins, FieldBaseline, Slot};

/// Values count into the moments at most this many quanta away from the centre. Its square times
/// the 18 counters of at most 2^32 − 1 values could pass 2^64, so sums are still checked.
pub const FIXED_POINT_MAX: i64 = 1 << 15;

/// The number of special counters.
pub const SPECIALS: usize = 6;

/// Counters beside the inner bins. The number is the place in the wire array: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(usize)]
pub enum Special {
    /// Finite, below the least training value.
    Below = 0,
    /// Finite, above the greatest training value.
    Above = 1,
    /// No reading at all.
    Missing = 2,
    /// Not a number.
    Nan = 3,
    /// Infinite, of either sign.
    Infinite = 4,
    /// A code outside the declared domain of a categorical field.
    Other = 5,
}

impl Special {
    /// All of them, in wire order.
    pub const ALL: [Self; SPECIALS] = [
        Self::Below,
        Self::Above,
        Self::Missing,
        Self::Nan,
        Self::Infinite,
        Self::Other,
    ];

    /// Whether a field with these bins can count this.
    pub fn applies_to(self, bins: &Bins) -> bool {
        match self {
            Self::Missing => true,
            Self::Other => bins.is_categorical(),
            Self::Below | Self::Above | Self::Nan | Self::Infinite => !bins.is_categorical(),
        }
    }
}

/// Figures of the finite values of a numeric field that come closer to single values than bins
/// do. Withheld for fields that the contract does not export.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Values {
    /// Σ q, where q = (x − centre) / quantum rounded to even and clamped to ±[`FIXED_POINT_MAX`].
    pub sum: i64,
    /// Σ q².
    pub squares: u64,
    /// Least finite value, in the field's unit.
    pub min: f32,
    /// Greatest finite value, in the field's unit.
    pub max: f32,
}

/// Counts of one field under the bins of one baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    bins: heapless::Vec<u32, BINS_MAX>,
    special: [u32; SPECIALS],
    values: Option<Values>,
}

/// Why counts cannot be counts of that baseline. Whoever sent them is at fault, or counted under
/// another baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountsError {
    /// Another number of bins.
    #[error("{found} bins where the baseline has {expected}")]
    BinsDiffer {
        /// Bins received.
        found: usize,
        /// Bins of the baseline.
        expected: usize,
    },
    /// A special counter that this kind of field cannot have.
    #[error("counter {0:?} does not apply to this kind of field")]
    SpecialForeign(Special),
    /// Moments or extremes on a categorical field, or where no finite value was counted.
    #[error("moments without finite numeric values")]
    ValuesForeign,
    /// Extremes are not finite, are reversed, or lie in bins that were not filled.
    #[error("minimum and maximum contradict the filled bins")]
    ExtremesImpossible,
    /// The sums cannot come from that many values in those bins.
    #[error("the moments contradict the bins")]
    MomentsImpossible,
    /// More values than the window's length and rate allow.
    #[error("{found} values in a window of at most {most}")]
    TooMany {
        /// Values received.
        found: u64,
        /// Values possible.
        most: u64,
    },
}

impl Counts {
    /// Nothing counted yet under these bins.
    pub fn new(bins: &Bins) -> Self {
        let mut zeros = heapless::Vec::new();
        // Valid bins are never more than the vector holds.
        let _ = zeros.resize(bins.len().min(BINS_MAX), 0);
        Self {
            bins: zeros,
            special: [0; SPECIALS],
            values: None,
        }
    }

    /// Counts from parts, unchecked: ask [`Counts::fits`]. `None` if there are more bins than
    /// [`BINS_MAX`].
    pub fn from_parts(
        bins: &[u32],
        special: [u32; SPECIALS],
        values: Option<Values>,
    ) -> Option<Self> {
        let bins = heapless::Vec::from_slice(bins).ok()?;
        Some(Self {
            bins,
            special,
            values,
        })
    }

    /// Counts one value: `true` if it was counted, `false` if a counter is full.
    ///
    /// `baseline` is the one that these counts were made for; a value in a bin that these counts
    /// lack isn't counted.
    pub fn observe(&mut self, baseline: &FieldBaseline, value: f32) -> bool {
        let slot = baseline.bins().slot(value);
        if baseline.bins().is_categorical() || !value.is_finite() {
            return self.count(slot);
        }
        let one = Values::of(baseline, value);
        let values = match self.values {
            None if self.finite() > 0 => None,
            None => Some(one),
            Some(values) => match values.merged(&one) {
                Some(values) => Some(values),
                None => return false,
            },
        };
        let counted = self.count(slot);
        if counted {
            self.values = values;
        }
        counted
    }

    /// Counts one code of a categorical field. On a numeric field the code is a number.
    pub fn observe_code(&mut self, baseline: &FieldBaseline, code: i64) -> bool {
        if baseline.bins().is_categorical() {
            self.count(baseline.bins().slot_of_code(code))
        } else {
            self.observe(baseline, code as f32)
        }
    }

    /// Counts one reading that did not come.
    pub fn observe_missing(&mut self) -> bool {
        self.count(Slot::Special(Special::Missing))
    }

    /// Adds other counts under the same baseline; exact, in any order. On an error nothing has
    /// changed. Where one side withheld its [`Values`], the merged counts have none either.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.bins.len() != other.bins.len() {
            return Err(MergeError::BinsDiffer);
        }
        let mut merged = self.clone();
        for (mine, theirs) in merged.counters_mut().zip(other.counters()) {
            *mine = mine.checked_add(theirs).ok_or(MergeError::Full)?;
        }
        merged.values = match (self.values, other.values) {
            (Some(mine), Some(theirs)) => Some(mine.merged(&theirs).ok_or(MergeError::Full)?),
            (Some(mine), None) if other.finite() == 0 => Some(mine),
            (None, Some(theirs)) if self.finite() == 0 => Some(theirs),
            _ => None,
        };
        *self = merged;
        Ok(())
    }

    /// The same counts without moments and extremes, as fields that are not exported leave a
    /// device.
    pub fn without_values(&self) -> Self {
        Self {
            values: None,
            ..self.clone()
        }
    }

    /// Counts of the inner bins.
    pub fn bins(&self) -> &[u32] {
        &self.bins
    }

    /// One special counter.
    pub fn special(&self, special: Special) -> u32 {
        self.special[special as usize]
    }

    /// Moments and extremes; `None` if no finite value was counted, or if they are withheld.
    pub fn values(&self) -> Option<&Values> {
        self.values.as_ref()
    }

    /// Values in the inner bins.
    pub fn in_bins(&self) -> u64 {
        self.bins.iter().map(|count| u64::from(*count)).sum()
    }

    /// Values counted, wherever they fell, missing ones included.
    pub fn total(&self) -> u64 {
        self.counters().map(u64::from).sum()
    }

    /// True if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Mean of the finite values in the field's unit, to about a quantum.
    pub fn mean(&self, baseline: &FieldBaseline) -> Option<f64> {
        let values = self.values?;
        let mean = values.sum as f64 / self.finite() as f64;
        Some(f64::from(baseline.centre()) + mean * f64::from(baseline.quantum()))
    }

    /// Standard deviation of the finite values (divisor n) in the field's unit.
    pub fn deviation(&self, baseline: &FieldBaseline) -> Option<f64> {
        let values = self.values?;
        let n = i128::from(self.finite());
        // n Σq² − (Σq)² in integers: nothing cancels.
        let spread =
            n * i128::from(values.squares) - i128::from(values.sum) * i128::from(values.sum);
        Some(libm::sqrt(spread.max(0) as f64) / n as f64 * f64::from(baseline.quantum()))
    }

    /// Finite numbers counted, or codes of the domain.
    pub(crate) fn finite(&self) -> u64 {
        let outside = self.special(Special::Below) as u64 + self.special(Special::Above) as u64;
        self.in_bins() + outside
    }

    fn count(&mut self, slot: Slot) -> bool {
        let counter = match slot {
            Slot::Bin(bin) => self.bins.get_mut(bin),
            Slot::Special(special) => self.special.get_mut(special as usize),
        };
        match counter.and_then(|counter| counter.checked_add(1).map(|next| (counter, next))) {
            Some((counter, next)) => {
                *counter = next;
                true
            }
            None => false,
        }
    }

    fn counters(&self) -> impl Iterator<Item = u32> + '_ {
        self.bins.iter().chain(&self.special).copied()
    }

    fn counters_mut(&mut self) -> impl Iterator<Item = &mut u32> {
        self.bins.iter_mut().chain(&mut self.special)
    }
}

/// Why two counts do not merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// They were counted under different bins.
    #[error("the counts have different bins")]
    BinsDiffer,
    /// A counter would pass its integer; keep them as two windows.
    #[error("a counter would overflow")]
    Full,
}

impl Values {
    fn of(baseline: &FieldBaseline, value: f32) -> Self {
        let quanta = quantised(baseline, value);
        Self {
            sum: quanta,
            squares: quanta.unsigned_abs().pow(2),
            min: value,
            max: value,
        }
    }

    fn merged(&self, other: &Self) -> Option<Self> {
        Some(Self {
            sum: self.sum.checked_add(other.sum)?,
            squares: self.squares.checked_add(other.squares)?,
            min: if other.min.total_cmp(&self.min).is_lt() {
                other.min
            } else {
                self.min
            },
            max: if other.max.total_cmp(&self.max).is_gt() {
                other.max
            } else {
                self.max
            },
        })
    }
}

/// Bits are compared, not numbers: merging promises the same bits.
impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum
            && self.squares == other.squares
            && self.min.to_bits() == other.min.to_bits()
            && self.max.to_bits() == other.max.to_bits()
    }
}

/// Quanta between a finite value and the centre; monotone in the value.
pub(crate) fn quantised(baseline: &FieldBaseline, value: f32) -> i64 {
    let distance = f64::from(value) - f64::from(baseline.centre());
    let quanta = libm::rint(distance / f64::from(baseline.quantum()));
    // The cast saturates, and the value is finite.
    (quanta as i64).clamp(-FIXED_POINT_MAX, FIXED_POINT_MAX)
}

mod validity;

//! One window of counts of one slot, and whether it can be true.

mod merge;
pub(crate) mod packed;

use core::fmt;
use core::ops::Deref;

use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use bellwether_drift::{Counts, CountsError, FieldBaseline};
use bellwether_package::ids::{PackageId, SlotName, UnixSecs};

pub use merge::Apart;

/// Fields of one direction in a window at most. Without a heap a device counts few fields.
#[cfg(feature = "alloc")]
pub const FIELDS_MAX: usize = 256;
/// Fields of one direction in a window at most. Without a heap a device counts few fields.
#[cfg(not(feature = "alloc"))]
pub const FIELDS_MAX: usize = 16;

/// Longest window in seconds: a day. Longer ones could not be placed in a soak.
pub const WINDOW_SECS_MAX: u32 = 24 * 60 * 60;

/// Counts of one slot over a stretch of time, under the bins of one baseline.
///
/// A treated device sends two windows for the same rows: one under its own release's baseline
/// (inputs and outputs), and one under the older release's ([`Window::is_own`] is false; inputs
/// only). Whoever adds up rows, errors and latency takes the first kind only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// The slot.
    pub slot: SlotName,
    /// The release that answered.
    pub release: PackageId,
    /// The release whose baseline the counts use.
    pub baseline: PackageId,
    /// When it started, by the device's clock.
    pub started_at: UnixSecs,
    /// How long it lasted, in seconds.
    pub secs: u32,
    /// Rows that the application asked for.
    pub rows: u32,
    /// Counts of raw inputs, in the order of the contract's fields. `None`: not to be exported.
    pub inputs: Fields,
    /// Counts of outputs, likewise. Empty under another release's baseline.
    pub outputs: Fields,
    /// Rows that failed.
    pub errors: ErrorCounts,
    /// Rows whose answers hold NaN or infinity.
    pub rows_nonfinite: u32,
    /// How long answers took; `None` if nothing was answered.
    pub latency: Option<Latency>,
}

/// Rows that failed, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorCounts {
    /// The application's tensors did not fit the contract. No fault of the release.
    pub input_refused: u32,
    /// The worker died.
    pub worker_died: u32,
    /// No answer within the deadline.
    pub deadline: u32,
    /// The model reported an error.
    pub model: u32,
    /// Anything else.
    pub other: u32,
}

impl ErrorCounts {
    /// Rows that failed for a reason that may be the release's.
    pub fn of_release(&self) -> u64 {
        [self.worker_died, self.deadline, self.model, self.other]
            .into_iter()
            .map(u64::from)
            .sum()
    }

    /// All rows that failed.
    pub fn total(&self) -> u64 {
        self.of_release() + u64::from(self.input_refused)
    }
}

/// How long answers took, in microseconds, as the application sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Answers measured.
    pub answers: u32,
    /// Median.
    pub us_p50: u32,
    /// 99th percentile.
    pub us_p99: u32,
    /// Longest.
    pub us_max: u32,
}

/// Counts of the fields of one direction, in the contract's order; at most [`FIELDS_MAX`].
#[derive(Clone, PartialEq, Default)]
pub struct Fields(Inner);

#[cfg(feature = "alloc")]
type Inner = alloc::vec::Vec<Option<Counts>>;
#[cfg(not(feature = "alloc"))]
type Inner = heapless::Vec<Option<Counts>, FIELDS_MAX>;

/// More than [`FIELDS_MAX`] fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window has at most {FIELDS_MAX} fields of one direction")]
pub struct TooManyFields;

impl Fields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the next field's counts; `None` for one that is not exported.
    ///
    /// # Errors
    ///
    /// [`TooManyFields`] when [`FIELDS_MAX`] are there already.
    pub fn push(&mut self, counts: Option<Counts>) -> Result<(), TooManyFields> {
        if self.0.len() == FIELDS_MAX {
            return Err(TooManyFields);
        }
        push(&mut self.0, counts);
        Ok(())
    }

    /// All of `fields`.
    ///
    /// # Errors
    ///
    /// [`TooManyFields`] when there are more than [`FIELDS_MAX`].
    pub fn of(fields: impl IntoIterator<Item = Option<Counts>>) -> Result<Self, TooManyFields> {
        let mut all = Self::new();
        fields.into_iter().try_for_each(|counts| all.push(counts))?;
        Ok(all)
    }
}

#[cfg(feature = "alloc")]
fn push(fields: &mut Inner, counts: Option<Counts>) {
    fields.push(counts);
}

#[cfg(not(feature = "alloc"))]
fn push(fields: &mut Inner, counts: Option<Counts>) {
    // The caller has checked the length against the capacity.
    let _ = fields.push(counts);
}

impl Deref for Fields {
    type Target = [Option<Counts>];

    fn deref(&self) -> &[Option<Counts>] {
        &self.0
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        self.iter()
            .try_for_each(|field| list.serialize_element(field))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {FIELDS_MAX} fields")
            }

            // The length that the bytes claim is not trusted: nothing is reserved for it.
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::new();
                while let Some(field) = list.next_element()? {
                    fields.push(field).map_err(de::Error::custom)?;
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// What a window is held against.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The baseline's input fields, in the contract's order.
    pub inputs: &'a [FieldBaseline],
    /// The baseline's output fields, in the contract's order.
    pub outputs: &'a [FieldBaseline],
    /// Values that one row can hold of one field: 1, unless ports have more axes than batch and
    /// field.
    pub values_per_row_max: u32,
    /// Rows that a device can answer in a second.
    pub rows_per_sec_max: u32,
}

/// Why a window cannot be true. The device lies, or its software is broken: its verdict is
/// `Invalid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Longer than any window.
    #[error("the window lasts {secs} s, at most {WINDOW_SECS_MAX} s are possible")]
    TooLong {
        /// Its length.
        secs: u32,
    },
    /// More rows than its length and the rate allow.
    #[error("{rows} rows in a window that can hold {rows_max}")]
    TooManyRows {
        /// Rows told.
        rows: u32,
        /// Rows possible.
        rows_max: u64,
    },
    /// Another number of fields than the baseline has.
    #[error("{found} {direction} fields where the baseline has {expected}")]
    FieldsDiffer {
        /// `input` or `output`.
        direction: &'static str,
        /// Fields told.
        found: usize,
        /// Fields of the baseline.
        expected: usize,
    },
    /// Counts of a field that cannot be.
    #[error("impossible counts of {direction} field {field}")]
    Counts {
        /// `input` or `output`.
        direction: &'static str,
        /// The field's place, from 0.
        field: usize,
        /// Why not.
        #[source]
        cause: CountsError,
    },
    /// More rows failed, or gave NaN or infinity, than there were rows.
    #[error("{found} rows failed or were not finite, of {rows}")]
    TooManyFailures {
        /// Rows told.
        found: u64,
        /// Rows in all.
        rows: u32,
    },
    /// Percentiles that do not rise, or more answers than rows.
    #[error("the latency's figures contradict each other")]
    Latency,
}

impl Window {
    /// Whether the counts use the baseline of the release that answered.
    pub fn is_own(&self) -> bool {
        self.release == self.baseline
    }

    /// Whether this window can be true: against its baseline, its own length, and the rate that a
    /// device can reach. A lie that is consistent passes; robust figures over devices are the
    /// defence against those.
    ///
    /// # Errors
    ///
    /// [`Impossible`], the first thing found.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), Impossible> {
        if self.secs > WINDOW_SECS_MAX {
            return Err(Impossible::TooLong { secs: self.secs });
        }
        // A window shorter than a second is told as 0 s; it may hold a second's rows.
        let rows_max = u64::from(self.secs.max(1)) * u64::from(expected.rows_per_sec_max);
        if u64::from(self.rows) > rows_max {
            return Err(Impossible::TooManyRows {
                rows: self.rows,
                rows_max,
            });
        }
        self.check_failures()?;
        let values_max = u64::from(self.rows) * u64::from(expected.values_per_row_max);
        check_fields("input", &self.inputs, expected.inputs, values_max)?;
        if !self.is_own() && self.outputs.is_empty() {
            return Ok(());
        }
        check_fields("output", &self.outputs, expected.outputs, values_max)
    }

    fn check_failures(&self) -> Result<(), Impossible> {
        let found = self.errors.total() + u64::from(self.rows_nonfinite);
        if found > u64::from(self.rows) {
            return Err(Impossible::TooManyFailures {
                found,
                rows: self.rows,
            });
        }
        let risen = |latency: Latency| {
            latency.us_p50 <= latency.us_p99
                && latency.us_p99 <= latency.us_max
                && latency.answers <= self.rows
        };
        if self.latency.is_none_or(risen) {
            Ok(())
        } else {
            Err(Impossible::Latency)
        }
    }
}

fn check_fields(
    direction: &'static str,
    fields: &[Option<Counts>],
    baselines: &[FieldBaseline],
    values_max: u64,
) -> Result<(), Impossible> {
    if fields.len() != baselines.len() {
        let (found, expected) = (fields.len(), baselines.len());
        return Err(Impossible::FieldsDiffer {
            direction,
            found,
            expected,
        });
    }
    for (field, (counts, baseline)) in fields.iter().zip(baselines).enumerate() {
        if let Some(counts) = counts {
            counts
                .fits_window(baseline, values_max)
                .map_err(|cause| Impossible::Counts {
                    direction,
                    field,
                    cause,
                })?;
        }
    }
    Ok(())
}

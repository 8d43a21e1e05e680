//! The bins of one field, their training counts, and the fixed-point scale of its moments.
//!
//! A baseline that exists is valid: construction and deserialisation run the same checks.

use serde::{Deserialize, Serialize};

use crate::counts::{Counts, CountsError};

/// Inner bins of a field at most. Sixteen counts of a field fit a window report of a device with
/// dozens of fields; quantile bins gain little beyond that.
pub const BINS_MAX: usize = 16;
/// Inner edges of a numeric field at most.
pub const EDGES_MAX: usize = BINS_MAX - 1;
/// Bytes of a field's name at most.
pub const FIELD_NAME_BYTES_MAX: usize = 48;

/// The name of a field, as the contract gives it.
pub type FieldName = heapless::String<FIELD_NAME_BYTES_MAX>;

/// How a field's values fall into bins.
///
/// Wire enum: append only; a reordered variant breaks devices in the field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Bins {
    /// Bin `i` holds `edges[i - 1] <= x < edges[i]`; the first starts at `lo`, the last ends at
    /// `hi`, both inclusive. There is one bin more than there are edges.
    Numeric {
        /// Inner edges, strictly ascending, each in `(lo, hi]`.
        edges: heapless::Vec<f32, EDGES_MAX>,
        /// Least training value, in the field's unit.
        lo: f32,
        /// Greatest training value, in the field's unit.
        hi: f32,
    },
    /// Bin `i` holds the code `domain[i]`.
    Categorical {
        /// Declared codes, all different.
        domain: heapless::Vec<i64, BINS_MAX>,
    },
}

/// Where a value falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// An inner bin.
    Bin(usize),
    /// A special counter.
    Special(crate::Special),
}

/// What one field looked like in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct FieldBaseline {
    name: FieldName,
    bins: Bins,
    counts: Counts,
    centre: f32,
    quantum: f32,
}

/// Why a baseline is refused. The package is at fault in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// A field needs a name, so that a report can say which one drifted.
    #[error("the field has no name")]
    Unnamed,
    /// The name is longer than [`FIELD_NAME_BYTES_MAX`].
    #[error("the field's name is longer than {FIELD_NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// An edge, a bound, the centre or the quantum is NaN or infinite.
    #[error("an edge, a bound or the scale is not finite")]
    NotFinite,
    /// Edges do not ascend strictly within `(lo, hi]`.
    #[error("the edges do not ascend within the range")]
    EdgesDisordered,
    /// The quantum is not a positive power of two.
    #[error("the quantum is not a positive power of two")]
    QuantumInvalid,
    /// A categorical field declares no code, too many, or one of them twice.
    #[error("the domain is empty, too large, or names a code twice")]
    DomainInvalid,
    /// There is no finite value, or no value of the domain, to build the baseline from.
    #[error("there is no usable training value")]
    NoValues,
    /// The training counts do not fit the bins.
    #[error("the training counts do not fit the bins")]
    Counts(#[source] CountsError),
}

impl Bins {
    /// The number of inner bins, 1 to [`BINS_MAX`] in a valid baseline.
    pub fn len(&self) -> usize {
        match self {
            Self::Numeric { edges, .. } => edges.len() + 1,
            Self::Categorical { domain } => domain.len(),
        }
    }

    /// True for a categorical field without any code, which no valid baseline has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for a categorical field.
    pub fn is_categorical(&self) -> bool {
        matches!(self, Self::Categorical { .. })
    }

    /// Where `value` falls. A categorical field takes whole numbers that are codes of its domain;
    /// anything else, NaN included, is [`Special::Other`](crate::Special::Other).
    pub fn slot(&self, value: f32) -> Slot {
        use crate::Special;
        match self {
            Self::Numeric { edges, lo, hi } => {
                if value.is_nan() {
                    Slot::Special(Special::Nan)
                } else if value.is_infinite() {
                    Slot::Special(Special::Infinite)
                } else if value < *lo {
                    Slot::Special(Special::Below)
                } else if value > *hi {
                    Slot::Special(Special::Above)
                } else {
                    Slot::Bin(edges.partition_point(|edge| *edge <= value))
                }
            }
            Self::Categorical { .. } => {
                // Whole numbers beyond 2^63 saturate in the cast and no longer compare equal,
                // except at the bounds themselves, which an f32 cannot name apart.
                let code = value as i64;
                if code as f32 == value {
                    self.slot_of_code(code)
                } else {
                    Slot::Special(Special::Other)
                }
            }
        }
    }

    /// Where the code of a categorical field falls. On a numeric field the code is a number.
    pub fn slot_of_code(&self, code: i64) -> Slot {
        match self {
            Self::Numeric { .. } => self.slot(code as f32),
            Self::Categorical { domain } => match domain.iter().position(|known| *known == code) {
                Some(bin) => Slot::Bin(bin),
                None => Slot::Special(crate::Special::Other),
            },
        }
    }

    fn check(&self) -> Result<(), BaselineError> {
        match self {
            Self::Numeric { edges, lo, hi } => {
                if !lo.is_finite() || !hi.is_finite() || edges.iter().any(|edge| !edge.is_finite())
                {
                    return Err(BaselineError::NotFinite);
                }
                let mut floor = *lo;
                for edge in edges {
                    if *edge <= floor {
                        return Err(BaselineError::EdgesDisordered);
                    }
                    floor = *edge;
                }
                if floor > *hi {
                    Err(BaselineError::EdgesDisordered)
                } else {
                    Ok(())
                }
            }
            Self::Categorical { domain } => {
                let twice = (1..domain.len()).any(|i| domain[..i].contains(&domain[i]));
                if domain.is_empty() || twice {
                    Err(BaselineError::DomainInvalid)
                } else {
                    Ok(())
                }
            }
        }
    }
}

impl FieldBaseline {
    /// A baseline from its parts, checked.
    ///
    /// `centre` is the training mean in the field's unit; `quantum` is the step of the fixed-point
    /// moments in the field's unit, a positive power of two. Categorical fields use 0 and 1.
    pub fn new(
        name: &str,
        bins: Bins,
        counts: Counts,
        centre: f32,
        quantum: f32,
    ) -> Result<Self, BaselineError> {
        let name = FieldName::try_from(name).map_err(|_| BaselineError::NameTooLong)?;
        if name.is_empty() {
            return Err(BaselineError::Unnamed);
        }
        bins.check()?;
        if !centre.is_finite() || !quantum.is_finite() {
            return Err(BaselineError::NotFinite);
        }
        if !is_power_of_two(quantum) {
            return Err(BaselineError::QuantumInvalid);
        }
        let baseline = Self {
            name,
            bins,
            counts,
            centre,
            quantum,
        };
        baseline
            .counts
            .fits(&baseline)
            .map_err(BaselineError::Counts)?;
        Ok(baseline)
    }

    /// The field's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The field's bins.
    pub fn bins(&self) -> &Bins {
        &self.bins
    }

    /// The training counts.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The training mean, in the field's unit, about which moments are summed.
    pub fn centre(&self) -> f32 {
        self.centre
    }

    /// The step of the fixed-point moments, in the field's unit.
    pub fn quantum(&self) -> f32 {
        self.quantum
    }
}

/// Positive, normal, and with an empty mantissa.
fn is_power_of_two(value: f32) -> bool {
    const MANTISSA: u32 = (1 << 23) - 1;
    value.is_normal() && value > 0.0 && value.to_bits() & MANTISSA == 0
}

/// The wire form of a baseline: what arrives, before it is checked.
#[derive(Serialize, Deserialize)]
struct Unchecked {
    name: FieldName,
    bins: Bins,
    counts: Counts,
    centre: f32,
    quantum: f32,
}

impl TryFrom<Unchecked> for FieldBaseline {
    type Error = BaselineError;

    fn try_from(raw: Unchecked) -> Result<Self, BaselineError> {
        Self::new(&raw.name, raw.bins, raw.counts, raw.centre, raw.quantum)
    }
}

impl From<FieldBaseline> for Unchecked {
    fn from(baseline: FieldBaseline) -> Self {
        let FieldBaseline {
            name,
            bins,
            counts,
            centre,
            quantum,
        } = baseline;
        Self {
            name,
            bins,
            counts,
            centre,
            quantum,
        }
    }
}

#[cfg(feature = "alloc")]
mod build;

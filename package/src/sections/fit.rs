//! Whether a section makes sense by itself, and whether sections belong together.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bellwether_drift::{Bins, FieldBaseline};

use super::{
    Activation, Baseline, Budget, Card, Constant, Contract, Dim, FIELDS_MAX, Field, FieldKind,
    Golden, GoldenTensor, MicroInfo, OnnxInfo, Port, Provenance,
};
use crate::digest::{CHUNK_BYTES, ChunkRoot};
use crate::document::DocumentError;
use crate::ids::Digest;
use crate::manifest::SectionEntry;

/// Why sections of one package do not belong together. The package is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// The baseline has more or fewer fields than the contract.
    #[error("the baseline has {found} fields for {side}, the contract has {expected}")]
    BaselineFields {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// Fields of the contract.
        expected: usize,
        /// Fields of the baseline.
        found: usize,
    },
    /// A field of the baseline has another name or kind than the contract's.
    #[error("field {place} of the baseline's {side} is not the contract's")]
    BaselineField {
        /// `inputs` or `outputs`.
        side: &'static str,
        /// Its place, from 0.
        place: usize,
    },
    /// A golden case has other tensors than the contract.
    #[error("golden case {case} does not fit the contract's {side}")]
    GoldenCase {
        /// Its place, from 0.
        case: usize,
        /// `inputs` or `outputs`.
        side: &'static str,
    },
    /// Length, chunks and root of a blob do not agree.
    #[error("the description of a blob does not fit the manifest")]
    Blob,
}

pub(super) type Checked = Result<(), DocumentError>;

pub(super) const fn invalid(what: &'static str) -> Checked {
    Err(DocumentError::Invalid(what))
}

impl Contract {
    /// All input fields, in the order of the baseline.
    pub fn input_fields(&self) -> impl Iterator<Item = &Field> {
        self.inputs.iter().flat_map(|port| &port.fields)
    }

    /// All output fields, in the order of the baseline.
    pub fn output_fields(&self) -> impl Iterator<Item = &Field> {
        self.outputs.iter().flat_map(|port| &port.fields)
    }

    /// Whether the baseline has one entry of the same name and kind for each field, in order.
    ///
    /// # Errors
    ///
    /// [`FitError`] says which field differs.
    pub fn fits_baseline(&self, baseline: &Baseline) -> Result<(), FitError> {
        fits_side("inputs", &self.inputs, &baseline.inputs)?;
        fits_side("outputs", &self.outputs, &baseline.outputs)
    }

    pub(super) fn check(&self) -> Checked {
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return invalid("a contract needs an input and an output");
        }
        check_ports(&self.inputs)?;
        check_ports(&self.outputs)?;
        self.check_states()?;
        self.constants.iter().try_for_each(Constant::check)?;
        self.check_names()?;
        if !self.steps.is_empty() {
            let channels = self.input_fields().count();
            if bellwether_features::validate(&self.steps, channels).is_err() {
                return invalid("the feature steps do not fit the input fields");
            }
        }
        Ok(())
    }

    fn check_states(&self) -> Checked {
        for state in &self.states {
            if state.shape.contains(&Dim::Fixed(0)) {
                return invalid("a state has a dimension of zero");
            }
            // Rows that come and go have no state of their own to come back to.
            let batch = |shape: &[Dim]| shape.contains(&Dim::Batch);
            if batch(&state.shape) && !self.inputs.iter().any(|port| batch(&port.shape)) {
                return invalid("a state has a batch, and no input has one");
            }
        }
        Ok(())
    }

    /// Each input and each output of the model is named once, whoever feeds or reads it.
    fn check_names(&self) -> Checked {
        let all_differ = |mut names: Vec<&str>| {
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            names.len() == count && !names.contains(&"")
        };
        let inputs = self.inputs.iter().map(|port| port.name.as_str());
        let inputs = inputs
            .chain(self.states.iter().map(|state| state.input.as_str()))
            .chain(self.constants.iter().map(|one| one.name.as_str()));
        let outputs = self.outputs.iter().map(|port| port.name.as_str());
        let outputs = outputs.chain(self.states.iter().map(|state| state.output.as_str()));
        if all_differ(inputs.collect()) && all_differ(outputs.collect()) {
            Ok(())
        } else {
            invalid("an input or output of the model is named twice, or has no name")
        }
    }
}

impl Constant {
    fn check(&self) -> Checked {
        let bytes = self
            .shape
            .iter()
            .try_fold(self.dtype.bytes(), |bytes, size| {
                bytes.checked_mul(*size as usize)
            });
        if bytes == Some(self.bytes.len()) {
            Ok(())
        } else {
            invalid("a constant's bytes do not fill its shape")
        }
    }
}

impl Port {
    fn check(&self) -> Checked {
        if self.name.is_empty() {
            return invalid("a port has no name");
        }
        if self.shape.contains(&Dim::Fixed(0)) {
            return invalid("a port has a dimension of zero");
        }
        let width = match self.shape.last() {
            Some(Dim::Fixed(width)) => *width as usize,
            Some(Dim::Batch) | None => 1,
        };
        if !self.fields.is_empty() && self.fields.len() != width {
            return invalid("a port has more or fewer fields than its last axis has elements");
        }
        self.fields.iter().try_for_each(Field::check)
    }
}

impl Field {
    fn check(&self) -> Checked {
        if self.name.is_empty() {
            return invalid("a field has no name");
        }
        if let Some((lo, hi)) = self.range
            && !(lo.is_finite() && hi.is_finite() && lo <= hi)
        {
            return invalid("a field's range is not finite or upside down");
        }
        if let FieldKind::Categorical { domain } = &self.kind
            && (domain.is_empty() || domain.iter().collect::<BTreeSet<_>>().len() < domain.len())
        {
            return invalid("a categorical field's domain is empty or names a code twice");
        }
        Ok(())
    }
}

impl Baseline {
    pub(super) fn check(&self) -> Checked {
        // FieldBaseline checks itself when it is deserialised.
        Ok(())
    }
}

impl Golden {
    /// Whether every case has the contract's tensors, in its order.
    ///
    /// # Errors
    ///
    /// [`FitError::GoldenCase`] names the first case that does not.
    pub fn fits(&self, contract: &Contract) -> Result<(), FitError> {
        for (case, golden) in self.cases.iter().enumerate() {
            // One number of rows for the whole case.
            let mut rows = None;
            let sides = [
                ("inputs", &golden.inputs, &contract.inputs),
                ("outputs", &golden.outputs, &contract.outputs),
            ];
            for (side, tensors, ports) in sides {
                let fits = tensors.len() == ports.len()
                    && tensors
                        .iter()
                        .zip(ports)
                        .all(|(tensor, port)| tensor.fits(port, &mut rows));
                if !fits {
                    return Err(FitError::GoldenCase { case, side });
                }
            }
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Checked {
        if self.cases.is_empty() {
            return invalid("there is no golden case");
        }
        let tolerance = |share: f32| share.is_finite() && share >= 0.0;
        if !tolerance(self.tolerance_abs) || !tolerance(self.tolerance_rel) {
            return invalid("a tolerance is not a number of at least zero");
        }
        Ok(())
    }
}

impl GoldenTensor {
    fn fits(&self, port: &Port, rows: &mut Option<u32>) -> bool {
        let dims = |(dim, size): (&Dim, &u32)| match dim {
            Dim::Fixed(fixed) => fixed == size,
            Dim::Batch => *size > 0 && *rows.get_or_insert(*size) == *size,
        };
        let bytes = self
            .shape
            .iter()
            .try_fold(self.dtype.bytes(), |bytes, size| {
                bytes.checked_mul(*size as usize)
            });
        self.name == port.name
            && self.dtype == port.dtype
            && self.shape.len() == port.shape.len()
            && port.shape.iter().zip(&self.shape).all(dims)
            && bytes == Some(self.bytes.len())
    }
}

impl Budget {
    pub(super) fn check(&self) -> Checked {
        if self.latency_us_p99 == 0 || self.memory_bytes == 0 {
            return invalid("a budget of zero cannot be kept");
        }
        if self.error_share_max_ppm > 1_000_000 {
            return invalid("a share of errors is more than everything");
        }
        Ok(())
    }
}

impl Card {
    pub(super) fn check(&self) -> Checked {
        let finite = |metric: &super::Metric| {
            metric.value.is_finite()
                && metric
                    .interval
                    .is_none_or(|(lo, hi, share)| lo <= hi && (0.0..1.0).contains(&share))
        };
        if self.accuracy.iter().all(finite) {
            Ok(())
        } else {
            invalid("a figure of the card is not finite, or its interval is upside down")
        }
    }
}

impl Provenance {
    pub(super) fn check(&self) -> Checked {
        Ok(())
    }
}

impl Activation {
    pub(super) fn check(&self) -> Checked {
        let sensible = |hours: &super::Hours| {
            hours.days != 0
                && hours.days < 1 << 7
                && hours.from_minute < hours.until_minute
                && hours.until_minute <= 24 * 60
        };
        if self.hours.iter().all(sensible) {
            Ok(())
        } else {
            invalid("hours of the activation policy name no day or end before they begin")
        }
    }
}

impl OnnxInfo {
    /// Whether length and chunks are those of this section of the manifest.
    ///
    /// # Errors
    ///
    /// [`FitError::Blob`].
    pub fn fits(&self, blob: &SectionEntry) -> Result<(), FitError> {
        fits_blob(self.length, &self.chunks, blob)
    }

    pub(super) fn check(&self) -> Checked {
        check_chunks(self.length, &self.chunks)
    }
}

impl MicroInfo {
    /// Whether length and chunks are those of this section of the manifest.
    ///
    /// # Errors
    ///
    /// [`FitError::Blob`].
    pub fn fits(&self, blob: &SectionEntry) -> Result<(), FitError> {
        fits_blob(self.length, &self.chunks, blob)
    }

    pub(super) fn check(&self) -> Checked {
        check_chunks(self.length, &self.chunks)
    }
}

fn check_ports(ports: &[Port]) -> Checked {
    ports.iter().try_for_each(Port::check)?;
    let names = ports.iter().map(|port| port.name.as_str());
    if names.collect::<BTreeSet<_>>().len() < ports.len() {
        return invalid("two ports have the same name");
    }
    let fields = || ports.iter().flat_map(|port| &port.fields);
    let count = fields().count();
    if count > FIELDS_MAX {
        return invalid("there are too many fields");
    }
    if fields()
        .map(|field| field.name.as_str())
        .collect::<BTreeSet<_>>()
        .len()
        < count
    {
        return invalid("two fields have the same name");
    }
    Ok(())
}

fn fits_side(side: &'static str, ports: &[Port], found: &[FieldBaseline]) -> Result<(), FitError> {
    let fields = || ports.iter().flat_map(|port| &port.fields);
    let expected = fields().count();
    if expected != found.len() {
        return Err(FitError::BaselineFields {
            side,
            expected,
            found: found.len(),
        });
    }
    let same = |(field, baseline): (&Field, &FieldBaseline)| {
        field.name == baseline.name()
            && match (&field.kind, baseline.bins()) {
                (FieldKind::Numeric, Bins::Numeric { .. }) => true,
                (FieldKind::Categorical { domain }, Bins::Categorical { domain: bins }) => {
                    domain.as_slice() == bins.as_slice()
                }
                _ => false,
            }
    };
    match fields().zip(found).position(|pair| !same(pair)) {
        Some(place) => Err(FitError::BaselineField { side, place }),
        None => Ok(()),
    }
}

pub(super) fn check_chunks(length: u64, chunks: &[Digest]) -> Checked {
    if length == 0 || length.div_ceil(CHUNK_BYTES as u64) != chunks.len() as u64 {
        return invalid("a blob's length and number of chunks do not agree");
    }
    Ok(())
}

pub(super) fn fits_blob(
    length: u64,
    chunks: &[Digest],
    blob: &SectionEntry,
) -> Result<(), FitError> {
    if length == blob.length && ChunkRoot::of_chunks(chunks) == blob.digest {
        Ok(())
    } else {
        Err(FitError::Blob)
    }
}

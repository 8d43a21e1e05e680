//! From windows of counts to one device's figures.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use bellwether_drift::{Counts, FieldBaseline, Special, psi};
use bellwether_package::ids::PackageId;
use bellwether_protocol::Window;

use super::decision::Measure;
use super::policy::Limits;

/// What one device's counts are held against.
#[derive(Debug, Clone, Copy)]
pub struct Baselines<'a> {
    /// Inputs of the release that the device runs, in the contract's order.
    pub inputs: &'a [FieldBaseline],
    /// Outputs of that release.
    pub outputs: &'a [FieldBaseline],
    /// Inputs of the older release of the rollout; `None` if the device runs that one itself.
    pub reference: Option<&'a [FieldBaseline]>,
}

/// One device's figures, over the windows since its order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Scores {
    /// Windows that they come from.
    pub windows: u32,
    /// Rows that these hold.
    pub rows: u64,
    /// Inputs against the older release's baseline. In the control arm the same as
    /// [`Scores::inputs_own`]; `None` if the device did not count under it.
    pub inputs_reference: Option<Divergence>,
    /// Inputs against the baseline of the release that it runs.
    pub inputs_own: Divergence,
    /// Outputs against what that release is expected to answer.
    pub outputs_own: Divergence,
    /// Share of rows that failed for a reason that may be the release's, 0 to 1.
    pub error_share: f64,
    /// Share of rows whose answers hold NaN or infinity, 0 to 1.
    pub nonfinite_share: f64,
    /// 99th percentile of latency in microseconds, averaged over windows by their answers.
    pub latency_us_p99: Option<f64>,
}

/// How far counts are from a baseline, field by field in the contract's order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Divergence {
    /// One for each field.
    pub fields: Vec<FieldScore>,
}

/// How far one field's counts are from its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct FieldScore {
    /// Population stability index of the inner bins with its bias removed; `None` if too little
    /// was counted in them, or the field is not exported.
    pub psi: Option<f64>,
    /// Share of values outside the inner bins (missing, NaN, infinite, foreign, beyond the training
    /// range), less the baseline's. `None` if nothing was counted.
    pub outside_rise: Option<f64>,
}

/// A field that lies so many limits away; 1 is at the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Far {
    /// The field's place.
    pub(crate) field: usize,
    /// Value over limit.
    pub(crate) ratio: f64,
    pub(crate) measure: Measure,
}

/// Adds up the windows of one device that runs one release. The order does not matter.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    release: PackageId,
    reference: Option<PackageId>,
    inputs_own: Vec<Option<Counts>>,
    outputs_own: Vec<Option<Counts>>,
    inputs_reference: Vec<Option<Counts>>,
    windows: u32,
    rows: u64,
    rows_failed: u64,
    rows_nonfinite: u64,
    answers: u64,
    /// Σ answers × p99 of each window.
    latency_us: u128,
}

/// Why a window was not added; the tally is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TallyError {
    /// Another release answered, or the counts use a baseline that is not looked at.
    #[error("the window is of another release or baseline")]
    Foreign,
    /// Other fields or bins than the windows before, or a counter would overflow.
    #[error("the window's counts do not fit those before")]
    Unfit,
}

impl Tally {
    /// Nothing yet of a device that runs `release`; `reference` is the older release of the rollout
    /// on treated devices.
    pub fn new(release: PackageId, reference: Option<PackageId>) -> Self {
        Self {
            release,
            reference: reference.filter(|reference| *reference != release),
            inputs_own: Vec::new(),
            outputs_own: Vec::new(),
            inputs_reference: Vec::new(),
            windows: 0,
            rows: 0,
            rows_failed: 0,
            rows_nonfinite: 0,
            answers: 0,
            latency_us: 0,
        }
    }

    /// Adds a window, which [`Window::check`] has found possible.
    ///
    /// # Errors
    ///
    /// [`TallyError`].
    pub fn add(&mut self, window: &Window) -> Result<(), TallyError> {
        if window.release != self.release {
            return Err(TallyError::Foreign);
        }
        if !window.is_own() {
            if Some(window.baseline) != self.reference {
                return Err(TallyError::Foreign);
            }
            self.inputs_reference = merged(&self.inputs_reference, &window.inputs)?;
            return Ok(());
        }
        let inputs = merged(&self.inputs_own, &window.inputs)?;
        let outputs = merged(&self.outputs_own, &window.outputs)?;
        (self.inputs_own, self.outputs_own) = (inputs, outputs);
        self.windows = self.windows.saturating_add(1);
        self.rows += u64::from(window.rows);
        self.rows_failed += window.errors.of_release();
        self.rows_nonfinite += u64::from(window.rows_nonfinite);
        if let Some(latency) = window.latency {
            self.answers += u64::from(latency.answers);
            self.latency_us += u128::from(latency.answers) * u128::from(latency.us_p99);
        }
        Ok(())
    }

    /// The figures.
    pub fn scores(&self, baselines: &Baselines<'_>) -> Scores {
        let inputs_own = Divergence::of(&self.inputs_own, baselines.inputs);
        let inputs_reference = match baselines.reference {
            None => Some(inputs_own.clone()),
            Some(_) if self.inputs_reference.is_empty() => None,
            Some(reference) => Some(Divergence::of(&self.inputs_reference, reference)),
        };
        let share = |rows: u64| {
            if self.rows == 0 {
                0.0
            } else {
                rows as f64 / self.rows as f64
            }
        };
        Scores {
            windows: self.windows,
            rows: self.rows,
            inputs_reference,
            inputs_own,
            outputs_own: Divergence::of(&self.outputs_own, baselines.outputs),
            error_share: share(self.rows_failed),
            nonfinite_share: share(self.rows_nonfinite),
            latency_us_p99: (self.answers > 0)
                .then(|| self.latency_us as f64 / self.answers as f64),
        }
    }
}

impl Divergence {
    /// Counts against baselines, field by field. A field without counts has no score.
    pub fn of(counts: &[Option<Counts>], baselines: &[FieldBaseline]) -> Self {
        let score = |(place, baseline): (usize, &FieldBaseline)| {
            let counts = counts.get(place).and_then(Option::as_ref);
            counts.map_or_else(FieldScore::default, |live| FieldScore {
                psi: psi(baseline.counts(), live).map(|psi| psi.excess()),
                outside_rise: outside_share(live)
                    .map(|share| share - outside_share(baseline.counts()).unwrap_or(0.0)),
            })
        };
        Self {
            fields: baselines.iter().enumerate().map(score).collect(),
        }
    }

    /// Whether any field has a figure. A release that exports nothing has none, and is never alike.
    pub(crate) fn is_told(&self) -> bool {
        let told = |score: &FieldScore| score.psi.is_some() || score.outside_rise.is_some();
        self.fields.iter().any(told)
    }

    /// The field furthest away, in limits.
    pub(crate) fn worst(&self, limits: &Limits) -> Option<Far> {
        let fields = (0..self.fields.len()).filter_map(|field| self.far(field, limits));
        fields.max_by(|a, b| a.ratio.total_cmp(&b.ratio))
    }

    /// How far one field is away, in limits.
    pub(crate) fn far(&self, field: usize, limits: &Limits) -> Option<Far> {
        let score = self.fields.get(field)?;
        let psi = score.psi.filter(|psi| psi.is_finite()).map(|psi| Far {
            field,
            ratio: psi.max(0.0) / limits.psi_max,
            measure: Measure::Psi,
        });
        let outside = score
            .outside_rise
            .filter(|rise| rise.is_finite())
            .map(|rise| Far {
                field,
                ratio: rise.max(0.0) / limits.outside_rise_max,
                measure: Measure::OutsideRise,
            });
        match (psi, outside) {
            (Some(psi), Some(outside)) if outside.ratio > psi.ratio => Some(outside),
            (Some(psi), _) => Some(psi),
            (None, outside) => outside,
        }
    }

    /// One field's value in this measure; 0 where there is none.
    pub(crate) fn value(&self, field: usize, measure: Measure) -> f64 {
        let score = self.fields.get(field).copied().unwrap_or_default();
        match measure {
            Measure::Psi => score.psi.unwrap_or(0.0),
            _ => score.outside_rise.unwrap_or(0.0),
        }
    }
}

impl Scores {
    /// Whether these figures can be compared at all: none is NaN or infinite.
    pub(crate) fn are_finite(&self) -> bool {
        let latency = self.latency_us_p99.unwrap_or(1.0);
        self.error_share.is_finite() && self.nonfinite_share.is_finite() && latency.is_finite()
    }
}

/// Share of values outside the inner bins.
fn outside_share(counts: &Counts) -> Option<f64> {
    let outside: u64 = Special::ALL
        .iter()
        .map(|it| u64::from(counts.special(*it)))
        .sum();
    let total = counts.total();
    (total > 0).then(|| outside as f64 / total as f64)
}

fn merged(
    before: &[Option<Counts>],
    window: &[Option<Counts>],
) -> Result<Vec<Option<Counts>>, TallyError> {
    if before.is_empty() {
        return Ok(window.to_vec());
    }
    if before.len() != window.len() {
        return Err(TallyError::Unfit);
    }
    let merge = |(before, window): (&Option<Counts>, &Option<Counts>)| match (before, window) {
        (Some(before), Some(window)) => {
            let mut both = before.clone();
            both.merge(window).map_err(|_| TallyError::Unfit)?;
            Ok(Some(both))
        }
        (Some(one), None) | (None, Some(one)) => Ok(Some(one.clone())),
        (None, None) => Ok(None),
    };
    before.iter().zip(window).map(merge).collect()
}

//! What a session counts between two reports.

use bellwether_drift::{Counts, FieldBaseline};
use bellwether_package::sections::{Baseline, Field, FieldKind, MissingRule, Port};

use crate::{latency::LatencyHistogram, wire::Tensor};

/// Counts since the last window was taken. They stand in the parent: a dead worker loses none.
#[derive(Debug, Clone)]
pub struct Window {
    /// Raw inputs by the baseline's bins, in the order of the contract's fields. Every
    /// well-formed input counts, those refused for a value included: a failing sensor must show.
    pub inputs: Vec<Counts>,
    /// Outputs by the baseline's bins, in the order of the contract's fields.
    pub outputs: Vec<Counts>,
    /// Raw inputs by the bins given to [`Session::also_count`](crate::Session::also_count).
    pub inputs_also: Option<Vec<Counts>>,
    /// Rows (batch entries) that were answered.
    pub rows: u64,
    /// Runs that were answered.
    pub runs: u64,
    /// Runs refused because their input breaks the contract.
    pub refused: u64,
    /// Runs that failed through the release, its worker or the device.
    pub failed: u64,
    /// Workers that died.
    pub deaths: u64,
    /// Output elements that are NaN or infinite.
    pub outputs_nonfinite: u64,
    /// Values that no counter had room for, or that no baseline field names.
    pub uncounted: u64,
    /// Latency of answered runs.
    pub latency: LatencyHistogram,
    /// The most memory the worker has held at once since the session began, in bytes.
    pub memory_bytes_peak: u64,
}

impl Window {
    pub(crate) fn new(baseline: &Baseline, also: Option<&Baseline>) -> Self {
        Self {
            inputs: empty(&baseline.inputs),
            outputs: empty(&baseline.outputs),
            inputs_also: also.map(|also| empty(&also.inputs)),
            rows: 0,
            runs: 0,
            refused: 0,
            failed: 0,
            deaths: 0,
            outputs_nonfinite: 0,
            uncounted: 0,
            latency: LatencyHistogram::new(),
            memory_bytes_peak: 0,
        }
    }
}

pub(crate) fn empty(fields: &[FieldBaseline]) -> Vec<Counts> {
    let counts = fields.iter().map(|field| Counts::new(field.bins()));
    counts.collect()
}

/// Counts the values of tensors, in the order of `ports`. Returns how many found no room.
pub(crate) fn observe<'a>(
    ports: impl Iterator<Item = (&'a Port, &'a Tensor)>,
    baseline: &[FieldBaseline],
    counts: &mut [Counts],
) -> u64 {
    let (mut first, mut uncounted) = (0, 0);
    for (port, tensor) in ports {
        let width = port.fields.len();
        if width == 0 {
            continue;
        }
        for (i, value) in tensor.values().enumerate() {
            let at = first + i % width;
            let counted = match (baseline.get(at), counts.get_mut(at)) {
                (Some(baseline), Some(counts)) => {
                    observe_one(&port.fields[i % width], baseline, counts, value)
                }
                _ => false,
            };
            uncounted += u64::from(!counted);
        }
        first += width;
    }
    uncounted
}

fn observe_one(field: &Field, baseline: &FieldBaseline, counts: &mut Counts, value: f64) -> bool {
    if value.is_nan() && matches!(field.missing, MissingRule::Allow) {
        // Where a reading may be missing, NaN is how a tensor says so.
        return counts.observe_missing();
    }
    match field.kind {
        // Codes of a categorical field are whole; what is not is counted as foreign.
        FieldKind::Categorical { .. } if value.fract() == 0.0 => {
            counts.observe_code(baseline, value as i64)
        }
        _ => counts.observe(baseline, value as f32),
    }
}

/// Elements that are NaN or infinite.
pub(crate) fn nonfinite(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.nonfinite() as u64).sum()
}

//! Whether a candidate's inputs and outputs have moved away from what its package promises.
//!
//! One device sees few rows, and each resembles the one before, so a test over rows alone finds
//! drift everywhere. Here an effect size decides, after enough values; the p-value only keeps
//! sparse counts quiet.

use bellwether_drift::{Counts, FieldBaseline, Special, psi};
use serde::{Deserialize, Serialize};

use bellwether_protocol::DriftLimits;

/// Greatest chance of an index at least this large without drift: counts too sparse for the limit
/// say nothing, however large it looks.
pub const P_MAX: f64 = 0.001;

/// What counts say of one side of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drift {
    /// A field has too few values, and no other has moved. Also a side without counted fields.
    Insufficient,
    /// Every field has enough values, and none has moved.
    Still,
    /// This field has moved, the farthest of them.
    Moved(Moved),
}

/// How far a field has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The field, from 0.
    pub field: u16,
    /// Population stability index, bias removed, in thousandths.
    pub psi_milli: u32,
    /// Rise of the share of values outside the bins, in parts per million.
    pub outside_rise_ppm: u32,
    /// Values counted.
    pub values: u32,
}

/// Judges the fields of one side, counted since the trial began.
pub fn drift<'a>(
    fields: impl IntoIterator<Item = (&'a FieldBaseline, &'a Counts)>,
    limits: &DriftLimits,
) -> Drift {
    let mut seen = None;
    for (field, (baseline, counts)) in fields.into_iter().enumerate() {
        let field = u16::try_from(field).unwrap_or(u16::MAX);
        let one = of_field(field, baseline, counts, limits);
        seen = Some(match (seen, one) {
            (Some(Drift::Moved(a)), Drift::Moved(b)) => {
                let farther = (b.psi_milli, b.outside_rise_ppm) > (a.psi_milli, a.outside_rise_ppm);
                Drift::Moved(if farther { b } else { a })
            }
            (Some(moved @ Drift::Moved(_)), _) | (_, moved @ Drift::Moved(_)) => moved,
            (Some(Drift::Insufficient), _) | (_, Drift::Insufficient) => Drift::Insufficient,
            (_, Drift::Still) => Drift::Still,
        });
    }
    seen.unwrap_or(Drift::Insufficient)
}

fn of_field(field: u16, baseline: &FieldBaseline, counts: &Counts, limits: &DriftLimits) -> Drift {
    let values = counts.total();
    if values < u64::from(limits.rows_min.max(1)) {
        return Drift::Insufficient;
    }
    let index = psi(baseline.counts(), counts).filter(|psi| psi.p_value <= P_MAX);
    let psi_milli = libm::round(index.map_or(0.0, |psi| psi.excess()) * 1000.0) as u32;
    let outside_rise_ppm = outside_ppm(counts).saturating_sub(outside_ppm(baseline.counts()));
    let moved = psi_milli > limits.psi_max_milli || outside_rise_ppm > limits.outside_rise_max_ppm;
    if !moved {
        return Drift::Still;
    }
    Drift::Moved(Moved {
        field,
        psi_milli,
        outside_rise_ppm,
        values: u32::try_from(values).unwrap_or(u32::MAX),
    })
}

/// Share of values outside the bins, in parts per million.
fn outside_ppm(counts: &Counts) -> u32 {
    let outside: u64 = Special::ALL
        .into_iter()
        .map(|special| u64::from(counts.special(special)))
        .sum();
    let ppm = u128::from(outside) * 1_000_000 / u128::from(counts.total().max(1));
    u32::try_from(ppm).unwrap_or(u32::MAX)
}

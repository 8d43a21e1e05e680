//! One device against its cohort, and the cohort against its baseline.
//!
//! Everything here looks at inputs under the one baseline that all devices count under, so that
//! devices of both arms can be compared.

use alloc::string::String;
use alloc::vec::Vec;

use super::arms::median;
use super::decision::{FieldFigure, Measure, Notice};
use super::policy::Limits;
use super::score::{Divergence, Scores};
use super::snapshot::DeviceView;

/// Fields that a notice names at most.
const FIELDS_NAMED_MAX: usize = 5;

/// A device that has sent enough.
#[derive(Clone, Copy)]
pub(super) struct Measured<'a> {
    pub(super) view: &'a DeviceView,
    pub(super) scores: &'a Scores,
}

/// The device with its figures, if it has sent enough for them to count.
pub(super) fn measure(view: &DeviceView, windows_min: u32, rows_min: u64) -> Option<Measured<'_>> {
    let scores = view.scores.as_ref()?;
    let enough = scores.windows >= windows_min && scores.rows >= rows_min && scores.are_finite();
    // Without counts under the common baseline a device cannot stand in either arm.
    let inputs = scores
        .inputs_reference
        .as_ref()
        .is_some_and(Divergence::is_told);
    // Rows that fail have no answers to count, and their share is a figure too.
    let outputs = scores.outputs_own.is_told() || scores.error_share > 0.0;
    (enough && inputs && outputs).then_some(Measured { view, scores })
}

/// Devices away from their cohort.
pub(super) struct Away {
    /// One for each, if single sensors can explain them.
    pub(super) notices: Vec<Notice>,
    /// How many, if there are too many for that.
    pub(super) many: Option<usize>,
}

/// Devices whose inputs, under the cohort's common baseline, are away from the others'. Nobody is,
/// if the cohort itself moved.
pub(super) fn away(
    measured: &[Measured<'_>],
    limits: &Limits,
    liars: usize,
    names: &[String],
) -> Away {
    let none = Away {
        notices: Vec::new(),
        many: None,
    };
    let ratio = |device: &Measured<'_>| {
        reference(device.scores)
            .and_then(|it| it.worst(limits))
            .map_or(0.0, |far| far.ratio)
    };
    let ratios: Vec<f64> = measured.iter().map(ratio).collect();
    let Some(middle) = median(&ratios).filter(|middle| *middle < 1.0) else {
        return none;
    };
    // With two devices the median is half of either; nobody can say which is away.
    let away: Vec<&Measured<'_>> = measured
        .iter()
        .zip(&ratios)
        .filter(|(_, ratio)| measured.len() > 2 && **ratio >= 1.0 + middle)
        .map(|(device, _)| device)
        .collect();
    if away.len() > liars + (measured.len() / 10).max(1) {
        return Away {
            many: Some(away.len()),
            ..none
        };
    }
    let notice = |device: &&Measured<'_>| {
        let far = reference(device.scores)?.worst(limits)?;
        let cohort: Vec<f64> = measured
            .iter()
            .filter_map(|other| Some(reference(other.scores)?.value(far.field, far.measure)))
            .collect();
        Some(Notice::Sensor {
            device: device.view.device.clone(),
            figure: FieldFigure {
                field: field_name(names, far.field),
                measure: far.measure,
                value: reference(device.scores)?.value(far.field, far.measure),
            },
            cohort_median: median(&cohort).unwrap_or(0.0),
        })
    };
    Away {
        notices: away.iter().filter_map(notice).collect(),
        ..none
    }
}

/// Fields whose median over these devices lies beyond the limit, most first.
pub(super) fn moved_fields(
    measured: &[Measured<'_>],
    limits: &Limits,
    names: &[String],
) -> Vec<FieldFigure> {
    let of: Vec<&Divergence> = measured
        .iter()
        .filter_map(|it| reference(it.scores))
        .collect();
    let fields = of.iter().map(|it| it.fields.len()).max().unwrap_or(0);
    let mut moved: Vec<(f64, FieldFigure)> = (0..fields)
        .filter_map(|field| {
            let (ratio, measure) = typical(&of, field, limits)?;
            let values: Vec<f64> = of.iter().map(|it| it.value(field, measure)).collect();
            let value = median(&values)?;
            let figure = FieldFigure {
                field: field_name(names, field),
                measure,
                value,
            };
            (ratio >= 1.0).then_some((ratio, figure))
        })
        .collect();
    moved.sort_by(|a, b| b.0.total_cmp(&a.0));
    moved.truncate(FIELDS_NAMED_MAX);
    moved.into_iter().map(|(_, figure)| figure).collect()
}

pub(super) fn reference(scores: &Scores) -> Option<&Divergence> {
    scores.inputs_reference.as_ref()
}

/// How far one field lies for the median device, in limits, and in which measure.
pub(super) fn typical(
    divergences: &[&Divergence],
    field: usize,
    limits: &Limits,
) -> Option<(f64, Measure)> {
    let far: Vec<_> = divergences
        .iter()
        .filter_map(|it| it.far(field, limits))
        .collect();
    let ratios: Vec<f64> = far.iter().map(|far| far.ratio).collect();
    let outside = far
        .iter()
        .filter(|far| far.measure == Measure::OutsideRise)
        .count();
    let measure = if 2 * outside > far.len() {
        Measure::OutsideRise
    } else {
        Measure::Psi
    };
    Some((median(&ratios)?, measure))
}

pub(super) fn field_name(names: &[String], field: usize) -> String {
    names
        .get(field)
        .cloned()
        .unwrap_or_else(|| alloc::format!("field {field}"))
}

//! Golden vectors: raw inputs with the outputs that they must give, from the framework that
//! trained the model, or from the model itself where nothing better is given.

use std::path::Path;

use bellwether_package::sections::{
    CASES_MAX, Contract, Golden, GoldenCase, GoldenOrigin, GoldenTensor, Port,
};
use bellwether_runtime::Tensor;

use super::sample::{self, Sample};
use crate::config;
use crate::data::{self, Array};
use crate::failure::{Failure, Result, Who};
use crate::rehearsal::Rehearsal;

/// How far the model is from what its framework answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distance {
    /// Output elements compared.
    pub(crate) elements: u64,
    /// Elements outside the tolerance.
    pub(crate) mismatches: u64,
    /// The worst element: row (from 1), output, place, expected, got, distance in tolerances.
    pub(crate) worst: Option<Worst>,
}

/// The element that is farthest away.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Worst {
    pub(crate) row: usize,
    pub(crate) port: String,
    pub(crate) element: usize,
    pub(crate) expected: f64,
    pub(crate) got: f64,
    pub(crate) tolerances: f64,
}

/// Golden vectors from rows of the sample, answered by the model itself.
///
/// # Errors
/// When the model can't be run.
pub(crate) fn self_computed(
    sample: &Sample,
    rehearsal: &mut Rehearsal,
    config: &config::Golden,
) -> Result<Golden> {
    let rows = sample.spread(config.rows.min(CASES_MAX));
    let mut cases = Vec::with_capacity(rows.len());
    for row in rows {
        let inputs = sample.tensors(row..row + 1)?;
        rehearsal.begin_anew();
        let outputs = rehearsal.run(&inputs)?;
        cases.push(case(inputs, outputs));
    }
    Ok(golden(cases, config, GoldenOrigin::SelfComputed))
}

/// Golden vectors as the framework gave them, and how far the model is from them.
///
/// # Errors
/// When an array is absent or has another shape, or the model can't be run.
pub(crate) fn from_framework(
    path: &Path,
    contract: &Contract,
    rehearsal: &mut Rehearsal,
    config: &config::Golden,
) -> Result<(Golden, Distance)> {
    let arrays = data::read_arrays(path)?;
    let mut rows = None;
    let sides = [&contract.inputs, &contract.outputs];
    for port in sides.into_iter().flatten() {
        let array = sample::find(path, &arrays, &port.name)?;
        let (found, _) = sample::rows_of(path, port, array)?;
        if *rows.get_or_insert(found) != found {
            return Err(Failure::operator(format!(
                "{}: `{}` has {found} rows, the first input has {}",
                path.display(),
                port.name,
                rows.unwrap_or(0)
            ))
            .next("give inputs and outputs of the same rows"));
        }
    }
    let rows = rows.unwrap_or(0);
    if rows > CASES_MAX {
        return Err(
            Failure::operator(format!("{} has {rows} rows", path.display())).next(format!(
                "give at most {CASES_MAX}: each of them runs at every install on every device"
            )),
        );
    }
    let mut distance = Distance {
        elements: 0,
        mismatches: 0,
        worst: None,
    };
    let mut cases = Vec::with_capacity(rows);
    for row in 0..rows {
        let side = |ports: &[Port]| -> Result<Vec<Tensor>> {
            ports
                .iter()
                .map(|port| row_tensor(path, port, &arrays, row))
                .collect()
        };
        let (inputs, expected) = (side(&contract.inputs)?, side(&contract.outputs)?);
        rehearsal.begin_anew();
        let got = rehearsal.run(&inputs)?;
        for (expected, got) in expected.iter().zip(&got) {
            compare(config, row, expected, got, &mut distance);
        }
        cases.push(case(inputs, expected));
    }
    Ok((golden(cases, config, GoldenOrigin::Framework), distance))
}

impl Distance {
    /// The refusal that a mismatch deserves.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        let worst = self.worst.as_ref().filter(|_| self.mismatches > 0)?;
        Some(
            Failure::new(
                Who::Package,
                format!(
                    "the model does not reproduce its golden outputs: {} of {} elements differ, worst in row {} of `{}`, element {}: expected {}, got {}, {:.1} tolerances apart",
                    self.mismatches,
                    self.elements,
                    worst.row,
                    worst.port,
                    worst.element,
                    worst.expected,
                    worst.got,
                    worst.tolerances
                ),
            )
            .next("the export lost something (a scaler?): export it again; --allow-mismatch packs it all the same, and says so for ever"),
        )
    }
}

fn row_tensor(path: &Path, port: &Port, arrays: &[Array], row: usize) -> Result<Tensor> {
    let array = sample::find(path, arrays, &port.name)?;
    let (_, width) = sample::rows_of(path, port, array)?;
    let values: Vec<f64> = (row * width..(row + 1) * width)
        .map(|index| array.values.number(index))
        .collect();
    sample::tensor(port, 1, &values).map_err(|problem| sample::unheld(path, port, &problem))
}

fn compare(
    config: &config::Golden,
    row: usize,
    expected: &Tensor,
    got: &Tensor,
    distance: &mut Distance,
) {
    for (element, (expected, got_value)) in expected.values().zip(got.values()).enumerate() {
        let tolerance =
            f64::from(config.tolerance_abs) + f64::from(config.tolerance_rel) * expected.abs();
        let apart = (expected - got_value).abs();
        let tolerances = if expected == got_value || expected.is_nan() && got_value.is_nan() {
            0.0
        } else if apart.is_finite() && tolerance > 0.0 {
            apart / tolerance
        } else {
            f64::INFINITY
        };
        distance.elements += 1;
        distance.mismatches += u64::from(tolerances > 1.0);
        if distance
            .worst
            .as_ref()
            .is_none_or(|worst| tolerances > worst.tolerances)
        {
            distance.worst = Some(Worst {
                row: row + 1,
                port: got.name.clone(),
                element,
                expected,
                got: got_value,
                tolerances,
            });
        }
    }
}

fn golden(cases: Vec<GoldenCase>, config: &config::Golden, origin: GoldenOrigin) -> Golden {
    Golden {
        cases,
        tolerance_abs: config.tolerance_abs,
        tolerance_rel: config.tolerance_rel,
        origin,
    }
}

fn case(inputs: Vec<Tensor>, outputs: Vec<Tensor>) -> GoldenCase {
    let tensors = |tensors: Vec<Tensor>| {
        tensors
            .into_iter()
            .map(|tensor| GoldenTensor {
                name: tensor.name,
                dtype: tensor.dtype,
                shape: tensor.shape,
                bytes: tensor.bytes,
            })
            .collect()
    };
    GoldenCase {
        inputs: tensors(inputs),
        outputs: tensors(outputs),
    }
}

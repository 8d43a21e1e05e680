//! A NaN that goes into an operator comes out of it: a device that watches a model's outputs must
//! not be told a number where there is none.
//!
//! Models and expectations come from `tests/fixtures/nan/make.py`.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

mod golden;

use std::{fs, path::PathBuf};

use bellwether_engine::model::Model;
use bellwether_package::sections::{DType, Dim};
use bellwether_wire::{ModelPorts, PortShape, Tensor};
use golden::{Case, cases};

/// Distance of what is a number from what it should be, by the greatest of its output.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F16 { 1e-2 } else { 1e-4 }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/nan")
}

fn port(tensor: &Tensor) -> PortShape {
    PortShape {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.iter().map(|dim| Dim::Fixed(*dim)).collect(),
    }
}

fn check(name: &str, case: &Case) -> Result<(), String> {
    let onnx = fs::read(folder().join(format!("{name}.onnx"))).unwrap();
    let ports = |tensors: &[Tensor]| tensors.iter().map(port).collect::<Vec<_>>();
    let ports = ModelPorts::of(ports(&case.inputs), ports(&case.outputs));
    let mut model = Model::load(&onnx, ports).map_err(|refusal| refusal.to_string())?;
    let found = model.run(&case.inputs, true);
    let found = found.map_err(|refusal| refusal.to_string())?;
    let mut pairs = found.iter().zip(&case.outputs);
    pairs.try_for_each(|(found, wanted)| compare(found, wanted))
}

fn compare(found: &Tensor, wanted: &Tensor) -> Result<(), String> {
    if found.shape != wanted.shape {
        return Err(format!(
            "of shape {:?}, not {:?}",
            found.shape, wanted.shape
        ));
    }
    let pairs: Vec<(f64, f64)> = found.values().zip(wanted.values()).collect();
    let lost = pairs
        .iter()
        .filter(|(f, w)| w.is_nan() && !f.is_nan())
        .count();
    if lost > 0 {
        let all = pairs.iter().filter(|(_, w)| w.is_nan()).count();
        return Err(format!("{}: {lost} of {all} NaN are lost", wanted.name));
    }
    let finite = pairs.iter().map(|(_, w)| w.abs()).filter(|w| w.is_finite());
    let near = finite.fold(0.0, f64::max) * tolerance(wanted.dtype);
    let far = |(f, w): &&(f64, f64)| !(w.is_nan() || f == w || (f - w).abs() <= near);
    match pairs.iter().find(far) {
        Some((found, wanted_)) => Err(format!("{}: {found}, not {wanted_}", wanted.name)),
        None => Ok(()),
    }
}

#[test]
fn nan_in_gives_nan_out_for_every_operator_and_in_company() {
    let cases = cases(&folder().join("cases.npz"));
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|(name, case)| {
            let checked = std::panic::catch_unwind(|| check(name, case));
            let checked = checked.unwrap_or_else(|_| Err("the engine panicked".to_owned()));
            Some(format!("{name}: {}", checked.err()?))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} models differ:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

//! Every model of tests/fixtures/onnx-ml against what ONNX Runtime answers.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

mod golden;

use std::path::PathBuf;

use bellwether_engine::model::Model;
use bellwether_package::sections::{DType, Dim};
use bellwether_runtime::{
    Tensor,
    wire::{ModelPorts, PortShape},
};
use golden::{Case, cases};

/// Allowed distance from ONNX Runtime, by the size of what is expected.
const RELATIVE: f64 = 1e-5;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/onnx-ml")
}

/// The port of a tensor whose first dimension is the batch, if it is `rows`.
fn port(tensor: &Tensor, rows: u32) -> PortShape {
    let batch = |(axis, dim): (usize, &u32)| match axis {
        0 if *dim == rows => Dim::Batch,
        _ => Dim::Fixed(*dim),
    };
    PortShape {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.iter().enumerate().map(batch).collect(),
    }
}

/// One row of a tensor; one that has no rows is passed on.
fn row(tensor: &Tensor, row: usize, rows: u32) -> Tensor {
    if tensor.shape.first() != Some(&rows) {
        return tensor.clone();
    }
    let width = tensor.bytes.len() / rows as usize;
    let mut shape = tensor.shape.clone();
    shape[0] = 1;
    Tensor {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape,
        bytes: tensor.bytes[row * width..][..width].to_vec(),
    }
}

fn compare(found: &Tensor, expected: &Tensor, scale: f64) -> Result<(), String> {
    let name = &expected.name;
    if (found.dtype, &found.shape) != (expected.dtype, &expected.shape) {
        return Err(format!(
            "{name}: {:?} {:?}, not {:?} {:?}",
            found.dtype, found.shape, expected.dtype, expected.shape
        ));
    }
    for (i, (found, wanted)) in found.values().zip(expected.values()).enumerate() {
        let exact = !matches!(expected.dtype, DType::F32 | DType::F64);
        let near = if exact || !wanted.is_finite() {
            found == wanted || (found.is_nan() && wanted.is_nan())
        } else {
            (found - wanted).abs() <= RELATIVE * wanted.abs().max(scale)
        };
        if !near {
            return Err(format!("{name}[{i}]: {found}, not {wanted}"));
        }
    }
    Ok(())
}

/// The size of an output's values, by which those near zero are measured.
fn scale(tensor: &Tensor) -> f64 {
    let finite = tensor.values().filter(|value| value.is_finite());
    finite.map(f64::abs).fold(0.0, f64::max)
}

fn check(name: &str, case: &Case) -> Result<(), String> {
    let onnx = std::fs::read(folder().join(format!("{name}.onnx"))).unwrap();
    // What has fewer rows than the most is not by rows.
    let rows = case
        .inputs
        .iter()
        .map(|input| input.shape[0])
        .max()
        .unwrap();
    let ports = |tensors: &[Tensor]| tensors.iter().map(|t| port(t, rows)).collect::<Vec<_>>();
    let mut model = Model::load(
        &onnx,
        ModelPorts::of(ports(&case.inputs), ports(&case.outputs)),
    )
    .map_err(|refusal| refusal.to_string())?;
    let mut run = |inputs: &[Tensor], expected: &dyn Fn(&Tensor) -> Tensor| {
        let found = model
            .run(inputs, true)
            .map_err(|refusal| refusal.to_string())?;
        for (found, whole) in found.iter().zip(&case.outputs) {
            compare(found, &expected(whole), scale(whole))?;
        }
        Ok::<_, String>(())
    };
    run(&case.inputs, &|whole| whole.clone()).map_err(|e| format!("whole batch: {e}"))?;
    for at in 0..rows as usize {
        let inputs: Vec<Tensor> = case.inputs.iter().map(|t| row(t, at, rows)).collect();
        run(&inputs, &|whole| row(whole, at, rows)).map_err(|e| format!("row {at}: {e}"))?;
    }
    Ok(())
}

#[test]
fn every_model_answers_as_onnx_runtime_does_row_by_row_and_all_at_once() {
    let cases = cases(&folder().join("golden.npz"));
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|(name, case)| Some(format!("{name}: {}", check(name, case).err()?)))
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} models differ:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

//! Quantised models against onnxruntime, on digits that nobody trained on.
//!
//! The models and what onnxruntime answers to them come from `tests/fixtures/int8/make.py`.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{fs, path::PathBuf};

use bellwether_engine::{PortFacts, inspect, inspect::DimFacts, model::Model};
use bellwether_package::sections::Dim;
use bellwether_wire::{ModelPorts, PortShape, Tensor};

const PIXELS: usize = 64;
const CLASSES: usize = 10;
/// Samples on which the most likely digit must be the same.
const TOP1_SHARE_MIN: f64 = 0.99;
/// How far an output may be off, in steps of its grid; a hundredth for the difference's own rounding.
const STEPS_MAX: f32 = 2.01;

struct Row {
    name: String,
    step: f32,
    accuracy: f64,
}

fn fixture(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/int8");
    PathBuf::from(folder).join(name)
}

fn rows() -> Vec<Row> {
    let table = fs::read_to_string(fixture("models.tsv")).unwrap();
    let row = |line: &str| {
        let mut cells = line.split('\t');
        Row {
            name: cells.next().unwrap().to_owned(),
            step: cells.next().unwrap().parse().unwrap(),
            accuracy: cells.next().unwrap().parse().unwrap(),
        }
    };
    table.lines().map(row).collect()
}

fn port(facts: &PortFacts) -> PortShape {
    let dim = |dim: &DimFacts| match dim {
        DimFacts::Fixed(size) => Dim::Fixed(*size),
        _ => Dim::Batch,
    };
    PortShape {
        name: facts.name.clone(),
        dtype: facts.dtype.unwrap(),
        shape: facts.shape.iter().flatten().map(dim).collect(),
    }
}

/// The outputs for each sample, fed one by one: a dynamic scale is that of the whole call.
fn outputs(model: &str) -> Vec<f32> {
    let onnx = fs::read(fixture(&format!("{model}.onnx"))).unwrap();
    let facts = inspect(&onnx).unwrap();
    assert!(facts.quantised, "{model}");
    let (input, output) = (port(&facts.inputs[0]), port(&facts.outputs[0]));
    let shape = input.shape.iter().map(|dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Batch => 1,
    });
    let shape: Vec<u32> = shape.collect();
    let mut loaded = Model::load(&onnx, ModelPorts::of(vec![input], vec![output])).unwrap();
    let digits = fs::read(fixture("digits.u8")).unwrap();
    let answer = |pixels: &[u8]| {
        let pixels: Vec<f32> = pixels.iter().map(|pixel| f32::from(*pixel)).collect();
        let answer = loaded.run(&[Tensor::from_f32("pixels", &shape, &pixels)], true);
        answer.unwrap()[0].to_f32().unwrap()
    };
    digits.chunks(PIXELS).flat_map(answer).collect()
}

fn expected(model: &str) -> Vec<f32> {
    let bytes = fs::read(fixture(&format!("{model}.f32"))).unwrap();
    let (values, _) = bytes.as_chunks::<4>();
    values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect()
}

fn most_likely(scores: &[f32]) -> usize {
    let greatest = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    greatest.unwrap()
}

#[test]
fn quantised_models_agree_with_onnxruntime_in_digit_and_in_steps() {
    let labels = fs::read(fixture("labels.u8")).unwrap();
    let mut failures = Vec::new();
    for row in rows() {
        let (found, expected) = (outputs(&row.name), expected(&row.name));
        assert_eq!(found.len(), expected.len());
        let pairs = found.chunks(CLASSES).zip(expected.chunks(CLASSES));
        // Where onnxruntime itself has two digits alike, either is its answer.
        let same = pairs.filter(|(found, expected)| {
            expected[most_likely(found)] == expected[most_likely(expected)]
        });
        let top1 = same.count() as f64 / labels.len() as f64;
        let right = found.chunks(CLASSES).zip(&labels);
        let right = right.filter(|(scores, label)| most_likely(scores) == usize::from(**label));
        let accuracy = right.count() as f64 / labels.len() as f64;
        let apart = found
            .iter()
            .zip(&expected)
            .map(|(f, e)| (f - e).abs() / row.step);
        let steps = apart.fold(0.0, f32::max);
        println!(
            "{}: top-1 the same on {:.1} %, at most {steps:.2} steps apart, accuracy {:.1} % (onnxruntime {:.1} %)",
            row.name,
            100.0 * top1,
            100.0 * accuracy,
            100.0 * row.accuracy,
        );
        if top1 < TOP1_SHARE_MIN || steps.is_nan() || steps > STEPS_MAX {
            failures.push(row.name);
        }
    }
    assert_eq!(failures, Vec::<String>::new());
}

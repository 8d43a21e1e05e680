//! What is rewritten before the engine builds a model.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use bellwether_engine::{inspect, model::Model};
use bellwether_package::sections::{DType, Dim};
use bellwether_wire::{ModelPorts, PortShape, Refusal, Tensor};

fn read(model: &str) -> Vec<u8> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models");
    std::fs::read(format!("{models}/{model}")).unwrap()
}

fn port(name: &str, shape: &[Dim]) -> PortShape {
    PortShape {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: shape.to_vec(),
    }
}

fn run(model: &str, inputs: &[Tensor], output: &PortShape) -> Result<Vec<f32>, Refusal> {
    let ports = inputs.iter().map(|tensor| {
        let dims = tensor.shape.iter().map(|dim| Dim::Fixed(*dim));
        port(&tensor.name, &dims.collect::<Vec<_>>())
    });
    let mut model = Model::load(
        read(model),
        ModelPorts::of(ports.collect(), vec![output.clone()]),
    )?;
    Ok(model.run(inputs, true)?[0].to_f32().unwrap())
}

#[test]
fn a_floored_quotient_of_a_number_by_itself_is_one() {
    // 41 times the nearest f32 to 1/41 is below 1.
    let numbers: Vec<f32> = (1..=64).map(|i| i as f32).collect();
    let x = Tensor::from_f32("x", &[64], &numbers);
    let y = port("y", &[Dim::Fixed(64)]);
    assert_eq!(run("floor_of_quotient.onnx", &[x], &y).unwrap(), [1.0; 64]);
}

#[test]
fn nodes_of_one_name_in_both_branches_of_a_condition_load() {
    let x = Tensor::from_f32("x", &[2], &[1.0, -2.0]);
    let y = port("y", &[Dim::Fixed(2)]);
    assert_eq!(run("twice_named.onnx", &[x], &y).unwrap(), [3.0, -6.0]);
}

#[test]
fn a_list_of_one_number_pads_as_the_number_does() {
    let x = Tensor::from_f32("x", &[2], &[1.0, 2.0]);
    let y = port("y", &[Dim::Fixed(4)]);
    let padded = run("pad_by_list.onnx", &[x], &y).unwrap();
    assert_eq!(padded, [7.0, 1.0, 2.0, 7.0]);
}

#[test]
fn the_greatest_of_no_numbers_is_refused_by_node() {
    let x = Tensor::from_f32("x", &[0], &[]);
    let refusal = run("greatest.onnx", &[x], &port("y", &[])).unwrap_err();
    let Refusal::Unsupported { node, operator, .. } = refusal else {
        panic!("{refusal}");
    };
    assert_eq!(node.as_deref(), Some("greatest"));
    assert_eq!(operator.as_deref(), Some("ReduceMax"));
}

#[test]
fn only_a_model_on_integers_is_told_to_be_quantised() {
    assert!(!inspect(&read("linear.onnx")).unwrap().quantised);
}

#[test]
fn a_run_that_fails_leaves_the_model_able_to_run() {
    let category = |category: i64| Tensor::of("category", &[1, 1], &[category]);
    let ports = ModelPorts::of(
        vec![PortShape {
            dtype: DType::I64,
            ..port("category", &[Dim::Fixed(1); 2])
        }],
        vec![port("y", &[Dim::Fixed(1), Dim::Fixed(1), Dim::Fixed(3)])],
    );
    let mut model = Model::load(read("pick.onnx"), ports).unwrap();
    let refusal = model.run(&[category(9)], true).unwrap_err();
    assert!(
        matches!(refusal, Refusal::Unsupported { .. }),
        "{refusal:?}"
    );
    let picked = model.run(&[category(7)], true).unwrap();
    assert_eq!(picked[0].to_f32().unwrap(), [0.0, 0.0, 1.0]);
}

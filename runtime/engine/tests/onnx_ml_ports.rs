//! What contracts may name of classifiers: probabilities, and labels that are numbers.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use bellwether_engine::{Refusal, inspect, inspect::DimFacts, model::Model};
use bellwether_package::sections::{DType, Dim};
use bellwether_runtime::{
    Tensor,
    wire::{ModelPorts, PortShape},
};

fn read(model: &str) -> Vec<u8> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/onnx-ml");
    std::fs::read(format!("{models}/{model}.onnx")).unwrap()
}

fn port(name: &str, dtype: DType, width: Option<u32>) -> PortShape {
    PortShape {
        name: name.to_owned(),
        dtype,
        shape: [Dim::Batch]
            .into_iter()
            .chain(width.map(Dim::Fixed))
            .collect(),
    }
}

fn x() -> PortShape {
    port("X", DType::F32, Some(5))
}

#[test]
fn a_label_that_is_text_is_refused_by_node_with_what_to_change() {
    for model in [
        "text_forest",
        "text_logistic",
        "text_svc",
        "text_nb",
        "text_mlp",
    ] {
        for dtype in [DType::I64, DType::F32] {
            let label = port("label", dtype, None);
            let refusal =
                Model::load(read(model), ModelPorts::of(vec![x()], vec![label])).unwrap_err();
            let Refusal::Unsupported { node: Some(_), .. } = &refusal else {
                panic!("{model}: {refusal}");
            };
            let message = refusal.to_string();
            assert!(message.contains("`label` is text"), "{model}: {message}");
            assert!(message.contains("whole numbers"), "{model}: {message}");
        }
    }
}

#[test]
fn a_map_of_classes_is_told_and_run_as_the_matrix_it_is_made_from() {
    let onnx = read("zipmap_many");
    let facts = inspect(&onnx).unwrap();
    let map = &facts.outputs[1];
    assert_eq!(map.dtype, Some(DType::F32));
    let shape = vec![DimFacts::Unknown, DimFacts::Fixed(4)];
    assert_eq!(map.shape, Some(shape));
    let out = port(&map.name, DType::F32, Some(4));
    let mut model = Model::load(&onnx, ModelPorts::of(vec![x()], vec![out])).unwrap();
    let found = model
        .run(&[Tensor::from_f32("X", &[2, 5], &[0.0; 10])], true)
        .unwrap();
    assert_eq!(found[0].shape, [2, 4]);
    for row in found[0].to_f32().unwrap().chunks(4) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
    }
}

#[test]
fn what_one_run_has_seen_the_next_does_not() {
    // Distances are computed in a loop, which the engine would go on with.
    let score = port("variable", DType::F32, Some(1));
    let mut model =
        Model::load(read("knn_reg_one"), ModelPorts::of(vec![x()], vec![score])).unwrap();
    let mut run = |value: f32| {
        let rows = Tensor::from_f32("X", &[1, 5], &[value; 5]);
        model.run(&[rows], true).unwrap()
    };
    let first = run(0.5);
    let other = run(-2.0);
    assert_ne!(first, other);
    assert_eq!(run(0.5), first);
}

//! What `pack` learns of a model.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use bellwether_engine::{PortFacts, Refusal, inspect, inspect::DimFacts};
use bellwether_package::sections::DType;

fn read(model: &str) -> Vec<u8> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models");
    std::fs::read(format!("{models}/{model}")).unwrap()
}

#[test]
fn ports_operators_opsets_and_weights_are_told() {
    let facts = inspect(&read("linear.onnx")).unwrap();
    let port = |name: &str, width| PortFacts {
        name: name.to_owned(),
        dtype: Some(DType::F32),
        shape: Some(vec![
            DimFacts::Named("batch".to_owned()),
            DimFacts::Fixed(width),
        ]),
    };
    assert_eq!(facts.inputs, [port("readings", 3)]);
    assert_eq!(facts.outputs, [port("scores", 2)]);
    assert_eq!(facts.opset_imports, [(String::new(), 17)]);
    assert_eq!(facts.operators, ["Gemm"]);
    assert_eq!(facts.initializer_bytes, 8 * 4);
    assert_eq!(facts.nodes, 1);
}

#[test]
fn what_the_engine_could_not_run_is_refused_before_it_is_packed() {
    let refused = |model: &str| inspect(&read(model)).unwrap_err();
    assert!(matches!(
        refused("unknown_operator.onnx"),
        Refusal::OperatorUnknown { .. }
    ));
    assert!(matches!(
        refused("external_data.onnx"),
        Refusal::ExternalData { .. }
    ));
}

#[test]
fn what_is_no_model_is_malformed() {
    for bytes in [&b""[..], b"not a model", &[0xff; 64]] {
        assert!(
            matches!(inspect(bytes), Err(Refusal::Malformed { .. })),
            "{bytes:?}"
        );
    }
}

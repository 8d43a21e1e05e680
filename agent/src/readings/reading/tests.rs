use bellwether_package::sections::{DType, Field, FieldKind, MissingRule};
use serde_json::json;

use super::*;

fn field(name: &str) -> Field {
    Field {
        name: name.into(),
        unit: String::new(),
        range: None,
        missing: MissingRule::Allow,
        export: false,
        kind: FieldKind::Numeric,
        source: String::new(),
    }
}

fn port(name: &str, dtype: DType, shape: &[Dim], fields: &[&str]) -> Port {
    Port {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
        fields: fields.iter().map(|name| field(name)).collect(),
    }
}

fn contract() -> Contract {
    Contract {
        inputs: vec![
            port(
                "x",
                DType::F32,
                &[Dim::Batch, Dim::Fixed(3)],
                &["V1", "a/b", "t"],
            ),
            port("mode", DType::I64, &[Dim::Batch], &["mode"]),
        ],
        ..Contract::default()
    }
}

fn readings(more: &str) -> Readings {
    let least = "slot = \"a\"\nbroker = \"b:1\"\ntopic = \"in\"\nanswers = \"out\"\n";
    toml::from_str(&format!("{least}{more}")).unwrap()
}

fn take(reading: Value, more: &str) -> Result<Vec<Tensor>, String> {
    tensors(&reading, &contract(), &readings(more))
        .map_err(|error| crate::causes::with_causes(&error))
}

#[test]
fn values_are_found_by_the_names_of_the_fields_and_null_is_missing() {
    let tensors = take(
        json!({"V1": 1.5, "a/b": null, "t": 3, "mode": 7, "more": "x"}),
        "",
    )
    .unwrap();
    assert_eq!(
        (tensors[0].name.as_str(), &tensors[0].shape),
        ("x", &vec![1, 3])
    );
    let row = tensors[0].to_vec::<f32>().unwrap();
    assert!(row[0] == 1.5 && row[1].is_nan() && row[2] == 3.0, "{row:?}");
    assert_eq!(tensors[1].to_vec::<i64>().unwrap(), [7]);
    assert_eq!(tensors[1].shape, [1]);
}

#[test]
fn places_may_be_given_for_fields_and_for_whole_inputs() {
    let more = "inputs = { x = \"/window\" }\nfields = { mode = \"/head/0/mode\" }";
    let tensors = take(json!({"window": [[1, 2], 3], "head": [{"mode": 2}]}), more).unwrap();
    assert_eq!(tensors[0].to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(tensors[1].to_vec::<i64>().unwrap(), [2]);
}

#[test]
fn what_is_wrong_with_a_reading_is_said_by_its_place() {
    let refused = |reading, more: &str| take(reading, more).unwrap_err();
    let error = refused(json!({"V1": 1, "t": 2, "mode": 0}), "");
    assert_eq!(
        error,
        "the reading has no value at /a~1b, where a/b is looked for"
    );
    let error = refused(json!({"V1": [1], "a/b": 0, "t": 0, "mode": 0}), "");
    assert_eq!(
        error,
        "the reading has no single value at /V1, where V1 is looked for"
    );
    let error = refused(json!({"V1": "warm", "a/b": 0, "t": 0, "mode": 0}), "");
    assert_eq!(error, "input x: element 0 is no FP32");
    let error = refused(json!({"V1": 1, "a/b": 0, "t": 0, "mode": 0.5}), "");
    assert_eq!(error, "input mode: element 0 is no INT64");
    let error = refused(json!({"w": [1, 2], "mode": 0}), "inputs = { x = \"/w\" }");
    assert!(
        error.starts_with("input x: its data do not fill its shape"),
        "{error}"
    );
    assert!(refused(json!([1, 2]), "").contains("no value at /V1"));
}

#[test]
fn an_input_of_more_values_than_fields_needs_its_place() {
    let window = [Dim::Batch, Dim::Fixed(16), Dim::Fixed(2)];
    let contract = Contract {
        inputs: vec![port("w", DType::F32, &window, &["a", "b"])],
        ..Contract::default()
    };
    let error = tensors(&json!({"a": 1, "b": 2}), &contract, &readings("")).unwrap_err();
    assert!(error.to_string().contains("[readings.inputs]"), "{error}");
    let values: Vec<u32> = (0..32).collect();
    let more = readings("inputs = { w = \"/w\" }");
    let taken = tensors(&json!({ "w": values }), &contract, &more).unwrap();
    assert_eq!(taken[0].shape, [1, 16, 2]);
}

#[test]
fn bytes_that_are_no_json_are_refused_and_pythons_nan_is_taken() {
    assert!(matches!(parse(b"{\"a\": "), Err(ReadingError::Json(_))));
    assert!(parse(b"").is_err() && parse(&[0xff, 0xfe]).is_err());
    assert!(
        parse("[".repeat(100_000).as_bytes()).is_err(),
        "depth is bounded"
    );
    assert_eq!(parse(b"{\"a\": NaN}").unwrap(), json!({"a": null}));
}

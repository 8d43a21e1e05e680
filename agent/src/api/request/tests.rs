use bellwether_package::sections::{Contract, DType, Dim, Port};
use bellwether_runtime::Tensor;
use serde_json::{Value, json};

use super::{HEADER_LENGTH, ID_BYTES_MAX, Request, RequestError, read, without_nan};

fn contract(ports: &[(DType, &[Dim])]) -> Contract {
    let port = |(i, (dtype, shape)): (usize, &(DType, &[Dim]))| Port {
        name: format!("x{i}"),
        dtype: *dtype,
        shape: shape.to_vec(),
        fields: Vec::new(),
    };
    Contract {
        inputs: ports.iter().enumerate().map(port).collect(),
        outputs: Vec::new(),
        steps: Vec::new(),
        states: Vec::new(),
        constants: Vec::new(),
    }
}

fn read_json(text: &str) -> Result<Request, RequestError> {
    read(text.as_bytes(), None, &contract(&[]))
}

fn one(shape: &[u32], datatype: &str, data: Value) -> Result<Tensor, RequestError> {
    let input = json!({"name": "x", "shape": shape, "datatype": datatype, "data": data});
    let body = json!({"inputs": [input]}).to_string();
    read_json(&body).map(|request| request.inputs.into_iter().next().unwrap())
}

/// A body of JSON and binary data, with the length of the JSON.
fn with_binary(json: &Value, binary: &[u8]) -> (Vec<u8>, String) {
    let json = json.to_string().into_bytes();
    let length = json.len().to_string();
    ([json.as_slice(), binary].concat(), length)
}

#[test]
fn nested_and_flat_data_are_the_same_tensor() {
    let flat = one(&[2, 2], "FP32", json!([1, 2, 3, 4.5])).unwrap();
    let nested = one(&[2, 2], "FP32", json!([[1, 2], [3, 4.5]])).unwrap();
    assert_eq!(flat, nested);
    assert_eq!(flat.to_f32().unwrap(), [1.0, 2.0, 3.0, 4.5]);
}

#[test]
fn null_and_the_nan_of_python_are_missing_readings() {
    let body = r#"{"id":"a NaN","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32",
        "data":[null,NaN,1.5]}]}"#;
    let request = read_json(body).unwrap();
    let values = request.inputs[0].to_f32().unwrap();
    assert!(values[0].is_nan() && values[1].is_nan());
    assert_eq!((values[2], request.id.as_deref()), (1.5, Some("a NaN")));
    let quoted = br#"["\"NaN", NaN]"#;
    assert_eq!(without_nan(quoted).as_ref(), br#"["\"NaN", null]"#);
    assert_eq!(without_nan(b"[\"NaN\\").as_ref(), b"[\"NaN\\");
}

#[test]
fn whole_numbers_keep_every_digit_and_stay_within_their_type() {
    let i64s = one(&[2], "INT64", json!([i64::MIN, i64::MAX])).unwrap();
    assert_eq!(i64s.to_vec::<i64>().unwrap(), [i64::MIN, i64::MAX]);
    let u64s = one(&[1], "UINT64", json!([u64::MAX])).unwrap();
    assert_eq!(u64s.to_vec::<u64>().unwrap(), [u64::MAX]);
    for (datatype, value) in [
        ("UINT8", json!(256)),
        ("UINT8", json!(-1)),
        ("INT8", json!(128)),
        ("INT32", json!(1.5)),
        ("INT64", json!(u64::MAX)),
        ("INT64", json!(null)),
        ("BOOL", json!(1)),
        ("FP32", json!("1")),
        ("FP32", json!(true)),
        ("FP32", json!({})),
    ] {
        let read = one(&[1], datatype, json!([value]));
        let element = matches!(read, Err(RequestError::Element { index: 0, .. }));
        assert!(element, "{datatype} {value}: {read:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_kind() {
    let few = one(&[2], "FP32", json!([1]));
    assert!(matches!(few, Err(RequestError::Length { .. })), "{few:?}");
    let many = one(&[1], "FP32", json!([1, 2, 3]));
    assert!(matches!(many, Err(RequestError::Length { .. })), "{many:?}");
    let huge = one(&[4096; 8], "FP32", json!([1]));
    assert!(matches!(huge, Err(RequestError::Length { .. })), "{huge:?}");
    let text = one(&[1], "BYTES", json!(["a"]));
    assert!(
        matches!(text, Err(RequestError::Datatype { .. })),
        "{text:?}"
    );
    let rows = one(&[4097], "FP32", json!([1]));
    assert!(matches!(rows, Err(RequestError::Shape { .. })), "{rows:?}");
    let deep = one(&[1; 9], "FP32", json!([1]));
    assert!(matches!(deep, Err(RequestError::Shape { .. })), "{deep:?}");
    let id = json!({"id": "a".repeat(ID_BYTES_MAX + 1), "inputs": [
        {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]});
    let id = read_json(&id.to_string());
    assert!(matches!(id, Err(RequestError::Id)), "{id:?}");
    let none = read_json(r#"{"inputs":[]}"#);
    assert!(matches!(none, Err(RequestError::Tensors)), "{none:?}");
    for text in ["", "{", "[]", r#"{"inputs":1}"#, "NaN"] {
        let read = read_json(text);
        assert!(matches!(read, Err(RequestError::Json(_))), "{text}");
    }
}

#[test]
fn binary_data_are_taken_in_the_order_of_the_inputs() {
    let json = json!({"inputs": [
        {"name": "a", "shape": [2], "datatype": "UINT16", "parameters": {"binary_data_size": 4}},
        {"name": "b", "shape": [1], "datatype": "FP32", "data": [1.5]},
        {"name": "c", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}},
    ], "parameters": {"binary_data_output": true, "priority": 3},
       "outputs": [{"name": "y", "parameters": {"binary_data": false}}, {"name": "z"}]});
    let (body, length) = with_binary(&json, &[1, 0, 2, 0, 1, 0]);
    let request = read(&body, Some(&length), &contract(&[])).unwrap();
    assert_eq!(request.inputs[0].to_vec::<u16>().unwrap(), [1, 2]);
    assert_eq!(request.inputs[1].to_f32().unwrap(), [1.5]);
    assert_eq!(request.inputs[2].bytes, [1, 0]);
    assert!(request.binary);
    let outputs = vec![("y".into(), Some(false)), ("z".into(), None)];
    assert_eq!(request.outputs, Some(outputs));
}

#[test]
fn binary_data_that_do_not_fit_what_is_told_are_refused() {
    let input = |size: u64, shape: u32| {
        json!({"inputs": [{"name": "a", "shape": [shape], "datatype": "FP32",
            "parameters": {"binary_data_size": size}}]})
    };
    let read_binary = |json: &Value, binary: &[u8]| {
        let (body, length) = with_binary(json, binary);
        read(&body, Some(&length), &contract(&[]))
    };
    for (size, found) in [(8, 4), (4, 8), (4, 0), (u64::MAX, 4)] {
        let read = read_binary(&input(size, 1), &vec![0; found]);
        assert!(
            matches!(read, Err(RequestError::Binary { .. })),
            "{size} {found}"
        );
    }
    let read = read_binary(&input(4, 2), &[0; 4]);
    assert!(matches!(
        read,
        Err(RequestError::Length { expected: 2, .. })
    ));
    let bools = json!({"inputs": [{"name": "a", "shape": [1], "datatype": "BOOL",
        "parameters": {"binary_data_size": 1}}]});
    let read = read_binary(&bools, &[2]);
    assert!(matches!(read, Err(RequestError::Element { .. })));
    let both = json!({"inputs": [{"name": "a", "shape": [1], "datatype": "UINT8", "data": [1],
        "parameters": {"binary_data_size": 1}}]});
    assert!(matches!(
        read_binary(&both, &[2]),
        Err(RequestError::Data { .. })
    ));
}

#[test]
fn a_header_length_beyond_the_body_is_refused() {
    for length in ["3", "-1", "x", "99999999999999999999"] {
        let read = read(b"{}", Some(length), &contract(&[]));
        let error = read.unwrap_err();
        assert!(
            matches!(error, RequestError::HeaderLength { body: 2 }),
            "{length}"
        );
        assert!(error.to_string().contains(HEADER_LENGTH));
    }
}

#[test]
fn a_body_of_binary_data_alone_is_the_one_input() {
    let rows = contract(&[(DType::F32, &[Dim::Batch, Dim::Fixed(2)])]);
    let request = read(&[0; 24], Some("0"), &rows).unwrap();
    assert_eq!(request.inputs[0].shape, [3, 2]);
    assert!(request.binary);
    let partial = read(&[0; 20], Some("0"), &rows);
    assert!(matches!(partial, Err(RequestError::Raw)), "{partial:?}");
    let whole = contract(&[(DType::U8, &[Dim::Fixed(3)])]);
    let request = read(&[1, 2, 3], Some("0"), &whole).unwrap();
    assert_eq!(request.inputs[0].bytes, [1, 2, 3]);
    let two = contract(&[(DType::U8, &[]), (DType::U8, &[])]);
    assert!(matches!(
        read(&[1], Some("0"), &two),
        Err(RequestError::Raw)
    ));
    let nothing = contract(&[(DType::F32, &[Dim::Batch, Dim::Fixed(0)])]);
    assert!(matches!(
        read(&[1], Some("0"), &nothing),
        Err(RequestError::Raw)
    ));
}

#[test]
fn what_the_agent_does_not_have_is_refused_instead_of_ignored() {
    let shared = json!({"inputs": [{"name": "a", "shape": [1], "datatype": "UINT8",
        "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 1}}]});
    let classes = json!({"inputs": [{"name": "a", "shape": [1], "datatype": "UINT8", "data": [1]}],
        "outputs": [{"name": "y", "parameters": {"classification": 2}}]});
    for body in [shared, classes] {
        let read = read_json(&body.to_string());
        assert!(
            matches!(read, Err(RequestError::Unsupported { .. })),
            "{body}"
        );
    }
}

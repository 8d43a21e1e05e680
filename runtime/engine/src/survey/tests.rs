use proptest::prelude::*;

use super::*;

/// A field that holds bytes: text, a message, packed numbers.
fn bytes(tag: u32, value: &[u8]) -> Vec<u8> {
    let mut out = number_bytes(u64::from(tag << 3 | 2));
    out.extend(number_bytes(value.len() as u64));
    out.extend_from_slice(value);
    out
}

fn number(tag: u32, value: i64) -> Vec<u8> {
    let mut out = number_bytes(u64::from(tag << 3));
    out.extend(number_bytes(value.cast_unsigned()));
    out
}

fn number_bytes(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn tensor(name: &str, data_type: i64, dims: &[i64], data: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = dims.iter().flat_map(|dim| number(1, *dim)).collect();
    out.extend(number(2, data_type));
    out.extend(bytes(8, name.as_bytes()));
    out.extend_from_slice(data);
    out
}

fn raw(length: usize) -> Vec<u8> {
    bytes(9, &vec![0; length])
}

/// A model whose graph has these fields.
fn model(graph: &[Vec<u8>]) -> Vec<u8> {
    bytes(7, &graph.concat())
}

fn initialiser(tensor: &[u8]) -> Vec<u8> {
    model(&[bytes(5, tensor)])
}

fn message(onnx: &[u8]) -> String {
    survey(onnx).unwrap_err().to_string()
}

const FLOAT: i64 = 1;
const INT64: i64 = 7;

#[test]
fn a_tensor_that_holds_what_it_says_passes() {
    for data in [
        raw(24),
        bytes(4, &[0; 24]),
        // Floats one by one, as the standard allows.
        (0..6).flat_map(|_| [4 << 3 | 5, 0, 0, 0, 0]).collect(),
    ] {
        assert_eq!(
            survey(&initialiser(&tensor("W", FLOAT, &[2, 3], &data))),
            Ok(())
        );
    }
    let packed = bytes(1, &[2, 3]);
    let whole = [
        packed,
        number(2, INT64),
        bytes(7, &[0, 0, 0, 0xff, 1, 0, 0]),
    ]
    .concat();
    assert_eq!(survey(&initialiser(&whole)), Ok(()));
    assert_eq!(
        survey(&initialiser(&tensor("W", FLOAT, &[0, 3], &[]))),
        Ok(())
    );
    assert_eq!(
        survey(&initialiser(&tensor("W", FLOAT, &[], &raw(4)))),
        Ok(())
    );
}

#[test]
fn a_tensor_that_lies_about_its_size_is_refused_by_name() {
    for (dims, data) in [
        (&[2, 3][..], raw(20)),
        (&[2, 3], raw(28)),
        (&[2, 3], vec![]),
        (&[1 << 20, 1 << 10], raw(4)),
        (&[-1, 3], raw(12)),
        (&[2], [raw(8), bytes(4, &[0; 8])].concat()),
    ] {
        let message = message(&initialiser(&tensor("W", FLOAT, dims, &data)));
        assert!(message.contains("tensor `W`"), "{message}");
    }
}

#[test]
fn dimensions_that_overflow_are_refused_even_beside_a_zero() {
    for dims in [&[1 << 40, 1 << 40][..], &[0, i64::MAX, i64::MAX], &[1; 9]] {
        let refusal = survey(&initialiser(&tensor("W", FLOAT, dims, &raw(4)))).unwrap_err();
        assert!(matches!(refusal, Refusal::Excess { .. }), "{refusal}");
    }
}

#[test]
fn shapes_of_values_are_bounded_as_those_of_tensors() {
    let value = |sizes: &[i64]| {
        let dims: Vec<_> = sizes
            .iter()
            .map(|size| bytes(1, &number(1, *size)))
            .collect();
        let shape = bytes(2, &dims.concat());
        let kind = bytes(2, &bytes(1, &[number(1, FLOAT), shape].concat()));
        model(&[bytes(11, &[bytes(1, b"x"), kind].concat())])
    };
    assert_eq!(
        survey(&value(&[-1, 3, 224, 224])),
        Ok(()),
        "an open dimension"
    );
    assert!(message(&value(&[1 << 31, 4])).contains("value `x`"));
    assert!(message(&value(&[1; 9])).contains("9 dimensions"));
}

#[test]
fn what_is_not_in_the_file_or_not_dense_is_refused() {
    let outside = tensor("W", FLOAT, &[1], &number(14, 1));
    assert!(matches!(
        survey(&initialiser(&outside)),
        Err(Refusal::ExternalData { tensor }) if tensor == "W"
    ));
    assert!(message(&model(&[bytes(15, &[])])).contains("dense"));
    assert!(message(&bytes(20, &[])).contains("inference"));
    let half = tensor("W", 16, &[1], &raw(2));
    assert!(message(&initialiser(&half)).contains("bfloat16"));
}

#[test]
fn graphs_within_graphs_are_counted_and_bounded() {
    let nested = |levels: usize| {
        (0..levels).fold(bytes(2, b"innermost"), |inner, _| {
            bytes(1, &bytes(5, &bytes(6, &inner)))
        })
    };
    assert_eq!(survey(&bytes(7, &nested(SUBGRAPH_DEPTH_MAX))), Ok(()));
    for levels in [SUBGRAPH_DEPTH_MAX + 1, 1000] {
        let message = message(&bytes(7, &nested(levels)));
        assert!(message.contains("graphs within graphs"), "{message}");
    }
}

#[test]
fn a_graph_in_two_parts_is_refused() {
    // The parser would merge them: dimensions here, data there.
    let halves = [model(&[]), model(&[])].concat();
    assert!(message(&halves).contains("twice"));
}

#[test]
fn counts_and_names_are_bounded() {
    let node = bytes(1, &bytes(3, b"n"));
    let many = model(&vec![node; NODES_MAX as usize + 1]);
    assert!(message(&many).contains("100001 nodes"));
    let name = model(&[bytes(1, &bytes(3, &[b'n'; NAME_BYTES_MAX + 1]))]);
    assert!(message(&name).contains("bytes in a name"));
    let dim = bytes(1, &bytes(2, &[b'('; FORMULA_BYTES_MAX + 1]));
    let value = bytes(2, &bytes(1, &bytes(2, &dim)));
    assert!(message(&model(&[bytes(11, &value)])).contains("bytes in a dimension"));
}

#[test]
fn a_constant_is_named_by_its_attribute_and_node() {
    let value = bytes(5, &tensor("", FLOAT, &[5], &raw(4)));
    let attribute = bytes(5, &[bytes(1, b"value"), value].concat());
    let node = bytes(
        1,
        &[bytes(2, b"out"), bytes(3, b"fill"), attribute].concat(),
    );
    let message = message(&model(&[node]));
    assert!(
        message.contains("attribute `value` of node `fill`"),
        "{message}"
    );
}

#[test]
fn lengths_that_lead_out_of_their_message_are_refused() {
    for bytes in [
        &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
        &[0x3a, 0x02, 0x0a, 0x05, 0, 0, 0, 0],
        &[0x3b],
        &[0xff; 11],
        &[0x00],
    ] {
        assert!(
            matches!(survey(bytes), Err(Refusal::Malformed { .. })),
            "{bytes:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = survey(&bytes);
    }

    #[test]
    fn no_change_of_one_byte_makes_it_panic(at in 0..80_usize, byte: u8) {
        let mut onnx = model(&[
            bytes(1, &[bytes(3, b"n"), bytes(5, &bytes(6, &bytes(5, &tensor("t", FLOAT, &[1], &raw(4)))))].concat()),
            bytes(5, &tensor("W", INT64, &[2], &raw(16))),
        ]);
        let at = at % onnx.len();
        onnx[at] = byte;
        let _ = survey(&onnx);
    }
}

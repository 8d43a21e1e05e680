use tract_onnx::pb::{AttributeProto, attribute_proto::AttributeType};

use super::{
    attributes::AttributeError,
    columns::{Imputer, Scaler},
    encode::{CategoryMapper, LabelEncoder, OneHotEncoder},
    ensemble::TreeError,
    gather::FeatureVectorizer,
    linear::{LinearClassifier, LinearRegressor},
    svm::{SvmClassifier, SvmRegressor},
    trees::TreeOp,
    *,
};

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Floats as i32,
        floats: values.to_vec(),
        ..AttributeProto::default()
    }
}

fn strings(name: &str, values: &[&str]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Strings as i32,
        strings: values.iter().map(|v| v.as_bytes().to_vec()).collect(),
        ..AttributeProto::default()
    }
}

fn node(attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: vec!["x".to_owned()],
        attribute: attributes,
        ..NodeProto::default()
    }
}

/// One tree of one question, for one target.
fn tree() -> Vec<AttributeProto> {
    vec![
        ints("nodes_treeids", &[0, 0, 0]),
        ints("nodes_nodeids", &[0, 1, 2]),
        ints("nodes_featureids", &[0, 0, 0]),
        floats("nodes_values", &[0.5, 0.0, 0.0]),
        strings("nodes_modes", &["BRANCH_LEQ", "LEAF", "LEAF"]),
        ints("nodes_truenodeids", &[1, 0, 0]),
        ints("nodes_falsenodeids", &[2, 0, 0]),
        ints("target_treeids", &[0, 0]),
        ints("target_nodeids", &[1, 2]),
        ints("target_ids", &[0, 0]),
        floats("target_weights", &[1.0, 2.0]),
        int("n_targets", 1),
    ]
}

/// The error of the tree with one attribute put in another's place.
fn refused(other: AttributeProto) -> AttributeError {
    let mut attributes = tree();
    attributes.retain(|attribute| attribute.name != other.name);
    attributes.push(other);
    TreeOp::parse_regressor(&node(attributes)).unwrap_err()
}

#[test]
fn a_tree_as_it_should_be_is_read() {
    assert!(TreeOp::parse_regressor(&node(tree())).is_ok());
}

#[test]
fn attributes_of_trees_that_do_not_fit_each_other_are_named() {
    for (other, named) in [
        (ints("nodes_nodeids", &[0, 1]), "nodes_nodeids"),
        (ints("nodes_featureids", &[0]), "nodes_featureids"),
        (floats("nodes_values", &[0.5]), "nodes_values"),
        (strings("nodes_modes", &["LEAF"]), "nodes_modes"),
        (ints("nodes_truenodeids", &[]), "nodes_truenodeids"),
        (ints("target_ids", &[0]), "target_treeids"),
        (ints("target_nodeids", &[1, 9]), "target_nodeids"),
        (floats("target_weights", &[1.0]), "target_weights"),
        (
            ints("nodes_missing_value_tracks_true", &[1]),
            "nodes_missing_value_tracks_true",
        ),
        (floats("base_values", &[1.0, 2.0]), "base_values"),
        (int("n_targets", 0), "n_targets"),
        (int("n_targets", i64::MAX), "n_targets"),
        (int("nodes_values", 1), "nodes_values"),
        (
            strings("nodes_modes", &["BRANCH", "LEAF", "LEAF"]),
            "nodes_modes",
        ),
        (ints("nodes_nodeids", &[0, 1, 1]), "nodes_nodeids"),
        (ints("nodes_featureids", &[-1, 0, 0]), "nodes_featureids"),
        (
            ints("nodes_truenodeids", &[i64::MIN, 0, 0]),
            "nodes_truenodeids",
        ),
        (ints("target_ids", &[0, -1]), "target_ids"),
    ] {
        let error = refused(other.clone());
        assert!(
            error.to_string().contains(&format!("`{named}`")),
            "{other:?}: {error}"
        );
    }
}

#[test]
fn nodes_that_make_no_tree_are_refused() {
    let trees = |other| match refused(other) {
        AttributeError::Trees(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(
        trees(ints("nodes_truenodeids", &[0, 0, 0])),
        TreeError::ReachedTwice { node: 0 }
    );
    assert_eq!(
        trees(ints("nodes_truenodeids", &[2, 0, 0])),
        TreeError::ReachedTwice { node: 2 }
    );
    assert_eq!(
        trees(floats("nodes_values", &[f32::NAN, 0.0, 0.0])),
        TreeError::SplitNan { node: 0 }
    );
    assert!(matches!(
        trees(ints("target_ids", &[0, 1])),
        TreeError::Unknown { found: 1, .. }
    ));
    assert!(matches!(
        trees(ints("nodes_featureids", &[i64::MAX, 0, 0])),
        TreeError::TooMany { .. }
    ));
}

#[test]
fn sizes_of_linear_models_are_held_against_each_other() {
    let classifier = |coefficients: usize, intercepts: usize, classes: &[i64]| {
        LinearClassifier::parse(&node(vec![
            floats("coefficients", &vec![1.0; coefficients]),
            floats("intercepts", &vec![1.0; intercepts]),
            ints("classlabels_ints", classes),
        ]))
    };
    assert!(classifier(6, 3, &[1, 2, 3]).is_ok());
    assert!(classifier(6, 1, &[1, 2]).is_ok());
    assert!(classifier(7, 3, &[1, 2, 3]).is_err());
    assert!(classifier(6, 3, &[1, 2]).is_err());
    assert!(classifier(0, 3, &[1, 2, 3]).is_err());
    assert!(classifier(6, 0, &[]).is_err());
    let regressor = |targets| {
        let coefficients = floats("coefficients", &[1.0; 6]);
        LinearRegressor::parse(&node(vec![coefficients, int("targets", targets)]))
    };
    assert!(regressor(2).is_ok());
    for targets in [0, -1, 4, i64::MAX] {
        assert!(regressor(targets).is_err(), "{targets}");
    }
}

#[test]
fn sizes_of_vector_machines_are_held_against_each_other() {
    let classifier = |per_class: &[i64], coefficients: usize, rho: usize| {
        SvmClassifier::parse(&node(vec![
            ints("classlabels_ints", &[1, 2, 3]),
            ints("vectors_per_class", per_class),
            floats("support_vectors", &[1.0; 8]),
            floats("coefficients", &vec![1.0; coefficients]),
            floats("rho", &vec![1.0; rho]),
        ]))
    };
    assert!(classifier(&[2, 1, 1], 8, 3).is_ok());
    assert!(classifier(&[2, 1], 8, 3).is_err());
    assert!(classifier(&[2, 1, 2], 8, 3).is_err());
    assert!(classifier(&[i64::MAX, 1, 1], 8, 3).is_err());
    assert!(classifier(&[2, -1, 1], 8, 3).is_err());
    assert!(classifier(&[2, 1, 1], 7, 3).is_err());
    assert!(classifier(&[2, 1, 1], 8, 2).is_err());
    let regressor = |count| {
        SvmRegressor::parse(&node(vec![
            int("n_supports", count),
            floats("support_vectors", &[1.0; 8]),
            floats("coefficients", &[1.0; 4]),
            floats("rho", &[1.0]),
        ]))
    };
    assert!(regressor(4).is_ok());
    for count in [-1, 3, 2, i64::MAX] {
        assert!(regressor(count).is_err(), "{count}");
    }
}

#[test]
fn text_is_refused_with_what_to_do() {
    let texts = strings("keys_strings", &["a"]);
    let encoder = LabelEncoder::parse(&node(vec![texts, ints("values_int64s", &[1])]));
    assert!(matches!(encoder, Err(AttributeError::Text)));
    let one_hot = OneHotEncoder::parse(&node(vec![strings("cats_strings", &["a"])]));
    assert!(matches!(one_hot, Err(AttributeError::Text)));
    let mapper = CategoryMapper::parse(&node(vec![]));
    assert!(
        mapper
            .unwrap_err()
            .to_string()
            .contains("encode it before the model")
    );
}

#[test]
fn widths_and_lists_that_make_no_sense_are_refused() {
    let vectorizer =
        |widths: &[i64]| FeatureVectorizer::parse(&node(vec![ints("inputdimensions", widths)]));
    assert!(vectorizer(&[3]).is_ok());
    for widths in [&[-1][..], &[i64::MAX], &[1, 1], &[]] {
        assert!(vectorizer(widths).is_err(), "{widths:?}");
    }
    assert!(Imputer::parse(&node(vec![])).is_err());
    assert!(Scaler::parse(&node(vec![floats("scale", &[])])).is_err());
    let encoder = |values: &[i64]| {
        LabelEncoder::parse(&node(vec![
            ints("keys_int64s", &[1, 2]),
            ints("values_int64s", values),
        ]))
    };
    assert!(encoder(&[5, 6]).is_ok());
    assert!(encoder(&[5]).is_err());
}

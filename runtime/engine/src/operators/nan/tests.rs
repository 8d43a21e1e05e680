//! No operator is forgotten.

use std::collections::BTreeSet;

/// Operators without a model in `tests/fixtures/nan`, by the reason why.
const EXCUSED: [(&str, &[&str]); 7] = [
    (
        "it counts, compares or decides, and answers in integers, truths or ones and zeros",
        &[
            "And",
            "ArgMax",
            "ArgMin",
            "Binarizer",
            "Equal",
            "GreaterOrEqual",
            "Hardmax",
            "IsInf",
            "IsNaN",
            "Less",
            "LessOrEqual",
            "NonMaxSuppression",
            "NonZero",
            "Not",
            "Or",
            "Shape",
            "Size",
            "Xor",
        ],
    ),
    (
        "what it computes with is integers, truths or constants",
        &[
            "BitShift",
            "BitwiseAnd",
            "BitwiseNot",
            "BitwiseOr",
            "BitwiseXor",
            "BlackmanWindow",
            "Constant",
            "ConstantLike",
            "ConstantOfShape",
            "ConvInteger",
            "EyeLike",
            "GatherBlockQuantized",
            "HammingWindow",
            "HannWindow",
            "MelWeightMatrix",
            "OneHot",
            "QLinearConv",
            "QLinearMatMul",
            "Range",
        ],
    ),
    (
        "it takes NaN for a missing value, and answers for one",
        &[
            "Imputer",
            "TreeEnsemble",
            "TreeEnsembleClassifier",
            "TreeEnsembleRegressor",
        ],
    ),
    (
        "it looks up what it was told beforehand",
        &["CategoryMapper", "LabelEncoder", "OneHotEncoder"],
    ),
    (
        "it draws by chance",
        &[
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ],
    ),
    (
        "no oracle has it, and it is made of operators that are held to it",
        &[
            "BellwetherDiv",
            "ParametricSoftplus",
            "Rsqrt",
            "ScaledTanh",
            "ZipMap",
        ],
    ),
    (
        "each model with it is refused",
        &["Compress", "GlobalLpPool"],
    ),
];

#[test]
fn every_operator_is_held_to_keep_nan_or_excused_for_a_reason() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/nan/operators.txt"
    );
    let listed = std::fs::read_to_string(file).unwrap();
    let held: BTreeSet<&str> = listed.lines().collect();
    let excused: BTreeSet<&str> = EXCUSED
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect();
    let registered = crate::operators::onnx().op_register.0;
    let registered: BTreeSet<&str> = registered.keys().map(String::as_str).collect();
    let both: Vec<_> = held.intersection(&excused).collect();
    assert!(both.is_empty(), "{both:?}");
    let known: BTreeSet<&str> = held.union(&excused).copied().collect();
    let forgotten: Vec<_> = registered.difference(&known).collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
    let stale: Vec<_> = excused.difference(&registered).collect();
    assert!(stale.is_empty(), "{stale:?}");
}

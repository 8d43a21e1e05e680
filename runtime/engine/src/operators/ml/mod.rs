//! The operators of ai.onnx.ml, for what scikit-learn, XGBoost and LightGBM export.
//!
//! All are our own. Each is parsed in full, attributes checked against each other, before the
//! engine builds anything ([`attributes`]); what can be parsed can be evaluated. Answers are those
//! of ONNX Runtime, also where the specification leaves a choice. Text has no place in contracts:
//! labels that are text are numbered ([`classes`]), and operators that map text are refused.

mod attributes;
mod classes;
mod columns;
mod encode;
mod ensemble;
mod gather;
mod linear;
mod op;
mod post;
mod svm;
pub(crate) mod text;
mod tree_attributes;
mod trees;
mod zip_map;

use tract_onnx::{Onnx, model::ParsingContext, pb::NodeProto, tract_hir::internal::*};

pub(crate) use zip_map::ZipMap;

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Puts the operators into the reader, in the place of the engine's own where it has them.
pub(super) fn register(onnx: &mut Onnx) {
    /// A builder, as the reader wants it: a plain function.
    macro_rules! operators {
        ($($name:literal => $parse:expr,)*) => {
            $(onnx.op_register.insert($name, |_: &ParsingContext<'_>, node: &NodeProto| -> Built {
                let kernel = $parse(node)?;
                Ok((op::operator(node, kernel), vec![]))
            });)*
        };
    }
    operators! {
        "ArrayFeatureExtractor" => extractor,
        "Binarizer" => columns::Binarizer::parse,
        "CategoryMapper" => encode::CategoryMapper::parse,
        "FeatureVectorizer" => gather::FeatureVectorizer::parse,
        "Imputer" => columns::Imputer::parse,
        "LabelEncoder" => encode::LabelEncoder::parse,
        "LinearClassifier" => linear::LinearClassifier::parse,
        "LinearRegressor" => linear::LinearRegressor::parse,
        "Normalizer" => columns::Normalizer::parse,
        "OneHotEncoder" => encode::OneHotEncoder::parse,
        "SVMClassifier" => svm::SvmClassifier::parse,
        "SVMRegressor" => svm::SvmRegressor::parse,
        "Scaler" => columns::Scaler::parse,
        "TreeEnsemble" => trees::TreeOp::parse_ensemble,
        "TreeEnsembleClassifier" => trees::TreeOp::parse_classifier,
        "TreeEnsembleRegressor" => trees::TreeOp::parse_regressor,
        "ZipMap" => ZipMap::parse,
    }
}

fn extractor(_: &NodeProto) -> attributes::Result<gather::ArrayFeatureExtractor> {
    Ok(gather::ArrayFeatureExtractor)
}

#[cfg(test)]
mod tests;

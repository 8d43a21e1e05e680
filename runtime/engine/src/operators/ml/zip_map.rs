//! `ZipMap`: a map from class to probability for every row. It has no place in a contract, and the
//! probabilities it is made from have: they are passed on as they are.
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_ZipMap.html>

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

use super::{
    attributes::{Attributes, Result},
    classes::Classes,
    op::{Fact, Kernel, expect_columns, matrix},
};

#[derive(Debug)]
pub(crate) struct ZipMap {
    classes: usize,
}

impl ZipMap {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let classes = Classes::of(attributes, "classlabels_int64s", "classlabels_strings")?;
        Ok(Self {
            classes: classes.len(),
        })
    }

    /// Classes of a node, for those who only look at it; `None` if it says none.
    pub(crate) fn classes_of(node: &NodeProto) -> Option<usize> {
        Some(Self::parse(node).ok()?.classes)
    }
}

impl Kernel for ZipMap {
    fn name(&self) -> &'static str {
        "ZipMap"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        ensure!(*dtype == DatumType::F32, "probabilities of {dtype:?}");
        let (rows, columns) = matrix(shape)?;
        expect_columns(&columns, self.classes)?;
        Ok(tvec![(*dtype, tvec![rows, columns])])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        match inputs[0].rank() {
            1 => {
                let mut row = inputs[0].clone().into_tensor();
                row.insert_axis(0)?;
                Ok(tvec![row.into_tvalue()])
            }
            _ => Ok(tvec![inputs[0].clone()]),
        }
    }
}

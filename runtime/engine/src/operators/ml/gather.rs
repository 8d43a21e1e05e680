//! Operators that choose columns or put them together: `ArrayFeatureExtractor`,
//! `FeatureVectorizer`.

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

use super::{
    attributes::{AttributeError, Attributes, Result, needed, of_length},
    op::{Fact, Kernel, expect_number, floats, rows_columns, tensor},
};

/// Which columns to take is what `ArrayFeatureExtractor` is fed beside the data.
/// <https://onnx.ai/onnx/operators/onnx_aionnxml_ArrayFeatureExtractor.html>
#[derive(Debug)]
pub(crate) struct ArrayFeatureExtractor;

impl Kernel for ArrayFeatureExtractor {
    fn name(&self) -> &'static str {
        "ArrayFeatureExtractor"
    }

    fn inputs(&self) -> usize {
        2
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [(dtype, shape), (index_type, indices)] = inputs else {
            bail!("two inputs are needed");
        };
        ensure!(
            matches!(
                index_type,
                DatumType::I64 | DatumType::TDim | DatumType::I32
            ),
            "indices of {index_type:?}, not of int64"
        );
        let count: TDim = indices.iter().product();
        let taken = match &shape[..] {
            [] => bail!("an input without dimensions"),
            [_] => tvec![1.to_dim(), count],
            [rows @ .., _] => rows.iter().cloned().chain([count]).collect(),
        };
        Ok(tvec![(*dtype, taken)])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let (x, indices) = (&inputs[0], inputs[1].cast_to::<i64>()?);
        let indices = indices.try_as_plain_ram()?.as_slice::<i64>()?;
        let columns = x.shape().last().copied().unwrap_or(0);
        let at: Vec<usize> = indices
            .iter()
            .map(|i| usize::try_from(*i).ok().filter(|i| *i < columns))
            .collect::<Option<_>>()
            .with_context(|| format!("an index outside of {columns} columns"))?;
        let mut shape: TVec<usize> = x.shape().into();
        if shape.len() == 1 {
            shape.insert(0, 1);
        }
        if let Some(last) = shape.last_mut() {
            *last = at.len();
        }
        dispatch_datum!(take(x.datum_type())(x, columns, &at, &shape)).map(|taken| tvec![taken])
    }
}

fn take<T: Datum>(
    x: &Tensor,
    columns: usize,
    at: &[usize],
    shape: &[usize],
) -> TractResult<TValue> {
    let values = x.try_as_plain_ram()?.as_slice::<T>()?;
    let rows = values.chunks_exact(columns.max(1));
    let taken: Vec<T> = rows
        .flat_map(|row| at.iter().map(|i| row[*i].clone()))
        .collect();
    let taken = tract_ndarray::ArrayD::from_shape_vec(shape, taken)?;
    Ok(taken.into_tensor().into_tvalue())
}

/// Columns side by side, each input cut or padded with zeros to its announced width, in f32.
/// <https://onnx.ai/onnx/operators/onnx_aionnxml_FeatureVectorizer.html>
#[derive(Debug)]
pub(crate) struct FeatureVectorizer {
    widths: Vec<usize>,
    width: usize,
}

/// Columns of a vectorizer at most: each is written for every row, there or not.
const VECTOR_COLUMNS_MAX: usize = 1 << 20;

impl FeatureVectorizer {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let name = "inputdimensions";
        let widths = needed(name, Attributes(node).ints(name)?)?;
        of_length(name, widths.len(), node.input.len())?;
        let widths: Option<Vec<usize>> = widths.iter().map(|w| usize::try_from(*w).ok()).collect();
        let sum = |widths: &Vec<usize>| {
            let sum = widths
                .iter()
                .try_fold(0_usize, |sum, w| sum.checked_add(*w));
            sum.filter(|sum| *sum <= VECTOR_COLUMNS_MAX)
        };
        let width = widths.as_ref().and_then(sum);
        match (widths, width) {
            (Some(widths), Some(width)) => Ok(Self { widths, width }),
            _ => Err(AttributeError::Value {
                name,
                message: format!("widths below 0, or more than {VECTOR_COLUMNS_MAX} together"),
            }),
        }
    }
}

impl Kernel for FeatureVectorizer {
    fn name(&self) -> &'static str {
        "FeatureVectorizer"
    }

    fn inputs(&self) -> usize {
        self.widths.len()
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let mut rows = None;
        for (dtype, shape) in inputs {
            expect_number(*dtype)?;
            let found = super::op::matrix(shape)?.0;
            let rows = rows.get_or_insert_with(|| found.clone());
            ensure!(*rows == found, "inputs of {rows} and of {found} rows");
        }
        let rows = rows.context("no input")?;
        Ok(tvec![(DatumType::F32, tvec![rows, self.width.to_dim()])])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let rows = rows_columns(&inputs[0])?.0;
        let mut out = vec![0.0_f32; rows * self.width];
        let mut first = 0;
        for (input, width) in inputs.iter().zip(&self.widths) {
            let x = floats(input)?;
            let columns = rows_columns(&x)?.1;
            let taken = columns.min(*width);
            let values = x.try_as_plain_ram()?.as_slice::<f32>()?;
            for row in 0..rows {
                out[row * self.width + first..][..taken]
                    .copy_from_slice(&values[row * columns..][..taken]);
            }
            first += width;
        }
        Ok(tvec![tensor(&[rows, self.width], &out)?])
    }
}

//! Operators that change each reading by itself or each row within itself: `Scaler`, `Imputer`,
//! `Binarizer`, `Normalizer`.

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

use super::{
    attributes::{AttributeError, Attributes, Result},
    op::{Fact, Kernel, expect_number, floats, rows_columns, tensor},
};
use crate::operators::nan::greater;

/// `(X − offset) · scale`, in f32, along the last axis. With it begins every pipeline that
/// scikit-learn's `StandardScaler` begins.
/// <https://onnx.ai/onnx/operators/onnx_aionnxml_Scaler.html>
#[derive(Debug)]
pub(crate) struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Scaler {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let offset = attributes.floats("offset")?.unwrap_or(&[0.0]);
        let scale = attributes.floats("scale")?.unwrap_or(&[1.0]);
        for (name, values) in [("offset", offset), ("scale", scale)] {
            if values.is_empty() {
                return Err(AttributeError::Absent { name });
            }
        }
        Ok(Self {
            offset: offset.to_vec(),
            scale: scale.to_vec(),
        })
    }
}

impl Kernel for Scaler {
    fn name(&self) -> &'static str {
        "Scaler"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        expect_number(*dtype)?;
        let columns = last(shape)?;
        for values in [&self.offset, &self.scale] {
            fits(values.len(), columns)?;
        }
        Ok(tvec![(DatumType::F32, shape.clone())])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        // Differences of large numbers are taken before they are rounded to f32.
        let x = inputs[0].cast_to::<f64>()?;
        let values = x.try_as_plain_ram()?.as_slice::<f64>()?;
        let columns = x.shape().last().copied().unwrap_or(1).max(1);
        let of = |values: &[f32], i: usize| f64::from(values[i % columns % values.len()]);
        let scaled = values.iter().enumerate();
        let scaled: Vec<f32> = scaled
            .map(|(i, x)| ((x - of(&self.offset, i)) * of(&self.scale, i)) as f32)
            .collect();
        Ok(tvec![tensor(x.shape(), &scaled)?])
    }
}

/// Puts a value in the place of each that is missing.
/// <https://onnx.ai/onnx/operators/onnx_aionnxml_Imputer.html>
#[derive(Debug)]
pub(crate) enum Imputer {
    Floats { missing: f32, instead: Vec<f32> },
    Ints { missing: i64, instead: Vec<i64> },
}

impl Imputer {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let floats = attributes
            .floats("imputed_value_floats")?
            .unwrap_or_default();
        let ints = attributes.ints("imputed_value_int64s")?.unwrap_or_default();
        match (floats, ints) {
            ([_, ..], []) => Ok(Self::Floats {
                missing: attributes.float("replaced_value_float")?.unwrap_or(0.0),
                instead: floats.to_vec(),
            }),
            ([], [_, ..]) => Ok(Self::Ints {
                missing: attributes.int("replaced_value_int64")?.unwrap_or(0),
                instead: ints.to_vec(),
            }),
            _ => Err(AttributeError::Value {
                name: "imputed_value_floats",
                message: "either it or `imputed_value_int64s` is needed, and not both".to_owned(),
            }),
        }
    }
}

impl Kernel for Imputer {
    fn name(&self) -> &'static str {
        "Imputer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        let (wanted, values): (&[DatumType], _) = match self {
            Self::Floats { instead, .. } => (&[DatumType::F32, DatumType::F64], instead.len()),
            Self::Ints { instead, .. } => (&[DatumType::I64, DatumType::I32], instead.len()),
        };
        ensure!(
            wanted.contains(dtype),
            "an input of {dtype:?}, and values to put in of {wanted:?}"
        );
        fits(values, last(shape)?)?;
        Ok(tvec![(*dtype, shape.clone())])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = &inputs[0];
        let columns = x.shape().last().copied().unwrap_or(1).max(1);
        let plain = x.try_as_plain_ram()?;
        let filled = match self {
            Self::Floats { missing, instead } if x.datum_type() == DatumType::F64 => {
                let instead: Vec<f64> = instead.iter().map(|v| f64::from(*v)).collect();
                let missing = f64::from(*missing);
                let is_missing = |x: f64| x == missing || (x.is_nan() && missing.is_nan());
                fill(
                    plain.as_slice::<f64>()?,
                    x.shape(),
                    columns,
                    &instead,
                    is_missing,
                )?
            }
            Self::Floats { missing, instead } => {
                let is_missing = |x: f32| x == *missing || (x.is_nan() && missing.is_nan());
                fill(
                    plain.as_slice::<f32>()?,
                    x.shape(),
                    columns,
                    instead,
                    is_missing,
                )?
            }
            Self::Ints { missing, instead } if x.datum_type() == DatumType::I32 => {
                let instead: Vec<i32> = instead.iter().map(|v| *v as i32).collect();
                let is_missing = |x: i32| i64::from(x) == *missing;
                fill(
                    plain.as_slice::<i32>()?,
                    x.shape(),
                    columns,
                    &instead,
                    is_missing,
                )?
            }
            Self::Ints { missing, instead } => {
                let is_missing = |x: i64| x == *missing;
                fill(
                    plain.as_slice::<i64>()?,
                    x.shape(),
                    columns,
                    instead,
                    is_missing,
                )?
            }
        };
        Ok(tvec![filled])
    }
}

fn fill<T: Datum + Copy>(
    values: &[T],
    shape: &[usize],
    columns: usize,
    instead: &[T],
    is_missing: impl Fn(T) -> bool,
) -> TractResult<TValue> {
    let filled = values.iter().enumerate().map(|(i, x)| {
        if is_missing(*x) {
            instead[i % columns % instead.len()]
        } else {
            *x
        }
    });
    tensor(shape, &filled.collect::<Vec<T>>())
}

/// 1 above a threshold, else 0.
/// <https://onnx.ai/onnx/operators/onnx_aionnxml_Binarizer.html>
#[derive(Debug)]
pub(crate) struct Binarizer {
    threshold: f32,
}

impl Binarizer {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let threshold = Attributes(node).float("threshold")?.unwrap_or(0.0);
        Ok(Self { threshold })
    }
}

impl Kernel for Binarizer {
    fn name(&self) -> &'static str {
        "Binarizer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        expect_number(inputs[0].0)?;
        Ok(tvec![inputs[0].clone()])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = inputs[0].cast_to::<f64>()?;
        let values = x.try_as_plain_ram()?.as_slice::<f64>()?;
        let threshold = f64::from(self.threshold);
        let above: Vec<f32> = values
            .iter()
            .map(|x| f32::from(u8::from(*x > threshold)))
            .collect();
        let above = tensor(x.shape(), &above)?;
        let above = above.cast_to_dt(inputs[0].datum_type())?.into_owned();
        Ok(tvec![above.into_tvalue()])
    }
}

/// Divides each row by its norm; a row of norm 0 is left alone.
/// <https://onnx.ai/onnx/operators/onnx_aionnxml_Normalizer.html>
#[derive(Debug)]
pub(crate) enum Normalizer {
    Max,
    L1,
    L2,
}

impl Normalizer {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let name = "norm";
        match Attributes(node).word(name)? {
            None | Some("MAX") => Ok(Self::Max),
            Some("L1") => Ok(Self::L1),
            Some("L2") => Ok(Self::L2),
            Some(other) => Err(AttributeError::Value {
                name,
                message: format!("`{other}` is not a norm"),
            }),
        }
    }

    fn norm(&self, row: &[f32]) -> f32 {
        match self {
            // The greatest, not the farthest from zero: so it is specified.
            Self::Max => row.iter().copied().fold(f32::MIN, greater),
            Self::L1 => row.iter().map(|x| x.abs()).sum(),
            Self::L2 => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
        }
    }
}

impl Kernel for Normalizer {
    fn name(&self) -> &'static str {
        "Normalizer"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        expect_number(*dtype)?;
        super::op::matrix(shape)?;
        Ok(tvec![(DatumType::F32, shape.clone())])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = floats(&inputs[0])?;
        let (_, columns) = rows_columns(&x)?;
        let mut values = x.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        for row in values.chunks_exact_mut(columns.max(1)) {
            let norm = self.norm(row);
            if norm != 0.0 {
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        Ok(tvec![tensor(x.shape(), &values)?])
    }
}

fn last(shape: &[TDim]) -> TractResult<&TDim> {
    shape.last().context("an input without dimensions")
}

/// One value for all columns, or one for each.
fn fits(values: usize, columns: &TDim) -> TractResult<()> {
    let columns = columns.to_usize().ok();
    let fits = values == 1 || columns.is_none_or(|columns| columns == values);
    ensure!(fits, "{values} values for an input of {columns:?} columns");
    Ok(())
}

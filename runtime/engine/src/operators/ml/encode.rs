//! Operators that map single values: `LabelEncoder`, `CategoryMapper`, `OneHotEncoder`. Text has
//! no place in contracts, and what maps from or to it is refused.

use std::{cmp::Ordering, fmt::Debug};

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

use super::{
    attributes::{AttributeError, Attributes, Result, of_length},
    op::{Fact, Kernel, expect_number, tensor},
};

/// A map from numbers to numbers.
/// <https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html>
#[derive(Debug)]
pub(crate) struct LabelEncoder {
    keys: Keys,
    values: Values,
}

/// Keys in order, each with its value's place.
#[derive(Debug)]
enum Keys {
    Ints(Vec<(i64, usize)>),
    /// `f32` as well, which `f64` holds exactly; NaN comes last and equals itself.
    Floats(DatumType, Vec<(f64, usize)>),
}

/// Values, and what stands for a key that is not there.
#[derive(Debug)]
enum Values {
    Ints(Vec<i64>, i64),
    Floats(DatumType, Vec<f64>, f64),
}

impl LabelEncoder {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let text = ["keys_strings", "values_strings", "classes_strings"];
        if text.iter().any(|name| attributes.has(name)) {
            return Err(AttributeError::Text);
        }
        let keys = Keys::of(attributes)?;
        let values = Values::of(attributes)?;
        of_length("keys_*", keys.len(), values.len())?;
        Ok(Self { keys, values })
    }
}

impl Keys {
    fn of(attributes: Attributes<'_>) -> Result<Self> {
        if let Some(keys) = attributes.ints("keys_int64s")? {
            return Ok(Self::Ints(sorted(keys, i64::cmp)));
        }
        if let Some(keys) = attributes.floats("keys_floats")? {
            let keys: Vec<f64> = keys.iter().map(|key| f64::from(*key)).collect();
            return Ok(Self::Floats(DatumType::F32, sorted(&keys, order)));
        }
        match tensor_type(attributes, "keys_tensor")? {
            DatumType::I64 => {
                let keys = attributes.int_tensor("keys_tensor")?.unwrap_or_default();
                Ok(Self::Ints(sorted(&keys, i64::cmp)))
            }
            dtype => {
                let keys = attributes.tensor("keys_tensor")?.unwrap_or_default();
                Ok(Self::Floats(dtype, sorted(&keys, order)))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Ints(keys) => keys.len(),
            Self::Floats(_, keys) => keys.len(),
        }
    }

    fn dtype(&self) -> DatumType {
        match self {
            Self::Ints(_) => DatumType::I64,
            Self::Floats(dtype, _) => *dtype,
        }
    }

    /// The place of each element's value.
    fn places(&self, x: &Tensor) -> TractResult<Vec<Option<usize>>> {
        fn find<T>(
            keys: &[(T, usize)],
            x: &T,
            order: impl Fn(&T, &T) -> Ordering,
        ) -> Option<usize> {
            let at = keys.binary_search_by(|(key, _)| order(key, x)).ok()?;
            Some(keys[at].1)
        }
        Ok(match self {
            Self::Ints(keys) => {
                let x = x.cast_to::<i64>()?;
                let x = x.try_as_plain_ram()?.as_slice::<i64>()?;
                x.iter().map(|x| find(keys, x, i64::cmp)).collect()
            }
            Self::Floats(_, keys) => {
                let x = x.cast_to::<f64>()?;
                let x = x.try_as_plain_ram()?.as_slice::<f64>()?;
                x.iter().map(|x| find(keys, x, order)).collect()
            }
        })
    }
}

impl Values {
    fn of(attributes: Attributes<'_>) -> Result<Self> {
        if let Some(values) = attributes.ints("values_int64s")? {
            return Ok(Self::Ints(values.to_vec(), int_default(attributes)?));
        }
        if let Some(values) = attributes.floats("values_floats")? {
            let values = values.iter().map(|v| f64::from(*v)).collect();
            let other = float_default(attributes)?;
            return Ok(Self::Floats(DatumType::F32, values, other));
        }
        match tensor_type(attributes, "values_tensor")? {
            DatumType::I64 => {
                let values = attributes.int_tensor("values_tensor")?.unwrap_or_default();
                Ok(Self::Ints(values, int_default(attributes)?))
            }
            dtype => {
                let values = attributes.tensor("values_tensor")?.unwrap_or_default();
                Ok(Self::Floats(dtype, values, float_default(attributes)?))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Ints(values, _) => values.len(),
            Self::Floats(_, values, _) => values.len(),
        }
    }

    fn dtype(&self) -> DatumType {
        match self {
            Self::Ints(..) => DatumType::I64,
            Self::Floats(dtype, ..) => *dtype,
        }
    }

    fn at(&self, shape: &[usize], places: &[Option<usize>]) -> TractResult<TValue> {
        let place = places.iter();
        match self {
            Self::Ints(values, other) => {
                let mapped = place.map(|place| place.map_or(*other, |place| values[place]));
                tensor(shape, &mapped.collect::<Vec<i64>>())
            }
            Self::Floats(dtype, values, other) => {
                let mapped = place.map(|place| place.map_or(*other, |place| values[place]));
                let mapped = tensor(shape, &mapped.collect::<Vec<f64>>())?;
                Ok(mapped.cast_to_dt(*dtype)?.into_owned().into_tvalue())
            }
        }
    }
}

/// What stands for an unknown key, as version 4 or as version 2 gives it.
fn int_default(attributes: Attributes<'_>) -> Result<i64> {
    let tensor = attributes.int_tensor("default_tensor")?.unwrap_or_default();
    let named = attributes.int("default_int64")?;
    Ok(tensor.first().copied().or(named).unwrap_or(-1))
}

/// The same of values that are floats.
fn float_default(attributes: Attributes<'_>) -> Result<f64> {
    let tensor = attributes.tensor("default_tensor")?.unwrap_or_default();
    let named = attributes.float("default_float")?.map(f64::from);
    Ok(tensor.first().copied().or(named).unwrap_or(-0.0))
}

/// The type of a tensor attribute of numbers.
fn tensor_type(attributes: Attributes<'_>, name: &'static str) -> Result<DatumType> {
    use tract_onnx::pb::tensor_proto::DataType;
    let tensor = attributes.tensor_proto(name)?;
    match tensor.and_then(|tensor| DataType::try_from(tensor.data_type).ok()) {
        Some(DataType::Int64) => Ok(DatumType::I64),
        Some(DataType::Float) => Ok(DatumType::F32),
        Some(DataType::Double) => Ok(DatumType::F64),
        Some(DataType::String) => Err(AttributeError::Text),
        Some(_) => Err(AttributeError::Kind {
            name,
            wanted: "tensor of int64, float or double",
        }),
        None => Err(AttributeError::Absent { name }),
    }
}

/// By value; NaN equals NaN and comes last, and zeros are equal.
fn order(a: &f64, b: &f64) -> Ordering {
    a.partial_cmp(b)
        .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Keys in order with their places; of equal keys the first stays.
fn sorted<T: Copy>(keys: &[T], order: impl Fn(&T, &T) -> Ordering) -> Vec<(T, usize)> {
    let mut sorted: Vec<(T, usize)> = keys.iter().copied().zip(0..).collect();
    sorted.sort_by(|(a, _), (b, _)| order(a, b));
    sorted.dedup_by(|(a, _), (b, _)| order(a, b).is_eq());
    sorted
}

impl Kernel for LabelEncoder {
    fn name(&self) -> &'static str {
        "LabelEncoder"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        let keys = self.keys.dtype();
        let fits = *dtype == keys || (*dtype == DatumType::TDim && keys == DatumType::I64);
        ensure!(fits, "an input of {dtype:?}, and keys of {keys:?}");
        Ok(tvec![(self.values.dtype(), shape.clone())])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let places = self.keys.places(&inputs[0])?;
        Ok(tvec![self.values.at(inputs[0].shape(), &places)?])
    }
}

/// Maps between numbers and text, so there is none that contracts can name: parsing refuses it and
/// says so. <https://onnx.ai/onnx/operators/onnx_aionnxml_CategoryMapper.html>
#[derive(Debug)]
pub(crate) enum CategoryMapper {}

impl CategoryMapper {
    pub(crate) fn parse(_: &NodeProto) -> Result<Self> {
        Err(AttributeError::Text)
    }
}

impl Kernel for CategoryMapper {
    fn name(&self) -> &'static str {
        match *self {}
    }

    fn facts(&self, _: &[Fact]) -> TractResult<TVec<Fact>> {
        match *self {}
    }

    fn eval(&self, _: &[TValue]) -> TractResult<TVec<TValue>> {
        match *self {}
    }
}

/// A column of 0 and 1 for each category.
/// <https://onnx.ai/onnx/operators/onnx_aionnxml_OneHotEncoder.html>
#[derive(Debug)]
pub(crate) struct OneHotEncoder {
    categories: Vec<(i64, usize)>,
    count: usize,
    /// An unknown value makes zeros, and no error.
    zeros: bool,
}

impl OneHotEncoder {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let texts = attributes.strings("cats_strings")?.unwrap_or_default();
        let categories = attributes.ints("cats_int64s")?.unwrap_or_default();
        match (categories, texts) {
            (_, [_, ..]) => Err(AttributeError::Text),
            ([], _) => Err(AttributeError::Absent {
                name: "cats_int64s",
            }),
            _ => Ok(Self {
                categories: sorted(categories, i64::cmp),
                count: categories.len(),
                zeros: attributes.int("zeros")?.unwrap_or(1) != 0,
            }),
        }
    }
}

impl Kernel for OneHotEncoder {
    fn name(&self) -> &'static str {
        "OneHotEncoder"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        expect_number(*dtype)?;
        let shape = shape.iter().cloned().chain([self.count.to_dim()]);
        Ok(tvec![(DatumType::F32, shape.collect())])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = inputs[0].cast_to::<i64>()?;
        let values = x.try_as_plain_ram()?.as_slice::<i64>()?;
        let mut out = vec![0.0_f32; values.len() * self.count];
        for (value, row) in values.iter().zip(out.chunks_exact_mut(self.count)) {
            let found = self.categories.binary_search_by_key(value, |(key, _)| *key);
            match found {
                Ok(at) => row[self.categories[at].1] = 1.0,
                Err(_) if self.zeros => {}
                Err(_) => bail!("{value} is none of the {} categories", self.count),
            }
        }
        let mut shape: TVec<usize> = x.shape().into();
        shape.push(self.count);
        Ok(tvec![tensor(&shape, &out)?])
    }
}

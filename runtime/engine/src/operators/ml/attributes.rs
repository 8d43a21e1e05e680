//! A node's attributes, read with their kinds and sizes checked.

use tract_onnx::pb::{
    AttributeProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType,
};

use super::ensemble::TreeError;

/// Why an operator's attributes make no sense. The model is at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttributeError {
    #[error("attribute `{name}` is needed and absent")]
    Absent { name: &'static str },
    #[error("attribute `{name}` is not of kind {wanted}")]
    Kind {
        name: &'static str,
        wanted: &'static str,
    },
    #[error("attribute `{name}` has {found} values, {expected} are needed")]
    Length {
        name: &'static str,
        found: usize,
        expected: usize,
    },
    #[error("attribute `{name}`: {message}")]
    Value { name: &'static str, message: String },
    #[error("the operator maps text, which contracts do not have; encode it before the model")]
    Text,
    #[error("the trees are malformed")]
    Trees(#[from] TreeError),
}

pub(crate) type Result<T, E = AttributeError> = std::result::Result<T, E>;

/// The attributes of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a NodeProto);

impl<'a> Attributes<'a> {
    pub(crate) fn has(self, name: &str) -> bool {
        self.0.attribute.iter().any(|a| a.name == name)
    }

    pub(crate) fn floats(self, name: &'static str) -> Result<Option<&'a [f32]>> {
        let found = self.of_kind(name, AttributeType::Floats, "floats")?;
        Ok(found.map(|attribute| &attribute.floats[..]))
    }

    pub(crate) fn ints(self, name: &'static str) -> Result<Option<&'a [i64]>> {
        let found = self.of_kind(name, AttributeType::Ints, "ints")?;
        Ok(found.map(|attribute| &attribute.ints[..]))
    }

    pub(crate) fn strings(self, name: &'static str) -> Result<Option<&'a [Vec<u8>]>> {
        let found = self.of_kind(name, AttributeType::Strings, "strings")?;
        Ok(found.map(|attribute| &attribute.strings[..]))
    }

    pub(crate) fn float(self, name: &'static str) -> Result<Option<f32>> {
        let found = self.of_kind(name, AttributeType::Float, "float")?;
        Ok(found.map(|attribute| attribute.f))
    }

    pub(crate) fn int(self, name: &'static str) -> Result<Option<i64>> {
        let found = self.of_kind(name, AttributeType::Int, "int")?;
        Ok(found.map(|attribute| attribute.i))
    }

    /// A word out of a few; what is no text matches none.
    pub(crate) fn word(self, name: &'static str) -> Result<Option<&'a str>> {
        let found = self.of_kind(name, AttributeType::String, "string")?;
        Ok(found.map(|attribute| std::str::from_utf8(&attribute.s).unwrap_or("?")))
    }

    pub(crate) fn tensor_proto(self, name: &'static str) -> Result<Option<&'a TensorProto>> {
        let found = self.of_kind(name, AttributeType::Tensor, "tensor")?;
        Ok(found.and_then(|attribute| attribute.t.as_ref()))
    }

    /// A tensor's numbers as `f64`, which holds every `f32` and every small integer exactly.
    pub(crate) fn tensor(self, name: &'static str) -> Result<Option<Vec<f64>>> {
        let tensor = self.tensor_proto(name)?;
        tensor.map(|tensor| numbers_of(name, tensor)).transpose()
    }

    /// A tensor's whole numbers.
    pub(crate) fn int_tensor(self, name: &'static str) -> Result<Option<Vec<i64>>> {
        let Some(tensor) = self.tensor_proto(name)? else {
            return Ok(None);
        };
        match DataType::try_from(tensor.data_type) {
            Ok(DataType::Int64) if tensor.raw_data.is_empty() => {
                Ok(Some(tensor.int64_data.clone()))
            }
            Ok(DataType::Int64) => raw(name, &tensor.raw_data, i64::from_le_bytes).map(Some),
            _ => Err(AttributeError::Kind {
                name,
                wanted: "tensor of int64",
            }),
        }
    }

    /// An attribute that counts: at least one.
    pub(crate) fn count(self, name: &'static str, most: usize) -> Result<Option<usize>> {
        let Some(found) = self.int(name)? else {
            return Ok(None);
        };
        let count = usize::try_from(found).ok();
        let count = count.filter(|count| (1..=most).contains(count));
        count.map(Some).ok_or_else(|| AttributeError::Value {
            name,
            message: format!("{found} is not between 1 and {most}"),
        })
    }

    fn of_kind(
        self,
        name: &'static str,
        kind: AttributeType,
        wanted: &'static str,
    ) -> Result<Option<&'a AttributeProto>> {
        let found = self.0.attribute.iter().find(|a| a.name == name);
        match found {
            Some(attribute) if attribute.r#type != kind as i32 => {
                Err(AttributeError::Kind { name, wanted })
            }
            _ => Ok(found),
        }
    }
}

/// The value, or an error that it is absent.
pub(crate) fn needed<T>(name: &'static str, found: Option<T>) -> Result<T> {
    found.ok_or(AttributeError::Absent { name })
}

pub(crate) fn of_length(name: &'static str, found: usize, expected: usize) -> Result<()> {
    if found != expected {
        return Err(AttributeError::Length {
            name,
            found,
            expected,
        });
    }
    Ok(())
}

fn numbers_of(name: &'static str, tensor: &TensorProto) -> Result<Vec<f64>> {
    let is_raw = !tensor.raw_data.is_empty();
    let bytes = &tensor.raw_data[..];
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) if is_raw => {
            let floats = raw(name, bytes, f32::from_le_bytes)?;
            Ok(floats.into_iter().map(f64::from).collect())
        }
        Ok(DataType::Float) => Ok(tensor.float_data.iter().map(|v| f64::from(*v)).collect()),
        Ok(DataType::Double) if is_raw => raw(name, bytes, f64::from_le_bytes),
        Ok(DataType::Double) => Ok(tensor.double_data.clone()),
        Ok(DataType::Uint8) if is_raw => Ok(bytes.iter().map(|v| f64::from(*v)).collect()),
        Ok(DataType::Uint8) => Ok(tensor.int32_data.iter().map(|v| f64::from(*v)).collect()),
        Ok(DataType::Int64) if is_raw => {
            let ints = raw(name, bytes, i64::from_le_bytes)?;
            Ok(ints.into_iter().map(|v| v as f64).collect())
        }
        Ok(DataType::Int64) => Ok(tensor.int64_data.iter().map(|v| *v as f64).collect()),
        _ => Err(AttributeError::Value {
            name,
            message: "a tensor of another type than float, double, int64 or uint8".to_owned(),
        }),
    }
}

fn raw<const N: usize, T>(
    name: &'static str,
    bytes: &[u8],
    read: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(AttributeError::Value {
            name,
            message: format!("{} bytes are no whole number of values", bytes.len()),
        });
    }
    Ok(chunks.iter().map(|chunk| read(*chunk)).collect())
}

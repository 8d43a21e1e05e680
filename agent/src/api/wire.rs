//! The JSON of the Open Inference Protocol v2, as far as the agent speaks it.
//!
//! JSON has no NaN: a missing reading is `null` in floating-point data, and a NaN or infinite
//! answer is `null` too. Data may be flat or nested; the shape decides.

use bellwether_package::sections::DType;
use bellwether_runtime::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Rows of one request at most: what one worker answers well within a deadline.
pub const ROWS_MAX: u32 = 4096;
/// Tensors of one request at most.
pub const TENSORS_MAX: usize = 16;
/// Dimensions of a tensor at most.
pub const DIMENSIONS_MAX: usize = 8;

/// Body of `POST /v2/models/{slot}/infer`.
#[derive(Debug, Deserialize)]
pub struct InferRequest {
    /// Given back in the answer.
    #[serde(default)]
    pub id: Option<String>,
    /// The raw readings.
    pub inputs: Vec<InputTensor>,
}

/// One input.
#[derive(Debug, Deserialize)]
pub struct InputTensor {
    /// The port.
    pub name: String,
    /// Dimensions, batch first.
    pub shape: Vec<u32>,
    /// `FP32`, `FP64`, `INT64`, …
    pub datatype: String,
    /// The elements, row-major, flat or nested.
    pub data: Value,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct InferAnswer {
    /// The slot.
    pub model_name: String,
    /// The version of the model that answered.
    pub model_version: String,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Which release answered.
    pub parameters: Parameters,
    /// What it answered.
    pub outputs: Vec<OutputTensor>,
}

/// What the protocol leaves to us.
#[derive(Debug, Serialize)]
pub struct Parameters {
    /// The release that answered.
    pub release: String,
}

/// One output.
#[derive(Debug, Serialize)]
pub struct OutputTensor {
    /// The port.
    pub name: String,
    /// Dimensions, batch first.
    pub shape: Vec<u32>,
    /// `FP32`, …
    pub datatype: &'static str,
    /// The elements, row-major.
    pub data: Vec<Value>,
}

/// Why a request's tensors cannot be read. The application has to mend its request.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No or too many inputs.
    #[error("a request has 1 to {TENSORS_MAX} inputs")]
    Inputs,
    /// More rows, or dimensions, than are taken.
    #[error("input {name}: at most {ROWS_MAX} rows and {DIMENSIONS_MAX} dimensions are taken")]
    Shape {
        /// The input.
        name: String,
    },
    /// A datatype that is not spoken.
    #[error("input {name}: datatype {datatype} is not known")]
    Datatype {
        /// The input.
        name: String,
        /// What it says.
        datatype: String,
    },
    /// Data that do not fill the shape.
    #[error("input {name}: {found} elements where its shape asks for {expected}")]
    Length {
        /// The input.
        name: String,
        /// Elements given.
        found: usize,
        /// Elements that its shape asks for.
        expected: usize,
    },
    /// An element that is no value of its datatype.
    #[error("input {name}: element {index} is no {datatype}")]
    Element {
        /// The input.
        name: String,
        /// The element, from 0.
        index: usize,
        /// The datatype.
        datatype: String,
    },
}

/// The protocol's name of a type.
pub fn datatype(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "FP32",
        DType::F64 => "FP64",
        DType::F16 => "FP16",
        DType::U64 => "UINT64",
        DType::U32 => "UINT32",
        DType::I64 => "INT64",
        DType::I32 => "INT32",
        DType::I16 => "INT16",
        DType::U16 => "UINT16",
        DType::I8 => "INT8",
        DType::U8 => "UINT8",
        DType::Bool => "BOOL",
    }
}

const DTYPES: [DType; 12] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::U64,
    DType::U32,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::U16,
    DType::I8,
    DType::U8,
    DType::Bool,
];

/// The tensors of a request.
///
/// # Errors
///
/// [`WireError`], the first thing found.
pub fn tensors(inputs: Vec<InputTensor>) -> Result<Vec<Tensor>, WireError> {
    if inputs.is_empty() || inputs.len() > TENSORS_MAX {
        return Err(WireError::Inputs);
    }
    inputs.into_iter().map(tensor).collect()
}

fn tensor(input: InputTensor) -> Result<Tensor, WireError> {
    let InputTensor {
        name,
        shape,
        datatype: told,
        data,
    } = input;
    let too_many_rows = shape.first().is_some_and(|rows| *rows > ROWS_MAX);
    if too_many_rows || shape.len() > DIMENSIONS_MAX {
        return Err(WireError::Shape { name });
    }
    let Some(dtype) = DTYPES.into_iter().find(|dtype| datatype(*dtype) == told) else {
        return Err(WireError::Datatype {
            name,
            datatype: told,
        });
    };
    let mut flat = Vec::new();
    flatten(&data, &mut flat);
    let expected = shape
        .iter()
        .try_fold(1_usize, |all, one| all.checked_mul(*one as usize));
    if expected != Some(flat.len()) {
        let expected = expected.unwrap_or(usize::MAX);
        return Err(WireError::Length {
            name,
            found: flat.len(),
            expected,
        });
    }
    let mut bytes = Vec::with_capacity(flat.len() * 8);
    for (index, value) in flat.into_iter().enumerate() {
        if push(dtype, value, &mut bytes).is_none() {
            return Err(WireError::Element {
                name,
                index,
                datatype: told,
            });
        }
    }
    Ok(Tensor {
        name,
        dtype,
        shape,
        bytes,
    })
}

/// Depth is bounded by the JSON reader, length by the body's bound.
fn flatten<'a>(data: &'a Value, flat: &mut Vec<&'a Value>) {
    match data {
        Value::Array(inner) => inner.iter().for_each(|value| flatten(value, flat)),
        value => flat.push(value),
    }
}

fn push(dtype: DType, value: &Value, bytes: &mut Vec<u8>) -> Option<()> {
    let float = |value: &Value| match value {
        Value::Null => Some(f64::NAN),
        value => value.as_f64(),
    };
    match dtype {
        DType::F32 => bytes.extend((float(value)? as f32).to_le_bytes()),
        DType::F64 => bytes.extend(float(value)?.to_le_bytes()),
        DType::F16 => bytes.extend(half::f16::from_f64(float(value)?).to_le_bytes()),
        DType::U64 => bytes.extend(value.as_u64()?.to_le_bytes()),
        DType::U32 => bytes.extend(u32::try_from(value.as_u64()?).ok()?.to_le_bytes()),
        DType::I64 => bytes.extend(value.as_i64()?.to_le_bytes()),
        DType::I32 => bytes.extend(i32::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        DType::I16 => bytes.extend(i16::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        DType::U16 => bytes.extend(u16::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        DType::I8 => bytes.extend(i8::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        DType::U8 => bytes.push(u8::try_from(value.as_i64()?).ok()?),
        DType::Bool => bytes.push(u8::from(value.as_bool()?)),
    }
    Some(())
}

/// One output as JSON.
pub fn output(tensor: &Tensor) -> OutputTensor {
    let value = |number: f64| match tensor.dtype {
        DType::F32 | DType::F64 | DType::F16 => {
            serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)
        }
        DType::Bool => Value::Bool(number != 0.0),
        _ => Value::from(number as i64),
    };
    // Through f64 large integers would lose their last digits.
    let (eights, _) = tensor.bytes.as_chunks::<8>();
    let data = match tensor.dtype {
        DType::I64 => eights
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes).into())
            .collect(),
        DType::U64 => eights
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes).into())
            .collect(),
        _ => tensor.values().map(value).collect(),
    };
    OutputTensor {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        datatype: datatype(tensor.dtype),
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(shape: &[u32], datatype: &str, data: Value) -> InputTensor {
        InputTensor {
            name: "x".into(),
            shape: shape.into(),
            datatype: datatype.into(),
            data,
        }
    }

    #[test]
    fn nested_and_flat_data_are_the_same_tensor() {
        let flat = tensor(input(&[2, 2], "FP32", serde_json::json!([1, 2, 3, 4]))).unwrap();
        let nested = tensor(input(&[2, 2], "FP32", serde_json::json!([[1, 2], [3, 4]]))).unwrap();
        assert_eq!(flat, nested);
        assert_eq!(flat.to_f32().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn null_is_a_missing_reading_both_ways() {
        let tensor = tensor(input(&[1, 2], "FP32", serde_json::json!([null, 1.5]))).unwrap();
        assert!(tensor.to_f32().unwrap()[0].is_nan());
        assert_eq!(output(&tensor).data, [Value::Null, Value::from(1.5)]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_kind() {
        let read = |shape: &[u32], datatype: &str, data| tensor(input(shape, datatype, data));
        let one = || serde_json::json!([1]);
        assert!(matches!(
            read(&[2], "FP32", one()),
            Err(WireError::Length { .. })
        ));
        assert!(matches!(
            read(&[1], "BYTES", one()),
            Err(WireError::Datatype { .. })
        ));
        assert!(matches!(
            read(&[4097], "FP32", one()),
            Err(WireError::Shape { .. })
        ));
        assert!(matches!(
            read(&[1; 9], "FP32", one()),
            Err(WireError::Shape { .. })
        ));
        let text = serde_json::json!(["a"]);
        assert!(matches!(
            read(&[1], "FP32", text),
            Err(WireError::Element { index: 0, .. })
        ));
        let large = serde_json::json!([300]);
        assert!(matches!(
            read(&[1], "UINT8", large),
            Err(WireError::Element { .. })
        ));
        let null = serde_json::json!([null]);
        assert!(matches!(
            read(&[1], "INT64", null),
            Err(WireError::Element { .. })
        ));
        let huge = [u32::MAX; 8].map(|_| 4096);
        assert!(matches!(
            read(&huge, "FP32", one()),
            Err(WireError::Length { .. })
        ));
    }
}

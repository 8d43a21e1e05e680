//! From a reading's JSON to the tensors of one row.

use std::borrow::Cow;

use bellwether_package::sections::{Contract, Dim, Port};
use bellwether_runtime::Tensor;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::elements;
use crate::api::request::{RequestError, without_nan};
use crate::config::Readings;

/// Why a reading has no answer. Its sender, or the configuration, has to be mended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadingError {
    #[error("the reading is not JSON")]
    Json(#[source] serde_json::Error),
    #[error("the reading has no value at {at}, where {of} is looked for")]
    Absent { at: String, of: String },
    #[error("the reading has no single value at {at}, where {of} is looked for")]
    NoValue { at: String, of: String },
    #[error(
        "input {input} takes {elements} values for a row and the release names {fields} of them: \
         say under [readings.inputs] where in a reading they are"
    )]
    Unnamed {
        input: String,
        elements: usize,
        fields: usize,
    },
    #[error("the reading is no object, so the answer cannot be put into it")]
    NoObject,
    #[error(transparent)]
    Element(#[from] RequestError),
}

/// Reads JSON; a bare NaN, as Python writes it, is taken for `null`.
pub(super) fn parse(payload: &[u8]) -> Result<Value, ReadingError> {
    serde_json::from_slice(payload).or_else(|error| match without_nan(payload) {
        Cow::Owned(text) => serde_json::from_slice(&text).map_err(ReadingError::Json),
        Cow::Borrowed(_) => Err(ReadingError::Json(error)),
    })
}

/// The tensors that the contract asks for, of one row.
pub(super) fn tensors(
    reading: &Value,
    contract: &Contract,
    readings: &Readings,
) -> Result<Vec<Tensor>, ReadingError> {
    let tensor = |port: &Port| {
        let shape: Vec<u32> = port.shape.iter().map(one_row).collect();
        let data = match readings.inputs.get(&port.name) {
            Some(at) => whole(reading, at, &port.name)?.to_string(),
            None => by_fields(reading, port, &shape, readings)?,
        };
        let data = RawValue::from_string(data).map_err(ReadingError::Json)?;
        Ok(elements::of_json(
            port.name.clone(),
            port.dtype,
            shape,
            &data,
        )?)
    };
    contract.inputs.iter().map(tensor).collect()
}

fn one_row(dim: &Dim) -> u32 {
    match dim {
        Dim::Batch => 1,
        Dim::Fixed(size) => *size,
    }
}

fn whole<'a>(reading: &'a Value, at: &str, of: &str) -> Result<&'a Value, ReadingError> {
    reading.pointer(at).ok_or_else(|| ReadingError::Absent {
        at: at.to_owned(),
        of: of.to_owned(),
    })
}

/// The values of a port's fields as a JSON list. `null` is a missing value; a value that is not
/// there at all is more likely a mistake.
fn by_fields(
    reading: &Value,
    port: &Port,
    shape: &[u32],
    readings: &Readings,
) -> Result<String, ReadingError> {
    let elements = shape.iter().map(|size| *size as usize).product::<usize>();
    if elements != port.fields.len() {
        return Err(ReadingError::Unnamed {
            input: port.name.clone(),
            elements,
            fields: port.fields.len(),
        });
    }
    let mut values = Vec::with_capacity(elements);
    for field in &port.fields {
        let at = match readings.fields.get(&field.name) {
            Some(at) => Cow::Borrowed(at.as_str()),
            None => Cow::Owned(pointer(&field.name)),
        };
        let value = whole(reading, &at, &field.name)?;
        if value.is_array() || value.is_object() {
            return Err(ReadingError::NoValue {
                at: at.into_owned(),
                of: field.name.clone(),
            });
        }
        values.push(value);
    }
    serde_json::to_string(&values).map_err(ReadingError::Json)
}

/// The JSON pointer to a key of the outermost object (RFC 6901).
fn pointer(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests;

//! Requests of the Open Inference Protocol v2: JSON, and the binary tensor data extension.
//!
//! The body is one JSON object; with the header [`HEADER_LENGTH`] it says how many bytes of the
//! body are JSON, and the rest is tensors, in the order of the inputs that tell their
//! `binary_data_size`. JSON has no NaN: a missing reading is `null` in floating-point data. Data
//! may be flat or nested; the shape decides.

use std::borrow::Cow;

use bellwether_package::sections::{Contract, Dim, PORT_NAME_BYTES_MAX, Port};
use bellwether_runtime::{BATCH_MAX, Tensor};
use serde::Deserialize;
use serde::de;
use serde_json::value::RawValue;

use super::elements;

/// The header that tells how much of a body is JSON; the rest is tensors.
pub const HEADER_LENGTH: &str = "inference-header-content-length";
/// Rows of one request at most: what one worker answers well within a deadline.
pub const ROWS_MAX: u32 = BATCH_MAX;
/// Tensors of one request at most, and outputs asked for at most: as many as a contract has ports.
pub const TENSORS_MAX: usize = bellwether_package::sections::PORTS_MAX;
/// Dimensions of a tensor at most.
pub const DIMENSIONS_MAX: usize = bellwether_package::sections::DIMS_MAX;
/// Longest id of a request in bytes: it is given back.
pub const ID_BYTES_MAX: usize = 256;

/// What an application asks, read and checked as far as the request itself goes.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// Given back in the answer.
    pub id: Option<String>,
    /// The raw readings.
    pub inputs: Vec<Tensor>,
    /// The outputs asked for, each with whether it is wanted as binary data; `None`: all.
    pub outputs: Option<Vec<(String, Option<bool>)>>,
    /// Whether outputs are binary where nothing else is said.
    pub binary: bool,
}

/// Why a request cannot be read. The application has to mend it.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not JSON, or not of this shape.
    #[error("not an inference request")]
    Json(#[source] serde_json::Error),
    /// The header tells more JSON than there is.
    #[error("{HEADER_LENGTH} must be a number of bytes, at most the body's {body}")]
    HeaderLength {
        /// Bytes of the body.
        body: usize,
    },
    /// The id is too long.
    #[error("the id is longer than {ID_BYTES_MAX} bytes")]
    Id,
    /// No or too many inputs or outputs.
    #[error("a request has 1 to {TENSORS_MAX} inputs, and at most {TENSORS_MAX} outputs")]
    Tensors,
    /// What the agent does not have.
    #[error("{what} is not supported here; {instead}")]
    Unsupported {
        /// The parameter.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
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
    /// Neither or both of JSON and binary data.
    #[error("input {name}: give either `data` or `binary_data_size`")]
    Data {
        /// The input.
        name: String,
    },
    /// Data that do not fill the shape.
    #[error("input {name}: its data do not fill its shape, which has {expected} elements")]
    Length {
        /// The input.
        name: String,
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
        datatype: &'static str,
    },
    /// Binary data of another length than the inputs tell.
    #[error("the inputs tell {told} bytes of binary data, {found} bytes came")]
    Binary {
        /// Sum of `binary_data_size`.
        told: u64,
        /// Bytes after the JSON.
        found: usize,
    },
    /// A body without JSON, which only a model with one plain input takes.
    #[error("a body of binary data alone needs a model with one input, and whole rows of it")]
    Raw,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<BodyParameters>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default)]
    outputs: Option<Vec<Output>>,
}

// Parameters are open by the protocol: those that are not known here change no answer. The ones
// that would are listed, so that they are refused instead of ignored.
#[derive(Default, Deserialize)]
struct BodyParameters {
    #[serde(default)]
    binary_data_output: Option<bool>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Vec<u32>,
    datatype: String,
    #[serde(default)]
    parameters: Option<InputParameters>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct InputParameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
    #[serde(default)]
    shared_memory_region: Option<de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<OutputParameters>,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    classification: Option<de::IgnoredAny>,
    #[serde(default)]
    shared_memory_region: Option<de::IgnoredAny>,
}

/// Reads a request. `header_length` is the value of [`HEADER_LENGTH`], if it was sent.
///
/// # Errors
///
/// [`RequestError`], the first thing found.
pub fn read(
    body: &[u8],
    header_length: Option<&str>,
    contract: &Contract,
) -> Result<Request, RequestError> {
    let told = RequestError::HeaderLength { body: body.len() };
    let (json, binary) = match header_length {
        None => (body, &[][..]),
        Some(text) => {
            let length = text.trim().parse().map_err(|_| told)?;
            let told = RequestError::HeaderLength { body: body.len() };
            body.split_at_checked(length).ok_or(told)?
        }
    };
    if json.is_empty() && header_length.is_some() {
        return raw(binary, contract);
    }
    match serde_json::from_slice(json) {
        Ok(body) => check(body, binary),
        Err(error) => {
            let Cow::Owned(text) = without_nan(json) else {
                return Err(RequestError::Json(error));
            };
            check(
                serde_json::from_slice(&text).map_err(RequestError::Json)?,
                binary,
            )
        }
    }
}

/// A body without JSON: all of it is the one input's elements.
fn raw(binary: &[u8], contract: &Contract) -> Result<Request, RequestError> {
    let [port] = contract.inputs.as_slice() else {
        return Err(RequestError::Raw);
    };
    let shape = raw_shape(port, binary.len()).ok_or(RequestError::Raw)?;
    let name = port.name.clone();
    let input = elements::of_bytes(&name, port.dtype, &shape, binary)?;
    Ok(Request {
        id: None,
        inputs: vec![input],
        outputs: None,
        binary: true,
    })
}

fn raw_shape(port: &Port, bytes: usize) -> Option<Vec<u32>> {
    let rows = port.shape.iter().filter(|dim| **dim == Dim::Batch).count();
    let fixed = port
        .shape
        .iter()
        .try_fold(port.dtype.bytes(), |all, dim| match dim {
            Dim::Batch => Some(all),
            Dim::Fixed(size) => all.checked_mul(*size as usize),
        })?;
    let batch = match rows {
        0 => 1,
        1 if fixed > 0 && bytes.is_multiple_of(fixed) => u32::try_from(bytes / fixed).ok()?,
        _ => return None,
    };
    let size = |dim: &Dim| match dim {
        Dim::Batch => batch,
        Dim::Fixed(size) => *size,
    };
    Some(port.shape.iter().map(size).collect())
}

fn check(body: Body<'_>, mut binary: &[u8]) -> Result<Request, RequestError> {
    if body.id.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
        return Err(RequestError::Id);
    }
    let outputs = body.outputs.filter(|outputs| !outputs.is_empty());
    let too_many = outputs
        .as_ref()
        .is_some_and(|outputs| outputs.len() > TENSORS_MAX);
    if body.inputs.is_empty() || body.inputs.len() > TENSORS_MAX || too_many {
        return Err(RequestError::Tensors);
    }
    let outputs = outputs
        .map(|outputs| outputs.into_iter().map(asked).collect())
        .transpose()?;
    check_binary(&body.inputs, binary.len())?;
    let inputs = body.inputs.into_iter();
    Ok(Request {
        id: body.id,
        inputs: inputs
            .map(|input| tensor(input, &mut binary))
            .collect::<Result<_, _>>()?,
        outputs,
        binary: body
            .parameters
            .and_then(|parameters| parameters.binary_data_output)
            .unwrap_or(false),
    })
}

fn asked(output: Output) -> Result<(String, Option<bool>), RequestError> {
    let parameters = output.parameters.unwrap_or_default();
    if parameters.classification.is_some() {
        return Err(RequestError::Unsupported {
            what: "classification",
            instead: "rank the output yourself",
        });
    }
    if parameters.shared_memory_region.is_some() {
        return Err(SHARED_MEMORY);
    }
    Ok((output.name, parameters.binary_data))
}

const SHARED_MEMORY: RequestError = RequestError::Unsupported {
    what: "shared memory",
    instead: "send tensors as binary data",
};

fn check_binary(inputs: &[Input<'_>], found: usize) -> Result<(), RequestError> {
    let sizes = inputs
        .iter()
        .filter_map(|input| input.parameters.as_ref()?.binary_data_size);
    let told = sizes.fold(0_u64, u64::saturating_add);
    if usize::try_from(told) == Ok(found) {
        Ok(())
    } else {
        Err(RequestError::Binary { told, found })
    }
}

fn tensor(input: Input<'_>, binary: &mut &[u8]) -> Result<Tensor, RequestError> {
    let Input {
        name,
        shape,
        datatype: told,
        parameters,
        data,
    } = input;
    let too_many_rows = shape.first().is_some_and(|rows| *rows > ROWS_MAX);
    if too_many_rows || shape.len() > DIMENSIONS_MAX {
        return Err(RequestError::Shape { name });
    }
    let Some(dtype) = elements::DTYPES
        .into_iter()
        .find(|dtype| elements::datatype(*dtype) == told)
    else {
        return Err(RequestError::Datatype {
            name,
            datatype: told,
        });
    };
    let parameters = parameters.unwrap_or_default();
    if parameters.shared_memory_region.is_some() {
        return Err(SHARED_MEMORY);
    }
    match (parameters.binary_data_size, data) {
        (Some(size), None) => {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let (bytes, rest) = binary.split_at(size.min(binary.len()));
            *binary = rest;
            elements::of_bytes(&name, dtype, &shape, bytes)
        }
        (None, Some(data)) => elements::of_json(name, dtype, shape, data),
        _ => Err(RequestError::Data { name }),
    }
}

/// `text` with `null` where Python's JSON writers put a bare `NaN`: a missing reading.
pub(crate) fn without_nan(text: &[u8]) -> Cow<'_, [u8]> {
    const NAN: &[u8] = b"NaN";
    let mut mended = Vec::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < text.len() {
        match text[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' if !in_string && text[at..].starts_with(NAN) => {
                mended.extend(&text[copied..at]);
                mended.extend(b"null");
                at += NAN.len() - 1;
                copied = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    mended.extend(&text[copied..]);
    Cow::Owned(mended)
}

/// As much of a name in a request as is quoted back.
pub(crate) fn shortened(name: &str) -> String {
    name.chars().take(PORT_NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests;

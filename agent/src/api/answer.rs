//! Answers of the Open Inference Protocol v2: JSON, and the binary tensor data extension.
//!
//! A NaN or infinite answer is `null` in JSON and itself in binary data.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bellwether_package::sections::DType;
use bellwether_runtime::Tensor;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::elements::datatype;
use super::request::{HEADER_LENGTH, Request, shortened};

/// What goes into an answer beside its tensors.
#[derive(Debug, Serialize)]
pub struct Head {
    /// The slot.
    pub model_name: String,
    /// The version of the model that answered.
    pub model_version: String,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the protocol leaves to us.
    pub parameters: Parameters,
}

/// What the protocol leaves to us.
#[derive(Debug, Serialize)]
pub struct Parameters {
    /// The release that answered.
    pub release: String,
    /// Names the answer, for labels that come later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<String>,
}

/// A request asks for an output that the model does not have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model has no output `{0}`")]
pub struct UnknownOutput(pub String);

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    head: &'a Head,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    shape: &'a [u32],
    datatype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

impl<'a> Output<'a> {
    fn of(tensor: &'a Tensor, binary: bool) -> Self {
        let binary_data_size = tensor.bytes.len();
        Self {
            name: &tensor.name,
            shape: &tensor.shape,
            datatype: datatype(tensor.dtype),
            parameters: binary.then_some(OutputParameters { binary_data_size }),
            data: (!binary).then_some(Data(tensor)),
        }
    }
}

#[derive(Serialize)]
struct OutputParameters {
    binary_data_size: usize,
}

/// The outputs that were asked for, each with whether it is wanted as binary data. `names` are
/// those of the model.
///
/// # Errors
///
/// [`UnknownOutput`] when one is not among `names`.
pub fn chosen<'a>(
    request: &Request,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<Vec<(usize, bool)>, UnknownOutput> {
    let Some(outputs) = &request.outputs else {
        return Ok(names
            .enumerate()
            .map(|(i, _)| (i, request.binary))
            .collect());
    };
    let find = |(name, binary): &(String, Option<bool>)| {
        let place = names.clone().position(|known| known == name);
        let place = place.ok_or_else(|| UnknownOutput(shortened(name)))?;
        Ok((place, binary.unwrap_or(request.binary)))
    };
    outputs.iter().map(find).collect()
}

/// Writes an answer. `chosen` are places in `tensors`, with whether each is wanted as binary data.
pub fn write(head: &Head, tensors: &[Tensor], chosen: &[(usize, bool)]) -> Response {
    let chosen = || {
        let tensor = |(place, binary): &(usize, bool)| Some((tensors.get(*place)?, *binary));
        chosen.iter().filter_map(tensor)
    };
    let outputs = chosen().map(|(tensor, binary)| Output::of(tensor, binary));
    let outputs = outputs.collect();
    let mut body = serde_json::to_vec(&Body { head, outputs }).expect("an answer has plain fields");
    if !chosen().any(|(_, binary)| binary) {
        return ([(CONTENT_TYPE, "application/json")], body).into_response();
    }
    let length = HeaderValue::from(body.len());
    for (tensor, _) in chosen().filter(|(_, binary)| *binary) {
        body.extend(&tensor.bytes);
    }
    let kind = HeaderValue::from_static("application/octet-stream");
    let length_name = HeaderName::from_static(HEADER_LENGTH);
    ([(CONTENT_TYPE, kind), (length_name, length)], body).into_response()
}

/// A tensor's elements as a flat list.
pub(crate) struct Data<'a>(pub(crate) &'a Tensor);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tensor = self.0;
        match tensor.dtype {
            // Through f64 these would lose digits, or gain some.
            DType::F32 => list(serializer, tensor.to_vec::<f32>()),
            DType::I64 => list(serializer, tensor.to_vec::<i64>()),
            DType::U64 => list(serializer, tensor.to_vec::<u64>()),
            DType::F64 => list(serializer, tensor.to_vec::<f64>()),
            DType::F16 => {
                let values = tensor.values().map(|value| value as f32);
                list(serializer, Some(values))
            }
            DType::Bool => list(serializer, Some(tensor.values().map(|value| value != 0.0))),
            _ => list(serializer, Some(tensor.values().map(|value| value as i64))),
        }
    }
}

fn list<S: Serializer, T: Serialize>(
    serializer: S,
    values: Option<impl IntoIterator<Item = T>>,
) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for value in values.into_iter().flatten() {
        list.serialize_element(&value)?;
    }
    list.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            model_name: "anomaly".into(),
            model_version: "1.0.0".into(),
            id: None,
            parameters: Parameters {
                release: "ab".into(),
                prediction: None,
            },
        }
    }

    fn body(response: Response) -> (Option<usize>, Vec<u8>) {
        let length = response.headers().get(HEADER_LENGTH);
        let length = length.map(|text| text.to_str().unwrap().parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20);
        (length, runtime.unwrap().block_on(bytes).unwrap().to_vec())
    }

    #[test]
    fn every_datatype_is_told_exactly() {
        let json = |tensor: Tensor| {
            let (_, body) = body(write(&head(), &[tensor], &[(0, false)]));
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            body["outputs"][0]["data"].to_string()
        };
        assert_eq!(
            json(Tensor::of::<f32>(
                "y",
                &[3],
                &[0.1, f32::NAN, f32::INFINITY]
            )),
            "[0.1,null,null]"
        );
        assert_eq!(json(Tensor::of::<f64>("y", &[1], &[0.1])), "[0.1]");
        assert_eq!(
            json(Tensor::of::<i64>("y", &[1], &[i64::MIN])),
            "[-9223372036854775808]"
        );
        assert_eq!(
            json(Tensor::of::<u64>("y", &[1], &[u64::MAX])),
            "[18446744073709551615]"
        );
        assert_eq!(json(Tensor::of::<u8>("y", &[2], &[0, 255])), "[0,255]");
        let yes = Tensor {
            name: "y".into(),
            dtype: DType::Bool,
            shape: vec![2],
            bytes: vec![1, 0],
        };
        assert_eq!(json(yes), "[true,false]");
        let half = Tensor {
            name: "y".into(),
            dtype: DType::F16,
            shape: vec![1],
            bytes: half::f16::from_f32(1.5).to_le_bytes().to_vec(),
        };
        assert_eq!(json(half), "[1.5]");
    }

    #[test]
    fn binary_outputs_follow_the_json_in_the_order_that_was_asked_for() {
        let tensors = [
            Tensor::of::<f32>("a", &[1], &[f32::NAN]),
            Tensor::of::<u8>("b", &[2], &[7, 8]),
            Tensor::of::<i64>("c", &[1], &[9]),
        ];
        let chosen = [(1, true), (2, false), (0, true)];
        let (length, body) = body(write(&head(), &tensors, &chosen));
        let (json, binary) = body.split_at(length.unwrap());
        let json: serde_json::Value = serde_json::from_slice(json).unwrap();
        assert_eq!(json["outputs"][0]["name"], "b");
        assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 2);
        assert_eq!(json["outputs"][0].get("data"), None);
        assert_eq!(json["outputs"][1]["data"], serde_json::json!([9]));
        assert_eq!(binary, [&[7, 8][..], &f32::NAN.to_le_bytes()].concat());
    }

    #[test]
    fn an_output_that_the_model_lacks_is_refused_by_name() {
        let request = |outputs, binary| Request {
            id: None,
            inputs: Vec::new(),
            outputs,
            binary,
        };
        let names = || ["a", "b"].into_iter();
        assert_eq!(
            chosen(&request(None, true), names()),
            Ok(vec![(0, true), (1, true)])
        );
        let two = vec![("b".into(), Some(false)), ("a".into(), None)];
        assert_eq!(
            chosen(&request(Some(two), true), names()),
            Ok(vec![(1, false), (0, true)])
        );
        let one = vec![("c".into(), None)];
        assert_eq!(
            chosen(&request(Some(one), true), names()),
            Err(UnknownOutput("c".into()))
        );
    }
}

//! From a release's outputs to the JSON that is published.

use bellwether_package::SlotName;
use bellwether_package::sections::Port;
use bellwether_runtime::Tensor;
use serde_json::{Map, Value, json};

use super::reading::ReadingError;
use crate::api::answer::Data;
use crate::labels::PredictionId;
use crate::serving::{Answering, Serving};

/// What answers, as every message about it tells.
fn of_release(slot: &SlotName, serving: &Serving) -> Value {
    json!({
        "slot": slot.as_str(),
        "model": serving.model(),
        "version": serving.version(),
        "release": serving.release().to_string(),
    })
}

/// The answer to one reading.
pub(super) fn answer(
    slot: &SlotName,
    serving: &Serving,
    prediction: Option<PredictionId>,
    outputs: &[Tensor],
) -> Value {
    let mut answer = of_release(slot, serving);
    if let Some(prediction) = prediction {
        answer["prediction"] = prediction.to_string().into();
    }
    let ports = &serving.contract().outputs;
    answer["outputs"] = outputs
        .iter()
        .map(|tensor| (tensor.name.clone(), values(tensor, ports)))
        .collect::<Map<_, _>>()
        .into();
    answer
}

/// By field where each value has one, else as a list. What is not finite is `null`.
fn values(tensor: &Tensor, ports: &[Port]) -> Value {
    let values = serde_json::to_value(Data(tensor)).unwrap_or(Value::Null);
    let port = ports.iter().find(|port| port.name == tensor.name);
    match (values, port) {
        (Value::Array(values), Some(port)) if values.len() == port.fields.len() => {
            let names = port.fields.iter().map(|field| field.name.clone());
            names.zip(values).collect::<Map<_, _>>().into()
        }
        (values, _) => values,
    }
}

/// The reading with the answer in it, or the answer alone.
pub(super) fn put(reading: Value, key: Option<&str>, answer: Value) -> Result<Value, ReadingError> {
    match (key, reading) {
        (None, _) => Ok(answer),
        (Some(key), Value::Object(mut reading)) => {
            reading.insert(key.to_owned(), answer);
            Ok(Value::Object(reading))
        }
        (Some(_), _) => Err(ReadingError::NoObject),
    }
}

/// What is told of the slot: which release serves, or why none does and since when.
pub(super) fn state(slot: &SlotName, answering: Option<&Answering>) -> Value {
    match answering {
        Some(Answering::With(serving)) => {
            let mut state = of_release(slot, serving);
            state["serving"] = true.into();
            state
        }
        Some(Answering::Nothing(silence)) => json!({
            "slot": slot.as_str(),
            "serving": false,
            "reason": silence.why,
            "since": silence.since.0,
        }),
        None => gone(slot, "no release was ever assigned to this slot"),
    }
}

/// The state of a slot that nobody can ask.
pub(super) fn gone(slot: &SlotName, reason: &str) -> Value {
    json!({ "slot": slot.as_str(), "serving": false, "reason": reason })
}

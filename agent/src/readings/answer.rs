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
    // By way of text: a value of single precision keeps its few digits.
    let text = serde_json::to_string(&Data(tensor)).unwrap_or_default();
    let values = serde_json::from_str(&text).unwrap_or(Value::Null);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_what_is_not_finite_is_null() {
        let json = |tensor: Tensor| values(&tensor, &[]).to_string();
        let single = Tensor::of::<f32>("y", &[3], &[0.1, 0.906_439_1, f32::NAN]);
        assert_eq!(json(single), "[0.1,0.9064391,null]");
        assert_eq!(json(Tensor::of::<f64>("y", &[1], &[0.1])), "[0.1]");
        let whole = Tensor::of::<i64>("y", &[1], &[i64::MIN]);
        assert_eq!(json(whole), "[-9223372036854775808]");
        let large = Tensor::of::<u64>("y", &[1], &[u64::MAX]);
        assert_eq!(json(large), "[18446744073709551615]");
    }

    #[test]
    fn an_answer_is_put_into_an_object_and_into_nothing_else() {
        let into = |reading: Value, key| put(reading, key, json!(1));
        assert_eq!(
            into(json!({"a": 2}), Some("b")).unwrap(),
            json!({"a": 2, "b": 1})
        );
        assert_eq!(into(json!([2]), None).unwrap(), json!(1));
        assert!(matches!(
            into(json!([2]), Some("b")),
            Err(ReadingError::NoObject)
        ));
    }
}

//! From a message to its answer, one after the other.

use std::time::Duration;

use rumqttc::{AsyncClient, ClientError, QoS};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use super::Topic;
use super::answer;
use super::reading::{self, ReadingError};
use crate::causes::with_causes;
use crate::serving::{Answering, AskError};

/// A message's payload.
pub(super) type Payload = Vec<u8>;

/// Readings and answers are sent once. Nothing of them outlives the connection, and on one that
/// stands, acknowledgements would add nothing but packets: with a broker that leaves small ones to
/// Nagle's algorithm, as mosquitto does, each would hold up the next reading by 40 ms.
pub(super) const READINGS_QOS: QoS = QoS::AtMostOnce;
/// Longest answer in bytes: a reading, and as much again. The broker would end the connection over a
/// longer one.
pub(super) const ANSWER_BYTES_MAX: usize = 128 * 1024;
/// How often it is looked at whether the slot still serves what was told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why there is no answer.
enum Unanswered {
    /// The slot is silent; its state says why.
    Silent,
    /// The reading, or the configuration.
    Reading(ReadingError),
    /// The release refused it, as the reading does not fit its contract.
    Refused(String),
    /// The release, or its worker.
    Failed(String),
}

/// Answers readings and tells what serves, until nobody sends any more or the client is gone.
pub(super) async fn answer_all(
    topic: &Topic,
    client: &AsyncClient,
    waiting: &mut Receiver<Payload>,
) {
    let mut told = Value::Null;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let payload = tokio::select! {
            payload = waiting.recv() => match payload {
                None => return,
                payload => payload,
            },
            _ = look.tick() => None,
        };
        // First, so that nobody is told by silence.
        let mut sent = tell_state(topic, client, &mut told).await;
        if let (Ok(()), Some(payload)) = (&sent, payload) {
            sent = answer_one(topic, client, &payload).await;
        }
        if sent.is_err() {
            return;
        }
    }
}

async fn tell_state(
    topic: &Topic,
    client: &AsyncClient,
    told: &mut Value,
) -> Result<(), ClientError> {
    let readings = &topic.readings;
    let answering = topic.slots.answering(&readings.slot);
    let state = answer::state(&readings.slot, answering.as_ref());
    if state == *told {
        return Ok(());
    }
    let text = state.to_string();
    *told = state;
    client
        .publish(readings.state(), QoS::AtLeastOnce, true, text)
        .await
}

async fn answer_one(
    topic: &Topic,
    client: &AsyncClient,
    payload: &[u8],
) -> Result<(), ClientError> {
    let why = match ask(topic, payload).await {
        Ok(answer) => {
            topic.seen.note(|view| view.answered += 1);
            let to = &topic.readings.answers;
            return client.publish(to, READINGS_QOS, false, answer).await;
        }
        Err(Unanswered::Silent) => {
            topic.seen.note(|view| view.silent += 1);
            return Ok(());
        }
        Err(Unanswered::Reading(error)) => {
            topic.seen.note(|view| view.refused += 1);
            with_causes(&error)
        }
        Err(Unanswered::Refused(why)) => {
            topic.seen.note(|view| view.refused += 1);
            why
        }
        Err(Unanswered::Failed(why)) => {
            topic.seen.note(|view| view.failed += 1);
            why
        }
    };
    topic.seen.complain(&why);
    let error = json!({ "slot": topic.readings.slot.as_str(), "error": why });
    let to = topic.readings.errors();
    client
        .publish(to, READINGS_QOS, false, error.to_string())
        .await
}

async fn ask(topic: &Topic, payload: &[u8]) -> Result<String, Unanswered> {
    let readings = &topic.readings;
    let slot = &readings.slot;
    let Some(Answering::With(serving)) = topic.slots.answering(slot) else {
        return Err(Unanswered::Silent);
    };
    let reading = reading::parse(payload).map_err(Unanswered::Reading)?;
    let tensors = reading::tensors(&reading, serving.contract(), readings);
    let tensors = tensors.map_err(Unanswered::Reading)?;
    let asked = serving.clone();
    let answer = tokio::task::spawn_blocking(move || asked.ask(&tensors)).await;
    let outputs = match answer {
        Ok(Ok(outputs)) => outputs,
        Ok(Err(AskError::Input(why))) => return Err(Unanswered::Refused(why)),
        Ok(Err(AskError::Model(why) | AskError::Unavailable(why))) => {
            return Err(Unanswered::Failed(why));
        }
        Err(_) => return Err(Unanswered::Failed("the agent failed".to_owned())),
    };
    let prediction = topic.labels.remember(slot, &serving, &outputs);
    let answer = answer::answer(slot, &serving, prediction, &outputs);
    let answer = answer::put(reading, readings.put.as_deref(), answer);
    let answer = answer.map_err(Unanswered::Reading)?.to_string();
    if answer.len() > ANSWER_BYTES_MAX {
        let why = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
        return Err(Unanswered::Failed(why));
    }
    Ok(answer)
}

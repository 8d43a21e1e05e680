//! One topic's connection to its broker, again and again.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Packet,
    QoS,
};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Topic;
use super::answer;
use super::work::{self, ANSWER_BYTES_MAX, Payload, READINGS_QOS};
use crate::link::Backoff;

/// First range that the pause before another attempt is drawn from: the broker is near, and there
/// are few agents on it.
const SPREAD: Duration = Duration::from_secs(2);
/// Last such range.
const SPREAD_MAX: Duration = Duration::from_secs(60);
/// A connection that held for so long was a good one.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Between two pings; a dead connection is found out after twice that.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CONNECT_SECS_MAX: u64 = 10;
/// Largest message taken: a window of some thousand values as JSON. A broker that sends a larger one
/// loses the connection.
const PACKET_BYTES_MAX: usize = 64 * 1024;
/// What a message has beside its payload: its topic, and a few bytes.
const HEAD_BYTES_MAX: usize = 1024;
/// Answers on their way at once.
const IN_FLIGHT_MAX: u16 = 16;
/// Readings that wait for the model, as many as a gateway sends at once; what comes while so many
/// wait is left out.
const WAITING_MAX: usize = 128;
/// Longest password in bytes.
const PASSWORD_BYTES_MAX: u64 = 1024;
/// How long saying goodbye to a broker may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connection(Box<ConnectionError>),
    #[error("the password cannot be read from {path}: {source}")]
    Password {
        path: String,
        source: std::io::Error,
    },
    #[error("the broker refused the subscription")]
    Refused,
    #[error("the broker closed the connection")]
    Closed,
}

/// Keeps a connection up until the agent stops.
pub(super) async fn run(topic: Topic, mut stopped: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(SPREAD).up_to(SPREAD_MAX);
    let mut trouble = String::new();
    loop {
        let started = Instant::now();
        let Err(ended) = connection(&topic, &mut stopped).await else {
            return;
        };
        let why = ended.to_string();
        topic.seen.connected(Some(why.clone()));
        // A broker that is away for a month is told once.
        if why != trouble || started.elapsed() > STEADY_AFTER {
            let broker = &topic.readings.broker;
            tracing::warn!(%broker, topic = topic.readings.topic, cause = %why, "no readings");
            trouble = why;
        }
        if started.elapsed() > STEADY_AFTER {
            backoff.steady();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.pause()) => {}
            _ = stopped.changed() => return,
        }
    }
}

/// One connection; `Ok` when the agent stops.
async fn connection(topic: &Topic, stopped: &mut watch::Receiver<bool>) -> Result<(), Ended> {
    let (client, mut eventloop) = AsyncClient::new(options(topic)?, usize::from(IN_FLIGHT_MAX));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_SECS_MAX);
    eventloop.set_network_options(network);
    let (queue, mut waiting) = mpsc::channel(WAITING_MAX);
    tokio::select! {
        ended = receive(topic, &client, &mut eventloop, &queue) => Err(ended),
        () = work::answer_all(topic, &client, &mut waiting) => Err(Ended::Closed),
        _ = stopped.changed() => {
            goodbye(topic, &client, &mut eventloop).await;
            Ok(())
        }
    }
}

fn options(topic: &Topic) -> Result<MqttOptions, Ended> {
    let readings = &topic.readings;
    let mut mqtt = MqttOptions::new(&topic.client, &readings.broker.host, readings.broker.port);
    let lost = answer::gone(&readings.slot, "the agent's connection is lost");
    let will = LastWill::new(readings.state(), lost.to_string(), QoS::AtLeastOnce, true);
    mqtt.set_keep_alive(KEEP_ALIVE)
        .set_clean_session(true)
        .set_max_packet_size(PACKET_BYTES_MAX, ANSWER_BYTES_MAX + HEAD_BYTES_MAX)
        .set_inflight(IN_FLIGHT_MAX)
        .set_last_will(will);
    if let Some(user) = &readings.user {
        let password = readings
            .password_file
            .as_deref()
            .map(password)
            .transpose()?;
        mqtt.set_credentials(user, password.unwrap_or_default());
    }
    Ok(mqtt)
}

/// Read at each attempt: it may have been changed.
fn password(path: &Path) -> Result<String, Ended> {
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(PASSWORD_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| Ended::Password {
        path: path.display().to_string(),
        source,
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Polls until the connection ends.
async fn receive(
    topic: &Topic,
    client: &AsyncClient,
    eventloop: &mut EventLoop,
    queue: &mpsc::Sender<Payload>,
) -> Ended {
    loop {
        let packet = match eventloop.poll().await {
            Ok(Event::Incoming(packet)) => packet,
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => return Ended::Connection(Box::new(error)),
        };
        match packet {
            Packet::ConnAck(_) => {
                let asked = client.try_subscribe(&topic.readings.topic, READINGS_QOS);
                if asked.is_err() {
                    return Ended::Closed;
                }
            }
            Packet::SubAck(ack) => {
                use rumqttc::SubscribeReasonCode::Success;
                if !ack
                    .return_codes
                    .iter()
                    .all(|code| matches!(code, Success(_)))
                {
                    return Ended::Refused;
                }
                topic.seen.connected(None);
                tracing::info!(
                    broker = %topic.readings.broker, topic = topic.readings.topic, "readings come"
                );
            }
            // A retained one is old; nobody knows how old.
            Packet::Publish(publish) if !publish.retain => {
                match queue.try_send(publish.payload.to_vec()) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => {
                        topic.seen.note(|view| view.left_out += 1);
                        topic
                            .seen
                            .complain("they come faster than the model answers");
                    }
                    Err(TrySendError::Closed(_)) => return Ended::Closed,
                }
            }
            Packet::Disconnect => return Ended::Closed,
            _ => {}
        }
    }
}

/// Leaves word that nothing answers any more; the last will is for those who cannot.
async fn goodbye(topic: &Topic, client: &AsyncClient, eventloop: &mut EventLoop) {
    let gone = answer::gone(&topic.readings.slot, "the agent was stopped").to_string();
    let state = topic.readings.state();
    let left = client
        .try_publish(state, QoS::AtLeastOnce, true, gone)
        .and_then(|()| client.try_disconnect());
    if left.is_err() || !topic.seen.view().connected {
        return;
    }
    let until_ended = async { while eventloop.poll().await.is_ok() {} };
    let _ = tokio::time::timeout(GOODBYE_WITHIN, until_ended).await;
}

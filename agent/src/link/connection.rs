//! One connection, from its settings to its end.

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::assignment::SIGNED_ASSIGNMENT_BYTES_MAX;
use bellwether_protocol::{BootId, DeviceId, Message as _, Report, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use rustls::ClientConfig;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, timeout_at};

use super::{LinkEvent, Sending};

/// How long connecting may take, TLS included.
const CONNECT_SECS_MAX: u64 = 30;
/// How long the broker may take to answer what it must answer: a ping, or a report that asks for
/// it. Longer, and the connection is dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// An event loop that says nothing for so much longer than the keepalive is wedged.
const WEDGED_AFTER: Duration = Duration::from_secs(60);
/// Reports on their way at once; the rest waits in the outbox.
pub(super) const IN_FLIGHT_MAX: u16 = 16;
/// Largest packet taken or sent: the larger of a signed assignment and a report, with headers.
const PACKET_BYTES_MAX: u32 = {
    let report = Report::BYTES_MAX;
    let largest = if report > SIGNED_ASSIGNMENT_BYTES_MAX {
        report
    } else {
        SIGNED_ASSIGNMENT_BYTES_MAX
    };
    largest as u32 + 1024
};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("the broker does not answer within {} s", ANSWER_WITHIN.as_secs())]
    Unanswered,
    #[error("the connection's event loop makes no progress")]
    Wedged,
    #[error("the broker closed the session")]
    Closed,
    #[error("the device has a new certificate")]
    Renewed,
}

/// What one connection is made with.
pub(super) struct Settings {
    pub(super) device: DeviceId,
    pub(super) boot: BootId,
    pub(super) broker: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) keep_alive: Duration,
    pub(super) has_will: bool,
}

impl Settings {
    pub(super) fn mqtt(&self) -> MqttOptions {
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_SECS_MAX);
        let mut mqtt = MqttOptions::new(self.device.as_str(), &self.host, self.port);
        mqtt.set_keep_alive(self.keep_alive)
            .set_clean_start(true)
            .set_connection_timeout(CONNECT_SECS_MAX)
            .set_network_options(network)
            .set_max_packet_size(Some(PACKET_BYTES_MAX))
            .set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX)
            .set_transport(Transport::Tls(TlsConfiguration::Rustls(self.tls.clone())));
        if self.has_will {
            let topic = Topic::Gone(self.device.clone()).name();
            let boot = self.boot.0.to_le_bytes();
            mqtt.set_last_will(LastWill::new(
                topic.as_str(),
                boot.to_vec(),
                QoS::AtLeastOnce,
                false,
                None,
            ));
        }
        mqtt
    }
}

/// Polls until the connection ends; `Ok` when nobody listens any more.
pub(super) async fn receive(
    eventloop: &mut EventLoop,
    client: &AsyncClient,
    settings: &Settings,
    events: &Sender<LinkEvent>,
) -> Result<(), Ended> {
    // Set while the broker owes an answer.
    let mut owed_by: Option<Instant> = None;
    loop {
        let wedged_at = Instant::now() + settings.keep_alive + WEDGED_AFTER;
        let event = match timeout_at(owed_by.unwrap_or(wedged_at), eventloop.poll()).await {
            Ok(event) => event?,
            Err(_) if owed_by.is_some() => return Err(Ended::Unanswered),
            Err(_) => return Err(Ended::Wedged),
        };
        let packet = match event {
            Event::Incoming(packet) => packet,
            // A publication without a number asks for no answer.
            Event::Outgoing(Outgoing::Publish(0)) => continue,
            Event::Outgoing(Outgoing::PingReq | Outgoing::Publish(_) | Outgoing::Subscribe(_)) => {
                owed_by.get_or_insert(Instant::now() + ANSWER_WITHIN);
                continue;
            }
            Event::Outgoing(_) => continue,
        };
        owed_by = None;
        let Some(told) = understand(packet, client, &settings.device)? else {
            continue;
        };
        if events.send(told).await.is_err() {
            return Ok(());
        }
    }
}

/// What a packet is to the agent, if anything.
fn understand(
    packet: Packet,
    client: &AsyncClient,
    device: &DeviceId,
) -> Result<Option<LinkEvent>, Ended> {
    match packet {
        Packet::ConnAck(_) => {
            // Assignments are few, and matter. A lost acknowledgement costs a report sent again.
            for (topic, qos) in [
                (Topic::Assignment(device.clone()), QoS::AtLeastOnce),
                (Topic::Documents(device.clone()), QoS::AtLeastOnce),
                (Topic::Ack(device.clone()), QoS::AtMostOnce),
            ] {
                // The queue was made empty with this connection, and holds more than these.
                client
                    .try_subscribe(topic.name().as_str(), qos)
                    .map_err(|_| Ended::Wedged)?;
            }
            Ok(Some(LinkEvent::Up))
        }
        Packet::Publish(publish) => Ok(of_topic(&publish, device)),
        Packet::Disconnect(_) => Err(Ended::Closed),
        _ => Ok(None),
    }
}

fn of_topic(publish: &Publish, device: &DeviceId) -> Option<LinkEvent> {
    let topic = std::str::from_utf8(&publish.topic).ok().map(Topic::parse);
    match topic {
        Some(Ok(Topic::Assignment(of))) if of == *device => {
            Some(LinkEvent::Assignment(publish.payload.to_vec()))
        }
        Some(Ok(Topic::Documents(of))) if of == *device => {
            Some(LinkEvent::Documents(publish.payload.to_vec()))
        }
        Some(Ok(Topic::Ack(of))) if of == *device => Some(LinkEvent::Ack(publish.payload.to_vec())),
        _ => {
            tracing::warn!("a message on a topic of no concern is ignored");
            None
        }
    }
}

/// Publishes until nobody reports any more.
pub(super) async fn send(client: &AsyncClient, device: &DeviceId, reports: &mut Receiver<Sending>) {
    let topic = Topic::Report(device.clone()).name();
    while let Some(report) = reports.recv().await {
        let qos = if report.again {
            QoS::AtLeastOnce
        } else {
            QoS::AtMostOnce
        };
        let sent = client
            .publish(topic.as_str(), qos, false, report.payload)
            .await;
        if sent.is_err() {
            // The event loop is gone; the other half says so.
            std::future::pending::<()>().await;
        }
    }
}

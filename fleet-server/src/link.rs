//! The server's own client of the broker: assignments and acknowledgements down, reports up.
//!
//! It connects like a device does, with a certificate of the CA; its name is reserved. What it
//! publishes may be lost: assignments are published anew on a timer, and a device that hears no
//! acknowledgement sends its report again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::topic::{GONE_FILTER, INGEST_FILTER};
use bellwether_protocol::{BootId, DeviceId, Topic};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};

use crate::ca::SERVER_CLIENT_NAME;
use crate::tls::reachable;

/// Requests that wait for the event loop; whoever publishes waits while it is full.
const REQUESTS_MAX: usize = 256;
/// Reports that wait for ingest. Beyond that they are dropped: the outboxes send them again.
const REPORTS_WAITING_MAX: usize = 4096;
/// Largest packet taken, in bytes.
const PACKET_BYTES_MAX: u32 = 32 * 1024;
/// How long a publication may wait for the event loop.
const PUBLISH_WITHIN: Duration = Duration::from_secs(5);
/// Pauses between attempts to connect: doubled each time, up to the greatest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Silence after which the broker is taken for gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What arrived from a device, by the topic. The broker lets nobody else publish there.
#[derive(Debug)]
pub enum Arrival {
    /// A report, still to be judged.
    Report(DeviceId, Bytes),
    /// The broker lost its connection, and this boot's last will says so.
    Gone(DeviceId, BootId),
}

/// The publishing side of the link.
#[derive(Debug, Clone)]
pub struct Link {
    client: AsyncClient,
    connected: watch::Receiver<bool>,
}

/// The receiving side, and the event loop that must be run.
pub struct LinkLoop {
    client: AsyncClient,
    events: EventLoop,
    connected: watch::Sender<bool>,
    arrivals: mpsc::Sender<Arrival>,
}

/// Connects to the broker at `address` as the server.
pub fn open(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> (Link, LinkLoop, mpsc::Receiver<Arrival>) {
    let host = reachable(address).ip().to_string();
    let mut options = MqttOptions::new(SERVER_CLIENT_NAME, host, address.port());
    options
        .set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)))
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(Some(PACKET_BYTES_MAX));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, events) = AsyncClient::new(options, REQUESTS_MAX);
    let (connected_tx, connected) = watch::channel(false);
    let (arrivals_tx, arrivals) = mpsc::channel(REPORTS_WAITING_MAX);
    let link = Link {
        client: client.clone(),
        connected,
    };
    (
        link,
        LinkLoop {
            client,
            events,
            connected: connected_tx,
            arrivals: arrivals_tx,
        },
        arrivals,
    )
}

impl Link {
    /// Whether the link is up.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// A watch on whether the link is up.
    pub fn connection(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Publishes a device's signed assignment, retained. Whether it was handed to the event loop.
    pub async fn assign(&self, device: &DeviceId, signed: Vec<u8>) -> bool {
        self.publish(Topic::Assignment(device.clone()), true, signed)
            .await
    }

    /// Publishes which trust documents there are, retained. Whether it was handed to the event loop.
    pub async fn notice(&self, device: &DeviceId, documents: Vec<u8>) -> bool {
        self.publish(Topic::Documents(device.clone()), true, documents)
            .await
    }

    /// Publishes an acknowledgement. Whether it was handed to the event loop.
    pub async fn acknowledge(&self, device: &DeviceId, ack: Vec<u8>) -> bool {
        self.publish(Topic::Ack(device.clone()), false, ack).await
    }

    async fn publish(&self, topic: Topic, retain: bool, payload: Vec<u8>) -> bool {
        let topic = topic.name();
        let sent = self
            .client
            .publish(topic.as_str(), QoS::AtLeastOnce, retain, payload);
        matches!(tokio::time::timeout(PUBLISH_WITHIN, sent).await, Ok(Ok(())))
    }
}

impl LinkLoop {
    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    pause = PAUSE_MIN;
                    let subscribed = [GONE_FILTER, INGEST_FILTER].iter().all(|filter| {
                        let subscribed = self.client.try_subscribe(*filter, QoS::AtLeastOnce);
                        subscribed.is_ok()
                    });
                    if !subscribed {
                        tracing::error!("the link's queue is full; reports are not subscribed to");
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    tracing::info!("connected to the broker");
                    self.connected.send_replace(true);
                }
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    self.arrived(&message.topic, message.payload);
                }
                Ok(_) => {}
                Err(cause) => {
                    self.connected.send_replace(false);
                    tracing::warn!("the link to the broker is down: {cause}");
                    // What was to be published is stale by then; it is made anew from the database.
                    self.events.pending.clear();
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn arrived(&self, topic: &[u8], payload: Bytes) {
        let topic = std::str::from_utf8(topic)
            .ok()
            .and_then(|text| Topic::parse(text).ok());
        let arrival = match topic {
            Some(Topic::Report(device)) => Arrival::Report(device, payload),
            Some(Topic::Gone(device)) => {
                let Ok(boot) = <[u8; 8]>::try_from(payload.as_ref()) else {
                    return;
                };
                Arrival::Gone(device, BootId(u64::from_le_bytes(boot)))
            }
            _ => return,
        };
        if self.arrivals.try_send(arrival).is_err() {
            tracing::warn!("too many reports wait; one was dropped and will be sent again");
        }
    }
}

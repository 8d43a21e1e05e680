//! The MQTT 5 link: assignments and acknowledgements down, reports up.
//!
//! The link keeps nothing: what matters lies in the outbox, and the server publishes desired
//! state anew. So each connection starts clean with a fresh event loop, and one that stops making
//! progress is thrown away.

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::assignment::SIGNED_ASSIGNMENT_BYTES_MAX;
use bellwether_protocol::{DeviceId, Message as _, Report, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use rustls::ClientConfig;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, timeout};

/// Seconds between pings. A mobile network forgets an idle connection after a few minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Without a packet from the broker for so long the event loop is wedged, and thrown away.
const WEDGED_AFTER: Duration = Duration::from_secs(80);
/// How long connecting may take, TLS included.
const CONNECT_SECS_MAX: u64 = 15;
/// First pause after a lost connection; it doubles up to the cap.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest pause: a fleet that lost its server for days still returns within minutes.
const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// A connection that held for so long was a good one, and the next pause is the shortest again.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Reports on their way at once; the rest waits in the outbox.
const IN_FLIGHT_MAX: u16 = 16;
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

/// What the link tells.
#[derive(Debug)]
pub enum LinkEvent {
    /// Connected and subscribed.
    Up,
    /// The connection is gone; the link tries again by itself.
    Down,
    /// A retained or new assignment, unchecked.
    Assignment(Vec<u8>),
    /// An acknowledgement, unchecked.
    Ack(Vec<u8>),
}

/// Where to connect, and as whom.
#[derive(Clone)]
pub struct LinkOptions {
    /// The device, which is also the client id.
    pub device: DeviceId,
    /// `host:port` of the broker.
    pub broker: String,
    /// Client certificate and pinned authority.
    pub tls: Arc<ClientConfig>,
}

/// The broker's address is not `host:port`.
#[derive(Debug, thiserror::Error)]
#[error("the server gave {0} as its broker's address, which is not host:port: enrol again")]
pub struct BrokerAddress(String);

/// Keeps a connection up until `events` or `reports` is closed.
///
/// # Errors
///
/// [`BrokerAddress`] at once; never later.
pub async fn run(
    options: LinkOptions,
    events: Sender<LinkEvent>,
    mut reports: Receiver<Vec<u8>>,
) -> Result<(), BrokerAddress> {
    let (host, port) = options
        .broker
        .rsplit_once(':')
        .and_then(|(host, port)| {
            Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
        })
        .ok_or_else(|| BrokerAddress(options.broker.clone()))?;
    let mut backoff = BACKOFF_MIN;
    loop {
        let (client, eventloop) =
            AsyncClient::new(mqtt(&options, &host, port), IN_FLIGHT_MAX.into());
        let started = Instant::now();
        let receiving = receive(eventloop, &client, &options.device, &events);
        let sending = send(&client, &options.device, &mut reports);
        let ended = tokio::select! {
            ended = receiving => ended,
            () = sending => return Ok(()),
        };
        let Err(ended) = ended else { return Ok(()) };
        tracing::info!(broker = %options.broker, cause = %ended, "link down");
        if events.send(LinkEvent::Down).await.is_err() {
            return Ok(());
        }
        // A connection that held for a while earns a quick return.
        if started.elapsed() > STEADY_AFTER {
            backoff = BACKOFF_MIN;
        }
        tokio::time::sleep(jittered(backoff)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        // What was queued for the lost connection is in the outbox, and will be asked for again.
        while reports.try_recv().is_ok() {}
    }
}

/// Between half of `pause` and all of it, so that a fleet does not return in one instant.
pub fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("nothing from the broker for {} s", WEDGED_AFTER.as_secs())]
    Wedged,
    #[error("the broker closed the session")]
    Closed,
}

fn mqtt(options: &LinkOptions, host: &str, port: u16) -> MqttOptions {
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_SECS_MAX);
    let mut mqtt = MqttOptions::new(options.device.as_str(), host, port);
    mqtt.set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        .set_connection_timeout(CONNECT_SECS_MAX)
        .set_network_options(network)
        .set_max_packet_size(Some(PACKET_BYTES_MAX))
        .set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX)
        .set_transport(Transport::Tls(TlsConfiguration::Rustls(
            options.tls.clone(),
        )));
    mqtt
}

/// Polls until the connection ends; `Ok` when nobody listens any more.
async fn receive(
    mut eventloop: EventLoop,
    client: &AsyncClient,
    device: &DeviceId,
    events: &Sender<LinkEvent>,
) -> Result<(), Ended> {
    let mut heard = Instant::now();
    loop {
        if heard.elapsed() > WEDGED_AFTER {
            return Err(Ended::Wedged);
        }
        let event = timeout(WEDGED_AFTER, eventloop.poll())
            .await
            .map_err(|_| Ended::Wedged)??;
        let Event::Incoming(packet) = event else {
            continue;
        };
        heard = Instant::now();
        let told = match packet {
            Packet::ConnAck(_) => {
                for topic in [
                    Topic::Assignment(device.clone()),
                    Topic::Ack(device.clone()),
                ] {
                    // The queue was made empty with this connection, and holds two.
                    client
                        .try_subscribe(topic.name().as_str(), QoS::AtLeastOnce)
                        .map_err(|_| Ended::Wedged)?;
                }
                LinkEvent::Up
            }
            Packet::Publish(publish) => {
                let topic = std::str::from_utf8(&publish.topic).ok().map(Topic::parse);
                match topic {
                    Some(Ok(Topic::Assignment(of))) if of == *device => {
                        LinkEvent::Assignment(publish.payload.to_vec())
                    }
                    Some(Ok(Topic::Ack(of))) if of == *device => {
                        LinkEvent::Ack(publish.payload.to_vec())
                    }
                    _ => {
                        tracing::warn!("a message on a topic of no concern is ignored");
                        continue;
                    }
                }
            }
            Packet::Disconnect(_) => return Err(Ended::Closed),
            _ => continue,
        };
        if events.send(told).await.is_err() {
            return Ok(());
        }
    }
}

/// Publishes until nobody reports any more.
async fn send(client: &AsyncClient, device: &DeviceId, reports: &mut Receiver<Vec<u8>>) {
    let topic = Topic::Report(device.clone()).name();
    while let Some(report) = reports.recv().await {
        let sent = client
            .publish(topic.as_str(), QoS::AtLeastOnce, false, report)
            .await;
        if sent.is_err() {
            // The event loop is gone; the other half says so.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_jittered_and_never_longer_than_asked() {
        let pauses: Vec<_> = (0..64).map(|_| jittered(BACKOFF_MAX)).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| *pause >= BACKOFF_MAX / 2 && *pause <= BACKOFF_MAX)
        );
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}

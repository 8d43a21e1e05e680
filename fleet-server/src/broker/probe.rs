//! Proves at start that the broker keeps devices apart, with throwaway certificates.
//!
//! A broker that lets one device publish, subscribe or retain as another is refused, ours or
//! anybody's. The probe asks the broker itself, over the same listener that devices use: it does
//! not trust that a setting does what it says.

use std::net::SocketAddr;
use std::time::Duration;

use bellwether_protocol::{DeviceId, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, LastWill, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};

use crate::ca::{Ca, CaError, SERVER_CLIENT_NAME};
use crate::tls::{self, TlsError};

/// How long the broker may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a message that must not arrive is waited for.
const SILENCE: Duration = Duration::from_millis(300);
/// Packets looked at while waiting for an answer.
const PACKETS_MAX: usize = 64;

/// Why the broker cannot be trusted, or asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It lets one device act as another. Whoever configured the broker is at fault.
    #[error(
        "the broker does not keep devices apart: {0}. It must not serve a fleet; correct its access control"
    )]
    NotApart(&'static str),
    /// It does not let the server or a device do what they must.
    #[error("the broker refuses what it must allow: {0}")]
    TooStrict(&'static str),
    /// No answer.
    #[error("the broker did not answer the probe in time while {0}")]
    Silent(&'static str),
    /// The connection failed.
    #[error("the probe cannot reach the broker while {doing}")]
    Connection {
        /// What it was doing.
        doing: &'static str,
        /// Why not.
        #[source]
        cause: Box<rumqttc::v5::ConnectionError>,
    },
    /// No throwaway certificate.
    #[error("no certificate for the probe")]
    Certificate(#[from] CaError),
    /// No TLS.
    #[error("no TLS for the probe")]
    Tls(#[from] TlsError),
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

struct Client {
    client: AsyncClient,
    events: EventLoop,
}

/// Asks the broker at `address` to let one device act as another, in every way that we know.
///
/// # Errors
///
/// [`ProbeError`]; then the server must not serve.
pub async fn devices_are_kept_apart(address: SocketAddr, ca: &Ca) -> Result<(), ProbeError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(ProbeError::Random)?;
    let suffix = format!("{:016x}", u64::from_le_bytes(random));
    let one = format!("probe-one-{suffix}");
    let other = format!("probe-other-{suffix}");
    let id = |name: &str| DeviceId::new(name).expect("the probe's names are device ids");
    let (one_id, other_id) = (id(&one), id(&other));

    // What the server may do: retain the other device's assignment.
    let retained = Topic::Assignment(other_id.clone()).name();
    let mut server = connect(address, ca, SERVER_CLIENT_NAME, SERVER_CLIENT_NAME, None).await?;
    if !server.publish(&retained, true, "secret").await? {
        return Err(ProbeError::TooStrict(
            "the server may not retain an assignment",
        ));
    }

    // What a device may do.
    let mut device = connect(address, ca, &one, &one, None).await?;
    if !device
        .subscribe(&Topic::Assignment(one_id.clone()).name())
        .await?
    {
        return Err(ProbeError::TooStrict(
            "a device may not subscribe to its assignment",
        ));
    }
    if !device
        .publish(&Topic::Report(one_id.clone()).name(), false, "probe")
        .await?
    {
        return Err(ProbeError::TooStrict("a device may not report"));
    }

    // What it may not.
    for topic in [
        Topic::Report(other_id.clone()),
        Topic::Assignment(other_id.clone()),
        Topic::Ack(other_id.clone()),
        Topic::Assignment(one_id.clone()),
    ] {
        for retain in [false, true] {
            if device.publish(&topic.name(), retain, "forged").await? {
                return Err(ProbeError::NotApart(
                    "a device can publish to a foreign topic",
                ));
            }
        }
    }
    if device
        .publish(&Topic::Report(one_id.clone()).name(), true, "forged")
        .await?
    {
        return Err(ProbeError::NotApart("a device can retain a message"));
    }
    let shared = format!("$share/group/{retained}");
    let ingest = bellwether_protocol::topic::INGEST_FILTER;
    for filter in [
        retained.as_str(),
        "#",
        "+/#",
        bellwether_protocol::topic::ASSIGNMENTS_FILTER,
        &shared,
        ingest,
        "$SYS/#",
    ] {
        if device.subscribe(filter).await? {
            return Err(ProbeError::NotApart(
                "a device can subscribe to a foreign topic",
            ));
        }
    }
    if device.hears_anything().await? {
        return Err(ProbeError::NotApart(
            "a device was sent another's retained message",
        ));
    }
    refused(
        connect(address, ca, &one, &other, None).await,
        "a device can use another's client id",
    )?;
    refused(
        connect(address, ca, &one, SERVER_CLIENT_NAME, None).await,
        "a device can be the server",
    )?;
    let will = LastWill::new(retained.as_str(), "forged", QoS::AtLeastOnce, true, None);
    refused(
        connect(address, ca, &one, &one, Some(will)).await,
        "a device can have a last will on a foreign topic",
    )?;

    // The refused attempts left what the server retained as it was; then it is taken away.
    let mut owner = connect(address, ca, &other, &other, None).await?;
    if !owner.subscribe(&retained).await? || owner.message().await? != *b"secret" {
        return Err(ProbeError::NotApart(
            "a device changed another's retained message",
        ));
    }
    server.publish(&retained, true, "").await?;
    Ok(())
}

fn refused(connected: Result<Client, ProbeError>, breach: &'static str) -> Result<(), ProbeError> {
    match connected {
        Ok(_) => Err(ProbeError::NotApart(breach)),
        Err(ProbeError::Connection { .. } | ProbeError::TooStrict(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

async fn connect(
    address: SocketAddr,
    ca: &Ca,
    certified: &str,
    client_id: &str,
    will: Option<LastWill>,
) -> Result<Client, ProbeError> {
    const DOING: &str = "connecting";
    let identity = ca.client(certified)?;
    let config = tls::client(ca, Some(&identity))?;
    let mut options = MqttOptions::new(
        client_id,
        tls::reachable(address).ip().to_string(),
        address.port(),
    );
    options
        .set_transport(Transport::Tls(TlsConfiguration::Rustls(config)))
        .set_clean_start(true)
        .set_keep_alive(Duration::from_secs(60));
    if let Some(will) = will {
        options.set_last_will(will);
    }
    let (client, events) = AsyncClient::new(options, 8);
    let mut client = Client { client, events };
    let accepted = client
        .until(DOING, |packet| {
            matches!(packet, Packet::ConnAck(_)).then_some(())
        })
        .await;
    accepted.map(|()| client)
}

impl Client {
    async fn until<T>(
        &mut self,
        doing: &'static str,
        wanted: impl Fn(&Packet) -> Option<T>,
    ) -> Result<T, ProbeError> {
        let answer = async {
            for _ in 0..PACKETS_MAX {
                let event = self
                    .events
                    .poll()
                    .await
                    .map_err(|cause| ProbeError::Connection {
                        doing,
                        cause: Box::new(cause),
                    })?;
                if let Event::Incoming(packet) = event
                    && let Some(answer) = wanted(&packet)
                {
                    return Ok(answer);
                }
            }
            Err(ProbeError::Silent(doing))
        };
        tokio::time::timeout(ANSWER_WITHIN, answer)
            .await
            .unwrap_or(Err(ProbeError::Silent(doing)))
    }

    async fn publish(
        &mut self,
        topic: &str,
        retain: bool,
        payload: &'static str,
    ) -> Result<bool, ProbeError> {
        let queued = self
            .client
            .try_publish(topic, QoS::AtLeastOnce, retain, payload);
        queued.map_err(|_| ProbeError::Silent("publishing"))?;
        self.until("publishing", |packet| match packet {
            Packet::PubAck(ack) => {
                let taken = [PubAckReason::Success, PubAckReason::NoMatchingSubscribers];
                Some(taken.contains(&ack.reason))
            }
            _ => None,
        })
        .await
    }

    async fn subscribe(&mut self, filter: &str) -> Result<bool, ProbeError> {
        let filter = Filter::new(filter, QoS::AtLeastOnce);
        let queued = self.client.try_subscribe_many([filter]);
        queued.map_err(|_| ProbeError::Silent("subscribing"))?;
        self.until("subscribing", |packet| match packet {
            Packet::SubAck(ack) => {
                let granted =
                    |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                Some(ack.return_codes.iter().any(granted))
            }
            _ => None,
        })
        .await
    }

    async fn hears_anything(&mut self) -> Result<bool, ProbeError> {
        let heard = |packet: &Packet| matches!(packet, Packet::Publish(_)).then_some(());
        match tokio::time::timeout(SILENCE, self.until("listening", heard)).await {
            Ok(heard) => heard.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    async fn message(&mut self) -> Result<Vec<u8>, ProbeError> {
        self.until("reading the retained message", |packet| match packet {
            Packet::Publish(message) => Some(message.payload.to_vec()),
            _ => None,
        })
        .await
    }
}

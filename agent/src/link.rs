//! The MQTT 5 link: assignments and acknowledgements down, reports up.
//!
//! The link keeps nothing: what matters lies in the outbox, and the server publishes desired
//! state anew. So each connection starts clean with a fresh event loop, and one that stops making
//! progress is thrown away.
//!
//! It is made for networks that charge by the byte. A report is sent once, without a broker's
//! acknowledgement, because only the server's own one counts; one that has to be sent again asks
//! the broker for its acknowledgement too, which tells a dead connection from a silent server.

mod backoff;
mod connection;

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::{BootId, DeviceId};
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use rumqttc::v5::{AsyncClient, ConnectionError};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::watch;
use tokio::time::Instant;

pub use backoff::{Backoff, jittered};

use crate::config;
use crate::identity::{Identity, IdentityError};
use connection::{Ended, IN_FLIGHT_MAX, Settings};

/// A connection that held for so long was a good one: the next pause is drawn from the shortest
/// range again.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// How long saying goodbye may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);
/// The keepalive is not halved below this: shorter ones cost more than they find out.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(60);

/// What the link tells.
#[derive(Debug)]
pub enum LinkEvent {
    /// Connected and subscribed.
    Up,
    /// The connection is gone; the link tries again by itself.
    Down,
    /// A retained or new assignment, unchecked.
    Assignment(Vec<u8>),
    /// A retained or new notice of trust documents, unchecked.
    Documents(Vec<u8>),
    /// An acknowledgement, unchecked.
    Ack(Vec<u8>),
}

/// A report on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Whether it was sent before and nothing came of it.
    pub again: bool,
}

/// Where to connect, and as whom.
#[derive(Clone)]
pub struct LinkOptions {
    /// The device, which is also the client id.
    pub device: DeviceId,
    /// Which start of the agent this is: the last will says so.
    pub boot: BootId,
    /// Certificate, pinned authority, and where the broker is; renewed while the link is up.
    pub identity: watch::Receiver<Arc<Identity>>,
    /// Keepalive and pauses.
    pub config: config::Link,
}

/// The broker's address is not `host:port`.
#[derive(Debug, thiserror::Error)]
#[error("the server gave {0} as its broker's address, which is not host:port: enrol again")]
pub struct BrokerAddress(String);

/// The link cannot be set up. Enrolling again mends it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Where the broker is.
    #[error(transparent)]
    Address(#[from] BrokerAddress),
    /// Key and certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Keeps a connection up until `events` or `reports` is closed.
///
/// # Errors
///
/// [`LinkError`], at once or after a renewal that gave something unusable.
pub async fn run(
    mut options: LinkOptions,
    events: Sender<LinkEvent>,
    mut reports: Receiver<Sending>,
) -> Result<(), LinkError> {
    let mut backoff = Backoff::new(Duration::from_secs(options.config.spread_secs.into()));
    let mut keep_alive = Duration::from_secs(options.config.keep_alive_secs.into());
    let mut has_will = true;
    loop {
        let settings = settings(&mut options, keep_alive, has_will)?;
        let (client, mut eventloop) = AsyncClient::new(settings.mqtt(), usize::from(IN_FLIGHT_MAX));
        let started = Instant::now();
        let ended = tokio::select! {
            ended = connection::receive(&mut eventloop, &client, &settings, &events) => ended,
            () = connection::send(&client, &settings.device, &mut reports) => Ok(()),
            changed = options.identity.changed() => {
                changed.map_err(|_| Ended::Closed).and(Err(Ended::Renewed))
            }
        };
        let Err(ended) = ended else {
            goodbye(&client, &mut eventloop).await;
            return Ok(());
        };
        tracing::info!(broker = %settings.broker, cause = %ended, "link down");
        if events.send(LinkEvent::Down).await.is_err() {
            return Ok(());
        }
        match &ended {
            Ended::Renewed => {
                goodbye(&client, &mut eventloop).await;
                continue;
            }
            // A network that forgets idle connections: ask sooner, if that is not too often.
            Ended::Unanswered => keep_alive = (keep_alive / 2).max(KEEP_ALIVE_MIN.min(keep_alive)),
            Ended::Connection(error) if has_will && is_unauthorized(error) => {
                // Some brokers' rules allow no last will; the link can do without.
                has_will = false;
            }
            _ => {}
        }
        drop((client, eventloop));
        if started.elapsed() > STEADY_AFTER {
            backoff.steady();
        }
        tokio::time::sleep(backoff.pause()).await;
        // What was queued for the lost connection is in the outbox, and will be asked for again.
        while reports.try_recv().is_ok() {}
    }
}

fn settings(
    options: &mut LinkOptions,
    keep_alive: Duration,
    has_will: bool,
) -> Result<Settings, LinkError> {
    let identity = options.identity.borrow_and_update().clone();
    let broker = identity.server.mqtts.clone();
    let (host, port) = broker
        .rsplit_once(':')
        .and_then(|(host, port)| {
            Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
        })
        .ok_or_else(|| BrokerAddress(broker.clone()))?;
    Ok(Settings {
        device: options.device.clone(),
        boot: options.boot,
        broker,
        host,
        port,
        tls: identity.tls()?,
        keep_alive,
        has_will,
    })
}

/// Ends a connection so that the broker does not announce it as lost.
async fn goodbye(client: &AsyncClient, eventloop: &mut rumqttc::v5::EventLoop) {
    if client.try_disconnect().is_err() {
        return;
    }
    let until_ended = async { while eventloop.poll().await.is_ok() {} };
    let _ = tokio::time::timeout(GOODBYE_WITHIN, until_ended).await;
}

fn is_unauthorized(error: &ConnectionError) -> bool {
    use ConnectReturnCode::{BadUserNamePassword, NotAuthorized, TopicNameInvalid};
    matches!(
        error,
        ConnectionError::ConnectionRefused(NotAuthorized | BadUserNamePassword | TopicNameInvalid)
    )
}

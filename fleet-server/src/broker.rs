//! The embedded MQTT broker: a pipe between server and devices, and nothing more.
//!
//! It listens with mutual TLS only. A certificate's common name is the client's identity, and
//! [`acl`] ties each identity to its own topics. Nothing is kept on disk: what matters lies in the
//! database here and in the outbox there.

pub mod acl;
pub mod probe;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::DeviceId;
use rmqtt::context::ServerContext;
use rmqtt::hook::Type;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use rmqtt::types::{ClientId, Id};

use crate::revoked::Revoked;

/// Largest MQTT packet in bytes: a report or assignment with its topic and properties.
const PACKET_BYTES_MAX: u32 = 32 * 1024;
/// Clients at once. Beyond that a fleet has a broker of its own.
const CONNECTIONS_MAX: usize = 20_000;
/// TLS and MQTT handshakes at once: after a restart everybody comes back.
const HANDSHAKES_MAX: usize = 512;
/// Messages queued for one client. The default loses bursts; what is lost beyond this is sent
/// again from the outboxes.
const QUEUE_MAX: usize = 20_000;
/// Unacknowledged messages to one client: the ingest link is one client for the whole fleet.
const INFLIGHT_MAX: NonZeroU16 = NonZeroU16::new(256).expect("not zero");
/// A device subscribes to two topics, the server to one.
const SUBSCRIPTIONS_MAX: usize = 8;
/// Levels of our topics, with one to spare for a shared subscription's prefix.
const TOPIC_LEVELS_MAX: usize = 8;
/// Longest client id: a device id, and no more.
const CLIENT_ID_BYTES_MAX: usize = 64;
/// Sessions of clients that are gone: nothing in them is worth keeping.
const SESSION_EXPIRY: Duration = Duration::from_secs(60);
/// Retained assignments are published anew far more often than that.
const MESSAGE_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// Our handlers run before any plugin's.
const HOOK_PRIORITY: u32 = 1000;

/// The broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Somebody else listens there, or we may not. The operator is at fault.
    #[error(
        "cannot listen for MQTT on {address}: {reason}. Stop what listens there, or set `mqtts` in the configuration"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// The broker refuses its own settings. We are at fault.
    #[error("the embedded broker cannot be set up: {0}")]
    Setup(String),
}

/// Files in PEM that the broker reads at start.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// The server's certificate.
    pub certificate: &'a Path,
    /// Its key.
    pub key: &'a Path,
    /// The CA that every client's certificate must come from.
    pub ca: &'a Path,
}

/// A running broker. Dropping it stops listening.
#[derive(Debug)]
pub struct Broker {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its clients' sessions.
    pub sessions: Sessions,
    task: tokio::task::JoinHandle<()>,
}

/// The sessions of the broker's clients.
#[derive(Clone)]
pub struct Sessions {
    context: ServerContext,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// Ends a device's connection and forgets its session, if there is one.
    pub async fn end(&self, device: &DeviceId) {
        let id = Id::from(self.context.node.id, ClientId::from(device.as_str()));
        let shared = self.context.extends.shared().await;
        let kicked = match shared.entry(id).try_lock().await {
            Ok(mut entry) => entry.kick(true, true, true).await,
            Err(cause) => Err(cause),
        };
        if let Err(cause) = kicked {
            // What it does next is refused, and ends the connection.
            tracing::warn!(%device, "the device's connection could not be ended: {cause:#}");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Broker {
    /// Starts listening on `address`; its port may be 0.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when it cannot.
    pub async fn start(
        address: SocketAddr,
        files: TlsFiles<'_>,
        revoked: Arc<Revoked>,
    ) -> Result<Self, BrokerError> {
        let setup = |cause: rmqtt::Error| BrokerError::Setup(format!("{cause:#}"));
        // Its own load check refuses every client while the machine is busy; ours are the bounds
        // above.
        let context = ServerContext::new()
            .busy_check_enable(false)
            .plugins_config_map_add("rmqtt-retainer", "storage.type = \"ram\"\n")
            .build()
            .await;
        rmqtt_retainer::register(&context, true, false)
            .await
            .map_err(setup)?;
        rmqtt_shared_subscription::register(&context, true, false)
            .await
            .map_err(setup)?;
        let hooks = context.extends.hook_mgr().register();
        for kind in [
            Type::ClientAuthenticate,
            Type::MessagePublishCheckAcl,
            Type::ClientSubscribeCheckAcl,
        ] {
            let handler = acl::OwnTopicsOnly {
                revoked: revoked.clone(),
            };
            hooks
                .add_priority(kind, HOOK_PRIORITY, Box::new(handler))
                .await;
        }
        hooks.start().await;

        let listener = builder(address, files)
            .bind()
            .map_err(|cause| BrokerError::Listen {
                address,
                reason: cause.root_cause().to_string(),
            })?;
        let listener = listener.tls().map_err(setup)?;
        let address = listener.local_addr().map_err(setup)?;
        let sessions = Sessions {
            context: context.clone(),
        };
        let server = MqttServer::new(context)
            .listener_by_id(listener, address.port())
            .build();
        let task = tokio::spawn(async move {
            if let Err(cause) = server.run().await {
                tracing::error!("the embedded broker stopped: {cause:#}");
            }
        });
        Ok(Self {
            address,
            sessions,
            task,
        })
    }
}

fn builder(address: SocketAddr, files: TlsFiles<'_>) -> Builder {
    let text = |path: &Path| Some(path.to_string_lossy().into_owned());
    Builder::new()
        .name("mqtts")
        .laddr(address)
        .reuseaddr(Some(true))
        .nodelay(true)
        .allow_anonymous(false)
        .tls_cross_certificate(true)
        .tls_cert(text(files.certificate))
        .tls_key(text(files.key))
        .tls_client_ca_certs(text(files.ca))
        .collect_cert_info(true)
        .cert_cn_as_username(true)
        .max_connections(CONNECTIONS_MAX)
        .max_handshaking_limit(HANDSHAKES_MAX)
        .max_packet_size(PACKET_BYTES_MAX)
        .max_clientid_len(CLIENT_ID_BYTES_MAX)
        .max_topic_levels(TOPIC_LEVELS_MAX)
        .max_subscriptions(SUBSCRIPTIONS_MAX)
        .max_mqueue_len(QUEUE_MAX)
        .max_inflight(INFLIGHT_MAX)
        .session_expiry_interval(SESSION_EXPIRY)
        .max_session_expiry_interval(SESSION_EXPIRY)
        .message_expiry_interval(MESSAGE_EXPIRY)
}

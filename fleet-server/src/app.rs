//! What every request and every loop shares.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use bellwether_package::Digest;
use tokio::sync::Notify;

use crate::blobs::Blobs;
use crate::broker::Sessions;
use crate::ca::Ca;
use crate::config::Config;
use crate::director::Director;
use crate::link::Link;
use crate::revoked::Revoked;
use crate::store::Store;
use crate::trust::Trust;

/// The server's parts.
#[derive(Debug)]
pub struct App {
    /// Its configuration.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// The packages' sections.
    pub blobs: Blobs,
    /// Where uploads are written before they are understood.
    pub incoming: PathBuf,
    /// The certificate authority.
    pub ca: Ca,
    /// The key that signs assignments.
    pub director: Director,
    /// Digest of the API token.
    pub token: Digest,
    /// `host:port` that devices reach the broker at.
    pub mqtts: String,
    /// The link to the broker.
    pub link: Link,
    /// The broker's sessions.
    pub sessions: Sessions,
    /// Who may not connect any more.
    pub revoked: Arc<Revoked>,
    /// Whether releases may be offered that this server would refuse.
    pub drill_offer_unapproved: bool,
    /// Trust root and revocations in force.
    pub trust: RwLock<Arc<Trust>>,
    /// Wakes whoever signs and publishes assignments.
    pub assignments_changed: Notify,
    /// Wakes whoever tells devices of newer trust documents.
    pub documents_changed: Notify,
    /// Wakes the planner before its period is over.
    pub plan_now: Notify,
    /// Whether the broker was found to keep devices apart.
    pub ready: AtomicBool,
}

impl App {
    /// Trust root and revocations in force.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust
            .read()
            .expect("nobody panics while holding it")
            .clone()
    }
}

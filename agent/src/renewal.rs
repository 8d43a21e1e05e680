//! The device's next certificate: asked for at two thirds of the life of the one it has, over a
//! connection that shows that one, for a key made here.
//!
//! A power cut at any moment leaves the certificate before with its key, or the next with its
//! own. While nothing comes of it the device goes on with what it has; once that has ended the
//! server hears nothing more, and somebody must enrol the device again.

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::DeviceId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::causes::with_causes;
use crate::clock;
use crate::identity::{Identity, IdentityError, certificate_request, next_key};
use crate::link::jittered;
use crate::remote::{Remote, RemoteError};
use crate::store::Store;

/// Longest answer to a request for renewal: a certificate in PEM.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// How often it looks at the clock, which may have been set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Shortest pause between two looks, and after the first attempt that failed.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two attempts: two thirds of the shortest sensible life leave many.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);

/// Why there is no next certificate. The one before holds.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The server did not answer, or refused.
    #[error("the server gave no certificate")]
    Remote(#[from] RemoteError),
    /// Key, request or certificate.
    #[error("the next certificate cannot be used")]
    Identity(#[from] IdentityError),
}

#[derive(Serialize)]
struct Ask {
    csr_pem: String,
}

#[derive(Deserialize)]
struct Answer {
    certificate_pem: String,
    mqtts: String,
}

/// What renewal needs.
pub struct Renewal {
    /// The device.
    pub device: DeviceId,
    /// Where the identity is kept.
    pub store: Arc<Store>,
    /// The server.
    pub remote: Remote,
    /// The identity in use, for everybody who shows it.
    pub identity: watch::Sender<Arc<Identity>>,
}

impl Renewal {
    /// Renews in time, again and again; never ends.
    pub async fn run(self) {
        let this = Arc::new(self);
        let mut pause = PAUSE_MIN;
        loop {
            let identity = this.identity.borrow().clone();
            let wait = identity.renew_at().secs_since(clock::likely());
            if wait > 0 {
                // Never exactly at once: a fleet that enrolled together renews apart.
                let wait = Duration::from_secs(wait) + jittered(PAUSE_MIN);
                tokio::time::sleep(wait.min(LOOK_EVERY)).await;
                continue;
            }
            let renewal = this.clone();
            let renewed = tokio::task::spawn_blocking(move || renewal.renew(&identity)).await;
            match renewed {
                Ok(Ok(())) => pause = PAUSE_MIN,
                Ok(Err(error)) => {
                    tracing::warn!(error = %with_causes(&error), "no new certificate");
                }
                Err(error) => tracing::error!(%error, "renewal broke off"),
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks for the next certificate and puts it to use. Blocking.
    fn renew(&self, before: &Identity) -> Result<(), RenewalError> {
        let key = next_key(&self.store)?;
        let ask = Ask {
            csr_pem: certificate_request(&self.device, &key)?,
        };
        let answer: Answer = self.remote.post_json("/v1/renew", &ask, ANSWER_BYTES_MAX)?;
        let next = before.renewed(&self.device, &key, answer.certificate_pem, answer.mqtts)?;
        let tls = next.tls()?;
        next.keep(&self.store)?;
        tracing::info!(until = %next.valid_until, "certificate renewed");
        self.remote.replace_tls(tls);
        self.identity.send_replace(Arc::new(next));
        Ok(())
    }
}

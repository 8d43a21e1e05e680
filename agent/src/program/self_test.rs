//! What a new program does before it may run: everything that a start needs, on the real
//! configuration and state, without changing any of it and without the network.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bellwether_package::PackageId;
use bellwether_protocol::{ProofFailure, WorkerDeath};
use bellwether_runtime::{ProveError, Shortfall};

use super::files::agent_path;
use super::{AS_RELEASE, launch};
use crate::agent::{UnreadableSlot, stored_states};
use crate::config::ConfigError;
use crate::fetch;
use crate::identity::{Identity, IdentityError};
use crate::serving::options;
use crate::store::{Store, StoreError};
use crate::trust::{Trust, TrustError};

/// How long it may take: a small board starts its worker and runs golden vectors meanwhile.
const WITHIN: Duration = Duration::from_secs(120);

/// Attempts to start it while its file is still open for writing.
const SPAWN_ATTEMPTS_MAX: u32 = 40;
/// Pause between two of them.
const SPAWN_PAUSE: Duration = Duration::from_millis(50);

/// Why a program cannot take over here.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The configuration.
    #[error("cannot use the configuration")]
    Config(#[from] ConfigError),
    /// The device's identity.
    #[error("cannot use the device's identity")]
    Identity(#[from] IdentityError),
    /// The trust root.
    #[error("cannot use the device's trust root")]
    Trust(#[from] TrustError),
    /// The state folder.
    #[error("cannot use the state folder")]
    Store(#[from] StoreError),
    /// The state of a slot.
    #[error("cannot read what is stored of a slot")]
    Slot(#[from] UnreadableSlot),
    /// What serves would be refused.
    #[error("would refuse what serves in {slot}: {why}")]
    Refused {
        /// The slot.
        slot: String,
        /// Why.
        why: bellwether_protocol::Refusal,
    },
    /// What serves cannot be run.
    #[error("cannot run what serves in {slot}")]
    Run {
        /// The slot.
        slot: String,
        /// The cause.
        source: Box<ProveError>,
    },
    /// What serves answers otherwise.
    #[error("what serves in {slot} does not come out right")]
    Answers {
        /// The slot.
        slot: String,
        /// How.
        source: Shortfall,
    },
}

/// Reads configuration, identity, trust and states, and runs the golden vectors of whatever serves
/// in this program's own worker.
///
/// # Errors
///
/// [`SelfTestError`].
pub fn self_test(config: &Path) -> Result<(), SelfTestError> {
    let config = launch::configured(config)?;
    let store = Store::reader(&config.state_dir);
    Identity::load(&store)?.tls()?;
    let trust = Trust::load(&store)?;
    for state in stored_states(&store)? {
        let slot = state.slot();
        let Some(good) = state.good().filter(|_| !slot.is_agent()) else {
            continue;
        };
        let path = fetch::path(&store.path(fetch::FOLDER), good.release);
        let named = |slot: &bellwether_package::SlotName| slot.to_string();
        let verified = trust.verify_installed(&path, good.release, slot, &config.attributes());
        let (package, blob) = verified.map_err(|unverified| SelfTestError::Refused {
            slot: named(slot),
            why: unverified.refusal(),
        })?;
        let proof = bellwether_runtime::prove(&package, blob, options(&config));
        let proof = proof.map_err(|source| SelfTestError::Run {
            slot: named(slot),
            source: Box::new(source),
        })?;
        // How fast it is beside the one that serves says nothing.
        let wrong = |it: &Shortfall| matches!(it, Shortfall::Mismatch { .. });
        if let Some(source) = proof.shortfalls().into_iter().find(wrong) {
            let slot = named(slot);
            return Err(SelfTestError::Answers { slot, source });
        }
    }
    Ok(())
}

/// Has a release's program test itself in a process of its own: nothing of this one's environment,
/// no input, and an end when its time is over. Blocking.
///
/// # Errors
///
/// How it failed.
pub(crate) fn prove(
    state_dir: &Path,
    release: PackageId,
    config: &Path,
) -> Result<(), ProofFailure> {
    let mut command = tokio::process::Command::new(agent_path(state_dir, release));
    command
        .arg("self-test")
        .arg("--config")
        .arg(config)
        .env_clear()
        .env(AS_RELEASE, release.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut child = spawn(&mut command).await?;
            match tokio::time::timeout(WITHIN, child.wait()).await {
                Ok(status) => status.map(Some),
                Err(_) => child.kill().await.map(|()| None),
            }
        })
    });
    match ended {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(failure(status)),
        Ok(None) => Err(ProofFailure::WorkerDied(WorkerDeath::Hung)),
        Err(error) => {
            tracing::error!(%error, "the new program cannot be started");
            Err(ProofFailure::Unsupported)
        }
    }
}

/// A worker that is being started by another thread at this moment may hold the file that was just
/// written, until it is a program of its own.
async fn spawn(command: &mut tokio::process::Command) -> std::io::Result<tokio::process::Child> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match command.spawn() {
            Err(error)
                if error.kind() == std::io::ErrorKind::ExecutableFileBusy
                    && attempts < SPAWN_ATTEMPTS_MAX =>
            {
                tokio::time::sleep(SPAWN_PAUSE).await;
            }
            spawned => return spawned,
        }
    }
}

fn failure(status: ExitStatus) -> ProofFailure {
    tracing::error!(%status, "the new program failed its own test");
    match death(status) {
        WorkerDeath::Other => ProofFailure::Other,
        death => ProofFailure::WorkerDied(death),
    }
}

/// How a program ended.
pub(super) fn death(status: ExitStatus) -> WorkerDeath {
    use std::os::unix::process::ExitStatusExt as _;
    /// What Rust programs exit with after a panic.
    const PANICKED: i32 = 101;
    match (status.code(), status.signal()) {
        (Some(PANICKED), _) => WorkerDeath::Panicked,
        (_, Some(signal)) => WorkerDeath::Faulted {
            signal: signal.unsigned_abs() as u8,
        },
        _ => WorkerDeath::Other,
    }
}

//! From desired state to signed assignments at the devices.
//!
//! The broker may forget everything, so every assignment is published anew when the link comes up
//! and on a timer. A device is signed for again when a slot changed, when the trust root's version
//! changed, or when half of the assignment's validity is over. Each device is told as well which trust
//! documents there are, so that it need not ask.

use std::sync::Arc;
use std::time::Duration;

use bellwether_package::UnixSecs;
use bellwether_package::revocations::Revocations;
use bellwether_protocol::assignment::SLOTS_MAX;
use bellwether_protocol::{Assignment, DeviceId, Documents, MessageError, Sequence, to_vec};

use crate::app::App;
use crate::clock;
use crate::store::StoreError;
use crate::store::devices::{self, AssignmentRow};

/// A device cannot be signed for.
#[derive(Debug, thiserror::Error)]
enum AssignError {
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("the assignment is too long")]
    Message(#[from] MessageError),
}

/// Signs and publishes, again and again, until it is dropped.
pub async fn run(app: Arc<App>) {
    let mut connection = app.link.connection();
    let every = Duration::from_secs(app.config.republish_secs);
    let mut timer = tokio::time::interval(every);
    loop {
        let all = tokio::select! {
            _ = timer.tick() => true,
            () = app.assignments_changed.notified() => false,
            () = app.documents_changed.notified() => {
                tell_documents(&app).await;
                false
            }
            changed = connection.changed() => {
                if changed.is_err() {
                    return;
                }
                *connection.borrow_and_update()
            }
        };
        if let Err(cause) = sign(&app, clock::now()).await {
            tracing::error!("assignments cannot be signed: {cause}");
        }
        if all && app.link.is_connected() {
            publish_all(&app).await;
            tell_documents(&app).await;
        }
    }
}

/// Signs for each device that needs it, and publishes what was signed.
async fn sign(app: &App, now: UnixSecs) -> Result<(), AssignError> {
    let trust = app.trust();
    let epoch = trust.root().version();
    let renew_before = now.plus_secs(app.config.assignment_secs / 2);
    for device in app.store.unsigned(epoch, renew_before).await? {
        match sign_one(app, &device, epoch, now).await {
            Ok(Some(signed)) => {
                app.link.assign(&device, signed).await;
            }
            Ok(None) => {}
            Err(AssignError::Message(cause)) => {
                tracing::error!(%device, "its assignment cannot be signed: {cause}");
            }
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

async fn sign_one(
    app: &App,
    device: &DeviceId,
    epoch: u32,
    now: UnixSecs,
) -> Result<Option<Vec<u8>>, AssignError> {
    let mut tx = app.store.write().await?;
    let (last, slots) = devices::to_sign(&mut tx, device).await?;
    let mut wanted = heapless::Vec::new();
    for slot in slots.into_iter().take(SLOTS_MAX) {
        // There is room for `SLOTS_MAX`.
        let _ = wanted.push(slot);
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    let n = if last.epoch == epoch {
        last.n.saturating_add(1)
    } else {
        1
    };
    let assignment = Assignment {
        root: app.trust().root().id(),
        device: device.clone(),
        sequence: Sequence { epoch, n },
        issued_at: now,
        expires_at: now.plus_secs(app.config.assignment_secs),
        slots: wanted,
    };
    let signed = app.director.sign(&assignment)?;
    let row = AssignmentRow {
        sequence: assignment.sequence,
        stale: false,
        issued_at: assignment.issued_at,
        expires_at: assignment.expires_at,
        signed: signed.clone(),
    };
    devices::put_signed(&mut tx, device, &row).await?;
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(%device, sequence = %row.sequence, "assignment signed");
    Ok(Some(signed))
}

async fn publish_all(app: &App) {
    match app.store.assignments().await {
        Ok(rows) => {
            for (device, row) in rows {
                if !row.signed.is_empty() && !app.link.assign(&device, row.signed).await {
                    // The link is down or clogged; the next round tries again.
                    return;
                }
            }
        }
        Err(cause) => tracing::error!("assignments cannot be read: {cause}"),
    }
}

/// Tells every device that has an assignment which documents are in force. One that does not hear
/// it asks by itself, once a day by default.
async fn tell_documents(app: &App) {
    let trust = app.trust();
    let documents = Documents {
        root_version: trust.root().version(),
        revocations_version: trust.revocations().map(Revocations::version),
    };
    let (rows, notice) = match (app.store.assignments().await, to_vec(&documents)) {
        (Ok(rows), Ok(notice)) => (rows, notice),
        (Err(cause), _) => return tracing::error!("assignments cannot be read: {cause}"),
        (_, Err(cause)) => return tracing::error!("a notice cannot be encoded: {cause}"),
    };
    for (device, _) in rows {
        if !app.link.notice(&device, notice.clone()).await {
            // The link is down or clogged; the next round tells them.
            return;
        }
    }
}

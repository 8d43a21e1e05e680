//! Reports come in: judged, stored once, then acknowledged.
//!
//! A report that cannot be read is dropped without an acknowledgement and leaves nothing behind.
//! One that can be read but not be true is stored as invalid: it counts for nothing, the device is
//! flagged, and it is acknowledged, so that an outbox does not hold it for ever.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bellwether_package::sections::FieldKind;
use bellwether_package::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::assignment::SLOTS_MAX;
use bellwether_protocol::{
    Ack, BootId, Bundle, DeviceId, Expected, Labels, Outcome, Record, Report, Window, to_vec,
};
use tokio::sync::mpsc;

use crate::app::App;
use crate::clock;
use crate::link::Arrival;
use crate::store::packages::Expectations;
use crate::store::records::{self, FlagRow};
use crate::store::{StoreError, Write, reports};

/// Messages stored in one transaction at most.
const BATCH_MAX: usize = 256;
/// Outcomes kept for one slot of one device.
const OUTCOMES_KEPT: u32 = 200;
/// Slots that one device may tell of.
const SLOTS_TOLD_MAX: u64 = 4 * SLOTS_MAX as u64;
/// Flags that are kept.
const FLAGS_KEPT: u32 = 1000;
/// How long it is remembered which reports were taken, in seconds. A device deletes a report once
/// it is acknowledged, so one that is sent again comes soon; half a year bounds the table.
const TAKEN_KEPT_SECS: u64 = 180 * 24 * 3600;
/// Batches between two rounds of forgetting.
const FORGET_BATCHES: u64 = 5000;
/// Wait after the database failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Packages whose expectations are remembered; a fleet runs a few at a time.
const EXPECTATIONS_MAX: usize = 64;

/// What each report is held against, read once per package.
type Known = HashMap<PackageId, Option<Expectations>>;

/// Stores what arrives, until the link is gone.
pub async fn run(app: Arc<App>, mut arrivals: mpsc::Receiver<Arrival>) {
    let mut known = Known::new();
    let mut batches = 0_u64;
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while arrivals.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut gone = Vec::new();
        let read: Vec<(DeviceId, Report)> = batch
            .drain(..)
            .flat_map(|arrival| read(arrival, &mut gone))
            .collect();
        let forget = batches.is_multiple_of(FORGET_BATCHES);
        match store(&app, &read, &gone, &mut known, forget).await {
            Ok(taken) => acknowledge(&app, &taken).await,
            Err(cause) => {
                // Nothing was acknowledged: the outboxes send it again.
                tracing::error!("reports cannot be stored: {cause}");
                tokio::time::sleep(PAUSE).await;
            }
        }
        batches = batches.wrapping_add(1);
    }
}

fn read(arrival: Arrival, gone: &mut Vec<(DeviceId, BootId)>) -> Vec<(DeviceId, Report)> {
    let (device, payload) = match arrival {
        Arrival::Report(device, payload) => (device, payload),
        Arrival::Gone(device, boot) => {
            gone.push((device, boot));
            return Vec::new();
        }
    };
    match Bundle::open(&payload) {
        Ok(reports) => {
            let of_device = |report| (device.clone(), report);
            reports.into_iter().map(of_device).collect()
        }
        Err(cause) => {
            let why = std::error::Error::source(&cause).map(ToString::to_string);
            let why = why.unwrap_or_default();
            tracing::warn!(%device, "a report is refused: {cause}: {why}");
            Vec::new()
        }
    }
}

/// Stores a batch, and says which reports are stored now, new or not.
async fn store(
    app: &App,
    batch: &[(DeviceId, Report)],
    gone: &[(DeviceId, BootId)],
    known: &mut Known,
    forget: bool,
) -> Result<Vec<(DeviceId, BootId, u64)>, StoreError> {
    let now = clock::now();
    for (_, report) in batch {
        match &report.record {
            Record::Window(window) => learn(app, known, &window.baseline).await?,
            Record::Labels(labels) => learn(app, known, &labels.release).await?,
            _ => {}
        }
    }
    let mut taken = Vec::with_capacity(batch.len());
    let mut tx = app.store.write().await?;
    if forget {
        let before = UnixSecs(now.0.saturating_sub(TAKEN_KEPT_SECS));
        reports::forget_before(&mut tx, before).await?;
    }
    for (device, report) in batch {
        // What was under way when the device was shut out.
        if app.revoked.holds_device(device) {
            continue;
        }
        // The broker let the device in by its certificate; its row may be gone all the same.
        if !reports::heard(&mut tx, device, report.boot, now).await? {
            tracing::warn!(%device, "a report of a device that is not enrolled");
            continue;
        }
        if reports::take(&mut tx, device, report.boot, report.seq, now).await? {
            put(app, &mut tx, device, report, known, now).await?;
        }
        taken.push((device.clone(), report.boot, report.seq));
    }
    for (device, boot) in gone {
        reports::gone(&mut tx, device, *boot, now).await?;
    }
    tx.commit().await?;
    Ok(taken)
}

async fn put(
    app: &App,
    tx: &mut Write,
    device: &DeviceId,
    report: &Report,
    known: &Known,
    now: UnixSecs,
) -> Result<(), StoreError> {
    match &report.record {
        Record::Health(health) => reports::put_health(tx, device, health, report.at).await,
        Record::BriefHealth(brief) => {
            reports::put_health(tx, device, &brief.into(), report.at).await
        }
        Record::Status(status) => {
            let others = reports::slots_other_than(tx, device, &status.slot).await?;
            if others >= SLOTS_TOLD_MAX {
                let text = format!("{device} tells of more slots than a device has");
                return flag(tx, device, None, "slots", &text, now).await;
            }
            reports::put_status(tx, device, status, report, now).await
        }
        Record::Outcome(outcome) => {
            note_outcome(tx, device, outcome, now).await?;
            reports::put_outcome(tx, device, outcome, report, now, OUTCOMES_KEPT).await
        }
        Record::Window(window) => {
            let invalid = impossible(app, window, known);
            if let Some(why) = &invalid {
                tracing::warn!(%device, "a window cannot be true: {why}");
                let text = format!("{device} sent a window that cannot be true: {why}");
                flag(tx, device, Some(&window.slot), "window", &text, now).await?;
            }
            let kept = app.config.windows_kept;
            reports::put_window(tx, device, window, invalid.as_deref(), now, kept).await
        }
        Record::Labels(labels) => {
            let invalid = impossible_labels(labels, known);
            if let Some(why) = &invalid {
                tracing::warn!(%device, "labels cannot be true: {why}");
                let text = format!("{device} sent labels that cannot be true: {why}");
                flag(tx, device, Some(&labels.slot), "labels", &text, now).await?;
            }
            let kept = app.config.windows_kept;
            reports::put_labels(tx, device, labels, invalid.as_deref(), now, kept).await
        }
    }
}

async fn note_outcome(
    tx: &mut Write,
    device: &DeviceId,
    outcome: &Outcome,
    now: UnixSecs,
) -> Result<(), StoreError> {
    let release = outcome
        .release
        .map(|id| id.short().to_string())
        .unwrap_or_default();
    let text = format!("{} {release}: {}", outcome.slot, outcome.kind);
    let actor = format!("device:{device}");
    tracing::info!(%device, "{text}");
    records::note(tx, now, &actor, "outcome", outcome.slot.as_str(), &text).await
}

async fn flag(
    tx: &mut Write,
    device: &DeviceId,
    slot: Option<&SlotName>,
    what: &str,
    text: &str,
    now: UnixSecs,
) -> Result<(), StoreError> {
    let row = FlagRow {
        key: format!("invalid/{device}/{what}"),
        at: now,
        last_at: now,
        kind: "invalid".to_owned(),
        device: Some(device.clone()),
        rollout: None,
        slot: slot.cloned(),
        fields: Vec::new(),
        text: text.to_owned(),
    };
    records::put_flag(tx, &row, FLAGS_KEPT).await.map(|_| ())
}

/// Why a window cannot be true, if so.
fn impossible(app: &App, window: &Window, known: &Known) -> Option<String> {
    let Some(Some(expect)) = known.get(&window.baseline) else {
        return Some("its baseline's package is unknown here".to_owned());
    };
    let expected = Expected {
        inputs: &expect.baseline.inputs,
        outputs: &expect.baseline.outputs,
        values_per_row_max: values_per_row_max(expect),
        rows_per_sec_max: app.config.rows_per_sec_max,
    };
    let cause = window.check(&expected).err()?;
    let why = std::error::Error::source(&cause).map(|why| format!(": {why}"));
    Some(format!("{cause}{}", why.unwrap_or_default()))
}

/// Why labels cannot be true, if so.
fn impossible_labels(labels: &Labels, known: &Known) -> Option<String> {
    let Some(Some(expect)) = known.get(&labels.release) else {
        return Some("their release's package is unknown here".to_owned());
    };
    let mut fields = expect.contract.output_fields();
    let Some(field) = fields.nth(labels.field.into()).filter(|field| field.export) else {
        return Some("the release has no such output field, or it is not exported".to_owned());
    };
    let classes = match &field.kind {
        FieldKind::Numeric => None,
        FieldKind::Categorical { domain } => Some(domain.len()),
    };
    labels.check(classes).err().map(|why| why.to_string())
}

/// Values of one field that one row can hold: the product of a port's fixed axes, its last one,
/// which counts the fields, excepted.
fn values_per_row_max(expect: &Expectations) -> u32 {
    use bellwether_package::sections::{Dim, Port};
    let of_port = |port: &Port| {
        let inner = port.shape.len().saturating_sub(1);
        port.shape[..inner]
            .iter()
            .fold(1_u32, |values, dim| match dim {
                Dim::Batch => values,
                Dim::Fixed(length) => values.saturating_mul((*length).max(1)),
            })
    };
    let ports = expect
        .contract
        .inputs
        .iter()
        .chain(&expect.contract.outputs);
    ports.map(of_port).max().unwrap_or(1)
}

async fn learn(app: &App, known: &mut Known, id: &PackageId) -> Result<(), StoreError> {
    if matches!(known.get(id), Some(Some(_))) {
        return Ok(());
    }
    if known.len() >= EXPECTATIONS_MAX {
        known.clear();
    }
    known.insert(*id, app.store.expectations(id).await?);
    Ok(())
}

async fn acknowledge(app: &App, taken: &[(DeviceId, BootId, u64)]) {
    let mut by_boot: BTreeMap<(&DeviceId, BootId), Vec<u64>> = BTreeMap::new();
    for (device, boot, seq) in taken {
        by_boot.entry((device, *boot)).or_default().push(*seq);
    }
    for ((device, boot), seqs) in by_boot {
        for some in seqs.chunks(bellwether_protocol::ack::ACK_SEQS_MAX) {
            let seqs = heapless::Vec::from_slice(some).expect("chunks are within the bound");
            match to_vec(&Ack { boot, seqs }) {
                Ok(bytes) => {
                    app.link.acknowledge(device, bytes).await;
                }
                Err(cause) => tracing::error!("an acknowledgement cannot be encoded: {cause}"),
            }
        }
    }
}

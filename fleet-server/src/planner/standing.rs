//! The same look at what serves while no rollout runs.

use std::collections::HashMap;

use bellwether_package::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::DeviceId;
use bellwether_rollout::fleet::{
    Arm, DeviceView, Finding, Limits, RolloutState, Snapshot, WatchPolicy, watch,
};

use super::PlanError;
use super::commit::{FLAGS_KEPT, notice_flag};
use super::snapshot::{Served, figures, input_names};
use crate::app::App;
use crate::store::StoreError;
use crate::store::records::{self, FlagRow};
use crate::store::rollouts::RolloutRow;

/// How far back the standing watch looks, in seconds: long enough for counts to gather.
const WATCH_SECS: u64 = 24 * 3600;

/// What the standing watch holds devices against: wide limits, because nobody chose them for this
/// model. A rollout's policy has its own.
const POLICY: WatchPolicy = WatchPolicy {
    limits: Limits {
        psi_max: 0.25,
        outside_rise_max: 0.1,
        error_rise_max: 0.05,
        latency_ratio_max: 2.0,
    },
    windows_min: 3,
    rows_min: 500,
    devices_min: 3,
    liars: 0,
    // By default devices report every hour.
    silence_secs: 3 * 3600,
};

/// Looks at each release in each slot that no unfinished rollout works on.
pub(super) async fn look(
    app: &App,
    rollouts: &[RolloutRow],
    now: UnixSecs,
) -> Result<(), PlanError> {
    let busy = |slot: &SlotName| {
        let on = |row: &RolloutRow| row.slot == *slot && row.state == RolloutState::Running;
        rollouts.iter().any(on)
    };
    let devices = app.store.devices().await?;
    let seen: HashMap<DeviceId, Option<UnixSecs>> = devices
        .into_iter()
        .map(|row| (row.device, row.last_seen))
        .collect();
    let mut cohorts: HashMap<(SlotName, PackageId), Vec<DeviceView>> = HashMap::new();
    for slot in app.store.slots(None).await? {
        let Some((_, status)) = slot.status else {
            continue;
        };
        let Some(serving) = status.serving.filter(|_| !busy(&slot.slot)) else {
            continue;
        };
        cohorts
            .entry((slot.slot, serving))
            .or_default()
            .push(DeviceView {
                last_seen: seen.get(&slot.device).copied().flatten(),
                device: slot.device,
                arm: Arm::Control,
                assigned_at: None,
                phase: Some(status.phase),
                serving: Some(serving),
                outcome: None,
                scores: None,
            });
    }
    let since = UnixSecs(now.0.saturating_sub(WATCH_SECS));
    for ((slot, release), mut views) in cohorts {
        let served = match Served::read(app, release).await {
            Ok(served) => served,
            // A device may serve what another server gave it.
            Err(PlanError::PackageGone) => continue,
            Err(cause) => return Err(cause),
        };
        for view in &mut views {
            view.scores = figures(app, &view.device, &slot, since, &served, None).await?;
        }
        let snapshot = Snapshot {
            generation: 0,
            devices: views,
            inputs: input_names(&served.expect.contract),
            outputs: super::snapshot::field_names(&served.expect.contract.outputs),
        };
        let findings = watch(&POLICY, &served.release.label, &snapshot, now);
        keep(app, &slot, &served.release.label, &findings, now).await?;
    }
    Ok(())
}

async fn keep(
    app: &App,
    slot: &SlotName,
    release: &str,
    findings: &[Finding],
    now: UnixSecs,
) -> Result<(), StoreError> {
    let flags: Vec<FlagRow> = findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Notice(notice) => Some(notice_flag(notice, None, slot, now)),
            Finding::ManyMoved { devices, measured } => Some(FlagRow {
                key: format!("many-moved/{slot}/{release}"),
                at: now,
                last_at: now,
                kind: "many-moved".to_owned(),
                device: None,
                rollout: None,
                slot: Some(slot.clone()),
                fields: Vec::new(),
                text: format!(
                    "inputs of {devices} of {measured} devices moved: too many for single sensors, \
                     too few for the whole cohort"
                ),
            }),
            Finding::TooFewFigures { .. } => None,
        })
        .collect();
    if flags.is_empty() {
        return Ok(());
    }
    let mut tx = app.store.write().await?;
    for flag in &flags {
        records::put_flag(&mut tx, flag, FLAGS_KEPT).await?;
    }
    tx.commit().await?;
    Ok(())
}

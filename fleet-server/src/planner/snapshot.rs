//! What is stored of a rollout and its devices, as `bellwether_rollout` wants to see it.

use std::collections::HashMap;

use bellwether_package::sections::{Contract, Port};
use bellwether_package::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::DeviceId;
use bellwether_rollout::fleet::{
    Arm, Baselines, DeviceView, Release, Rollout, Scores, Snapshot, Tally, Told,
};

use super::PlanError;
use crate::app::App;
use crate::store::packages::Expectations;
use crate::store::rollouts::RolloutRow;

/// Windows of one device that its figures come from: the latest ones.
const WINDOWS_MAX: u32 = 500;

/// Reads a rollout and its devices.
pub(super) async fn read(app: &App, row: &RolloutRow) -> Result<(Rollout, Snapshot), PlanError> {
    let release = Served::read(app, row.release).await?;
    let previous = match row.previous {
        Some(id) => Some(Served::read(app, id).await?),
        None => None,
    };
    let since = row.started_at.unwrap_or(row.created_at);
    let arms = app.store.arms(row.id).await?;
    let devices = app.store.devices().await?;
    let seen: HashMap<DeviceId, Option<UnixSecs>> = devices
        .into_iter()
        .map(|row| (row.device, row.last_seen))
        .collect();
    let slots = app.store.slots_named(&row.slot).await?;
    let mut statuses: HashMap<DeviceId, _> = slots
        .into_iter()
        .filter_map(|slot| Some((slot.device, slot.status?.1)))
        .collect();
    let outcomes = app.store.rollout_outcomes(row.id).await?;
    let mut told: HashMap<DeviceId, Told> = outcomes
        .into_iter()
        .map(|row| {
            (
                row.device,
                Told {
                    kind: row.outcome.kind,
                    at: row.received_at,
                },
            )
        })
        .collect();

    let mut views = Vec::with_capacity(arms.len());
    for arm in arms {
        let status = statuses.remove(&arm.device);
        let scores = match (arm.arm, &previous) {
            (Arm::Treated { .. }, _) => {
                let since = arm.assigned_at.unwrap_or(since);
                figures(
                    app,
                    &arm.device,
                    &row.slot,
                    since,
                    &release,
                    previous.as_ref(),
                )
                .await?
            }
            (Arm::Control | Arm::Holdout, Some(previous)) => {
                figures(app, &arm.device, &row.slot, since, previous, None).await?
            }
            (Arm::Control | Arm::Holdout, None) => None,
        };
        views.push(DeviceView {
            last_seen: seen.get(&arm.device).copied().flatten(),
            phase: status.as_ref().map(|status| status.phase),
            serving: status.and_then(|status| status.serving),
            outcome: told.remove(&arm.device),
            arm: arm.arm,
            assigned_at: arm.assigned_at,
            device: arm.device,
            scores,
        });
    }
    let snapshot = Snapshot {
        generation: row.generation,
        devices: views,
        inputs: field_names(&release.expect.contract.inputs),
        outputs: field_names(&release.expect.contract.outputs),
    };
    let rollout = Rollout {
        id: row.id,
        slot: row.slot.clone(),
        release: release.release,
        previous: previous.map(|previous| previous.release),
        state: row.state,
        stage: row.stage,
        stage_since: row.stage_since,
        generation: row.generation,
    };
    Ok((rollout, snapshot))
}

/// A release with what its windows are held against.
pub(super) struct Served {
    pub(super) release: Release,
    pub(super) expect: Expectations,
}

impl Served {
    pub(super) async fn read(app: &App, id: PackageId) -> Result<Self, PlanError> {
        let row = app
            .store
            .package(&id)
            .await?
            .ok_or(PlanError::PackageGone)?;
        let expect = app
            .store
            .expectations(&id)
            .await?
            .ok_or(PlanError::PackageGone)?;
        Ok(Self {
            release: Release {
                id,
                label: row.version,
            },
            expect,
        })
    }
}

/// One device's figures over its windows since then; `None` if there are no windows.
pub(super) async fn figures(
    app: &App,
    device: &DeviceId,
    slot: &SlotName,
    since: UnixSecs,
    runs: &Served,
    reference: Option<&Served>,
) -> Result<Option<Scores>, PlanError> {
    let windows = app
        .store
        .windows_since(device, slot, since, WINDOWS_MAX)
        .await?;
    let mut tally = Tally::new(runs.release.id, reference.map(|served| served.release.id));
    let mut added = false;
    for row in &windows {
        // Windows of another release or baseline are not looked at.
        added |= tally.add(&row.window).is_ok();
    }
    let reference = reference.filter(|served| served.release.id != runs.release.id);
    let baselines = Baselines {
        inputs: &runs.expect.baseline.inputs,
        outputs: &runs.expect.baseline.outputs,
        reference: reference.map(|served| served.expect.baseline.inputs.as_slice()),
    };
    Ok(added.then(|| tally.scores(&baselines)))
}

/// Names of the fields over all ports, in the contract's order.
pub(super) fn field_names(ports: &[Port]) -> Vec<String> {
    ports
        .iter()
        .flat_map(|port| &port.fields)
        .map(|field| field.name.clone())
        .collect()
}

/// Names of the input fields of a contract.
pub(super) fn input_names(contract: &Contract) -> Vec<String> {
    field_names(&contract.inputs)
}

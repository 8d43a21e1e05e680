//! Devices: what they are, what they shall do, what they do; the order to stop, and shutting out.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use bellwether_package::{Selector, SlotName, UnixSecs};
use bellwether_protocol::{ClockState, Desired, DeviceId, Health, Note, SlotAssignment};

use super::ENTRIES_MAX;
use super::auth::{Input, Operator};
use super::enrol::device_id;
use super::error::ApiError;
use super::records::flag_view;
use super::types::{
    Device, DeviceBattery, DeviceHealth, DeviceNetwork, DeviceOutcome, DeviceRevoked, DeviceServed,
    DisableRequest, ErrorBody, Flag, OrderAccepted, Outcome, RevokeDeviceRequest, Slot,
};
use crate::app::App;
use crate::clock;
use crate::planner::untried;
use crate::store::devices::{DeviceRow, SlotRow};
use crate::store::reports::OutcomeRow;
use crate::store::{StoreError, certificates, devices, records};

/// Longest reason for shutting a device out, in bytes: a sentence or two.
const REASON_BYTES_MAX: usize = 400;

/// All devices.
#[utoipa::path(get, path = "/v1/devices",
    responses((status = 200, body = [Device]), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    _: Operator,
    State(app): State<Arc<App>>,
) -> Result<Json<Vec<Device>>, ApiError> {
    let mut parts = Parts::read(&app, None).await?;
    let rows = app.store.devices().await?;
    Ok(Json(rows.iter().map(|row| parts.device(row)).collect()))
}

/// One device.
#[utoipa::path(get, path = "/v1/devices/{device}", params(("device" = String, Path)),
    responses((status = 200, body = Device), (status = "4XX", body = ErrorBody)))]
pub(super) async fn show(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(device): Path<String>,
) -> Result<Json<Device>, ApiError> {
    let row = find(&app, &device).await?;
    let mut parts = Parts::read(&app, Some(&row.device)).await?;
    Ok(Json(parts.device(&row)))
}

/// Shuts a device out: its certificates are taken back and its connection ends. What it serves it
/// goes on serving. A claim that names it lets it in again.
#[utoipa::path(post, path = "/v1/devices/{device}/revoke", params(("device" = String, Path)),
    request_body = RevokeDeviceRequest,
    responses((status = 200, body = DeviceRevoked), (status = "4XX", body = ErrorBody)))]
pub(super) async fn revoke(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(device): Path<String>,
    Input(request): Input<RevokeDeviceRequest>,
) -> Result<Json<DeviceRevoked>, ApiError> {
    let now = clock::now();
    let device = find(&app, &device).await?.device;
    let reason = request.reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        let message = format!("a reason has 1 to {REASON_BYTES_MAX} bytes");
        return Err(ApiError::bad("reason", message));
    }
    let mut tx = app.store.write().await?;
    certificates::revoke_device(&mut tx, &device, reason, now).await?;
    let subject = device.as_str();
    records::note(&mut tx, now, "operator", "revoke-device", subject, reason).await?;
    tx.commit().await.map_err(StoreError::from)?;
    // First nobody comes in, then whoever is in goes out.
    app.revoked.look(&app.store).await?;
    app.sessions.end(&device).await;
    tracing::info!(%device, "shut out");
    Ok(Json(DeviceRevoked {
        at: now.0,
        reason: reason.to_owned(),
    }))
}

/// Orders a cohort's slot to answer with nothing.
#[utoipa::path(post, path = "/v1/disable", request_body = DisableRequest,
    responses((status = 200, body = OrderAccepted), (status = "4XX", body = ErrorBody)))]
pub(super) async fn disable(
    _: Operator,
    State(app): State<Arc<App>>,
    Input(request): Input<DisableRequest>,
) -> Result<Json<OrderAccepted>, ApiError> {
    let now = clock::now();
    let slot = slot_name(&request.slot)?;
    let selector = selector(&request.selector)?;
    if request.reason.trim().is_empty() {
        return Err(ApiError::bad("reason", "a disable order needs a reason"));
    }
    let rows = app.store.devices().await?;
    let cohort: Vec<&DeviceRow> = rows
        .iter()
        .filter(|row| row.revoked.is_none() && selector.matches(&row.selectable()))
        .collect();
    if cohort.is_empty() {
        return Err(ApiError::bad(
            "selector",
            format!("no device matches {selector}"),
        ));
    }
    let order = SlotAssignment {
        slot: slot.clone(),
        desired: Desired::Disable {
            reason: Note::new(&request.reason),
        },
        also_baseline: None,
        trial: untried(),
        rollout: None,
        ordered_back: false,
        treated: None,
    };
    let mut tx = app.store.write().await?;
    for row in &cohort {
        devices::desire(&mut tx, &row.device, &order, now).await?;
    }
    let subject = format!("{slot} of {selector}");
    records::note(
        &mut tx,
        now,
        "operator",
        "disable",
        &subject,
        &request.reason,
    )
    .await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.assignments_changed.notify_one();
    Ok(Json(OrderAccepted {
        devices: u32::try_from(cohort.len()).unwrap_or(u32::MAX),
    }))
}

pub(super) async fn find(app: &App, device: &str) -> Result<DeviceRow, ApiError> {
    let id = device_id(device)?;
    let row = app.store.device(&id).await?;
    row.ok_or_else(|| ApiError::missing("device", id, "GET /v1/devices"))
}

pub(super) fn slot_name(text: &str) -> Result<SlotName, ApiError> {
    SlotName::new(text).map_err(|cause| ApiError::bad("slot", format!("the slot's name {cause}")))
}

pub(super) fn selector(text: &str) -> Result<Selector, ApiError> {
    Selector::new(text).map_err(|cause| ApiError::bad("selector", format!("the selector {cause}")))
}

/// What stands around devices, by device.
struct Parts {
    slots: HashMap<DeviceId, Vec<SlotRow>>,
    sequences: HashMap<DeviceId, String>,
    outcomes: HashMap<(DeviceId, SlotName), OutcomeRow>,
    flags: HashMap<DeviceId, Vec<Flag>>,
}

impl Parts {
    async fn read(app: &App, only: Option<&DeviceId>) -> Result<Self, ApiError> {
        let mut slots: HashMap<DeviceId, Vec<SlotRow>> = HashMap::new();
        for row in app.store.slots(only).await? {
            slots.entry(row.device.clone()).or_default().push(row);
        }
        let mut sequences = HashMap::new();
        for (device, row) in app.store.assignments().await? {
            if row.sequence.n > 0 {
                sequences.insert(device, row.sequence.to_string());
            }
        }
        let outcomes = app.store.latest_outcomes(only).await?;
        let outcomes = outcomes
            .into_iter()
            .map(|row| ((row.device.clone(), row.outcome.slot.clone()), row))
            .collect();
        let mut flags: HashMap<DeviceId, Vec<Flag>> = HashMap::new();
        for row in app.store.flags(only, ENTRIES_MAX).await? {
            if let Some(device) = row.device.clone() {
                flags.entry(device).or_default().push(flag_view(row));
            }
        }
        Ok(Self {
            slots,
            sequences,
            outcomes,
            flags,
        })
    }

    fn device(&mut self, row: &DeviceRow) -> Device {
        let slots = self.slots.remove(&row.device).unwrap_or_default();
        let sequence = self.sequences.get(&row.device);
        let slots = slots
            .into_iter()
            .map(|slot| {
                let outcome = self
                    .outcomes
                    .remove(&(slot.device.clone(), slot.slot.clone()));
                slot_view(slot, sequence, outcome.as_ref())
            })
            .collect();
        Device {
            device: row.device.to_string(),
            attributes: row.attributes.clone(),
            enrolled_at: row.enrolled_at.0,
            revoked: row.revoked.as_ref().map(|(at, reason)| DeviceRevoked {
                at: at.0,
                reason: reason.clone(),
            }),
            last_seen: row.last_seen.map(|at| at.0),
            gone_at: row.gone_at.map(|at| at.0),
            health: row
                .health
                .as_ref()
                .map(|(at, health)| health_view(*at, health)),
            slots,
            flags: self.flags.remove(&row.device).unwrap_or_default(),
        }
    }
}

fn slot_view(row: SlotRow, sequence: Option<&String>, outcome: Option<&OutcomeRow>) -> Slot {
    let desired = row.desired.as_ref();
    let (release, disabled) = match desired.map(|order| &order.desired) {
        Some(Desired::Serve { release, .. }) => (Some(release.to_string()), None),
        Some(Desired::Disable { reason }) => (None, Some(reason.to_string())),
        None => (None, None),
    };
    let status = row.status.map(|(_, status)| status);
    Slot {
        slot: row.slot.to_string(),
        desired: release,
        disabled,
        sequence: desired.and(sequence).cloned(),
        rollout: desired
            .and_then(|order| order.rollout)
            .map(|rollout| rollout.0),
        serving: status
            .as_ref()
            .and_then(|it| it.serving)
            .map(|id| id.to_string()),
        candidate: status
            .as_ref()
            .and_then(|it| it.candidate)
            .map(|id| id.to_string()),
        phase: status.map(|it| it.phase.to_string()),
        outcome: outcome.map(outcome_view),
    }
}

pub(super) fn outcome_view(row: &OutcomeRow) -> Outcome {
    let outcome = &row.outcome;
    Outcome {
        at: row.at.0,
        slot: outcome.slot.to_string(),
        release: outcome.release.map(|id| id.to_string()),
        sequence: outcome.sequence.to_string(),
        rollout: outcome.rollout.map(|rollout| rollout.0),
        kind: outcome.kind.word().to_string(),
        text: outcome.kind.to_string(),
        serving: outcome.serving.map(|id| id.to_string()),
    }
}

fn health_view(at: UnixSecs, health: &Health) -> DeviceHealth {
    let clock = match health.clock {
        ClockState::Plausible => "plausible",
        ClockState::Behind => "behind",
        ClockState::Ahead => "ahead",
        ClockState::None => "none",
    };
    let bytes = |kib: u64| kib.saturating_mul(1024);
    DeviceHealth {
        at: at.0,
        cpu_permille: health.cpu_permille,
        memory_bytes_used: health.memory.map(|memory| bytes(memory.kib_used())),
        memory_bytes: health.memory.map(|memory| bytes(memory.kib)),
        disk_bytes_free: health.disk.map(|disk| bytes(disk.kib_free)),
        disk_bytes: health.disk.map(|disk| bytes(disk.kib)),
        temperature_centi_c: health.temperature_centi_c,
        load_centi: health.load_centi,
        uptime_secs: health.uptime_secs,
        agent_version: health.agent_version.map(|version| version.to_string()),
        clock: clock.to_owned(),
        clock_offset_secs: health.clock_offset_secs,
        network: health.network.map(|network| DeviceNetwork {
            link: network.link.to_string(),
            signal_dbm: network.signal_dbm,
            received_bytes: bytes(network.received_kib),
            sent_bytes: bytes(network.sent_kib),
            errors: network.errors,
        }),
        battery: health.battery.map(|battery| DeviceBattery {
            percent: battery.percent,
            state: battery.state.to_string(),
        }),
        agent_bytes: health.agent_kib.map(|kib| bytes(kib.into())),
        served: health.served.map(|served| DeviceServed {
            rows: served.rows,
            rows_failed: served.rows_failed,
            rows_nonfinite: served.rows_nonfinite,
            latency_us_p99: served.latency_us_p99,
            worker_deaths: served.worker_deaths,
            workers_bytes: served.workers_kib.map(|kib| bytes(kib.into())),
        }),
        last_outcome: health.last_outcome.map(|last| DeviceOutcome {
            kind: last.word.to_string(),
            at: at.0.saturating_sub(last.secs_ago.into()),
        }),
    }
}

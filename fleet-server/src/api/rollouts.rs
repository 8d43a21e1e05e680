//! Rollouts: made, started, paused, resumed and rolled back by people; decided by the planner.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bellwether_package::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::{Desired, DeviceId, RolloutId};
use bellwether_rollout::fleet::{Arm, Policy, RolloutState, draw_arms};

use super::auth::{Input, Operator};
use super::devices::{outcome_view, selector, slot_name};
use super::error::ApiError;
use super::types::{
    Decision, ErrorBody, Rollout, RolloutCreated, RolloutDevice, RolloutOrder, RolloutRequest,
    RolloutSummary,
};
use super::{ENTRIES_MAX, packages};
use crate::app::App;
use crate::clock;
use crate::planner::{orders_back, put_decision};
use crate::store::devices::DeviceRow;
use crate::store::rollouts::{ArmRow, DecisionRow, RolloutRow, Turn, state_word};
use crate::store::{StoreError, records, rollouts};

/// Makes a rollout.
#[utoipa::path(post, path = "/v1/rollouts", request_body = RolloutRequest,
    responses((status = 201, body = RolloutCreated), (status = "4XX", body = ErrorBody)))]
pub(super) async fn create(
    _: Operator,
    State(app): State<Arc<App>>,
    Input(request): Input<RolloutRequest>,
) -> Result<(StatusCode, Json<RolloutCreated>), ApiError> {
    let now = clock::now();
    let slot = slot_name(&request.slot)?;
    let selector = selector(&request.selector)?;
    let policy: Policy = serde_json::from_value(request.policy)
        .map_err(|cause| ApiError::bad("policy", format!("policy: {cause}")))?;
    let package = packages::find(&app, &request.release).await?;
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
    let refused = packages::refusal(&app, &package, &slot, &cohort, now).await?;
    if let Some(why) = &refused {
        if !app.drill_offer_unapproved {
            return Err(ApiError::conflict(
                "not-a-release",
                format!(
                    "package {} cannot be rolled out there: {why}",
                    package.id.short()
                ),
                "have enough approvers approve it for this slot and cohort: `bellwether approve`",
            ));
        }
        tracing::warn!("DRILL: offering {}, although {why}", package.id);
    }
    let previous = previous(&app, &slot, &cohort).await?;
    if previous == Some(package.id) {
        return Err(ApiError::conflict(
            "served-already",
            "most of the cohort serves this release already",
            "choose another release or selector",
        ));
    }
    let devices = u32::try_from(cohort.len()).unwrap_or(u32::MAX);
    let admissible = match previous {
        Some(_) if !slot.is_agent() => policy.admissible(devices),
        // Nothing is there to compare with, so no certainty can be asked for.
        _ => policy.admissible_uncompared(devices),
    };
    admissible.map_err(|cause| {
        ApiError::conflict(
            "policy-inadmissible",
            cause.to_string(),
            "change the policy, or roll out to more devices",
        )
    })?;

    let ids: Vec<DeviceId> = cohort.iter().map(|row| row.device.clone()).collect();
    let mut tx = app.store.write().await?;
    if let Some((other, device)) = rollouts::unfinished(&mut tx, &slot, &ids).await? {
        return Err(ApiError::conflict(
            "rollout-unfinished",
            format!("rollout {other} works on slot {slot} of {device} and is not finished"),
            format!("wait for rollout {other}, or roll it back"),
        ));
    }
    let row = RolloutRow {
        id: RolloutId(0),
        slot: slot.clone(),
        release: package.id,
        previous,
        selector: selector.clone(),
        policy,
        state: RolloutState::Draft,
        stage: None,
        stage_since: now,
        started_at: None,
        generation: 0,
        created_at: now,
    };
    let id = rollouts::create(&mut tx, &row).await?;
    for (device, arm) in draw_arms(id, &package.id, row.policy.holdout, &ids) {
        rollouts::put_arm(
            &mut tx,
            id,
            &ArmRow {
                device,
                arm,
                assigned_at: None,
            },
        )
        .await?;
    }
    let subject = format!("rollout {id}");
    let drill = refused
        .map(|why| format!(" (DRILL: {why})"))
        .unwrap_or_default();
    let text = format!(
        "{} {} in slot {slot} of {} devices of {selector}{drill}",
        package.model,
        package.version,
        ids.len()
    );
    records::note(&mut tx, now, "operator", "rollout-create", &subject, &text).await?;
    let mut state = RolloutState::Draft;
    if request.start {
        state = RolloutState::Running;
        turn(&mut tx, &RolloutRow { id, ..row }, state, now).await?;
        records::note(&mut tx, now, "operator", "rollout-start", &subject, "").await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    app.plan_now.notify_one();
    let created = RolloutCreated {
        id: id.0,
        state: state_word(state).to_owned(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// All rollouts, the latest first.
#[utoipa::path(get, path = "/v1/rollouts",
    responses((status = 200, body = [RolloutSummary]), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    _: Operator,
    State(app): State<Arc<App>>,
) -> Result<Json<Vec<RolloutSummary>>, ApiError> {
    let mut views = Vec::new();
    for row in app.store.rollouts().await? {
        let arms = app.store.arms(row.id).await?;
        views.push(summary(&app, &row, &arms).await?);
    }
    Ok(Json(views))
}

/// One rollout, with each of its devices.
#[utoipa::path(get, path = "/v1/rollouts/{id}", params(("id" = u64, Path)),
    responses((status = 200, body = Rollout), (status = "4XX", body = ErrorBody)))]
pub(super) async fn show(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Rollout>, ApiError> {
    let row = find(&app, &id).await?;
    Ok(Json(view(&app, &row).await?))
}

/// A rollout's decisions, the latest first.
#[utoipa::path(get, path = "/v1/rollouts/{id}/decisions", params(("id" = u64, Path)),
    responses((status = 200, body = [Decision]), (status = "4XX", body = ErrorBody)))]
pub(super) async fn decisions(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Vec<Decision>>, ApiError> {
    let row = find(&app, &id).await?;
    let rows = app.store.decisions(row.id, ENTRIES_MAX).await?;
    Ok(Json(rows.into_iter().map(decision_view).collect()))
}

/// Starts a rollout.
#[utoipa::path(post, path = "/v1/rollouts/{id}/start", params(("id" = u64, Path)),
    request_body = RolloutOrder,
    responses((status = 200, body = RolloutSummary), (status = "4XX", body = ErrorBody)))]
pub(super) async fn start(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Input(order): Input<RolloutOrder>,
) -> Result<Json<RolloutSummary>, ApiError> {
    let from = &[RolloutState::Draft];
    change(
        &app,
        &id,
        "start",
        from,
        RolloutState::Running,
        &order.reason,
    )
    .await
}

/// Pauses a rollout: nothing changes until it is resumed or rolled back.
#[utoipa::path(post, path = "/v1/rollouts/{id}/pause", params(("id" = u64, Path)),
    request_body = RolloutOrder,
    responses((status = 200, body = RolloutSummary), (status = "4XX", body = ErrorBody)))]
pub(super) async fn pause(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Input(order): Input<RolloutOrder>,
) -> Result<Json<RolloutSummary>, ApiError> {
    let from = &[RolloutState::Running];
    change(
        &app,
        &id,
        "pause",
        from,
        RolloutState::Paused,
        &order.reason,
    )
    .await
}

/// Resumes a paused rollout.
#[utoipa::path(post, path = "/v1/rollouts/{id}/resume", params(("id" = u64, Path)),
    request_body = RolloutOrder,
    responses((status = 200, body = RolloutSummary), (status = "4XX", body = ErrorBody)))]
pub(super) async fn resume(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Input(order): Input<RolloutOrder>,
) -> Result<Json<RolloutSummary>, ApiError> {
    let from = &[RolloutState::Paused];
    change(
        &app,
        &id,
        "resume",
        from,
        RolloutState::Running,
        &order.reason,
    )
    .await
}

/// Orders all treated devices of a rollout back, and ends it.
#[utoipa::path(post, path = "/v1/rollouts/{id}/rollback", params(("id" = u64, Path)),
    request_body = RolloutOrder,
    responses((status = 200, body = RolloutSummary), (status = "4XX", body = ErrorBody)))]
pub(super) async fn roll_back(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Input(order): Input<RolloutOrder>,
) -> Result<Json<RolloutSummary>, ApiError> {
    use RolloutState::{Complete, Disabled, Draft, Paused, RolledBack, Running};
    let from = &[Draft, Running, Paused, Disabled, Complete];
    change(&app, &id, "roll_back", from, RolledBack, &order.reason).await
}

async fn change(
    app: &App,
    id: &str,
    action: &str,
    from: &[RolloutState],
    to: RolloutState,
    reason: &str,
) -> Result<Json<RolloutSummary>, ApiError> {
    let now = clock::now();
    let row = find(app, id).await?;
    if !from.contains(&row.state) {
        return Err(ApiError::conflict(
            "rollout-state",
            format!(
                "rollout {id} is {}, so it cannot {action}",
                state_word(row.state)
            ),
            format!("look at GET /v1/rollouts/{id}"),
        ));
    }
    let arms = treated_by(app, &row).await?;
    let mut tx = app.store.write().await?;
    if to == RolloutState::RolledBack {
        orders_back(app, &mut tx, &row, &arms, now).await?;
    }
    let text = if reason.trim().is_empty() {
        "an operator asked".to_owned()
    } else {
        reason.to_owned()
    };
    let decision = DecisionRow {
        rollout: row.id,
        generation: row.generation,
        stage: row.stage,
        at: now,
        last_at: now,
        repeated: 1,
        kind: action.to_owned(),
        text: format!("by an operator: {text}"),
        reasons: vec![text.clone()],
        figures: "null".to_owned(),
    };
    put_decision(&mut tx, &decision).await?;
    if !turn(&mut tx, &row, to, now).await? {
        return Err(ApiError::conflict(
            "rollout-changed",
            "the planner changed the rollout at the same moment",
            "look at it, then try again",
        ));
    }
    let subject = format!("rollout {id}");
    let action = format!("rollout-{action}");
    records::note(&mut tx, now, "operator", &action, &subject, &text).await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.assignments_changed.notify_one();
    app.plan_now.notify_one();
    let row = find(app, id).await?;
    let arms = app.store.arms(row.id).await?;
    Ok(Json(summary(app, &row, &arms).await?))
}

async fn turn(
    tx: &mut crate::store::Write,
    row: &RolloutRow,
    state: RolloutState,
    now: UnixSecs,
) -> Result<bool, StoreError> {
    let starts = row.state == RolloutState::Draft && state == RolloutState::Running;
    let turn = Turn {
        state,
        stage: row.stage,
        stage_since: if starts { now } else { row.stage_since },
        started_at: if starts { Some(now) } else { row.started_at },
    };
    rollouts::turn(tx, row.id, row.generation, turn).await
}

/// Treated devices whose slot still has this rollout's order, and no later one.
async fn treated_by(app: &App, row: &RolloutRow) -> Result<Vec<ArmRow>, StoreError> {
    let slots = app.store.slots_named(&row.slot).await?;
    let ordered = |device: &DeviceId| {
        let slot = slots.iter().find(|slot| slot.device == *device);
        slot.and_then(|slot| slot.desired.as_ref())
            .is_some_and(|it| it.rollout == Some(row.id))
    };
    let arms = app.store.arms(row.id).await?;
    Ok(arms
        .into_iter()
        .filter(|arm| ordered(&arm.device))
        .collect())
}

/// What most of the cohort serves, or shall serve where it has told nothing.
async fn previous(
    app: &App,
    slot: &SlotName,
    cohort: &[&DeviceRow],
) -> Result<Option<PackageId>, StoreError> {
    let mut counted: HashMap<PackageId, usize> = HashMap::new();
    for row in app.store.slots_named(slot).await? {
        if cohort.iter().all(|device| device.device != row.device) {
            continue;
        }
        let desired = row.desired.and_then(|order| match order.desired {
            Desired::Serve { release, .. } => Some(release),
            Desired::Disable { .. } => None,
        });
        if let Some(id) = row
            .status
            .and_then(|(_, status)| status.serving)
            .or(desired)
        {
            *counted.entry(id).or_default() += 1;
        }
    }
    let known = |id: &PackageId| {
        let id = *id;
        async move { app.store.package(&id).await.map(|row| row.is_some()) }
    };
    let mut most: Vec<(usize, PackageId)> = counted.into_iter().map(|(id, n)| (n, id)).collect();
    most.sort_unstable_by(|a, b| b.cmp(a));
    for (_, id) in most {
        if known(&id).await? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

async fn find(app: &App, id: &str) -> Result<RolloutRow, ApiError> {
    let missing = || ApiError::missing("rollout", id, "GET /v1/rollouts");
    let number = id.parse().map_err(|_| missing())?;
    app.store
        .rollout(RolloutId(number))
        .await?
        .ok_or_else(missing)
}

async fn summary(app: &App, row: &RolloutRow, arms: &[ArmRow]) -> Result<RolloutSummary, ApiError> {
    let decision = app.store.decisions(row.id, 1).await?.into_iter().next();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(RolloutSummary {
        id: row.id.0,
        slot: row.slot.to_string(),
        release: row.release.to_string(),
        previous: row.previous.map(|id| id.to_string()),
        selector: row.selector.to_string(),
        state: state_word(row.state).to_owned(),
        stage: row.stage.map(u32::from),
        stages: count(row.policy.stages.len()),
        stage_since: row.stage_since.0,
        started_at: row.started_at.map(|at| at.0),
        devices: count(arms.len()),
        treated: count(arms.iter().filter(|arm| arm.arm.is_treated()).count()),
        created_at: row.created_at.0,
        generation: row.generation,
        decision: decision.map(decision_view),
    })
}

async fn view(app: &App, row: &RolloutRow) -> Result<Rollout, ApiError> {
    let arms = app.store.arms(row.id).await?;
    let slots = app.store.slots_named(&row.slot).await?;
    let devices = app.store.devices().await?;
    let outcomes = app.store.rollout_outcomes(row.id).await?;
    let device_states = arms
        .iter()
        .map(|arm| {
            let slot = slots.iter().find(|slot| slot.device == arm.device);
            let status = slot
                .and_then(|slot| slot.status.as_ref())
                .map(|(_, status)| status);
            let seen = devices.iter().find(|device| device.device == arm.device);
            let outcome = outcomes.iter().find(|outcome| outcome.device == arm.device);
            let (word, stage) = match arm.arm {
                Arm::Treated { stage } => ("treated", Some(u32::from(stage))),
                Arm::Control => ("control", None),
                Arm::Holdout => ("holdout", None),
            };
            RolloutDevice {
                device: arm.device.to_string(),
                arm: word.to_owned(),
                stage,
                assigned_at: arm.assigned_at.map(|at| at.0),
                serving: status
                    .and_then(|status| status.serving)
                    .map(|id| id.to_string()),
                phase: status.map(|status| status.phase.to_string()),
                last_seen: seen.and_then(|device| device.last_seen).map(|at| at.0),
                outcome: outcome.map(outcome_view),
            }
        })
        .collect();
    Ok(Rollout {
        summary: summary(app, row, &arms).await?,
        policy: serde_json::to_value(&row.policy).map_err(|cause| ApiError::ours(&cause))?,
        device_states,
    })
}

fn decision_view(row: DecisionRow) -> Decision {
    Decision {
        at: row.at.0,
        last_at: row.last_at.0,
        rollout: row.rollout.0,
        stage: row.stage.map(u32::from),
        decision: row.kind,
        text: row.text,
        reasons: row.reasons,
        figures: serde_json::from_str(&row.figures).unwrap_or_default(),
        repeated: row.repeated,
    }
}

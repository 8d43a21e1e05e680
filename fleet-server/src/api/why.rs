//! Is this device well, and if not, why: one sentence, and what led there.

// utoipa's macro qualifies the query's type.
#![allow(unused_qualifications)]

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use bellwether_package::PackageId;
use bellwether_protocol::{Desired, OutcomeKind, Phase, SlotAssignment};
use bellwether_rollout::fleet::RolloutState;
use serde::Deserialize;
use utoipa::IntoParams;

use super::auth::Operator;
use super::devices::{find, slot_name};
use super::error::ApiError;
use super::types::{ErrorBody, Why, WhyStep};
use crate::app::App;
use crate::clock;
use crate::store::devices::SlotRow;
use crate::store::reports::OutcomeRow;
use crate::store::rollouts::{DecisionRow, RolloutRow};

/// A device unheard of for longer is called silent, in seconds: by default devices report every hour.
const SILENT_SECS: u64 = 2 * 3600 + 600;
/// Outcomes that are looked back on.
const OUTCOMES_MAX: u32 = 20;
/// Decisions of a rollout that are looked back on.
const DECISIONS_MAX: u32 = 50;
/// Flags that are looked back on.
const FLAGS_MAX: u32 = 50;

/// Which slot.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyQuery {
    /// The slot; absent: the device's only one.
    slot: Option<String>,
}

/// Why a device's slot is as it is.
#[utoipa::path(get, path = "/v1/devices/{device}/why", params(("device" = String, Path), WhyQuery),
    responses((status = 200, body = Why), (status = "4XX", body = ErrorBody)))]
pub(super) async fn why(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(device): Path<String>,
    query: Query<WhyQuery>,
) -> Result<Json<Why>, ApiError> {
    let now = clock::now();
    let row = find(&app, &device).await?;
    let slots = app.store.slots(Some(&row.device)).await?;
    let slot = match (&query.slot, slots.as_slice()) {
        (Some(slot), _) => slot_name(slot)?,
        (None, [only]) => only.slot.clone(),
        (None, _) => {
            let message = format!("{device} has {} slots; name one: ?slot=", slots.len());
            return Err(ApiError::bad("slot", message));
        }
    };
    let found = slots.into_iter().find(|row| row.slot == slot);
    let names = Names::read(&app).await?;
    let outcomes = app.store.outcomes(&row.device, &slot, OUTCOMES_MAX).await?;
    let mut rollouts: Vec<(RolloutRow, Vec<DecisionRow>)> = Vec::new();
    let involved = outcomes.iter().filter_map(|row| row.outcome.rollout);
    let desired = found.as_ref().and_then(|row| row.desired.as_ref());
    for id in involved.chain(desired.and_then(|order| order.rollout)) {
        if rollouts.iter().all(|(row, _)| row.id != id)
            && let Some(rollout) = app.store.rollout(id).await?
        {
            let mut decisions = app.store.decisions(id, DECISIONS_MAX).await?;
            decisions.reverse();
            rollouts.push((rollout, decisions));
        }
    }
    let flags = app.store.flags(Some(&row.device), FLAGS_MAX).await?;

    let mut chain = Vec::new();
    for row in outcomes.iter().rev() {
        chain.push(step(row.at.0, "outcome", names.outcome(row)));
    }
    for (rollout, decisions) in &rollouts {
        for row in decisions
            .iter()
            .filter(|row| row.kind != "hold" && row.kind != "notify")
        {
            let text = format!("rollout {}: {}: {}", rollout.id, row.kind, row.text);
            chain.push(step(row.at.0, "decision", text));
        }
        if let Some(last) = decisions.last().filter(|row| row.kind == "hold")
            && rollout.state == RolloutState::Running
        {
            let text = format!("rollout {} holds: {}", rollout.id, last.text);
            chain.push(step(last.at.0, "decision", text));
        }
    }
    if let Some((order, at)) = desired.zip(found.as_ref().and_then(|row| row.assigned_at)) {
        chain.push(step(at.0, "assignment", names.order(order)));
    }
    for flag in &flags {
        chain.push(step(flag.at.0, "flag", flag.text.clone()));
    }
    chain.sort_by_key(|step| step.at);

    let silent = row
        .last_seen
        .is_none_or(|seen| now.secs_since(seen) > SILENT_SECS);
    let mut sentence = sentence(found.as_ref(), outcomes.first(), &rollouts, &names);
    if let Some(flag) = flags.first() {
        sentence = format!("{sentence} Flagged: {}.", flag.text);
    }
    if silent {
        let ago = row
            .last_seen
            .map(|seen| format!("for {} s", now.secs_since(seen)));
        let ago = ago.unwrap_or_else(|| "since it enrolled".to_owned());
        sentence =
            format!("Nothing was heard of {device} {ago}, so this may be out of date. {sentence}");
    }
    Ok(Json(Why {
        device,
        slot: slot.to_string(),
        sentence,
        chain,
    }))
}

fn step(at: u64, kind: &str, text: String) -> WhyStep {
    WhyStep {
        at,
        kind: kind.to_owned(),
        text,
    }
}

fn sentence(
    slot: Option<&SlotRow>,
    last: Option<&OutcomeRow>,
    rollouts: &[(RolloutRow, Vec<DecisionRow>)],
    names: &Names,
) -> String {
    let Some(slot) = slot else {
        return "Nothing was ever assigned to this slot, and it told nothing.".to_owned();
    };
    let status = slot.status.as_ref().map(|(_, status)| status);
    let serving = status.and_then(|status| status.serving);
    let desired = slot.desired.as_ref().map(|order| &order.desired);
    let phase = status.map(|status| status.phase);
    let now_serves = match serving {
        Some(id) => format!("It serves {}", names.of(&id)),
        None => "It serves nothing".to_owned(),
    };
    if let Some(Desired::Disable { reason }) = desired {
        return match phase {
            Some(Phase::Disabled) => format!("It answers with nothing, as ordered: {reason}."),
            _ => format!(
                "{now_serves}; it was ordered to answer with nothing ({reason}) and has not told yet that it does."
            ),
        };
    }
    let wanted = match desired {
        Some(Desired::Serve { release, .. }) => Some(*release),
        _ => None,
    };
    // A decision that took a release back explains more than the order that carried it out.
    let taken_back = last
        .and_then(|row| row.outcome.rollout)
        .and_then(|id| rollouts.iter().find(|(row, _)| row.id == id))
        .and_then(|(_, decisions)| decisions.iter().rfind(|row| row.kind == "roll_back"));
    if let Some(row) = last {
        let failed = !matches!(
            row.outcome.kind,
            OutcomeKind::Committed | OutcomeKind::Disabled(_)
        );
        if matches!(row.outcome.kind, OutcomeKind::RolledBackByOrder)
            && let Some(decision) = taken_back
        {
            return format!(
                "{now_serves}, because it was ordered back: {}.",
                decision.text
            );
        }
        if failed && phase.is_none_or(|phase| phase == Phase::Serving || phase == Phase::Empty) {
            return format!("{now_serves}; {}.", names.outcome(row));
        }
    }
    match (wanted, serving, phase) {
        (Some(wanted), Some(serving), Some(Phase::Serving)) if wanted == serving => {
            format!("It is well: it serves {}, as it shall.", names.of(&serving))
        }
        (Some(wanted), _, Some(phase)) if status.is_some_and(|it| it.candidate == Some(wanted)) => {
            format!(
                "{now_serves}, and is taking {} (now {phase}).",
                names.of(&wanted)
            )
        }
        (Some(wanted), _, _) => {
            format!(
                "{now_serves}; it shall serve {} and has not told yet that it does.",
                names.of(&wanted)
            )
        }
        (None, _, _) => format!("{now_serves}, and nothing was assigned."),
    }
}

/// What people call packages.
struct Names(std::collections::HashMap<PackageId, String>);

impl Names {
    async fn read(app: &App) -> Result<Self, ApiError> {
        let rows = app.store.packages().await?;
        let name = |row: crate::store::packages::PackageRow| {
            (row.id, format!("{} {}", row.model, row.version))
        };
        Ok(Self(rows.into_iter().map(name).collect()))
    }

    fn of(&self, id: &PackageId) -> String {
        self.0
            .get(id)
            .cloned()
            .unwrap_or_else(|| format!("package {}", id.short()))
    }

    fn outcome(&self, row: &OutcomeRow) -> String {
        let release = row
            .outcome
            .release
            .map_or_else(|| "the order".to_owned(), |id| self.of(&id));
        let was = match row.outcome.kind {
            OutcomeKind::FailedBeforeServing(_) | OutcomeKind::UnableToRollBack(_) => "",
            _ => "was ",
        };
        format!("{release} {was}{}", row.outcome.kind)
    }

    fn order(&self, order: &SlotAssignment) -> String {
        let what = match &order.desired {
            Desired::Serve { release, .. } if order.ordered_back => {
                format!("ordered back to {}", self.of(release))
            }
            Desired::Serve { release, .. } => format!("ordered to serve {}", self.of(release)),
            Desired::Disable { reason } => format!("ordered to answer with nothing: {reason}"),
        };
        match order.rollout {
            Some(rollout) => format!("{what} (rollout {rollout})"),
            None => what,
        }
    }
}

//! From a decision to stored state: the rollout's turn, the arms, what slots shall do, the record.

use bellwether_package::{PackageId, UnixSecs};
use bellwether_protocol::{Desired, DeviceId, Note, SlotAssignment};
use bellwether_rollout::fleet::{Action, Arm, Decision, Notice, RolloutState};

use crate::app::App;
use crate::store::packages::PackageRow;
use crate::store::records::FlagRow;
use crate::store::rollouts::{ArmRow, DecisionRow, RolloutRow, Turn};
use crate::store::{StoreError, Write, devices, records, rollouts, to_json};

/// Decisions of one rollout that only held it, and are kept.
const HOLDS_KEPT: u32 = 200;
/// Flags that are kept.
pub(super) const FLAGS_KEPT: u32 = 1000;

/// Carries a decision out. Nothing happens if the rollout changed meanwhile.
pub(super) async fn commit(
    app: &App,
    row: &RolloutRow,
    decision: &Decision,
    now: UnixSecs,
) -> Result<(), StoreError> {
    let release = app.store.package(&row.release).await?;
    let previous = match &row.previous {
        Some(id) => app.store.package(id).await?,
        None => None,
    };
    let arms = app.store.arms(row.id).await?;
    let length = length(app, release.as_ref()).await?;
    let previous_length = length_of_previous(app, previous.as_ref()).await?;

    let mut tx = app.store.write().await?;
    let new = put_decision(&mut tx, &recorded(row, decision, now)).await?;
    for notice in &decision.notices {
        records::put_flag(&mut tx, &flag(row, notice, now), FLAGS_KEPT).await?;
    }
    let mut order = Order {
        row,
        length,
        previous: row.previous.zip(previous_length),
        now,
    };
    let turn = match &decision.action {
        Action::Hold | Action::Notify => None,
        Action::Advance { stage, devices } => {
            for device in devices {
                order.treat(&mut tx, device, *stage).await?;
            }
            Some((RolloutState::Running, Some(*stage), now))
        }
        Action::Pause => Some((RolloutState::Paused, row.stage, row.stage_since)),
        Action::RollBack { devices } => {
            for device in devices {
                order.back(&mut tx, device).await?;
            }
            Some((RolloutState::RolledBack, row.stage, row.stage_since))
        }
        Action::Disable { devices } => {
            let reason = decision
                .reasons
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            for device in devices {
                order.disable(&mut tx, device, &reason).await?;
            }
            Some((RolloutState::Disabled, row.stage, row.stage_since))
        }
        Action::Complete => {
            for arm in arms.iter().filter(|arm| arm.arm.is_treated()) {
                order.settle(&mut tx, &arm.device).await?;
            }
            Some((RolloutState::Complete, row.stage, row.stage_since))
        }
    };
    if let Some((state, stage, stage_since)) = turn {
        let turn = Turn {
            state,
            stage,
            stage_since,
            started_at: row.started_at,
        };
        if !rollouts::turn(&mut tx, row.id, row.generation, turn).await? {
            tracing::info!(rollout = %row.id, "changed meanwhile; it is planned again");
            return tx.rollback().await.map_err(StoreError::from);
        }
    }
    if new {
        let subject = format!("rollout {}", row.id);
        let text = sentence(decision);
        records::note(
            &mut tx,
            now,
            "planner",
            decision.action.name(),
            &subject,
            &text,
        )
        .await?;
        rollouts::forget_holds(&mut tx, row.id, HOLDS_KEPT).await?;
        tracing::info!(rollout = %row.id, "{}: {text}", decision.action.name());
    }
    tx.commit().await?;
    if turn.is_some() {
        app.assignments_changed.notify_one();
    }
    Ok(())
}

/// What a rollout orders its devices.
struct Order<'a> {
    /// The rollout.
    row: &'a RolloutRow,
    /// Length of the new release's `.bwp` in bytes.
    length: u64,
    /// The older release, and its length in bytes.
    previous: Option<(PackageId, u64)>,
    /// The time of the order.
    now: UnixSecs,
}

impl Order<'_> {
    async fn treat(
        &mut self,
        tx: &mut Write,
        device: &DeviceId,
        stage: u8,
    ) -> Result<(), StoreError> {
        let arm = Arm::Treated { stage };
        let row = ArmRow {
            device: device.clone(),
            arm,
            assigned_at: Some(self.now),
        };
        rollouts::put_arm(tx, self.row.id, &row).await?;
        let desired = Desired::Serve {
            release: self.row.release,
            length: self.length,
        };
        // Programs have no baseline.
        let counts = !self.row.slot.is_agent();
        let previous = self.row.previous.filter(|_| counts);
        let also_baseline = previous.filter(|id| *id != self.row.release);
        let order = SlotAssignment {
            also_baseline,
            ..self.of(desired, Some(true))
        };
        devices::desire(tx, device, &order, self.now).await
    }

    /// Back to the older release; without one, nothing answers.
    async fn back(&mut self, tx: &mut Write, device: &DeviceId) -> Result<(), StoreError> {
        let order = match self.previous {
            Some((release, length)) => SlotAssignment {
                ordered_back: true,
                ..self.of(Desired::Serve { release, length }, None)
            },
            None => {
                let reason = Note::new("rolled back, and there was no release before");
                self.of(Desired::Disable { reason }, None)
            }
        };
        devices::desire(tx, device, &order, self.now).await
    }

    async fn disable(
        &mut self,
        tx: &mut Write,
        device: &DeviceId,
        why: &str,
    ) -> Result<(), StoreError> {
        let order = self.of(
            Desired::Disable {
                reason: Note::new(why),
            },
            None,
        );
        devices::desire(tx, device, &order, self.now).await
    }

    /// The rollout is over: the device counts under its own baseline only.
    async fn settle(&mut self, tx: &mut Write, device: &DeviceId) -> Result<(), StoreError> {
        let desired = Desired::Serve {
            release: self.row.release,
            length: self.length,
        };
        let order = self.of(desired, None);
        devices::desire(tx, device, &order, self.now).await
    }

    fn of(&self, desired: Desired, treated: Option<bool>) -> SlotAssignment {
        SlotAssignment {
            slot: self.row.slot.clone(),
            desired,
            also_baseline: None,
            trial: self.row.policy.trial,
            rollout: Some(self.row.id),
            ordered_back: false,
            treated,
        }
    }
}

/// Orders all treated devices of a rollout back, as a person asked.
pub(crate) async fn orders_back(
    app: &App,
    tx: &mut Write,
    row: &RolloutRow,
    arms: &[ArmRow],
    now: UnixSecs,
) -> Result<u32, StoreError> {
    let previous = match &row.previous {
        Some(id) => app.store.package(id).await?,
        None => None,
    };
    let length = length_of_previous(app, previous.as_ref()).await?;
    let mut order = Order {
        row,
        length: 0,
        previous: row.previous.zip(length),
        now,
    };
    let mut ordered = 0;
    for arm in arms.iter().filter(|arm| arm.arm.is_treated()) {
        order.back(tx, &arm.device).await?;
        ordered += 1;
    }
    Ok(ordered)
}

/// Keeps a decision.
pub(crate) async fn put_decision(tx: &mut Write, row: &DecisionRow) -> Result<bool, StoreError> {
    rollouts::put_decision(tx, row).await
}

async fn length(app: &App, row: Option<&PackageRow>) -> Result<u64, StoreError> {
    Ok(length_of_previous(app, row).await?.unwrap_or(0))
}

async fn length_of_previous(
    app: &App,
    row: Option<&PackageRow>,
) -> Result<Option<u64>, StoreError> {
    let Some(row) = row else { return Ok(None) };
    let approvals = app.store.approvals(&row.id).await?;
    crate::content::length(row, approvals).map(Some)
}

fn recorded(row: &RolloutRow, decision: &Decision, now: UnixSecs) -> DecisionRow {
    DecisionRow {
        rollout: row.id,
        generation: row.generation,
        stage: row.stage,
        at: now,
        last_at: now,
        repeated: 1,
        kind: decision.action.name().to_owned(),
        text: sentence(decision),
        reasons: decision.reasons.iter().map(ToString::to_string).collect(),
        figures: to_json(decision),
    }
}

fn sentence(decision: &Decision) -> String {
    let reasons: Vec<String> = decision.reasons.iter().map(ToString::to_string).collect();
    reasons.join("; ")
}

fn flag(row: &RolloutRow, notice: &Notice, now: UnixSecs) -> FlagRow {
    notice_flag(notice, Some(row), &row.slot, now)
}

/// A notice as a flag. The same notice about the same thing is one flag.
pub(super) fn notice_flag(
    notice: &Notice,
    rollout: Option<&RolloutRow>,
    slot: &bellwether_package::SlotName,
    now: UnixSecs,
) -> FlagRow {
    let (kind, key, device, fields) = match notice {
        Notice::Retrain {
            release, fields, ..
        } => {
            let fields = fields.iter().map(|figure| figure.field.clone()).collect();
            ("retrain", format!("retrain/{slot}/{release}"), None, fields)
        }
        Notice::Sensor { device, figure, .. } => {
            let key = format!("sensor/{slot}/{device}/{}", figure.field);
            (
                "sensor",
                key,
                Some(device.clone()),
                vec![figure.field.clone()],
            )
        }
    };
    FlagRow {
        key,
        at: now,
        last_at: now,
        kind: kind.to_owned(),
        device,
        rollout: rollout.map(|row| row.id),
        slot: Some(slot.clone()),
        fields,
        text: notice.to_string(),
    }
}

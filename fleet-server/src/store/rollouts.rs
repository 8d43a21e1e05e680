//! Rollouts, the arms of their devices, and the decisions about them.

use bellwether_package::{PackageId, Selector, SlotName, UnixSecs};
use bellwether_protocol::{DeviceId, RolloutId};
use bellwether_rollout::fleet::{Arm, Policy, RolloutState};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Write, at, from_json, package, packages, parse, secs, to_json};

/// A rollout.
#[derive(Debug, Clone)]
pub struct RolloutRow {
    /// Its id.
    pub id: RolloutId,
    /// The slot.
    pub slot: SlotName,
    /// The new release.
    pub release: PackageId,
    /// The release that the cohort served before.
    pub previous: Option<PackageId>,
    /// The cohort.
    pub selector: Selector,
    /// The policy.
    pub policy: Policy,
    /// Whether it goes on.
    pub state: RolloutState,
    /// The stage reached, from 0.
    pub stage: Option<u8>,
    /// When that stage was reached.
    pub stage_since: UnixSecs,
    /// When it was started.
    pub started_at: Option<UnixSecs>,
    /// Raised by every change.
    pub generation: u64,
    /// When it was made.
    pub created_at: UnixSecs,
}

/// A device within a rollout.
#[derive(Debug, Clone)]
pub struct ArmRow {
    /// The device.
    pub device: DeviceId,
    /// Its arm.
    pub arm: Arm,
    /// When it was assigned the new release.
    pub assigned_at: Option<UnixSecs>,
}

/// A decision as it is kept: what was decided, in words and in figures.
#[derive(Debug, Clone)]
pub struct DecisionRow {
    /// The rollout.
    pub rollout: RolloutId,
    /// The generation that it was made for.
    pub generation: u64,
    /// The stage that it was made in, from 0.
    pub stage: Option<u8>,
    /// When it was first made.
    pub at: UnixSecs,
    /// When it was last made.
    pub last_at: UnixSecs,
    /// How often.
    pub repeated: u64,
    /// The action's name.
    pub kind: String,
    /// All reasons in one sentence.
    pub text: String,
    /// Each reason as a sentence.
    pub reasons: Vec<String>,
    /// The decision with all figures, as JSON.
    pub figures: String,
}

impl Store {
    /// All rollouts, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn rollouts(&self) -> Result<Vec<RolloutRow>, StoreError> {
        let rows = sqlx::query("select * from rollouts order by id desc")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(rollout_row).collect()
    }

    /// One rollout.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn rollout(&self, id: RolloutId) -> Result<Option<RolloutRow>, StoreError> {
        let row = sqlx::query("select * from rollouts where id = $1")
            .bind(id.0.cast_signed())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(rollout_row).transpose()
    }

    /// The devices of a rollout with their arms.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn arms(&self, id: RolloutId) -> Result<Vec<ArmRow>, StoreError> {
        let rows = sqlx::query("select * from rollout_devices where rollout = $1 order by device")
            .bind(id.0.cast_signed())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(arm_row).collect()
    }

    /// A rollout's decisions, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn decisions(
        &self,
        id: RolloutId,
        most: u32,
    ) -> Result<Vec<DecisionRow>, StoreError> {
        let rows =
            sqlx::query("select * from decisions where rollout = $1 order by id desc limit $2")
                .bind(id.0.cast_signed())
                .bind(i64::from(most))
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(decision_row).collect()
    }
}

/// A rollout that is not finished and has devices in common with the given ones in that slot.
///
/// # Errors
///
/// [`StoreError`].
pub async fn unfinished(
    tx: &mut Write,
    slot: &SlotName,
    devices: &[DeviceId],
) -> Result<Option<(RolloutId, DeviceId)>, StoreError> {
    let names: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
    let row = sqlx::query(
        "select r.id, d.device from rollouts r join rollout_devices d on d.rollout = r.id
         where r.slot = $1 and r.state in ('draft', 'running', 'paused')
           and d.device in (select value from json_each($2)) limit 1",
    )
    .bind(slot.as_str())
    .bind(to_json(&names))
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((
        RolloutId(row.get::<i64, _>(0).cast_unsigned()),
        parse(row.get(1), "device id")?,
    )))
}

/// Makes a rollout; its id is drawn here.
///
/// # Errors
///
/// [`StoreError`].
pub async fn create(tx: &mut Write, row: &RolloutRow) -> Result<RolloutId, StoreError> {
    let done = sqlx::query(
        "insert into rollouts (slot, release, previous, selector, policy, state, stage, stage_since,
                               generation, created_at)
         values ($1, $2, $3, $4, $5, $6, null, $7, 0, $7)",
    )
    .bind(row.slot.as_str())
    .bind(&row.release.0.0[..])
    .bind(row.previous.map(|id| id.0.0.to_vec()))
    .bind(row.selector.as_str())
    .bind(to_json(&row.policy))
    .bind(state_word(row.state))
    .bind(secs(row.created_at))
    .execute(&mut **tx)
    .await?;
    Ok(RolloutId(done.last_insert_rowid().cast_unsigned()))
}

/// Sets a device's arm.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_arm(tx: &mut Write, id: RolloutId, row: &ArmRow) -> Result<(), StoreError> {
    sqlx::query(
        "insert into rollout_devices (rollout, device, arm, assigned_at) values ($1, $2, $3, $4)
         on conflict (rollout, device) do update
         set arm = excluded.arm, assigned_at = excluded.assigned_at",
    )
    .bind(id.0.cast_signed())
    .bind(row.device.as_str())
    .bind(to_json(&row.arm))
    .bind(row.assigned_at.map(secs))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What a rollout becomes.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Its state from now on.
    pub state: RolloutState,
    /// Its stage from now on.
    pub stage: Option<u8>,
    /// Since when.
    pub stage_since: UnixSecs,
    /// When it was started.
    pub started_at: Option<UnixSecs>,
}

/// Changes a rollout if it still is of that generation. Whether it was.
///
/// # Errors
///
/// [`StoreError`].
pub async fn turn(
    tx: &mut Write,
    id: RolloutId,
    generation: u64,
    turn: Turn,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "update rollouts
         set state = $3, stage = $4, stage_since = $5, started_at = $6, generation = generation + 1
         where id = $1 and generation = $2",
    )
    .bind(id.0.cast_signed())
    .bind(generation.cast_signed())
    .bind(state_word(turn.state))
    .bind(turn.stage.map(i64::from))
    .bind(secs(turn.stage_since))
    .bind(turn.started_at.map(secs))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Keeps a decision. One that says the same as the last of its rollout only raises its count.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_decision(tx: &mut Write, row: &DecisionRow) -> Result<bool, StoreError> {
    let last = sqlx::query(
        "select id, generation, text from decisions where rollout = $1 order by id desc limit 1",
    )
    .bind(row.rollout.0.cast_signed())
    .fetch_optional(&mut **tx)
    .await?;
    let same = last.filter(|last| {
        last.get::<i64, _>("generation").cast_unsigned() == row.generation
            && last.get::<String, _>("text") == row.text
    });
    if let Some(last) = same {
        sqlx::query(
            "update decisions set repeated = repeated + 1, last_at = $2, figures = $3 where id = $1",
        )
        .bind(last.get::<i64, _>("id"))
        .bind(secs(row.last_at))
        .bind(&row.figures)
        .execute(&mut **tx)
        .await?;
        return Ok(false);
    }
    sqlx::query(
        "insert into decisions (rollout, generation, stage, at, last_at, repeated, kind, text, reasons,
                                figures)
         values ($1, $2, $3, $4, $4, 1, $5, $6, $7, $8)",
    )
    .bind(row.rollout.0.cast_signed())
    .bind(row.generation.cast_signed())
    .bind(row.stage.map(i64::from))
    .bind(secs(row.at))
    .bind(&row.kind)
    .bind(&row.text)
    .bind(to_json(&row.reasons))
    .bind(&row.figures)
    .execute(&mut **tx)
    .await?;
    Ok(true)
}

/// Forgets all but the latest `kept` decisions that only held a rollout.
///
/// # Errors
///
/// [`StoreError`].
pub async fn forget_holds(tx: &mut Write, id: RolloutId, kept: u32) -> Result<(), StoreError> {
    sqlx::query(
        "delete from decisions where rollout = $1 and kind in ('hold', 'notify') and id not in
         (select id from decisions where rollout = $1 order by id desc limit $2)",
    )
    .bind(id.0.cast_signed())
    .bind(i64::from(kept))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What API, database and people call a state.
pub fn state_word(state: RolloutState) -> &'static str {
    match state {
        RolloutState::Draft => "draft",
        RolloutState::Running => "running",
        RolloutState::Paused => "paused",
        RolloutState::RolledBack => "rolled_back",
        RolloutState::Disabled => "disabled",
        RolloutState::Complete => "complete",
    }
}

fn state(word: &str) -> Result<RolloutState, StoreError> {
    use RolloutState::{Complete, Disabled, Draft, Paused, RolledBack, Running};
    [Draft, Running, Paused, RolledBack, Disabled, Complete]
        .into_iter()
        .find(|state| state_word(*state) == word)
        .ok_or(StoreError::Damaged("rollout's state"))
}

fn stage(row: &SqliteRow) -> Option<u8> {
    row.get::<Option<i64>, _>("stage")
        .and_then(|stage| u8::try_from(stage).ok())
}

fn rollout_row(row: &SqliteRow) -> Result<RolloutRow, StoreError> {
    Ok(RolloutRow {
        id: RolloutId(row.get::<i64, _>("id").cast_unsigned()),
        slot: parse(row.get("slot"), "slot name")?,
        release: package(row.get("release"))?,
        previous: packages(row.get("previous"))?,
        selector: parse(row.get("selector"), "selector")?,
        policy: from_json(row.get("policy"), "policy")?,
        state: state(row.get("state"))?,
        stage: stage(row),
        stage_since: at(row.get("stage_since")),
        started_at: row.get::<Option<i64>, _>("started_at").map(at),
        generation: row.get::<i64, _>("generation").cast_unsigned(),
        created_at: at(row.get("created_at")),
    })
}

fn arm_row(row: &SqliteRow) -> Result<ArmRow, StoreError> {
    Ok(ArmRow {
        device: parse(row.get("device"), "device id")?,
        arm: from_json(row.get("arm"), "arm")?,
        assigned_at: row.get::<Option<i64>, _>("assigned_at").map(at),
    })
}

fn decision_row(row: &SqliteRow) -> Result<DecisionRow, StoreError> {
    Ok(DecisionRow {
        rollout: RolloutId(row.get::<i64, _>("rollout").cast_unsigned()),
        generation: row.get::<i64, _>("generation").cast_unsigned(),
        stage: stage(row),
        at: at(row.get("at")),
        last_at: at(row.get("last_at")),
        repeated: row.get::<i64, _>("repeated").unsigned_abs(),
        kind: row.get("kind"),
        text: row.get("text"),
        reasons: from_json(row.get("reasons"), "decision's reasons")?,
        figures: row.get("figures"),
    })
}

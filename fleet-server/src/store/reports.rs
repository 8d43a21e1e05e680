//! What devices told: windows, outcomes, statuses, health, and which reports were taken.

use bellwether_package::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::{
    BootId, DeviceId, Health, Labels, Outcome, Report, RolloutId, Status, Window,
};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Write, at, from_bytes, parse, secs, to_bytes};

/// An outcome that a device told.
#[derive(Debug, Clone)]
pub struct OutcomeRow {
    /// The device.
    pub device: DeviceId,
    /// When, by the device's clock.
    pub at: UnixSecs,
    /// When it arrived.
    pub received_at: UnixSecs,
    /// What.
    pub outcome: Outcome,
}

/// A window that passed its checks.
#[derive(Debug, Clone)]
pub struct WindowRow {
    /// The device.
    pub device: DeviceId,
    /// When it arrived.
    pub received_at: UnixSecs,
    /// What was counted.
    pub window: Window,
}

/// Labels of one field as a device sent them.
#[derive(Debug, Clone)]
pub struct LabelsRow {
    /// Counts up over all of them.
    pub id: i64,
    /// The device.
    pub device: DeviceId,
    /// When they came.
    pub received_at: UnixSecs,
    /// What they say.
    pub labels: Labels,
}

impl Store {
    /// A device's outcomes in a slot, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn outcomes(
        &self,
        device: &DeviceId,
        slot: &SlotName,
        most: u32,
    ) -> Result<Vec<OutcomeRow>, StoreError> {
        let rows = sqlx::query(
            "select * from outcomes where device = $1 and slot = $2
             order by at desc, seq desc limit $3",
        )
        .bind(device.as_str())
        .bind(slot.as_str())
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(outcome_row).collect()
    }

    /// The latest outcome of each slot of each device, or of one device.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn latest_outcomes(
        &self,
        device: Option<&DeviceId>,
    ) -> Result<Vec<OutcomeRow>, StoreError> {
        let rows = sqlx::query(
            "select * from (select *, row_number() over
               (partition by device, slot order by at desc, seq desc) as place
               from outcomes where $1 is null or device = $1) where place = 1",
        )
        .bind(device.map(DeviceId::as_str))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(outcome_row).collect()
    }

    /// The latest outcome of a rollout's orders on each of its devices.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn rollout_outcomes(&self, id: RolloutId) -> Result<Vec<OutcomeRow>, StoreError> {
        let rows = sqlx::query(
            "select * from (select *, row_number() over
               (partition by device order by at desc, seq desc) as place
               from outcomes where rollout = $1) where place = 1",
        )
        .bind(id.0.cast_signed())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(outcome_row).collect()
    }

    /// Valid windows of a device's slot that started and arrived since then, oldest first, at most
    /// the latest `most`.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn windows_since(
        &self,
        device: &DeviceId,
        slot: &SlotName,
        since: UnixSecs,
        most: u32,
    ) -> Result<Vec<WindowRow>, StoreError> {
        let rows = sqlx::query(
            "select * from (select * from windows
               where device = $1 and slot = $2 and received_at >= $3 and started_at >= $3
                 and invalid is null
               order by id desc limit $4) order by id",
        )
        .bind(device.as_str())
        .bind(slot.as_str())
        .bind(secs(since))
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(window_row).collect()
    }

    /// Labels of a release that can be true, in the order in which they came, after record `after`,
    /// at most `most`.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn labels_after(
        &self,
        release: &PackageId,
        device: Option<&DeviceId>,
        after: i64,
        most: u32,
    ) -> Result<Vec<LabelsRow>, StoreError> {
        let rows = sqlx::query(
            "select * from labels
             where release = $1 and id > $2 and invalid is null and ($3 is null or device = $3)
             order by id limit $4",
        )
        .bind(release.0.0.to_vec())
        .bind(after)
        .bind(device.map(DeviceId::as_str))
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(labels_row).collect()
    }

    /// How many windows are kept: valid ones, and ones that cannot be true.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn windows_count(&self) -> Result<(u64, u64), StoreError> {
        let row = sqlx::query(
            "select count(*) - count(invalid) as valid, count(invalid) as invalid from windows",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((
            row.get::<i64, _>(0).unsigned_abs(),
            row.get::<i64, _>(1).unsigned_abs(),
        ))
    }
}

/// Notes that a report was taken. `false` if it was taken before.
///
/// # Errors
///
/// [`StoreError`].
pub async fn take(
    tx: &mut Write,
    device: &DeviceId,
    boot: BootId,
    seq: u64,
    now: UnixSecs,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "insert into reports (device, boot, seq, received_at) values ($1, $2, $3, $4)
         on conflict (device, boot, seq) do nothing",
    )
    .bind(device.as_str())
    .bind(boot.0.cast_signed())
    .bind(seq.cast_signed())
    .bind(secs(now))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Notes that a device was heard of. `false` if it is not enrolled.
///
/// # Errors
///
/// [`StoreError`].
pub async fn heard(
    tx: &mut Write,
    device: &DeviceId,
    boot: BootId,
    now: UnixSecs,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "update devices set last_seen = $2, last_boot = $3, gone_at = null where device = $1",
    )
    .bind(device.as_str())
    .bind(secs(now))
    .bind(boot.0.cast_signed())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Notes that the broker lost the connection of that boot of a device, unless a later boot was
/// heard meanwhile.
///
/// # Errors
///
/// [`StoreError`].
pub async fn gone(
    tx: &mut Write,
    device: &DeviceId,
    boot: BootId,
    now: UnixSecs,
) -> Result<(), StoreError> {
    sqlx::query(
        "update devices set gone_at = $3
         where device = $1 and (last_boot is null or last_boot = $2)",
    )
    .bind(device.as_str())
    .bind(boot.0.cast_signed())
    .bind(secs(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Keeps a device's health, unless a later one is there.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_health(
    tx: &mut Write,
    device: &DeviceId,
    health: &Health,
    made_at: UnixSecs,
) -> Result<(), StoreError> {
    sqlx::query(
        "update devices set health_at = $2, health = $3
         where device = $1 and (health_at is null or health_at <= $2)",
    )
    .bind(device.as_str())
    .bind(secs(made_at))
    .bind(to_bytes(health))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Keeps a slot's status, unless a later report told another. Reports are sent in order, but one
/// that a link lost is sent again after those that followed it. Within one run of the agent its
/// own count decides, between two runs the device's clock.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_status(
    tx: &mut Write,
    device: &DeviceId,
    status: &Status,
    report: &Report,
    now: UnixSecs,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into slots
           (device, slot, status_at, status, status_boot, status_seq, status_told_at)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (device, slot) do update
         set status_at = excluded.status_at, status = excluded.status,
             status_boot = excluded.status_boot, status_seq = excluded.status_seq,
             status_told_at = excluded.status_told_at
         where slots.status is null
            or (slots.status_boot = excluded.status_boot
                and slots.status_seq < excluded.status_seq)
            or (slots.status_boot <> excluded.status_boot
                and slots.status_told_at <= excluded.status_told_at)",
    )
    .bind(device.as_str())
    .bind(status.slot.as_str())
    .bind(secs(now))
    .bind(to_bytes(status))
    .bind(report.boot.0.cast_signed())
    .bind(report.seq.cast_signed())
    .bind(secs(report.at))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// How many slots a device has beside this one.
///
/// # Errors
///
/// [`StoreError`].
pub async fn slots_other_than(
    tx: &mut Write,
    device: &DeviceId,
    slot: &SlotName,
) -> Result<u64, StoreError> {
    let row = sqlx::query("select count(*) from slots where device = $1 and slot <> $2")
        .bind(device.as_str())
        .bind(slot.as_str())
        .fetch_one(&mut **tx)
        .await?;
    Ok(row.get::<i64, _>(0).unsigned_abs())
}

/// Keeps an outcome, and of older ones in that slot the latest `kept`.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_outcome(
    tx: &mut Write,
    device: &DeviceId,
    outcome: &Outcome,
    report: &Report,
    now: UnixSecs,
    kept: u32,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into outcomes (device, slot, rollout, at, seq, received_at, body)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(device.as_str())
    .bind(outcome.slot.as_str())
    .bind(outcome.rollout.map(|rollout| rollout.0.cast_signed()))
    .bind(secs(report.at))
    .bind(report.seq.cast_signed())
    .bind(secs(now))
    .bind(to_bytes(outcome))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "delete from outcomes where device = $1 and slot = $2 and id <=
         (select id from outcomes where device = $1 and slot = $2 order by id desc limit 1 offset $3)",
    )
    .bind(device.as_str())
    .bind(outcome.slot.as_str())
    .bind(i64::from(kept))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Keeps a window, with the reason if it cannot be true, and of older ones in that slot the
/// latest `kept`.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_window(
    tx: &mut Write,
    device: &DeviceId,
    window: &Window,
    invalid: Option<&str>,
    now: UnixSecs,
    kept: u32,
) -> Result<(), StoreError> {
    let bytes = |id: &PackageId| id.0.0.to_vec();
    sqlx::query(
        "insert into windows (device, slot, release, baseline, started_at, received_at, invalid, body)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(device.as_str())
    .bind(window.slot.as_str())
    .bind(bytes(&window.release))
    .bind(bytes(&window.baseline))
    .bind(secs(window.started_at))
    .bind(secs(now))
    .bind(invalid)
    .bind(to_bytes(window))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "delete from windows where device = $1 and slot = $2 and id <=
         (select id from windows where device = $1 and slot = $2 order by id desc limit 1 offset $3)",
    )
    .bind(device.as_str())
    .bind(window.slot.as_str())
    .bind(i64::from(kept))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Keeps what labels said, with the reason if it cannot be true, and of older ones in that slot the
/// latest `kept`.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_labels(
    tx: &mut Write,
    device: &DeviceId,
    labels: &Labels,
    invalid: Option<&str>,
    now: UnixSecs,
    kept: u32,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into labels
           (device, slot, release, field, started_at, received_at, invalid, body)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(device.as_str())
    .bind(labels.slot.as_str())
    .bind(labels.release.0.0.to_vec())
    .bind(i64::from(labels.field))
    .bind(secs(labels.started_at))
    .bind(secs(now))
    .bind(invalid)
    .bind(to_bytes(labels))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "delete from labels where device = $1 and slot = $2 and id <=
         (select id from labels where device = $1 and slot = $2 order by id desc limit 1 offset $3)",
    )
    .bind(device.as_str())
    .bind(labels.slot.as_str())
    .bind(i64::from(kept))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets which reports were taken before then: no outbox keeps one that long after it was
/// acknowledged.
///
/// # Errors
///
/// [`StoreError`].
pub async fn forget_before(tx: &mut Write, before: UnixSecs) -> Result<(), StoreError> {
    sqlx::query("delete from reports where received_at < $1")
        .bind(secs(before))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

fn outcome_row(row: &SqliteRow) -> Result<OutcomeRow, StoreError> {
    Ok(OutcomeRow {
        device: parse(row.get("device"), "device id")?,
        at: at(row.get("at")),
        received_at: at(row.get("received_at")),
        outcome: from_bytes(row.get("body"), "outcome")?,
    })
}

fn labels_row(row: &SqliteRow) -> Result<LabelsRow, StoreError> {
    Ok(LabelsRow {
        id: row.get("id"),
        device: parse(row.get("device"), "device id")?,
        received_at: at(row.get("received_at")),
        labels: from_bytes(row.get("body"), "labels")?,
    })
}

fn window_row(row: &SqliteRow) -> Result<WindowRow, StoreError> {
    Ok(WindowRow {
        device: parse(row.get("device"), "device id")?,
        received_at: at(row.get("received_at")),
        window: from_bytes(row.get("body"), "window")?,
    })
}

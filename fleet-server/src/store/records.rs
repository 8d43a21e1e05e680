//! Flags, and the audit log.

use bellwether_package::{SlotName, UnixSecs};
use bellwether_protocol::{DeviceId, RolloutId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Write, at, from_json, parse, secs, to_json};

/// A finding about a device or the world.
#[derive(Debug, Clone)]
pub struct FlagRow {
    /// One finding has one key, however often it is made.
    pub key: String,
    /// When it was first made.
    pub at: UnixSecs,
    /// When it was last made.
    pub last_at: UnixSecs,
    /// `sensor`, `retrain` or `invalid`.
    pub kind: String,
    /// The device that it is about.
    pub device: Option<DeviceId>,
    /// The rollout that found it.
    pub rollout: Option<RolloutId>,
    /// The slot.
    pub slot: Option<SlotName>,
    /// Fields that it names.
    pub fields: Vec<String>,
    /// The finding as a sentence.
    pub text: String,
}

/// One line of the audit log.
#[derive(Debug, Clone)]
pub struct AuditRow {
    /// Counts up.
    pub id: u64,
    /// When.
    pub at: UnixSecs,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// Why.
    pub text: String,
}

impl Store {
    /// Flags, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn flags(
        &self,
        device: Option<&DeviceId>,
        most: u32,
    ) -> Result<Vec<FlagRow>, StoreError> {
        let rows = sqlx::query(
            "select * from flags where $1 is null or device = $1 order by last_at desc, key limit $2",
        )
        .bind(device.map(DeviceId::as_str))
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(flag_row).collect()
    }

    /// The audit log, the latest first, before an id if one is given.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn audit(&self, before: Option<u64>, most: u32) -> Result<Vec<AuditRow>, StoreError> {
        let rows = sqlx::query(
            "select * from audit where $1 is null or id < $1 order by id desc limit $2",
        )
        .bind(before.map(u64::cast_signed))
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.iter().map(audit_row).collect())
    }
}

/// Writes a line of the audit log.
///
/// # Errors
///
/// [`StoreError`].
pub async fn note(
    tx: &mut Write,
    now: UnixSecs,
    actor: &str,
    action: &str,
    subject: &str,
    text: &str,
) -> Result<(), StoreError> {
    sqlx::query("insert into audit (at, actor, action, subject, text) values ($1, $2, $3, $4, $5)")
        .bind(secs(now))
        .bind(actor)
        .bind(action)
        .bind(subject)
        .bind(text)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Keeps a flag: a new one, or the latest sight of one that is known; and of all flags the latest
/// `kept`. Whether it is new.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_flag(tx: &mut Write, row: &FlagRow, kept: u32) -> Result<bool, StoreError> {
    let known = sqlx::query("select 1 from flags where key = $1")
        .bind(&row.key)
        .fetch_optional(&mut **tx)
        .await?
        .is_some();
    sqlx::query(
        "insert into flags (key, at, last_at, kind, device, rollout, slot, fields, text)
         values ($1, $2, $2, $3, $4, $5, $6, $7, $8)
         on conflict (key) do update
         set last_at = excluded.last_at, fields = excluded.fields, text = excluded.text",
    )
    .bind(&row.key)
    .bind(secs(row.last_at))
    .bind(&row.kind)
    .bind(row.device.as_ref().map(DeviceId::as_str))
    .bind(row.rollout.map(|rollout| rollout.0.cast_signed()))
    .bind(row.slot.as_ref().map(SlotName::as_str))
    .bind(to_json(&row.fields))
    .bind(&row.text)
    .execute(&mut **tx)
    .await?;
    if !known {
        sqlx::query(
            "delete from flags where key in
             (select key from flags order by last_at desc, key limit -1 offset $1)",
        )
        .bind(i64::from(kept))
        .execute(&mut **tx)
        .await?;
    }
    Ok(!known)
}

fn flag_row(row: &SqliteRow) -> Result<FlagRow, StoreError> {
    let device: Option<String> = row.get("device");
    let slot: Option<String> = row.get("slot");
    Ok(FlagRow {
        key: row.get("key"),
        at: at(row.get("at")),
        last_at: at(row.get("last_at")),
        kind: row.get("kind"),
        device: device.map(|text| parse(&text, "device id")).transpose()?,
        rollout: row
            .get::<Option<i64>, _>("rollout")
            .map(|id| RolloutId(id.cast_unsigned())),
        slot: slot.map(|text| parse(&text, "slot name")).transpose()?,
        fields: from_json(row.get("fields"), "flag's fields")?,
        text: row.get("text"),
    })
}

fn audit_row(row: &SqliteRow) -> AuditRow {
    AuditRow {
        id: row.get::<i64, _>("id").unsigned_abs(),
        at: at(row.get("at")),
        actor: row.get("actor"),
        action: row.get("action"),
        subject: row.get("subject"),
        text: row.get("text"),
    }
}

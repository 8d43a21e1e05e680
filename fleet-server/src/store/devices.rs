//! Claims, devices, their slots and signed assignments.

use std::collections::BTreeMap;

use bellwether_package::{Attribute, Digest, PackageId, SlotName, UnixSecs};
use bellwether_protocol::{DeviceId, Health, Sequence, SlotAssignment, Status};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Write, at, from_bytes, from_json, packages, parse, secs, to_json};

/// Attributes and tags by key.
pub type Attributes = BTreeMap<String, String>;

/// A claim that was found.
#[derive(Debug, Clone)]
pub struct ClaimRow {
    /// The only device that may use it.
    pub device: Option<DeviceId>,
    /// Tags that the device gets.
    pub tags: Attributes,
    /// From then on it cannot be used.
    pub expires_at: UnixSecs,
    /// Who used it, and for which key.
    pub used: Option<(DeviceId, Option<Digest>)>,
}

/// A device.
#[derive(Debug, Clone)]
pub struct DeviceRow {
    /// Its id.
    pub device: DeviceId,
    /// Measured attributes, and tags over them.
    pub attributes: Attributes,
    /// When it enrolled.
    pub enrolled_at: UnixSecs,
    /// Since when it may not connect any more, and why.
    pub revoked: Option<(UnixSecs, String)>,
    /// When a report of it last arrived.
    pub last_seen: Option<UnixSecs>,
    /// Since when the broker knows its connection to be lost.
    pub gone_at: Option<UnixSecs>,
    /// Its latest health report, and when it was made by its clock.
    pub health: Option<(UnixSecs, Health)>,
}

impl DeviceRow {
    /// Its attributes as selectors match them.
    pub fn selectable(&self) -> Vec<Attribute> {
        let pair = |(key, value): (&String, &String)| Attribute::new(key, value).ok();
        self.attributes.iter().filter_map(pair).collect()
    }
}

/// A slot of a device.
#[derive(Debug, Clone)]
pub struct SlotRow {
    /// The device.
    pub device: DeviceId,
    /// The slot.
    pub slot: SlotName,
    /// What it shall do.
    pub desired: Option<SlotAssignment>,
    /// When that was decided.
    pub assigned_at: Option<UnixSecs>,
    /// What it last told, and when that arrived.
    pub status: Option<(UnixSecs, Status)>,
}

/// A device's signed assignment.
#[derive(Debug, Clone)]
pub struct AssignmentRow {
    /// Its sequence.
    pub sequence: Sequence,
    /// Whether a slot changed since it was signed.
    pub stale: bool,
    /// When it expires.
    pub expires_at: UnixSecs,
    /// When it was signed.
    pub issued_at: UnixSecs,
    /// The bytes to publish.
    pub signed: Vec<u8>,
}

impl Store {
    /// All devices, by id.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn devices(&self) -> Result<Vec<DeviceRow>, StoreError> {
        let rows = sqlx::query("select * from devices order by device")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(device_row).collect()
    }

    /// One device.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn device(&self, device: &DeviceId) -> Result<Option<DeviceRow>, StoreError> {
        let row = sqlx::query("select * from devices where device = $1")
            .bind(device.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(device_row).transpose()
    }

    /// All slots, or one device's.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn slots(&self, device: Option<&DeviceId>) -> Result<Vec<SlotRow>, StoreError> {
        let rows = sqlx::query(
            "select * from slots where $1 is null or device = $1 order by device, slot",
        )
        .bind(device.map(DeviceId::as_str))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(slot_row).collect()
    }

    /// Every device's slot of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn slots_named(&self, slot: &SlotName) -> Result<Vec<SlotRow>, StoreError> {
        let rows = sqlx::query("select * from slots where slot = $1 order by device")
            .bind(slot.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(slot_row).collect()
    }

    /// A device's signed assignment.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn assignment(&self, device: &DeviceId) -> Result<Option<AssignmentRow>, StoreError> {
        let row = sqlx::query("select * from assignments where device = $1")
            .bind(device.as_str())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().map(assignment_row))
    }

    /// Every signed assignment that was ever made, the latest of each device.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn assignments(&self) -> Result<Vec<(DeviceId, AssignmentRow)>, StoreError> {
        let rows = sqlx::query("select * from assignments order by device")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((parse(row.get("device"), "device id")?, assignment_row(row))))
            .collect()
    }

    /// Devices whose assignment must be signed: a slot changed, the root's version is another
    /// than `epoch`, or it would be past half of its validity by `renew_before`.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn unsigned(
        &self,
        epoch: u32,
        renew_before: UnixSecs,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let rows = sqlx::query(
            "select device from assignments where stale = 1 or epoch <> $1 or expires_at < $2",
        )
        .bind(i64::from(epoch))
        .bind(secs(renew_before))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| parse(row.get(0), "device id"))
            .collect()
    }
}

/// Keeps a claim's digest, and forgets claims that nobody can use any more.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_claim(
    tx: &mut Write,
    digest: &Digest,
    device: Option<&DeviceId>,
    tags: &Attributes,
    now: UnixSecs,
    expires_at: UnixSecs,
) -> Result<(), StoreError> {
    sqlx::query("delete from claims where expires_at < $1")
        .bind(secs(now))
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "insert into claims (digest, device, tags, created_at, expires_at) values ($1, $2, $3, $4, $5)",
    )
    .bind(&digest.0[..])
    .bind(device.map(DeviceId::as_str))
    .bind(to_json(tags))
    .bind(secs(now))
    .bind(secs(expires_at))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Claims that are neither used nor forgotten.
///
/// # Errors
///
/// [`StoreError`].
pub async fn open_claims(tx: &mut Write) -> Result<u64, StoreError> {
    let row = sqlx::query("select count(*) from claims where used_at is null")
        .fetch_one(&mut **tx)
        .await?;
    Ok(row.get::<i64, _>(0).unsigned_abs())
}

/// The claim of that digest.
///
/// # Errors
///
/// [`StoreError`].
pub async fn claim(tx: &mut Write, digest: &Digest) -> Result<Option<ClaimRow>, StoreError> {
    let row = sqlx::query("select * from claims where digest = $1")
        .bind(&digest.0[..])
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let device: Option<String> = row.get("device");
    let used_by: Option<String> = row.get("used_by");
    let used_by = used_by.map(|text| parse(&text, "device id")).transpose()?;
    let used_key: Option<Vec<u8>> = row.get("used_key");
    let used_key = used_key.and_then(|bytes| Some(Digest(bytes.try_into().ok()?)));
    Ok(Some(ClaimRow {
        device: device.map(|text| parse(&text, "device id")).transpose()?,
        tags: from_json(row.get("tags"), "claim's tags")?,
        expires_at: at(row.get("expires_at")),
        used: used_by.zip(Some(used_key)),
    }))
}

/// Whether there is such a device.
///
/// # Errors
///
/// [`StoreError`].
pub async fn is_enrolled(tx: &mut Write, device: &DeviceId) -> Result<bool, StoreError> {
    let row = sqlx::query("select 1 from devices where device = $1")
        .bind(device.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.is_some())
}

/// Enrols a device, or enrols it again, and uses the claim up for `key`. A device that was shut
/// out is let in again.
///
/// # Errors
///
/// [`StoreError`].
pub async fn enrol(
    tx: &mut Write,
    claim: &Digest,
    device: &DeviceId,
    key: &Digest,
    attributes: &Attributes,
    now: UnixSecs,
) -> Result<(), StoreError> {
    sqlx::query("update claims set used_at = $1, used_by = $2, used_key = $4 where digest = $3")
        .bind(secs(now))
        .bind(device.as_str())
        .bind(&claim.0[..])
        .bind(&key.0[..])
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "insert into devices (device, attributes, enrolled_at) values ($1, $2, $3)
         on conflict (device) do update
         set attributes = excluded.attributes, enrolled_at = excluded.enrolled_at,
             revoked_at = null, revoked_why = null",
    )
    .bind(device.as_str())
    .bind(to_json(attributes))
    .bind(secs(now))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Changes what a slot shall do, and marks the device's assignment to be signed.
///
/// # Errors
///
/// [`StoreError`].
pub async fn desire(
    tx: &mut Write,
    device: &DeviceId,
    desired: &SlotAssignment,
    now: UnixSecs,
) -> Result<(), StoreError> {
    use bellwether_protocol::Desired;
    let (release, disabled): (Option<PackageId>, Option<&str>) = match &desired.desired {
        Desired::Serve { release, .. } => (Some(*release), None),
        Desired::Disable { reason } => (None, Some(reason.as_str())),
    };
    sqlx::query(
        "insert into slots (device, slot, desired, desired_release, disabled, rollout, assigned_at)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (device, slot) do update
         set desired = excluded.desired, desired_release = excluded.desired_release,
             disabled = excluded.disabled, rollout = excluded.rollout,
             assigned_at = excluded.assigned_at",
    )
    .bind(device.as_str())
    .bind(desired.slot.as_str())
    .bind(to_json(desired))
    .bind(release.map(|id| id.0.0.to_vec()))
    .bind(disabled)
    .bind(desired.rollout.map(|rollout| rollout.0.cast_signed()))
    .bind(secs(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "insert into assignments (device, epoch, n, stale, issued_at, expires_at, signed)
         values ($1, 0, 0, 1, 0, 0, x'')
         on conflict (device) do update set stale = 1",
    )
    .bind(device.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What a device's slots shall do, and the sequence of its last assignment.
///
/// # Errors
///
/// [`StoreError`].
pub async fn to_sign(
    tx: &mut Write,
    device: &DeviceId,
) -> Result<(Sequence, Vec<SlotAssignment>), StoreError> {
    let last = sqlx::query("select * from assignments where device = $1")
        .bind(device.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let rows = sqlx::query("select * from slots where device = $1 order by slot")
        .bind(device.as_str())
        .fetch_all(&mut **tx)
        .await?;
    let slots = rows.iter().map(slot_row).collect::<Result<Vec<_>, _>>()?;
    let sequence = last
        .as_ref()
        .map(assignment_row)
        .map_or_else(Sequence::default, |row| row.sequence);
    Ok((
        sequence,
        slots.into_iter().filter_map(|slot| slot.desired).collect(),
    ))
}

/// Keeps a signed assignment.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_signed(
    tx: &mut Write,
    device: &DeviceId,
    row: &AssignmentRow,
) -> Result<(), StoreError> {
    sqlx::query(
        "update assignments
         set epoch = $2, n = $3, stale = 0, issued_at = $4, expires_at = $5, signed = $6
         where device = $1",
    )
    .bind(device.as_str())
    .bind(i64::from(row.sequence.epoch))
    .bind(row.sequence.n.cast_signed())
    .bind(secs(row.issued_at))
    .bind(secs(row.expires_at))
    .bind(&row.signed[..])
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn device_row(row: &SqliteRow) -> Result<DeviceRow, StoreError> {
    let health: Option<Vec<u8>> = row.get("health");
    let health_at: Option<i64> = row.get("health_at");
    let revoked_at: Option<i64> = row.get("revoked_at");
    let health = health
        .map(|bytes| from_bytes(&bytes, "health report"))
        .transpose()?;
    Ok(DeviceRow {
        device: parse(row.get("device"), "device id")?,
        attributes: from_json(row.get("attributes"), "device's attributes")?,
        enrolled_at: at(row.get("enrolled_at")),
        revoked: revoked_at.map(at).zip(row.get("revoked_why")),
        last_seen: row.get::<Option<i64>, _>("last_seen").map(at),
        gone_at: row.get::<Option<i64>, _>("gone_at").map(at),
        health: health_at.map(at).zip(health),
    })
}

fn slot_row(row: &SqliteRow) -> Result<SlotRow, StoreError> {
    let desired: Option<String> = row.get("desired");
    let status: Option<Vec<u8>> = row.get("status");
    let status = status
        .map(|bytes| from_bytes(&bytes, "slot's status"))
        .transpose()?;
    // The release also stands in a column of its own, so that SQL can look for it.
    packages(row.get("desired_release"))?;
    Ok(SlotRow {
        device: parse(row.get("device"), "device id")?,
        slot: parse(row.get("slot"), "slot name")?,
        desired: desired
            .map(|text| from_json(&text, "slot's desired state"))
            .transpose()?,
        assigned_at: row.get::<Option<i64>, _>("assigned_at").map(at),
        status: row.get::<Option<i64>, _>("status_at").map(at).zip(status),
    })
}

fn assignment_row(row: &SqliteRow) -> AssignmentRow {
    AssignmentRow {
        sequence: Sequence {
            epoch: u32::try_from(row.get::<i64, _>("epoch")).unwrap_or(u32::MAX),
            n: row.get::<i64, _>("n").cast_unsigned(),
        },
        stale: row.get::<i64, _>("stale") != 0,
        issued_at: at(row.get("issued_at")),
        expires_at: at(row.get("expires_at")),
        signed: row.get("signed"),
    }
}

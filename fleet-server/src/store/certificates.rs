//! Devices' certificates: which there are, and which are taken back.

use std::collections::HashSet;

use bellwether_package::UnixSecs;
use bellwether_protocol::DeviceId;
use sqlx::Row;

use super::{Store, StoreError, Write, at, parse, secs};
use crate::ca::Certified;

/// Devices and certificates that may not connect any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedRows {
    /// Devices, whatever certificate they show.
    pub devices: HashSet<DeviceId>,
    /// Serial numbers of certificates that are not past their end yet.
    pub serials: HashSet<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// When it was issued.
    pub issued_at: UnixSecs,
    /// When it ends.
    pub expires_at: UnixSecs,
    /// Since when it is taken back.
    pub revoked_at: Option<UnixSecs>,
}

impl Store {
    /// What may not connect any more, as of `now`.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn revoked(&self, now: UnixSecs) -> Result<RevokedRows, StoreError> {
        let devices = sqlx::query("select device from devices where revoked_at is not null")
            .fetch_all(&self.pool)
            .await?;
        let serials = sqlx::query(
            "select serial from certificates where revoked_at is not null and expires_at > $1",
        )
        .bind(secs(now))
        .fetch_all(&self.pool)
        .await?;
        Ok(RevokedRows {
            devices: devices
                .iter()
                .map(|row| parse(row.get(0), "device id"))
                .collect::<Result<_, _>>()?,
            serials: serials.iter().map(|row| row.get(0)).collect(),
        })
    }

    /// A device's certificates that are not past their end, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn certificates(
        &self,
        device: &DeviceId,
        now: UnixSecs,
    ) -> Result<Vec<CertificateRow>, StoreError> {
        let rows = sqlx::query(
            "select * from certificates where device = $1 and expires_at > $2
             order by issued_at desc, serial",
        )
        .bind(device.as_str())
        .bind(secs(now))
        .fetch_all(&self.pool)
        .await?;
        let row = |row: &sqlx::sqlite::SqliteRow| CertificateRow {
            serial: row.get("serial"),
            issued_at: at(row.get("issued_at")),
            expires_at: at(row.get("expires_at")),
            revoked_at: row.get::<Option<i64>, _>("revoked_at").map(at),
        };
        Ok(rows.iter().map(row).collect())
    }
}

/// Keeps a certificate that was issued, and forgets the device's that are past their end.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_certificate(
    tx: &mut Write,
    device: &DeviceId,
    certified: &Certified,
    now: UnixSecs,
) -> Result<(), StoreError> {
    sqlx::query("delete from certificates where device = $1 and expires_at <= $2")
        .bind(device.as_str())
        .bind(secs(now))
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "insert into certificates (serial, device, issued_at, expires_at) values ($1, $2, $3, $4)",
    )
    .bind(&certified.serial)
    .bind(device.as_str())
    .bind(secs(now))
    .bind(secs(certified.expires_at))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes back a device's certificates but the latest `kept` and the one with serial number
/// `shown`.
///
/// # Errors
///
/// [`StoreError`].
pub async fn revoke_older_certificates(
    tx: &mut Write,
    device: &DeviceId,
    shown: &str,
    kept: u32,
    now: UnixSecs,
) -> Result<(), StoreError> {
    sqlx::query(
        "update certificates set revoked_at = $3
         where device = $1 and revoked_at is null and serial <> $2 and serial not in
           (select serial from certificates where device = $1 and revoked_at is null
            order by issued_at desc, serial limit $4)",
    )
    .bind(device.as_str())
    .bind(shown)
    .bind(secs(now))
    .bind(i64::from(kept))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes back every certificate that a device has so far.
///
/// # Errors
///
/// [`StoreError`].
pub async fn revoke_certificates(
    tx: &mut Write,
    device: &DeviceId,
    now: UnixSecs,
) -> Result<(), StoreError> {
    sqlx::query("update certificates set revoked_at = $2 where device = $1 and revoked_at is null")
        .bind(device.as_str())
        .bind(secs(now))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Shuts a device out, with every certificate that it has.
///
/// # Errors
///
/// [`StoreError`].
pub async fn revoke_device(
    tx: &mut Write,
    device: &DeviceId,
    why: &str,
    now: UnixSecs,
) -> Result<(), StoreError> {
    revoke_certificates(tx, device, now).await?;
    sqlx::query("update devices set revoked_at = $2, revoked_why = $3 where device = $1")
        .bind(device.as_str())
        .bind(secs(now))
        .bind(why)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

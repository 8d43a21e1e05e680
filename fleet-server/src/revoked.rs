//! Who may not connect any more: a copy of what the database says, for every connection to look at.

use std::sync::{PoisonError, RwLock};

use bellwether_protocol::DeviceId;
use tokio::sync::Mutex;

use crate::clock;
use crate::store::certificates::RevokedRows;
use crate::store::{Store, StoreError};

/// Devices and certificates that are taken back.
#[derive(Debug, Default)]
pub struct Revoked {
    rows: RwLock<RevokedRows>,
    /// Held from reading the database to replacing `rows`: the later look wins.
    looking: Mutex<()>,
}

impl Revoked {
    /// Takes over what the database says now. Call it after each change that was committed.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what was known before stays.
    pub async fn look(&self, store: &Store) -> Result<(), StoreError> {
        let _looking = self.looking.lock().await;
        let rows = store.revoked(clock::now()).await?;
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = rows;
        Ok(())
    }

    /// Whether the device, or this certificate of it, is taken back. A certificate without a
    /// serial number is none of ours.
    pub fn holds(&self, device: &DeviceId, serial: Option<&str>) -> bool {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.devices.contains(device) || serial.is_none_or(|serial| rows.serials.contains(serial))
    }

    /// Whether the device is shut out, whatever certificate it shows.
    pub fn holds_device(&self, device: &DeviceId) -> bool {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.devices.contains(device)
    }
}

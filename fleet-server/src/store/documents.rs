//! Trust root chain and revocation list in force, as the bytes that were published.

use bellwether_package::UnixSecs;
use sqlx::Row;

use super::{Store, StoreError, Write, secs};

/// Which document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The chain of trust roots (`.bwt`).
    TrustRoot,
    /// The signed revocation list.
    Revocations,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::TrustRoot => "trust-root",
            Self::Revocations => "revocations",
        }
    }
}

impl Store {
    /// The document in force.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn document(&self, kind: Kind) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("select body from documents where kind = $1")
            .bind(kind.as_str())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.get(0)))
    }
}

/// Puts a document in force if its version is higher than the one before. Whether it was.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put(
    tx: &mut Write,
    kind: Kind,
    version: u64,
    body: &[u8],
    now: UnixSecs,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "insert into documents (kind, version, body, at) values ($1, $2, $3, $4)
         on conflict (kind) do update
         set version = excluded.version, body = excluded.body, at = excluded.at
         where excluded.version > documents.version",
    )
    .bind(kind.as_str())
    .bind(i64::try_from(version).unwrap_or(i64::MAX))
    .bind(body)
    .bind(secs(now))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

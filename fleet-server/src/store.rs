//! Everything that must survive: SQLite, in one file, written ahead. SQL stands here only.
//!
//! | module | owns |
//! |---|---|
//! | [`documents`] | trust root chain and revocation list in force |
//! | [`devices`] | claims, devices, their slots, signed assignments |
//! | [`certificates`] | devices' certificates, and which are taken back |
//! | [`mod@packages`] | packages and their approvals |
//! | [`rollouts`] | rollouts, arms, decisions |
//! | [`reports`] | windows, outcomes, statuses, and which reports were taken |
//! | [`records`] | flags and the audit log |
//!
//! A process killed at any moment leaves either all of a transaction or nothing of it. A write
//! that depends on what was read compares a generation when it commits.

pub mod certificates;
pub mod devices;
pub mod documents;
pub mod packages;
pub mod records;
pub mod reports;
pub mod rollouts;

use std::path::Path;
use std::time::Duration;

use bellwether_package::{Digest, PackageId, UnixSecs};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

/// Connections to the file: readers go on while one writes.
const CONNECTIONS_MAX: u32 = 8;
/// How long a writer waits for another.
const BUSY_WITHIN: Duration = Duration::from_secs(20);

/// The store failed, or holds what cannot be.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. What was to be written is not there, what was there still is.
    #[error("the disk that holds the database is full")]
    DiskFull(#[source] sqlx::Error),
    /// SQLite failed: a broken disk, most likely.
    #[error("the database failed")]
    Sql(#[source] sqlx::Error),
    /// The file is of a newer server, or damaged.
    #[error("the database cannot be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A stored value cannot be read: the file was changed by something else.
    #[error("the database holds an unreadable {0}")]
    Damaged(&'static str),
}

/// SQLITE_FULL.
const CODE_FULL: &str = "13";

impl From<sqlx::Error> for StoreError {
    fn from(cause: sqlx::Error) -> Self {
        let code = cause.as_database_error().and_then(|it| it.code());
        match code.as_deref() {
            Some(CODE_FULL) => Self::DiskFull(cause),
            _ => Self::Sql(cause),
        }
    }
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

/// A transaction that holds the write lock from its start, so that what it reads stays true.
pub type Write = Transaction<'static, Sqlite>;

impl Store {
    /// Opens the file, creating it if `create`, and brings it up to date.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be opened or is of a newer server.
    pub async fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        // Acknowledged reports must survive a power cut: FULL.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_WITHIN);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_with(options)
            .await?;
        sqlx::migrate!("src/store/migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// Begins to write.
    ///
    /// # Errors
    ///
    /// [`StoreError::Sql`].
    pub async fn write(&self) -> Result<Write, StoreError> {
        Ok(self.pool.begin_with("begin immediate").await?)
    }

    /// Waits for what is being written, and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

pub(crate) fn secs(at: UnixSecs) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

pub(crate) fn at(secs: i64) -> UnixSecs {
    UnixSecs(u64::try_from(secs).unwrap_or(0))
}

pub(crate) fn package(bytes: &[u8]) -> Result<PackageId, StoreError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| StoreError::Damaged("package id"))?;
    Ok(PackageId(Digest(bytes)))
}

pub(crate) fn packages(bytes: Option<Vec<u8>>) -> Result<Option<PackageId>, StoreError> {
    bytes.as_deref().map(package).transpose()
}

pub(crate) fn parse<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged(what))
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types have text keys and finite figures or null")
}

pub(crate) fn from_json<T: DeserializeOwned>(
    text: &str,
    what: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Damaged(what))
}

pub(crate) fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("our own types are encodable")
}

pub(crate) fn from_bytes<T: DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|_| StoreError::Damaged(what))
}

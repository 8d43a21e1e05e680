//! Packages and their approvals. The sections lie in the blob folder.

use bellwether_package::digest::sha256;
use bellwether_package::sections::{Baseline, Contract};
use bellwether_package::{PackageId, UnixSecs};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Write, at, from_bytes, package, secs, to_bytes};

/// A package, without its approvals.
#[derive(Debug, Clone)]
pub struct PackageRow {
    /// Its id.
    pub id: PackageId,
    /// Name of the model.
    pub model: String,
    /// Version of the model.
    pub version: String,
    /// When it was packed.
    pub created: UnixSecs,
    /// When it was uploaded.
    pub uploaded_at: UnixSecs,
    /// Whether it was packed in spite of golden answers that differ.
    pub golden_mismatch: bool,
    /// The manifest's exact bytes.
    pub manifest: Vec<u8>,
    /// Length of all sections, in bytes.
    pub sections_bytes: u64,
    /// Where in the blob folder they lie.
    pub blob: String,
}

/// What the counts of a package's windows are held against.
#[derive(Debug, Clone)]
pub struct Expectations {
    /// Inputs and outputs.
    pub contract: Contract,
    /// Their training counts.
    pub baseline: Baseline,
}

impl Store {
    /// All packages, the latest upload first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn packages(&self) -> Result<Vec<PackageRow>, StoreError> {
        let rows = sqlx::query("select * from packages order by uploaded_at desc, id")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(package_row).collect()
    }

    /// One package.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn package(&self, id: &PackageId) -> Result<Option<PackageRow>, StoreError> {
        let row = sqlx::query("select * from packages where id = $1")
            .bind(&id.0.0[..])
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(package_row).transpose()
    }

    /// What windows under a package's baseline are held against.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn expectations(&self, id: &PackageId) -> Result<Option<Expectations>, StoreError> {
        let row = sqlx::query("select contract, baseline from packages where id = $1")
            .bind(&id.0.0[..])
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Expectations {
            contract: from_bytes(row.get("contract"), "contract")?,
            baseline: from_bytes(row.get("baseline"), "baseline")?,
        }))
    }

    /// A package's signed approvals and rejections, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn approvals(&self, id: &PackageId) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows = sqlx::query("select body from approvals where package = $1 order by at, digest")
            .bind(&id.0.0[..])
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// Keeps a package. `false` if it was there already.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put(
    tx: &mut Write,
    row: &PackageRow,
    expect: &Expectations,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "insert into packages (id, model, version, created, uploaded_at, golden_mismatch, manifest,
                               sections_bytes, blob, contract, baseline)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (id) do nothing",
    )
    .bind(&row.id.0.0[..])
    .bind(&row.model)
    .bind(&row.version)
    .bind(secs(row.created))
    .bind(secs(row.uploaded_at))
    .bind(i64::from(row.golden_mismatch))
    .bind(&row.manifest[..])
    .bind(row.sections_bytes.cast_signed())
    .bind(&row.blob)
    .bind(to_bytes(&expect.contract))
    .bind(to_bytes(&expect.baseline))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Keeps a signed approval or rejection. `false` if it was there already.
///
/// # Errors
///
/// [`StoreError`].
pub async fn put_approval(
    tx: &mut Write,
    id: &PackageId,
    body: &[u8],
    now: UnixSecs,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "insert into approvals (package, digest, body, at) values ($1, $2, $3, $4)
         on conflict (package, digest) do nothing",
    )
    .bind(&id.0.0[..])
    .bind(&sha256(body).0[..])
    .bind(body)
    .bind(secs(now))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// How many approvals and rejections a package has.
///
/// # Errors
///
/// [`StoreError`].
pub async fn approvals_count(tx: &mut Write, id: &PackageId) -> Result<usize, StoreError> {
    let row = sqlx::query("select count(*) from approvals where package = $1")
        .bind(&id.0.0[..])
        .fetch_one(&mut **tx)
        .await?;
    Ok(usize::try_from(row.get::<i64, _>(0)).unwrap_or(0))
}

fn package_row(row: &SqliteRow) -> Result<PackageRow, StoreError> {
    Ok(PackageRow {
        id: package(row.get("id"))?,
        model: row.get("model"),
        version: row.get("version"),
        created: at(row.get("created")),
        uploaded_at: at(row.get("uploaded_at")),
        golden_mismatch: row.get::<i64, _>("golden_mismatch") != 0,
        manifest: row.get("manifest"),
        sections_bytes: row.get::<i64, _>("sections_bytes").unsigned_abs(),
        blob: row.get("blob"),
    })
}

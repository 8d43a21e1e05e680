//! Packages: uploaded as a stream, approved by signed documents, downloaded in ranges.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bellwether_package::approval::{APPROVALS_MAX, ApprovalError};
use bellwether_package::digest::sha256;
use bellwether_package::read::NoBlobs;
use bellwether_package::std_io::{StdReadError, read};
use bellwether_package::verify::{Purpose, Standing, Vote, votes};
use bellwether_package::{
    Approval, Decision, IntactPackage, Manifest, PackageId, SlotName, TrustRoot, UnixSecs, Verifier,
};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::auth::{Caller, Operator};
use super::error::ApiError;
use super::types::{ApprovalView, ErrorBody, Package};
use crate::app::App;
use crate::clock;
use crate::content;
use crate::store::devices::DeviceRow;
use crate::store::packages::{self, Expectations, PackageRow};
use crate::store::{StoreError, records};
use crate::trust::Trust;

/// What is read at most of an upload that is refused.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long that may take.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Uploads a package, with the approvals that it carries.
#[utoipa::path(post, path = "/v1/packages",
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 201, body = Package), (status = 200, body = Package),
        (status = "4XX", body = ErrorBody)))]
pub(super) async fn upload(
    _: Operator,
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<(StatusCode, Json<Package>), ApiError> {
    let now = clock::now();
    let mut stream = body.into_data_stream();
    let received = receive(&app, &mut stream).await;
    if received.is_err() {
        drain(stream).await;
    }
    let file = received?;
    let path = file.path().to_owned();
    let package = tokio::task::spawn_blocking(move || {
        let source = File::open(&path).map_err(StdReadError::Source)?;
        read(BufReader::new(source), NoBlobs)
    })
    .await
    .map_err(|cause| ApiError::ours(&cause))?
    .map_err(unreadable)?;

    let row = row_of(&package, now);
    let new = app.store.package(&row.id).await?.is_none();
    if new {
        let offset = package.header().header_bytes();
        app.blobs
            .put(&row.blob, file.path(), offset)
            .await
            .map_err(|it| ApiError::ours(&it))?;
    }
    let expect = Expectations {
        contract: package.contract().clone(),
        baseline: package.baseline().clone(),
    };
    let trust = app.trust();
    let mut tx = app.store.write().await?;
    packages::put(&mut tx, &row, &expect).await?;
    for approval in package.header().approvals() {
        // Bytes that no approver signed are left behind: anybody can add such to a file.
        if Approval::verify(approval, trust.root()).is_ok_and(|(it, _)| it.package == row.id)
            && packages::approvals_count(&mut tx, &row.id).await? < APPROVALS_MAX
        {
            packages::put_approval(&mut tx, &row.id, approval, now).await?;
        }
    }
    if new {
        let text = format!("{} {}", row.model, row.version);
        let subject = row.id.to_string();
        records::note(&mut tx, now, "operator", "package-upload", &subject, &text).await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(view(&app, &row).await?)))
}

/// All packages, the latest upload first.
#[utoipa::path(get, path = "/v1/packages",
    responses((status = 200, body = [Package]), (status = "4XX", body = ErrorBody)))]
pub(super) async fn list(
    _: Operator,
    State(app): State<Arc<App>>,
) -> Result<Json<Vec<Package>>, ApiError> {
    let mut views = Vec::new();
    for row in app.store.packages().await? {
        views.push(view(&app, &row).await?);
    }
    Ok(Json(views))
}

/// One package.
#[utoipa::path(get, path = "/v1/packages/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Package), (status = "4XX", body = ErrorBody)))]
pub(super) async fn show(
    _: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Package>, ApiError> {
    let row = find(&app, &id).await?;
    Ok(Json(view(&app, &row).await?))
}

/// A package's bytes (`.bwp`), whole or a range of them.
#[utoipa::path(get, path = "/v1/packages/{id}/content",
    params(("id" = String, Path), ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-Range" = Option<String>, Header, description = "The ETag that the range belongs to")),
    responses((status = 200, content_type = "application/octet-stream"),
        (status = 206, content_type = "application/octet-stream"), (status = "4XX", body = ErrorBody)))]
pub(super) async fn content(
    _: Caller,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let row = find(&app, &id).await?;
    let approvals = app.store.approvals(&row.id).await?;
    let head = content::header(&row, approvals)?.encode();
    let length = head.len() as u64 + row.sections_bytes;
    let tag = format!("\"{}\"", sha256(&head));
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &header::HeaderValue| value.to_str().ok())
    };
    let same = text(header::IF_RANGE).is_none_or(|wanted| wanted == tag);
    let range = match text(header::RANGE).filter(|_| same) {
        None => None,
        Some(range) => Some(byte_range(range, length).ok_or_else(|| {
            ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range",
                format!("the range is not within the package's {length} bytes"),
                "ask for one range within it, or for the whole",
            )
        })?),
    };
    let wanted = range.clone().unwrap_or(0..length);
    let in_head = wanted.start.min(head.len() as u64)..wanted.end.min(head.len() as u64);
    let first = Bytes::from(head.clone()).slice(in_head.start as usize..in_head.end as usize);
    let behind = |place: u64| place.saturating_sub(head.len() as u64);
    let rest = behind(wanted.start)..behind(wanted.end);
    let rest = app
        .blobs
        .read(&row.blob, rest)
        .await
        .map_err(|cause| ApiError::ours(&cause))?;
    let body = futures_util::stream::once(async { Ok(first) }).chain(rest);

    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, tag)
        .header(header::CONTENT_LENGTH, wanted.end - wanted.start);
    if range.is_some() {
        let span = format!("bytes {}-{}/{length}", wanted.start, wanted.end - 1);
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, span);
    }
    let response = response
        .body(Body::from_stream(body))
        .map_err(|cause| ApiError::ours(&cause))?;
    Ok(response.into_response())
}

/// Adds a signed approval or rejection to a package.
#[utoipa::path(post, path = "/v1/packages/{id}/approvals", params(("id" = String, Path)),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, body = Package), (status = "4XX", body = ErrorBody)))]
pub(super) async fn approve(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Package>, ApiError> {
    let now = clock::now();
    let row = find(&app, &id).await?;
    let trust = app.trust();
    let (approval, persons) = Approval::verify(&body, trust.root())
        .map_err(|cause: ApprovalError| ApiError::bad("approval-refused", cause.to_string()))?;
    if approval.package != row.id {
        let message = format!("the approval is for package {}", approval.package);
        return Err(ApiError::bad("approval-other-package", message));
    }
    let mut tx = app.store.write().await?;
    if packages::approvals_count(&mut tx, &row.id).await? >= APPROVALS_MAX {
        return Err(ApiError::conflict(
            "approvals-many",
            format!("the package has {APPROVALS_MAX} approvals already"),
            "pack the model anew: that gives a package with none",
        ));
    }
    if packages::put_approval(&mut tx, &row.id, &body, now).await? {
        let names = names(trust.root(), &persons).join(", ");
        let decided = decision_word(approval.decision);
        let text = format!("{names}: {decided}: {}", approval.reason);
        let subject = row.id.to_string();
        records::note(&mut tx, now, "operator", "approval", &subject, &text).await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(Json(view(&app, &row).await?))
}

pub(super) async fn find(app: &App, id: &str) -> Result<PackageRow, ApiError> {
    let missing = || {
        ApiError::missing(
            "package",
            id,
            "GET /v1/packages, and give all 64 digits of the id",
        )
    };
    let parsed: PackageId = id.parse().map_err(|_| missing())?;
    app.store.package(&parsed).await?.ok_or_else(missing)
}

/// Why a package is not a release for this slot on every device of a cohort; `None` if it is.
pub(super) async fn refusal(
    app: &App,
    row: &PackageRow,
    slot: &SlotName,
    cohort: &[&DeviceRow],
    now: UnixSecs,
) -> Result<Option<String>, ApiError> {
    let trust = app.trust();
    let Some(revocations) = trust.revocations() else {
        return Ok(Some("no revocation list is in force".to_owned()));
    };
    let approvals = app.store.approvals(&row.id).await?;
    for device in cohort {
        let attributes = device.selectable();
        let verifier = Verifier {
            root: trust.root(),
            revocations,
            slot,
            attributes: &attributes,
            now: Some(now),
        };
        let signed = approvals.iter().map(Vec::as_slice);
        if let Err(cause) = verifier.approve(Purpose::Install, &row.manifest, signed) {
            let why = std::error::Error::source(&cause).map(|why| format!(": {why}"));
            let why = why.unwrap_or_default();
            return Ok(Some(format!("{cause}{why} (on {})", device.device)));
        }
    }
    Ok(None)
}

async fn receive(
    app: &App,
    stream: &mut BodyDataStream,
) -> Result<tempfile::NamedTempFile, ApiError> {
    let file = tempfile::NamedTempFile::new_in(&app.incoming).map_err(|it| ApiError::ours(&it))?;
    let copy = file.reopen().map_err(|cause| ApiError::ours(&cause))?;
    let mut target = tokio::fs::File::from_std(copy);
    let mut received = 0_u64;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|cause| {
            ApiError::bad("upload-broken", format!("the upload broke off: {cause}"))
        })?;
        received += piece.len() as u64;
        if received > app.config.package_bytes_max {
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                format!(
                    "a package has at most {} bytes here",
                    app.config.package_bytes_max
                ),
                "make the model smaller, or raise `package_bytes_max` in the configuration",
            ));
        }
        target
            .write_all(&piece)
            .await
            .map_err(|cause| ApiError::ours(&cause))?;
    }
    target
        .flush()
        .await
        .map_err(|cause| ApiError::ours(&cause))?;
    Ok(file)
}

/// Takes in what is still on its way of an upload that is refused: a client that writes into a
/// closed connection does not hear why.
async fn drain(mut stream: BodyDataStream) {
    let drained = async {
        let mut bytes = 0;
        while let Some(Ok(piece)) = stream.next().await {
            bytes += piece.len();
            if bytes > DRAIN_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_WITHIN, drained).await;
}

fn unreadable(cause: StdReadError) -> ApiError {
    match &cause {
        StdReadError::Source(_) => ApiError::ours(&cause),
        StdReadError::Package(package) => {
            let why = std::error::Error::source(package).map(|why| format!(": {why}"));
            ApiError::bad(
                "package-refused",
                format!("{package}{}", why.unwrap_or_default()),
            )
        }
    }
}

fn row_of(package: &IntactPackage, now: UnixSecs) -> PackageRow {
    let manifest = package.manifest();
    PackageRow {
        id: package.id(),
        model: manifest.model.to_string(),
        version: manifest.version.to_string(),
        created: manifest.created,
        uploaded_at: now,
        golden_mismatch: manifest.golden_mismatch_allowed(),
        manifest: package.header().manifest_bytes().to_vec(),
        sections_bytes: manifest.sections_bytes(),
        blob: format!("packages/{}.sections", package.id()),
    }
}

async fn view(app: &App, row: &PackageRow) -> Result<Package, ApiError> {
    let trust = app.trust();
    let root = trust.root();
    let signed = app.store.approvals(&row.id).await?;
    let bytes = content::length(row, signed.clone())?;
    // Those that no longer count, after a rotation of the trust root, are not among them.
    let votes = votes(
        root,
        &row.id,
        signed.iter().map(Vec::as_slice),
        clock::now(),
    );
    let persons = |standing: Standing| {
        let stand = votes.iter().filter(|vote| vote.standing == standing);
        stand
            .map(|vote| vote.name.clone())
            .collect::<BTreeSet<String>>()
    };
    let approved = persons(Standing::InForce);
    let needed = root.document().approvers.threshold;
    let revoked = revoked(&trust, row);
    Ok(Package {
        id: row.id.to_string(),
        model: row.model.clone(),
        version: row.version.clone(),
        created: row.created.0,
        uploaded_at: row.uploaded_at.0,
        bytes,
        is_release: approved.len() >= usize::from(needed) && !revoked,
        approved_by: approved.into_iter().collect(),
        rejected_by: persons(Standing::Rejection).into_iter().collect(),
        approvals_needed: u32::from(needed),
        revoked,
        golden_mismatch_allowed: row.golden_mismatch,
        approvals: votes.iter().map(approval_view).collect(),
    })
}

fn revoked(trust: &Trust, row: &PackageRow) -> bool {
    let Some(list) = trust.revocations() else {
        return false;
    };
    let Ok(manifest) = Manifest::decode(&row.manifest) else {
        return true;
    };
    list.allow(&row.id, &manifest.model, manifest.version)
        .is_err()
}

fn approval_view(vote: &Vote) -> ApprovalView {
    let approval = &vote.approval;
    let standing = match vote.standing {
        Standing::InForce => "in-force",
        Standing::NotYet => "not-yet",
        Standing::Expired => "expired",
        Standing::Voided => "voided",
        Standing::Rejection => "rejection",
    };
    ApprovalView {
        person: vote.name.clone(),
        standing: standing.to_owned(),
        decision: decision_word(approval.decision).to_owned(),
        slots: approval.slots.iter().map(ToString::to_string).collect(),
        selectors: approval.selectors.iter().map(ToString::to_string).collect(),
        not_before: approval.not_before.0,
        expires: approval.expires.0,
        at: approval.at.0,
        reason: approval.reason.to_string(),
    }
}

fn decision_word(decision: Decision) -> &'static str {
    match decision {
        Decision::Approve => "approve",
        Decision::Reject => "reject",
    }
}

fn names(root: &TrustRoot, persons: &[u8]) -> Vec<String> {
    let name = |index: &u8| root.person(*index).map(|person| person.name.to_string());
    persons.iter().filter_map(name).collect()
}

/// RFC 9110, 14.1.2: one range of bytes within `length`; `None` if it is none or several.
fn byte_range(text: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        return (suffix > 0 && length > 0).then(|| length.saturating_sub(suffix)..length);
    }
    let first: u64 = first.parse().ok()?;
    let end = match last {
        "" => length,
        last => last.parse::<u64>().ok()?.saturating_add(1).min(length),
    };
    (first < end).then_some(first..end)
}

#[cfg(test)]
mod tests {
    use super::byte_range;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        assert_eq!(byte_range("bytes=0-0", 10), Some(0..1));
        assert_eq!(byte_range("bytes=3-", 10), Some(3..10));
        assert_eq!(byte_range("bytes=-4", 10), Some(6..10));
        assert_eq!(byte_range("bytes=-40", 10), Some(0..10));
        assert_eq!(byte_range("bytes=4-400", 10), Some(4..10));
        for wrong in [
            "bytes=10-",
            "bytes=5-4",
            "bytes=-0",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=-",
        ] {
            assert_eq!(byte_range(wrong, 10), None, "{wrong}");
        }
        assert_eq!(byte_range("bytes=0-18446744073709551615", 10), Some(0..10));
    }
}

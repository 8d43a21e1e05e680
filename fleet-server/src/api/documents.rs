//! Trust root and revocations: published by operators, fetched by devices.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::auth::{Caller, Operator};
use super::error::ApiError;
use super::types::{ErrorBody, RevocationsAccepted, RootAccepted};
use crate::app::App;
use crate::clock;
use crate::trust::{self, TrustError};

/// The revocation list in force, as it was signed.
#[utoipa::path(get, path = "/v1/revocations",
    responses((status = 200, content_type = "application/octet-stream"), (status = "4XX", body = ErrorBody)))]
pub(super) async fn revocations(
    _: Caller,
    State(app): State<Arc<App>>,
) -> Result<Response, ApiError> {
    let trust = app.trust();
    let list = trust.revocations_file().ok_or_else(|| {
        ApiError::missing(
            "revocation list",
            "in force",
            "PUT /v1/revocations, to publish one",
        )
    })?;
    Ok(raw(list.to_vec()))
}

/// Puts a signed revocation list in force. Its version must be higher than the present one's.
#[utoipa::path(put, path = "/v1/revocations",
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, body = RevocationsAccepted), (status = "4XX", body = ErrorBody)))]
pub(super) async fn publish_revocations(
    _: Operator,
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<Json<RevocationsAccepted>, ApiError> {
    trust::publish_revocations(&app, &body, clock::now())
        .await
        .map_err(refused)?;
    let trust = app.trust();
    let list = trust.revocations().ok_or_else(|| {
        ApiError::conflict(
            "revocations-raced",
            "the trust root changed meanwhile",
            "try again",
        )
    })?;
    Ok(Json(RevocationsAccepted {
        version: list.version(),
        expires: list.expires().0,
        packages: list
            .list()
            .packages
            .iter()
            .map(ToString::to_string)
            .collect(),
    }))
}

/// The trust root chain in force (`.bwt`).
#[utoipa::path(get, path = "/v1/trust-root",
    responses((status = 200, content_type = "application/octet-stream"), (status = "4XX", body = ErrorBody)))]
pub(super) async fn trust_root(_: Caller, State(app): State<Arc<App>>) -> Response {
    raw(app.trust().chain_file().to_vec())
}

/// Puts a later trust root in force: the file continues the present chain.
#[utoipa::path(post, path = "/v1/trust-root",
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses((status = 200, body = RootAccepted), (status = "4XX", body = ErrorBody)))]
pub(super) async fn publish_trust_root(
    _: Operator,
    State(app): State<Arc<App>>,
    body: Bytes,
) -> Result<Json<RootAccepted>, ApiError> {
    trust::publish_root(&app, &body, clock::now())
        .await
        .map_err(refused)?;
    let trust = app.trust();
    Ok(Json(RootAccepted {
        root: trust.root().id().to_string(),
        version: trust.root().version(),
        expires: trust.root().expires().0,
        director_trusted: trust.trusts(&app.director.public_key()),
    }))
}

fn refused(cause: TrustError) -> ApiError {
    let code = match &cause {
        TrustError::Store(_) => return ApiError::ours(&cause),
        TrustError::NotNewer { .. } => {
            let next = "publish a document with a higher version";
            return ApiError::conflict("version-not-newer", cause.to_string(), next);
        }
        TrustError::Root(_) | TrustError::OtherRoot { .. } => "trust-root-refused",
        TrustError::Revocations(_) => "revocations-refused",
    };
    let why = std::error::Error::source(&cause)
        .map(|why| format!(": {why}"))
        .unwrap_or_default();
    ApiError::bad(code, format!("{cause}{why}"))
}

fn raw(bytes: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}

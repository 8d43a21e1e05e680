//! The REST API. Console and command line use nothing else.
//!
//! | module | owns |
//! |---|---|
//! | [`types`] | requests and answers |
//! | [`error`], [`auth`] | the error body; who asks |
//! | `system` | health, the OpenAPI document |
//! | `enrol` | claims and enrolment |
//! | `devices` | devices, why, disable |
//! | `packages` | upload, approvals, download |
//! | `labels` | predictions against what turned out to be true |
//! | `documents` | trust root and revocations |
//! | `rollouts` | rollouts and their decisions |
//! | `records` | flags, audit |

pub mod auth;
pub mod error;
pub mod types;

mod devices;
mod documents;
mod enrol;
mod labels;
mod packages;
mod records;
mod rollouts;
mod system;
mod why;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi;

use self::error::ApiError;
use crate::app::App;

/// Largest JSON body or signed document, in bytes; a trust root chain is the longest.
const BODY_BYTES_MAX: usize = 640 * 1024;
/// How long a request may take to come in and be answered; streams of content are not counted.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// Entries of a list that one request may ask for.
pub(crate) const ENTRIES_MAX: u32 = 1000;

/// The API's description, served at `/openapi.json`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bellwether fleet server",
        description = "Operators send `Authorization: Bearer` \
        with the API token; devices show their certificate. Enrolment needs a claim only."
    ),
    paths(
        system::healthz,
        enrol::claim,
        enrol::enroll,
        enrol::renew,
        devices::list,
        devices::show,
        devices::revoke,
        devices::disable,
        why::why,
        packages::upload,
        packages::list,
        packages::show,
        packages::content,
        packages::approve,
        labels::labels,
        documents::revocations,
        documents::publish_revocations,
        documents::trust_root,
        documents::publish_trust_root,
        rollouts::create,
        rollouts::list,
        rollouts::show,
        rollouts::decisions,
        rollouts::start,
        rollouts::pause,
        rollouts::resume,
        rollouts::roll_back,
        records::flags,
        records::audit,
    )
)]
pub struct Description;

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(system::healthz))
        .route("/openapi.json", get(system::openapi))
        .route("/v1/claims", post(enrol::claim))
        .route("/v1/enroll", post(enrol::enroll))
        .route("/v1/renew", post(enrol::renew))
        .route("/v1/devices", get(devices::list))
        .route("/v1/devices/{device}", get(devices::show))
        .route("/v1/devices/{device}/why", get(why::why))
        .route("/v1/devices/{device}/revoke", post(devices::revoke))
        .route("/v1/disable", post(devices::disable))
        .route("/v1/packages", get(packages::list))
        .route("/v1/packages/{id}", get(packages::show))
        .route("/v1/packages/{id}/content", get(packages::content))
        .route("/v1/packages/{id}/approvals", post(packages::approve))
        .route("/v1/packages/{id}/labels", get(labels::labels))
        .route(
            "/v1/revocations",
            get(documents::revocations).put(documents::publish_revocations),
        )
        .route(
            "/v1/trust-root",
            get(documents::trust_root).post(documents::publish_trust_root),
        )
        .route("/v1/rollouts", post(rollouts::create).get(rollouts::list))
        .route("/v1/rollouts/{id}", get(rollouts::show))
        .route("/v1/rollouts/{id}/decisions", get(rollouts::decisions))
        .route("/v1/rollouts/{id}/start", post(rollouts::start))
        .route("/v1/rollouts/{id}/pause", post(rollouts::pause))
        .route("/v1/rollouts/{id}/resume", post(rollouts::resume))
        .route("/v1/rollouts/{id}/rollback", post(rollouts::roll_back))
        .route("/v1/flags", get(records::flags))
        .route("/v1/audit", get(records::audit))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            REQUEST_WITHIN,
        ))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // An upload takes its time; it is bounded by the configuration, and counted as it comes in.
        .route(
            "/v1/packages",
            post(packages::upload).layer(DefaultBodyLimit::disable()),
        )
        .with_state(app)
}

async fn nothing_here() -> ApiError {
    ApiError::missing("resource at", "this path", "/openapi.json")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method",
        "this resource does not have this method",
        "look at /openapi.json",
    )
}

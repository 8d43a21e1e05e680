//! Health, and the API's description.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use utoipa::OpenApi;

use super::types::Health;
use crate::app::App;

/// Whether the server is well.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health)))]
pub(super) async fn healthz(State(app): State<Arc<App>>) -> Json<Health> {
    let trust = app.trust();
    let ready = app.ready.load(Ordering::Relaxed);
    Json(Health {
        status: if ready { "ok" } else { "starting" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        drill_offer_unapproved: app.drill_offer_unapproved,
        broker_connected: app.link.is_connected(),
        root: trust.root().id().to_string(),
        root_version: trust.root().version(),
        director_trusted: trust.trusts(&app.director.public_key()),
    })
}

pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::Description::openapi())
}

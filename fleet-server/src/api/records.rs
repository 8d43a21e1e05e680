//! Flags and the audit log.

// utoipa's macro qualifies the query's type.
#![allow(unused_qualifications)]

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::ENTRIES_MAX;
use super::auth::Operator;
use super::error::ApiError;
use super::types::{AuditEntry, ErrorBody, Flag};
use crate::app::App;
use crate::store::records::FlagRow;

/// Which part of the audit log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Entries before this one only.
    before: Option<u64>,
    /// So many at most.
    most: Option<u32>,
}

/// Findings about devices and the world, the latest first.
#[utoipa::path(get, path = "/v1/flags",
    responses((status = 200, body = [Flag]), (status = "4XX", body = ErrorBody)))]
pub(super) async fn flags(
    _: Operator,
    State(app): State<Arc<App>>,
) -> Result<Json<Vec<Flag>>, ApiError> {
    let rows = app.store.flags(None, ENTRIES_MAX).await?;
    Ok(Json(rows.into_iter().map(flag_view).collect()))
}

/// The audit log, the latest first.
#[utoipa::path(get, path = "/v1/audit", params(AuditQuery),
    responses((status = 200, body = [AuditEntry]), (status = "4XX", body = ErrorBody)))]
pub(super) async fn audit(
    _: Operator,
    State(app): State<Arc<App>>,
    query: Query<AuditQuery>,
) -> Result<Json<Vec<AuditEntry>>, ApiError> {
    let most = query.most.unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX);
    let rows = app.store.audit(query.before, most).await?;
    let entry = |row: crate::store::records::AuditRow| AuditEntry {
        id: row.id,
        at: row.at.0,
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        text: row.text,
    };
    Ok(Json(rows.into_iter().map(entry).collect()))
}

pub(super) fn flag_view(row: FlagRow) -> Flag {
    Flag {
        at: row.at.0,
        last_at: row.last_at.0,
        kind: row.kind,
        device: row.device.map(|device| device.to_string()),
        rollout: row.rollout.map(|rollout| rollout.0),
        slot: row.slot.map(|slot| slot.to_string()),
        fields: row.fields,
        text: row.text,
    }
}

//! `POST …/labels`: what the application learned after it asked.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use bellwether_package::SlotName;

use super::infer::read_body;
use super::{Api, Refused, unknown_slot};
use crate::clock;
use crate::labels::{Counted, LABELS_MAX, LabelError, LabelsRequest};

/// Takes labels also while the slot serves nothing: they are of what it served.
pub(super) async fn labels(
    State(api): State<Api>,
    Path(slot): Path<String>,
    request: Request,
) -> Result<Json<Counted>, Refused> {
    let slot = SlotName::new(&slot).map_err(|_| unknown_slot())?;
    if api.slots.answering(&slot).is_none() {
        return Err(unknown_slot());
    }
    let permit = api.busy.clone().try_acquire_owned();
    let _permit = permit.map_err(|_| Refused::busy())?;
    let body = read_body(request).await?;
    let request: LabelsRequest = serde_json::from_slice(&body)
        .map_err(|error| Refused::bad(format!("not a request with labels: {error}")))?;
    if request.labels.is_empty() || request.labels.len() > LABELS_MAX {
        return Err(Refused::bad(LabelError::Many.to_string()));
    }
    let counted = api.labels.take(&slot, &request.labels, clock::now());
    counted.map(Json).map_err(|error| {
        let status = match error {
            LabelError::Full => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Refused::new(status, error.to_string())
    })
}

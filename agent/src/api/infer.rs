//! `POST …/infer`: from a request's bytes to the answer's.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, HeaderMap};
use axum::response::Response;
use bellwether_package::SlotName;
use bellwether_runtime::Tensor;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{self, Head, Parameters};
use super::request::{self, HEADER_LENGTH};
use super::{Api, Refused, find};
use crate::causes::with_causes;
use crate::labels::PredictionId;
use crate::serving::{AskError, Serving};

/// How long a body may take to arrive: it comes from this device, and holds a place meanwhile.
const BODY_SECS_MAX: Duration = Duration::from_secs(10);

pub(super) async fn infer(
    State(api): State<Api>,
    Path(slot): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    answer(&api, &slot, None, request).await
}

pub(super) async fn infer_version(
    State(api): State<Api>,
    Path((slot, version)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refused> {
    answer(&api, &slot, Some(&version), request).await
}

async fn answer(
    api: &Api,
    slot: &str,
    version: Option<&str>,
    request: Request,
) -> Result<Response, Refused> {
    find(api, slot, version)?;
    // Taken before the body is read, so that bodies in memory are bounded too.
    let permit = api.busy.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Refused::busy())?;
    let headers = request.headers().clone();
    check_encoding(&headers)?;
    let body = read_body(request).await?;
    // Looked up again: what serves may have changed while the body came.
    let (slot, serving) = find(api, slot, version)?;
    let length = header_length(&headers)?;
    let bad = |error: &dyn std::error::Error| Refused::bad(with_causes(error));
    let request = request::read(&body, length, serving.contract()).map_err(|error| bad(&error))?;
    drop(body);
    let names = serving.contract().outputs.iter();
    let chosen = answer::chosen(&request, names.map(|port| port.name.as_str()));
    let chosen = chosen.map_err(|error| bad(&error))?;
    let outputs = ask(serving.clone(), request.inputs, permit).await?;
    let prediction = api.labels.remember(&slot, &serving, &outputs);
    let head = head(&slot, &serving, request.id, prediction);
    Ok(answer::write(&head, &outputs, &chosen))
}

fn head(
    slot: &SlotName,
    serving: &Serving,
    id: Option<String>,
    prediction: Option<PredictionId>,
) -> Head {
    Head {
        model_name: slot.as_str().to_owned(),
        model_version: serving.version(),
        id,
        parameters: Parameters {
            release: serving.release().to_string(),
            prediction: prediction.map(|id| id.to_string()),
        },
    }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Refused> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Refused::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "compressed bodies are not taken here: send the request as it is",
        )),
        _ => Ok(()),
    }
}

pub(super) async fn read_body(request: Request) -> Result<Bytes, Refused> {
    let read = Bytes::from_request(request, &());
    match tokio::time::timeout(BODY_SECS_MAX, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => Err(Refused::new(error.status(), error.body_text())),
        Err(_) => Err(Refused::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request did not arrive in time",
        )),
    }
}

fn header_length(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let text = headers.get(HEADER_LENGTH).map(|value| value.to_str());
    text.transpose()
        .map_err(|_| Refused::bad(format!("{HEADER_LENGTH} must be a number of bytes")))
}

/// Runs once, on a thread that may block.
async fn ask(
    serving: Arc<Serving>,
    inputs: Vec<Tensor>,
    permit: OwnedSemaphorePermit,
) -> Result<Vec<Tensor>, Refused> {
    let answer = tokio::task::spawn_blocking(move || {
        let answer = serving.ask(&inputs);
        drop(permit);
        answer
    });
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    match answer.await {
        Ok(Ok(outputs)) => Ok(outputs),
        Ok(Err(AskError::Input(why))) => Err(Refused::bad(why)),
        Ok(Err(AskError::Model(why))) => Err(Refused::new(failed, why)),
        Ok(Err(AskError::Unavailable(why))) => {
            Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, why))
        }
        Err(_) => Err(Refused::new(failed, "the agent failed")),
    }
}

//! The local API: the Open Inference Protocol v2, and the device's status as JSON and as a page.
//!
//! It listens where the configuration says, on loopback by default, and on a Unix socket if one is
//! named. The application asks a slot and never a release; when nothing serves it is told why and
//! since when.

pub mod answer;
pub mod elements;
mod infer;
mod labels;
mod listen;
pub mod request;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bellwether_package::SlotName;
use bellwether_package::sections::{Dim, Port};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use crate::config;
use crate::labels::Labels;
use crate::page;
use crate::serving::{Answering, Serving, Silence, Slots};
use crate::view::DeviceView;

pub use listen::{ApiError, ENDPOINTS, Endpoints, Listeners, bind, serve};

/// Longest status in bytes that is read back from an agent.
const STATUS_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Clone)]
struct Api {
    slots: Arc<Slots>,
    view: watch::Receiver<DeviceView>,
    busy: Arc<Semaphore>,
    labels: Arc<Labels>,
}

/// What answers, and how.
pub fn router(
    config: &config::Api,
    slots: Arc<Slots>,
    labels: Arc<Labels>,
    view: watch::Receiver<DeviceView>,
) -> Router {
    let busy = Arc::new(Semaphore::new(config.requests_max));
    Router::new()
        .route("/v2", get(server))
        .route("/v2/", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models", get(models))
        .route("/v2/models/{slot}", get(model))
        .route("/v2/models/{slot}/ready", get(model_ready))
        .route("/v2/models/{slot}/infer", post(infer::infer))
        .route("/v2/models/{slot}/labels", post(labels::labels))
        .route("/v2/models/{slot}/versions/{version}", get(version))
        .route(
            "/v2/models/{slot}/versions/{version}/ready",
            get(version_ready),
        )
        .route(
            "/v2/models/{slot}/versions/{version}/infer",
            post(infer::infer_version),
        )
        .route("/status", get(status))
        .with_state(Api {
            slots,
            view: view.clone(),
            busy,
            labels,
        })
        .merge(page::router(view))
        .fallback(unknown)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(config.body_bytes_max))
}

/// An answer that is not a success, in the protocol's form.
struct Refused {
    status: StatusCode,
    error: String,
    silence: Option<Silence>,
    retry: bool,
}

impl Refused {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            silence: None,
            retry: false,
        }
    }

    fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    fn busy() -> Self {
        let error = "as many requests as the device takes are being worked on: ask again";
        Self {
            retry: true,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
        }
    }

    /// The slot answers with nothing.
    fn silent(slot: &SlotName, silence: Silence) -> Self {
        let since = silence.since.civil();
        let error = format!("{slot} answers nothing since {since}: {}", silence.why);
        Self {
            silence: Some(silence),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.error });
        if let Some(silence) = self.silence {
            body["reason"] = silence.why.into();
            body["since"] = silence.since.0.into();
        }
        let mut response = (self.status, Json(body)).into_response();
        if self.retry {
            let second = axum::http::HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, second);
        }
        response
    }
}

async fn unknown(method: Method, uri: Uri) -> Refused {
    let error = format!("there is no {method} {} here", uri.path());
    Refused::new(StatusCode::NOT_FOUND, error)
}

async fn not_so(method: Method, uri: Uri) -> Refused {
    let error = format!("{} does not take {method}", uri.path());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, error)
}

async fn server() -> Json<Value> {
    let version = env!("CARGO_PKG_VERSION");
    let extensions = ["binary_tensor_data", "bellwether_labels"];
    Json(json!({ "name": "bellwether-agent", "version": version, "extensions": extensions }))
}

async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// Ready while any slot serves: one that is disabled on purpose makes no device unready.
async fn ready(State(api): State<Api>) -> Result<Json<Value>, Refused> {
    if api.slots.any_serves() {
        return Ok(Json(json!({ "live": true, "ready": true })));
    }
    Err(Refused::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "no slot serves a release",
    ))
}

async fn status(State(api): State<Api>) -> Json<DeviceView> {
    Json(api.view.borrow().clone())
}

async fn models(State(api): State<Api>) -> Json<Value> {
    let names = api.slots.names();
    let names: Vec<&str> = names.iter().map(SlotName::as_str).collect();
    Json(json!({ "models": names }))
}

async fn model(State(api): State<Api>, Path(slot): Path<String>) -> Result<Json<Value>, Refused> {
    find(&api, &slot, None).map(|(slot, serving)| metadata(&slot, &serving))
}

async fn version(
    State(api): State<Api>,
    Path((slot, version)): Path<(String, String)>,
) -> Result<Json<Value>, Refused> {
    find(&api, &slot, Some(&version)).map(|(slot, serving)| metadata(&slot, &serving))
}

async fn model_ready(
    State(api): State<Api>,
    Path(slot): Path<String>,
) -> Result<Json<Value>, Refused> {
    find(&api, &slot, None).map(|(slot, _)| is_ready(&slot))
}

async fn version_ready(
    State(api): State<Api>,
    Path((slot, version)): Path<(String, String)>,
) -> Result<Json<Value>, Refused> {
    find(&api, &slot, Some(&version)).map(|(slot, _)| is_ready(&slot))
}

fn is_ready(slot: &SlotName) -> Json<Value> {
    Json(json!({ "name": slot.as_str(), "ready": true }))
}

fn metadata(slot: &SlotName, serving: &Serving) -> Json<Value> {
    let port = |port: &Port| {
        json!({
            "name": port.name.as_str(),
            "datatype": elements::datatype(port.dtype),
            "shape": shape(port),
        })
    };
    let contract = serving.contract();
    Json(json!({
        "name": slot.as_str(),
        "versions": [serving.version()],
        "platform": "onnx_onnxv1",
        "inputs": contract.inputs.iter().map(port).collect::<Vec<_>>(),
        "outputs": contract.outputs.iter().map(port).collect::<Vec<_>>(),
        "parameters": { "release": serving.release().to_string(), "model": serving.model() },
    }))
}

fn shape(port: &Port) -> Vec<i64> {
    let dimension = |dim: &Dim| match dim {
        Dim::Batch => -1,
        Dim::Fixed(n) => i64::from(*n),
    };
    port.shape.iter().map(dimension).collect()
}

fn unknown_slot() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "this device has no such slot")
}

/// What answers in `slot`, if it is of the version that was asked for.
fn find(api: &Api, slot: &str, version: Option<&str>) -> Result<(SlotName, Arc<Serving>), Refused> {
    let slot = SlotName::new(slot).map_err(|_| unknown_slot())?;
    match api.slots.answering(&slot).ok_or_else(unknown_slot)? {
        Answering::With(serving) => {
            let serves = serving.version();
            if version.is_some_and(|version| version != serves) {
                let error = format!("{slot} serves version {serves}: leave the version out");
                return Err(Refused::new(StatusCode::NOT_FOUND, error));
            }
            Ok((slot, serving))
        }
        Answering::Nothing(silence) => Err(Refused::silent(&slot, silence)),
    }
}

/// Asks the running agent for its status. Blocking. Whoever may not read the state folder can ask
/// an agent whose address is in the configuration.
pub fn ask_status(config: &config::Config) -> Option<DeviceView> {
    let endpoints = std::fs::read(config.state_dir.join(ENDPOINTS)).ok();
    let told: Option<Endpoints> = endpoints.and_then(|text| serde_json::from_slice(&text).ok());
    let fixed = Some(config.api.listen).filter(|listen| listen.port() != 0);
    let address = told
        .map(|told| told.api)
        .or(fixed.map(|listen| listen.to_string()))?;
    let http = ureq::Agent::config_builder()
        .timeout_global(Some(std::time::Duration::from_secs(3)))
        .proxy(None)
        .build();
    let url = format!("http://{address}/status");
    let mut answer = http.new_agent().get(url).call().ok()?;
    let body = answer
        .body_mut()
        .with_config()
        .limit(STATUS_BYTES_MAX)
        .read_to_vec()
        .ok()?;
    serde_json::from_slice(&body).ok()
}

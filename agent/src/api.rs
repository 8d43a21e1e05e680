//! The local API: a subset of the Open Inference Protocol v2, and the device's status.
//!
//! It listens where the configuration says, loopback by default. The application asks a slot and
//! never a release; when nothing serves it is told why.

pub mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bellwether_package::SlotName;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::serving::{Answering, AskError, Serving, Slots};
use crate::store::{Store, StoreError, remove_file};
use crate::view::DeviceView;

/// Longest request body in bytes: 4096 rows of a dozen readings in JSON.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The file in the state folder that tells where the API listens.
pub const ENDPOINTS: &str = "endpoints.json";

/// The local API cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is taken, or not this device's.
    #[error(
        "cannot listen on {address} for the local API: it is in use or not this device's; choose \
         another [api] listen, or port 0"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The address cannot be written to the state folder.
    #[error("cannot tell where the local API listens")]
    Store(#[from] StoreError),
}

/// Where the local API listens, as `endpoints.json` tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoints {
    /// `host:port` of the local API.
    pub api: String,
    /// Process id of the agent that listens.
    pub pid: u32,
}

#[derive(Clone)]
struct Api {
    slots: Arc<Slots>,
    view: watch::Receiver<DeviceView>,
    busy: Arc<Semaphore>,
}

/// Binds `listen` and writes where that is to the state folder.
///
/// A full disk is no reason not to serve: then the file is absent, and the log tells the address.
///
/// # Errors
///
/// [`ApiError::Listen`] when the address is occupied.
pub async fn bind(listen: SocketAddr, store: &Store) -> Result<TcpListener, ApiError> {
    let failed = |source| ApiError::Listen {
        address: listen,
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let endpoints = Endpoints {
        api: address.to_string(),
        pid: std::process::id(),
    };
    let text = serde_json::to_vec_pretty(&endpoints).expect("two plain fields");
    match store.write_file(ENDPOINTS, &text) {
        Err(error @ StoreError::DiskFull { .. }) => {
            tracing::error!(%error, "where the local API listens is told in this log alone");
            // One of an earlier run would mislead.
            remove_file(&store.path(ENDPOINTS))?;
        }
        other => other?,
    }
    tracing::info!(%address, "local API listens");
    Ok(listener)
}

/// Answers on `listener` until it is dropped with its task.
///
/// # Errors
///
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    slots: Arc<Slots>,
    view: watch::Receiver<DeviceView>,
    requests_max: usize,
) -> std::io::Result<()> {
    let busy = Arc::new(Semaphore::new(requests_max));
    axum::serve(listener, router(Api { slots, view, busy })).await
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{slot}", get(model))
        .route("/v2/models/{slot}/ready", get(model_ready))
        .route("/v2/models/{slot}/infer", post(infer))
        .route("/status", get(status))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

/// An answer that is not a success, in the protocol's form.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

async fn server() -> Json<serde_json::Value> {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({ "name": "bellwether-agent", "version": version, "extensions": [] }))
}

async fn live() -> StatusCode {
    StatusCode::OK
}

async fn ready(State(api): State<Api>) -> Result<StatusCode, Refused> {
    if api.slots.any_serves() {
        return Ok(StatusCode::OK);
    }
    Err(Refused(
        StatusCode::SERVICE_UNAVAILABLE,
        "no slot serves a release".into(),
    ))
}

async fn status(State(api): State<Api>) -> Json<DeviceView> {
    Json(api.view.borrow().clone())
}

async fn model(
    State(api): State<Api>,
    Path(slot): Path<String>,
) -> Result<Json<serde_json::Value>, Refused> {
    let (slot, serving) = find(&api, &slot)?;
    let port = |port: &bellwether_package::sections::Port| {
        json!({
            "name": port.name.as_str(),
            "datatype": wire::datatype(port.dtype),
            "shape": shape(port),
        })
    };
    let contract = serving.contract();
    Ok(Json(json!({
        "name": slot.as_str(),
        "versions": [serving.version()],
        "platform": "onnx",
        "inputs": contract.inputs.iter().map(port).collect::<Vec<_>>(),
        "outputs": contract.outputs.iter().map(port).collect::<Vec<_>>(),
        "parameters": { "release": serving.release().to_string(), "model": serving.model() },
    })))
}

fn shape(port: &bellwether_package::sections::Port) -> Vec<i64> {
    use bellwether_package::sections::Dim;
    let dimension = |dim: &Dim| match dim {
        Dim::Batch => -1,
        Dim::Fixed(n) => i64::from(*n),
    };
    port.shape.iter().map(dimension).collect()
}

async fn model_ready(
    State(api): State<Api>,
    Path(slot): Path<String>,
) -> Result<StatusCode, Refused> {
    find(&api, &slot).map(|_| StatusCode::OK)
}

async fn infer(
    State(api): State<Api>,
    Path(slot): Path<String>,
    body: Result<axum::body::Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<wire::InferAnswer>, Refused> {
    let body = body.map_err(|error| Refused(error.status(), error.body_text()))?;
    let (slot, serving) = find(&api, &slot)?;
    let busy = "as many requests as the device takes are being worked on: ask again";
    let permit = api
        .busy
        .clone()
        .try_acquire_owned()
        .map_err(|_| Refused(StatusCode::SERVICE_UNAVAILABLE, busy.into()))?;
    let request: wire::InferRequest = serde_json::from_slice(&body)
        .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("not a request: {error}")))?;
    let inputs = wire::tensors(request.inputs)
        .map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))?;
    let asked = serving.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let answer = asked.ask(&inputs);
        drop(permit);
        answer
    });
    let outputs = match answer.await {
        Ok(Ok(outputs)) => outputs,
        Ok(Err(AskError::Input(why))) => return Err(Refused(StatusCode::BAD_REQUEST, why)),
        Ok(Err(AskError::Model(why))) => {
            return Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, why));
        }
        Ok(Err(AskError::Unavailable(why))) => {
            return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        Err(_) => {
            return Err(Refused(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the agent failed".into(),
            ));
        }
    };
    Ok(Json(wire::InferAnswer {
        model_name: slot.as_str().to_owned(),
        model_version: serving.version(),
        id: request.id,
        parameters: wire::Parameters {
            release: serving.release().to_string(),
        },
        outputs: outputs.iter().map(wire::output).collect(),
    }))
}

fn find(api: &Api, slot: &str) -> Result<(SlotName, Arc<Serving>), Refused> {
    let unknown = || Refused(StatusCode::NOT_FOUND, "this device has no such slot".into());
    let slot = SlotName::new(slot).map_err(|_| unknown())?;
    match api.slots.answering(&slot) {
        Some(Answering::With(serving)) => Ok((slot, serving)),
        Some(Answering::Nothing(why)) => Err(Refused(StatusCode::SERVICE_UNAVAILABLE, why)),
        None => Err(unknown()),
    }
}

/// Asks the agent that listens there for its status. Blocking.
pub fn ask_status(state_dir: &std::path::Path) -> Option<DeviceView> {
    let endpoints: PathBuf = state_dir.join(ENDPOINTS);
    let endpoints: Endpoints = serde_json::from_slice(&std::fs::read(endpoints).ok()?).ok()?;
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(std::time::Duration::from_secs(3)))
        .proxy(None)
        .build();
    let url = format!("http://{}/status", endpoints.api);
    let mut answer = config.new_agent().get(url).call().ok()?;
    let limit = BODY_BYTES_MAX as u64;
    let body = answer
        .body_mut()
        .with_config()
        .limit(limit)
        .read_to_vec()
        .ok()?;
    serde_json::from_slice(&body).ok()
}

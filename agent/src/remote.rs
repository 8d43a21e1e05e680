//! The server's REST API, as far as a device uses it. Blocking: call it off the runtime's threads.

use std::io::Read;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bellwether_package::UnixSecs;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

use crate::clock;
use crate::tls::HttpsConnector;

/// How long the server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to begin its answer, and between two parts of a body.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest error answer that is read.
const ERROR_BYTES_MAX: u64 = 16 * 1024;
/// Longest text of the server that reaches a log line.
const MESSAGE_CHARS_MAX: usize = 200;

/// Why the server did not answer as asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It cannot be reached, or the connection broke: try again later.
    #[error("the server cannot be reached")]
    Unreachable(#[source] Box<ureq::Error>),
    /// It refused. Its own words say why.
    #[error("the server refused with {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Its answer is longer than such an answer may be, or not what was asked for.
    #[error("the server's answer to {path} is unusable: {why}")]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl RemoteError {
    /// Whether asking again later may help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            // 408 and 425 ask for the same again, 429 for patience.
            Self::Refused { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            Self::Answer { .. } => false,
        }
    }
}

/// The server, seen by HTTP.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Replaced when the device's certificate is.
    agent: Arc<RwLock<ureq::Agent>>,
    base: String,
}

/// A body that arrives, and where in the whole it begins.
pub struct Content {
    /// Offset of its first byte.
    pub from: u64,
    /// Length of the whole, if the server tells.
    pub whole_bytes: Option<u64>,
    /// The bytes.
    pub body: Box<dyn Read + Send>,
}

impl Remote {
    /// The server at `base` (`https://host:port`).
    pub fn new(base: &str, tls: Arc<ClientConfig>) -> Self {
        Self {
            agent: Arc::new(RwLock::new(agent(tls))),
            base: base.to_owned(),
        }
    }

    /// From now on connects with these settings.
    pub fn replace_tls(&self, tls: Arc<ClientConfig>) {
        *self.agent.write().unwrap_or_else(PoisonError::into_inner) = agent(tls);
    }

    /// The whole body at `path`, at most `bytes_max`; `None` when there is no such thing.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub fn get(&self, path: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        let answer = self.ask(|agent| agent.get(self.url(path)).call())?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        read(path, answer, bytes_max).map(Some)
    }

    /// Posts `body` as JSON and reads the answer as JSON of at most `bytes_max`.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        bytes_max: u64,
    ) -> Result<T, RemoteError> {
        let answer = self.ask(|agent| agent.post(self.url(path)).send_json(body))?;
        let bytes = read(path, answer, bytes_max)?;
        serde_json::from_slice(&bytes).map_err(|_| unusable(path, "it lacks fields"))
    }

    /// The body at `path` from byte `from` on, to before byte `until` or to the end; from 0 when the
    /// server does not resume.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub fn content(
        &self,
        path: &str,
        from: u64,
        until: Option<u64>,
    ) -> Result<Content, RemoteError> {
        let answer = self.ask(|agent| {
            let mut request = agent.get(self.url(path));
            if let Some(until) = until {
                let last = until.saturating_sub(1);
                request = request.header("range", format!("bytes={from}-{last}"));
            } else if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            request.call()
        })?;
        let length = answer.body().content_length();
        let (begins, whole_bytes) = match answer.status() {
            StatusCode::OK => (0, length),
            StatusCode::PARTIAL_CONTENT => {
                let told = answer
                    .headers()
                    .get("content-range")
                    .and_then(|v| v.to_str().ok());
                let Some((begins, whole)) = told.and_then(range).filter(|it| it.0 == from) else {
                    return Err(unusable(path, "it begins elsewhere than asked"));
                };
                (begins, whole)
            }
            _ => return Err(refused(answer)),
        };
        Ok(Content {
            from: begins,
            whole_bytes,
            body: Box::new(
                answer
                    .into_body()
                    .into_with_config()
                    .limit(u64::MAX)
                    .reader(),
            ),
        })
    }

    /// Asks, and notes what time the server says it is.
    fn ask(
        &self,
        request: impl FnOnce(&ureq::Agent) -> Result<Answer, ureq::Error>,
    ) -> Result<Answer, RemoteError> {
        let agent = self
            .agent
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let began = Instant::now();
        let answer = request(&agent).map_err(unreachable)?;
        if let Some(server) = date(answer.headers()) {
            clock::told(server, began.elapsed());
        }
        Ok(answer)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// Where a range begins, and the length of the whole if that is told.
fn range(header: &str) -> Option<(u64, Option<u64>)> {
    let (span, whole) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (begins, _) = span.split_once('-')?;
    Some((begins.parse().ok()?, whole.parse().ok()))
}

type Answer = ureq::http::Response<ureq::Body>;

fn agent(tls: Arc<ClientConfig>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("bellwether-agent/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_per_read(Some(ANSWER_TIMEOUT))
        .timeout_per_write(Some(ANSWER_TIMEOUT))
        .build();
    let connector = ().chain(TcpConnector::default()).chain(HttpsConnector(tls));
    ureq::Agent::with_parts(config, connector, DefaultResolver::default())
}

/// When the server answered, by its own clock.
fn date(headers: &HeaderMap) -> Option<UnixSecs> {
    let text = headers.get("date")?.to_str().ok()?;
    let since = httpdate::parse_http_date(text)
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    Some(UnixSecs(since.as_secs()))
}

fn read(path: &str, answer: Answer, bytes_max: u64) -> Result<Vec<u8>, RemoteError> {
    if !answer.status().is_success() {
        return Err(refused(answer));
    }
    answer
        .into_body()
        .into_with_config()
        .limit(bytes_max)
        .read_to_vec()
        .map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => unusable(path, "it is too long"),
            error => unreachable(error),
        })
}

fn refused(answer: Answer) -> RemoteError {
    let status = answer.status();
    let body = answer
        .into_body()
        .into_with_config()
        .limit(ERROR_BYTES_MAX)
        .read_to_vec();
    let json: Option<serde_json::Value> = body
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let text = |key: &str| {
        json.as_ref()?
            .get("error")?
            .get(key)?
            .as_str()
            .map(str::to_owned)
    };
    let message = text("message").unwrap_or_else(|| "it does not say why".to_owned());
    let message = text("next").map_or(message.clone(), |next| format!("{message} ({next})"));
    // The server's words go to a log: one bounded line of it.
    let message = message
        .chars()
        .filter(|c| !c.is_control())
        .take(MESSAGE_CHARS_MAX)
        .collect();
    RemoteError::Refused {
        status: status.as_u16(),
        message,
    }
}

fn unreachable(error: ureq::Error) -> RemoteError {
    RemoteError::Unreachable(Box::new(error))
}

fn unusable(path: &str, why: &'static str) -> RemoteError {
    RemoteError::Answer {
        path: path.to_owned(),
        why,
    }
}

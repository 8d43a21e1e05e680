//! HTTPS to one fleet server: its own certificate authority and no other, a bearer token from a
//! file, bounded answers, no redirects.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Method, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, SendBody};
use zeroize::Zeroizing;

use crate::arguments::Connection;
use crate::failure::{Failure, Result, Who};
use crate::{files, secret};

/// A fleet of ten thousand devices answers in a few megabytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Connecting takes longer than this only where nobody listens.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for this long has gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Half a gigabyte at 150 KB/s takes an hour.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);

/// A fleet server that can be asked.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: Zeroizing<String>,
}

impl Client {
    /// Reads the authority and the token; connects to nobody yet.
    ///
    /// # Errors
    /// When a file can't be used, or the address is no `https://` URL.
    pub(crate) fn new(connection: &Connection) -> Result<Self> {
        let base = connection.server.trim_end_matches('/').to_owned();
        if !base.starts_with("https://") {
            return Err(
                Failure::operator(format!("{base} is no https:// address")).next(
                    "give --server https://HOST:PORT, as DIR/endpoints.json of the server says",
                ),
            );
        }
        let pem = files::read_text(&connection.ca)?;
        let certificates: Vec<_> = parse_pem(pem.as_bytes())
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if certificates.is_empty() {
            return Err(Failure::operator(format!(
                "{} holds no certificate",
                connection.ca.display()
            ))
            .next("give --ca the server's DIR/ca.pem"));
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&certificates))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_recv_body(Some(ANSWER_TIMEOUT))
            .timeout_send_body(Some(UPLOAD_TIMEOUT))
            .user_agent(concat!("bellwether/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            base,
            token: secret::one_line(&connection.token_file)?,
        })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When the server can't be reached, or says no.
    pub(crate) fn read(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, "", SendBody::none())
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// When the server can't be reached, or says no.
    pub(crate) fn order(&self, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        self.ask(Method::POST, path, "application/json", body.as_bytes())
    }

    /// `POST` or `PUT` of raw bytes from `source`, of which there are `length`.
    ///
    /// # Errors
    /// When the server can't be reached, or says no.
    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        length: u64,
        source: &mut dyn Read,
    ) -> Result<Value> {
        // A known length lets the server refuse an oversized upload before its first byte.
        let body = (length, source);
        let request = self
            .request(method, path, "application/octet-stream")
            .header("content-length", body.0)
            .body(SendBody::from_reader(body.1));
        self.settle(request)
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: impl ureq::AsSendBody,
    ) -> Result<Value> {
        self.settle(self.request(method, path, content).body(body))
    }

    fn request(&self, method: Method, path: &str, content: &str) -> ureq::http::request::Builder {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token.as_str()))
            .header("accept", "application/json");
        if !content.is_empty() {
            request = request.header("content-type", content);
        }
        request
    }

    fn settle(&self, request: ureq::http::Result<Request<impl ureq::AsSendBody>>) -> Result<Value> {
        let request = request.map_err(|error| {
            Failure::operator(format!("{} can't be an address", self.base))
                .next("give --server https://HOST:PORT")
                .because(error)
        })?;
        let mut answer = self
            .agent
            .run(request)
            .map_err(|error| self.unreachable(error))?;
        let status = answer.status().as_u16();
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| self.unreachable(error))?;
        let value: Option<Value> = if bytes.is_empty() {
            Some(Value::Null)
        } else {
            serde_json::from_slice(&bytes).ok()
        };
        if !(200..300).contains(&status) {
            return Err(refused(status, value));
        }
        value.ok_or_else(|| {
            Failure::new(
                Who::Server,
                format!("{} answered something else than JSON", self.base),
            )
            .next("check that the address is that of a fleet server")
        })
    }

    fn unreachable(&self, error: ureq::Error) -> Failure {
        let (what, next) = match &error {
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => (
                format!("{} did not prove to be the fleet server", self.base),
                "check that --ca is this server's ca.pem and that the address is one of its names",
            ),
            ureq::Error::Timeout(_) => (
                format!("{} did not answer in time", self.base),
                "check the network and that the server runs, then run it again",
            ),
            ureq::Error::Io(io) if io.to_string().contains("certificate") => (
                format!("{} did not prove to be the fleet server", self.base),
                "check that --ca is this server's ca.pem and that the address is one of its names",
            ),
            _ => (
                format!("can't reach {}", self.base),
                "check the address and that the server runs: DIR/endpoints.json has its port",
            ),
        };
        Failure::new(Who::Server, what).next(next).because(error)
    }
}

/// What the server's refusal says, in its own words where it gave some.
fn refused(status: u16, answer: Option<Value>) -> Failure {
    let detail = answer.as_ref().and_then(|value| value.get("error"));
    let text = |key: &str| {
        detail
            .and_then(|detail| detail.get(key))
            .and_then(Value::as_str)
    };
    let who = match status {
        400..=499 => Who::Operator,
        _ => Who::Server,
    };
    let message = text("message").map_or_else(
        || format!("the server answered with HTTP status {status}"),
        |message| format!("the server refused: {}", message.trim_end_matches('.')),
    );
    let next = text("next")
        .map(str::to_owned)
        .unwrap_or_else(|| match status {
            401 | 403 => "check --token-file: the server's DIR/api-token".to_owned(),
            404 => "check the id".to_owned(),
            _ => "look into the server's log".to_owned(),
        });
    Failure::new(who, message).next(next)
}

/// One segment of a path: an id from the command line can't reach another route.
pub(crate) fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            segment.push(byte as char);
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_segment_cannot_leave_its_route() {
        assert_eq!(segment("pump-1"), "pump-1");
        assert_eq!(segment("../x?y=1#z"), "..%2Fx%3Fy%3D1%23z");
    }

    #[test]
    fn the_servers_own_words_are_passed_on() {
        let answer = serde_json::json!({
            "error": {"code": "unapproved", "message": "1 of 2 approvals.", "next": "ask bob"}
        });
        let failure = refused(409, Some(answer));
        assert_eq!(failure.to_string(), "the server refused: 1 of 2 approvals");
        assert_eq!(failure.to_json()["error"]["next"], "ask bob");
        assert!(refused(502, None).to_string().contains("502"));
    }
}

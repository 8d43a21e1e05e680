//! Reads the server's REST API, as a console would. Orders go through the `bellwether` command.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// A server on loopback that takes longer is gone.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A dozen devices answer in a few hundred kilobytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A fleet server that can be read.
pub(crate) struct Rest {
    agent: ureq::Agent,
    base: String,
    token: String,
}

impl Rest {
    /// Trusts the server's own certificate authority and no other.
    pub(crate) fn new(base: &str, data: &Path) -> anyhow::Result<Self> {
        let ca = std::fs::read(data.join("ca.pem")).context("the server's ca.pem")?;
        let token = std::fs::read_to_string(data.join("api-token")).context("the API token")?;
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&[Certificate::from_pem(&ca)?]))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            base: base.to_owned(),
            token: token.trim().to_owned(),
        })
    }

    /// `GET path`.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut answer = self
            .agent
            .get(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .call()
            .with_context(|| format!("GET {path}"))?;
        let status = answer.status();
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .with_context(|| format!("GET {path}"))?;
        if !status.is_success() {
            bail!("GET {path} answered {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("GET {path} answered no JSON"))
    }
}

//! Who the device is to the server, and the only server it believes: key, certificate, authority.
//!
//! The key is made on the device and never leaves it. The server's authority is pinned by its
//! fingerprint at enrolment; nothing else a server says makes it trusted.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::{Store, StoreError};

const KEY: &str = "device.key";
const CERTIFICATE: &str = "device.crt";
const AUTHORITY: &str = "ca.pem";
const SERVER: &str = "server.json";

/// Why there is no identity to use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The device was never enrolled.
    #[error("the device is not enrolled: run `bellwether-agent enroll` first")]
    NotEnrolled,
    /// The state folder cannot be read or written.
    #[error("cannot use the device's identity")]
    Store(#[from] StoreError),
    /// Key, certificate or authority are not what they should be.
    #[error("the device's {what} is damaged: enrol the device again")]
    Damaged {
        /// Which.
        what: &'static str,
    },
    /// Key and certificate do not go together.
    #[error("the device's key and certificate do not fit: enrol the device again")]
    Tls(#[from] rustls::Error),
    /// The authority is no certificate authority that TLS can use.
    #[error("the server's authority cannot be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Base URL of its REST API, without a slash at its end.
    pub https: String,
    /// `host:port` of its broker.
    pub mqtts: String,
}

/// What enrolment gave the device.
pub struct Identity {
    /// Where the server is.
    pub server: Server,
    key: PrivateKeyDer<'static>,
    key_pem: Zeroizing<Vec<u8>>,
    certificates: Vec<CertificateDer<'static>>,
    authority: CertificateDer<'static>,
}

impl Identity {
    /// Reads what enrolment has written.
    ///
    /// # Errors
    ///
    /// [`IdentityError::NotEnrolled`] before the first enrolment.
    pub fn load(store: &Store) -> Result<Self, IdentityError> {
        let file = |name| store.read_file(name)?.ok_or(IdentityError::NotEnrolled);
        let damaged = |what| IdentityError::Damaged { what };
        let key = Zeroizing::new(file(KEY)?);
        let certificates = CertificateDer::pem_slice_iter(&file(CERTIFICATE)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| damaged("certificate"))?;
        Ok(Self {
            server: serde_json::from_slice(&file(SERVER)?)
                .map_err(|_| damaged("server address"))?,
            key: PrivateKeyDer::from_pem_slice(&key).map_err(|_| damaged("key"))?,
            key_pem: key,
            certificates,
            authority: CertificateDer::from_pem_slice(&file(AUTHORITY)?)
                .map_err(|_| damaged("server authority"))?,
        })
    }

    /// TLS for the link: this device's certificate, and the pinned authority alone.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] when key, certificate and authority do not work together.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let provider = provider();
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier.build()?)
            .with_client_auth_cert(self.certificates.clone(), self.key.clone_key())?;
        Ok(Arc::new(config))
    }

    /// The same for the HTTP client.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Damaged`] when the key cannot be read.
    pub fn ureq_tls(&self) -> Result<ureq::tls::TlsConfig, IdentityError> {
        let chain: Vec<_> = self
            .certificates
            .iter()
            .map(|der| ureq_certificate(der))
            .collect();
        let key = ureq::tls::PrivateKey::from_pem(&self.key_pem)
            .map_err(|_| IdentityError::Damaged { what: "key" })?;
        let client = ureq::tls::ClientCert::new_with_certs(&chain, key);
        Ok(ureq_tls(&self.authority, Some(client)))
    }
}

/// The one cryptography that the agent's TLS uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// TLS settings of the HTTP client that believe `authority` alone.
pub fn ureq_tls(
    authority: &CertificateDer<'_>,
    client: Option<ureq::tls::ClientCert>,
) -> ureq::tls::TlsConfig {
    let authority = ureq_certificate(authority);
    ureq::tls::TlsConfig::builder()
        .provider(ureq::tls::TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider())
        .root_certs(ureq::tls::RootCerts::new_with_certs(&[authority]))
        .client_cert(client)
        .build()
}

fn ureq_certificate(der: &CertificateDer<'_>) -> ureq::tls::Certificate<'static> {
    ureq::tls::Certificate::from_der(der).to_owned()
}

/// The device's key as PEM: the one it has, or a new one, kept before anybody hears of it.
///
/// # Errors
///
/// [`IdentityError`] when it cannot be kept or the one kept is damaged.
pub fn key_pair(store: &Store) -> Result<rcgen::KeyPair, IdentityError> {
    let damaged = |_| IdentityError::Damaged { what: "key" };
    if let Some(pem) = store.read_file(KEY)? {
        let pem = Zeroizing::new(pem);
        let pem = std::str::from_utf8(&pem).map_err(|_| IdentityError::Damaged { what: "key" })?;
        return rcgen::KeyPair::from_pem(pem).map_err(damaged);
    }
    let key = rcgen::KeyPair::generate().map_err(damaged)?;
    let pem = Zeroizing::new(key.serialize_pem());
    store.write_file(KEY, pem.as_bytes())?;
    Ok(key)
}

/// Keeps what the server gave. The address goes last: without it the device is not enrolled.
///
/// # Errors
///
/// [`IdentityError`] when the disk refuses.
pub fn keep(
    store: &Store,
    certificate_pem: &str,
    authority_pem: &str,
    server: &Server,
) -> Result<(), IdentityError> {
    store.write_file(CERTIFICATE, certificate_pem.as_bytes())?;
    store.write_file(AUTHORITY, authority_pem.as_bytes())?;
    let server = serde_json::to_vec_pretty(server).map_err(|_| IdentityError::Damaged {
        what: "server address",
    })?;
    store.write_file(SERVER, &server)?;
    Ok(())
}

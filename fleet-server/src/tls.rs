//! TLS settings: of the HTTPS listener, and of our own clients.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::ca::{Ca, Identity};

/// What we speak: everything that talks to us is ours, so nothing older is needed.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// TLS cannot be set up. We are at fault.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key does not fit.
    #[error("TLS does not accept our certificate or key")]
    Rustls(#[from] rustls::Error),
    /// The verifier of client certificates cannot be made.
    #[error("TLS does not accept our CA")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The HTTPS listener: a client may show a certificate; if it does, our CA must have made it.
///
/// # Errors
///
/// [`TlsError`] when our own files do not fit together.
pub fn server(ca: &Ca, identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?.into(), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(verifier)
        // With the CA, so that an enrolling device can pin it by its fingerprint.
        .with_single_cert(
            vec![identity.certificate.clone(), ca.certificate().clone()],
            identity.key(),
        )?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client of our own servers, with or without a certificate.
///
/// # Errors
///
/// [`TlsError`] when our own files do not fit together.
pub fn client(ca: &Ca, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(VERSIONS)?
        .with_root_certificates(roots(ca)?);
    Ok(Arc::new(match identity {
        Some(identity) => {
            builder.with_client_auth_cert(vec![identity.certificate.clone()], identity.key())?
        }
        None => builder.with_no_client_auth(),
    }))
}

/// Where a listener can be reached from this machine: one on all addresses, on loopback.
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    let mut address = listening;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

fn roots(ca: &Ca) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    Ok(roots)
}

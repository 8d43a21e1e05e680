//! Enrolment: key, request, certificate; server and trust root pinned by fingerprints given by
//! hand.
//!
//! Neither fingerprint is ever learned from the server: they are what defends against it.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bellwether_package::Digest;
use bellwether_package::digest::sha256;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::identity::{Identity, IdentityError, Server, certificate_request, next_key};
use crate::remote::{Remote, RemoteError};
use crate::store::{Store, StoreError};
use crate::tls::{self, Pinned, provider};
use crate::trust::{Trust, TrustError};

/// The claim's file that is none: standard input.
pub const STANDARD_INPUT: &str = "-";
/// Longest claim in bytes: a one-time password, not a document.
const CLAIM_BYTES_MAX: u64 = 1024;
/// Longest answer to an enrolment: two certificates and a chain of trust roots in base64.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// How long the server may take for the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// The device's name in the configuration that the package installs.
const PLACEHOLDER: &str = "change-me";

/// What the operator gives by hand.
#[derive(Debug, Clone)]
pub struct Request {
    /// `https://host:port` of the server.
    pub server: String,
    /// SHA-256 of the DER bytes of the server's certificate authority.
    pub authority: Digest,
    /// SHA-256 of the payload of a trust root in the chain that the device is to start from.
    pub root: Digest,
    /// The file that holds the claim; `-` is standard input.
    pub claim_file: PathBuf,
}

/// Why the device is not enrolled. Nothing that the server sent was kept.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The address is not `https://host[:port]`.
    #[error("{0} is not an address of the form https://host:port")]
    Address(String),
    /// The claim's file cannot be read.
    #[error("cannot read the claim from {}", path.display())]
    Claim {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Nobody gave the device its name.
    #[error(
        "the configuration still has the device's name that it came with, {PLACEHOLDER}: write \
         down there which device this is"
    )]
    Nameless,
    /// The server cannot be reached.
    #[error("cannot reach {server}: check the address and the network")]
    Unreachable {
        /// The server.
        server: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The server did not show the pinned authority, or does not hold a certificate under it.
    #[error(
        "{server} is not the server with the authority {expected}: check both; if they are right, \
         somebody is in between"
    )]
    WrongAuthority {
        /// The server.
        server: String,
        /// The fingerprint that was given.
        expected: Digest,
        /// The cause.
        source: rustls::Error,
    },
    /// The server refused, or its answer is none.
    #[error("the server did not enrol the device")]
    Remote(#[from] RemoteError),
    /// The answer holds something unusable.
    #[error("the server's answer holds no usable {what}")]
    Answer {
        /// What is missing.
        what: &'static str,
    },
    /// The trust root is not the one whose fingerprint was given.
    #[error("the server's trust root is refused")]
    Trust(#[from] TrustError),
    /// Key, certificate or request.
    #[error("cannot make or keep the device's identity")]
    Identity(#[from] IdentityError),
    /// The authority that was shown is none that TLS can use.
    #[error("the server's authority cannot be used")]
    Authority(#[from] rustls::Error),
    /// The state folder.
    #[error("cannot use the state folder")]
    Store(#[from] StoreError),
}

#[derive(Serialize)]
struct Ask<'a> {
    claim: &'a str,
    device: &'a str,
    csr_pem: String,
    attributes: &'a BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Answer {
    certificate_pem: String,
    ca_pem: String,
    mqtts: String,
    trust_root_b64: String,
}

/// Enrols the device and keeps what it was given.
///
/// # Errors
///
/// [`EnrolError`]; the device is then as enrolled as it was before.
pub fn enrol(config: &Config, request: &Request) -> Result<(), EnrolError> {
    if config.device.as_str() == PLACEHOLDER {
        return Err(EnrolError::Nameless);
    }
    let server = request.server.trim_end_matches('/').to_owned();
    let claim = read_claim(&request.claim_file)?;
    let store = Store::open(&config.state_dir)?;
    let authority = pinned_authority(&server, request.authority)?;
    let key = next_key(&store)?;
    let ask = Ask {
        claim: &claim,
        device: config.device.as_str(),
        csr_pem: certificate_request(&config.device, &key)?,
        attributes: &config.attributes,
    };
    let remote = Remote::new(&server, tls::without_certificate(&authority)?);
    let answer: Answer = remote.post_json("/v1/enroll", &ask, ANSWER_BYTES_MAX)?;
    let told = CertificateDer::from_pem_slice(answer.ca_pem.as_bytes())
        .map_err(|_| EnrolError::Answer { what: "authority" })?;
    if sha256(&told) != request.authority {
        return Err(EnrolError::Answer {
            what: "authority with the given fingerprint",
        });
    }
    let chain = base64::engine::general_purpose::STANDARD
        .decode(&answer.trust_root_b64)
        .map_err(|_| EnrolError::Answer { what: "trust root" })?;
    let server = Server {
        https: server,
        mqtts: answer.mqtts,
    };
    let identity = Identity::new(
        &config.device,
        &key,
        answer.certificate_pem,
        answer.ca_pem,
        server,
    )?;
    Trust::start(&store, &chain, request.root)?;
    // Last: without it the device is as enrolled as before.
    identity.keep(&store)?;
    Ok(())
}

fn read_claim(path: &Path) -> Result<Zeroizing<String>, EnrolError> {
    let mut claim = Zeroizing::new(String::new());
    let mut read = |from: &mut dyn Read| from.take(CLAIM_BYTES_MAX).read_to_string(&mut claim);
    let read = if path == Path::new(STANDARD_INPUT) {
        read(&mut std::io::stdin())
    } else {
        std::fs::File::open(path).and_then(|mut file| read(&mut file))
    };
    read.map_err(|source| EnrolError::Claim {
        path: path.to_owned(),
        source,
    })?;
    Ok(claim.trim().to_owned().into())
}

/// Shakes hands with the server and returns the authority it showed, whose fingerprint is `pin`
/// and under which its certificate is valid.
fn pinned_authority(server: &str, pin: Digest) -> Result<CertificateDer<'static>, EnrolError> {
    let malformed = || EnrolError::Address(server.to_owned());
    let (host, port) = host_and_port(server).ok_or_else(malformed)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| malformed())?;
    let unreachable = |source| EnrolError::Unreachable {
        server: server.to_owned(),
        source,
    };
    let address = (host, port)
        .to_socket_addrs()
        .map_err(unreachable)?
        .next()
        .ok_or_else(malformed)?;
    let mut stream =
        TcpStream::connect_timeout(&address, HANDSHAKE_TIMEOUT).map_err(unreachable)?;
    stream
        .set_read_timeout(Some(HANDSHAKE_TIMEOUT))
        .map_err(unreachable)?;
    stream
        .set_write_timeout(Some(HANDSHAKE_TIMEOUT))
        .map_err(unreachable)?;
    let wrong = |source| EnrolError::WrongAuthority {
        server: server.to_owned(),
        expected: pin,
        source,
    };
    let verifier = Arc::new(PinnedAuthority {
        pin,
        found: Mutex::default(),
    });
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(tls::VERSIONS)
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(wrong)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(|error| {
            match error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            {
                Some(tls) => wrong(tls.clone()),
                None => unreachable(error),
            }
        })?;
    }
    let found = verifier
        .found
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    found.ok_or_else(|| wrong(rustls::Error::NoCertificatesPresented))
}

fn host_and_port(server: &str) -> Option<(&str, u16)> {
    let authority = server.strip_prefix("https://")?;
    if authority.contains(['/', '?', '#', '@']) {
        return None;
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => {
            Some((host.trim_matches(['[', ']']), port.parse().ok()?))
        }
        Some(_) => None,
        None => Some((authority, 443)),
    }
}

/// Believes a server whose chain holds the pinned authority, and checks it under that alone.
#[derive(Debug)]
struct PinnedAuthority {
    pin: Digest,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let authority = intermediates
            .iter()
            .find(|certificate| sha256(certificate) == self.pin)
            .ok_or(unknown)?;
        let verified = Pinned::new(authority)?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(authority.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

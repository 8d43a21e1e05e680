//! TLS as the agent speaks it: version 1.3, one cryptography, one pinned authority.
//!
//! A device whose clock is wrong must reach its server all the same, or nobody would hear that it
//! is. So a server's certificate that is out of its time by the clock is taken if there is a time
//! at which it is good that is not before the floor: the pinned authority made it, and the floor
//! follows what the fleet signs.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use crate::clock;

/// The only version: the server is ours, and speaks it.
pub const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// Moments tried for one chain: the clock's, and one for each certificate of it.
const MOMENTS_MAX: usize = 3;

/// The one cryptography that the agent's TLS uses, without what only older versions need.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = ring::default_provider();
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some());
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// Believes servers that `authority` has certified, and no other.
#[derive(Debug)]
pub struct Pinned {
    verifier: Arc<WebPkiServerVerifier>,
}

impl Pinned {
    /// Believes `authority` alone.
    ///
    /// # Errors
    ///
    /// When it is no authority that TLS can use.
    pub fn new(authority: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { verifier })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |now| {
            self.verifier.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )
        };
        in_time(verify, moment(clock::now().0), moment(clock::floor().0))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Verifies at `now`, or else at the nearest moment that is not before `floor`.
fn in_time<T>(
    verify: impl Fn(UnixTime) -> Result<T, rustls::Error>,
    mut now: UnixTime,
    floor: UnixTime,
) -> Result<T, rustls::Error> {
    let mut moments = 0;
    loop {
        let verified = verify(now);
        moments += 1;
        match verified.as_ref().err().and_then(in_its_time) {
            Some(then) if then >= floor && moments < MOMENTS_MAX => now = then,
            _ => return verified,
        }
    }
}

fn moment(secs: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(secs))
}

/// The moment nearest to the clock at which the certificate that `error` is about is good; `None`
/// when time is not what is wrong with it.
fn in_its_time(error: &rustls::Error) -> Option<UnixTime> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after, ..
        }) => Some(*not_after),
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        }) => Some(*not_before),
        _ => None,
    }
}

/// Settings of a client that shows no certificate.
///
/// # Errors
///
/// When `authority` is no authority that TLS can use.
pub fn without_certificate(
    authority: &CertificateDer<'_>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned::new(authority)?))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Puts the agent's TLS over the HTTP client's connections, and refuses to go without.
#[derive(Debug)]
pub struct HttpsConnector(pub Arc<ClientConfig>);

impl<In: Transport> Connector<In> for HttpsConnector {
    type Out = Either<In, HttpsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained.filter(|_| details.needs_tls()) else {
            return Err(ureq::Error::Tls("there is nothing to put TLS over"));
        };
        let host = details.uri.host().unwrap_or_default();
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| ureq::Error::Tls("the server's name cannot stand in a certificate"))?;
        let mut conn = ClientConnection::new(self.0.clone(), name)?;
        let mut sock = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        sock.set_timeout(details.timeout);
        conn.complete_io(&mut sock)?;
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Either::B(HttpsTransport {
            buffers,
            stream: StreamOwned { conn, sock },
        })))
    }
}

/// One connection with TLS.
pub struct HttpsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for HttpsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpsTransport")
    }
}

impl Transport for HttpsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[path = "tls/tests.rs"]
mod tests;

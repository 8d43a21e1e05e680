//! Who the device is to the server, and the only server it believes: key, certificate, authority.
//!
//! The key is made on the device and never leaves it. The server's authority is pinned by its
//! fingerprint at enrolment; nothing else a server says makes it trusted. Everything lies in one
//! file, so that a renewed certificate comes with its key or not at all; it lies there twice.

use std::sync::Arc;

use bellwether_package::UnixSecs;
use bellwether_protocol::DeviceId;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::store::{Store, StoreError, remove_file};
use crate::tls::{Pinned, VERSIONS, provider};

/// The file in the state folder that holds the identity.
const FILE: &str = "identity";
/// The key that a certificate is being asked for; kept before anybody hears of it.
const NEXT_KEY: &str = "next.key";

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
    /// The certificate is for another device.
    #[error("the certificate is for {found}, and the configuration says {expected}")]
    OtherDevice {
        /// The certificate's common name.
        found: String,
        /// The configured device.
        expected: DeviceId,
    },
    /// Key and certificate do not go together.
    #[error("the device's key and certificate do not fit: enrol the device again")]
    Tls(#[from] rustls::Error),
    /// A key or certificate request cannot be made.
    #[error("cannot make a key or certificate request")]
    Request(#[from] rcgen::Error),
}

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Base URL of its REST API, without a slash at its end.
    pub https: String,
    /// `host:port` of its broker.
    pub mqtts: String,
}

/// How it lies on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    key_pem: String,
    certificate_pem: String,
    authority_pem: String,
    server: Server,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.key_pem.zeroize();
    }
}

/// What enrolment or renewal gave the device.
pub struct Identity {
    /// Where the server is.
    pub server: Server,
    /// From when the certificate is good.
    pub valid_from: UnixSecs,
    /// When it ends.
    pub valid_until: UnixSecs,
    kept: Kept,
    key: PrivateKeyDer<'static>,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({:?}, until {})", self.server, self.valid_until)
    }
}

impl Identity {
    /// Reads what enrolment or the last renewal has written.
    ///
    /// # Errors
    ///
    /// [`IdentityError::NotEnrolled`] before the first enrolment.
    pub fn load(store: &Store) -> Result<Self, IdentityError> {
        let bytes = Zeroizing::new(store.load(FILE)?.ok_or(IdentityError::NotEnrolled)?);
        let kept: Kept = postcard::from_bytes(&bytes).map_err(|_| IdentityError::Damaged {
            what: "identity file",
        })?;
        Self::of(kept)
    }

    /// The identity of a device that enrolled: `key` was made for it, the rest is the server's
    /// answer. Nothing is kept yet.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] when certificate and key do not go together, or it is another device's.
    pub fn new(
        device: &DeviceId,
        key: &rcgen::KeyPair,
        certificate_pem: String,
        authority_pem: String,
        server: Server,
    ) -> Result<Self, IdentityError> {
        let identity = Self::of(Kept {
            key_pem: key.serialize_pem(),
            certificate_pem,
            authority_pem,
            server,
        })?;
        let found = common_name(&identity.certificate).unwrap_or_default();
        if found != device.as_str() {
            return Err(IdentityError::OtherDevice {
                found,
                expected: device.clone(),
            });
        }
        // TLS checks that the certificate is for this key.
        identity.tls()?;
        Ok(identity)
    }

    /// The same device with its next key and certificate.
    ///
    /// # Errors
    ///
    /// As [`Identity::new`].
    pub fn renewed(
        &self,
        device: &DeviceId,
        key: &rcgen::KeyPair,
        certificate_pem: String,
        mqtts: String,
    ) -> Result<Self, IdentityError> {
        let server = Server {
            https: self.server.https.clone(),
            mqtts,
        };
        let authority_pem = self.kept.authority_pem.clone();
        Self::new(device, key, certificate_pem, authority_pem, server)
    }

    /// Keeps it in place of the one before. The key that was kept apart is then part of it.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] when the disk refuses; the one before then holds.
    pub fn keep(&self, store: &Store) -> Result<(), IdentityError> {
        let bytes = Zeroizing::new(postcard::to_stdvec(&self.kept).expect("plain texts"));
        store.put_twice(FILE, &bytes)?;
        remove_file(&store.path(NEXT_KEY))?;
        Ok(())
    }

    /// TLS with this device's certificate and the pinned authority alone.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] when key, certificate and authority do not work together.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(&self.authority)?))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        Ok(Arc::new(config))
    }

    /// When to ask for the next certificate: at two thirds of this one's life, so that a device
    /// that is away for the rest of it comes back in time.
    pub fn renew_at(&self) -> UnixSecs {
        let life = self.valid_until.secs_since(self.valid_from);
        self.valid_from.plus_secs(life / 3 * 2)
    }

    fn of(kept: Kept) -> Result<Self, IdentityError> {
        let damaged = |what| IdentityError::Damaged { what };
        let certificate = CertificateDer::from_pem_slice(kept.certificate_pem.as_bytes())
            .map_err(|_| damaged("certificate"))?;
        let (valid_from, valid_until) =
            validity(&certificate).ok_or_else(|| damaged("certificate"))?;
        Ok(Self {
            server: kept.server.clone(),
            valid_from,
            valid_until,
            key: PrivateKeyDer::from_pem_slice(kept.key_pem.as_bytes())
                .map_err(|_| damaged("key"))?,
            authority: CertificateDer::from_pem_slice(kept.authority_pem.as_bytes())
                .map_err(|_| damaged("server authority"))?,
            certificate,
            kept,
        })
    }
}

fn validity(certificate: &CertificateDer<'_>) -> Option<(UnixSecs, UnixSecs)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    let secs =
        |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).ok().map(UnixSecs);
    Some((secs(validity.not_before)?, secs(validity.not_after)?))
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// The key to ask a certificate for: the one that was being asked for when the agent last stopped,
/// or a new one.
///
/// # Errors
///
/// [`IdentityError`] when it cannot be made or kept.
pub fn next_key(store: &Store) -> Result<rcgen::KeyPair, IdentityError> {
    if let Some(pem) = store.read_file(NEXT_KEY)? {
        let pem = Zeroizing::new(pem);
        let kept = std::str::from_utf8(&pem)
            .ok()
            .and_then(|pem| rcgen::KeyPair::from_pem(pem).ok());
        if let Some(key) = kept {
            return Ok(key);
        }
        // Nobody has a certificate for a key that cannot be read.
        tracing::warn!("the key to be certified is damaged; another is made");
    }
    let key = rcgen::KeyPair::generate()?;
    let pem = Zeroizing::new(key.serialize_pem());
    store.write_file(NEXT_KEY, pem.as_bytes())?;
    Ok(key)
}

/// A request, in PEM, for a certificate of `device` over `key`, signed by it.
///
/// # Errors
///
/// [`IdentityError::Request`].
pub fn certificate_request(
    device: &DeviceId,
    key: &rcgen::KeyPair,
) -> Result<String, IdentityError> {
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, device.as_str());
    Ok(params.serialize_request(key)?.pem()?)
}

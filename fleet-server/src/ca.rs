//! The fleet's certificate authority: it certifies the server, its broker client and the devices.
//!
//! A device's certificate says one thing: its common name is the device's id. Common names that
//! cannot be device ids are reserved for the server itself.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bellwether_package::digest::sha256;
use bellwether_package::{Digest, UnixSecs};
use bellwether_protocol::DeviceId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Common name of the server's own broker client. Upper case, so that no device id equals it.
pub const SERVER_CLIENT_NAME: &str = "SERVER";
/// How long the CA is valid. Rotating it means enrolling again, so it outlives devices.
const CA_DAYS: u32 = 20 * 365;
/// How long the server's certificates are valid; they are made anew at each start.
const SERVER_DAYS: u32 = 365;
/// Certificates are valid from a little earlier, for devices whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Longest certificate request taken, in bytes: a P-256 or Ed25519 key needs far less.
pub const CSR_BYTES_MAX: usize = 8 * 1024;

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The request is no PKCS #10 request with a key that we support, signed by that key. The
    /// device is at fault.
    #[error("the certificate request cannot be used")]
    Request(#[source] rcgen::Error),
    /// Our own key or certificate cannot be used.
    #[error("the certificate authority's files cannot be used")]
    Own(#[source] rcgen::Error),
    /// A PEM file of ours cannot be read.
    #[error("the certificate authority's PEM cannot be read")]
    Pem,
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// The certificate authority with its key.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ca({})", self.fingerprint())
    }
}

/// A device's certificate, and what the database keeps of it.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The certificate, in PEM.
    pub pem: String,
    /// Its serial number as [`serial_number`] gives it.
    pub serial: String,
    /// When it ends.
    pub expires_at: UnixSecs,
}

/// A device's request for a certificate, signed by the key that it is for.
pub struct Request(CertificateSigningRequestParams);

impl Request {
    /// Reads a request and checks its signature: whoever made it holds the key.
    ///
    /// # Errors
    ///
    /// [`CaError::Request`] when it is no usable request.
    pub fn from_pem(csr_pem: &str) -> Result<Self, CaError> {
        let request =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(CaError::Request)?;
        Ok(Self(request))
    }

    /// SHA-256 of the key.
    pub fn key(&self) -> Digest {
        sha256(&self.0.public_key.subject_public_key_info())
    }
}

/// A certificate with its key.
pub struct Identity {
    /// The certificate, in PEM.
    pub certificate_pem: String,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key, in PEM.
    pub key_pem: String,
    key_der: Vec<u8>,
}

impl Identity {
    /// The key, as rustls takes it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key_der.clone()).into()
    }
}

impl Ca {
    /// A new authority: its certificate and its key, in PEM.
    ///
    /// # Errors
    ///
    /// [`CaError`] when no key can be made.
    pub fn generate() -> Result<(String, String), CaError> {
        let key = KeyPair::generate().map_err(CaError::Own)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(CaError::Own)?;
        params.distinguished_name = named("Bellwether fleet CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, CA_DAYS);
        let certificate = params.self_signed(&key).map_err(CaError::Own)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// The authority of these PEM texts.
    ///
    /// # Errors
    ///
    /// [`CaError`] when they are no certificate and key.
    pub fn open(certificate_pem: String, key_pem: &str) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(key_pem).map_err(CaError::Own)?;
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| CaError::Pem)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(CaError::Own)?;
        Ok(Self {
            issuer,
            certificate_pem,
            certificate,
        })
    }

    /// The authority's certificate, in PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the authority's certificate (DER): what a device is given beside its claim.
    pub fn fingerprint(&self) -> Digest {
        sha256(self.certificate.as_ref())
    }

    /// Certifies the key of a device's request. Only the key is taken from it: name, usage and
    /// times are ours.
    ///
    /// # Errors
    ///
    /// [`CaError::Request`] when its key cannot be certified.
    pub fn certify_device(
        &self,
        device: &DeviceId,
        request: &Request,
        days: u32,
    ) -> Result<Certified, CaError> {
        let mut params = CertificateParams::new(Vec::new()).map_err(CaError::Own)?;
        client(&mut params, device.as_str(), days)?;
        let certificate = params
            .signed_by(&request.0.public_key, &self.issuer)
            .map_err(CaError::Request)?;
        let expires = params.not_after.unix_timestamp();
        Ok(Certified {
            pem: certificate.pem(),
            serial: serial_number(certificate.der()).ok_or(CaError::Pem)?,
            expires_at: UnixSecs(u64::try_from(expires).unwrap_or(0)),
        })
    }

    /// A client certificate with a new key: the server's own, or one for the probe.
    ///
    /// # Errors
    ///
    /// [`CaError`] when no key can be made.
    pub fn client(&self, common_name: &str) -> Result<Identity, CaError> {
        let mut params = CertificateParams::new(Vec::new()).map_err(CaError::Own)?;
        client(&mut params, common_name, SERVER_DAYS)?;
        self.identity(&params)
    }

    /// A server certificate with a new key for these names and addresses.
    ///
    /// # Errors
    ///
    /// [`CaError`] when a name cannot stand in a certificate.
    pub fn server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Identity, CaError> {
        let mut params = CertificateParams::new(names.to_vec()).map_err(CaError::Own)?;
        let addresses = addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        params.distinguished_name = named("Bellwether fleet server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial()?);
        valid_for(&mut params, SERVER_DAYS);
        self.identity(&params)
    }

    fn identity(&self, params: &CertificateParams) -> Result<Identity, CaError> {
        let key = KeyPair::generate().map_err(CaError::Own)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Own)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        })
    }
}

/// The common name of a certificate that was checked already; `None` if it has not exactly one.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate.as_ref()).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

/// The serial number of a certificate in lower-case hexadecimal, without leading zeros: as the
/// embedded broker tells it.
pub fn serial_number(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate.as_ref()).ok()?;
    Some(parsed.serial.to_str_radix(16))
}

fn client(params: &mut CertificateParams, name: &str, days: u32) -> Result<(), CaError> {
    params.distinguished_name = named(name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(serial()?);
    valid_for(params, days);
    Ok(())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn valid_for(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 24 * 3600)).into();
}

fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(CaError::Random)?;
    // RFC 5280, 4.1.2.2: a positive number.
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

//! Key files: Ed25519 private keys as encrypted PKCS#8 PEM, public keys as the ordinary
//! `PUBLIC KEY` PEM. Nothing here knows what a key may sign.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::pem;
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::spki::AlgorithmIdentifierRef;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, ObjectIdentifier, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use crate::failure::{Failure, Result, Who};
use crate::files::{self, Existing, Readers};
use crate::secret::Passphrase;

/// Ed25519 in PKCS#8 and in SubjectPublicKeyInfo (RFC 8410).
const ED25519_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 8410 wraps the 32-byte seed in an OCTET STRING of its own: tag 4, length 32.
const SEED_PREFIX: [u8; 2] = [0x04, 0x20];
/// RFC 8410: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING of 32 bytes }.
const PUBLIC_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// scrypt's cost for a key at rest: N = 2^17, r = 8, p = 1 is what OWASP's password storage sheet
/// recommends; it needs 128 MiB and about half a second for each guess.
const SCRYPT_LOG_N: u8 = 17;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;

/// A person's private key, in memory for as long as a command runs; wiped when dropped.
pub(crate) struct PrivateKey(SigningKey);

impl PrivateKey {
    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// When the operating system has none to give.
    pub(crate) fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random(seed.as_mut())?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Decrypts the key file at `path`.
    ///
    /// # Errors
    /// When it is no encrypted Ed25519 key, or the passphrase is wrong.
    pub(crate) fn read(path: &Path, passphrase: &Passphrase) -> Result<Self> {
        let text = Zeroizing::new(files::read_text(path)?);
        if files::readable_by_others(path) {
            crate::output::remark(format!(
                "note: {} can be read by others; `chmod 600` it",
                path.display()
            ));
        }
        let not_a_key = |cause: pkcs8::Error| {
            Failure::operator(format!(
                "{} is not an encrypted Ed25519 key",
                path.display()
            ))
            .next("make one with `bellwether key new --out NAME.key`")
            .because(cause.to_string())
        };
        let (label, document) = pkcs8::SecretDocument::from_pem(&text)
            .map_err(|error| not_a_key(pkcs8::Error::Asn1(error)))?;
        if label != "ENCRYPTED PRIVATE KEY" {
            return Err(Failure::operator(format!(
                "{} holds `{label}`, not an encrypted private key",
                path.display()
            ))
            .next(
                "keys are encrypted at rest: make one with `bellwether key new --out NAME.key`",
            ));
        }
        let encrypted =
            EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(not_a_key)?;
        let plain = encrypted.decrypt(passphrase.as_bytes()).map_err(|_| {
            Failure::operator(format!("the passphrase does not open {}", path.display()))
                .next("type it again; a forgotten passphrase can't be recovered: make a new key and have the trust root rotated")
        })?;
        let info = PrivateKeyInfoRef::try_from(plain.as_bytes()).map_err(not_a_key)?;
        let seed = info.private_key.as_bytes();
        let seed = match seed.strip_prefix(&SEED_PREFIX) {
            Some(seed) if info.algorithm.oid == ED25519_OID => seed,
            _ => {
                return Err(not_a_key(pkcs8::Error::KeyMalformed(
                    pkcs8::KeyError::Invalid,
                )));
            }
        };
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.try_into().map_err(|_| {
            Failure::operator(format!("{} is not an Ed25519 key", path.display()))
                .next("make one with `bellwether key new --out NAME.key`")
        })?);
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Writes the key, encrypted, to `path` (0600) and its public half beside it; neither file
    /// may exist.
    ///
    /// # Errors
    /// When one of the files exists, or the disk refuses.
    pub(crate) fn write(&self, path: &Path, passphrase: &Passphrase) -> Result<PathBuf> {
        let public_path = public_path(path)?;
        files::refuse_existing(path)?;
        files::refuse_existing(&public_path)?;
        let encrypted = self.encrypt(passphrase).map_err(|error| {
            Failure::new(Who::Bellwether, "can't encrypt the new key").because(error.to_string())
        })?;
        files::write(path, encrypted.as_bytes(), Existing::Keep, Readers::Owner)?;
        let public = public_pem(&self.public_bytes())?;
        let written = files::write(
            &public_path,
            public.as_bytes(),
            Existing::Keep,
            Readers::Everybody,
        );
        if written.is_err() {
            // A private key whose public half is missing looks finished, and isn't.
            let _ = std::fs::remove_file(path);
        }
        written.map(|()| public_path)
    }

    /// The signing key itself.
    pub(crate) fn signing(&self) -> &SigningKey {
        &self.0
    }

    /// The public half.
    pub(crate) fn public_bytes(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn encrypt(&self, passphrase: &Passphrase) -> pkcs8::Result<Zeroizing<String>> {
        let mut wrapped = Zeroizing::new([0; 34]);
        wrapped[..2].copy_from_slice(&SEED_PREFIX);
        wrapped[2..].copy_from_slice(self.0.as_bytes());
        let algorithm = AlgorithmIdentifierRef {
            oid: ED25519_OID,
            parameters: None,
        };
        let info = PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(wrapped.as_ref())?);
        let params = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P)
            .map_err(|_| pkcs8::Error::ParametersMalformed)?;
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        let random = |bytes: &mut [u8]| {
            getrandom::fill(bytes).map_err(|_| pkcs8::Error::ParametersMalformed)
        };
        random(&mut salt)?;
        random(&mut iv)?;
        let params = pbes2::Parameters::generate_scrypt_aes256cbc(params, &salt, iv)?;
        let document = info.encrypt_with_params(params, passphrase.as_bytes())?;
        Ok(document.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF)?)
    }
}

/// A public key given as a `.pub` file (PEM), or as 64 hexadecimal digits.
///
/// # Errors
/// When it is neither.
pub(crate) fn read_public(given: &str) -> Result<[u8; 32]> {
    if let Some(bytes) = from_hex(given) {
        return Ok(bytes);
    }
    let path = Path::new(given);
    let text = files::read_text(path)?;
    if let Some(bytes) = from_hex(text.trim()) {
        return Ok(bytes);
    }
    public_from_pem(&text).ok_or_else(|| {
        Failure::operator(format!("{given} holds no Ed25519 public key"))
            .next("give a .pub file that `bellwether key new` wrote, or 64 hexadecimal digits")
    })
}

/// Where the public half of the key at `path` is written: the same name, ending in `.pub`.
///
/// # Errors
/// When that is `path` itself.
pub(crate) fn public_path(path: &Path) -> Result<PathBuf> {
    let public = path.with_extension("pub");
    if public == path {
        return Err(Failure::operator("a private key can't be named .pub")
            .next("name it after its owner, such as alice.key"));
    }
    Ok(public)
}

fn public_pem(key: &[u8; 32]) -> Result<String> {
    let der = [&PUBLIC_PREFIX[..], &key[..]].concat();
    pem::encode_string(PUBLIC_LABEL, LineEnding::LF, &der).map_err(|error| {
        Failure::new(Who::Bellwether, "can't encode the public key").because(error.to_string())
    })
}

fn public_from_pem(text: &str) -> Option<[u8; 32]> {
    let (label, der) = pem::decode_vec(text.as_bytes()).ok()?;
    if label != PUBLIC_LABEL {
        return None;
    }
    der.strip_prefix(&PUBLIC_PREFIX)?.try_into().ok()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| (digit as char).to_digit(16);
        *byte = u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?;
    }
    Some(bytes)
}

fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Failure::new(Who::Machine, "the operating system gave no random numbers").because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_written_is_the_key_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alice.key");
        let passphrase = Passphrase::from_text("correct horse battery");
        let key = PrivateKey::generate().unwrap();
        let public = key.write(&path, &passphrase).unwrap();
        let again = PrivateKey::read(&path, &passphrase).unwrap();
        assert_eq!(again.public_bytes(), key.public_bytes());
        assert_eq!(
            read_public(public.to_str().unwrap()).unwrap(),
            key.public_bytes()
        );
        let wrong = PrivateKey::read(&path, &Passphrase::from_text("wrong horse"));
        assert!(
            wrong
                .err()
                .unwrap()
                .to_string()
                .contains("passphrase does not open")
        );
        assert!(key.write(&path, &passphrase).is_err());
    }

    #[test]
    fn a_public_key_may_be_hexadecimal() {
        let hex = "00ff".repeat(16);
        assert_eq!(read_public(&hex).unwrap()[..2], [0x00, 0xff]);
    }

    #[test]
    fn an_unencrypted_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain.key");
        // From `openssl genpkey -algorithm ed25519`.
        std::fs::write(
            &path,
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGUnCikgyPfyEV1T/fQDvLjkHf7ZT+b7zTpd9JkC8H8W\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        let refused = PrivateKey::read(&path, &Passphrase::from_text("x"))
            .err()
            .unwrap();
        assert!(
            refused.to_string().contains("not an encrypted private key"),
            "{refused:?}"
        );
    }
}

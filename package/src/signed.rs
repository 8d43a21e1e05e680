//! The envelope of a signed document: the exact payload bytes and the signatures over them.
//!
//! Layout: `u32le length of payload | payload | u8 count | count × (32 bytes key | 64 bytes
//! signature)`. Decoding borrows; nothing is re-encoded before it is checked.

use crate::ids::{PublicKey, Signature};
use crate::sign;

/// Most signatures on one document: the persons of a trust root, each twice (old and new key).
pub const SIGNATURES_MAX: usize = 32;

const SIGNATURE_ENTRY_BYTES: usize = 32 + 64;

/// Bytes that an envelope with `signatures` signatures adds to its payload.
pub const fn overhead_bytes(signatures: usize) -> usize {
    4 + 1 + signatures * SIGNATURE_ENTRY_BYTES
}

/// What kind of document a signature is for. A signature for one never passes for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DocumentType {
    /// A version of the trust root.
    TrustRoot,
    /// An approval or rejection of a package.
    Approval,
    /// A list of revoked packages.
    Revocations,
    /// The desired state of one device.
    Assignment,
}

impl DocumentType {
    /// The name that is signed. Changing one breaks every device in the field.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrustRoot => "bellwether/trust-root",
            Self::Approval => "bellwether/approval",
            Self::Revocations => "bellwether/revocations",
            Self::Assignment => "bellwether/assignment",
        }
    }
}

/// Why bytes are not an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// The bytes end before the envelope does.
    #[error("the signed document is cut off")]
    Truncated,
    /// The payload is longer than its bound.
    #[error("the signed document is longer than {bytes_max} bytes")]
    TooLong {
        /// The bound, in bytes.
        bytes_max: usize,
    },
    /// More signatures than anybody needs.
    #[error("the document has more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// Bytes are left after the last signature.
    #[error("bytes follow the document's last signature")]
    TrailingBytes,
}

/// A payload with signatures that were *not* checked yet. Borrows the bytes that were received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    payload: &'a [u8],
    signatures: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Takes an envelope of exactly `bytes` apart.
    ///
    /// # Errors
    ///
    /// [`SignedError`]; never panics, whatever the bytes.
    pub fn decode(bytes: &'a [u8], payload_bytes_max: usize) -> Result<Self, SignedError> {
        let (length, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or(SignedError::Truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > payload_bytes_max {
            return Err(SignedError::TooLong {
                bytes_max: payload_bytes_max,
            });
        }
        let (payload, rest) = rest
            .split_at_checked(length)
            .ok_or(SignedError::Truncated)?;
        let (count, signatures) = rest.split_first().ok_or(SignedError::Truncated)?;
        let count = usize::from(*count);
        if count > SIGNATURES_MAX {
            return Err(SignedError::TooManySignatures);
        }
        match signatures.len().cmp(&(count * SIGNATURE_ENTRY_BYTES)) {
            core::cmp::Ordering::Less => Err(SignedError::Truncated),
            core::cmp::Ordering::Greater => Err(SignedError::TrailingBytes),
            core::cmp::Ordering::Equal => Ok(Self {
                payload,
                signatures,
            }),
        }
    }

    /// The payload, as received. What it says is not proved by holding it.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// All signatures, checked or not.
    pub fn signatures(&self) -> impl Iterator<Item = (PublicKey, Signature)> + 'a {
        self.signatures
            .chunks_exact(SIGNATURE_ENTRY_BYTES)
            .map(|entry| {
                let (mut key, mut signature) = ([0; 32], [0; 64]);
                key.copy_from_slice(&entry[..32]);
                signature.copy_from_slice(&entry[32..]);
                (PublicKey(key), Signature(signature))
            })
    }

    /// The keys whose signatures over this payload, as a document of `kind`, are valid. A key may
    /// come more than once.
    pub fn valid_keys(&self, kind: DocumentType) -> impl Iterator<Item = PublicKey> + 'a {
        let message = sign::message(kind, self.payload);
        self.signatures().filter_map(move |(key, signature)| {
            sign::verify(&key, &message, &signature).then_some(key)
        })
    }

    /// The first of `keys` that signed this payload as a document of `kind`.
    ///
    /// Only signatures of these keys are checked, so a stranger's signatures cost nothing.
    pub fn signer_among(&self, kind: DocumentType, keys: &[PublicKey]) -> Option<PublicKey> {
        let message = sign::message(kind, self.payload);
        self.signatures()
            .filter(|(key, _)| keys.contains(key))
            .find(|(key, signature)| sign::verify(key, &message, signature))
            .map(|(key, _)| key)
    }
}

#[cfg(feature = "alloc")]
pub use owned::SignedBuf;

#[cfg(feature = "alloc")]
mod owned {
    use alloc::vec::Vec;

    use ed25519_dalek::SigningKey;

    use super::{DocumentType, SIGNATURES_MAX, Signed, SignedError};
    use crate::ids::{PublicKey, Signature};
    use crate::sign;

    /// A payload with signatures, for those who make and collect them.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SignedBuf {
        payload: Vec<u8>,
        signatures: Vec<(PublicKey, Signature)>,
    }

    impl SignedBuf {
        /// A payload that nobody signed yet.
        pub fn unsigned(payload: Vec<u8>) -> Self {
            Self {
                payload,
                signatures: Vec::new(),
            }
        }

        /// A payload signed with these keys.
        pub fn sign(kind: DocumentType, payload: Vec<u8>, keys: &[&SigningKey]) -> Self {
            let mut signed = Self::unsigned(payload);
            keys.iter().for_each(|key| signed.add_signature(kind, key));
            signed
        }

        /// Signs with one more key; a second signature of the same key replaces the first.
        pub fn add_signature(&mut self, kind: DocumentType, key: &SigningKey) {
            let public_key = sign::public_key(key);
            self.signatures
                .retain(|(earlier, _)| *earlier != public_key);
            self.signatures
                .push((public_key, sign::sign(key, kind, &self.payload)));
        }

        /// A copy of what was received.
        pub fn from_signed(signed: Signed<'_>) -> Self {
            Self {
                payload: signed.payload().to_vec(),
                signatures: signed.signatures().collect(),
            }
        }

        /// The payload.
        pub fn payload(&self) -> &[u8] {
            &self.payload
        }

        /// The signatures.
        pub fn signatures(&self) -> &[(PublicKey, Signature)] {
            &self.signatures
        }

        /// The bytes of the envelope.
        ///
        /// # Errors
        ///
        /// [`SignedError::TooManySignatures`].
        pub fn encode(&self) -> Result<Vec<u8>, SignedError> {
            if self.signatures.len() > SIGNATURES_MAX {
                return Err(SignedError::TooManySignatures);
            }
            let length = u32::try_from(self.payload.len()).map_err(|_| SignedError::TooLong {
                bytes_max: u32::MAX as usize,
            })?;
            let mut bytes = Vec::with_capacity(
                self.payload.len() + super::overhead_bytes(self.signatures.len()),
            );
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&self.payload);
            bytes.push(self.signatures.len() as u8);
            for (key, signature) in &self.signatures {
                bytes.extend_from_slice(&key.0);
                bytes.extend_from_slice(&signature.0);
            }
            Ok(bytes)
        }
    }
}

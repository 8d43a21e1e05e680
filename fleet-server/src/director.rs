//! The director: the online key that signs assignments. Stolen, it can order only what approvers
//! approved: devices check that for themselves.

use bellwether_package::{DocumentType, PublicKey, SignedBuf, sign};
use bellwether_protocol::{Assignment, MessageError, to_vec};
use ed25519_dalek::SigningKey;

/// The director's key.
pub struct Director {
    key: SigningKey,
}

impl Director {
    /// A new key, and its seed in hexadecimal, to be kept in a private file.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn generate() -> Result<(Self, String), getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let text = bellwether_package::Digest(seed).to_string();
        Ok((
            Self {
                key: SigningKey::from_bytes(&seed),
            },
            text,
        ))
    }

    /// The key of a seed of 64 hexadecimal digits.
    pub fn open(seed: &str) -> Option<Self> {
        let seed: bellwether_package::Digest = seed.parse().ok()?;
        Some(Self {
            key: SigningKey::from_bytes(&seed.0),
        })
    }

    /// Its public key, which a trust root must name.
    pub fn public_key(&self) -> PublicKey {
        sign::public_key(&self.key)
    }

    /// Signs an assignment: the bytes to publish.
    ///
    /// # Errors
    ///
    /// [`MessageError`] when it is longer than an assignment may be.
    pub fn sign(&self, assignment: &Assignment) -> Result<Vec<u8>, MessageError> {
        let payload = to_vec(assignment)?;
        let signed = SignedBuf::sign(DocumentType::Assignment, payload, &[&self.key]);
        Ok(signed
            .encode()
            .expect("one signature is within the envelope's bound"))
    }
}

impl std::fmt::Debug for Director {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Director({})", self.public_key())
    }
}

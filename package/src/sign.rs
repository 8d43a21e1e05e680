//! The message that Ed25519 covers, and the one place where signatures are made and checked.
//!
//! A signature covers `"BWSIG1" || u8 length of type || type || u64le length of payload ||
//! SHA-256(payload)`. The type keeps a signature for one kind of document from passing for another
//! (as DSSE's pre-authentication encoding does); the digest keeps the message short, so that no
//! large payload has to be held in memory.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::digest::sha256;
use crate::ids::{PublicKey, Signature};
use crate::signed::DocumentType;

/// Longest signed message: prefix, type of at most 24 bytes, length, digest.
pub const MESSAGE_BYTES_MAX: usize = 6 + 1 + 24 + 8 + 32;

/// The message for a payload of this type.
pub fn message(kind: DocumentType, payload: &[u8]) -> heapless::Vec<u8, MESSAGE_BYTES_MAX> {
    let name = kind.as_str().as_bytes();
    let mut message = heapless::Vec::new();
    let parts: [&[u8]; 5] = [
        b"BWSIG1",
        &[name.len() as u8],
        name,
        &(payload.len() as u64).to_le_bytes(),
        &sha256(payload).0,
    ];
    for part in parts {
        message
            .extend_from_slice(part)
            .expect("types are at most 24 bytes long");
    }
    message
}

/// Whether `signature` over exactly `message` was made with the key of `public_key`.
///
/// Every signature in Bellwether is checked by this function. It follows RFC 8032 with the strict
/// rules: canonical encodings, no key or commitment of small order, no cofactor.
pub fn verify(public_key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    VerifyingKey::from_bytes(&public_key.0).is_ok_and(|key| {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(message, &signature).is_ok()
    })
}

/// Whether the key is a point on the curve that can stand for one person: not of small order.
pub fn is_usable(public_key: &PublicKey) -> bool {
    VerifyingKey::from_bytes(&public_key.0).is_ok_and(|key| !key.is_weak())
}

/// Signs a payload of this type.
pub fn sign(key: &SigningKey, kind: DocumentType, payload: &[u8]) -> Signature {
    Signature(key.sign(&message(kind, payload)).to_bytes())
}

/// The public key that belongs to a signing key.
pub fn public_key(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

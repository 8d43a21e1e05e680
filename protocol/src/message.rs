//! Version byte, bounds, encoding and decoding of every message.
//!
//! A message is one version byte, then postcard. Enums on the wire are append-only: their variants
//! are numbered by their place, and devices in the field keep the old numbers.

use serde::Serialize;
use serde::de::DeserializeOwned;

use bellwether_package::document::{self, DocumentError};

/// Something that crosses the wire as a message of its own.
pub trait Message: Serialize + DeserializeOwned {
    /// Format version, the first byte.
    const VERSION: u8;
    /// Longest encoding in bytes, version byte included.
    const BYTES_MAX: usize;
    /// What people call it.
    const NAME: &'static str;
}

/// Why bytes are not the message, or the message has no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad {message}")]
pub struct MessageError {
    /// [`Message::NAME`].
    pub message: &'static str,
    /// What is wrong with it.
    #[source]
    pub cause: DocumentError,
}

/// Decodes a message from exactly `bytes`.
///
/// # Errors
///
/// [`MessageError`]: too long, of another version, damaged, out of bounds, or followed by more
/// bytes. Never panics, whatever the bytes.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, MessageError> {
    let decoded = if bytes.len() > M::BYTES_MAX {
        Err(DocumentError::TooLong {
            bytes_max: M::BYTES_MAX,
        })
    } else {
        document::decode(M::VERSION, bytes)
    };
    decoded.map_err(|cause| MessageError {
        message: M::NAME,
        cause,
    })
}

/// Encodes a message into `buffer` and returns the part that was written.
///
/// # Errors
///
/// [`MessageError`] when it is longer than the buffer or its bound.
pub fn encode<'a, M: Message>(message: &M, buffer: &'a mut [u8]) -> Result<&'a [u8], MessageError> {
    let bytes = buffer.len().min(M::BYTES_MAX);
    document::encode(M::VERSION, message, &mut buffer[..bytes]).map_err(|cause| MessageError {
        message: M::NAME,
        cause,
    })
}

/// Encodes a message.
///
/// # Errors
///
/// [`MessageError`] when it is longer than its bound.
#[cfg(feature = "alloc")]
pub fn to_vec<M: Message>(message: &M) -> Result<alloc::vec::Vec<u8>, MessageError> {
    document::to_vec(M::VERSION, message, M::BYTES_MAX).map_err(|cause| MessageError {
        message: M::NAME,
        cause,
    })
}

//! How every signed payload and every small section is written: one version byte, then postcard.
//!
//! The version byte names the format, so that an old device says "made for newer software" and not
//! "damaged". Fields are only ever appended together with a new version.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not the document that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// No bytes.
    #[error("the document is empty")]
    Empty,
    /// Longer than its bound.
    #[error("the document is longer than {bytes_max} bytes")]
    TooLong {
        /// The bound, in bytes.
        bytes_max: usize,
    },
    /// Written by other software than this one understands.
    #[error("the document has format version {found}, this software reads {known}: update it")]
    Version {
        /// The version byte found.
        found: u8,
        /// The version that is understood.
        known: u8,
    },
    /// Not the fields that belong there, or one of them out of its bounds.
    #[error("the document's fields are damaged or out of bounds")]
    Malformed,
    /// Bytes are left after the last field.
    #[error("bytes follow the document's last field")]
    TrailingBytes,
    /// The fields are there, but what they say contradicts itself.
    #[error("the document contradicts itself: {0}")]
    Invalid(&'static str),
}

/// Decodes a document of format `version` from exactly `bytes`.
///
/// # Errors
///
/// [`DocumentError`]; never panics, whatever the bytes.
pub fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, DocumentError> {
    let (found, body) = bytes.split_first().ok_or(DocumentError::Empty)?;
    if *found != version {
        return Err(DocumentError::Version {
            found: *found,
            known: version,
        });
    }
    let (document, rest) = postcard::take_from_bytes(body).map_err(|_| DocumentError::Malformed)?;
    if rest.is_empty() {
        Ok(document)
    } else {
        Err(DocumentError::TrailingBytes)
    }
}

/// Encodes a document of format `version` into `buffer` and returns the part that was written.
///
/// # Errors
///
/// [`DocumentError::TooLong`] when it does not fit the buffer.
pub fn encode<'a, T: Serialize + ?Sized>(
    version: u8,
    document: &T,
    buffer: &'a mut [u8],
) -> Result<&'a [u8], DocumentError> {
    let bytes_max = buffer.len();
    let too_long = DocumentError::TooLong { bytes_max };
    let (first, body) = buffer.split_first_mut().ok_or(too_long)?;
    *first = version;
    let used = postcard::to_slice(document, body)
        .map_err(|_| too_long)?
        .len()
        + 1;
    Ok(&buffer[..used])
}

/// Encodes a document of format `version`.
///
/// # Errors
///
/// [`DocumentError::TooLong`] when it is longer than `bytes_max`.
#[cfg(feature = "alloc")]
pub fn to_vec<T: Serialize + ?Sized>(
    version: u8,
    document: &T,
    bytes_max: usize,
) -> Result<alloc::vec::Vec<u8>, DocumentError> {
    let bytes = postcard::to_extend(document, alloc::vec![version])
        .map_err(|_| DocumentError::Malformed)?;
    if bytes.len() > bytes_max {
        Err(DocumentError::TooLong { bytes_max })
    } else {
        Ok(bytes)
    }
}

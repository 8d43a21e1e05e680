//! How messages and tensors are framed.
//!
//! A frame is `u32le length | postcard header | raw tensor bytes`. The header tells each tensor's
//! name, type and shape; the bytes of all tensors follow in that order, little-endian and
//! row-major. One request is answered by one response. Neither side trusts the other's lengths:
//! every one is bounded before anything is allocated for it, and nothing here panics on any input.
//!
//! A frame above [`INLINE_BYTES_MAX`] lies in the [`Arena`] instead: only its length goes through
//! the socket, with the highest bit set.

use std::io;

use bellwether_package::sections::DType;
use serde::{Serialize, de::DeserializeOwned};

use crate::{arena::Arena, tensor::Tensor};

/// The longest frame: the largest batch of images or audio that a device would run at once.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest header: [`TENSORS_MAX`] descriptions with names of ordinary length.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Tensors in one frame at most; more than any contract has ports.
pub const TENSORS_MAX: usize = 64;
/// Dimensions of a tensor at most.
pub const RANK_MAX: usize = 8;
/// Frames above this go through the arena: from here on two copies there cost less than the socket's
/// own; an estimate, not swept.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
const LENGTH_BYTES: usize = 4;
/// Set in the length of a frame that lies in the arena; no frame is that long.
const IN_ARENA: u32 = 1 << 31;

/// One tensor of a frame, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct TensorHead {
    /// The port's name.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The dimensions, outermost first.
    pub shape: Vec<u32>,
}

/// Why bytes are not a frame. Whoever sent them is at fault: a worker that sends such is killed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than was allowed.
    #[error("a frame of {bytes} bytes where at most {bytes_max} are allowed")]
    TooLong {
        /// Announced.
        bytes: u64,
        /// Allowed.
        bytes_max: u64,
    },
    /// The header is not what was expected.
    #[error("the frame's header cannot be read")]
    Header,
    /// Too many tensors or dimensions, or a size that overflows.
    #[error("tensor {0} of the frame has an impossible shape")]
    Shape(usize),
    /// The tensors' sizes do not add up to what follows the header.
    #[error("{found} bytes of tensors where their shapes need {expected}")]
    BodyLength {
        /// Found.
        found: u64,
        /// Needed.
        expected: u64,
    },
    /// Bytes after the frame, though nothing was asked.
    #[error("bytes beyond the frame that was asked for")]
    Trailing,
    /// A frame of another kind than the question calls for.
    #[error("the answer does not fit the question")]
    Unexpected,
}

/// Collects one frame from bytes that arrive in pieces, or from the arena. Holds no more than has
/// arrived.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    bytes: Vec<u8>,
    /// A copy of what lay in the arena, and how much of it is this frame.
    copy: Vec<u8>,
    copied: Option<usize>,
}

impl FrameDecoder {
    /// Buffers above this are given back after use, so that one large batch does not stay.
    const KEEP_BYTES: usize = 8 * 1024 * 1024;

    /// Takes in the next bytes. `bytes_max` bounds the frame without its length.
    pub fn feed(&mut self, bytes: &[u8], bytes_max: usize) -> Result<(), FrameError> {
        let bytes_max = bytes_max.min(FRAME_BYTES_MAX);
        // The length itself is looked at before anything beyond it is kept.
        let split = LENGTH_BYTES
            .saturating_sub(self.bytes.len())
            .min(bytes.len());
        let (length, rest) = bytes.split_at(split);
        self.bytes.extend_from_slice(length);
        let Some(length) = self.length() else {
            return Ok(());
        };
        if length > bytes_max {
            return Err(FrameError::TooLong {
                bytes: length as u64,
                bytes_max: bytes_max as u64,
            });
        }
        let room = if self.is_in_arena() { 0 } else { length };
        if self.bytes.len() - LENGTH_BYTES + rest.len() > room {
            return Err(FrameError::Trailing);
        }
        self.bytes.extend_from_slice(rest);
        Ok(())
    }

    /// The frame without its length, once it is whole.
    pub fn frame(&self) -> Option<&[u8]> {
        let length = self.length()?;
        if self.is_in_arena() {
            return self.copied.and_then(|copied| self.copy.get(..copied));
        }
        self.bytes
            .get(LENGTH_BYTES..)
            .filter(|frame| frame.len() == length)
    }

    /// Copies the frame out of the arena, if it was announced to lie there. What the other side
    /// writes later does not reach the copy.
    pub fn fetch(&mut self, arena: &Arena) -> io::Result<()> {
        let Some(length) = self.length().filter(|_| self.is_in_arena()) else {
            return Ok(());
        };
        if self.copied.is_none() {
            // Kept at its greatest length: a buffer that is filled again need not be zeroed again.
            if self.copy.len() < length {
                self.copy.resize(length, 0);
            }
            arena.read(&mut self.copy[..length])?;
            self.copied = Some(length);
        }
        Ok(())
    }

    /// How many more bytes are needed before [`FrameDecoder::frame`] answers or the length is
    /// known; a reader that never reads beyond them never sees a following frame.
    pub fn missing(&self) -> usize {
        match self.length() {
            Some(_) if self.is_in_arena() => 0,
            Some(length) => length.saturating_sub(self.bytes.len() - LENGTH_BYTES),
            None => LENGTH_BYTES - self.bytes.len(),
        }
    }

    /// True if nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes ready for the next frame.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(Self::KEEP_BYTES);
        self.copied = None;
        if self.copy.len() > Self::KEEP_BYTES {
            self.copy = Vec::new();
        }
    }

    fn length(&self) -> Option<usize> {
        let length = self.bytes.first_chunk::<LENGTH_BYTES>()?;
        usize::try_from(u32::from_le_bytes(*length) & !IN_ARENA).ok()
    }

    fn is_in_arena(&self) -> bool {
        let length = self.bytes.first_chunk::<LENGTH_BYTES>();
        length.is_some_and(|length| u32::from_le_bytes(*length) & IN_ARENA != 0)
    }
}

/// Writes one frame into `out`, replacing what it held.
pub fn encode(
    header: &impl Serialize,
    tensors: &[Tensor],
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    out.clear();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    let head = postcard::to_stdvec(header).map_err(|_| FrameError::Header)?;
    if head.len() > HEADER_BYTES_MAX {
        return Err(FrameError::Header);
    }
    let length = tensors.iter().fold(head.len(), |sum, tensor| {
        sum.saturating_add(tensor.bytes.len())
    });
    let too_long = FrameError::TooLong {
        bytes: length as u64,
        bytes_max: FRAME_BYTES_MAX as u64,
    };
    if length > FRAME_BYTES_MAX {
        return Err(too_long);
    }
    let length = u32::try_from(length).map_err(|_| too_long)?;
    out[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&head);
    for tensor in tensors {
        out.extend_from_slice(&tensor.bytes);
    }
    Ok(())
}

/// What of an encoded frame goes through the socket: all of it, or its length alone, kept in
/// `length`, once the rest lies in the arena.
pub fn announce<'a>(
    frame: &'a [u8],
    arena: &Arena,
    length: &'a mut [u8; LENGTH_BYTES],
) -> io::Result<&'a [u8]> {
    let Some((own, rest)) = frame.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(frame);
    };
    if rest.len() <= INLINE_BYTES_MAX {
        return Ok(frame);
    }
    arena.write(rest)?;
    *length = (u32::from_le_bytes(*own) | IN_ARENA).to_le_bytes();
    Ok(length)
}

/// Splits a frame into its header and the bytes of its tensors.
pub fn decode<H: DeserializeOwned>(frame: &[u8]) -> Result<(H, &[u8]), FrameError> {
    let head = &frame[..frame.len().min(HEADER_BYTES_MAX)];
    let (header, rest) = postcard::take_from_bytes(head).map_err(|_| FrameError::Header)?;
    let used = head.len() - rest.len();
    Ok((header, &frame[used..]))
}

/// Joins descriptions and bytes; the sizes must agree exactly.
pub fn join(heads: Vec<TensorHead>, body: &[u8]) -> Result<Vec<Tensor>, FrameError> {
    let mut lengths = Vec::with_capacity(heads.len().min(TENSORS_MAX));
    let mut expected = 0_usize;
    for (i, head) in heads.iter().enumerate() {
        let length = byte_length(head).filter(|_| i < TENSORS_MAX);
        let length = length.ok_or(FrameError::Shape(i))?;
        expected = expected.checked_add(length).ok_or(FrameError::Shape(i))?;
        lengths.push(length);
    }
    if expected != body.len() {
        return Err(FrameError::BodyLength {
            found: body.len() as u64,
            expected: expected as u64,
        });
    }
    let mut rest = body;
    let tensors = heads.into_iter().zip(lengths).map(|(head, length)| {
        let (bytes, later) = rest.split_at(length);
        rest = later;
        Tensor {
            name: head.name,
            dtype: head.dtype,
            shape: head.shape,
            bytes: bytes.to_vec(),
        }
    });
    Ok(tensors.collect())
}

/// The descriptions of tensors.
pub fn heads(tensors: &[Tensor]) -> Vec<TensorHead> {
    let head = |tensor: &Tensor| TensorHead {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
    };
    tensors.iter().map(head).collect()
}

fn byte_length(head: &TensorHead) -> Option<usize> {
    if head.shape.len() > RANK_MAX {
        return None;
    }
    crate::tensor::byte_length(head.dtype, &head.shape)
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;

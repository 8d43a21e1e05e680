//! A string of bits, most significant first.

use core::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of one window's counts at most, without a heap: both directions' fields, each of 16 bins
/// of 4 bytes with moments.
#[cfg(not(feature = "alloc"))]
const BYTES_MAX: usize = 2 * super::super::FIELDS_MAX * 128;
#[cfg(feature = "alloc")]
type Bytes = alloc::vec::Vec<u8>;
#[cfg(not(feature = "alloc"))]
type Bytes = heapless::Vec<u8, BYTES_MAX>;

/// The bits end too soon, or too late, or hold what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut;

/// Bits that are written.
#[derive(Default)]
pub(super) struct Bits {
    bytes: Bytes,
    /// Bits of the last byte that are free.
    free: u8,
}

impl Bits {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn flag(&mut self, flag: bool) -> Result<(), Cut> {
        if self.free == 0 {
            self.grow()?;
            self.free = 8;
        }
        self.free -= 1;
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(flag) << self.free;
        }
        Ok(())
    }

    /// The lowest `count` bits of `value`.
    pub(super) fn put(&mut self, value: u64, count: u8) -> Result<(), Cut> {
        (0..count)
            .rev()
            .try_for_each(|bit| self.flag(value >> bit & 1 == 1))
    }

    pub(super) fn number(&mut self, value: u64) -> Result<(), Cut> {
        let length = (u64::BITS - value.leading_zeros()) as u8;
        self.put(u64::from(length), 7)?;
        self.put(value, length.saturating_sub(1))
    }

    #[cfg(feature = "alloc")]
    fn grow(&mut self) -> Result<(), Cut> {
        self.bytes.push(0);
        Ok(())
    }

    #[cfg(not(feature = "alloc"))]
    fn grow(&mut self) -> Result<(), Cut> {
        self.bytes.push(0).map_err(|_| Cut)
    }
}

/// Bits that are read.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Bits read.
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn flag(&mut self) -> Result<bool, Cut> {
        let byte = self.bytes.get(self.at / 8).ok_or(Cut)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    pub(super) fn take(&mut self, count: u8) -> Result<u64, Cut> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u64::from(self.flag()?);
        }
        Ok(value)
    }

    pub(super) fn number(&mut self) -> Result<u64, Cut> {
        match self.take(7)? as u8 {
            0 => Ok(0),
            length @ 1..=64 => Ok(self.take(length - 1)? | 1 << (length - 1)),
            _ => Err(Cut),
        }
    }

    /// How many ones come before the next zero. The bytes bound it.
    pub(super) fn unary(&mut self) -> Result<u32, Cut> {
        let mut ones = 0;
        while self.flag()? {
            ones += 1;
        }
        Ok(ones)
    }

    /// Nothing but the rest of the last byte may be left, and it is zero.
    pub(super) fn end(mut self) -> Result<(), Cut> {
        if self.bytes.len() * 8 - self.at >= 8 {
            return Err(Cut);
        }
        while self.at < self.bytes.len() * 8 {
            if self.flag()? {
                return Err(Cut);
            }
        }
        Ok(())
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Bits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of bits")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bits, E> {
                Ok(Bits {
                    bytes: copied(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))?,
                    free: 0,
                })
            }
        }

        deserializer.deserialize_bytes(Text)
    }
}

#[cfg(feature = "alloc")]
fn copied(bytes: &[u8]) -> Option<Bytes> {
    Some(bytes.to_vec())
}

#[cfg(not(feature = "alloc"))]
fn copied(bytes: &[u8]) -> Option<Bytes> {
    Bytes::from_slice(bytes).ok()
}

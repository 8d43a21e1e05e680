//! The wire format of protocol buffers.
//! <https://protobuf.dev/programming-guides/encoding/>

use bellwether_wire::Refusal;

use super::malformed;

/// A place in the bytes.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A field's value, in one of the wire's forms.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Number(u64),
    Four,
    Eight,
    Bytes(&'a [u8]),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Stands again before the last `count` bytes, to walk through them.
    pub(super) fn back(&mut self, count: usize) {
        self.at -= count;
    }

    /// The next field of a message that ends at `end`: its number and its value.
    pub(super) fn field(&mut self, end: usize) -> Result<(u32, Value<'a>), Refusal> {
        let key = self.varint(end)?;
        let tag = u32::try_from(key >> 3).ok().filter(|tag| *tag != 0);
        let tag = tag.ok_or_else(|| self.broken("a field without a number"))?;
        let value = match key & 7 {
            0 => Value::Number(self.varint(end)?),
            1 => {
                self.take(8, end)?;
                Value::Eight
            }
            2 => {
                let length = self.varint(end)?;
                Value::Bytes(self.take(length, end)?)
            }
            5 => {
                self.take(4, end)?;
                Value::Four
            }
            _ => return Err(self.broken("a form of field that ONNX does not use")),
        };
        Ok((tag, value))
    }

    fn varint(&mut self, end: usize) -> Result<u64, Refusal> {
        let bytes = self.bytes.get(self.at..end).unwrap_or_default();
        let (value, length) =
            varint(bytes).ok_or_else(|| self.broken("a number that does not end"))?;
        self.at += length;
        Ok(value)
    }

    fn take(&mut self, length: u64, end: usize) -> Result<&'a [u8], Refusal> {
        let until = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|until| *until <= end);
        let taken = until.and_then(|until| self.bytes.get(self.at..until));
        let Some(taken) = taken else {
            let left = end.saturating_sub(self.at);
            return Err(self.broken(&format!("{length} bytes announced where {left} are left")));
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn broken(&self, message: &str) -> Refusal {
        malformed(&format!("{message}, at byte {}", self.at))
    }
}

/// The number at the start of `bytes` and its length; at most ten bytes, as 64 bits need.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the last bit alone.
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

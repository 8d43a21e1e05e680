//! What a tensor says of itself, against the bytes that are there.

use bellwether_wire::{RANK_MAX, Refusal, bounded_message};

use super::{
    cursor::{Value, varint},
    malformed,
};

/// Elements of a tensor or a value at most: with one byte each, already more than a device holds.
pub(super) const ELEMENTS_MAX: u64 = 1 << 32;

/// Dimensions, multiplied as they are read.
#[derive(Clone, Copy)]
pub(super) struct Elements {
    pub(super) rank: usize,
    /// Of all dimensions that are not zero: an empty tensor is no licence for the others.
    pub(super) product: Option<u64>,
    empty: bool,
}

impl Default for Elements {
    fn default() -> Self {
        Self {
            rank: 0,
            product: Some(1),
            empty: false,
        }
    }
}

impl Elements {
    pub(super) fn take(&mut self, size: u64) {
        self.rank = self.rank.saturating_add(1);
        self.empty |= size == 0;
        self.product = self.product.and_then(|p| p.checked_mul(size.max(1)));
    }

    fn count(&self) -> Option<u64> {
        let product = self.product.filter(|product| *product <= ELEMENTS_MAX)?;
        Some(if self.empty { 0 } else { product })
    }
}

/// One tensor, as far as it was read.
#[derive(Default)]
pub(super) struct TensorFacts<'a> {
    pub(super) name: &'a [u8],
    pub(super) strings: u64,
    elements: Elements,
    negative: bool,
    data_type: u64,
    external: bool,
    raw: u64,
    floats: u64,
    int32s: u64,
    int64s: u64,
    doubles: u64,
    uint64s: u64,
}

/// Where elements that are not raw bytes stand.
enum Store {
    Floats,
    Int32s,
    Int64s,
    Doubles,
    /// The standard's place, and the engine's.
    Uint64sOr32s,
    Uint64sOr64s,
    Strings,
}

impl TensorFacts<'_> {
    /// Takes in one field; `false` if it breaks off in the middle of a dimension.
    pub(super) fn take(&mut self, tag: u32, value: Value<'_>) -> bool {
        match (tag, value) {
            (1, Value::Number(size)) => self.dimension(size),
            (1, Value::Bytes(sizes)) => return self.dimensions(sizes),
            (2, Value::Number(data_type)) => self.data_type = data_type,
            (4, Value::Bytes(bytes)) => self.floats += bytes.len() as u64 / 4,
            (4, Value::Four) => self.floats += 1,
            (5, value) => self.int32s += numbers(value),
            (7, value) => self.int64s += numbers(value),
            (9, Value::Bytes(bytes)) => self.raw = bytes.len() as u64,
            (10, Value::Bytes(bytes)) => self.doubles += bytes.len() as u64 / 8,
            (10, Value::Eight) => self.doubles += 1,
            (11, value) => self.uint64s += numbers(value),
            (14, Value::Number(location)) => self.external |= location == 1,
            _ => {}
        }
        true
    }

    fn dimensions(&mut self, mut sizes: &[u8]) -> bool {
        while !sizes.is_empty() {
            let Some((size, length)) = varint(sizes) else {
                return false;
            };
            self.dimension(size);
            sizes = &sizes[length..];
        }
        true
    }

    fn dimension(&mut self, size: u64) {
        self.negative |= size.cast_signed() < 0;
        self.elements.take(size);
    }

    /// Type, dimensions and data must agree; the engine would believe them.
    pub(super) fn check(&self, place: &str) -> Result<(), Refusal> {
        if self.external {
            return Err(Refusal::ExternalData {
                tensor: bounded_message(&String::from_utf8_lossy(self.name)),
            });
        }
        if self.elements.rank > RANK_MAX {
            return Err(Refusal::Excess {
                place: place.to_owned(),
                what: "dimensions".to_owned(),
                found: self.elements.rank as u64,
                most: RANK_MAX as u64,
            });
        }
        if self.negative {
            return Err(malformed(&format!("{place} has a dimension below zero")));
        }
        let Some(elements) = self.elements.count() else {
            return Err(Refusal::Excess {
                place: place.to_owned(),
                what: "elements".to_owned(),
                found: self.elements.product.unwrap_or(u64::MAX),
                most: ELEMENTS_MAX,
            });
        };
        let (bytes, store) = self.layout(place)?;
        self.check_data(elements, bytes, &store, place)
    }

    /// Bytes of an element, and the place of elements that are not raw.
    fn layout(&self, place: &str) -> Result<(u64, Store), Refusal> {
        // TensorProto.DataType
        Ok(match self.data_type {
            1 => (4, Store::Floats),
            2 | 3 | 9 => (1, Store::Int32s),
            4 | 5 | 10 => (2, Store::Int32s),
            6 => (4, Store::Int32s),
            7 => (8, Store::Int64s),
            8 => (0, Store::Strings),
            11 => (8, Store::Doubles),
            12 => (4, Store::Uint64sOr32s),
            13 => (8, Store::Uint64sOr64s),
            0 => return Err(malformed(&format!("{place} has no element type"))),
            other => {
                return Err(Refusal::Unsupported {
                    node: None,
                    operator: None,
                    stage: "read".to_owned(),
                    message: bounded_message(&format!(
                        "{place} has element type {}, which the engine does not hold; \
                         export it as float32 or as whole numbers",
                        type_name(other)
                    )),
                });
            }
        })
    }

    fn check_data(
        &self,
        elements: u64,
        bytes: u64,
        store: &Store,
        place: &str,
    ) -> Result<(), Refusal> {
        let stores = [
            self.floats,
            self.int32s,
            self.int64s,
            self.doubles,
            self.uint64s,
            self.strings,
        ];
        let used = stores.iter().filter(|count| **count > 0).count();
        if used + usize::from(self.raw > 0) > 1 {
            return Err(malformed(&format!("{place} keeps its data in two places")));
        }
        if self.raw > 0 {
            if matches!(store, Store::Strings) {
                return Err(malformed(&format!("{place} keeps text as raw bytes")));
            }
            // At most 2^32 elements of at most 8 bytes: no overflow.
            return agree(place, "bytes", elements * bytes, self.raw);
        }
        let found = match store {
            Store::Floats => self.floats,
            Store::Int32s => self.int32s,
            Store::Int64s => self.int64s,
            Store::Doubles => self.doubles,
            Store::Uint64sOr32s => self.uint64s.max(self.int32s),
            Store::Uint64sOr64s => self.uint64s.max(self.int64s),
            Store::Strings => self.strings,
        };
        agree(place, "elements", elements, found)
    }
}

fn agree(place: &str, what: &str, expected: u64, found: u64) -> Result<(), Refusal> {
    if expected == found {
        return Ok(());
    }
    Err(malformed(&format!(
        "{place} holds {found} {what} where its shape needs {expected}"
    )))
}

/// How many numbers: one, or as many as packed bytes end.
fn numbers(value: Value<'_>) -> u64 {
    match value {
        Value::Number(_) => 1,
        Value::Bytes(bytes) => bytes.iter().filter(|byte| **byte & 0x80 == 0).count() as u64,
        Value::Four | Value::Eight => 0,
    }
}

fn type_name(data_type: u64) -> String {
    let name = match data_type {
        14 => "complex64",
        15 => "complex128",
        16 => "bfloat16",
        17..=20 => "float8",
        21 => "uint4",
        22 => "int4",
        23 => "float4",
        other => return format!("number {other}"),
    };
    name.to_owned()
}

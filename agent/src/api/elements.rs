//! The elements of a request's tensors, as JSON numbers or as they are, and their datatypes' names.

use std::fmt;

use bellwether_package::sections::DType;
use bellwether_runtime::Tensor;
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::request::RequestError;

/// The protocol's name of a type.
pub fn datatype(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "FP32",
        DType::F64 => "FP64",
        DType::F16 => "FP16",
        DType::U64 => "UINT64",
        DType::U32 => "UINT32",
        DType::I64 => "INT64",
        DType::I32 => "INT32",
        DType::I16 => "INT16",
        DType::U16 => "UINT16",
        DType::I8 => "INT8",
        DType::U8 => "UINT8",
        DType::Bool => "BOOL",
    }
}

/// Every type.
pub const DTYPES: [DType; 12] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::U64,
    DType::U32,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::U16,
    DType::I8,
    DType::U8,
    DType::Bool,
];

/// A tensor of binary data.
pub(super) fn of_bytes(
    name: &str,
    dtype: DType,
    shape: &[u32],
    bytes: &[u8],
) -> Result<Tensor, RequestError> {
    let tensor = Tensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        bytes: bytes.to_vec(),
    };
    if !tensor.fills_shape() {
        return Err(RequestError::Length {
            name: tensor.name,
            expected: count(shape),
        });
    }
    let not_bool = |byte: &u8| dtype == DType::Bool && *byte > 1;
    if let Some(index) = bytes.iter().position(not_bool) {
        return Err(RequestError::Element {
            name: tensor.name,
            index,
            datatype: datatype(dtype),
        });
    }
    Ok(tensor)
}

/// A tensor of JSON data.
pub(crate) fn of_json(
    name: String,
    dtype: DType,
    shape: Vec<u32>,
    data: &RawValue,
) -> Result<Tensor, RequestError> {
    let expected = count(&shape);
    let mut elements = Elements {
        dtype,
        expected,
        found: 0,
        // An element takes two characters at least, so no shape makes this more than the body.
        bytes: Vec::with_capacity(expected.min(data.get().len() / 2 + 1) * dtype.bytes()),
        bad: false,
    };
    let mut reader = serde_json::Deserializer::from_str(data.get());
    let result = elements.deserialize(&mut reader);
    if elements.bad {
        return Err(RequestError::Element {
            name,
            index: elements.found,
            datatype: datatype(dtype),
        });
    }
    if elements.found != expected {
        return Err(RequestError::Length { name, expected });
    }
    result.map_err(RequestError::Json)?;
    Ok(Tensor {
        name,
        dtype,
        shape,
        bytes: elements.bytes,
    })
}

/// The elements that a shape asks for, or more than any body holds.
fn count(shape: &[u32]) -> usize {
    let all = shape
        .iter()
        .try_fold(1_usize, |all, one| all.checked_mul(*one as usize));
    all.unwrap_or(usize::MAX)
}

/// Numbers, flat or nested, put down as bytes while they are read. Depth is bounded by the JSON
/// reader, length by the shape.
struct Elements {
    dtype: DType,
    expected: usize,
    found: usize,
    bytes: Vec<u8>,
    bad: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Elements {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Elements {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, flat or nested")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        let is_bool = self.dtype == DType::Bool;
        self.put(is_bool.then_some([u8::from(value)]))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        match self.dtype {
            DType::U64 => self.put(Some(value.to_le_bytes())),
            _ if self.floats() => self.float(value as f64),
            _ => match i64::try_from(value) {
                Ok(value) => self.whole(value),
                Err(_) => self.put::<1, E>(None),
            },
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        if self.floats() {
            return self.float(value as f64);
        }
        self.whole(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.float(value)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.float(f64::NAN)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.put::<1, E>(None)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.put::<1, A::Error>(None)
    }
}

impl Elements {
    fn floats(&self) -> bool {
        matches!(self.dtype, DType::F32 | DType::F64 | DType::F16)
    }

    fn float<E: de::Error>(&mut self, value: f64) -> Result<(), E> {
        match self.dtype {
            DType::F32 => self.put(Some((value as f32).to_le_bytes())),
            DType::F64 => self.put(Some(value.to_le_bytes())),
            DType::F16 => self.put(Some(half::f16::from_f64(value).to_le_bytes())),
            _ => self.put::<1, E>(None),
        }
    }

    fn whole<E: de::Error>(&mut self, value: i64) -> Result<(), E> {
        match self.dtype {
            DType::I64 => self.put(Some(value.to_le_bytes())),
            DType::U64 => self.put(u64::try_from(value).ok().map(u64::to_le_bytes)),
            DType::U32 => self.put(u32::try_from(value).ok().map(u32::to_le_bytes)),
            DType::I32 => self.put(i32::try_from(value).ok().map(i32::to_le_bytes)),
            DType::I16 => self.put(i16::try_from(value).ok().map(i16::to_le_bytes)),
            DType::U16 => self.put(u16::try_from(value).ok().map(u16::to_le_bytes)),
            DType::I8 => self.put(i8::try_from(value).ok().map(i8::to_le_bytes)),
            DType::U8 => self.put(u8::try_from(value).ok().map(u8::to_le_bytes)),
            _ => self.put::<1, E>(None),
        }
    }

    fn put<const N: usize, E: de::Error>(&mut self, bytes: Option<[u8; N]>) -> Result<(), E> {
        let Some(bytes) = bytes else {
            self.bad = true;
            return Err(E::custom("not an element of this datatype"));
        };
        self.found += 1;
        if self.found > self.expected {
            return Err(E::custom("more elements than the shape has"));
        }
        self.bytes.extend(bytes);
        Ok(())
    }
}

//! Tensors as they cross the API and the wire.

use bellwether_package::sections::DType;

/// A named tensor: row-major, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The port's name.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The dimensions, outermost first; empty for a single number.
    pub shape: Vec<u32>,
    /// The elements; a `bool` is one byte, 0 or 1.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of `f32`. `values` are in row-major order; whether they fill the shape is checked
    /// when the tensor is run.
    pub fn from_f32(name: impl Into<String>, shape: &[u32], values: &[f32]) -> Self {
        Self {
            name: name.into(),
            dtype: DType::F32,
            shape: shape.to_vec(),
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// The elements as `f32`; `None` for another type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        (self.dtype == DType::F32).then(|| self.values().map(|v| v as f32).collect())
    }

    /// The number of elements that the bytes hold.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.bytes()
    }

    /// True if the bytes hold no element.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// True if the bytes fill the shape exactly.
    pub fn fills_shape(&self) -> bool {
        byte_length(self.dtype, &self.shape) == Some(self.bytes.len())
    }

    /// Every element as a number. A whole number beyond 2^53 is rounded.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let dtype = self.dtype;
        self.bytes
            .chunks_exact(dtype.bytes())
            .map(move |bytes| number(dtype, bytes))
    }
}

/// Bytes that a shape needs; `None` if they pass `usize`.
pub fn byte_length(dtype: DType, shape: &[u32]) -> Option<usize> {
    shape.iter().try_fold(dtype.bytes(), |bytes, dim| {
        bytes.checked_mul(usize::try_from(*dim).ok()?)
    })
}

/// One element as a number; `bytes` has the type's length.
fn number(dtype: DType, bytes: &[u8]) -> f64 {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.first_chunk().copied().unwrap_or([0; N])
    }
    match dtype {
        DType::F32 => f32::from_le_bytes(array(bytes)).into(),
        DType::F64 => f64::from_le_bytes(array(bytes)),
        DType::F16 => half::f16::from_le_bytes(array(bytes)).to_f64(),
        DType::I64 => i64::from_le_bytes(array(bytes)) as f64,
        DType::I32 => i32::from_le_bytes(array(bytes)).into(),
        DType::I16 => i16::from_le_bytes(array(bytes)).into(),
        DType::U16 => u16::from_le_bytes(array(bytes)).into(),
        DType::I8 => i8::from_le_bytes(array(bytes)).into(),
        DType::U64 => u64::from_le_bytes(array(bytes)) as f64,
        DType::U32 => u32::from_le_bytes(array(bytes)).into(),
        DType::U8 | DType::Bool => u8::from_le_bytes(array(bytes)).into(),
    }
}

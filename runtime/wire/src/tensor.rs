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

/// A Rust type whose values are a tensor's elements.
pub trait Element: Copy + sealed::Bytes {
    /// The type's name in a contract.
    const DTYPE: DType;
}

mod sealed {
    /// Little-endian bytes, `SIZE` of them.
    pub trait Bytes {
        const SIZE: usize;
        fn append_to(self, bytes: &mut Vec<u8>);
        fn read(bytes: &[u8]) -> Self;
    }
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),+ $(,)?) => {$(
        impl sealed::Bytes for $type {
            const SIZE: usize = size_of::<$type>();

            fn append_to(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(array(bytes))
            }
        }

        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
    )+};
}

elements! {
    f32 => F32, f64 => F64, i64 => I64, i32 => I32, i16 => I16, i8 => I8, u64 => U64, u32 => U32,
    u16 => U16, u8 => U8,
}

impl sealed::Bytes for bool {
    const SIZE: usize = 1;

    fn append_to(self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(self));
    }

    fn read(bytes: &[u8]) -> Self {
        bytes.first().is_some_and(|byte| *byte != 0)
    }
}

impl Element for bool {
    const DTYPE: DType = DType::Bool;
}

impl Tensor {
    /// A tensor of any element type. `values` are in row-major order; whether they fill the shape
    /// is checked when the tensor is run.
    ///
    /// ```
    /// # use bellwether_wire::Tensor;
    /// let labels = Tensor::of::<i64>("labels", &[2, 1], &[3, 7]);
    /// assert_eq!(labels.to_vec::<i64>(), Some(vec![3, 7]));
    /// assert_eq!(labels.to_vec::<f32>(), None);
    /// ```
    pub fn of<T: Element>(name: impl Into<String>, shape: &[u32], values: &[T]) -> Self {
        let mut bytes = Vec::with_capacity(values.len().saturating_mul(T::SIZE));
        values.iter().for_each(|value| value.append_to(&mut bytes));
        Self {
            name: name.into(),
            dtype: T::DTYPE,
            shape: shape.to_vec(),
            bytes,
        }
    }

    /// The elements in row-major order; `None` if the tensor is of another type.
    pub fn to_vec<T: Element>(&self) -> Option<Vec<T>> {
        (self.dtype == T::DTYPE).then(|| self.bytes.chunks_exact(T::SIZE).map(T::read).collect())
    }

    /// A tensor of `f32`. `values` are in row-major order; whether they fill the shape is checked
    /// when the tensor is run.
    pub fn from_f32(name: impl Into<String>, shape: &[u32], values: &[f32]) -> Self {
        Self::of(name, shape, values)
    }

    /// The elements as `f32`; `None` for another type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        self.to_vec()
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

    /// Elements that are NaN or infinite; a whole number never is.
    ///
    /// ```
    /// # use bellwether_wire::Tensor;
    /// let readings = [1.0, f32::NAN, -f32::INFINITY, f32::MAX];
    /// assert_eq!(Tensor::of("x", &[4], &readings).nonfinite(), 2);
    /// assert_eq!(Tensor::of("x", &[4], &readings.map(f64::from)).nonfinite(), 2);
    /// assert_eq!(Tensor::of("x", &[1], &[i64::MAX]).nonfinite(), 0);
    /// ```
    pub fn nonfinite(&self) -> usize {
        // Looked for in every run: f32, which nearly all tensors are, without a detour over f64.
        if self.dtype == DType::F32 {
            let (chunks, _) = self.bytes.as_chunks();
            let bad = |bytes: &&[u8; 4]| !f32::from_le_bytes(**bytes).is_finite();
            return chunks.iter().filter(bad).count();
        }
        self.values().filter(|value| !value.is_finite()).count()
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

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

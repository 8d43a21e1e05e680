//! NPZ: named arrays, as numpy writes them, in either byte order. Fortran-ordered arrays and
//! objects are refused by name, rather than read wrongly.

use std::io::{BufReader, Write};
use std::path::Path;

use npyz::npz::{NpzArchive, NpzWriter};
use npyz::{NpyFile, Order, TypeChar, WriterBuilder};

use super::{CELLS_MAX, Column, check_size, damaged, too_much};
use crate::failure::{Failure, Result};
use crate::files;

/// Arrays of one file at most.
const ARRAYS_MAX: usize = 1024;
/// Dimensions of one array at most.
const RANK_MAX: usize = 8;

/// A named array in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

/// The elements of an array.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    I16(Vec<i16>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
}

/// Applies one expression to the vector inside, whatever its type.
macro_rules! each {
    ($values:expr, $vector:ident => $body:expr) => {
        match $values {
            Values::F32($vector) => $body,
            Values::F64($vector) => $body,
            Values::I64($vector) => $body,
            Values::I32($vector) => $body,
            Values::I16($vector) => $body,
            Values::I8($vector) => $body,
            Values::U8($vector) => $body,
            Values::U16($vector) => $body,
            Values::U32($vector) => $body,
            Values::U64($vector) => $body,
            Values::Bool($vector) => $body,
        }
    };
}

impl Values {
    /// The number of elements.
    pub(crate) fn len(&self) -> usize {
        each!(self, vector => vector.len())
    }

    /// Element `index` as a number; truth values are 0 and 1.
    pub(crate) fn number(&self, index: usize) -> f64 {
        match self {
            Self::F32(vector) => f64::from(vector[index]),
            Self::F64(vector) => vector[index],
            Self::I64(vector) => vector[index] as f64,
            Self::I32(vector) => f64::from(vector[index]),
            Self::I16(vector) => f64::from(vector[index]),
            Self::I8(vector) => f64::from(vector[index]),
            Self::U8(vector) => f64::from(vector[index]),
            Self::U16(vector) => f64::from(vector[index]),
            Self::U32(vector) => f64::from(vector[index]),
            Self::U64(vector) => vector[index] as f64,
            Self::Bool(vector) => f64::from(u8::from(vector[index])),
        }
    }
}

/// Reads all arrays of `path`.
///
/// # Errors
/// When it is no NPZ file, holds other things than plain numbers, or is beyond its bounds.
pub(crate) fn read_arrays(path: &Path) -> Result<Vec<Array>> {
    let mut archive = NpzArchive::new(BufReader::new(files::open(path)?))
        .map_err(|error| damaged(path, "NPZ", error))?;
    let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    if names.len() > ARRAYS_MAX {
        return Err(too_much(path, &format!("{ARRAYS_MAX} arrays")));
    }
    let mut cells = 0;
    let mut arrays = Vec::new();
    for name in names {
        let Some(file) = archive
            .by_name(&name)
            .map_err(|error| damaged(path, "NPZ", error))?
        else {
            continue;
        };
        cells += elements(file.shape())
            .filter(|count| *count <= CELLS_MAX)
            .unwrap_or(CELLS_MAX + 1);
        if cells > CELLS_MAX {
            return Err(too_much(path, &format!("{CELLS_MAX} elements")));
        }
        arrays.push(read_array(path, name, file)?);
    }
    Ok(arrays)
}

/// Reads columns: an array `[n]` is a column of its name, an array `v` of `[n, k]` is the columns
/// `v.0` to `v.{k-1}`.
pub(super) fn read_columns(path: &Path, wanted: Option<&[&str]>) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    for array in read_arrays(path)? {
        let (rows, width) = match array.shape[..] {
            [rows] => (rows, None),
            [rows, width] => (rows, Some(width)),
            _ => continue,
        };
        check_size(path, columns.len() + width.unwrap_or(1), rows)?;
        for place in 0..width.unwrap_or(1) {
            let name = match width {
                None => array.name.clone(),
                Some(_) => format!("{}.{place}", array.name),
            };
            if wanted.is_some_and(|wanted| !wanted.contains(&name.as_str())) {
                continue;
            }
            let mut column = Column::named(&name);
            for row in 0..rows {
                column.push(Some(array.values.number(row * width.unwrap_or(1) + place)));
            }
            columns.push(column);
        }
    }
    let rows = columns.first().map(|column| column.values.len());
    if let Some(other) = columns
        .iter()
        .find(|column| Some(column.values.len()) != rows)
    {
        return Err(Failure::operator(format!(
            "{}: array `{}` has {} rows, the first one has {}",
            path.display(),
            other.name,
            other.values.len(),
            rows.unwrap_or(0)
        ))
        .next("give arrays of the same number of rows"));
    }
    Ok(columns)
}

/// Writes arrays as an uncompressed NPZ file into `sink`.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn write_arrays(path: &Path, sink: &mut std::fs::File, arrays: &[Array]) -> Result<()> {
    let failed = |error: std::io::Error| Failure::io("write", path, error);
    let mut writer = NpzWriter::new(std::io::BufWriter::new(sink));
    for array in arrays {
        let shape: Vec<u64> = array.shape.iter().map(|dim| *dim as u64).collect();
        each!(&array.values, vector => {
            let mut entry = writer
                .array(&array.name, Default::default())
                .map_err(failed)?
                .default_dtype()
                .shape(&shape)
                .begin_nd()
                .map_err(failed)?;
            entry.extend(vector.iter()).map_err(failed)?;
            entry.finish().map_err(failed)?;
        });
    }
    let mut rest = writer
        .zip_writer()
        .finish()
        .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    rest.flush().map_err(failed)
}

fn read_array<R: std::io::Read>(path: &Path, name: String, file: NpyFile<R>) -> Result<Array> {
    let refuse = |what: &str| {
        Failure::operator(format!("{}: array `{name}` {what}", path.display())).next(
            "save plain little-endian numbers in C order: np.savez(…, name=np.ascontiguousarray(x))",
        )
    };
    if file.shape().len() > RANK_MAX {
        return Err(refuse("has too many dimensions"));
    }
    if file.order() != Order::C {
        return Err(refuse("is in Fortran order"));
    }
    let shape: Vec<usize> = file.shape().iter().map(|dim| *dim as usize).collect();
    let npyz::DType::Plain(kind) = file.dtype() else {
        return Err(refuse("is a record array"));
    };
    let cause = |error| damaged(path, "NPZ", error);
    // npyz swaps bytes where the file says so: big-endian arrays are read right.
    let values = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => Values::F32(file.into_vec().map_err(cause)?),
        (TypeChar::Float, 8) => Values::F64(file.into_vec().map_err(cause)?),
        (TypeChar::Int, 8) => Values::I64(file.into_vec().map_err(cause)?),
        (TypeChar::Int, 4) => Values::I32(file.into_vec().map_err(cause)?),
        (TypeChar::Int, 2) => Values::I16(file.into_vec().map_err(cause)?),
        (TypeChar::Int, 1) => Values::I8(file.into_vec().map_err(cause)?),
        (TypeChar::Uint, 1) => Values::U8(file.into_vec().map_err(cause)?),
        (TypeChar::Uint, 2) => Values::U16(file.into_vec().map_err(cause)?),
        (TypeChar::Uint, 4) => Values::U32(file.into_vec().map_err(cause)?),
        (TypeChar::Uint, 8) => Values::U64(file.into_vec().map_err(cause)?),
        (TypeChar::Bool, 1) => Values::Bool(file.into_vec().map_err(cause)?),
        _ => return Err(refuse(&format!("holds {kind}, which is no plain number"))),
    };
    if Some(values.len()) != elements(&shape.iter().map(|dim| *dim as u64).collect::<Vec<_>>()) {
        return Err(refuse("has fewer elements than its shape says"));
    }
    Ok(Array {
        name,
        shape,
        values,
    })
}

fn elements(shape: &[u64]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_u64, |product, dim| product.checked_mul(*dim))
        .and_then(|product| usize::try_from(product).ok())
}

//! Rows of data as tensors of a contract, and the baselines that they make. `run` feeds its inputs
//! through here too.

use std::path::{Path, PathBuf};

use bellwether_drift::baseline::BINS_MAX;
use bellwether_drift::{Counts, FieldBaseline};
use bellwether_package::sections::{Contract, DType, Dim, Field, FieldKind, MissingRule, Port};
use bellwether_runtime::Tensor;

use crate::data::{self, Array, Table};
use crate::failure::{Failure, Result, Who};

/// Rows of data, ready to be cut into tensors.
pub(crate) struct Sample {
    path: PathBuf,
    rows: usize,
    sources: Vec<Source>,
}

/// Where one input's elements come from: row-major, `width` numbers for each row.
struct Source {
    port: Port,
    width: usize,
    values: Vec<f64>,
    /// What the columns are called in the file, for messages.
    columns: Vec<String>,
}

impl Sample {
    /// Reads what the contract's inputs need: from NPZ arrays named as the inputs, otherwise from
    /// columns; `column_of` says which column holds a field.
    ///
    /// # Errors
    /// When a column or array is absent, or a value is one that the contract refuses: says which.
    pub(crate) fn read(
        path: &Path,
        contract: &Contract,
        column_of: impl Fn(&Port, usize) -> String,
        rows_max: Option<usize>,
    ) -> Result<Self> {
        let sources = if is_npz(path) && has_arrays(path, contract)? {
            from_arrays(path, contract)?
        } else {
            from_columns(path, contract, &column_of)?
        };
        let rows = sources
            .first()
            .map_or(0, |source| source.values.len() / source.width);
        let mut sample = Self {
            path: path.to_owned(),
            rows,
            sources,
        };
        let kept = match contract.states[..] {
            [] => rows_max.map(|most| sample.spread(most)),
            // A stream with gaps is another stream.
            _ => rows_max.map(|most| (0..most.min(rows)).collect()),
        };
        if let Some(kept) = kept.filter(|kept| kept.len() < rows) {
            sample.thin(&kept);
        }
        Ok(sample)
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Refuses values that a device would refuse: the model was not made for them, or the
    /// contract is wrong.
    ///
    /// # Errors
    /// Names the first row and column.
    pub(crate) fn check(&self) -> Result<()> {
        for source in &self.sources {
            let width = source.width;
            for (place, value) in source.values.iter().enumerate() {
                let field = field_at(&source.port, place % width);
                let Some(fault) = fault(field, *value) else {
                    continue;
                };
                let column = &source.columns[(place % width).min(source.columns.len() - 1)];
                return Err(Failure::new(
                    Who::Package,
                    format!(
                        "{}: row {} of `{column}` {fault}",
                        self.path.display(),
                        place / width + 1
                    ),
                )
                .next(
                    "clean the sample, or say what the field allows: missing = \"nan\", range = [least, greatest]",
                ));
            }
        }
        Ok(())
    }

    /// The tensors of these rows, in the contract's order. Inputs without a batch take one row.
    ///
    /// # Errors
    /// When a value can't be held by the input's type.
    pub(crate) fn tensors(&self, rows: std::ops::Range<usize>) -> Result<Vec<Tensor>> {
        let tensor = |source: &Source| {
            let values = &source.values[rows.start * source.width..rows.end * source.width];
            tensor(&source.port, rows.len(), values)
                .map_err(|problem| unheld(&self.path, &source.port, &problem))
        };
        self.sources.iter().map(tensor).collect()
    }

    /// Rows that one call takes: `most`, or 1 where an input has no batch.
    pub(crate) fn batch(&self, most: usize) -> usize {
        let batched = |source: &Source| source.port.shape.contains(&Dim::Batch);
        if self.sources.iter().all(batched) {
            most
        } else {
            1
        }
    }

    /// The baselines of all input fields, in the contract's order.
    ///
    /// # Errors
    /// When a field has no usable value.
    pub(crate) fn baselines(&self) -> Result<Vec<FieldBaseline>> {
        let mut baselines = Vec::new();
        for source in &self.sources {
            baselines.extend(baselines_of(&source.port, &source.values)?);
        }
        Ok(baselines)
    }

    /// `count` rows spread evenly from first to last.
    pub(crate) fn spread(&self, count: usize) -> Vec<usize> {
        let count = count.min(self.rows);
        (0..count)
            .map(|place| place * (self.rows - 1) / (count - 1).max(1))
            .collect()
    }

    fn thin(&mut self, kept: &[usize]) {
        for source in &mut self.sources {
            let width = source.width;
            source.values = kept
                .iter()
                .flat_map(|row| {
                    source.values[row * width..(row + 1) * width]
                        .iter()
                        .copied()
                })
                .collect();
        }
        self.rows = kept.len();
    }
}

/// The baselines of one port's fields from all its values, the last axis fastest.
///
/// # Errors
/// When a field has no usable value.
pub(crate) fn baselines_of(port: &Port, values: &[f64]) -> Result<Vec<FieldBaseline>> {
    let width = port.fields.len();
    let baseline = |(place, field): (usize, &Field)| {
        let values = values.iter().skip(place).step_by(width.max(1)).copied();
        baseline_of(field, values)
    };
    port.fields.iter().enumerate().map(baseline).collect()
}

/// Whether arrays of `path` are named as the inputs.
fn has_arrays(path: &Path, contract: &Contract) -> Result<bool> {
    let arrays = data::read_arrays(path)?;
    Ok(contract
        .inputs
        .iter()
        .all(|port| arrays.iter().any(|array| array.name == port.name)))
}

fn from_arrays(path: &Path, contract: &Contract) -> Result<Vec<Source>> {
    let arrays = data::read_arrays(path)?;
    let mut sources = Vec::new();
    let mut rows = None;
    for port in &contract.inputs {
        let array = find(path, &arrays, &port.name)?;
        let (found, width) = rows_of(path, port, array)?;
        if *rows.get_or_insert(found) != found {
            return Err(Failure::operator(format!(
                "{}: `{}` has {found} rows, the first input has {}",
                path.display(),
                port.name,
                rows.unwrap_or(0)
            ))
            .next("give arrays of the same number of rows"));
        }
        let values = (0..array.values.len())
            .map(|index| array.values.number(index))
            .collect();
        let columns = match &port.fields[..] {
            [] => vec![port.name.clone()],
            fields => (0..width)
                .map(|place| format!("{}.{}", port.name, fields[place % fields.len()].name))
                .collect(),
        };
        sources.push(Source {
            port: port.clone(),
            width,
            values,
            columns,
        });
    }
    Ok(sources)
}

fn from_columns(
    path: &Path,
    contract: &Contract,
    column_of: &impl Fn(&Port, usize) -> String,
) -> Result<Vec<Source>> {
    let mut named: Vec<Vec<String>> = Vec::new();
    for port in &contract.inputs {
        let width = row_elements(port);
        if port.fields.len() != width {
            return Err(Failure::operator(format!(
                "input `{}` takes {width} numbers for each row, which columns can't give",
                port.name
            ))
            .next(format!(
                "give an .npz with an array `{}` of [rows, …]",
                port.name
            )));
        }
        named.push((0..width).map(|place| column_of(port, place)).collect());
    }
    let wanted: Vec<&str> = named.iter().flatten().map(String::as_str).collect();
    let table = Table::read(path, Some(&wanted)).or_else(|error| {
        // No column of these names at all reads as an empty table; say which one is absent.
        match Table::read(path, None) {
            Ok(whole) => wanted
                .iter()
                .try_for_each(|name| whole.column(name).map(|_| ())),
            Err(_) => Ok(()),
        }
        .and(Err(error))
    })?;
    let mut sources = Vec::new();
    for (port, columns) in contract.inputs.iter().zip(named) {
        let width = columns.len();
        let mut values = vec![0.0; table.rows() * width];
        for (place, name) in columns.iter().enumerate() {
            for (row, value) in table.column(name)?.values.iter().enumerate() {
                values[row * width + place] = *value;
            }
        }
        sources.push(Source {
            port: port.clone(),
            width,
            values,
            columns,
        });
    }
    Ok(sources)
}

/// Elements that one row of `port` holds.
pub(crate) fn row_elements(port: &Port) -> usize {
    port.shape
        .iter()
        .map(|dim| match dim {
            Dim::Batch => 1,
            Dim::Fixed(size) => *size as usize,
        })
        .product()
}

/// The rows of an array for `port`, and the elements of each.
pub(crate) fn rows_of(path: &Path, port: &Port, array: &Array) -> Result<(usize, usize)> {
    let width = row_elements(port);
    let without_batch: Vec<usize> = port
        .shape
        .iter()
        .filter_map(|dim| match dim {
            Dim::Batch => None,
            Dim::Fixed(size) => Some(*size as usize),
        })
        .collect();
    let whole: Vec<usize> = port
        .shape
        .iter()
        .map(|dim| match dim {
            Dim::Batch => 1,
            Dim::Fixed(size) => *size as usize,
        })
        .collect();
    let rows = match &array.shape[..] {
        [rows, rest @ ..] if *rest == without_batch[..] => Some(*rows),
        [rows, rest @ ..] if *rest == whole[..] => Some(*rows),
        all if *all == whole[..] => Some(1),
        _ => None,
    };
    match rows.filter(|rows| *rows > 0 && width > 0) {
        Some(rows) => Ok((rows, width)),
        None => Err(Failure::operator(format!(
            "{}: array `{}` has shape {:?}, the contract has {}",
            path.display(),
            array.name,
            array.shape,
            super::contract::dims_text(&port.shape)
        ))
        .next("give an array of [rows, …] with the contract's dimensions after the rows")),
    }
}

/// The array of this name.
pub(crate) fn find<'a>(path: &Path, arrays: &'a [Array], name: &str) -> Result<&'a Array> {
    arrays
        .iter()
        .find(|array| array.name == name)
        .ok_or_else(|| {
            let there: Vec<_> = arrays.iter().map(|array| array.name.as_str()).collect();
            Failure::operator(format!("{} has no array `{name}`", path.display()))
                .next(format!("it has: {}", there.join(", ")))
        })
}

/// A tensor of `rows` rows for `port`.
pub(crate) fn tensor(
    port: &Port,
    rows: usize,
    values: &[f64],
) -> std::result::Result<Tensor, String> {
    let shape: Vec<u32> = port
        .shape
        .iter()
        .map(|dim| match dim {
            Dim::Batch => rows as u32,
            Dim::Fixed(size) => *size,
        })
        .collect();
    let mut bytes = Vec::with_capacity(values.len() * port.dtype.bytes());
    for value in values {
        push(&mut bytes, port.dtype, *value)?;
    }
    Ok(Tensor {
        name: port.name.clone(),
        dtype: port.dtype,
        shape,
        bytes,
    })
}

/// A value that a tensor can't hold, as a failure.
pub(crate) fn unheld(path: &Path, port: &Port, problem: &str) -> Failure {
    Failure::new(
        Who::Package,
        format!("{}: `{}` {problem}", path.display(), port.name),
    )
    .next("give values that the input's type can hold")
}

/// Appends a value as an element of this type.
///
/// # Errors
/// Says why the type can't hold it.
pub(crate) fn push(
    bytes: &mut Vec<u8>,
    dtype: DType,
    value: f64,
) -> std::result::Result<(), String> {
    let whole = |lo: f64, hi: f64| {
        if value.fract() == 0.0 && (lo..=hi).contains(&value) {
            Ok(value)
        } else {
            Err(format!("is of type {dtype:?}, which can't hold {value}"))
        }
    };
    match dtype {
        DType::F32 => bytes.extend((value as f32).to_le_bytes()),
        DType::F64 => bytes.extend(value.to_le_bytes()),
        DType::F16 => bytes.extend(half::f16::from_f64(value).to_le_bytes()),
        DType::U64 => bytes.extend((whole(0.0, u64::MAX as f64)? as u64).to_le_bytes()),
        DType::U32 => bytes.extend((whole(0.0, u32::MAX.into())? as u32).to_le_bytes()),
        DType::I64 => bytes.extend((whole(i64::MIN as f64, i64::MAX as f64)? as i64).to_le_bytes()),
        DType::I32 => {
            bytes.extend((whole(i32::MIN.into(), i32::MAX.into())? as i32).to_le_bytes());
        }
        DType::I16 => {
            bytes.extend((whole(i16::MIN.into(), i16::MAX.into())? as i16).to_le_bytes());
        }
        DType::U16 => bytes.extend((whole(0.0, u16::MAX.into())? as u16).to_le_bytes()),
        DType::I8 => bytes.extend((whole(i8::MIN.into(), i8::MAX.into())? as i8).to_le_bytes()),
        DType::U8 => bytes.push(whole(0.0, u8::MAX.into())? as u8),
        DType::Bool => bytes.push(whole(0.0, 1.0)? as u8),
    }
    Ok(())
}

fn baseline_of(field: &Field, values: impl Iterator<Item = f64>) -> Result<FieldBaseline> {
    // As on a device: where a reading may be missing, NaN is how a tensor says so.
    let is_missing = |value: &f64| value.is_nan() && field.missing == MissingRule::Allow;
    let all: Vec<f64> = values.collect();
    let readings = all.iter().copied().filter(|value| !is_missing(value));
    let made = match &field.kind {
        FieldKind::Categorical { domain } => {
            let codes: Vec<i64> = readings.map(|value| value as i64).collect();
            FieldBaseline::categorical(&field.name, &codes, domain)
        }
        FieldKind::Numeric => {
            let singles: Vec<f32> = readings.map(|value| value as f32).collect();
            FieldBaseline::numeric(&field.name, &singles, BINS_MAX)
        }
    };
    let refuse = |error: bellwether_drift::BaselineError| {
        Failure::new(
            Who::Package,
            format!("field `{}` has no baseline", field.name),
        )
        .next("give a sample in which the field has values")
        .because(error)
    };
    let made = made.map_err(refuse)?;
    let missing = all.iter().filter(|value| is_missing(value)).count();
    if missing == 0 {
        return Ok(made);
    }
    let mut counts: Counts = made.counts().clone();
    (0..missing).for_each(|_| {
        counts.observe_missing();
    });
    FieldBaseline::new(
        made.name(),
        made.bins().clone(),
        counts,
        made.centre(),
        made.quantum(),
    )
    .map_err(refuse)
}

fn field_at(port: &Port, place: usize) -> Option<&Field> {
    match port.fields.len() {
        0 => None,
        width => port.fields.get(place % width),
    }
}

/// What a device would refuse a value for.
fn fault(field: Option<&Field>, value: f64) -> Option<String> {
    if value.is_infinite() {
        return Some("is infinite".to_owned());
    }
    if value.is_nan() {
        let allowed = field.is_some_and(|field| field.missing == MissingRule::Allow);
        return (!allowed).then(|| "is missing or NaN, which the field refuses".to_owned());
    }
    match field {
        Some(Field {
            kind: FieldKind::Numeric,
            range: Some((lo, hi)),
            ..
        }) if value < f64::from(*lo) || value > f64::from(*hi) => {
            Some(format!("is {value}, outside its range of {lo} to {hi}"))
        }
        Some(Field {
            kind: FieldKind::Categorical { domain },
            ..
        }) if value.fract() != 0.0 || !domain.contains(&(value as i64)) => {
            Some(format!("is {value}, which is none of its categories"))
        }
        _ => None,
    }
}

fn is_npz(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
}

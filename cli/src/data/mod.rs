//! Reading people's data: columns of numbers from CSV, Parquet and NPZ, and named arrays from and
//! to NPZ. What a column means is the contract's business, not this module's.

mod csv;
mod npz;
mod parquet;

use std::path::{Path, PathBuf};

pub(crate) use npz::{Array, Values, read_arrays, write_arrays};

use crate::failure::{Failure, Result, Who};

/// Rows of a sample at most: quantiles stop moving long before.
pub(crate) const ROWS_MAX: usize = 10_000_000;
/// Cells of a sample at most: 9 bytes each, so under half a gigabyte of memory.
pub(crate) const CELLS_MAX: usize = 50_000_000;
/// Columns at most: wider tables than this are no sensor data.
pub(crate) const COLUMNS_MAX: usize = 16_384;
/// Bytes of a data file after decompression at most: a small archive can't fill the machine.
pub(crate) const DATA_BYTES_MAX: u64 = 4 << 30;

/// A table read from one file.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    columns: Vec<Column>,
}

/// One column of numbers; `missing` says where there was no reading at all.
#[derive(Debug, Default)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// NaN where missing.
    pub(crate) values: Vec<f64>,
    pub(crate) missing: Vec<bool>,
    /// The first cell that is no number, with its row (1 is the first row of data).
    pub(crate) not_a_number: Option<(usize, String)>,
}

impl Column {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    fn push(&mut self, value: Option<f64>) {
        self.values.push(value.unwrap_or(f64::NAN));
        self.missing.push(value.is_none());
    }

    fn push_text(&mut self, text: &str) {
        if self.not_a_number.is_none() {
            self.not_a_number = Some((self.values.len() + 1, text.chars().take(40).collect()));
        }
        self.push(None);
    }
}

impl Table {
    /// Reads `.csv`, `.csv.gz`, `.parquet` or `.npz`. With `wanted`, only columns of these names
    /// are kept.
    ///
    /// # Errors
    /// When the file can't be read, is of another kind, or is beyond its bounds.
    pub(crate) fn read(path: &Path, wanted: Option<&[&str]>) -> Result<Self> {
        let name = path.to_string_lossy().to_ascii_lowercase();
        let columns = if name.ends_with(".csv") || name.ends_with(".csv.gz") {
            csv::read(path, wanted)?
        } else if name.ends_with(".parquet") {
            parquet::read(path, wanted)?
        } else if name.ends_with(".npz") {
            npz::read_columns(path, wanted)?
        } else {
            return Err(Failure::operator(format!(
                "can't tell what kind of data {} holds",
                path.display()
            ))
            .next("name it .csv, .csv.gz, .parquet or .npz"));
        };
        let table = Self {
            path: path.to_owned(),
            columns,
        };
        if table.rows() == 0 {
            return Err(
                Failure::operator(format!("{} holds no rows", path.display()))
                    .next("give a sample with data in it"),
            );
        }
        Ok(table)
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.values.len())
    }

    /// All columns, in file order.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column `name`, all of it numbers.
    ///
    /// # Errors
    /// When there is none, or a cell of it is no number: says which.
    pub(crate) fn column(&self, name: &str) -> Result<&Column> {
        let column =
            self.columns
                .iter()
                .find(|column| column.name == name)
                .ok_or_else(|| {
                    Failure::operator(format!("{} has no column `{name}`", self.path.display()))
                .next("name the column as the file's head does, or map it with `column = \"…\"`")
                })?;
        match &column.not_a_number {
            None => Ok(column),
            Some((row, text)) => Err(Failure::new(
                Who::Operator,
                format!(
                    "{}: row {row} of column `{name}` is `{text}`, not a number",
                    self.path.display()
                ),
            )
            .next("encode categories as whole numbers; leave a missing reading empty")),
        }
    }
}

fn damaged(path: &Path, kind: &str, cause: impl ToString) -> Failure {
    Failure::operator(format!("{} is not a readable {kind} file", path.display()))
        .next("check that it is complete and of the kind that its name says")
        .because(cause.to_string())
}

fn too_much(path: &Path, what: &str) -> Failure {
    Failure::operator(format!("{} has more than {what}", path.display()))
        .next("draw a random sample of it: a baseline needs thousands of rows, not millions")
}

fn check_size(path: &Path, columns: usize, rows: usize) -> Result<()> {
    if columns > COLUMNS_MAX {
        return Err(too_much(path, &format!("{COLUMNS_MAX} columns")));
    }
    if rows > ROWS_MAX {
        return Err(too_much(path, &format!("{ROWS_MAX} rows")));
    }
    if columns.saturating_mul(rows) > CELLS_MAX {
        return Err(too_much(path, &format!("{CELLS_MAX} cells")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! CSV with a head row, plain or gzipped. An empty cell and `NA` are missing readings; `nan` and
//! `inf` are readings that a sensor really gave.

use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::{Column, DATA_BYTES_MAX, check_size, damaged, too_much};
use crate::failure::Result;
use crate::files;

/// Reads the columns of `path`, all or the `wanted` ones.
pub(super) fn read(path: &Path, wanted: Option<&[&str]>) -> Result<Vec<Column>> {
    let file = io::BufReader::new(files::open(path)?);
    let zipped = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let source: Box<dyn Read> = if zipped {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut reader = ::csv::ReaderBuilder::new()
        .trim(::csv::Trim::All)
        .from_reader(source.take(DATA_BYTES_MAX));
    let head = reader
        .headers()
        .map_err(|error| damaged(path, "CSV", error))?
        .clone();
    check_size(path, head.len(), 0)?;
    let mut columns: Vec<(usize, Column)> = head
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}'))
        .enumerate()
        .filter(|(_, name)| wanted.is_none_or(|wanted| wanted.contains(name)))
        .map(|(index, name)| (index, Column::named(name)))
        .collect();
    let mut record = ::csv::StringRecord::new();
    let mut rows = 0;
    while reader
        .read_record(&mut record)
        .map_err(|error| damaged(path, "CSV", error))?
    {
        rows += 1;
        check_size(path, columns.len(), rows)?;
        for (index, column) in &mut columns {
            let cell = record.get(*index).unwrap_or_default();
            push(column, cell);
        }
    }
    if reader.position().byte() >= DATA_BYTES_MAX {
        return Err(too_much(path, &crate::output::human_bytes(DATA_BYTES_MAX)));
    }
    Ok(columns.into_iter().map(|(_, column)| column).collect())
}

fn push(column: &mut Column, cell: &str) {
    match cell {
        "" | "NA" => column.push(None),
        "true" | "True" => column.push(Some(1.0)),
        "false" | "False" => column.push(Some(0.0)),
        _ => match cell.parse::<f64>() {
            Ok(value) => column.push(Some(value)),
            Err(_) => column.push_text(cell),
        },
    }
}

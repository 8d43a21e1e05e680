//! Parquet with flat columns of numbers or truth values. A null is a missing reading.

use std::path::Path;

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::Field;

use super::{Column, check_size, damaged};
use crate::failure::Result;
use crate::files;

/// Reads the columns of `path`, all or the `wanted` ones.
pub(super) fn read(path: &Path, wanted: Option<&[&str]>) -> Result<Vec<Column>> {
    let reader = SerializedFileReader::new(files::open(path)?)
        .map_err(|error| damaged(path, "Parquet", error))?;
    let metadata = reader.metadata().file_metadata();
    let rows =
        usize::try_from(metadata.num_rows()).map_err(|error| damaged(path, "Parquet", error))?;
    let fields = metadata.schema().get_fields();
    let kept: Vec<_> = fields
        .iter()
        .filter(|field| wanted.is_none_or(|wanted| wanted.contains(&field.name())))
        .cloned()
        .collect();
    check_size(path, kept.len(), rows)?;
    let mut columns: Vec<Column> = kept
        .iter()
        .map(|field| Column::named(field.name()))
        .collect();
    let projection = ::parquet::schema::types::Type::group_type_builder(metadata.schema().name())
        .with_fields(kept)
        .build()
        .map_err(|error| damaged(path, "Parquet", error))?;
    let table = reader
        .get_row_iter(Some(projection))
        .map_err(|error| damaged(path, "Parquet", error))?;
    // The declared count bounds the loop: a damaged file can't promise little and give much.
    for row in table.take(rows) {
        let row = row.map_err(|error| damaged(path, "Parquet", error))?;
        for (column, (_, field)) in columns.iter_mut().zip(row.get_column_iter()) {
            push(column, field);
        }
    }
    Ok(columns)
}

fn push(column: &mut Column, field: &Field) {
    let value = match field {
        Field::Null => return column.push(None),
        Field::Bool(value) => f64::from(u8::from(*value)),
        Field::Byte(value) => f64::from(*value),
        Field::Short(value) => f64::from(*value),
        Field::Int(value) | Field::Date(value) => f64::from(*value),
        Field::Long(value) => *value as f64,
        Field::UByte(value) => f64::from(*value),
        Field::UShort(value) => f64::from(*value),
        Field::UInt(value) => f64::from(*value),
        Field::ULong(value) => *value as f64,
        Field::Float(value) => f64::from(*value),
        Field::Double(value) => *value,
        other => return column.push_text(&other.to_string()),
    };
    column.push(Some(value));
}

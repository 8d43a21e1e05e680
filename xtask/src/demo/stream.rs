//! The rows of the Shuttle stream that stand for the field: those that no release was trained or measured on.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, ensure};
use flate2::read::GzDecoder;

/// Sensor channels of a row.
pub(crate) const CHANNELS: usize = 9;
/// The first part, by row number modulo 10, that `train.py` leaves for the field.
const FIELD_FROM: usize = 4;
/// The whole stream is 1.5 MB of text.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// One reading of all channels.
pub(crate) type Row = [f32; CHANNELS];

/// Deals the field's rows to so many devices like cards: row by row, so that every device gets the same mixture.
/// The stream's order is random already.
pub(crate) fn deal(example: &Path, devices: usize) -> anyhow::Result<Vec<Vec<Row>>> {
    let path = example.join("shuttle.csv.gz");
    let file = File::open(&path).with_context(|| format!("{}", path.display()))?;
    let mut text = String::new();
    GzDecoder::new(file)
        .take(TEXT_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("{}", path.display()))?;
    let mut shares = vec![Vec::new(); devices];
    let field = text
        .lines()
        .skip(1)
        .enumerate()
        .filter(|(number, _)| number % 10 >= FIELD_FROM);
    for (place, (number, line)) in field.enumerate() {
        let row = parse(line).with_context(|| format!("row {number} of {}", path.display()))?;
        shares[place % devices].push(row);
    }
    ensure!(
        shares.iter().all(|share| !share.is_empty()),
        "the stream is too short"
    );
    Ok(shares)
}

fn parse(line: &str) -> anyhow::Result<Row> {
    let mut row = [0.0; CHANNELS];
    let mut fields = line.split(',');
    for value in &mut row {
        *value = fields.next().context("too few fields")?.parse()?;
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_gets_as_many_rows_as_any_other_and_none_that_was_trained_on() {
        let shares = deal(&crate::demo::example::folder(), 12).unwrap();
        let lengths: Vec<_> = shares.iter().map(Vec::len).collect();
        let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
        assert!(most - least <= 1, "{lengths:?}");
        // Of 49,097 rows those whose number ends in 4 to 9.
        assert_eq!(lengths.iter().sum::<usize>(), 29_457);
    }

    #[test]
    fn a_row_with_too_few_or_other_fields_is_refused() {
        assert!(parse("1,2,3").is_err());
        assert!(parse("1,2,3,4,5,6,7,8,x").is_err());
        assert_eq!(parse("1,2,3,4,5,6,7,8,9,0").unwrap()[8], 9.0);
    }
}

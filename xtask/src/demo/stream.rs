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

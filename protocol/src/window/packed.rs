//! A window in few bytes: what a device sends for most of its life.
//!
//! Plain figures go as postcard writes them; what is mostly empty (another baseline, errors) costs a
//! byte. Counts go as one string of bits, most significant first, the inputs and then the outputs:
//!
//! | bits | what |
//! |---|---|
//! | number | how many fields |
//! | 1 | of each field: whether it is exported; if not, nothing follows |
//! | 5 | its bins |
//! | number, 5 | if it has bins: the least count, and k |
//! | Rice code | of each bin: its count less the least: the part above k bits in unary (ones, ended by a zero), then the lower k bits |
//! | 1, 6 × (1, number) | whether any special counter is not zero; then of each whether it is, and itself if so |
//! | 1, number, number, 32, 32 | whether moments follow: the sum (folded to a positive number), the squares, least and greatest value |
//!
//! A *number* is seven bits of its length in bits, then those bits without the leading one. Bins
//! of a baseline are quantiles, so counts lie close together and cost some six bits each. What is
//! left of the last byte is zero.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use bellwether_drift::counts::{SPECIALS, Values};
use bellwether_drift::{Counts, Special};
use bellwether_package::ids::{PackageId, SlotName, UnixSecs};

use super::{ErrorCounts, Fields, Latency, Window};
use bits::{Bits, Cut, Reader};

mod bits;

/// The most that the lower part of a Rice code has.
const K_MAX: u8 = 31;
/// Bits of a number of bins.
const BINS_BITS: u8 = 5;
/// Bits of k.
const K_BITS: u8 = 5;

/// The figures of a window beside its counts.
#[derive(Serialize, Deserialize)]
struct Wire<B> {
    slot: SlotName,
    release: PackageId,
    /// `None`: the release's own.
    baseline: Option<PackageId>,
    started_at: UnixSecs,
    secs: u32,
    rows: u32,
    rows_nonfinite: u32,
    /// `None`: none.
    errors: Option<ErrorCounts>,
    latency: Option<Latency>,
    fields: B,
}

pub(crate) fn serialize<S: Serializer>(window: &Window, serializer: S) -> Result<S::Ok, S::Error> {
    let mut bits = Bits::new();
    let fits =
        put_fields(&mut bits, &window.inputs).and_then(|()| put_fields(&mut bits, &window.outputs));
    fits.map_err(|_| serde::ser::Error::custom("the counts are too long"))?;
    Wire {
        slot: window.slot.clone(),
        release: window.release,
        baseline: (!window.is_own()).then_some(window.baseline),
        started_at: window.started_at,
        secs: window.secs,
        rows: window.rows,
        rows_nonfinite: window.rows_nonfinite,
        errors: (window.errors.total() > 0).then_some(window.errors),
        latency: window.latency,
        fields: bits,
    }
    .serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Window, D::Error> {
    let wire = Wire::<Bits>::deserialize(deserializer)?;
    let mut reader = Reader::new(wire.fields.bytes());
    let fields = |reader: &mut Reader<'_>| {
        take_fields(reader).map_err(|_| de::Error::custom("the counts are damaged"))
    };
    let window = Window {
        inputs: fields(&mut reader)?,
        outputs: fields(&mut reader)?,
        baseline: wire.baseline.unwrap_or(wire.release),
        slot: wire.slot,
        release: wire.release,
        started_at: wire.started_at,
        secs: wire.secs,
        rows: wire.rows,
        errors: wire.errors.unwrap_or_default(),
        rows_nonfinite: wire.rows_nonfinite,
        latency: wire.latency,
    };
    reader
        .end()
        .map_err(|_| de::Error::custom("something follows the counts"))?;
    Ok(window)
}

fn put_fields(bits: &mut Bits, fields: &Fields) -> Result<(), Cut> {
    bits.number(fields.len() as u64)?;
    for field in fields.iter() {
        bits.flag(field.is_some())?;
        if let Some(counts) = field {
            put_counts(bits, counts)?;
        }
    }
    Ok(())
}

fn put_counts(bits: &mut Bits, counts: &Counts) -> Result<(), Cut> {
    let bins = counts.bins();
    bits.put(bins.len() as u64, BINS_BITS)?;
    if let Some(least) = bins.iter().min() {
        let k = best_k(bins, *least);
        bits.number(u64::from(*least))?;
        bits.put(u64::from(k), K_BITS)?;
        for bin in bins {
            let above = bin - least;
            for _ in 0..above.checked_shr(k.into()).unwrap_or(0) {
                bits.flag(true)?;
            }
            bits.flag(false)?;
            bits.put(u64::from(above), k)?;
        }
    }
    let special = Special::ALL.map(|special| counts.special(special));
    let any = special.iter().any(|count| *count > 0);
    bits.flag(any)?;
    if any {
        for count in special {
            bits.flag(count > 0)?;
            if count > 0 {
                bits.number(u64::from(count))?;
            }
        }
    }
    bits.flag(counts.values().is_some())?;
    if let Some(values) = counts.values() {
        bits.number(folded(values.sum))?;
        bits.number(values.squares)?;
        bits.put(u64::from(values.min.to_bits()), 32)?;
        bits.put(u64::from(values.max.to_bits()), 32)?;
    }
    Ok(())
}

/// The k with which these counts take the fewest bits.
fn best_k(bins: &[u32], least: u32) -> u8 {
    let bits = |k: &u8| {
        let above = bins
            .iter()
            .map(|bin| u64::from((bin - least) >> k))
            .sum::<u64>();
        above + bins.len() as u64 * u64::from(*k)
    };
    (0..=K_MAX).min_by_key(bits).unwrap_or(0)
}

fn take_fields(reader: &mut Reader<'_>) -> Result<Fields, Cut> {
    let length = reader.number()?;
    let mut fields = Fields::new();
    for _ in 0..length {
        let field = match reader.flag()? {
            true => Some(take_counts(reader)?),
            false => None,
        };
        fields.push(field).map_err(|_| Cut)?;
    }
    Ok(fields)
}

fn take_counts(reader: &mut Reader<'_>) -> Result<Counts, Cut> {
    let mut bins = [0_u32; bellwether_drift::baseline::BINS_MAX];
    let length = reader.take(BINS_BITS)? as usize;
    let bins = bins.get_mut(..length).ok_or(Cut)?;
    if length > 0 {
        let least = reader.number()?;
        let k = reader.take(K_BITS)? as u8;
        for bin in &mut *bins {
            let above = reader.unary()?;
            let count = (u64::from(above) << k) | reader.take(k)?;
            let count = count.checked_add(least).ok_or(Cut)?;
            *bin = u32::try_from(count).map_err(|_| Cut)?;
        }
    }
    let mut special = [0_u32; SPECIALS];
    if reader.flag()? {
        for count in &mut special {
            if reader.flag()? {
                *count = u32::try_from(reader.number()?).map_err(|_| Cut)?;
            }
        }
    }
    let mut values = None;
    if reader.flag()? {
        values = Some(Values {
            sum: unfolded(reader.number()?),
            squares: reader.number()?,
            min: f32::from_bits(reader.take(32)? as u32),
            max: f32::from_bits(reader.take(32)? as u32),
        });
    }
    Counts::from_parts(bins, special, values).ok_or(Cut)
}

/// Small numbers of either sign as small positive ones.
fn folded(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unfolded(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

//! Baselines from training samples. Runs where packages are packed, never on a device.

use alloc::vec::Vec;

use super::{BINS_MAX, BaselineError, Bins, EDGES_MAX, FieldBaseline};
use crate::counts::{Counts, FIXED_POINT_MAX};

/// One standard deviation is 128 to 256 quanta, so the clamp at [`FIXED_POINT_MAX`] quanta lies
/// 128 to 256 deviations away from the mean.
const QUANTA_PER_DEVIATION_LOG2: i32 = 7;
/// The quantum of a field that never moved, relative to the size of its value.
const CONSTANT_QUANTUM_LOG2: i32 = -20;
const _: () = assert!(FIXED_POINT_MAX == 1 << 15);

impl FieldBaseline {
    /// A numeric baseline from training values, `bins_max` inner bins at most (1 to
    /// [`BINS_MAX`], values beyond are brought into that range).
    ///
    /// Edges are values of the sample: edge k is the order statistic at ⌈k·n/B⌉ of the n finite
    /// values (zero-based), so no interpolation depends on a convention. Ties collapse edges, and
    /// a value that fills a quantile by itself gets a bin of its own. NaN and infinite samples
    /// are counted, and no edge is made of them.
    pub fn numeric(name: &str, samples: &[f32], bins_max: usize) -> Result<Self, BaselineError> {
        let mut sorted: Vec<f32> = samples.iter().copied().filter(|x| x.is_finite()).collect();
        // Both zeros are one value; an edge of -0.0 would compare equal and sort apart.
        for value in &mut sorted {
            *value += 0.0;
        }
        sorted.sort_unstable_by(f32::total_cmp);
        let (Some(lo), Some(hi)) = (sorted.first(), sorted.last()) else {
            return Err(BaselineError::NoValues);
        };
        let bins = Bins::Numeric {
            edges: quantile_edges(&sorted, bins_max.clamp(1, BINS_MAX)),
            lo: *lo,
            hi: *hi,
        };
        let (centre, quantum) = scale(&sorted);
        Self::counted(name, bins, centre, quantum, |baseline, counts| {
            for sample in samples {
                counts.observe(baseline, *sample);
            }
        })
    }

    /// A categorical baseline from training codes. A code outside the domain counts as other.
    pub fn categorical(name: &str, codes: &[i64], domain: &[i64]) -> Result<Self, BaselineError> {
        let domain = heapless::Vec::from_slice(domain).map_err(|_| BaselineError::DomainInvalid)?;
        Self::counted(
            name,
            Bins::Categorical { domain },
            0.0,
            1.0,
            |baseline, counts| {
                for code in codes {
                    counts.observe_code(baseline, *code);
                }
            },
        )
    }

    fn counted(
        name: &str,
        bins: Bins,
        centre: f32,
        quantum: f32,
        count: impl FnOnce(&Self, &mut Counts),
    ) -> Result<Self, BaselineError> {
        let empty = Counts::new(&bins);
        let mut baseline = Self::new(name, bins, empty.clone(), centre, quantum)?;
        let mut counts = empty;
        count(&baseline, &mut counts);
        if counts.in_bins() == 0 {
            return Err(BaselineError::NoValues);
        }
        baseline.counts = counts;
        Ok(baseline)
    }
}

/// Inner edges for `bins` quantile bins of ascending finite values.
fn quantile_edges(sorted: &[f32], bins: usize) -> heapless::Vec<f32, EDGES_MAX> {
    let mut edges = heapless::Vec::new();
    let mut floor = sorted[0];
    for k in 1..bins {
        let mut at = (k * sorted.len()).div_ceil(bins);
        if at < sorted.len() && sorted[at] == floor {
            // The value at the last edge fills this quantile too: end its bin right after it.
            at = sorted.partition_point(|value| *value <= floor);
        }
        if at < sorted.len() && sorted[at] > floor {
            floor = sorted[at];
            // At most `bins - 1` of them, and `bins` is at most `BINS_MAX`.
            let _ = edges.push(floor);
        }
    }
    edges
}

/// Mean, and the power of two that one quantum of the moments is worth.
fn scale(sorted: &[f32]) -> (f32, f32) {
    let n = sorted.len() as f64;
    let mean = sorted.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = sorted
        .iter()
        .map(|x| (f64::from(*x) - mean) * (f64::from(*x) - mean))
        .sum::<f64>()
        / n;
    let deviation = libm::sqrt(variance);
    let (size, shift) = if deviation > 0.0 {
        (deviation, -QUANTA_PER_DEVIATION_LOG2)
    } else {
        (libm::fabs(mean), CONSTANT_QUANTUM_LOG2)
    };
    // ilogb(0) is a huge negative number; the clamp keeps the quantum a normal f32.
    let exponent = libm::ilogb(size).saturating_add(shift).clamp(-126, 126);
    (mean as f32, libm::ldexpf(1.0, exponent))
}

//! Latencies in logarithmic buckets: fixed memory, known relative error, exact merging.

/// Sub-buckets of an octave, as a power of two.
const SUB_BITS: u32 = 4;
const SUB: u32 = 1 << SUB_BITS;
/// Values below `2 · SUB` have a bucket each; every later octave of a `u32` has `SUB`.
const BUCKETS: usize = ((32 - SUB_BITS as usize) + 1) * SUB as usize;

/// A histogram of latencies in microseconds.
///
/// Below 32 µs it is exact. Above, an octave has 16 buckets and a quantile is given as its
/// bucket's upper end: never too low, and too high by less than 1/16 (6.25 %). Latencies beyond
/// `u32::MAX` µs (71 minutes, far beyond any deadline) count as `u32::MAX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyHistogram {
    buckets: Box<[u32; BUCKETS]>,
    count: u64,
    max_us: u32,
}

impl LatencyHistogram {
    /// Nothing recorded.
    pub fn new() -> Self {
        Self {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
            max_us: 0,
        }
    }

    /// Records one latency. A full bucket stays full.
    pub fn record(&mut self, latency_us: u32) {
        if let Some(bucket) = self.buckets.get_mut(index(latency_us)) {
            *bucket = bucket.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
        self.max_us = self.max_us.max(latency_us);
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *mine = mine.saturating_add(*theirs);
        }
        self.count = self.count.saturating_add(other.count);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Latencies recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The greatest latency in microseconds, exact; 0 if nothing was recorded.
    pub fn max_us(&self) -> u32 {
        self.max_us
    }

    /// The nearest-rank quantile in microseconds, for instance `quantile_us(990_000)` for p99.
    /// `None` if nothing was recorded. The error is the type's.
    pub fn quantile_us(&self, ppm: u32) -> Option<u32> {
        let ppm = u128::from(ppm.min(1_000_000));
        let rank = (u128::from(self.count) * ppm).div_ceil(1_000_000).max(1);
        let mut seen = 0_u128;
        for (i, bucket) in self.buckets.iter().enumerate() {
            seen += u128::from(*bucket);
            if seen >= rank {
                return Some(upper(i).min(self.max_us));
            }
        }
        (self.count > 0).then_some(self.max_us)
    }

    /// The 99th percentile in microseconds.
    pub fn p99_us(&self) -> Option<u32> {
        self.quantile_us(990_000)
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

fn index(value: u32) -> usize {
    if value < 2 * SUB {
        return value as usize;
    }
    let octave = value.ilog2() - SUB_BITS;
    // The leading SUB_BITS + 1 bits are SUB..2 SUB.
    (octave * SUB + (value >> octave)) as usize
}

fn upper(index: usize) -> u32 {
    let index = index as u32;
    if index < 2 * SUB {
        return index;
    }
    let octave = index / SUB - 1;
    let lead = u64::from(index - octave * SUB);
    u32::try_from(((lead + 1) << octave) - 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_never_low_and_high_by_less_than_a_sixteenth() {
        for value in (0..200_000)
            .chain((0..32).map(|bit| 1 << bit))
            .chain([u32::MAX])
        {
            let up = upper(index(value));
            assert!(up >= value, "{value} became {up}");
            assert!(
                u64::from(up - value) * 16 <= u64::from(value),
                "{value} became {up}"
            );
        }
    }

    #[test]
    fn p99_of_a_hundred_is_the_99th() {
        let mut histogram = LatencyHistogram::new();
        (1..=100).for_each(|_| histogram.record(10));
        assert_eq!(histogram.p99_us(), Some(10));
        histogram.record(1_000_000);
        histogram.record(1_000_000);
        assert_eq!(histogram.p99_us(), Some(1_000_000));
        assert_eq!(histogram.quantile_us(500_000), Some(10));
    }

    #[test]
    fn merging_equals_recording_together() {
        let (mut a, mut b, mut both) = Default::default();
        let record = |h: &mut LatencyHistogram, v| h.record(v);
        for v in [1, 50, 7_000, u32::MAX] {
            record(&mut a, v);
            record(&mut both, v);
        }
        for v in [0, 90_000] {
            record(&mut b, v);
            record(&mut both, v);
        }
        a.merge(&b);
        assert_eq!(a, both);
    }

    #[test]
    fn nothing_recorded_has_no_quantile() {
        assert_eq!(LatencyHistogram::new().p99_us(), None);
    }
}

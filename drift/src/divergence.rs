//! How far live counts are from the baseline's: PSI and chi-square with p-values, and distances.
//!
//! Only inner bins take part; special counters have tests of their own in [`mod@crate::rates`].
//! Definitions: n is the baseline's sum, m the live sum, over the bins that the baseline fills.

use serde::{Deserialize, Serialize};

use crate::baseline::BINS_MAX;
use crate::counts::Counts;
use crate::gamma::chi_square_survival;

/// Neighbouring bins are merged until each expects this many live values, the usual condition for
/// chi-square to describe the statistic (Cochran, Biometrics 10, 1954).
pub const EXPECTED_MIN: u64 = 5;

/// The population stability index, and what its size would be by chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Psi {
    /// Σ (p − q) ln(p / q) over the merged bins, half a count added to each.
    pub value: f64,
    /// What PSI is on average without any drift: (K − 1)(1/n + 1/m).
    pub bias: f64,
    /// Chance of a PSI at least this large without drift.
    pub p_value: f64,
    /// Bins left after merging (K), at least 2.
    pub bins_left: u32,
    /// Baseline values.
    pub n: u64,
    /// Live values.
    pub m: u64,
}

impl Psi {
    /// The effect size: what exceeds the bias, 0 at least. Comparable over window lengths, which
    /// the raw value is not.
    pub fn excess(&self) -> f64 {
        (self.value - self.bias).max(0.0)
    }
}

/// The chi-square test of homogeneity of two rows of counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChiSquare {
    /// Σ (seen − expected)² / expected over both rows, without correction.
    pub statistic: f64,
    /// Filled columns less one.
    pub degrees: u32,
    /// Chance of a statistic at least this large without drift.
    pub p_value: f64,
}

/// Distances between the shares of all inner bins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// Jensen–Shannon distance (the square root), natural logarithm: 0 to √ln 2.
    pub jensen_shannon: f64,
    /// The same with base 2: 0 to 1.
    pub jensen_shannon_base2: f64,
    /// Hellinger distance: 0 to 1.
    pub hellinger: f64,
    /// Total variation: 0 to 1.
    pub total_variation: f64,
    /// The largest difference of a bin's share.
    pub largest: f64,
    /// Kolmogorov–Smirnov on the bin edges: never above the exact statistic, and below it by at
    /// most the largest bin's share. Means nothing for categories.
    pub kolmogorov_smirnov: f64,
}

/// PSI as other tools compute it, on unmerged shares, for comparing dashboards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PsiMode {
    /// Shares of zero become 1e-4, or a millionth of the smallest other share where that share is
    /// at most 1e-4; nothing is renormalised.
    Evidently,
    /// 1e-10 is added to each share.
    Scouter,
    /// Shares are at least 0.01.
    Deepchecks,
}

/// PSI of `live` against `base`, with its p-value from χ²(K − 1) ≈ PSI / (1/n + 1/m).
///
/// `None` if fewer than two bins are left, so that nothing can be said, or if the counts have
/// different bins. docs/drift-calibration.md tells how true the p-value is.
pub fn psi(base: &Counts, live: &Counts) -> Option<Psi> {
    let merged = Merged::of(base, live)?;
    let (n, m, k) = (merged.n as f64, merged.m as f64, merged.len as f64);
    let mut value = 0.0;
    for (seen_base, seen_live) in merged.pairs() {
        let p = (seen_base as f64 + 0.5) / (n + k / 2.0);
        let q = (seen_live as f64 + 0.5) / (m + k / 2.0);
        value += (p - q) * libm::log(p / q);
    }
    let unit = 1.0 / n + 1.0 / m;
    let degrees = merged.len as u32 - 1;
    Some(Psi {
        value,
        bias: f64::from(degrees) * unit,
        p_value: chi_square_survival(value / unit, degrees),
        bins_left: merged.len as u32,
        n: merged.n,
        m: merged.m,
    })
}

/// Chi-square homogeneity of `live` and `base` over the same merged bins as [`psi`].
pub fn chi_square(base: &Counts, live: &Counts) -> Option<ChiSquare> {
    let merged = Merged::of(base, live)?;
    homogeneity(&merged.base[..merged.len], &merged.live[..merged.len])
}

/// The chi-square test of two rows of counts as they are: scipy's `chi2_contingency` with
/// `correction=False`. Columns empty in both rows are left out; `None` if fewer than two columns
/// or an empty row remain, or if the rows differ in length.
pub fn homogeneity(base: &[u64], live: &[u64]) -> Option<ChiSquare> {
    let (n, m) = (
        base.iter().sum::<u64>() as f64,
        live.iter().sum::<u64>() as f64,
    );
    if base.len() != live.len() || n == 0.0 || m == 0.0 {
        return None;
    }
    let (mut statistic, mut columns) = (0.0, 0_u32);
    for (seen_base, seen_live) in base.iter().zip(live) {
        let (seen_base, seen_live) = (*seen_base as f64, *seen_live as f64);
        let column = seen_base + seen_live;
        if column == 0.0 {
            continue;
        }
        columns += 1;
        for (seen, row) in [(seen_base, n), (seen_live, m)] {
            let expected = column * row / (n + m);
            statistic += (seen - expected) * (seen - expected) / expected;
        }
    }
    let degrees = columns.checked_sub(1).filter(|degrees| *degrees > 0)?;
    Some(ChiSquare {
        statistic,
        degrees,
        p_value: chi_square_survival(statistic, degrees),
    })
}

/// Distances between the shares of the inner bins. `None` if either side counted nothing there,
/// or if the counts have different bins.
pub fn distances(base: &Counts, live: &Counts) -> Option<Distances> {
    let (mut js, mut hellinger, mut variation) = (0.0, 0.0, 0.0);
    let (mut largest, mut ks, mut ahead) = (0.0_f64, 0.0_f64, 0.0);
    for (p, q) in shares(base, live)? {
        let middle = (p + q) / 2.0;
        js += (relative(p, middle) + relative(q, middle)) / 2.0;
        let root = libm::sqrt(p) - libm::sqrt(q);
        hellinger += root * root;
        let apart = libm::fabs(p - q);
        variation += apart;
        largest = largest.max(apart);
        ahead += p - q;
        ks = ks.max(libm::fabs(ahead));
    }
    let js = js.max(0.0);
    Some(Distances {
        jensen_shannon: libm::sqrt(js),
        jensen_shannon_base2: libm::sqrt(js / core::f64::consts::LN_2),
        hellinger: libm::sqrt(hellinger / 2.0),
        total_variation: variation / 2.0,
        largest,
        kolmogorov_smirnov: ks,
    })
}

/// PSI on unmerged shares, as another tool would give it. It has no p-value, and a fixed limit on
/// it is wrong at small m: use [`psi`] for decisions.
pub fn psi_as(mode: PsiMode, base: &Counts, live: &Counts) -> Option<f64> {
    let floor = |zero: f64, share: f64| match mode {
        PsiMode::Evidently if share == 0.0 => zero,
        PsiMode::Evidently => share,
        PsiMode::Scouter => share + 1e-10,
        PsiMode::Deepchecks => share.max(0.01),
    };
    let zero_base = evidently_zero(shares(base, live)?.map(|(p, _)| p));
    let zero_live = evidently_zero(shares(base, live)?.map(|(_, q)| q));
    let pairs = shares(base, live)?.map(|(p, q)| (floor(zero_base, p), floor(zero_live, q)));
    Some(pairs.map(|(p, q)| (p - q) * libm::log(p / q)).sum())
}

/// What Evidently puts in place of a share of zero.
fn evidently_zero(shares: impl Iterator<Item = f64>) -> f64 {
    let smallest = shares
        .filter(|share| *share > 0.0)
        .fold(f64::INFINITY, f64::min);
    if smallest <= 1e-4 {
        smallest / 1e6
    } else {
        1e-4
    }
}

fn shares<'a>(base: &'a Counts, live: &'a Counts) -> Option<impl Iterator<Item = (f64, f64)> + 'a> {
    let (n, m) = (base.in_bins() as f64, live.in_bins() as f64);
    if base.bins().len() != live.bins().len() || n == 0.0 || m == 0.0 {
        return None;
    }
    let pairs = base.bins().iter().zip(live.bins());
    Some(pairs.map(move |(b, l)| (f64::from(*b) / n, f64::from(*l) / m)))
}

/// p ln(p / q), which is 0 at p = 0.
fn relative(p: f64, q: f64) -> f64 {
    if p > 0.0 { p * libm::log(p / q) } else { 0.0 }
}

/// Counts over bins that the baseline fills, neighbours merged.
struct Merged {
    base: [u64; BINS_MAX],
    live: [u64; BINS_MAX],
    len: usize,
    n: u64,
    m: u64,
}

impl Merged {
    /// `None` if fewer than two bins are left. How bins merge depends on the baseline and on m
    /// alone, never on where the live values fell.
    fn of(base: &Counts, live: &Counts) -> Option<Self> {
        if base.bins().len() != live.bins().len() {
            return None;
        }
        let filled = || base.bins().iter().zip(live.bins()).filter(|(b, _)| **b > 0);
        let n: u64 = filled().map(|(b, _)| u64::from(*b)).sum();
        let m: u64 = filled().map(|(_, l)| u64::from(*l)).sum();
        let mut merged = Self {
            base: [0; BINS_MAX],
            live: [0; BINS_MAX],
            len: 0,
            n,
            m,
        };
        let (mut open_base, mut open_live) = (0_u64, 0_u64);
        for (b, l) in filled() {
            open_base += u64::from(*b);
            open_live += u64::from(*l);
            // m · n_b / n ≥ 5, in integers.
            if u128::from(open_base) * u128::from(m) >= u128::from(EXPECTED_MIN) * u128::from(n) {
                merged.base[merged.len] = open_base;
                merged.live[merged.len] = open_live;
                merged.len += 1;
                (open_base, open_live) = (0, 0);
            }
        }
        if merged.len < 2 {
            return None;
        }
        // What is left over expects too few by itself and joins its neighbour.
        merged.base[merged.len - 1] += open_base;
        merged.live[merged.len - 1] += open_live;
        Some(merged)
    }

    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.base[..self.len]
            .iter()
            .copied()
            .zip(self.live[..self.len].iter().copied())
    }
}

//! Rate tests of the special counters, each against the baseline's own rate.
//!
//! The test is Fisher's exact test of the 2×2 table (baseline, live) × (counted here, elsewhere),
//! two-sided by doubling the smaller tail. For values beyond the training range, whose baseline
//! count is zero by construction, its tail C(m, x) / C(n + m, x) is also the exact chance that the
//! x most extreme of n + m exchangeable values all fall among the m live ones, so it holds there
//! too. Where the smallest expected cell is at least 100 the chi-square test of that table stands
//! in. Intervals are Wilson's (JASA 22, 1927).

use serde::{Deserialize, Serialize};

use crate::counts::{Counts, Special};
use crate::divergence::homogeneity;

/// From this expected count on, chi-square is as good as the exact test and needs no sum.
const EXPECTED_EXACT_MAX: f64 = 100.0;
/// Terms of an exact tail at most. Its variable expects fewer than [`EXPECTED_EXACT_MAX`], so the
/// terms die out long before.
const TERMS_MAX: u64 = 100_000;
/// The 97.5 % point of the normal distribution, for intervals of 95 %.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// What a rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Counter {
    /// A special counter.
    Special(Special),
    /// Inner bins that the baseline left empty, such as a declared code never seen in training.
    Unseen,
}

/// A counter's rate, live against baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Which counter.
    pub counter: Counter,
    /// Baseline values counted here, and in all.
    pub base: (u64, u64),
    /// Live values counted here, and in all.
    pub live: (u64, u64),
    /// Chance of rates at least this far apart without drift.
    pub p_value: f64,
    /// Wilson interval of 95 % of the live rate.
    pub interval: (f64, f64),
}

impl Rate {
    /// The effect size: live rate less baseline rate, −1 to 1.
    pub fn change(&self) -> f64 {
        share(self.live) - share(self.base)
    }
}

/// The tests of all counters that either side has used; nothing if a side counted no value.
pub fn rates<'a>(base: &'a Counts, live: &'a Counts) -> impl Iterator<Item = Rate> + 'a {
    let specials = Special::ALL.into_iter().map(Counter::Special);
    specials
        .chain([Counter::Unseen])
        .filter_map(move |counter| rate(counter, base, live))
}

/// The test of one counter. `None` if neither side has used it, or if a side counted no value.
pub fn rate(counter: Counter, base: &Counts, live: &Counts) -> Option<Rate> {
    let here = |counts: &Counts| match counter {
        Counter::Special(special) => u64::from(counts.special(special)),
        Counter::Unseen => {
            let unseen = base
                .bins()
                .iter()
                .zip(counts.bins())
                .filter(|(seen, _)| **seen == 0);
            unseen.map(|(_, count)| u64::from(*count)).sum()
        }
    };
    let (seen_base, seen_live) = ((here(base), base.total()), (here(live), live.total()));
    if seen_base.1 == 0 || seen_live.1 == 0 || seen_base.0 + seen_live.0 == 0 {
        return None;
    }
    Some(Rate {
        counter,
        base: seen_base,
        live: seen_live,
        p_value: rates_differ(seen_base, seen_live),
        interval: wilson(seen_live.0, seen_live.1, Z_95),
    })
}

/// The Wilson score interval of `count` in `of` trials at `z` standard deviations; (0, 1) without
/// trials.
pub fn wilson(count: u64, of: u64, z: f64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (of as f64, count as f64 / of as f64);
    let centre = p + z * z / (2.0 * n);
    let reach = z * libm::sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n));
    let whole = 1.0 + z * z / n;
    let low = if count == 0 {
        0.0
    } else {
        ((centre - reach) / whole).max(0.0)
    };
    let high = if count >= of {
        1.0
    } else {
        ((centre + reach) / whole).min(1.0)
    };
    (low, high)
}

/// Two-sided p-value that two shares, each (count, of), come from one rate. 1 for empty sides and
/// for counts beyond their total.
pub fn rates_differ(base: (u64, u64), live: (u64, u64)) -> f64 {
    if base.1 == 0 || live.1 == 0 || base.0 > base.1 || live.0 > live.1 {
        return 1.0;
    }
    let all = (base.1 + live.1) as f64;
    let rows = [base.1, live.1];
    let columns = [base.0 + live.0, base.1 - base.0 + live.1 - live.0];
    let row = usize::from(rows[1] < rows[0]);
    let column = usize::from(columns[1] < columns[0]);
    if rows[row] as f64 * columns[column] as f64 / all >= EXPECTED_EXACT_MAX {
        let elsewhere = [base.1 - base.0, live.1 - live.0];
        return match homogeneity(&[base.0, elsewhere[0]], &[live.0, elsewhere[1]]) {
            Some(test) => test.p_value,
            None => 1.0,
        };
    }
    let side = [base, live][row];
    let seen = if column == 0 { side.0 } else { side.1 - side.0 };
    let table = Hypergeometric {
        row: rows[row],
        column: columns[column],
        all: base.1 + live.1,
    };
    (2.0 * table.smaller_tail(seen)).min(1.0)
}

/// The count in one cell of a 2×2 table with fixed margins.
struct Hypergeometric {
    row: u64,
    column: u64,
    all: u64,
}

impl Hypergeometric {
    /// The chance of `seen` or anything further from the mean on its side.
    fn smaller_tail(&self, seen: u64) -> f64 {
        let mean = self.row as f64 * self.column as f64 / self.all as f64;
        let first = self.probability(seen);
        let (mut term, mut sum, mut x) = (first, first, seen);
        for _ in 0..TERMS_MAX {
            if (seen as f64) < mean {
                let least = (self.row + self.column).saturating_sub(self.all);
                if x == least {
                    break;
                }
                term /= self.ratio(x - 1);
                x -= 1;
            } else {
                if x == self.row.min(self.column) {
                    break;
                }
                term *= self.ratio(x);
                x += 1;
            }
            sum += term;
            if term < sum * 1e-17 {
                break;
            }
        }
        sum
    }

    /// P(x + 1) / P(x).
    fn ratio(&self, x: u64) -> f64 {
        let up = (self.row - x) as f64 * (self.column - x) as f64;
        let rest = (self.all + x + 1 - self.row - self.column) as f64;
        up / ((x + 1) as f64 * rest)
    }

    fn probability(&self, x: u64) -> f64 {
        let elsewhere = self.all - self.column;
        libm::exp(
            ln_choose(self.column, x) + ln_choose(elsewhere, self.row - x)
                - ln_choose(self.all, self.row),
        )
    }
}

/// ln C(n, k).
fn ln_choose(n: u64, k: u64) -> f64 {
    let ln_factorial = |n: u64| libm::lgamma(n as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

fn share((count, of): (u64, u64)) -> f64 {
    if of == 0 {
        0.0
    } else {
        count as f64 / of as f64
    }
}

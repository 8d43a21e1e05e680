//! How often the PSI's p-value cries out where nothing has changed, by simulation.
//!
//! The whole table goes to docs/drift-calibration.md:
//! `cargo test --release -p bellwether-drift --test calibration -- --ignored`
#![allow(clippy::unwrap_used)] // Helpers of tests panic as tests do.

use std::fmt::Write as _;

use bellwether_drift::{Counts, FieldBaseline, psi};

/// The table's seed; any other gives the same within its standard error.
const SEED: u64 = 20_261_123;
const LEVEL: f64 = 0.05;

/// Marsaglia's xorshift64*; enough for uniform values.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1 << 24) as f32
    }
}

#[derive(Clone, Copy)]
enum Shape {
    /// Any continuous field: quantile bins make them all alike.
    Quantiles,
    /// Codes, each half as frequent as the one before, the last as the one before it.
    Halving,
}

impl Shape {
    fn baseline(self, n: usize, bins: usize, random: &mut Random) -> FieldBaseline {
        match self {
            Self::Quantiles => {
                let samples: Vec<f32> = (0..n).map(|_| random.uniform()).collect();
                FieldBaseline::numeric("x", &samples, bins).unwrap()
            }
            Self::Halving => {
                let domain: Vec<i64> = (0..bins as i64).collect();
                let codes: Vec<i64> = (0..n).map(|_| halving(bins, random)).collect();
                FieldBaseline::categorical("x", &codes, &domain).unwrap()
            }
        }
    }

    fn observe(
        self,
        baseline: &FieldBaseline,
        m: usize,
        bins: usize,
        random: &mut Random,
    ) -> Counts {
        let mut counts = Counts::new(baseline.bins());
        for _ in 0..m {
            match self {
                Self::Quantiles => counts.observe(baseline, random.uniform()),
                Self::Halving => counts.observe_code(baseline, halving(bins, random)),
            };
        }
        counts
    }
}

fn halving(bins: usize, random: &mut Random) -> i64 {
    let mut floor = 0.5;
    let value = random.uniform();
    let mut code = 0;
    while code + 1 < bins && value < floor {
        floor /= 2.0;
        code += 1;
    }
    code as i64
}

struct Cell {
    alarms: f64,
    /// Mean PSI over its stated bias.
    bias: f64,
    /// Share of windows whose raw PSI passes the customary 0.1.
    customary: f64,
    bins_left: f64,
}

fn simulate(shape: Shape, n: usize, m: usize, bins: usize, trials: usize) -> Option<Cell> {
    let mut random = Random(SEED ^ ((n * 31 + m) * 31 + bins) as u64);
    let mut cell = Cell {
        alarms: 0.0,
        bias: 0.0,
        customary: 0.0,
        bins_left: 0.0,
    };
    let mut looks = 0.0;
    for _ in 0..trials {
        let baseline = shape.baseline(n, bins, &mut random);
        let live = shape.observe(&baseline, m, bins, &mut random);
        let Some(psi) = psi(baseline.counts(), &live) else {
            continue;
        };
        looks += 1.0;
        cell.alarms += f64::from(u8::from(psi.p_value <= LEVEL));
        cell.bias += psi.value / psi.bias;
        cell.customary += f64::from(u8::from(psi.value > 0.1));
        cell.bins_left += f64::from(psi.bins_left);
    }
    if looks < trials as f64 / 2.0 {
        return None;
    }
    cell.alarms /= looks;
    cell.bias /= looks;
    cell.customary /= looks;
    cell.bins_left /= looks;
    Some(cell)
}

#[test]
fn false_alarms_of_psi_stay_within_limits() {
    for shape in [Shape::Quantiles, Shape::Halving] {
        for (n, m, bins) in [
            (1000, 50, 10),
            (1000, 500, 16),
            (2000, 100, 4),
            (500, 500, 8),
        ] {
            let cell = simulate(shape, n, m, bins, 1000).unwrap();
            let rate = cell.alarms;
            assert!(
                (0.025..=0.075).contains(&rate),
                "n {n}, m {m}, {bins} bins: {rate}"
            );
            assert!(
                (0.85..=1.15).contains(&cell.bias),
                "n {n}, m {m}, {bins} bins: {}",
                cell.bias
            );
        }
    }
}

#[test]
#[ignore = "writes docs/drift-calibration.md; minutes without --release"]
fn calibration_table_is_written() {
    const TRIALS: usize = 4000;
    let mut page = String::new();
    let (mut least, mut most) = (1.0_f64, 0.0_f64);
    for (shape, title) in [
        (Shape::Quantiles, "Continuous field, quantile bins"),
        (
            Shape::Halving,
            "Categorical field, each code half as frequent as the one before",
        ),
    ] {
        write!(page, "\n## {title}\n\n{HEAD}").unwrap();
        for n in [200, 1000, 10_000] {
            for m in [50, 100, 500, 5000] {
                for bins in [4, 8, 16] {
                    let row = match simulate(shape, n, m, bins, TRIALS) {
                        Some(cell) => {
                            least = least.min(cell.alarms);
                            most = most.max(cell.alarms);
                            format!(
                                "{:.1} | {:.1} % | {:.2} | {:.1} %",
                                cell.bins_left,
                                cell.alarms * 100.0,
                                cell.bias,
                                cell.customary * 100.0
                            )
                        }
                        None => "under 2 | mostly insufficient | |".into(),
                    };
                    writeln!(page, "| {n} | {m} | {bins} | {row} |").unwrap();
                }
            }
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/drift-calibration.md");
    let range = format!(
        "\nOver all rows below, alarms at 5 % range from {:.1} % to {:.1} %.\n",
        least * 100.0,
        most * 100.0
    );
    std::fs::write(path, [INTRODUCTION, &range, &page].concat()).unwrap();
}

const HEAD: &str = "\
| n | m | bins | K, mean | alarms at 5 % | PSI / bias, mean | PSI > 0.1 |
|---:|---:|---:|---:|---:|---:|---:|
";

const INTRODUCTION: &str = "\
# Calibration of the drift p-value

How often the p-value of the native PSI is at most 5 % where nothing has changed: baseline and
live values come from one distribution. 4000 trials a row, so an exact test would show 4.3 % to
5.7 % (two standard errors). Each trial draws a new baseline of n values and a new window of m.
Written by a fixed seed with

    cargo test --release -p bellwether-drift --test calibration -- --ignored

The p-value is χ²(K − 1) ≈ PSI / (1/n + 1/m), over K bins left after neighbours are merged until
each expects five live values. *PSI / bias* should be 1: PSI without drift is on average
(K − 1)(1/n + 1/m). The last column is the share of windows that the customary limit, PSI > 0.1,
would call drifted.
";

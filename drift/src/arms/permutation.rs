//! The permutation test of treated devices against control devices.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{choose, median, trimmed_mean};

/// Up to this many assignments are all tried, so that the p-value is exact. C(20, 6) fits; a
/// planner that decides once a minute doesn't notice it.
pub const ENUMERATION_MAX: u64 = 50_000;
/// Random assignments at most.
pub const DRAWS_MAX: u32 = 1_000_000;
/// Devices of both arms at most, so that a test ends within seconds.
pub const ARM_DEVICES_MAX: usize = 65_536;

/// What is compared between the arms.
///
/// Wire enum: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statistic {
    /// Mean rank of treated less mean rank of control among all devices (Wilcoxon). A device's
    /// weight is bounded by its rank; arms that don't overlap reach [`super::least_p`] exactly.
    RankMean,
    /// Difference of medians. Many assignments tie, so p-values are coarse.
    Median,
    /// Difference of trimmed means; an arm that trimming would empty uses its median.
    TrimmedMean {
        /// Devices left out at each end of each arm.
        trim: u32,
    },
}

/// Which differences are as extreme as the one seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tail {
    /// Treated at least this much above control.
    Greater,
    /// At least this far apart, either way. Cannot reach [`super::least_p`], only about twice it.
    Either,
}

/// The result of a permutation test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Permutation {
    /// Treated less control, by the chosen statistic.
    pub difference: f64,
    /// Share of assignments of devices to arms with a difference at least as extreme.
    pub p_value: f64,
    /// Whether every assignment was tried; else `draws` random ones, and p = (b + 1)/(draws + 1).
    pub exact: bool,
    /// Assignments tried.
    pub draws: u64,
}

/// A device's score seen, and the score that its own release's baseline lets expect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// What was seen.
    pub seen: f64,
    /// What was to be expected of that release.
    pub expected: f64,
}

impl Pair {
    /// Seen less expected.
    pub fn excess(&self) -> f64 {
        self.seen - self.expected
    }
}

/// A difference in differences: medians of the arms' excesses, and the test between them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Median over treated devices of what they exceed their own expectation by.
    pub treated: f64,
    /// The same over control devices.
    pub control: f64,
    /// The test of one against the other.
    pub test: Permutation,
}

/// Why no test was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmsError {
    /// An arm has no device: hold until it does.
    #[error("an arm has no device")]
    Empty,
    /// A device's score is NaN or infinite: leave the device out, and say so.
    #[error("a device's score is not finite")]
    NotFinite,
    /// More than [`ARM_DEVICES_MAX`] devices: test a random sample of them.
    #[error("more than {ARM_DEVICES_MAX} devices")]
    TooMany,
    /// No draws, or more than [`DRAWS_MAX`].
    #[error("draws must be 1 to {DRAWS_MAX}")]
    Draws,
}

/// Tests whether treated devices score differently from control devices.
///
/// Tries all C(n, k) assignments if they are at most [`ENUMERATION_MAX`], else `draws` random ones
/// from `seed`: the same arguments always give the same bits.
pub fn permutation(
    treated: &[f64],
    control: &[f64],
    statistic: Statistic,
    tail: Tail,
    draws: u32,
    seed: u64,
) -> Result<Permutation, ArmsError> {
    check(treated, control, draws)?;
    let mut pooled: Vec<f64> = treated.iter().chain(control).copied().collect();
    if statistic == Statistic::RankMean {
        pooled = ranks(&pooled);
    }
    let mut trial = Trial::new(&pooled, treated.len(), statistic, tail);
    let order: Vec<usize> = (0..pooled.len()).collect();
    let difference = trial.difference(&order[..treated.len()]);
    trial.least = trial.extremity(difference);
    let ways = choose(pooled.len() as u64, treated.len() as u64);
    match ways.filter(|ways| *ways <= ENUMERATION_MAX) {
        Some(ways) => {
            let extreme = enumerate(&mut trial, pooled.len(), treated.len());
            let p_value = extreme as f64 / ways as f64;
            Ok(Permutation {
                difference,
                p_value,
                exact: true,
                draws: ways,
            })
        }
        None => {
            let extreme = sample(&mut trial, order, treated.len(), draws, seed);
            let p_value = (extreme + 1) as f64 / (f64::from(draws) + 1.0);
            Ok(Permutation {
                difference,
                p_value,
                exact: false,
                draws: u64::from(draws),
            })
        }
    }
}

/// Compares what treated and control devices exceed their own releases' expectations by, so that
/// neither a change of the world nor a release that is meant to answer differently counts.
pub fn difference_in_differences(
    treated: &[Pair],
    control: &[Pair],
    statistic: Statistic,
    tail: Tail,
    draws: u32,
    seed: u64,
) -> Result<Moved, ArmsError> {
    let mut treated: Vec<f64> = treated.iter().map(Pair::excess).collect();
    let mut control: Vec<f64> = control.iter().map(Pair::excess).collect();
    let test = permutation(&treated, &control, statistic, tail, draws, seed)?;
    let of = |arm: &mut [f64]| median(arm).ok_or(ArmsError::Empty);
    Ok(Moved {
        treated: of(&mut treated)?,
        control: of(&mut control)?,
        test,
    })
}

fn check(treated: &[f64], control: &[f64], draws: u32) -> Result<(), ArmsError> {
    if treated.is_empty() || control.is_empty() {
        return Err(ArmsError::Empty);
    }
    if treated.len() + control.len() > ARM_DEVICES_MAX {
        return Err(ArmsError::TooMany);
    }
    if treated
        .iter()
        .chain(control)
        .any(|score| !score.is_finite())
    {
        return Err(ArmsError::NotFinite);
    }
    if draws == 0 || draws > DRAWS_MAX {
        Err(ArmsError::Draws)
    } else {
        Ok(())
    }
}

/// Ranks from 1, ties sharing their mean.
fn ranks(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = |score: &f64| {
        let below = sorted.partition_point(|other| other < score);
        let through = sorted.partition_point(|other| other <= score);
        (below + through + 1) as f64 / 2.0
    };
    scores.iter().map(rank).collect()
}

/// One assignment of devices to arms after another, against the one seen.
struct Trial<'a> {
    pooled: &'a [f64],
    statistic: Statistic,
    tail: Tail,
    /// Extremity of the difference seen, less what rounding may cost.
    least: f64,
    slack: f64,
    total: f64,
    treated: Vec<f64>,
    control: Vec<f64>,
    chosen: Vec<bool>,
}

impl<'a> Trial<'a> {
    fn new(pooled: &'a [f64], treated: usize, statistic: Statistic, tail: Tail) -> Self {
        let largest = pooled
            .iter()
            .fold(0.0_f64, |most, score| most.max(libm::fabs(*score)));
        Self {
            pooled,
            statistic,
            tail,
            least: 0.0,
            // Sums of the same scores in another order differ by rounding; they are still ties.
            slack: largest * 1e-12,
            total: pooled.iter().sum(),
            treated: Vec::with_capacity(treated),
            control: Vec::with_capacity(pooled.len() - treated),
            chosen: alloc::vec![false; pooled.len()],
        }
    }

    fn extremity(&self, difference: f64) -> f64 {
        match self.tail {
            Tail::Greater => difference,
            Tail::Either => libm::fabs(difference),
        }
    }

    fn is_extreme(&mut self, treated: &[usize]) -> bool {
        let difference = self.difference(treated);
        self.extremity(difference) >= self.least - self.slack
    }

    fn difference(&mut self, treated: &[usize]) -> f64 {
        if self.statistic == Statistic::RankMean {
            // Ranks are halves of integers: the sum is exact.
            let sum: f64 = treated.iter().map(|device| self.pooled[*device]).sum();
            let rest = (self.pooled.len() - treated.len()) as f64;
            return sum / treated.len() as f64 - (self.total - sum) / rest;
        }
        self.split(treated);
        let statistic = self.statistic;
        let of = |arm: &mut Vec<f64>| {
            let trimmed = match statistic {
                Statistic::TrimmedMean { trim } => trimmed_mean(arm, trim as usize),
                Statistic::RankMean | Statistic::Median => None,
            };
            // Arms are neither empty nor NaN, as `check` made sure.
            trimmed.or_else(|| median(arm)).unwrap_or(0.0)
        };
        of(&mut self.treated) - of(&mut self.control)
    }

    fn split(&mut self, treated: &[usize]) {
        self.chosen.fill(false);
        for device in treated {
            self.chosen[*device] = true;
        }
        self.treated.clear();
        self.control.clear();
        for (score, chosen) in self.pooled.iter().zip(&self.chosen) {
            if *chosen {
                self.treated.push(*score)
            } else {
                self.control.push(*score)
            }
        }
    }
}

/// How many of all k-subsets of n are extreme, in lexicographic order.
fn enumerate(trial: &mut Trial<'_>, n: usize, k: usize) -> u64 {
    let mut subset: Vec<usize> = (0..k).collect();
    let mut extreme = 0;
    loop {
        extreme += u64::from(trial.is_extreme(&subset));
        // The last place that can still move up; those after it follow closely.
        let Some(place) = (0..k).rev().find(|place| subset[*place] < n - k + place) else {
            return extreme;
        };
        subset[place] += 1;
        for next in place + 1..k {
            subset[next] = subset[next - 1] + 1;
        }
    }
}

/// How many of `draws` random k-subsets are extreme.
fn sample(trial: &mut Trial<'_>, mut order: Vec<usize>, k: usize, draws: u32, seed: u64) -> u64 {
    let mut random = SplitMix64(seed);
    let mut extreme = 0;
    for _ in 0..draws {
        for place in 0..k {
            let other = place + random.below(order.len() - place);
            order.swap(place, other);
        }
        extreme += u64::from(trial.is_extreme(&order[..k]));
    }
    extreme
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `bound` − 1. The bias of the product is below 2^-47 for at most 65 536 devices.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

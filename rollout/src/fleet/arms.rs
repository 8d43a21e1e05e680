//! Treated against control, over devices, some of which may lie.
//!
//! Each device weighs the same: figures are medians over devices, and the test counts devices. Each
//! device becomes one bit: whether its value lies at least `rise` above the control arm's median.
//! Under the hypothesis that the arms are alike, every choice of the treated devices was as likely
//! as the one that was drawn, so p = share of choices that hold at least as many such devices: the
//! permutation test of [`bellwether_drift::arms`] on bits, which is Fisher's exact test. If the arms
//! are fully apart, only the drawn choice reaches it, and p = 1/C(n, k).
//!
//! Bits, because one lying device can change one bit only. It moves a sum of ranks or a mean much
//! further, and a median over three devices is reached by many choices.

use alloc::vec::Vec;

use bellwether_drift::arms::{self, Statistic, Tail};

/// Random choices at least, where there are too many to try all. The p-value's standard error is
/// then 0.3 % at 0.05.
pub const DRAWS_MIN: u32 = 4_999;
/// Random choices at most: enough for the least alpha that a policy may ask for.
pub const DRAWS_MAX: u32 = 199_999;

/// Treated against control.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// Median of the treated devices.
    pub treated: f64,
    /// Median of the control devices.
    pub control: f64,
    /// Share of choices of treated devices that show as much.
    pub p_value: f64,
}

/// Compares one finite value per device; `None` if an arm is empty or a value is not finite.
/// `alpha` says how fine a p-value must be told, `seed` draws the random choices where there are
/// too many to try all.
pub fn compare(
    treated: &[f64],
    control: &[f64],
    rise: f64,
    alpha: f64,
    seed: u64,
) -> Option<Compared> {
    let (treated_median, control_median) = (median(treated)?, median(control)?);
    let floor = control_median + rise;
    let bits = |arm: &[f64]| -> Vec<f64> {
        arm.iter()
            .map(|value| f64::from(u8::from(*value >= floor)))
            .collect()
    };
    let p_value = if treated_median < floor {
        // Nobody asks how certain a difference is that is too small to matter.
        1.0
    } else {
        let draws = (libm::ceil(20.0 / alpha) as u32).clamp(DRAWS_MIN, DRAWS_MAX);
        let share = Statistic::TrimmedMean { trim: 0 };
        arms::permutation(
            &bits(treated),
            &bits(control),
            share,
            Tail::Greater,
            draws,
            seed,
        )
        .ok()?
        .p_value
    };
    Some(Compared {
        treated: treated_median,
        control: control_median,
        p_value,
    })
}

/// The median; `None` of nothing, or if a value is NaN.
pub fn median(values: &[f64]) -> Option<f64> {
    arms::median(&mut values.to_vec())
}

/// The least p-value that `treated` of `devices` devices can show although `liars` of them, in
/// whichever arm, say the opposite of the truth.
///
/// Without liars it is 1/C(n, k). With j liars among the treated (who claim to be well) and f − j in
/// the control arm (who claim to be ill), k − j treated devices are ill among k + f − 2j in all, and
/// p is the hypergeometric tail P(X ≥ k − j). The worst j counts. 1 if an arm would be empty.
pub fn p_least(devices: u32, treated: u32, liars: u32) -> f64 {
    let (n, k) = (devices, treated);
    if k == 0 || k >= n || liars >= k {
        return 1.0;
    }
    let all = ln_choose(n, k);
    let tail = |j: u32| {
        let ill = (k - j + (liars - j)).min(n);
        (k - j..=k.min(ill))
            .filter(|x| k - x <= n - ill)
            .map(|x| libm::exp(ln_choose(ill, x) + ln_choose(n - ill, k - x) - all))
            .sum::<f64>()
    };
    (0..=liars).map(tail).fold(0.0, f64::max).min(1.0)
}

/// ln C(n, k).
fn ln_choose(n: u32, k: u32) -> f64 {
    let ln_factorial = |m: u32| libm::lgamma(f64::from(m) + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

//! Figures and tests over devices. Each device weighs the same, however much it counted.
//!
//! Rows of one device are not independent, so the device is the unit: each brings one score, and
//! the treated arm is compared with the control arm by permuting which devices were treated. That
//! needs no assumption on the scores, only that devices were drawn at random.

#[cfg(feature = "alloc")]
mod permutation;

#[cfg(feature = "alloc")]
pub use permutation::{
    ARM_DEVICES_MAX, ArmsError, DRAWS_MAX, ENUMERATION_MAX, Moved, Pair, Permutation, Statistic,
    Tail, difference_in_differences, permutation,
};

/// The median; the mean of the two middle ones of an even number. Reorders `scores`. `None` if
/// there are none, or if one of them is NaN.
///
/// Fewer than half of the devices, however wild, cannot move it beyond the others' range.
pub fn median(scores: &mut [f64]) -> Option<f64> {
    if !ordered(scores) {
        return None;
    }
    let middle = scores.len() / 2;
    let upper = *scores.get(middle)?;
    if scores.len() % 2 == 1 {
        Some(upper)
    } else {
        Some(scores[middle - 1] / 2.0 + upper / 2.0)
    }
}

/// The mean without the `trim` lowest and the `trim` highest scores. Reorders `scores`. `None` if
/// none are left, or if one of them is NaN.
///
/// `trim` lying devices cannot move it beyond the honest ones' range.
pub fn trimmed_mean(scores: &mut [f64], trim: usize) -> Option<f64> {
    if !ordered(scores) {
        return None;
    }
    let end = scores.len().checked_sub(trim)?;
    let kept = scores.get(trim..end).filter(|kept| !kept.is_empty())?;
    Some(kept.iter().sum::<f64>() / kept.len() as f64)
}

/// The least one-sided p-value that a permutation test of that many devices can give:
/// 1 / C(treated + control, treated). 1 if an arm is empty. A policy that asks for less certainty
/// than this can never be satisfied.
pub fn least_p(treated: u32, control: u32) -> f64 {
    let (n, k) = (
        u64::from(treated) + u64::from(control),
        treated.min(control),
    );
    let mut p = 1.0;
    for i in 0..u64::from(k) {
        p *= (i + 1) as f64 / (n - i) as f64;
        if p == 0.0 {
            break;
        }
    }
    p
}

/// C(n, k), or `None` beyond u64.
pub fn choose(n: u64, k: u64) -> Option<u64> {
    let k = k.min(n.checked_sub(k)?);
    let mut ways: u64 = 1;
    for i in 0..k {
        // Exact at each step: `ways` is C(n, i), and C(n, i) · (n − i) divides by i + 1.
        ways = u64::try_from(u128::from(ways) * u128::from(n - i) / u128::from(i + 1)).ok()?;
    }
    Some(ways)
}

/// Sorts ascending; `false` if a score is NaN.
fn ordered(scores: &mut [f64]) -> bool {
    scores.sort_unstable_by(f64::total_cmp);
    !scores.iter().any(|score| score.is_nan())
}

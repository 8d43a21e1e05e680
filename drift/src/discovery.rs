//! Many tests at once: the false discovery rate of Benjamini and Hochberg (JRSS B 57, 1995).

use alloc::vec;
use alloc::vec::Vec;

/// Adjusted p-values, in the order given: min over j with p_j ≥ p_i of p_j · M / rank_j, at most
/// one. Those at or below q are discoveries, of which on average at most a share q is false.
/// The tests may be independent or positively dependent, as fields of one device are.
///
/// NaN counts as 1: a test that could not be made discovers nothing.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let known: Vec<f64> = p_values
        .iter()
        .map(|p| if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) })
        .collect();
    let mut order: Vec<usize> = (0..known.len()).collect();
    order.sort_by(|a, b| known[*a].total_cmp(&known[*b]));
    let mut adjusted = vec![1.0; known.len()];
    let mut least = 1.0_f64;
    for (rank, at) in order.iter().enumerate().rev() {
        least = least.min(known[*at] * known.len() as f64 / (rank + 1) as f64);
        adjusted[*at] = least;
    }
    adjusted
}

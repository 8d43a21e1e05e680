//! A single look at counts of several fields: figures of each field, and one verdict.
//!
//! For one look only. Looking again and again at growing counts fires in the end, however small
//! the false discovery rate is.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::baseline::FieldBaseline;
use crate::counts::{Counts, CountsError, Special};
use crate::discovery::benjamini_hochberg;
use crate::divergence::{ChiSquare, Distances, Psi, chi_square, distances, psi};
use crate::rates::{Counter, Rate, rates};
use crate::verdict::Verdict;

/// What counts as drift. There is no default: the operator answers for these.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Share of false ones that is accepted among the drifts found, such as 0.05.
    pub false_discovery_rate: f64,
    /// Least PSI beyond its bias ([`Psi::excess`]) that matters, such as 0.1.
    pub psi_min: f64,
    /// Least change of a special counter's rate that matters, such as 0.01.
    pub rate_change_min: f64,
    /// Values of a field below which nothing is said.
    pub values_min: u64,
}

/// On which side of the model a field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// Into the model.
    Input,
    /// Out of it: NaN and infinities here are a failure, not a drift.
    Output,
}

/// One field to look at.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// What it looked like in training.
    pub baseline: &'a FieldBaseline,
    /// What was counted since, under the same bins.
    pub counts: &'a Counts,
    /// Where it stands.
    pub side: Side,
}

/// What is seen in one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldLook {
    /// The field's name.
    pub name: String,
    /// Where it stands.
    pub side: Side,
    /// This field's verdict, given all fields that were tested along with it.
    pub verdict: Verdict,
    /// Values counted.
    pub values: u64,
    /// `None` if too few bins are left.
    pub psi: Option<Psi>,
    /// The PSI's p-value after Benjamini–Hochberg over all tests of this look.
    pub psi_p_adjusted: Option<f64>,
    /// Shown beside PSI, not part of the verdict: two tests of one hypothesis would cost power.
    pub chi_square: Option<ChiSquare>,
    /// Distances, not part of the verdict.
    pub distances: Option<Distances>,
    /// Each used special counter with its p-value after Benjamini–Hochberg.
    pub rates: Vec<(Rate, f64)>,
    /// Why the verdict is invalid, in words.
    pub fault: Option<String>,
}

/// What is seen in all fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The gravest verdict of a field; insufficient without fields.
    pub verdict: Verdict,
    /// In the order given.
    pub fields: Vec<FieldLook>,
}

/// Looks once at all fields together. A field has drifted if a p-value after Benjamini–Hochberg is
/// at most the false discovery rate *and* the effect is at least the threshold's.
pub fn look(fields: &[Field<'_>], thresholds: &Thresholds) -> Look {
    let mut seen: Vec<(FieldLook, Option<CountsError>)> = fields.iter().map(figures).collect();
    adjust(&mut seen);
    let mut verdict = None;
    let mut looks = Vec::with_capacity(seen.len());
    for ((mut one, fault), field) in seen.into_iter().zip(fields) {
        one.verdict = if fault.is_some() {
            Verdict::Invalid
        } else {
            judge(&one, field.baseline.counts(), thresholds)
        };
        verdict = Some(one.verdict.worst(verdict.unwrap_or(Verdict::Healthy)));
        looks.push(one);
    }
    Look {
        verdict: verdict.unwrap_or(Verdict::Insufficient),
        fields: looks,
    }
}

/// Figures of one field, before adjustment and verdict.
fn figures(field: &Field<'_>) -> (FieldLook, Option<CountsError>) {
    let (base, live) = (field.baseline.counts(), field.counts);
    let fault = live.fits(field.baseline).err();
    let mut one = FieldLook {
        name: field.baseline.name().into(),
        side: field.side,
        verdict: Verdict::Insufficient,
        values: live.total(),
        psi: None,
        psi_p_adjusted: None,
        chi_square: None,
        distances: None,
        rates: Vec::new(),
        fault: fault.map(|fault| alloc::format!("{fault}")),
    };
    if fault.is_none() {
        one.psi = psi(base, live);
        one.chi_square = chi_square(base, live);
        one.distances = distances(base, live);
        one.rates = rates(base, live).map(|rate| (rate, 1.0)).collect();
    }
    (one, fault)
}

/// Replaces the place-held p-values by adjusted ones, over all tests of all fields.
fn adjust(seen: &mut [(FieldLook, Option<CountsError>)]) {
    let mut p_values = Vec::new();
    for (one, _) in seen.iter() {
        p_values.extend(one.psi.map(|psi| psi.p_value));
        p_values.extend(one.rates.iter().map(|(rate, _)| rate.p_value));
    }
    let mut adjusted = benjamini_hochberg(&p_values).into_iter();
    for (one, _) in seen.iter_mut() {
        if one.psi.is_some() {
            one.psi_p_adjusted = adjusted.next();
        }
        for ((_, p), p_adjusted) in one.rates.iter_mut().zip(adjusted.by_ref()) {
            *p = p_adjusted;
        }
    }
}

fn judge(one: &FieldLook, base: &Counts, thresholds: &Thresholds) -> Verdict {
    if one.values < thresholds.values_min.max(1) || base.is_empty() {
        return Verdict::Insufficient;
    }
    let rate = thresholds.false_discovery_rate;
    let moved = |(figure, p): &&(Rate, f64)| {
        *p <= rate && libm::fabs(figure.change()) >= thresholds.rate_change_min
    };
    let broken = |figure: &Rate| {
        let special = matches!(
            figure.counter,
            Counter::Special(Special::Nan | Special::Infinite | Special::Missing)
        );
        one.side == Side::Output && special && figure.change() > 0.0
    };
    if one
        .rates
        .iter()
        .filter(moved)
        .any(|(figure, _)| broken(figure))
    {
        return Verdict::Failing;
    }
    let shifted = match (one.psi, one.psi_p_adjusted) {
        (Some(psi), Some(p)) => p <= rate && psi.excess() >= thresholds.psi_min,
        _ => false,
    };
    if shifted || one.rates.iter().any(|rate| moved(&rate)) {
        return Verdict::Drifted;
    }
    // A field that was constant in training has a single bin: its rates tell all there is.
    let comparable = base.bins().iter().filter(|count| **count > 0).count() > 1;
    if comparable && one.psi.is_none() {
        Verdict::Insufficient
    } else {
        Verdict::Healthy
    }
}

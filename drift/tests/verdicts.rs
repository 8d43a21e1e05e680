//! The verdict of a single look.
#![allow(clippy::unwrap_used)] // Helpers of tests panic as tests do.

use bellwether_drift::{Counts, Field, FieldBaseline, Look, Side, Thresholds, Verdict, look};

const THRESHOLDS: Thresholds = Thresholds {
    false_discovery_rate: 0.05,
    psi_min: 0.1,
    rate_change_min: 0.01,
    values_min: 100,
};

/// Low-discrepancy values in 0..1, so that equal distributions really look equal.
fn even(n: u32, shift: f32) -> impl Iterator<Item = f32> {
    (0..n).map(move |i| (f64::from(i) * 0.618_033_988_749_895 % 1.0) as f32 + shift)
}

fn baseline() -> FieldBaseline {
    FieldBaseline::numeric("flow", &even(4000, 0.0).collect::<Vec<_>>(), 10).unwrap()
}

fn one(side: Side, values: impl Iterator<Item = f32>) -> Look {
    one_of(&baseline(), side, values)
}

fn one_of(baseline: &FieldBaseline, side: Side, values: impl Iterator<Item = f32>) -> Look {
    let mut counts = Counts::new(baseline.bins());
    for value in values {
        counts.observe(baseline, value);
    }
    look(
        &[Field {
            baseline,
            counts: &counts,
            side,
        }],
        &THRESHOLDS,
    )
}

#[test]
fn alike_is_healthy() {
    let seen = one(Side::Input, even(1000, 0.0));
    assert_eq!(seen.verdict, Verdict::Healthy, "{seen:?}");
}

#[test]
fn shifted_is_drifted() {
    let seen = one(Side::Input, even(1000, 0.0).map(|x| x * 0.5));
    assert_eq!(seen.verdict, Verdict::Drifted);
    assert!(seen.fields[0].psi.unwrap().excess() > 0.1);
    assert!(seen.fields[0].psi_p_adjusted.unwrap() < 1e-6);
}

#[test]
fn significant_but_small_is_healthy() {
    let seen = one(Side::Input, even(1_000_000, 0.0).map(|x| x.powf(1.2)));
    assert!(seen.fields[0].psi.unwrap().p_value < 1e-6, "{seen:?}");
    assert_eq!(seen.verdict, Verdict::Healthy);
}

#[test]
fn large_but_by_chance_is_healthy() {
    let few = [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95];
    let mut thresholds = THRESHOLDS;
    thresholds.values_min = 40;
    let baseline = baseline();
    let mut counts = Counts::new(baseline.bins());
    for (at, times) in [6, 2, 5, 4, 7, 3, 6, 4, 8, 5].into_iter().enumerate() {
        for _ in 0..times {
            counts.observe(&baseline, few[at]);
        }
    }
    let field = Field {
        baseline: &baseline,
        counts: &counts,
        side: Side::Input,
    };
    let seen = look(&[field], &thresholds);
    assert!(
        seen.fields[0].psi.unwrap().value > 0.1,
        "the usual limit would cry out: {seen:?}"
    );
    assert_eq!(seen.verdict, Verdict::Healthy);
}

#[test]
fn all_beyond_the_range_is_drifted() {
    let seen = one(Side::Input, even(1000, 5.0));
    assert_eq!(seen.fields[0].psi, None);
    assert_eq!(seen.verdict, Verdict::Drifted);
}

#[test]
fn nan_is_a_drift_of_inputs_and_a_failure_of_outputs() {
    let some = || {
        even(1000, 0.0)
            .enumerate()
            .map(|(i, x)| if i % 20 == 0 { f32::NAN } else { x })
    };
    assert_eq!(one(Side::Input, some()).verdict, Verdict::Drifted);
    assert_eq!(one(Side::Output, some()).verdict, Verdict::Failing);
}

#[test]
fn silence_is_insufficient() {
    assert_eq!(
        one(Side::Input, even(0, 0.0)).verdict,
        Verdict::Insufficient
    );
    assert_eq!(
        one(Side::Input, even(99, 0.0)).verdict,
        Verdict::Insufficient
    );
    assert_eq!(look(&[], &THRESHOLDS).verdict, Verdict::Insufficient);
}

#[test]
fn constant_field_is_judged_by_its_rates() {
    let baseline = FieldBaseline::numeric("door", &[1.0; 2000], 10).unwrap();
    let same = one_of(&baseline, Side::Input, core::iter::repeat_n(1.0, 500));
    assert_eq!(same.verdict, Verdict::Healthy);
    let moved = one_of(&baseline, Side::Input, core::iter::repeat_n(1.5, 500));
    assert_eq!(moved.verdict, Verdict::Drifted);
}

#[test]
fn impossible_counts_are_invalid_whatever_else_is_seen() {
    let baseline = baseline();
    let counts = Counts::from_parts(&[1], [0; 6], None).unwrap();
    let good = baseline.counts();
    let fields = [
        Field {
            baseline: &baseline,
            counts: good,
            side: Side::Input,
        },
        Field {
            baseline: &baseline,
            counts: &counts,
            side: Side::Input,
        },
    ];
    let seen = look(&fields, &THRESHOLDS);
    assert_eq!(seen.verdict, Verdict::Invalid);
    assert_eq!(seen.fields[0].verdict, Verdict::Healthy);
    assert!(seen.fields[1].fault.is_some());
}

#[test]
fn unknown_thresholds_are_refused() {
    let text = r#"{"false_discovery_rate":0.05,"psi_min":0.1,"rate_change_min":0.01,"values_min":9,"psi_max":1}"#;
    assert!(serde_json::from_str::<Thresholds>(text).is_err());
}

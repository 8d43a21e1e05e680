//! Medians, trimmed means, and permutation tests over devices.
#![allow(clippy::unwrap_used)] // Helpers of tests panic as tests do.

use bellwether_drift::arms::{
    ArmsError, DRAWS_MAX, Pair, Permutation, Statistic, Tail, choose, difference_in_differences,
    least_p, median, permutation, trimmed_mean,
};
use proptest::prelude::*;

const DRAWS: u32 = 2000;

fn greater(treated: &[f64], control: &[f64], statistic: Statistic) -> Permutation {
    permutation(treated, control, statistic, Tail::Greater, DRAWS, 7).unwrap()
}

fn statistic() -> impl Strategy<Value = Statistic> {
    prop_oneof![
        Just(Statistic::RankMean),
        Just(Statistic::Median),
        (0_u32..3).prop_map(|trim| Statistic::TrimmedMean { trim }),
    ]
}

#[test]
fn separated_arms_reach_the_least_p() {
    let control: Vec<f64> = (0..11).map(f64::from).collect();
    for (treated, p) in [(1_usize, 1.0 / 12.0), (2, 1.0 / 66.0), (3, 1.0 / 220.0)] {
        let high: Vec<f64> = (0..treated).map(|i| 100.0 + i as f64).collect();
        let test = greater(&high, &control[..12 - treated], Statistic::RankMean);
        assert!(test.exact);
        assert!((test.p_value - p).abs() < 1e-15);
        assert!((least_p(treated as u32, 12 - treated as u32) - p).abs() < 1e-15);
    }
}

#[test]
fn rank_test_is_mann_whitneys() {
    let control = [1.0, 2.0, 4.0, 5.0, 6.0, 7.0];
    let test = greater(&[10.0, 11.0, 3.0], &control, Statistic::RankMean);
    assert!(
        (test.p_value - 0.13095238095238093).abs() < 1e-15,
        "scipy: {}",
        test.p_value
    );
}

#[test]
fn sampling_agrees_with_enumeration() {
    // C(24, 8) is beyond enumeration; C(16, 8) is not.
    let treated: Vec<f64> = (0..8).map(|i| f64::from(i * 37 % 17) + 3.0).collect();
    let control: Vec<f64> = (0..16).map(|i| f64::from(i * 29 % 23)).collect();
    let exact = greater(&treated, &control[..8], Statistic::RankMean);
    assert!(exact.exact && exact.draws == 12_870);
    let drawn = greater(&treated, &control, Statistic::RankMean);
    assert!(!drawn.exact && drawn.draws == u64::from(DRAWS));
    let again = greater(&treated, &control, Statistic::RankMean);
    assert_eq!(drawn, again, "the same seed gives the same bits");
    let apart = permutation(
        &[50.0; 8],
        &control,
        Statistic::RankMean,
        Tail::Greater,
        999,
        1,
    )
    .unwrap();
    assert_eq!(apart.p_value, 1.0 / 1000.0, "(b + 1) / (n + 1), never zero");
}

#[test]
fn one_liar_moves_no_median() {
    assert_eq!(median(&mut [1.0, 2.0, 3.0, 4.0, 1e300]), Some(3.0));
    assert_eq!(trimmed_mean(&mut [1.0, 2.0, 3.0, -1e300], 1), Some(1.5));
    assert_eq!(median(&mut [4.0, 2.0]), Some(3.0));
    assert_eq!(median(&mut []), None);
    assert_eq!(median(&mut [f64::NAN, 1.0]), None);
    assert_eq!(trimmed_mean(&mut [1.0, 2.0], 1), None);
    assert_eq!(trimmed_mean(&mut [1.0], 2), None);
}

#[test]
fn arms_that_cannot_be_tested_are_refused() {
    let test = |treated: &[f64], control: &[f64], draws| {
        permutation(
            treated,
            control,
            Statistic::RankMean,
            Tail::Greater,
            draws,
            1,
        )
        .unwrap_err()
    };
    assert_eq!(test(&[], &[1.0], 1), ArmsError::Empty);
    assert_eq!(test(&[1.0], &[], 1), ArmsError::Empty);
    assert_eq!(test(&[f64::NAN], &[1.0], 1), ArmsError::NotFinite);
    assert_eq!(test(&[f64::INFINITY], &[1.0], 1), ArmsError::NotFinite);
    assert_eq!(test(&[1.0], &[1.0], 0), ArmsError::Draws);
    assert_eq!(test(&[1.0], &[1.0], DRAWS_MAX + 1), ArmsError::Draws);
    assert_eq!(test(&[1.0], &vec![1.0; 65_536], 1), ArmsError::TooMany);
}

#[test]
fn change_of_the_world_is_no_difference_in_differences() {
    // Both arms' outputs moved by 5; each release expected another level.
    let arm = |seen: f64, expected: f64, n: u32| -> Vec<Pair> {
        (0..n)
            .map(|i| Pair {
                seen: seen + f64::from(i) * 0.1,
                expected,
            })
            .collect()
    };
    let test = |treated: &[Pair], control: &[Pair]| {
        difference_in_differences(
            treated,
            control,
            Statistic::RankMean,
            Tail::Greater,
            DRAWS,
            3,
        )
        .unwrap()
    };
    let same = test(&arm(15.0, 10.0, 5), &arm(7.0, 2.0, 6));
    assert!(same.test.p_value > 0.3, "{same:?}");
    let moved = test(&arm(18.0, 10.0, 5), &arm(7.0, 2.0, 6));
    assert!((moved.test.p_value - least_p(5, 6)).abs() < 1e-15);
    assert!((moved.treated - 8.2).abs() < 1e-9 && (moved.control - 5.25).abs() < 1e-9);
}

#[test]
fn ways_to_choose_are_exact_or_none() {
    assert_eq!(choose(12, 3), Some(220));
    assert_eq!(choose(62, 31), Some(465_428_353_255_261_088));
    assert_eq!(choose(3, 4), None);
    assert_eq!(choose(1000, 500), None);
    assert_eq!(least_p(0, 5), 1.0);
    assert!(least_p(u32::MAX, u32::MAX) < 1e-300);
}

proptest! {
    #[test]
    fn p_is_between_the_least_and_one(
        treated in prop::collection::vec(-10_i8..10, 1..6),
        control in prop::collection::vec(-10_i8..10, 1..8),
        statistic in statistic(),
        either in any::<bool>(),
    ) {
        let of = |arm: &[i8]| arm.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let (treated, control) = (of(&treated), of(&control));
        let tail = if either { Tail::Either } else { Tail::Greater };
        let test = permutation(&treated, &control, statistic, tail, DRAWS, 1).unwrap();
        let least = least_p(treated.len() as u32, control.len() as u32);
        prop_assert!(test.exact);
        prop_assert!(test.p_value >= least * (1.0 - 1e-12) && test.p_value <= 1.0);
    }

    #[test]
    fn f_liars_move_no_trimmed_mean_beyond_the_honest(
        honest in prop::collection::vec(-10.0_f64..10.0, 3..20),
        liars in prop::collection::vec(any::<f64>().prop_filter("a number", |x| x.is_finite()), 1..4),
    ) {
        let mut all: Vec<f64> = honest.iter().chain(&liars).copied().collect();
        prop_assume!(all.len() > 2 * liars.len());
        let mean = trimmed_mean(&mut all, liars.len()).unwrap();
        let (lo, hi) = honest.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
        prop_assert!((lo - 1e-9..=hi + 1e-9).contains(&mean));
    }
}

/// Exact permutation tests are right by construction; this finds a wrong enumeration.
#[test]
fn false_alarms_keep_to_their_level() {
    let mut state = 11_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64
    };
    for statistic in [
        Statistic::RankMean,
        Statistic::Median,
        Statistic::TrimmedMean { trim: 1 },
    ] {
        let alarms = (0..1000)
            .filter(|_| {
                let scores: Vec<f64> = (0..10).map(|_| random()).collect();
                greater(&scores[..4], &scores[4..], statistic).p_value <= 0.05
            })
            .count();
        assert!(alarms <= 70, "{statistic:?}: {alarms} of 1000 at 5 %");
        assert!(alarms >= 15, "{statistic:?}: {alarms} of 1000 at 5 %");
    }
}

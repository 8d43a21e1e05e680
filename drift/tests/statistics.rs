//! Statistics against oracles: scipy 1.17 values written down here, and statrs.
#![allow(clippy::unwrap_used)] // Helpers of tests panic as tests do.

use bellwether_drift::gamma::chi_square_survival;
use bellwether_drift::{
    Counter, Counts, PsiMode, Special, benjamini_hochberg, chi_square, distances, homogeneity, psi,
    psi_as, rate, rates, rates_differ, wilson,
};
use proptest::prelude::*;
use statrs::distribution::{ChiSquared, ContinuousCDF};

fn counts(bins: &[u32]) -> Counts {
    Counts::from_parts(bins, [0; 6], None).unwrap()
}

#[track_caller]
fn near(found: f64, expected: f64, relative: f64) {
    let apart = (found - expected).abs();
    assert!(
        apart <= expected.abs() * relative,
        "{found} is not {expected}: {apart:e} apart"
    );
}

proptest! {
    #[test]
    fn chi_square_tail_is_that_of_statrs(statistic in 0.0_f64..300.0, degrees in 1_u32..200) {
        let expected = ChiSquared::new(f64::from(degrees)).unwrap().sf(statistic);
        let found = chi_square_survival(statistic, degrees);
        prop_assert!((found - expected).abs() <= 1e-12 + expected * 1e-9, "{} {}", found, expected);
    }

    #[test]
    fn statistics_are_sane(pairs in prop::collection::vec((0_u32..3000, 0_u32..3000), 1..=16)) {
        let base = counts(&pairs.iter().map(|(b, _)| *b).collect::<Vec<_>>());
        let live = counts(&pairs.iter().map(|(_, l)| *l).collect::<Vec<_>>());
        if let Some(psi) = psi(&base, &live) {
            prop_assert!(psi.value >= 0.0 && (0.0..=1.0).contains(&psi.p_value));
            prop_assert!(psi.bins_left >= 2 && psi.bins_left as usize <= pairs.len());
            prop_assert_eq!(chi_square(&base, &live).unwrap().degrees, psi.bins_left - 1);
        }
        if let Some(d) = distances(&base, &live) {
            prop_assert!(d.total_variation <= 1.0 + 1e-12 && d.hellinger <= 1.0 + 1e-12);
            prop_assert!(d.kolmogorov_smirnov <= d.total_variation + 1e-12);
            prop_assert!(d.largest <= d.total_variation + 1e-12);
        }
        for rate in rates(&base, &live) {
            prop_assert!((0.0..=1.0).contains(&rate.p_value));
        }
    }

    #[test]
    fn same_shares_have_no_divergence(bins in prop::collection::vec(10_u32..1000, 2..=16)) {
        let base = counts(&bins);
        let psi = psi(&base, &base).unwrap();
        prop_assert_eq!((psi.value, psi.p_value, psi.excess()), (0.0, 1.0, 0.0));
    }

    #[test]
    fn wilson_holds_the_share(of in 1_u64..1_000_000, share in 0.0_f64..=1.0) {
        let count = (of as f64 * share) as u64;
        let (low, high) = wilson(count, of, 1.96);
        let p = count as f64 / of as f64;
        prop_assert!(0.0 <= low && low <= p && p <= high && high <= 1.0);
    }

    #[test]
    fn rate_test_has_no_preferred_side(
        n in 1_u64..5000, m in 1_u64..5000, a in 0.0_f64..=1.0, b in 0.0_f64..=1.0,
    ) {
        let (base, live) = (((n as f64 * a) as u64, n), ((m as f64 * b) as u64, m));
        let p = rates_differ(base, live);
        prop_assert!((0.0..=1.0).contains(&p));
        prop_assert!((p - rates_differ(live, base)).abs() < 1e-9);
        let elsewhere = |(count, of): (u64, u64)| (of - count, of);
        prop_assert!((p - rates_differ(elsewhere(base), elsewhere(live))).abs() < 1e-9);
    }
}

#[test]
fn chi_square_tail_is_that_of_scipy() {
    let cases = [
        (12.0, 1, 0.0005320055051392492),
        (25.5, 7, 0.0006184594932633914),
        (3.2, 15, 0.9994013656775715),
        (0.1, 3, 0.9918374237318764),
        (200.0, 15, 2.124671199893185e-34),
        (1000.0, 900, 0.010994608942135844),
    ];
    for (statistic, degrees, expected) in cases {
        near(chi_square_survival(statistic, degrees), expected, 1e-10);
    }
    assert_eq!(chi_square_survival(0.0, 3), 1.0);
    assert_eq!(chi_square_survival(-1.0, 3), 1.0);
    assert_eq!(chi_square_survival(f64::INFINITY, 3), 0.0);
    assert!(chi_square_survival(f64::NAN, 3).is_nan());
}

#[test]
fn homogeneity_is_that_of_scipy() {
    let test = homogeneity(&[120, 80, 60, 40, 100], &[10, 20, 15, 5, 30]).unwrap();
    near(test.statistic, 13.784615384615385, 1e-12);
    near(test.p_value, 0.00801517132957396, 1e-10);
    assert_eq!(test.degrees, 4);
    assert_eq!(homogeneity(&[1, 2], &[0, 0]), None);
    assert_eq!(homogeneity(&[5, 0], &[5, 0]), None);
    assert_eq!(homogeneity(&[5, 1], &[5]), None);
}

#[test]
fn native_psi_follows_its_definition() {
    let psi = psi(
        &counts(&[120, 80, 60, 40, 100]),
        &counts(&[10, 20, 15, 5, 30]),
    )
    .unwrap();
    let (n, m, k) = (400.0_f64, 80.0_f64, 5.0_f64);
    let expected: f64 = [
        (120.0, 10.0),
        (80.0, 20.0),
        (60.0, 15.0),
        (40.0, 5.0),
        (100.0, 30.0),
    ]
    .iter()
    .map(|(b, l)| ((b + 0.5) / (n + k / 2.0), (l + 0.5) / (m + k / 2.0)))
    .map(|(p, q): (f64, f64)| (p - q) * (p / q).ln())
    .sum();
    near(psi.value, expected, 1e-12);
    let unit = 1.0 / n + 1.0 / m;
    near(psi.bias, 4.0 * unit, 1e-12);
    near(
        psi.p_value,
        ChiSquared::new(4.0).unwrap().sf(expected / unit),
        1e-9,
    );
    assert_eq!((psi.bins_left, psi.n, psi.m), (5, 400, 80));
}

#[test]
fn neighbours_merge_until_each_expects_five() {
    let base = counts(&[100, 100, 100, 100]);
    let left = |live: &[u32]| psi(&base, &counts(live)).map(|psi| psi.bins_left);
    assert_eq!(left(&[5, 5, 5, 5]), Some(4));
    assert_eq!(
        left(&[20, 0, 0, 0]),
        Some(4),
        "where live values fell doesn't matter"
    );
    assert_eq!(left(&[5, 5, 5, 4]), Some(2));
    assert_eq!(left(&[2, 2, 2, 3]), None);
    assert_eq!(left(&[0; 4]), None);
    assert_eq!(left(&[5, 5]), None, "other bins");
}

#[test]
fn bins_that_the_baseline_left_empty_have_a_rate_of_their_own() {
    let (base, live) = (counts(&[500, 500, 0]), counts(&[45, 45, 10]));
    let psi = psi(&base, &live).unwrap();
    assert_eq!((psi.m, psi.bins_left), (90, 2));
    let unseen = rate(Counter::Unseen, &base, &live).unwrap();
    assert_eq!((unseen.base, unseen.live), ((0, 1000), (10, 100)));
    assert!(unseen.p_value < 1e-9);
    assert_eq!(rate(Counter::Special(Special::Nan), &base, &live), None);
}

#[test]
fn rate_test_is_fishers_doubled() {
    let cases = [
        ((0, 1000), (3, 200), 0.009143679833361415),
        ((5, 2000), (9, 300), 2.1485473317724155e-05),
        ((0, 100_000), (1, 50), 0.0009995002498750624),
        ((40, 5000), (1, 900), 0.018589427686397385),
        ((990, 1000), (180, 200), 1.4967625866316147e-09),
    ];
    for (base, live, expected) in cases {
        near(rates_differ(base, live), expected, 1e-8);
    }
    assert_eq!(rates_differ((0, 0), (1, 1)), 1.0);
    assert_eq!(rates_differ((2, 1), (1, 1)), 1.0);
    assert!(rates_differ((0, 1 << 32), (1 << 31, 1 << 32)) < 1e-300);
}

#[test]
fn wilson_is_that_of_scipy() {
    let cases = [
        (0, 10, 0.0, 0.27753279986288926),
        (3, 50, 0.020614970348973957, 0.1621709168883817),
        (50, 50, 0.9286524008666412, 1.0),
    ];
    for (count, of, low, high) in cases {
        let found = wilson(count, of, rates::Z_95);
        near(found.0, low, 1e-12);
        near(found.1, high, 1e-12);
    }
    assert_eq!(wilson(0, 0, 1.96), (0.0, 1.0));
}

#[test]
fn adjustment_is_that_of_scipy() {
    let adjusted = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.005, 0.5, 0.2]);
    for (found, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.03, 0.5, 0.24]) {
        near(*found, expected, 1e-12);
    }
    assert_eq!(benjamini_hochberg(&[]), []);
    assert_eq!(benjamini_hochberg(&[f64::NAN, 2.0, -1.0]), [1.0, 1.0, 0.0]);
}

#[test]
fn distances_are_those_of_scipy() {
    let d = distances(
        &counts(&[120, 80, 60, 40, 100]),
        &counts(&[10, 20, 15, 5, 30]),
    )
    .unwrap();
    near(d.jensen_shannon, 0.17167650325990905, 1e-12);
    near(d.jensen_shannon_base2, 0.20620449512757674, 1e-12);
    near(d.largest, 0.175, 1e-12);
    near(d.kolmogorov_smirnov, 0.175, 1e-12);
    near(d.total_variation, 0.2125, 1e-12);
    assert_eq!(distances(&counts(&[1, 2]), &counts(&[0, 0])), None);
}

#[test]
fn psi_of_other_tools_is_theirs() {
    let (base, live) = (counts(&[500, 300, 200, 0]), counts(&[40, 50, 0, 10]));
    near(
        psi_as(PsiMode::Evidently, &base, &live).unwrap(),
        2.333984633917397,
        1e-12,
    );
    near(
        psi_as(PsiMode::Scouter, &base, &live).unwrap(),
        6.4800886672488645,
        1e-12,
    );
    near(
        psi_as(PsiMode::Deepchecks, &base, &live).unwrap(),
        0.9009012702293415,
        1e-12,
    );
    let rare = counts(&[99_995, 5, 0, 0]);
    near(
        psi_as(PsiMode::Evidently, &rare, &live).unwrap(),
        7.297500461035663,
        1e-12,
    );
}

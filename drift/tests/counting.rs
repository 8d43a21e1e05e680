//! Baselines and counts: exact merging, and what is refused.
#![allow(clippy::unwrap_used)] // Helpers of tests panic as tests do.

use bellwether_drift::baseline::BINS_MAX;
use bellwether_drift::{
    BaselineError, Bins, Counts, CountsError, FieldBaseline, MergeError, Slot, Special, Values,
};
use proptest::prelude::*;

fn baseline() -> FieldBaseline {
    let samples: Vec<f32> = (0..1000)
        .map(|i| (i as f32 * 0.37).sin() * 40.0 + 5.0)
        .collect();
    FieldBaseline::numeric("pressure", &samples, 16).unwrap()
}

fn counted(baseline: &FieldBaseline, values: &[Option<f32>]) -> Counts {
    let mut counts = Counts::new(baseline.bins());
    for value in values {
        match value {
            Some(value) => assert!(counts.observe(baseline, *value)),
            None => assert!(counts.observe_missing()),
        }
    }
    counts
}

fn reading() -> impl Strategy<Value = Option<f32>> {
    prop_oneof![
        8 => (-60.0_f32..60.0).prop_map(Some),
        1 => any::<f32>().prop_map(Some),
        1 => prop_oneof![Just(0.0_f32), Just(-0.0), Just(f32::NAN), Just(f32::INFINITY)].prop_map(Some),
        1 => Just(None),
    ]
}

proptest! {
    #[test]
    fn any_split_merged_in_any_order_gives_the_same_bits(
        values in prop::collection::vec((reading(), 0_usize..5), 0..200),
        order in Just([0_usize, 1, 2, 3, 4]).prop_shuffle(),
        withheld in prop::option::weighted(0.2, 0_usize..5),
    ) {
        let baseline = baseline();
        let of = |part: usize| {
            let values: Vec<_> = values.iter().filter(|(_, at)| *at == part).map(|(v, _)| *v).collect();
            let counts = counted(&baseline, &values);
            if withheld == Some(part) { counts.without_values() } else { counts }
        };
        let merge = |mut into: Counts, other: &Counts| { into.merge(other).unwrap(); into };
        let left = order.iter().fold(Counts::new(baseline.bins()), |sum, part| merge(sum, &of(*part)));
        let right = merge(merge(of(0), &of(1)), &merge(of(2), &merge(of(3), &of(4))));
        prop_assert_eq!(&left, &right);
        if withheld.is_none() {
            let all: Vec<_> = values.iter().map(|(v, _)| *v).collect();
            prop_assert_eq!(&left, &counted(&baseline, &all));
        }
        prop_assert_eq!(left.total(), values.len() as u64);
        prop_assert_eq!(left.fits(&baseline), Ok(()));
    }

    #[test]
    fn what_was_counted_fits(
        samples in prop::collection::vec(-1e3_f32..1e3, 1..100),
        bins in 0_usize..40,
        values in prop::collection::vec(reading(), 0..60),
    ) {
        let baseline = FieldBaseline::numeric("x", &samples, bins).unwrap();
        prop_assert!(baseline.bins().len() <= bins.clamp(1, BINS_MAX));
        prop_assert!(baseline.counts().bins().iter().all(|count| *count > 0));
        prop_assert_eq!(baseline.counts().in_bins(), samples.len() as u64);
        prop_assert_eq!(counted(&baseline, &values).fits(&baseline), Ok(()));
    }

    #[test]
    fn moments_are_near_the_exact_ones(samples in prop::collection::vec(-50_f32..80.0, 2..300)) {
        let baseline = FieldBaseline::numeric("x", &samples, 16).unwrap();
        let n = samples.len() as f64;
        let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let variance = samples.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
        let quantum = f64::from(baseline.quantum());
        prop_assert!((baseline.counts().mean(&baseline).unwrap() - mean).abs() <= quantum);
        prop_assert!((baseline.counts().deviation(&baseline).unwrap() - variance.sqrt()).abs() <= quantum);
    }

    #[test]
    fn bytes_from_outside_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let baseline = baseline();
        if let Ok(counts) = postcard::from_bytes::<Counts>(&bytes) {
            let fits = counts.fits(&baseline);
            let _ = (counts.mean(&baseline), counts.deviation(&baseline), counts.total());
            let _ = counted(&baseline, &[Some(1.0)]).merge(&counts);
            if fits.is_ok() {
                let _ = bellwether_drift::psi(baseline.counts(), &counts);
            }
        }
        let _ = postcard::from_bytes::<FieldBaseline>(&bytes);
    }

    #[test]
    fn each_code_of_a_domain_has_its_bin(domain in prop::collection::hash_set(-9_i64..9, 1..=16)) {
        let domain: Vec<i64> = domain.into_iter().collect();
        let baseline = FieldBaseline::categorical("state", &domain, &domain).unwrap();
        for code in -12..12 {
            let expected = match domain.iter().position(|known| *known == code) {
                Some(bin) => Slot::Bin(bin),
                None => Slot::Special(Special::Other),
            };
            prop_assert_eq!(baseline.bins().slot_of_code(code), expected);
            prop_assert_eq!(baseline.bins().slot(code as f32), expected);
        }
        prop_assert_eq!(baseline.bins().slot(0.5), Slot::Special(Special::Other));
        prop_assert_eq!(baseline.bins().slot(f32::NAN), Slot::Special(Special::Other));
    }
}

#[test]
fn quantile_bins_hold_equal_shares() {
    let samples: Vec<f32> = (0..1600).map(|i| i as f32).collect();
    let baseline = FieldBaseline::numeric("x", &samples, 16).unwrap();
    assert_eq!(baseline.counts().bins(), [100; 16]);
    assert_eq!(baseline.centre(), 799.5);
}

#[test]
fn ties_collapse_edges_and_a_heavy_value_has_its_own_bin() {
    let mut samples = vec![0.0_f32; 80];
    samples.extend((1..=20).map(|i| i as f32));
    let baseline = FieldBaseline::numeric("rain", &samples, 8).unwrap();
    assert_eq!(baseline.counts().bins()[0], 80);
    assert!(baseline.bins().len() < 8);
}

#[test]
fn constant_field_has_one_bin() {
    for value in [0.0, 7.5, -1e30, 1e-40] {
        let baseline = FieldBaseline::numeric("idle", &[value; 9], 16).unwrap();
        assert_eq!(baseline.counts().bins(), [9]);
        assert_eq!(baseline.bins().slot(value), Slot::Bin(0));
    }
}

#[test]
fn values_outside_are_counted_apart() {
    let baseline = FieldBaseline::numeric("x", &[0.0, 1.0, 2.0, 3.0], 2).unwrap();
    let odd = [
        Some(-0.1),
        Some(3.1),
        None,
        Some(f32::NAN),
        Some(f32::NEG_INFINITY),
    ];
    let counts = counted(&baseline, &odd);
    assert_eq!(counts.in_bins(), 0);
    let specials = Special::ALL.map(|special| counts.special(special));
    assert_eq!(specials, [1, 1, 1, 1, 1, 0]);
    let values = counts.values().unwrap();
    assert_eq!((values.min, values.max), (-0.1, 3.1));
}

#[test]
fn baseline_without_usable_values_is_refused() {
    assert_eq!(
        FieldBaseline::numeric("x", &[f32::NAN], 4),
        Err(BaselineError::NoValues)
    );
    assert_eq!(
        FieldBaseline::numeric("x", &[], 4),
        Err(BaselineError::NoValues)
    );
    assert_eq!(
        FieldBaseline::numeric("", &[1.0], 4),
        Err(BaselineError::Unnamed)
    );
    assert_eq!(
        FieldBaseline::numeric(&"x".repeat(49), &[1.0], 4),
        Err(BaselineError::NameTooLong)
    );
    assert_eq!(
        FieldBaseline::categorical("s", &[1], &[2]),
        Err(BaselineError::NoValues)
    );
    assert_eq!(
        FieldBaseline::categorical("s", &[1], &[1, 1]),
        Err(BaselineError::DomainInvalid)
    );
    assert_eq!(
        FieldBaseline::categorical("s", &[1], &[0; 17]),
        Err(BaselineError::DomainInvalid)
    );
}

#[test]
fn disordered_bins_are_refused() {
    let refused = |edges: &[f32], lo, hi, quantum| {
        let bins = Bins::Numeric {
            edges: heapless::Vec::from_slice(edges).unwrap(),
            lo,
            hi,
        };
        let counts = Counts::new(&bins);
        FieldBaseline::new("x", bins, counts, 0.0, quantum).unwrap_err()
    };
    assert_eq!(
        refused(&[1.0, 1.0], 0.0, 2.0, 1.0),
        BaselineError::EdgesDisordered
    );
    assert_eq!(
        refused(&[0.0], 0.0, 2.0, 1.0),
        BaselineError::EdgesDisordered
    );
    assert_eq!(
        refused(&[3.0], 0.0, 2.0, 1.0),
        BaselineError::EdgesDisordered
    );
    assert_eq!(refused(&[], 2.0, 0.0, 1.0), BaselineError::EdgesDisordered);
    assert_eq!(
        refused(&[f32::NAN], 0.0, 2.0, 1.0),
        BaselineError::NotFinite
    );
    assert_eq!(
        refused(&[], 0.0, f32::INFINITY, 1.0),
        BaselineError::NotFinite
    );
    for quantum in [0.0, -1.0, 3.0, 1e-40] {
        assert_eq!(
            refused(&[1.0], 0.0, 2.0, quantum),
            BaselineError::QuantumInvalid
        );
    }
}

#[test]
fn invalid_baseline_bytes_are_refused() {
    let baseline = baseline();
    let bytes = postcard::to_allocvec(&baseline).unwrap();
    assert_eq!(
        postcard::from_bytes::<FieldBaseline>(&bytes).unwrap(),
        baseline
    );
    let text = serde_json::to_string(&baseline).unwrap();
    assert_eq!(
        serde_json::from_str::<FieldBaseline>(&text).unwrap(),
        baseline
    );
    // The last four bytes are the quantum.
    let mut broken = bytes.clone();
    broken[bytes.len() - 4] = 1;
    assert!(postcard::from_bytes::<FieldBaseline>(&broken).is_err());
}

/// Counts are reported by devices in the field: these bytes may grow, never change.
#[test]
fn bytes_on_the_wire_are_stable() {
    let values = Values {
        sum: -2,
        squares: 2,
        min: 1.0,
        max: 1.0,
    };
    let counts = Counts::from_parts(&[2, 0], [0, 0, 1, 0, 0, 300], Some(values)).unwrap();
    let bytes = [
        2, 2, 0, 0, 0, 1, 0, 0, 172, 2, 1, 3, 2, 0, 0, 128, 63, 0, 0, 128, 63,
    ];
    assert_eq!(postcard::to_allocvec(&counts).unwrap(), bytes);
}

#[test]
fn more_bins_than_the_bound_are_refused() {
    assert!(Counts::from_parts(&[0; 17], [0; 6], None).is_none());
    let mut bytes = vec![17];
    bytes.extend([0; 17 + 6 + 1]);
    assert!(postcard::from_bytes::<Counts>(&bytes).is_err());
}

#[test]
fn counts_that_cannot_be_are_refused() {
    // Bins 0..2 and 2..=3, centre 1.5.
    let baseline = FieldBaseline::numeric("x", &[0.0, 1.0, 2.0, 3.0], 2).unwrap();
    let honest = counted(&baseline, &[Some(0.5), Some(1.0), Some(9.0)]);
    let values = *honest.values().unwrap();
    let specials = Special::ALL.map(|special| honest.special(special));
    let with = |values| Counts::from_parts(honest.bins(), specials, Some(values)).unwrap();
    assert_eq!(with(values).fits(&baseline), Ok(()));
    let extremes = Err(CountsError::ExtremesImpossible);
    assert_eq!(
        with(Values {
            min: -1.0,
            ..values
        })
        .fits(&baseline),
        extremes
    );
    assert_eq!(
        with(Values { min: 2.5, ..values }).fits(&baseline),
        extremes
    );
    assert_eq!(
        with(Values { max: 2.9, ..values }).fits(&baseline),
        extremes
    );
    assert_eq!(
        with(Values {
            max: f32::NAN,
            ..values
        })
        .fits(&baseline),
        extremes
    );
    let moments = Err(CountsError::MomentsImpossible);
    assert_eq!(
        with(Values {
            sum: i64::MAX,
            ..values
        })
        .fits(&baseline),
        moments
    );
    assert_eq!(
        with(Values {
            sum: i64::MIN,
            ..values
        })
        .fits(&baseline),
        moments
    );
    assert_eq!(
        with(Values {
            squares: u64::MAX,
            ..values
        })
        .fits(&baseline),
        moments
    );
    assert_eq!(
        with(Values {
            squares: 0,
            ..values
        })
        .fits(&baseline),
        moments
    );
    assert_eq!(
        with(Values {
            squares: values.squares + 1,
            ..values
        })
        .fits(&baseline),
        moments
    );
    let none = Counts::from_parts(&[0, 0], [0; 6], Some(values)).unwrap();
    assert_eq!(none.fits(&baseline), Err(CountsError::ValuesForeign));
    let other = Counts::from_parts(&[0, 0], [0, 0, 0, 0, 0, 1], None).unwrap();
    assert_eq!(
        other.fits(&baseline),
        Err(CountsError::SpecialForeign(Special::Other))
    );
    let bins = Counts::from_parts(&[0], [0; 6], None).unwrap();
    assert_eq!(
        bins.fits(&baseline),
        Err(CountsError::BinsDiffer {
            found: 1,
            expected: 2
        })
    );
    let many = Err(CountsError::TooMany { found: 3, most: 2 });
    assert_eq!(honest.fits_window(&baseline, 2), many);
    assert_eq!(honest.fits_window(&baseline, 3), Ok(()));
    let states = FieldBaseline::categorical("s", &[0, 1], &[0, 1]).unwrap();
    assert_eq!(
        honest.fits(&states),
        Err(CountsError::SpecialForeign(Special::Above))
    );
}

#[test]
fn full_counters_change_nothing() {
    let baseline = FieldBaseline::numeric("x", &[0.0, 1.0], 1).unwrap();
    let mut full = Counts::from_parts(&[u32::MAX], [0; 6], None).unwrap();
    let before = full.clone();
    assert!(!full.observe(&baseline, 0.5));
    assert_eq!(
        full.merge(&counted(&baseline, &[Some(0.5)])),
        Err(MergeError::Full)
    );
    assert_eq!(full, before);
    let two = Counts::from_parts(&[0, 0], [0; 6], None).unwrap();
    assert_eq!(full.merge(&two), Err(MergeError::BinsDiffer));
    let values = Values {
        sum: 0,
        squares: u64::MAX,
        min: 0.0,
        max: 1.0,
    };
    let mut wide = Counts::from_parts(&[2], [0; 6], Some(values)).unwrap();
    assert!(!wide.observe(&baseline, 0.0));
    assert_eq!(wide.bins(), [2]);
}

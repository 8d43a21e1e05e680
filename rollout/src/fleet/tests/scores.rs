//! From windows of real counts to scores.

use alloc::vec::Vec;

use bellwether_drift::{Bins, Counts, FieldBaseline};
use bellwether_package::ids::SlotName;
use bellwether_protocol::{ErrorCounts, Fields, Latency, Window};

use super::super::score::TallyError;
use super::super::*;
use super::bench::*;

/// Ten equal bins over 0 to 10, a thousand training values in each.
fn baseline(shift: f32) -> FieldBaseline {
    let edges = (1..10).map(|edge| edge as f32 + shift).collect();
    let bins = Bins::Numeric {
        edges,
        lo: shift,
        hi: 10.0 + shift,
    };
    let empty = Counts::new(&bins);
    let plan = FieldBaseline::new("V1", bins.clone(), empty, 5.0, 0.125).unwrap();
    let counts = counted(&plan, &values(10_000, shift));
    FieldBaseline::new("V1", bins, counts, 5.0, 0.125).unwrap()
}

fn values(count: usize, shift: f32) -> Vec<f32> {
    (0..count)
        .map(|n| (n % 100) as f32 / 10.0 + shift)
        .collect()
}

fn counted(baseline: &FieldBaseline, values: &[f32]) -> Counts {
    let mut counts = Counts::new(baseline.bins());
    values
        .iter()
        .for_each(|value| assert!(counts.observe(baseline, *value)));
    counts
}

fn window(release: u8, baseline: u8, inputs: Counts) -> Window {
    let rows = inputs.total() as u32;
    let outputs = if release == baseline {
        Fields::of([Some(inputs.clone())])
    } else {
        Fields::of([])
    };
    Window {
        slot: SlotName::new("pump").unwrap(),
        release: package(release),
        baseline: package(baseline),
        started_at: START,
        secs: 60,
        rows,
        inputs: Fields::of([Some(inputs)]).unwrap(),
        outputs: outputs.unwrap(),
        errors: ErrorCounts {
            input_refused: 5,
            model: 10,
            ..ErrorCounts::default()
        },
        rows_nonfinite: 20,
        latency: Some(Latency {
            answers: rows,
            us_p50: 50,
            us_p99: 300,
            us_max: 900,
        }),
    }
}

#[test]
fn windows_add_up_to_scores() {
    let own = [baseline(0.0)];
    let reference = [baseline(5.0)];
    let mut tally = Tally::new(package(2), Some(package(1)));
    for _ in 0..4 {
        tally
            .add(&window(2, 2, counted(&own[0], &values(500, 0.0))))
            .unwrap();
        tally
            .add(&window(2, 1, counted(&reference[0], &values(500, 0.0))))
            .unwrap();
    }
    let baselines = Baselines {
        inputs: &own,
        outputs: &own,
        reference: Some(&reference),
    };
    let scores = tally.scores(&baselines);
    assert_eq!(
        (scores.windows, scores.rows),
        (4, 2_000),
        "rows of a second baseline count once"
    );
    assert!(scores.inputs_own.fields[0].psi.unwrap() < 0.01);
    let far = scores.inputs_reference.unwrap().fields[0];
    assert!(
        far.outside_rise.unwrap() > 0.45,
        "half of the values lie below that range"
    );
    assert!(
        (scores.error_share - 0.02).abs() < 1e-12,
        "refused inputs are not the release's"
    );
    assert!((scores.nonfinite_share - 0.04).abs() < 1e-12);
    assert_eq!(scores.latency_us_p99, Some(300.0));
}

#[test]
fn the_order_of_windows_does_not_matter() {
    let own = [baseline(0.0)];
    let windows: Vec<Window> = (1..6)
        .map(|n| window(1, 1, counted(&own[0], &values(97 * n, 0.3))))
        .collect();
    let tallied = |windows: &mut dyn Iterator<Item = &Window>| {
        let mut tally = Tally::new(package(1), None);
        windows.for_each(|window| tally.add(window).unwrap());
        tally
    };
    assert_eq!(
        tallied(&mut windows.iter()),
        tallied(&mut windows.iter().rev())
    );
}

#[test]
fn windows_of_other_releases_and_baselines_are_refused() {
    let own = baseline(0.0);
    let counts = counted(&own, &values(10, 0.0));
    let mut tally = Tally::new(package(2), Some(package(1)));
    assert_eq!(
        tally.add(&window(1, 1, counts.clone())),
        Err(TallyError::Foreign)
    );
    assert_eq!(
        tally.add(&window(2, 3, counts.clone())),
        Err(TallyError::Foreign)
    );
    tally.add(&window(2, 2, counts.clone())).unwrap();
    let mut more = window(2, 2, counts);
    more.inputs.push(None).unwrap();
    assert_eq!(tally.add(&more), Err(TallyError::Unfit));
}

#[test]
fn a_treated_device_without_counts_under_the_older_baseline_has_no_reference() {
    let own = [baseline(0.0)];
    let mut tally = Tally::new(package(2), Some(package(1)));
    tally
        .add(&window(2, 2, counted(&own[0], &values(500, 0.0))))
        .unwrap();
    let baselines = Baselines {
        inputs: &own,
        outputs: &own,
        reference: Some(&own),
    };
    assert_eq!(tally.scores(&baselines).inputs_reference, None);
    let control = Baselines {
        reference: None,
        ..baselines
    };
    let scores = tally.scores(&control);
    assert_eq!(scores.inputs_reference, Some(scores.inputs_own));
}

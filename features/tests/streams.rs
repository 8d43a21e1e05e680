//! Streams of rows: what is emitted, whatever the chunks.
#![allow(clippy::unwrap_used)] // Helpers of tests panic as tests do.

use bellwether_features::{
    FillRule, GAP_ROWS_MAX, Method, Pipeline, Plan, Step, StreamError, TIME_US_MAX,
};
use proptest::prelude::*;

type Emitted = Vec<(u64, Vec<u32>)>;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Feeds rows in chunks that end at `cuts`, out of a buffer full of rubbish.
fn feed(steps: &[Step], channels: usize, times: &[u64], rows: &[f32], cuts: &[usize]) -> Emitted {
    let plan = Plan::new(steps, channels).unwrap();
    let mut buffer = vec![f32::from_bits(0x7fc0_dead); plan.buffer_len()];
    let mut pipeline = Pipeline::new(plan, &mut buffer).unwrap();
    let mut emitted = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([times.len()]) {
        let end = end.clamp(start, times.len());
        let chunk = &rows[start * channels..end * channels];
        let emit = |window: bellwether_features::Window<'_>| {
            emitted.push((window.end_us, bits(window.rows)));
        };
        pipeline.push(&times[start..end], chunk, emit).unwrap();
        start = end;
    }
    emitted
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::Previous),
        Just(Method::Linear),
        Just(Method::Mean)
    ]
}

fn reading() -> impl Strategy<Value = f32> {
    prop_oneof![9 => -1e6_f32..1e6, 1 => Just(f32::NAN)]
}

proptest! {
    #[test]
    fn chunks_do_not_matter(
        method in method(),
        resampled in any::<bool>(),
        period_us in 1_u64..50,
        (len, hop) in (1_u16..9, 1_u16..12),
        pace in prop::collection::vec((1_u64..200, reading(), reading()), 1..80),
        mut cuts in prop::collection::vec(0_usize..80, 0..10),
    ) {
        let mut steps = vec![Step::Fill { field: 0, rule: FillRule::Last { initial: 3.0 } }];
        if resampled {
            steps.push(Step::Resample { period_us, method });
        }
        steps.push(Step::Fill { field: 1, rule: FillRule::Last { initial: -3.0 } });
        steps.push(Step::Window { len, hop });
        let mut now = 0;
        let times: Vec<u64> = pace.iter().map(|(wait, ..)| { now += wait; now }).collect();
        let rows: Vec<f32> = pace.iter().flat_map(|(_, a, b)| [*a, *b]).collect();
        cuts.sort_unstable();
        prop_assert_eq!(
            feed(&steps, 2, &times, &rows, &[]),
            feed(&steps, 2, &times, &rows, &cuts)
        );
    }

    #[test]
    fn resampling_what_is_regular_changes_nothing(
        method in method(),
        start in 0_u64..1_000_000,
        period_us in 1_u64..100_000,
        rows in prop::collection::vec(reading(), 1..60),
    ) {
        let times: Vec<u64> = (0..rows.len() as u64).map(|k| start + k * period_us).collect();
        let emitted = feed(&[Step::Resample { period_us, method }], 1, &times, &rows, &[]);
        let expected: Emitted =
            times.iter().zip(&rows).map(|(time, row)| (*time, bits(&[*row]))).collect();
        prop_assert_eq!(emitted, expected);
    }

    #[test]
    fn windows_are_the_rows_they_should_be(
        (len, hop) in (1_u16..9, 1_u16..12),
        rows in prop::collection::vec(-1e6_f32..1e6, 0..60),
    ) {
        let times: Vec<u64> = (0..rows.len() as u64).collect();
        let emitted = feed(&[Step::Window { len, hop }], 1, &times, &rows, &[]);
        let expected: Emitted = (0..rows.len())
            .step_by(usize::from(hop))
            .filter_map(|start| rows.get(start..start + usize::from(len)).map(|rows| (start, rows)))
            .map(|(start, rows)| ((start + rows.len() - 1) as u64, bits(rows)))
            .collect();
        prop_assert_eq!(emitted, expected);
    }

    #[test]
    fn resampled_rows_stay_within_the_readings(
        method in method(),
        pace in prop::collection::vec((1_u64..90, -1e6_f32..1e6), 1..60),
    ) {
        let mut now = 0;
        let times: Vec<u64> = pace.iter().map(|(wait, _)| { now += wait; now }).collect();
        let rows: Vec<f32> = pace.iter().map(|(_, row)| *row).collect();
        let emitted = feed(&[Step::Resample { period_us: 20, method }], 1, &times, &rows, &[]);
        let (lo, hi) = rows.iter().fold((f32::MAX, f32::MIN), |(lo, hi), x| (lo.min(*x), hi.max(*x)));
        for (index, (time, row)) in emitted.iter().enumerate() {
            prop_assert_eq!(*time, times[0] + 20 * index as u64);
            let value = f32::from_bits(row[0]);
            // A running mean is rounded at each step.
            let slack = (hi - lo) * 1e-5;
            prop_assert!(value.is_nan() || (lo - slack..=hi + slack).contains(&value));
            prop_assert!(!value.is_nan() || method == Method::Mean);
        }
    }
}

#[test]
fn methods_give_what_they_say() {
    let times = [0, 4, 12, 20];
    let rows = [0.0, 4.0, 8.0, 0.0];
    let run = |method| {
        feed(
            &[Step::Resample {
                period_us: 5,
                method,
            }],
            1,
            &times,
            &rows,
            &[],
        )
        .into_iter()
        .map(|(time, row)| (time, f32::from_bits(row[0])))
        .collect::<Vec<_>>()
    };
    assert_eq!(
        run(Method::Previous),
        [(0, 0.0), (5, 4.0), (10, 4.0), (15, 8.0), (20, 0.0)]
    );
    assert_eq!(
        run(Method::Linear),
        [(0, 0.0), (5, 4.5), (10, 7.0), (15, 5.0), (20, 0.0)]
    );
    let mean = run(Method::Mean);
    assert_eq!(
        (mean[1], mean[3], mean[4]),
        ((5, 4.0), (15, 8.0), (20, 0.0))
    );
    assert!(mean[2].1.is_nan(), "no row came between 5 and 10");
}

#[test]
fn long_silence_starts_afresh() {
    let steps = [
        Step::Resample {
            period_us: 10,
            method: Method::Previous,
        },
        Step::Window { len: 2, hop: 1 },
    ];
    let late = 10 + 10 * GAP_ROWS_MAX;
    let bridged = feed(&steps, 1, &[0, late - 1], &[1.0, 2.0], &[]);
    assert_eq!(bridged.len() as u64, GAP_ROWS_MAX);
    let afresh = feed(&steps, 1, &[0, late, late + 10], &[1.0, 2.0, 3.0], &[]);
    assert_eq!(afresh, [(late + 10, bits(&[2.0, 3.0]))]);
}

#[test]
fn rows_out_of_time_are_refused_and_harmless() {
    let plan = Plan::new(&[], 1).unwrap();
    let mut buffer = vec![0.0; plan.buffer_len()];
    let mut pipeline = Pipeline::new(plan, &mut buffer).unwrap();
    let mut seen = Vec::new();
    let mut push =
        |times: &[u64], rows: &[f32]| pipeline.push(times, rows, |window| seen.push(window.end_us));
    assert_eq!(
        push(&[5, 7, 7], &[1.0; 3]),
        Err(StreamError::TimeWentBack { row: 2 })
    );
    assert_eq!(
        push(&[6], &[1.0]),
        Err(StreamError::TimeWentBack { row: 0 })
    );
    assert_eq!(
        push(&[TIME_US_MAX + 1], &[1.0]),
        Err(StreamError::TimeInvalid { row: 0 })
    );
    let shape = StreamError::ShapeDiffers {
        times: 2,
        values: 3,
        channels: 1,
    };
    assert_eq!(push(&[8, 9], &[1.0; 3]), Err(shape));
    assert_eq!(push(&[8], &[1.0]), Ok(()));
    assert_eq!(seen, [5, 7, 8]);
}

#[test]
fn small_buffer_is_refused() {
    let steps = [Step::Window { len: 1024, hop: 1 }];
    let plan = Plan::new(&steps, 64).unwrap();
    let needed = plan.buffer_len();
    let mut buffer = vec![0.0; needed - 1];
    let error = Pipeline::new(plan, &mut buffer).unwrap_err();
    assert_eq!(
        error,
        StreamError::BufferTooSmall {
            needed,
            given: needed - 1
        }
    );
}

//! Windows in few bytes, and two windows that become one.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use bellwether_drift::{Counts, Values};
use bellwether_package::ids::{Digest, PackageId, SlotName, UnixSecs};
use bellwether_protocol::*;
use proptest::prelude::*;

fn package(tag: u8) -> PackageId {
    PackageId(Digest([tag; 32]))
}

fn window() -> Window {
    Window {
        slot: SlotName::new("pump").unwrap(),
        release: package(2),
        baseline: package(2),
        started_at: UnixSecs(1_764_000_000),
        secs: 1_800,
        rows: 1_800,
        inputs: Fields::new(),
        outputs: Fields::new(),
        errors: ErrorCounts::default(),
        rows_nonfinite: 0,
        latency: Some(Latency {
            answers: 1_800,
            us_p50: 900,
            us_p99: 4_000,
            us_max: 21_000,
        }),
    }
}

fn report(window: Window) -> Report {
    Report {
        boot: BootId(0x1234_5678_9abc_def0),
        seq: 300,
        at: UnixSecs(1_764_001_800),
        record: Record::Window(window),
    }
}

/// A count that is small, ordinary or as large as it can be.
fn count() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..4, 0_u32..3_000, any::<u32>(), Just(u32::MAX)]
}

fn values() -> impl Strategy<Value = Option<Values>> {
    let figures = (any::<i64>(), any::<u64>(), any::<u32>(), any::<u32>());
    prop::option::of(figures.prop_map(|(sum, squares, min, max)| Values {
        sum,
        squares,
        min: f32::from_bits(min),
        max: f32::from_bits(max),
    }))
}

fn counts() -> impl Strategy<Value = Option<Counts>> {
    let special = prop_oneof![Just([0; 6]), prop::array::uniform6(count())];
    let bins = prop::collection::vec(count(), 0..=16);
    prop::option::of(
        (bins, special, values()).prop_map(|(bins, special, values)| {
            Counts::from_parts(&bins, special, values).unwrap()
        }),
    )
}

fn fields() -> impl Strategy<Value = Fields> {
    prop::collection::vec(counts(), 0..6).prop_map(|fields| Fields::of(fields).unwrap())
}

fn rows_of(window: &Window) -> (u64, Vec<u64>) {
    let totals = window.inputs.iter().chain(window.outputs.iter());
    let totals = totals.map(|field| field.as_ref().map_or(0, Counts::total));
    (u64::from(window.rows), totals.collect())
}

proptest! {
    #[test]
    fn a_packed_window_is_the_window(inputs in fields(), outputs in fields(), failed in 0_u32..3) {
        let sent = report(Window {
            inputs,
            outputs,
            errors: ErrorCounts { model: failed, ..ErrorCounts::default() },
            ..window()
        });
        let bytes = to_vec(&sent).unwrap();
        prop_assert_eq!(decode::<Report>(&bytes).unwrap(), sent.clone());
        let mut buffer = [0; Report::BYTES_MAX];
        prop_assert_eq!(encode(&sent, &mut buffer).unwrap(), bytes);
    }

    #[test]
    fn a_merged_window_counts_what_both_counted(
        first in prop::collection::vec(0_u32..5_000, 16),
        second in prop::collection::vec(0_u32..5_000, 16),
        pause in 0_u64..3_600,
    ) {
        let of = |bins: &[u32], started_at| {
            let counts = Counts::from_parts(bins, [1, 0, 2, 0, 0, 0], None);
            let rows = bins.iter().sum();
            Window { started_at, rows, inputs: Fields::of([counts, None]).unwrap(), ..window() }
        };
        let earlier = of(&first, UnixSecs(1_000));
        let later = of(&second, UnixSecs(1_000 + 1_800 + pause));
        let merged = earlier.merged(&later).unwrap();
        let (rows, totals) = rows_of(&merged);
        let ((rows_1, totals_1), (rows_2, totals_2)) = (rows_of(&earlier), rows_of(&later));
        prop_assert_eq!(rows, rows_1 + rows_2);
        prop_assert!(totals.iter().zip(totals_1.iter().zip(&totals_2)).all(|(m, (a, b))| *m == a + b));
        prop_assert_eq!(u64::from(merged.secs), 1_800 + pause + 1_800);
        prop_assert_eq!(merged.started_at, earlier.started_at);
    }
}

#[test]
fn windows_that_are_not_neighbours_stay_apart() {
    let first = window();
    let next = Window {
        started_at: first.started_at.plus_secs(1_800),
        ..window()
    };
    assert_eq!(first.merged(&next).unwrap().rows, 3_600);
    assert_eq!(next.merged(&first), Err(Apart::Overlapping));
    let apart = |change: &dyn Fn(&mut Window)| {
        let mut other = next.clone();
        change(&mut other);
        first.merged(&other).unwrap_err()
    };
    assert_eq!(apart(&|it| it.release = package(3)), Apart::Foreign);
    assert_eq!(apart(&|it| it.baseline = package(3)), Apart::Foreign);
    assert_eq!(
        apart(&|it| it.slot = SlotName::new("fan").unwrap()),
        Apart::Foreign
    );
    assert_eq!(
        apart(&|it| it.inputs = Fields::of([None]).unwrap()),
        Apart::Foreign
    );
    assert_eq!(
        apart(&|it| it.started_at = first.started_at.plus_secs(86_400)),
        Apart::TooLong
    );
    assert_eq!(apart(&|it| it.rows = u32::MAX), Apart::Full);
}

#[test]
fn a_merged_window_is_never_faster_than_its_parts() {
    let slow = Latency {
        answers: 10,
        us_p50: 2_000,
        us_p99: 9_000,
        us_max: 9_500,
    };
    let later = Window {
        started_at: window().started_at.plus_secs(1_800),
        latency: Some(slow),
        ..window()
    };
    let merged = window().merged(&later).unwrap().latency.unwrap();
    assert_eq!(
        merged,
        Latency {
            answers: 1_810,
            us_max: 21_000,
            ..slow
        }
    );
}

/// What a few kilobytes a day rest on: eight inputs of sixteen bins, half an hour of
/// a reading a second, and the device's health, in one message. The goal is 300 bytes, which a
/// device with fewer sensors keeps to; this one measures everything but a battery.
#[test]
fn eight_fields_and_health_fit_three_hundred_and_twenty_bytes() {
    let mut random = 1_u64;
    let mut draw = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 60) as usize
    };
    // Half an hour of one regime: the values fall into a few bins, not evenly into all of them.
    let mut field = |spread: usize| {
        let mut bins = [0_u32; 16];
        (0..1_800).for_each(|_| bins[draw() % spread] += 1);
        Counts::from_parts(&bins, [3, 0, 0, 0, 0, 0], None)
    };
    let inputs = [16, 16, 12, 8, 5, 3, 16, 2].map(&mut field);
    let window = report(Window {
        inputs: Fields::of(inputs).unwrap(),
        ..window()
    });
    // A device that has everything but a battery, after a year.
    let health = Record::Health(Health {
        agent_version: Some("0.1.0".parse().unwrap()),
        uptime_secs: 365 * 86_400,
        clock: ClockState::Plausible,
        clock_offset_secs: Some(-2),
        cpu_permille: Some(125),
        load_centi: Some(142),
        memory: Some(Room {
            kib: 1_926_392,
            kib_free: 1_104_000,
        }),
        disk: Some(Room {
            kib: 30_000_000,
            kib_free: 21_000_000,
        }),
        temperature_centi_c: Some(4_850),
        network: Some(Network {
            link: LinkKind::Cellular,
            signal_dbm: Some(-71),
            received_kib: 90_000,
            sent_kib: 14_000,
            errors: 12,
        }),
        battery: None,
        agent_kib: Some(7_300),
        served: Some(Served {
            rows: 1_800,
            rows_failed: 3,
            rows_nonfinite: 0,
            latency_us_p99: Some(18_000),
            worker_deaths: 1,
            workers_kib: Some(21_000),
        }),
        last_outcome: Some(LastOutcome {
            word: OutcomeWord::Committed,
            secs_ago: 2_000_000,
        }),
    });
    let bundle = Bundle {
        boot: window.boot,
        reports: vec![
            (299, window.at, health),
            (window.seq, window.at, window.record),
        ],
    };
    let bytes = to_vec(&bundle).unwrap().len();
    println!("{bytes} bytes");
    assert!(bytes <= 320, "{bytes}");
}

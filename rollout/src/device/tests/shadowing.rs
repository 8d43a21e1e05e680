//! Tables of the candidate beside what serves, and of outputs that move.

extern crate std;

use std::vec::Vec;

use bellwether_drift::Counts;
use bellwether_protocol::{Desired, DriftLimits, ShadowLimits, TrialFailure};

use super::*;

const SHADOW: ShadowLimits = ShadowLimits {
    secs_min: 60,
    rows_min: 200,
    disagree_share_max_ppm: 100_000,
};
const DRIFT: DriftLimits = DriftLimits {
    rows_min: 100,
    psi_max_milli: 250,
    outside_rise_max_ppm: 50_000,
};

/// An order whose candidate is compared first.
pub(super) fn shadowed_order(n: u64, release: PackageId, ordered_back: bool) -> Event {
    with_limits(n, release, ordered_back, Some(SHADOW))
}

fn with_limits(n: u64, id: PackageId, back: bool, shadow: Option<ShadowLimits>) -> Event {
    let Event::Assigned { sequence, mut slot } = assigned(n, id, back) else {
        unreachable!()
    };
    slot.trial.shadow = shadow;
    slot.trial.drift = Some(DRIFT);
    Event::Assigned { sequence, slot }
}

/// Up to the candidate's first run.
fn proved(bench: &mut Bench, order: Event) -> PackageId {
    let Event::Assigned { slot, .. } = &order else {
        unreachable!()
    };
    let Desired::Serve { release, .. } = slot.desired else {
        unreachable!()
    };
    bench
        .event(order)
        .event(Event::Fetched { release })
        .event(Event::Checked { release })
        .event(Event::Proved { release });
    release
}

/// A slot that serves release 1 and compares release 2 with it.
fn shadowing() -> Bench {
    let mut bench = Bench::serving(release(1));
    proved(&mut bench, shadowed_order(2, release(2), false));
    assert_eq!(bench.state.phase(), Phase::Shadowing);
    bench
}

fn serve(release: PackageId, trial: bool, shadow: Option<PackageId>) -> Action {
    let shadow = shadow.map(|release| Shadow {
        release,
        also_baseline: None,
    });
    Action::Serve {
        release,
        also_baseline: None,
        trial,
        shadow,
    }
}

fn compared(bench: &mut Bench, rows: u32, rows_disagreeing: u32) {
    let traffic = Traffic {
        rows,
        rows_compared: rows,
        rows_disagreeing,
        ..Traffic::default()
    };
    bench.event(Event::Traffic {
        release: release(2),
        traffic,
    });
}

fn moved() -> Drift {
    Drift::Moved(Moved {
        field: 0,
        psi_milli: 900,
        outside_rise_ppm: 0,
        values: 500,
    })
}

fn looked(bench: &mut Bench, inputs: Drift, outputs: Drift) {
    let look = Look { inputs, outputs };
    bench.event(Event::Looked {
        release: release(2),
        look,
    });
}

#[test]
fn a_candidate_is_compared_before_it_answers_and_while_it_does() {
    let (a, b) = (release(1), release(2));
    let mut bench = shadowing();
    assert_eq!(bench.actions, [Action::Persist, serve(a, false, Some(b))]);
    assert_eq!(bench.state.serving(), Some(&a), "it answers nobody");
    compared(&mut bench, 200, 20);
    assert_eq!(
        bench.state.phase(),
        Phase::Shadowing,
        "its time is not over"
    );
    bench.wait(60);
    assert_eq!(bench.state.phase(), Phase::Trial);
    assert!(bench.has(&serve(b, true, Some(a))));
    bench.wait(60).traffic(b, 100);
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Committed));
    assert!(bench.has(&serve(b, false, None)), "nothing runs beside it");
}

#[test]
fn time_alone_is_no_comparison() {
    let mut bench = shadowing();
    bench.wait(100_000);
    assert_eq!(bench.state.phase(), Phase::Shadowing);
    assert_eq!(bench.state.serving(), Some(&release(1)));
}

#[test]
fn each_limit_ends_the_comparison_before_the_candidate_ever_answers() {
    let (a, b) = (release(1), release(2));
    let traffic = |traffic| Event::Traffic {
        release: b,
        traffic,
    };
    let died = Event::WorkerDied {
        release: b,
        how: WorkerDeath::OutOfMemory,
    };
    let rows = Traffic {
        rows: 100,
        ..Traffic::default()
    };
    let cases: [Vec<Event>; 6] = [
        [traffic(Traffic {
            rows_compared: 100,
            rows_disagreeing: 21,
            ..rows
        })]
        .into(),
        [traffic(Traffic {
            rows_nonfinite: 1,
            ..rows
        })]
        .into(),
        [traffic(Traffic {
            rows_failed: 2,
            ..rows
        })]
        .into(),
        [traffic(Traffic {
            latency_us_p99: Some(5_001),
            ..rows
        })]
        .into(),
        [traffic(Traffic {
            memory_bytes_peak: Some(11),
            budget: Budget {
                memory_bytes: Some(10),
                ..Budget::default()
            },
            ..rows
        })]
        .into(),
        [died.clone(), died].into(),
    ];
    for events in cases {
        let mut bench = shadowing();
        events.iter().for_each(|event| {
            bench.event(event.clone());
        });
        let outcome = bench.outcome();
        let before = matches!(
            outcome,
            Some(OutcomeKind::FailedBeforeServing(ProofFailure::Shadowed(_)))
        );
        assert!(before, "{outcome:?} after {events:?}");
        assert!(bench.has(&serve(a, false, None)), "nothing runs beside it");
        assert!(bench.has(&Action::Delete { release: b }));
        assert_eq!(bench.state.floor(), sequence(1));
    }
}

#[test]
fn a_candidate_that_cannot_be_opened_is_refused_and_never_answers() {
    let mut bench = shadowing();
    let why = Refusal::Revoked;
    bench.event(Event::Unservable {
        release: release(2),
        why,
    });
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Refused(why)));
    assert_eq!(bench.state.serving(), Some(&release(1)));
}

#[test]
fn the_comparison_starts_anew_after_a_boot_but_not_for_ever() {
    let (a, b) = (release(1), release(2));
    let mut bench = shadowing();
    compared(&mut bench, 199, 0);
    for _ in 0..TRIAL_BOOTS_MAX {
        bench.event(Event::Boot);
        assert_eq!(bench.actions, [Action::Persist, serve(a, false, Some(b))]);
        compared(&mut bench, 199, 0);
        bench.wait(60);
        assert_eq!(bench.state.phase(), Phase::Shadowing, "rows were forgotten");
    }
    bench.event(Event::Boot);
    let why = ProofFailure::DeviceStopped;
    let failed = OutcomeKind::FailedBeforeServing(why);
    assert_eq!(bench.outcome(), Some(&failed));
    assert_eq!(bench.state.serving(), Some(&a));
}

#[test]
fn orders_end_the_comparison_or_renew_it() {
    let (a, b, c) = (release(1), release(2), release(3));
    let mut bench = shadowing();
    bench.event(shadowed_order(3, b, false));
    assert_eq!(bench.actions, [Action::Persist], "it goes on");
    bench.order(4, c);
    assert!(bench.has(&serve(a, false, None)) && bench.has(&Action::Delete { release: b }));
    let mut bench = shadowing();
    bench.event(disable(3));
    assert_eq!(bench.state.phase(), Phase::Disabled);
    assert!(bench.has(&Action::Delete { release: b }));
    let mut bench = shadowing();
    bench.order(3, a);
    assert!(bench.has(&serve(a, false, None)) && bench.has(&Action::Delete { release: b }));
}

#[test]
fn without_a_release_that_answers_there_is_nothing_to_compare_with() {
    let mut bench = Bench::new();
    proved(&mut bench, shadowed_order(1, release(2), false));
    assert_eq!(bench.state.phase(), Phase::Trial);
    // The good one is lost while the candidate runs beside it.
    let mut bench = shadowing();
    bench.event(Event::Unservable {
        release: release(1),
        why: Refusal::Revoked,
    });
    bench.wait(60);
    assert_eq!(bench.state.phase(), Phase::Trial);
}

#[test]
fn a_rollback_by_order_is_not_compared() {
    let mut bench = Bench::serving(release(1));
    proved(&mut bench, shadowed_order(2, release(2), true));
    assert_eq!(bench.outcome(), Some(&OutcomeKind::RolledBackByOrder));
}

/// On trial without comparison.
fn tried() -> Bench {
    let mut bench = Bench::serving(release(1));
    proved(&mut bench, with_limits(2, release(2), false, None));
    bench
}

#[test]
fn outputs_that_move_alone_roll_back() {
    let mut bench = tried();
    looked(&mut bench, Drift::Still, Drift::Still);
    assert_eq!(bench.state.phase(), Phase::Trial);
    looked(&mut bench, Drift::Still, moved());
    let outcome = bench.outcome();
    let drifted = matches!(
        outcome,
        Some(OutcomeKind::RolledBackItself(
            TrialFailure::OutputDrift { .. }
        ))
    );
    assert!(drifted, "{outcome:?}");
}

#[test]
fn outputs_that_move_with_the_inputs_hold_the_trial_until_they_do_not() {
    for inputs in [moved(), Drift::Insufficient] {
        let mut bench = tried();
        looked(&mut bench, inputs, moved());
        bench.wait(3_600).traffic(release(2), 1_000);
        assert_eq!(bench.state.phase(), Phase::TrialHeldByDrift);
        assert_eq!(bench.state.status().phase, Phase::TrialHeldByDrift, "told");
        looked(&mut bench, Drift::Still, Drift::Still);
        assert_eq!(bench.outcome(), Some(&OutcomeKind::Committed));
    }
}

#[test]
fn the_older_release_on_the_same_inputs_tells_whose_fault_moved_outputs_are() {
    let on_trial = || {
        let mut bench = shadowing();
        bench.wait(60);
        compared(&mut bench, 200, 0);
        assert_eq!(bench.state.phase(), Phase::Trial);
        looked(&mut bench, moved(), moved());
        assert_eq!(bench.state.phase(), Phase::TrialHeldByDrift);
        bench
    };
    let mut agreeing = on_trial();
    compared(&mut agreeing, 200, 2);
    agreeing.wait(60);
    assert_eq!(agreeing.outcome(), Some(&OutcomeKind::Committed));

    let mut disagreeing = on_trial();
    compared(&mut disagreeing, 60, 30);
    let outcome = disagreeing.outcome();
    let why = matches!(
        outcome,
        Some(OutcomeKind::RolledBackItself(
            TrialFailure::Disagrees { .. }
        ))
    );
    assert!(why, "{outcome:?}");
}

#[test]
fn the_packages_own_budget_holds_where_the_order_names_no_limit() {
    let b = release(2);
    for (limit, us_p99_max) in [(None, 900), (Some(5_000), 5_000)] {
        let mut order = assigned(2, b, false);
        if let Event::Assigned { slot, .. } = &mut order {
            slot.trial = TrialLimits {
                latency_us_p99_max: limit,
                ..LIMITS
            };
        }
        let mut bench = Bench::serving(release(1));
        proved(&mut bench, order);
        let budget = Budget {
            latency_us_p99: Some(900),
            memory_bytes: None,
        };
        let mut seen = |latency_us_p99| {
            let traffic = Traffic {
                rows: 100,
                latency_us_p99,
                budget,
                ..Traffic::default()
            };
            bench.event(Event::Traffic {
                release: b,
                traffic,
            });
            bench.outcome().cloned()
        };
        assert_eq!(seen(Some(us_p99_max)), None);
        let us_p99 = us_p99_max + 1;
        let why = TrialFailure::Latency { us_p99, us_p99_max };
        assert_eq!(seen(Some(us_p99)), Some(OutcomeKind::RolledBackItself(why)));
    }
}

#[test]
fn counts_move_by_effect_size_after_enough_values() {
    let sample: Vec<f32> = (0..1_000).map(|n| n as f32).collect();
    let baseline = bellwether_drift::FieldBaseline::numeric("flow", &sample, 8).unwrap();
    let counted = |values: &mut dyn Iterator<Item = f32>| {
        let mut counts = Counts::new(baseline.bins());
        values.for_each(|value| assert!(counts.observe(&baseline, value)));
        counts
    };
    let of = |counts: &Counts| drift([(&baseline, counts)], &DRIFT);
    let alike = counted(&mut (0..500).map(|n| (n * 2) as f32));
    assert_eq!(of(&alike), Drift::Still);
    let low = counted(&mut (0..500).map(|n| (n % 100) as f32));
    assert!(matches!(of(&low), Drift::Moved(moved) if moved.psi_milli > 250));
    let beyond = counted(&mut (0..500).map(|n| 5_000.0 + n as f32));
    assert!(matches!(of(&beyond), Drift::Moved(moved) if moved.outside_rise_ppm == 1_000_000));
    let few = counted(&mut (0..99).map(|n| n as f32 / 100.0));
    assert_eq!(of(&few), Drift::Insufficient);
    assert_eq!(drift([], &DRIFT), Drift::Insufficient);
    let both = drift([(&baseline, &few), (&baseline, &low)], &DRIFT);
    assert!(matches!(both, Drift::Moved(moved) if moved.field == 1));
    let neither = drift([(&baseline, &few), (&baseline, &alike)], &DRIFT);
    assert_eq!(neither, Drift::Insufficient);
}

//! Two releases on the same inputs, and outputs that move.

use bellwether_protocol::{
    DriftLimits, OutcomeKind, ProofFailure, ShadowLimits, TrialFailure, TrialLimits,
};

use crate::bench::{Bench, wait};
use crate::model;
use crate::package::Package;
use crate::people::trial;

const SHADOW: ShadowLimits = ShadowLimits {
    secs_min: 1,
    rows_min: 50,
    disagree_share_max_ppm: 0,
};
const DRIFT: DriftLimits = DriftLimits {
    rows_min: 100,
    psi_max_milli: 250,
    outside_rise_max_ppm: 50_000,
};
/// Never reached.
const ROWS: u32 = 1_000_000;

/// A device that serves a doubling release, and runs this one beside it.
fn beside(bench: &mut Bench, candidate: &Package, rows: u32) -> Package {
    let first = times(bench, 1, 2.0);
    bench.install(&first);
    bench.upload(candidate);
    let limits = TrialLimits {
        shadow: Some(SHADOW),
        ..trial(0, rows)
    };
    bench.order_under(candidate.desired(), limits);
    bench.wait_phase("shadowing");
    first
}

fn times(bench: &Bench, minor: u32, factor: f32) -> Package {
    Package::approved(&bench.people, minor, &model::times(factor), |x| factor * x)
}

#[test]
fn a_candidate_sees_every_input_and_answers_nobody_until_its_trial() {
    let mut bench = Bench::new();
    let mut agent = bench.start();
    // Up to a reading of 6 nothing that it answers is more than a bin away.
    let candidate = times(&bench, 2, 3.0);
    let first = beside(&mut bench, &candidate, 20);
    for _ in 0..20 {
        assert_eq!(bench.scores([1.0, 2.0]).1, first.id.to_string());
    }
    // It starts anew after a power failure, and the older one answers all the while.
    agent.kill();
    let _agent = bench.start();
    let mut answers = 0;
    wait("the candidate's answers", || {
        let (scores, release) = bench.scores([1.0, 2.0]);
        if release == candidate.id.to_string() {
            return Some(());
        }
        assert_eq!((scores[1], release), (Some(4.0), first.id.to_string()));
        answers += 1;
        None
    });
    assert!(answers >= SHADOW.rows_min, "{answers} rows are too few");
    bench.wait_committed(candidate.id);
    assert_eq!(bench.wait_outcome(candidate.id), OutcomeKind::Committed);
}

#[test]
fn a_candidate_that_disagrees_never_answers() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let candidate = times(&bench, 2, 3.0);
    let first = beside(&mut bench, &candidate, ROWS);
    wait("its end", || {
        assert_eq!(bench.scores([20.0, 40.0]).1, first.id.to_string());
        bench.slot().filter(|slot| slot.phase == "serving")
    });
    let outcome = bench.wait_outcome(candidate.id);
    let why = matches!(
        outcome,
        OutcomeKind::FailedBeforeServing(ProofFailure::Shadowed(TrialFailure::Disagrees { .. }))
    );
    assert!(why, "{outcome:?}");
    wait("its removal", || {
        (bench.packages(".bwp").len() == 1).then_some(())
    });
}

#[test]
fn what_goes_wrong_beside_what_serves_never_reaches_the_application() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let candidate = Package::approved(&bench.people, 2, &model::root(), f32::sqrt);
    let first = beside(&mut bench, &candidate, ROWS);
    wait("its end", || {
        let (scores, release) = bench.scores([-1.0, 4.0]);
        assert_eq!((scores[0], release), (Some(-2.0), first.id.to_string()));
        bench.slot().filter(|slot| slot.phase == "serving")
    });
    let outcome = bench.wait_outcome(candidate.id);
    let why = matches!(
        outcome,
        OutcomeKind::FailedBeforeServing(ProofFailure::Shadowed(TrialFailure::Nonfinite { .. }))
    );
    assert!(why, "{outcome:?}");
}

/// A trial whose outputs are watched, of a release that answers twice what its baseline says.
fn watched(bench: &mut Bench) -> Package {
    let (first, candidate) = (times(bench, 1, 1.0), times(bench, 2, 2.0));
    bench.install(&first);
    bench.upload(&candidate);
    let limits = TrialLimits {
        drift: Some(DRIFT),
        ..trial(1, 150)
    };
    bench.order_under(candidate.desired(), limits);
    wait("the candidate", || {
        (bench.scores([1.0, 1.0]).1 == candidate.id.to_string()).then_some(())
    });
    candidate
}

#[test]
fn outputs_that_move_alone_are_taken_back_by_the_device_itself() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let candidate = watched(&mut bench);
    let mut reading = 0.0;
    wait("the end of the trial", || {
        // As in training, from 0 to 100.
        reading = (reading + 7.3) % 100.0;
        bench.scores([reading, 99.0 - reading]);
        let told = bench.slot()?.outcome?;
        (told.release == Some(candidate.id.to_string())).then_some(())
    });
    let outcome = bench.wait_outcome(candidate.id);
    let why = matches!(
        outcome,
        OutcomeKind::RolledBackItself(TrialFailure::OutputDrift { .. })
    );
    assert!(why, "{outcome:?}");
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(1.0), Some(2.0)]);
}

#[test]
fn outputs_that_move_with_the_inputs_hold_the_trial_and_that_is_told() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let candidate = watched(&mut bench);
    wait("the trial to be held", || {
        bench.scores([300.0, 400.0]);
        let phase = bench.slot()?.phase;
        assert!(phase.starts_with("trial"), "{phase}");
        (phase == "trial-held-by-drift").then_some(())
    });
    for _ in 0..150 {
        let (_, release) = bench.scores([300.0, 400.0]);
        assert_eq!(
            release,
            candidate.id.to_string(),
            "neither back nor committed"
        );
    }
    wait("the server to know", || {
        use bellwether_protocol::{Phase, Record};
        let world = bench.server.world();
        let held = world.reports.iter().any(|report| {
            matches!(&report.record, Record::Status(it) if it.phase == Phase::TrialHeldByDrift)
        });
        held.then_some(())
    });
    assert_eq!(bench.slot().unwrap().phase, "trial-held-by-drift");
}

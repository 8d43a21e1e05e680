//! The slot of the device's own programs.

extern crate std;

use std::vec::Vec;

use bellwether_package::ids::{AGENT_SLOT, PackageId, SlotName};
use bellwether_protocol::{
    Desired, OutcomeKind, Phase, ShadowLimits, SlotAssignment, TrialFailure, TrialLimits,
    WorkerDeath,
};

use super::{Action, Bench, Event, LIMITS, State, Work, release, sequence};

fn agent() -> SlotName {
    SlotName::new(AGENT_SLOT).unwrap()
}

fn bench() -> Bench {
    Bench {
        state: State::new(agent()),
        ..Bench::new()
    }
}

fn order(n: u64, release: PackageId, trial: TrialLimits) -> Event {
    let slot = SlotAssignment {
        slot: agent(),
        desired: Desired::Serve {
            release,
            length: 1_000,
        },
        also_baseline: None,
        trial,
        rollout: None,
        ordered_back: false,
        treated: None,
    };
    Event::Assigned {
        sequence: sequence(n),
        slot,
    }
}

fn start_trial(bench: &mut Bench, n: u64, release: PackageId, limits: TrialLimits) {
    bench
        .event(order(n, release, limits))
        .event(Event::Fetched { release })
        .event(Event::Checked { release })
        .event(Event::Proved { release });
    assert_eq!(bench.state.phase(), Phase::Trial);
}

fn committed(release: PackageId) -> Bench {
    let mut bench = bench();
    start_trial(&mut bench, 1, release, LIMITS);
    bench.wait(60).traffic(release, 1);
    assert_eq!(bench.state.good().map(|good| good.release), Some(release));
    bench.event(Event::Told);
    bench
}

#[test]
fn programs_commit_on_one_acknowledgement_once_their_time_is_over() {
    let mut bench = bench();
    start_trial(&mut bench, 1, release(1), LIMITS);
    bench.traffic(release(1), 1);
    assert_eq!(bench.state.phase(), Phase::Trial);
    bench.wait(60);
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Committed));
}

#[test]
fn programs_that_do_not_reach_the_server_in_time_go_back_by_themselves() {
    let mut bench = committed(release(1));
    start_trial(&mut bench, 2, release(2), LIMITS);
    bench.wait(u64::from(LIMITS.secs_max) - 60);
    assert_eq!(bench.state.phase(), Phase::Trial);
    bench.wait(60);
    let why = TrialFailure::ServerNotReached {
        secs: LIMITS.secs_max,
    };
    assert_eq!(bench.outcome(), Some(&OutcomeKind::RolledBackItself(why)));
    assert_eq!(bench.state.serving(), Some(&release(1)));
    // The same order does not begin again.
    bench.event(order(2, release(2), LIMITS));
    assert_eq!(bench.state.phase(), Phase::Serving);
}

#[test]
fn a_model_without_requests_is_held_as_ever() {
    let mut bench = Bench::serving(release(1));
    bench.start_trial(2, release(2)).wait(600);
    assert_eq!(bench.state.phase(), Phase::TrialHeld);
}

#[test]
fn programs_that_end_on_trial_are_taken_back_and_the_first_ones_have_what_was_installed() {
    for before in [None, Some(release(1))] {
        let mut bench = before.map_or_else(bench, committed);
        start_trial(&mut bench, 2, release(2), LIMITS);
        let (starts, last) = (3, WorkerDeath::Faulted { signal: 11 });
        bench.event(Event::ProgramEnded {
            release: release(2),
            starts,
            last,
        });
        let why = TrialFailure::ProgramEnded { starts, last };
        assert_eq!(bench.outcome(), Some(&OutcomeKind::RolledBackItself(why)));
        assert_eq!(bench.state.serving(), before.as_ref());
        let stops = |action: &Action| matches!(action, Action::StopServing { .. });
        assert_eq!(bench.actions.iter().any(stops), before.is_none());
        assert!(bench.has(&Action::Delete {
            release: release(2)
        }));
    }
}

#[test]
fn programs_that_end_after_their_commit_give_way_to_those_before() {
    let mut bench = committed(release(1));
    start_trial(&mut bench, 2, release(2), LIMITS);
    bench.wait(60).traffic(release(2), 1);
    assert_eq!(bench.state.serving(), Some(&release(2)));
    let (starts, last) = (3, WorkerDeath::Other);
    let ended = Event::ProgramEnded {
        release: release(2),
        starts,
        last,
    };
    bench.event(ended.clone());
    assert_eq!(bench.state.serving(), Some(&release(1)));
    let after = bench.state.clone();
    bench.event(ended);
    assert_eq!(bench.state, after, "told twice");
}

#[test]
fn programs_are_never_shadowed() {
    let mut bench = committed(release(1));
    let shadow = ShadowLimits {
        secs_min: 10,
        rows_min: 1,
        disagree_share_max_ppm: 0,
    };
    let limits = TrialLimits {
        shadow: Some(shadow),
        ..LIMITS
    };
    start_trial(&mut bench, 2, release(2), limits);
}

#[test]
fn a_trial_of_programs_survives_few_starts_of_the_device() {
    let mut bench = committed(release(1));
    start_trial(&mut bench, 2, release(2), LIMITS);
    for _ in 0..super::TRIAL_BOOTS_MAX {
        bench.event(Event::Boot);
        assert!(matches!(bench.state.work(), Work::Trial { .. }));
    }
    bench.event(Event::Boot);
    let told: Vec<_> = bench.outcome().into_iter().collect();
    assert!(matches!(
        told[..],
        [OutcomeKind::RolledBackItself(
            TrialFailure::DeviceStopped { .. }
        )]
    ));
}

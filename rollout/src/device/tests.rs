//! Tables and properties of the update machine.

extern crate std;

mod programs;
mod properties;
mod shadowing;

use std::vec;
use std::vec::Vec;

use bellwether_package::ids::Digest;
use bellwether_protocol::{Desired, TrialFailure};

use super::*;

pub(super) const LIMITS: TrialLimits = TrialLimits {
    secs_min: 60,
    rows_min: 100,
    secs_max: 600,
    error_share_max_ppm: 10_000,
    nonfinite_share_max_ppm: 0,
    worker_deaths_max: 1,
    latency_us_p99_max: Some(5_000),
    shadow: None,
    drift: None,
};

/// A slot with its shell: performs nothing, remembers everything.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now: UnixSecs,
    pub(super) actions: Vec<Action>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(slot()),
            now: UnixSecs(1_000),
            actions: Vec::new(),
        }
    }

    /// A slot that serves this release, ordered under sequence 1.
    pub(super) fn serving(release: PackageId) -> Self {
        let mut bench = Self::new();
        bench.install(1, release);
        bench
    }

    pub(super) fn event(&mut self, event: Event) -> &mut Self {
        let (state, actions) = step(self.state.clone(), &event, self.now);
        self.state = state;
        self.actions = actions.into_iter().collect();
        self
    }

    pub(super) fn order(&mut self, n: u64, release: PackageId) -> &mut Self {
        self.event(assigned(n, release, false))
    }

    /// Up to the start of the trial.
    pub(super) fn start_trial(&mut self, n: u64, release: PackageId) -> &mut Self {
        self.order(n, release)
            .event(Event::Fetched { release })
            .event(Event::Checked { release })
            .event(Event::Proved { release })
    }

    pub(super) fn install(&mut self, n: u64, release: PackageId) -> &mut Self {
        self.start_trial(n, release).wait(60).traffic(release, 100);
        assert_eq!(self.state.good().map(|good| good.release), Some(release));
        self.event(Event::Told)
    }

    pub(super) fn wait(&mut self, secs: u64) -> &mut Self {
        for _ in 0..secs.div_ceil(trial::TICK_SECS_MAX) {
            self.now = self.now.plus_secs(trial::TICK_SECS_MAX);
            self.event(Event::Tick);
        }
        self
    }

    pub(super) fn traffic(&mut self, release: PackageId, rows: u32) -> &mut Self {
        let traffic = Traffic {
            rows,
            ..Traffic::default()
        };
        self.event(Event::Traffic { release, traffic })
    }

    pub(super) fn outcome(&self) -> Option<&OutcomeKind> {
        self.actions.iter().find_map(|action| match action {
            Action::Report(outcome) => Some(&outcome.kind),
            _ => None,
        })
    }

    pub(super) fn has(&self, action: &Action) -> bool {
        self.actions.contains(action)
    }
}

pub(super) fn slot() -> SlotName {
    SlotName::new("pump").unwrap()
}

pub(super) fn release(tag: u8) -> PackageId {
    PackageId(Digest([tag; 32]))
}

pub(super) fn sequence(n: u64) -> Sequence {
    Sequence { epoch: 1, n }
}

pub(super) fn assigned(n: u64, release: PackageId, ordered_back: bool) -> Event {
    let slot = SlotAssignment {
        slot: slot(),
        desired: Desired::Serve {
            release,
            length: 1_000,
        },
        also_baseline: None,
        trial: LIMITS,
        rollout: Some(RolloutId(7)),
        ordered_back,
        treated: Some(true),
    };
    Event::Assigned {
        sequence: sequence(n),
        slot,
    }
}

pub(super) fn disable(n: u64) -> Event {
    let Event::Assigned { sequence, mut slot } = assigned(n, release(0), false) else {
        unreachable!()
    };
    slot.desired = Desired::Disable {
        reason: Note::new("recalled"),
    };
    Event::Assigned { sequence, slot }
}

fn serve(release: PackageId, trial: bool) -> Action {
    Action::Serve {
        release,
        also_baseline: None,
        trial,
        shadow: None,
    }
}

#[test]
fn an_order_goes_through_every_phase_and_commits() {
    let (a, b) = (release(1), release(2));
    let mut bench = Bench::serving(a);
    bench.order(2, b);
    let not_before = bench.now;
    let fetch = Action::Fetch {
        release: b,
        length: 1_000,
        not_before,
    };
    assert_eq!(bench.actions, [Action::Persist, fetch]);
    bench.event(Event::Fetched { release: b });
    assert_eq!(
        bench.actions,
        [Action::Persist, Action::Check { release: b }]
    );
    bench.event(Event::Checked { release: b });
    assert_eq!(
        bench.actions,
        [Action::Persist, Action::Prove { release: b }]
    );
    bench.event(Event::Proved { release: b });
    assert_eq!(bench.actions, [Action::Persist, serve(b, true)]);
    assert_eq!(bench.state.phase(), Phase::Trial);
    assert_eq!(
        bench.state.floor(),
        sequence(1),
        "the floor rises only after commit"
    );
    bench.wait(60).traffic(b, 100);
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Committed));
    assert_eq!(bench.state.floor(), sequence(2));
    assert_eq!(bench.state.serving(), Some(&b));
    assert_eq!(bench.state.previous().map(|good| good.release), Some(a));
    assert!(
        !bench.has(&Action::Delete { release: a }),
        "it is what b could fall back to"
    );
}

#[test]
fn stale_and_lower_orders_are_ignored() {
    let mut bench = Bench::serving(release(1));
    for n in [0, 1] {
        let before = bench.state.clone();
        bench.order(n, release(2));
        assert!(bench.actions.is_empty());
        assert_eq!(bench.state, before);
    }
    bench.order(5, release(2)).order(4, release(3));
    assert!(bench.actions.is_empty(), "older than the one under way");
    let other = SlotAssignment {
        slot: SlotName::new("fan").unwrap(),
        ..match assigned(9, release(3), false) {
            Event::Assigned { slot, .. } => slot,
            _ => unreachable!(),
        }
    };
    bench.event(Event::Assigned {
        sequence: sequence(9),
        slot: other,
    });
    assert!(bench.actions.is_empty(), "for another slot");
}

#[test]
fn a_higher_epoch_supersedes_the_highest_number_of_the_one_before() {
    let mut bench = Bench::serving(release(1));
    bench.install(u64::MAX, release(2));
    let Event::Assigned { slot, .. } = assigned(1, release(3), false) else {
        unreachable!()
    };
    bench.event(Event::Assigned {
        sequence: Sequence { epoch: 2, n: 0 },
        slot,
    });
    assert_eq!(bench.state.phase(), Phase::Fetching);
}

#[test]
fn a_newer_order_supersedes_every_phase() {
    let (a, b, c) = (release(1), release(2), release(3));
    let steps: [&[Event]; 4] = [
        &[],
        &[Event::Fetched { release: b }],
        &[Event::Fetched { release: b }, Event::Checked { release: b }],
        &[
            Event::Fetched { release: b },
            Event::Checked { release: b },
            Event::Proved { release: b },
        ],
    ];
    for steps in steps {
        let mut bench = Bench::serving(a);
        bench.order(2, b);
        steps.iter().for_each(|event| {
            bench.event(event.clone());
        });
        bench.order(3, c);
        assert_eq!(bench.state.phase(), Phase::Fetching);
        assert!(bench.has(&Action::Delete { release: b }));
        assert_eq!(
            bench.state.serving(),
            Some(&a),
            "a trial that ends gives way to the good one"
        );
        bench.event(Event::Proved { release: b });
        assert!(
            bench.actions.is_empty(),
            "late events of the superseded release do nothing"
        );
    }
}

#[test]
fn the_same_release_ordered_anew_goes_on() {
    let mut bench = Bench::serving(release(1));
    bench.start_trial(2, release(2)).order(3, release(2));
    assert_eq!(bench.actions, [Action::Persist]);
    bench.wait(60).traffic(release(2), 100);
    assert_eq!(bench.state.floor(), sequence(3));
}

#[test]
fn a_refused_order_is_not_tried_again_but_a_newer_one_is() {
    let mut bench = Bench::serving(release(1));
    let why = Refusal::NotApproved {
        persons: 1,
        threshold: 2,
    };
    bench.order(2, release(2)).event(Event::Refused {
        release: release(2),
        why,
    });
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Refused(why)));
    assert!(bench.has(&Action::Delete {
        release: release(2)
    }));
    assert_eq!(bench.state.floor(), sequence(1));
    bench.order(2, release(2));
    assert!(bench.actions.is_empty());
    bench.order(3, release(2));
    assert_eq!(bench.state.phase(), Phase::Fetching);
}

#[test]
fn a_failed_proof_never_answers() {
    let why = ProofFailure::GoldenMismatch {
        case: 3,
        difference: 0.8,
        tolerance: 1e-4,
    };
    let (a, b) = (release(1), release(2));
    let mut bench = Bench::serving(a);
    bench
        .order(2, b)
        .event(Event::Fetched { release: b })
        .event(Event::Checked { release: b })
        .event(Event::ProofFailed { release: b, why });
    assert_eq!(
        bench.outcome(),
        Some(&OutcomeKind::FailedBeforeServing(why))
    );
    assert_eq!(bench.state.serving(), Some(&a));
    assert!(
        !bench
            .actions
            .iter()
            .any(|action| matches!(action, Action::Serve { .. }))
    );
}

#[test]
fn each_limit_ends_the_trial_on_the_spot() {
    let (a, b) = (release(1), release(2));
    let traffic = |traffic| Event::Traffic {
        release: b,
        traffic,
    };
    let died = Event::WorkerDied {
        release: b,
        how: WorkerDeath::Panicked,
    };
    let cases = [
        vec![traffic(Traffic {
            rows: 1,
            rows_nonfinite: 1,
            ..Traffic::default()
        })],
        vec![traffic(Traffic {
            rows: 10,
            rows_failed: 2,
            ..Traffic::default()
        })],
        vec![died.clone(), died],
        vec![traffic(Traffic {
            rows: 100,
            latency_us_p99: Some(5_001),
            ..Traffic::default()
        })],
        vec![Event::Unservable {
            release: b,
            why: Refusal::Revoked,
        }],
    ];
    for events in cases {
        let mut bench = Bench::serving(a);
        bench.start_trial(2, b);
        events.iter().for_each(|event| {
            bench.event(event.clone());
        });
        assert!(
            matches!(bench.outcome(), Some(OutcomeKind::RolledBackItself(_))),
            "{events:?}"
        );
        assert_eq!(bench.actions[0], Action::Persist);
        assert_eq!(bench.actions[1], serve(a, false));
        assert!(bench.has(&Action::Delete { release: b }));
        bench.order(2, b);
        assert!(bench.actions.is_empty(), "the failed order is remembered");
    }
}

#[test]
fn one_bad_row_within_the_share_does_not_end_a_trial() {
    let b = release(2);
    let mut bench = Bench::serving(release(1));
    let traffic = Traffic {
        rows: 1,
        rows_failed: 1,
        ..Traffic::default()
    };
    bench.start_trial(2, b).event(Event::Traffic {
        release: b,
        traffic,
    });
    assert_eq!(
        bench.state.phase(),
        Phase::Trial,
        "1 of at least 100 rows is within 1 %"
    );
}

#[test]
fn a_trial_without_traffic_is_held_not_committed() {
    let b = release(2);
    let mut bench = Bench::serving(release(1));
    bench.start_trial(2, b).wait(100_000);
    assert_eq!(bench.state.phase(), Phase::TrialHeld);
    assert_eq!(bench.state.floor(), sequence(1));
    bench.traffic(b, 100);
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Committed));
}

#[test]
fn a_clock_that_jumps_does_not_shorten_the_trial() {
    let b = release(2);
    let mut bench = Bench::serving(release(1));
    let limits = TrialLimits {
        secs_min: 3_600,
        ..LIMITS
    };
    let Event::Assigned { sequence, mut slot } = assigned(2, b, false) else {
        unreachable!()
    };
    slot.trial = limits;
    bench.event(Event::Assigned { sequence, slot });
    bench
        .event(Event::Fetched { release: b })
        .event(Event::Checked { release: b })
        .event(Event::Proved { release: b })
        .traffic(b, 1_000);
    bench.now = bench.now.plus_secs(400 * 24 * 3_600);
    bench.event(Event::Tick);
    assert_eq!(bench.state.phase(), Phase::Trial);
    bench.now = UnixSecs(0);
    bench.event(Event::Tick);
    assert_eq!(bench.state.phase(), Phase::Trial);
}

#[test]
fn a_rollback_to_a_release_on_disk_needs_no_download_and_no_trial() {
    let (a, b) = (release(1), release(2));
    let mut bench = Bench::serving(a);
    bench.install(2, b).event(assigned(3, a, true));
    assert_eq!(
        bench.actions,
        [Action::Persist, Action::Check { release: a }]
    );
    assert_eq!(
        bench.state.serving(),
        Some(&b),
        "until the older one is checked again"
    );
    bench.event(Event::Checked { release: a });
    assert_eq!(bench.outcome(), Some(&OutcomeKind::RolledBackByOrder));
    assert_eq!(bench.state.serving(), Some(&a));
    assert_eq!(bench.state.floor(), sequence(3));
    assert!(bench.has(&Action::Delete { release: b }));
    assert_eq!(
        bench.state.previous(),
        None,
        "what was ordered away is nothing to fall back to"
    );
}

#[test]
fn a_rollback_during_the_trial_is_immediate() {
    let (a, b) = (release(1), release(2));
    let mut bench = Bench::serving(a);
    bench.start_trial(2, b).event(assigned(3, a, true));
    assert_eq!(bench.outcome(), Some(&OutcomeKind::RolledBackByOrder));
    assert_eq!(bench.actions[..2], [Action::Persist, serve(a, false)]);
    assert_eq!(bench.state.floor(), sequence(3));
}

#[test]
fn a_rollback_to_a_release_not_on_disk_is_fetched_and_proved() {
    let (a, b, c) = (release(1), release(2), release(3));
    let mut bench = Bench::serving(a);
    bench
        .install(2, b)
        .install(3, c)
        .event(assigned(4, a, true));
    assert_eq!(bench.state.phase(), Phase::Fetching);
    bench
        .event(Event::Fetched { release: a })
        .event(Event::Checked { release: a })
        .event(Event::Proved { release: a });
    assert_eq!(bench.outcome(), Some(&OutcomeKind::RolledBackByOrder));
    assert_eq!(bench.state.previous().map(|good| good.release), Some(b));
}

#[test]
fn a_rollback_to_a_release_that_may_not_run_any_more_tells_so() {
    let (a, b) = (release(1), release(2));
    let mut bench = Bench::serving(a);
    bench
        .install(2, b)
        .event(assigned(3, a, true))
        .event(Event::Refused {
            release: a,
            why: Refusal::Revoked,
        });
    let why = TrialFailure::Unservable(Refusal::Revoked);
    assert_eq!(bench.outcome(), Some(&OutcomeKind::UnableToRollBack(why)));
    assert_eq!(bench.state.serving(), Some(&b));
    assert!(bench.has(&Action::Delete { release: a }));
}

#[test]
fn disable_takes_effect_at_once_and_survives_a_boot() {
    let (a, b) = (release(1), release(2));
    let mut bench = Bench::serving(a);
    let reason = Note::new("recalled");
    bench.start_trial(2, b).event(disable(3));
    assert!(bench.has(&Action::StopServing {
        reason: reason.clone()
    }));
    assert!(matches!(bench.outcome(), Some(OutcomeKind::Disabled(_))));
    assert_eq!(
        (bench.state.serving(), bench.state.phase()),
        (None, Phase::Disabled)
    );
    bench.event(Event::Told).event(Event::Boot);
    assert_eq!(bench.actions, [Action::StopServing { reason }]);
    bench.order(4, a);
    assert_eq!(
        bench.state.serving(),
        Some(&a),
        "the release on disk serves again when ordered"
    );
}

#[test]
fn a_trial_that_fails_on_a_disabled_slot_leaves_it_disabled() {
    let b = release(2);
    let mut bench = Bench::serving(release(1));
    bench.event(disable(2)).start_trial(3, b);
    assert_eq!(bench.state.serving(), Some(&b));
    bench.event(Event::Unservable {
        release: b,
        why: Refusal::Damaged,
    });
    assert_eq!(bench.state.phase(), Phase::Disabled);
}

#[test]
fn a_release_that_keeps_dying_after_commit_gives_way_to_the_one_before() {
    let (a, b) = (release(1), release(2));
    let died = Event::WorkerDied {
        release: b,
        how: WorkerDeath::Faulted { signal: 11 },
    };
    let mut bench = Bench::serving(a);
    bench.install(2, b);
    for secs in [0, DEATHS_SECS, DEATHS_SECS] {
        bench.now = bench.now.plus_secs(secs);
        bench.event(died.clone());
        assert_eq!(
            bench.actions,
            [Action::Persist],
            "deaths far apart are the worker's to mend, and are remembered"
        );
    }
    // The device may go down with it in between.
    bench
        .event(died.clone())
        .event(Event::Boot)
        .event(died.clone());
    assert!(matches!(
        bench.outcome(),
        Some(OutcomeKind::RolledBackItself(_))
    ));
    assert_eq!(bench.state.serving(), Some(&a));
    bench.order(2, b);
    assert!(
        bench.actions.is_empty(),
        "its old order does not bring it back"
    );
}

fn answers(release: PackageId, rows: u32, rows_nonfinite: u32, rows_spoiled: u32) -> Event {
    let traffic = Traffic {
        rows,
        rows_nonfinite,
        rows_spoiled,
        ..Traffic::default()
    };
    Event::Traffic { release, traffic }
}

#[test]
fn a_release_that_answers_nan_after_commit_gives_way_to_the_one_before() {
    let (a, b) = (release(1), release(2));
    let mut bench = Bench::serving(a);
    bench.install(2, b);
    // Weeks of good answers do not buy it more bad ones.
    for _ in 0..1_000 {
        assert!(bench.event(answers(b, 1_000, 0, 0)).actions.is_empty());
    }
    // Missing readings excuse what comes of them, and one glitch is none.
    assert!(bench.event(answers(b, 500, 400, 19)).actions.is_empty());
    bench.event(answers(b, 10, 1, 1));
    assert!(matches!(
        bench.outcome(),
        Some(OutcomeKind::RolledBackItself(
            TrialFailure::NonfiniteSince {
                rows_nonfinite: 20,
                rows: 1_129,
                share_max_ppm: 0,
            }
        ))
    ));
    assert!(bench.has(&serve(a, false)) && bench.has(&Action::Delete { release: b }));
    assert_eq!(bench.actions[0], Action::Persist);
    // The same order is not tried again, and the one that is left has nothing to give way to.
    assert!(bench.order(2, b).actions.is_empty());
    assert!(bench.event(answers(a, 100, 100, 100)).actions.is_empty());
}

#[test]
fn answers_that_the_order_allows_take_no_release_back() {
    let (a, b) = (release(1), release(2));
    let mut bench = Bench::serving(a);
    let share_max_ppm = 500_000;
    let order = |n, share_max_ppm| {
        let Event::Assigned { sequence, mut slot } = assigned(n, b, false) else {
            unreachable!()
        };
        slot.trial.nonfinite_share_max_ppm = share_max_ppm;
        Event::Assigned { sequence, slot }
    };
    bench.event(order(2, share_max_ppm));
    bench.event(Event::Fetched { release: b });
    bench.event(Event::Checked { release: b });
    bench.event(Event::Proved { release: b });
    bench.wait(60).traffic(b, 100).event(Event::Told);
    assert!(bench.event(answers(b, 100, 50, 50)).actions.is_empty());
    // An order that confirms it and allows everything knows no better.
    bench.event(order(3, 1_000_000)).event(Event::Told);
    assert!(bench.event(answers(b, 100, 50, 50)).actions.is_empty());
    bench.event(answers(b, 10, 10, 10));
    assert!(bench.has(&serve(a, false)));
}

#[test]
fn nan_without_a_release_to_fall_back_to_is_told_and_serves_on() {
    let a = release(1);
    let mut bench = Bench::serving(a);
    bench.event(answers(a, 20, 20, 20));
    assert!(matches!(
        bench.outcome(),
        Some(OutcomeKind::UnableToRollBack(
            TrialFailure::NonfiniteSince { .. }
        ))
    ));
    assert_eq!(bench.state.serving(), Some(&a));
    assert!(bench.event(answers(a, 20, 20, 20)).outcome().is_none());
}

#[test]
fn nothing_to_fall_back_to_is_told_once_in_a_while_and_serves_on() {
    let a = release(1);
    let mut bench = Bench::serving(a);
    let mut told = 0;
    for _ in 0..30 {
        bench.event(Event::WorkerDied {
            release: a,
            how: WorkerDeath::Hung,
        });
        told += u32::from(bench.outcome().is_some());
    }
    assert_eq!(told, 1);
    assert_eq!(bench.state.serving(), Some(&a));
}

#[test]
fn a_lost_release_gives_way_to_the_one_before() {
    let (a, b) = (release(1), release(2));
    let mut bench = Bench::serving(a);
    bench.install(2, b).event(Event::Unservable {
        release: b,
        why: Refusal::Revoked,
    });
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Lost(Refusal::Revoked)));
    assert_eq!(bench.state.serving(), Some(&a));
    bench.event(Event::Unservable {
        release: a,
        why: Refusal::Revoked,
    });
    assert_eq!(bench.state.phase(), Phase::Empty);
}

#[test]
fn downloads_are_tried_with_longer_waits_and_then_given_up() {
    let b = release(2);
    let mut bench = Bench::serving(release(1));
    bench.order(2, b);
    let mut waits = Vec::new();
    while bench.state.phase() == Phase::Fetching {
        bench.event(Event::FetchFailed { release: b });
        waits.extend(bench.actions.iter().filter_map(|action| match action {
            Action::Fetch { not_before, .. } => Some(not_before.secs_since(bench.now)),
            _ => None,
        }));
    }
    assert_eq!(waits[..3], [15, 30, 60]);
    assert_eq!(waits.len() as u32, FETCH_ATTEMPTS_MAX - 1);
    assert!(waits.iter().all(|wait| *wait <= FETCH_WAIT_SECS_MAX));
    let why = Refusal::Unreachable {
        attempts: FETCH_ATTEMPTS_MAX,
    };
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Refused(why)));
}

#[test]
fn a_package_that_stops_the_device_is_given_up() {
    let b = release(2);
    for events in 0..3 {
        let mut bench = Bench::serving(release(1));
        bench.order(2, b).event(Event::Fetched { release: b });
        let rest = [Event::Checked { release: b }, Event::Proved { release: b }];
        rest[..events].iter().for_each(|event| {
            bench.event(event.clone());
        });
        let mut boots = 0;
        while bench.state.work().order().is_some() {
            bench.event(Event::Boot);
            boots += 1;
        }
        assert_eq!(boots, 4);
        assert!(bench.outcome().is_some());
        assert_eq!(bench.state.serving(), Some(&release(1)));
    }
}

#[test]
fn an_outcome_not_yet_in_the_outbox_is_reported_again_after_a_boot() {
    let b = release(2);
    let mut bench = Bench::serving(release(1));
    bench.order(2, b).event(Event::Refused {
        release: b,
        why: Refusal::Damaged,
    });
    bench.event(Event::Boot);
    assert_eq!(
        bench.outcome(),
        Some(&OutcomeKind::Refused(Refusal::Damaged))
    );
    bench.event(Event::Told).event(Event::Boot);
    assert_eq!(bench.outcome(), None);
}

#[test]
fn an_order_without_space_is_told_once_and_tried_again_until_there_is_some() {
    let b = release(2);
    let mut bench = Bench::serving(release(1));
    let no_space = Event::NoSpace {
        release: b,
        bytes: 9,
        bytes_free: 1,
    };
    let (bytes, bytes_free) = (9, 1);
    let why = Refusal::NoSpace { bytes, bytes_free };
    bench.order(2, b).event(no_space.clone());
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Refused(why)));
    for _ in 0..100 {
        let not_before = bench.now.plus_secs(SPACE_WAIT_SECS);
        let length = 1_000;
        let fetch = Action::Fetch {
            release: b,
            length,
            not_before,
        };
        assert!(bench.has(&fetch), "however long it takes");
        bench.event(Event::Told).event(Event::Boot);
        bench.event(no_space.clone());
        assert_eq!(bench.outcome(), None, "once is enough");
    }
    bench
        .event(Event::Fetched { release: b })
        .event(Event::Checked { release: b })
        .event(Event::Proved { release: b })
        .wait(60)
        .traffic(b, 100);
    assert_eq!(bench.outcome(), Some(&OutcomeKind::Committed));
}

#[test]
fn a_state_survives_its_encoding() {
    let mut bench = Bench::serving(release(1));
    bench.start_trial(2, release(2));
    let bytes = postcard::to_allocvec(&bench.state).unwrap();
    assert_eq!(postcard::from_bytes::<State>(&bytes).unwrap(), bench.state);
}

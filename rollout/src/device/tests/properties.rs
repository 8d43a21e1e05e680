//! What holds for any order of events, and for power failures between any two actions.

extern crate std;

use std::collections::BTreeSet;
use std::vec;

use bellwether_package::ids::UnixSecs;
use bellwether_protocol::{ProofFailure, Refusal, WorkerDeath};
use proptest::prelude::*;

use super::shadowing::shadowed_order;
use super::{
    Action, Bench, Event, State, Traffic, Trial, Work, assigned, disable, release, slot, step,
};

/// What a machine with power failures may see. Release 0 is never lost.
fn any_event() -> impl Strategy<Value = Event> {
    let tag = 0_u8..5;
    prop_oneof![
        2 => Just(Event::Boot),
        2 => Just(Event::Tick),
        1 => Just(Event::Told),
        6 => (1_u64..40, tag.clone(), any::<bool>(), any::<bool>()).prop_map(
            |(n, tag, back, shadowed)| {
                let release = release(tag);
                if shadowed { shadowed_order(n, release, back) } else { assigned(n, release, back) }
            }
        ),
        1 => (1_u64..40).prop_map(disable),
        6 => tag.clone().prop_map(|tag| Event::Fetched { release: release(tag) }),
        1 => tag.clone().prop_map(|tag| Event::FetchFailed { release: release(tag) }),
        1 => tag.clone().prop_map(|tag| Event::NoSpace {
            release: release(tag),
            bytes: 2,
            bytes_free: 1
        }),
        1 => tag.clone().prop_map(|tag| Event::Refused {
            release: release(tag),
            why: Refusal::Damaged
        }),
        6 => tag.clone().prop_map(|tag| Event::Checked { release: release(tag) }),
        6 => tag.clone().prop_map(|tag| Event::Proved { release: release(tag) }),
        1 => tag.clone().prop_map(|tag| Event::ProofFailed {
            release: release(tag),
            why: ProofFailure::Unsupported
        }),
        8 => (tag.clone(), 0_u32..200, 0_u32..3, prop::option::weighted(0.2, 1_u32..30)).prop_map(|(tag, rows, rows_failed, bad)| {
            let bad = bad.unwrap_or(0);
            let (rows_nonfinite, rows_spoiled) = (bad.min(rows), (bad / 2).min(rows));
            let traffic = Traffic { rows, rows_failed, rows_nonfinite, rows_spoiled, ..Traffic::default() };
            Event::Traffic { release: release(tag), traffic }
        }),
        1 => tag.clone().prop_map(|tag| Event::ProgramEnded {
            release: release(tag),
            starts: 3,
            last: WorkerDeath::Hung
        }),
        2 => tag.prop_map(|tag| Event::WorkerDied {
            release: release(tag),
            how: WorkerDeath::Panicked
        }),
    ]
}

/// What a shell without troubles would answer next.
fn awaited(state: &State) -> Event {
    let Some(release) = state.work().order().map(|order| order.release) else {
        return Event::Tick;
    };
    match state.work() {
        Work::Idle => Event::Tick,
        Work::Fetching { .. } => Event::Fetched { release },
        Work::Checking { .. } => Event::Checked { release },
        Work::Proving { .. } => Event::Proved { release },
        Work::Trial { .. } | Work::Shadowing { .. } => Event::Traffic {
            release,
            traffic: Traffic {
                rows: 50,
                ..Traffic::default()
            },
        },
    }
}

/// What is stored, without what a boot may forget.
fn durable(state: &State) -> State {
    let mut state = state.clone();
    state.untold.clear();
    state.recent = Default::default();
    if let Work::Trial { trial, .. } | Work::Shadowing { trial, .. } = &mut state.work {
        *trial = Trial {
            boots: trial.boots,
            ..Trial::new(UnixSecs(0))
        };
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Each event may be the last before a power failure, after any number of its actions.
    #[test]
    fn any_order_of_events_and_power_failures_keeps_a_servable_release(
        events in prop::collection::vec(
            (
                prop::option::weighted(0.4, any_event()),
                0_u64..90,
                prop::option::weighted(0.1, 0_usize..6),
            ),
            1..150,
        )
    ) {
        let mut state = State::new(slot());
        let mut stored = state.clone();
        let mut disk = BTreeSet::new();
        let mut now = UnixSecs(1_000);
        for (event, secs, power_fails_after) in events {
            now = now.plus_secs(secs);
            let event = event.unwrap_or_else(|| awaited(&state));
            if let Event::Fetched { release } = &event {
                disk.insert(*release);
            }
            let (next, actions) = step(state, &event, now);
            let changed = durable(&next) != durable(&stored);
            prop_assert!(!changed || actions.first() == Some(&Action::Persist), "{event:?}");
            let performed = power_fails_after.unwrap_or(usize::MAX);
            for action in actions.iter().take(performed) {
                match action {
                    Action::Persist => {
                        prop_assert!(next.floor() >= stored.floor(), "the floor never falls");
                        prop_assert!(stored.good().is_none() || next.good().is_some());
                        stored = next.clone();
                    }
                    Action::Delete { release } => {
                        prop_assert!(!stored.kept().any(|kept| kept == release));
                        disk.remove(release);
                    }
                    Action::Serve { release, shadow, .. } => {
                        prop_assert!(disk.contains(release));
                        prop_assert!(shadow.is_none_or(|it| disk.contains(&it.release)));
                    }
                    _ => {}
                }
            }
            for good in stored.good().into_iter().chain(stored.previous()) {
                prop_assert!(disk.contains(&good.release), "what may have to serve is on disk");
            }
            // What the volatile part holds is forgotten when power fails.
            state = if power_fails_after.is_some() { stored.clone() } else { next };
        }
    }

    #[test]
    fn a_refused_order_is_never_fetched_again(
        events in prop::collection::vec(any_event(), 0..60)
    ) {
        let mut bench = Bench::serving(release(0));
        bench.order(50, release(9));
        bench.event(Event::Refused { release: release(9), why: Refusal::Damaged });
        for event in events {
            bench.event(event);
            bench.order(50, release(9));
            prop_assert!(bench.actions.is_empty());
        }
    }
}

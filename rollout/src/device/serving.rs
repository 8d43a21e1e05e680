//! What serves: resuming, committing, and falling back.

use bellwether_package::ids::PackageId;
use bellwether_protocol::{OutcomeKind, ProofFailure, Refusal, TrialFailure, WorkerDeath};

use super::{
    Action, DEATHS_MAX, DEATHS_SECS, Good, Order, RECENT_ROWS_MAX, SPOILED_ROWS_MIN, Step,
    TRIAL_BOOTS_MAX, Traffic, Trial, WORK_BOOTS_MAX, Whose, Work,
};

/// An order with this limit allows every answer: it says nothing of what its release promises.
const EVERY_SHARE_PPM: u32 = 1_000_000;

/// The latest answers of the good release, in two halves: the older goes when the newer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Recent {
    newer: Answers,
    older: Answers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Answers {
    rows: u32,
    rows_spoiled: u32,
}

impl Recent {
    fn add(&mut self, traffic: &Traffic) {
        if self.newer.rows >= RECENT_ROWS_MAX / 2 {
            self.older = core::mem::take(&mut self.newer);
        }
        let excused = traffic.rows_nonfinite.saturating_sub(traffic.rows_spoiled);
        let rows = traffic.rows.saturating_sub(traffic.rows_failed);
        let newer = &mut self.newer;
        newer.rows = newer.rows.saturating_add(rows.saturating_sub(excused));
        newer.rows_spoiled = newer.rows_spoiled.saturating_add(traffic.rows_spoiled);
    }

    fn failure(&self, share_max_ppm: u32) -> Option<TrialFailure> {
        let rows = self.newer.rows.saturating_add(self.older.rows);
        let spoiled = self.newer.rows_spoiled;
        let rows_nonfinite = spoiled.saturating_add(self.older.rows_spoiled);
        let too_many =
            u64::from(rows_nonfinite) * 1_000_000 > u64::from(share_max_ppm) * u64::from(rows);
        (rows_nonfinite >= SPOILED_ROWS_MIN && too_many).then_some(TrialFailure::NonfiniteSince {
            rows_nonfinite,
            rows,
            share_max_ppm,
        })
    }
}

impl Step {
    /// The resume rules of every state.
    pub(super) fn boot(&mut self) {
        let untold = self.state.untold.clone();
        if !self.state.work.runs_candidate() {
            self.serve_good();
        }
        self.resume_work();
        for outcome in untold {
            self.act(Action::Report(outcome));
        }
    }

    fn resume_work(&mut self) {
        let now = self.now;
        match &mut self.state.work {
            Work::Idle => {}
            Work::Fetching {
                order, retry_at, ..
            } => {
                let (release, length, not_before) = (order.release, order.length, *retry_at);
                self.act(Action::Fetch {
                    release,
                    length,
                    not_before,
                });
            }
            Work::Checking { order, boots } => {
                *boots += 1;
                let (release, stopped) = (order.release, *boots > WORK_BOOTS_MAX);
                if stopped {
                    return self.refuse(Refusal::DeviceStopped);
                }
                self.persist();
                self.act(Action::Check { release });
            }
            Work::Proving { order, boots } => {
                *boots += 1;
                let (release, stopped) = (order.release, *boots > WORK_BOOTS_MAX);
                if stopped {
                    let why = ProofFailure::DeviceStopped;
                    return self.fail(OutcomeKind::FailedBeforeServing(why));
                }
                self.persist();
                self.act(Action::Prove { release });
            }
            Work::Shadowing { trial, .. } => {
                let boots = trial.boots + 1;
                *trial = Trial {
                    boots,
                    ..Trial::new(now)
                };
                if boots > TRIAL_BOOTS_MAX {
                    let why = ProofFailure::DeviceStopped;
                    return self.fail(OutcomeKind::FailedBeforeServing(why));
                }
                self.persist();
                self.serve_good();
            }
            Work::Trial { trial, .. } => {
                let boots = trial.boots + 1;
                *trial = Trial {
                    boots,
                    ..Trial::new(now)
                };
                if boots > TRIAL_BOOTS_MAX {
                    let why = TrialFailure::DeviceStopped { boots };
                    return self.fail(OutcomeKind::RolledBackItself(why));
                }
                self.persist();
                self.serve_candidate();
            }
        }
    }

    /// The order is carried out: its release is the good one, and the floor rises.
    pub(super) fn commit(&mut self, order: Order) {
        let kind = if order.ordered_back {
            OutcomeKind::RolledBackByOrder
        } else {
            OutcomeKind::Committed
        };
        let whose = Whose::from(&order);
        self.expect_of(&order);
        let removed = self.take_over(&order);
        self.state.disabled = None;
        self.state.work = Work::Idle;
        self.state.floor = order.sequence;
        self.state.deaths.clear();
        self.state.unable_at = None;
        self.state
            .refused
            .retain(|(sequence, _)| *sequence > order.sequence);
        let report = self.tell(&whose, kind);
        self.persist();
        self.serve_good();
        removed.into_iter().for_each(|release| self.delete(release));
        self.act(report);
    }

    /// What is expected of the release from now on. The one that serves may be confirmed by an
    /// order that knows nothing of it; then the one before it holds.
    fn expect_of(&mut self, order: &Order) {
        let serves = self.state.good.as_ref().map(|good| good.release) == Some(order.release);
        let share_max_ppm = order.trial.nonfinite_share_max_ppm;
        if !serves {
            self.state.recent = Recent::default();
        }
        if !serves || share_max_ppm < EVERY_SHARE_PPM {
            self.state.nonfinite_share_max_ppm = Some(share_max_ppm);
        }
    }

    /// Makes the ordered release the good one; says which release is not needed any more.
    fn take_over(&mut self, order: &Order) -> Option<PackageId> {
        let next = Good {
            release: order.release,
            sequence: order.sequence,
            also_baseline: order.also_baseline,
            rollout: order.rollout,
            treated: order.treated,
        };
        let before = self.state.good.replace(next);
        match before {
            Some(before) if before.release == order.release => None,
            // A release that was ordered away is nothing to fall back to.
            Some(before) if order.ordered_back => {
                let previous = self
                    .state
                    .previous
                    .take_if(|it| it.release != order.release);
                self.state.previous = previous;
                Some(before.release)
            }
            before => {
                let previous = core::mem::replace(&mut self.state.previous, before);
                previous.map(|previous| previous.release)
            }
        }
    }

    /// A release that committed and then keeps dying gives way to the one before it.
    pub(super) fn good_worker_died(&mut self, release: &PackageId, last: WorkerDeath) {
        let now = self.now;
        let Some(good) = self
            .state
            .good
            .as_ref()
            .filter(|good| good.release == *release)
        else {
            return;
        };
        let good = good.clone();
        let deaths = &mut self.state.deaths;
        deaths.retain(|died_at| now.secs_since(*died_at) < DEATHS_SECS);
        if deaths.len() + 1 < DEATHS_MAX {
            // There is room for DEATHS_MAX.
            let _ = deaths.push(now);
            // A release that takes the whole device down with it must not be forgiven each time.
            return self.persist();
        }
        deaths.clear();
        let why = TrialFailure::WorkerDeaths {
            deaths: DEATHS_MAX as u32,
            deaths_max: DEATHS_MAX as u32 - 1,
            last,
        };
        self.give_way(&good, why);
    }

    /// A release that committed, and then answers finite inputs with NaN or infinity, gives way to
    /// the one before it.
    pub(super) fn good_answered(&mut self, release: &PackageId, traffic: &Traffic) {
        let good = self.state.good.as_ref();
        let Some(good) = good.filter(|good| good.release == *release).cloned() else {
            return;
        };
        let Some(share_max_ppm) = self.state.nonfinite_share_max_ppm else {
            return;
        };
        self.state.recent.add(traffic);
        if let Some(why) = self.state.recent.failure(share_max_ppm) {
            self.state.recent = Recent::default();
            self.give_way(&good, why);
        }
    }

    /// The good release failed. Without one before it, it serves on, and that is told.
    fn give_way(&mut self, good: &Good, why: TrialFailure) {
        let now = self.now;
        if self.state.previous.is_some() {
            self.fall_back(OutcomeKind::RolledBackItself(why));
        } else if self
            .state
            .unable_at
            .is_none_or(|at| now.secs_since(at) >= DEATHS_SECS)
        {
            // Once in a while, not at each failure: the outbox is bounded.
            self.state.unable_at = Some(now);
            let report = self.tell(&Whose::from(good), OutcomeKind::UnableToRollBack(why));
            self.persist();
            self.act(report);
        }
    }

    /// On trial they are taken back; after their commit they give way to those before them.
    pub(super) fn program_ended(&mut self, release: &PackageId, starts: u32, last: WorkerDeath) {
        let kind = OutcomeKind::RolledBackItself(TrialFailure::ProgramEnded { starts, last });
        if !self.state.slot.is_agent() {
            // A model's slot has no installed programs to fall back to.
            return;
        }
        let good = self.state.good.as_ref();
        if self.is_on_trial(release) {
            self.fail(kind);
        } else if good.is_some_and(|good| good.release == *release) {
            self.fall_back(kind);
        }
    }

    pub(super) fn unservable(&mut self, release: &PackageId, why: Refusal) {
        if self.is_on_trial(release) {
            let why = TrialFailure::Unservable(why);
            return self.fail(OutcomeKind::RolledBackItself(why));
        }
        if self
            .state
            .good
            .as_ref()
            .is_some_and(|good| good.release == *release)
        {
            return self.fall_back(OutcomeKind::Lost(why));
        }
        if self
            .state
            .work
            .order()
            .is_some_and(|order| order.release == *release)
        {
            // Beside what serves too: it never answered.
            return self.refuse(why);
        }
        if self
            .state
            .previous
            .take_if(|previous| previous.release == *release)
            .is_some()
        {
            self.persist();
            self.delete(*release);
        }
    }

    /// The good release goes; the one before it, if any, is the good one.
    fn fall_back(&mut self, kind: OutcomeKind) {
        let Some(gone) = self.state.good.take() else {
            return;
        };
        self.state.good = self.state.previous.take();
        self.state.deaths.clear();
        // What that one's order allowed is not known any more, and it has nothing to give way to.
        self.state.nonfinite_share_max_ppm = None;
        self.state.recent = Recent::default();
        self.remember_refused(gone.sequence, gone.release);
        let report = self.tell(&Whose::from(&gone), kind);
        self.persist();
        if !matches!(self.state.work, Work::Trial { .. }) {
            self.serve_good();
        }
        self.delete(gone.release);
        self.act(report);
    }
}

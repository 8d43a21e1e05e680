//! What serves: resuming, committing, and falling back.

use bellwether_package::ids::PackageId;
use bellwether_protocol::{OutcomeKind, ProofFailure, Refusal, TrialFailure, WorkerDeath};

use super::{
    Action, DEATHS_MAX, DEATHS_SECS, Good, Order, Step, TRIAL_BOOTS_MAX, Trial, WORK_BOOTS_MAX,
    Whose, Work,
};

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
        let whose = Whose::from(good);
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
        if self.state.previous.is_some() {
            self.fall_back(OutcomeKind::RolledBackItself(why));
        } else if self
            .state
            .unable_at
            .is_none_or(|at| now.secs_since(at) >= DEATHS_SECS)
        {
            // Once in a while, not at each death: the outbox is bounded.
            self.state.unable_at = Some(now);
            let report = self.tell(&whose, OutcomeKind::UnableToRollBack(why));
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

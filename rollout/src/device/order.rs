//! From an order to a proved candidate.

use bellwether_package::ids::PackageId;
use bellwether_protocol::{
    Desired, Note, OutcomeKind, ProofFailure, Refusal, Sequence, SlotAssignment, TrialFailure,
};

use super::{
    Action, FETCH_ATTEMPTS_MAX, FETCH_WAIT_SECS_MAX, FETCH_WAIT_SECS_MIN, Order, SPACE_WAIT_SECS,
    Step, Trial, Whose, Work,
};

impl Step {
    pub(super) fn assigned(&mut self, sequence: Sequence, slot: &SlotAssignment) {
        let under_way = self.state.work.order().map(|order| order.sequence);
        let stale = sequence <= self.state.floor || Some(sequence) <= under_way;
        if stale || slot.slot != self.state.slot {
            return;
        }
        match &slot.desired {
            Desired::Disable { reason } => self.disable(sequence, slot, reason),
            Desired::Serve { release, length } => {
                if !self.state.refused.contains(&(sequence, *release)) {
                    self.serve(Order {
                        sequence,
                        release: *release,
                        length: *length,
                        also_baseline: slot.also_baseline,
                        trial: slot.trial,
                        rollout: slot.rollout,
                        ordered_back: slot.ordered_back,
                        treated: slot.treated,
                    });
                }
            }
        }
    }

    fn disable(&mut self, sequence: Sequence, slot: &SlotAssignment, reason: &Note) {
        let release = self.state.serving().copied();
        let abandoned = self.abandon();
        self.state.disabled = Some(reason.clone());
        self.state.floor = sequence;
        let whose = Whose {
            release,
            sequence,
            rollout: slot.rollout,
        };
        let report = self.tell(&whose, OutcomeKind::Disabled(reason.clone()));
        self.persist();
        self.serve_good();
        abandoned
            .into_iter()
            .for_each(|release| self.delete(release));
        self.act(report);
    }

    fn serve(&mut self, order: Order) {
        if self
            .state
            .good
            .as_ref()
            .is_some_and(|good| good.release == order.release)
        {
            return self.confirm(order);
        }
        let same = self.state.work.order().is_some_and(|under_way| {
            under_way.release == order.release && under_way.ordered_back == order.ordered_back
        });
        if same {
            self.renew(order)
        } else {
            self.begin(order)
        }
    }

    /// The good release is ordered again: whatever else is under way ends, and the floor rises.
    fn confirm(&mut self, order: Order) {
        let abandoned = self.abandon();
        self.commit(order);
        abandoned
            .into_iter()
            .for_each(|release| self.delete(release));
    }

    /// The release under way is ordered again: it goes on, under the newer order.
    fn renew(&mut self, newer: Order) {
        let runs_otherwise = match &mut self.state.work {
            Work::Idle => false,
            Work::Fetching { order, .. }
            | Work::Checking { order, .. }
            | Work::Proving { order, .. }
            | Work::Shadowing { order, .. } => {
                *order = newer;
                false
            }
            Work::Trial { order, .. } => {
                let runs_otherwise = order.also_baseline != newer.also_baseline
                    || order.trial.shadow.is_some() != newer.trial.shadow.is_some();
                *order = newer;
                runs_otherwise
            }
        };
        self.persist();
        if runs_otherwise {
            self.serve_candidate();
        }
    }

    fn begin(&mut self, order: Order) {
        let ran = self.state.work.runs_candidate();
        let abandoned = self.abandon();
        let release = order.release;
        let on_disk = self
            .state
            .previous
            .as_ref()
            .is_some_and(|good| good.release == release);
        let next = if on_disk {
            self.state.work = Work::Checking { order, boots: 0 };
            Action::Check { release }
        } else {
            let length = order.length;
            self.state.work = Work::Fetching {
                order,
                attempts: 0,
                retry_at: self.now,
                space_told: false,
            };
            Action::Fetch {
                release,
                length,
                not_before: self.now,
            }
        };
        self.persist();
        if ran {
            self.serve_good();
        }
        abandoned
            .into_iter()
            .for_each(|release| self.delete(release));
        self.act(next);
    }

    /// Ends whatever is under way, and says which release it was for.
    pub(super) fn abandon(&mut self) -> Option<PackageId> {
        let release = self.state.work.order().map(|order| order.release);
        self.state.work = Work::Idle;
        release
    }

    pub(super) fn fetched(&mut self, release: &PackageId) {
        if let Work::Fetching { order, .. } = &self.state.work
            && order.release == *release
        {
            self.state.work = Work::Checking {
                order: order.clone(),
                boots: 0,
            };
            self.persist();
            self.act(Action::Check { release: *release });
        }
    }

    pub(super) fn fetch_failed(&mut self, release: &PackageId) {
        let Work::Fetching {
            order,
            attempts,
            retry_at,
            ..
        } = &mut self.state.work
        else {
            return;
        };
        if order.release != *release {
            return;
        }
        *attempts += 1;
        if *attempts >= FETCH_ATTEMPTS_MAX {
            let why = Refusal::Unreachable {
                attempts: *attempts,
            };
            return self.refuse(why);
        }
        *retry_at = self.now.plus_secs(wait_secs(*attempts));
        let (length, not_before) = (order.length, *retry_at);
        self.persist();
        self.act(Action::Fetch {
            release: *release,
            length,
            not_before,
        });
    }

    /// Told once; then the order waits for space, however long that takes: no attempt is counted,
    /// and a newer order supersedes it like any other.
    pub(super) fn no_space(&mut self, release: &PackageId, bytes: u64, bytes_free: u64) {
        let (order, told) = match &self.state.work {
            Work::Fetching {
                order, space_told, ..
            } => (order.clone(), *space_told),
            Work::Checking { order, .. } => (order.clone(), false),
            _ => return,
        };
        if order.release != *release {
            return;
        }
        let (length, not_before) = (order.length, self.now.plus_secs(SPACE_WAIT_SECS));
        let fetch = Action::Fetch {
            release: *release,
            length,
            not_before,
        };
        if told {
            // Nothing is new, so nothing is written.
            return self.act(fetch);
        }
        let why = Refusal::NoSpace { bytes, bytes_free };
        let report = self.tell(&Whose::from(&order), refusal(&order, why));
        self.state.work = Work::Fetching {
            order,
            attempts: 0,
            retry_at: not_before,
            space_told: true,
        };
        self.persist();
        self.act(fetch);
        self.act(report);
    }

    pub(super) fn refused(&mut self, release: &PackageId, why: Refusal) {
        if let Work::Fetching { order, .. } | Work::Checking { order, .. } = &self.state.work
            && order.release == *release
        {
            self.refuse(why);
        }
    }

    pub(super) fn checked(&mut self, release: &PackageId) {
        let Work::Checking { order, .. } = &self.state.work else {
            return;
        };
        if order.release != *release {
            return;
        }
        let order = order.clone();
        let served_before = self
            .state
            .previous
            .as_ref()
            .is_some_and(|good| good.release == *release);
        if order.ordered_back && served_before {
            return self.commit(order);
        }
        self.state.work = Work::Proving { order, boots: 0 };
        self.persist();
        self.act(Action::Prove { release: *release });
    }

    pub(super) fn proved(&mut self, release: &PackageId) {
        let Work::Proving { order, .. } = &self.state.work else {
            return;
        };
        if order.release != *release {
            return;
        }
        let order = order.clone();
        if order.ordered_back {
            return self.commit(order);
        }
        // There is nothing to compare with while no release answers.
        let answers = self.state.good.is_some() && self.state.disabled.is_none();
        let answers = answers && !self.state.slot.is_agent();
        if order.trial.shadow.is_none() || !answers {
            return self.start_trial(order);
        }
        self.state.work = Work::Shadowing {
            order,
            trial: Trial::new(self.now),
        };
        self.persist();
        self.serve_good();
    }

    pub(super) fn start_trial(&mut self, order: Order) {
        self.state.work = Work::Trial {
            order,
            trial: Trial::new(self.now),
        };
        self.persist();
        self.serve_candidate();
    }

    pub(super) fn proof_failed(&mut self, release: &PackageId, why: ProofFailure) {
        if let Work::Proving { order, .. } = &self.state.work
            && order.release == *release
        {
            self.fail(OutcomeKind::FailedBeforeServing(why));
        }
    }

    /// Ends the order because the package may not or cannot be run.
    pub(super) fn refuse(&mut self, why: Refusal) {
        if let Some(order) = self.state.work.order() {
            let kind = refusal(order, why);
            self.fail(kind);
        }
    }

    /// Ends the order under way: remembered, reported, removed; the good release serves on.
    pub(super) fn fail(&mut self, kind: OutcomeKind) {
        let Some(order) = self.state.work.order().cloned() else {
            return;
        };
        let ran = self.state.work.runs_candidate();
        self.state.work = Work::Idle;
        self.remember_refused(order.sequence, order.release);
        if self
            .state
            .previous
            .as_ref()
            .is_some_and(|good| good.release == order.release)
        {
            // What was just refused or failed is nothing to fall back to.
            self.state.previous = None;
        }
        let report = self.tell(&Whose::from(&order), kind);
        self.persist();
        if ran {
            self.serve_good();
        }
        self.delete(order.release);
        self.act(report);
    }
}

/// What is told of a package that may not or cannot be run.
fn refusal(order: &Order, why: Refusal) -> OutcomeKind {
    if order.ordered_back {
        OutcomeKind::UnableToRollBack(TrialFailure::Unservable(why))
    } else {
        OutcomeKind::Refused(why)
    }
}

/// Wait after so many failed attempts: doubling, capped.
fn wait_secs(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(16);
    (FETCH_WAIT_SECS_MIN << doublings).min(FETCH_WAIT_SECS_MAX)
}

//! What the machine asks for: jobs, deletions, outcomes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_package::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::{ClockState, Outcome};
use bellwether_rollout::device::{Action, Event};

use super::jobs::{Done, Job, Work};
use super::slot::{Wanted, Wants};
use super::{Agent, Message, jitter_secs};
use crate::causes::with_causes;
use crate::clock;
use crate::fetch;
use crate::program;
use crate::trust::Trust;
use crate::view::OutcomeView;

impl Agent {
    pub(super) fn perform(&mut self, name: &SlotName, action: Action, now: UnixSecs) {
        let action = if name.is_agent() {
            match self.perform_own(name, action) {
                Some(action) => action,
                None => return,
            }
        } else {
            action
        };
        match action {
            // `drive` stored the state before it performed anything.
            Action::Persist => {}
            Action::Fetch {
                release,
                length,
                not_before,
            } => {
                // A fleet that lost its server must not return in one second.
                let wait = not_before.secs_since(now);
                // By the monotonic clock: the other one may be set meanwhile.
                let wait = Duration::from_secs(wait + jitter_secs(wait / 4));
                self.queue(name, release, Work::Fetch { length }, Instant::now() + wait);
            }
            Action::Check { release } => {
                self.queue(name, release, Work::Check, Instant::now());
            }
            Action::Prove { release } => {
                self.queue(name, release, Work::Prove, Instant::now());
            }
            Action::Serve {
                release,
                also_baseline,
                trial,
                shadow,
            } => {
                let answers = Wants {
                    release,
                    also_baseline,
                };
                let beside = shadow.map(|shadow| Wants {
                    release: shadow.release,
                    also_baseline: shadow.also_baseline,
                });
                self.serve(
                    name,
                    Wanted {
                        answers,
                        trial,
                        beside,
                    },
                );
            }
            Action::StopServing { reason } => self.stop(name, &reason),
            Action::Delete { release } => {
                self.jobs.cancel(name, release);
                self.sweep();
            }
            Action::Report(outcome) => self.report_outcome(name, outcome, now),
        }
    }

    fn queue(&mut self, name: &SlotName, release: PackageId, work: Work, not_before: Instant) {
        self.jobs.queue(Job {
            slot: Some(name.clone()),
            release: Some(release),
            work,
            not_before,
        });
    }

    fn report_outcome(&mut self, name: &SlotName, outcome: Outcome, now: UnixSecs) {
        tracing::info!(slot = %name, sequence = %outcome.sequence, outcome = %outcome.kind);
        if let Some(slot) = self.slots.get_mut(name) {
            let version = outcome.release.and_then(|release| slot.version(release));
            let shown = OutcomeView::of(&outcome, version, now.0);
            self.events.outcome(now.0, name.as_str(), &shown);
            slot.outcome = Some(shown);
        }
        match self.outbox.hold(outcome, now) {
            Ok(()) => self.forget_told(name),
            // The machine keeps it and reports it again at the next boot.
            Err(error) => tracing::error!(error = %with_causes(&error), "cannot keep an outcome"),
        }
    }

    /// Has the machine forget its outcomes, once all of them are on disk in the outbox.
    fn forget_told(&mut self, name: &SlotName) {
        if self.outbox.is_safe(name) {
            self.drive(name, Event::Told);
        }
    }

    /// Writes again what the disk refused. Outcomes that it took are the outbox's from then on.
    pub(super) fn save_unsaved(&mut self) {
        for name in self.outbox.save_unsaved() {
            self.forget_told(&name);
        }
    }

    pub(super) fn start_job(&mut self) {
        let Some((job, cancelled)) = self.jobs.next(Instant::now()) else {
            return;
        };
        let world = super::jobs::World {
            trust: self.trust.clone(),
            config: self.config.clone(),
            remote: self.remote.clone(),
            folder: self.store.path(fetch::FOLDER),
            config_path: self.own.config.clone(),
        };
        let messages = self.messages.clone();
        tokio::task::spawn_blocking(move || {
            let done = super::jobs::work(job, &world, &cancelled);
            let _ = messages.blocking_send(Message::Done(Box::new(done)));
        });
    }

    pub(super) fn done(&mut self, done: Done) {
        self.jobs.ended();
        let Done { job, newer, event } = done;
        // The server was asked, so by now it is known whether the clock is wrong.
        if job.work == Work::Refresh
            && clock::state(self.trust.expires()) != ClockState::Plausible
            && let Some(bytes) = self.expired.take()
        {
            self.assigned(bytes);
        }
        if let Some(trust) = newer {
            self.trusted_anew(trust);
        }
        if let (Some(name), Some(event)) = (&job.slot, event) {
            // A job that was superseded is of no interest; the machine ignores it as well.
            self.drive(name, event);
        }
        self.sweep();
    }

    /// Keeps the trust documents in force if the disk has not taken them yet: a device that starts
    /// anew with no server to ask must know what was revoked.
    pub(super) fn save_trust(&mut self) {
        if !std::mem::take(&mut self.trust_unsaved) {
            return;
        }
        if let Err(error) = self.trust.save(&self.store) {
            tracing::error!(error = %with_causes(&error), "cannot keep the newer trust documents");
            self.trouble = Some(error.to_string());
            self.trust_unsaved = true;
        }
    }

    /// A newer trust root or revocation list: kept, and held against what is on the device.
    fn trusted_anew(&mut self, trust: Trust) {
        tracing::info!(
            root = trust.root_version(),
            revocations = trust.revocations_version(),
            "trust documents renewed"
        );
        self.trust = Arc::new(trust);
        self.trust_unsaved = true;
        self.save_trust();
        if let Some(bytes) = self.unopened.take() {
            self.assigned(bytes);
        }
        let names: Vec<SlotName> = self.slots.keys().cloned().collect();
        for name in names {
            let Some(slot) = self.slots.get(&name) else {
                continue;
            };
            let kept: Vec<PackageId> = slot.state.kept().copied().collect();
            for release in kept {
                let path = fetch::path(&self.store.path(fetch::FOLDER), release);
                if self.trust.revokes_file(release, &path) {
                    let why = bellwether_protocol::Refusal::Revoked;
                    self.drive(&name, Event::Unservable { release, why });
                }
            }
        }
    }

    /// Removes every package file that no slot keeps and no job writes.
    pub(super) fn sweep(&self) {
        let kept: Vec<PackageId> = self
            .slots
            .values()
            .flat_map(|slot| slot.state.kept().copied())
            .chain(self.jobs.release())
            .collect();
        if let Err(error) = fetch::sweep(&self.store.path(fetch::FOLDER), &kept) {
            tracing::warn!(error = %with_causes(&error), "cannot remove old packages");
        }
        if let Err(error) = program::sweep(&self.config.state_dir, &kept) {
            tracing::warn!(error = %with_causes(&error), "cannot remove old programs");
        }
    }
}

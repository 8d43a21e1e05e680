//! What the machine asks for: jobs, swaps, deletions, outcomes.

use std::sync::Arc;
use std::time::Instant;

use bellwether_package::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::{Note, Outcome, Record};
use bellwether_rollout::device::{Action, Event};

use super::jobs::{Done, Job, Work};
use super::slot::{Opened, Wanted};
use super::{Agent, Message, jitter_secs};
use crate::causes::with_causes;
use crate::clock;
use crate::fetch;
use crate::serving::{OpenError, Serving};
use crate::trust::Trust;
use crate::view::OutcomeView;

impl Agent {
    pub(super) fn perform(&mut self, name: &SlotName, action: Action, now: UnixSecs) {
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
                let not_before = not_before.plus_secs(jitter_secs(wait / 4));
                self.queue(name, release, Work::Fetch { length }, not_before);
            }
            Action::Check { release } => self.queue(name, release, Work::Check, now),
            Action::Prove { release } => self.queue(name, release, Work::Prove, now),
            Action::Serve {
                release,
                also_baseline,
                trial,
            } => {
                self.serve(
                    name,
                    Wanted {
                        release,
                        also_baseline,
                        trial,
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

    fn queue(&mut self, name: &SlotName, release: PackageId, work: Work, not_before: UnixSecs) {
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
            slot.outcome = Some(OutcomeView::of(&outcome, now.0));
        }
        match self.outbox.push(Record::Outcome(outcome), now) {
            Ok(()) => self.drive(name, Event::Told),
            // The machine keeps it and reports it again at the next boot.
            Err(error) => tracing::error!(error = %with_causes(&error), "cannot keep an outcome"),
        }
    }

    /// Makes `wanted` answer: at once when its session is there, else when it was opened. Until
    /// then what answered goes on answering.
    fn serve(&mut self, name: &SlotName, wanted: Wanted) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let also_same = slot
            .wanted
            .is_some_and(|before| before.also_baseline == wanted.also_baseline);
        slot.wanted = Some(wanted);
        slot.reopen_at = None;
        slot.reopened = 0;
        let is = |serving: &Option<Arc<Serving>>| {
            serving
                .as_ref()
                .is_some_and(|serving| serving.release() == wanted.release)
        };
        if is(&slot.current) && also_same {
            if !wanted.trial {
                slot.retiring.extend(slot.standby.take());
            }
        } else if is(&slot.standby) {
            let standby = slot.standby.take();
            self.swap(name, standby);
        } else {
            self.open(name);
        }
    }

    fn stop(&mut self, name: &SlotName, reason: &Note) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.wanted = None;
        slot.reopen_at = None;
        let gone = [slot.current.take(), slot.standby.take()];
        slot.retiring.extend(gone.into_iter().flatten());
        self.answering.silent(name, reason.as_str());
    }

    /// Replaces what answers. Requests under way end on the session they began on.
    fn swap(&mut self, name: &SlotName, next: Option<Arc<Serving>>) {
        let Some(next) = next else { return };
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let trial = slot.wanted.is_some_and(|wanted| wanted.trial);
        self.answering.serve(name, next.clone());
        tracing::info!(slot = %name, release = %next.release().short(), trial, "serves");
        let before = slot.current.replace(next);
        if trial {
            slot.standby = before.or(slot.standby.take());
        } else {
            slot.retiring.extend(before);
            slot.retiring.extend(slot.standby.take());
        }
    }

    /// Opens a session for what is wanted, on another thread.
    fn open(&mut self, name: &SlotName) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let Some(wanted) = slot.wanted.filter(|_| !slot.opening) else {
            return;
        };
        slot.opening = true;
        slot.reopen_at = None;
        let (trust, config) = (self.trust.clone(), self.config.clone());
        let folder = self.store.path(fetch::FOLDER);
        let (poke, messages, name) = (self.poke.clone(), self.messages.clone(), name.clone());
        tokio::task::spawn_blocking(move || {
            let release = wanted.release;
            let result = Serving::open(
                &folder,
                release,
                wanted.also_baseline,
                &name,
                &trust,
                &config,
                poke,
            );
            let opened = Opened {
                slot: name,
                wanted,
                result: result.map(Arc::new),
            };
            // Without an owner the agent is stopping.
            let _ = messages.blocking_send(Message::Opened(Box::new(opened)));
        });
    }

    pub(super) fn opened(&mut self, opened: Opened) {
        let Opened {
            slot: name,
            wanted: opened,
            result,
        } = opened;
        let Some(slot) = self.slots.get_mut(&name) else {
            return;
        };
        slot.opening = false;
        let Some(wanted) = slot.wanted else { return };
        let release = wanted.release;
        if (release, wanted.also_baseline) != (opened.release, opened.also_baseline) {
            // Another one was ordered meanwhile.
            return self.open(&name);
        }
        match result {
            Ok(serving) => self.swap(&name, Some(serving)),
            Err(OpenError::Refused(why)) => {
                tracing::error!(slot = %name, release = %release.short(), %why, "cannot be served");
                self.drive(&name, Event::Unservable { release, why });
            }
            Err(OpenError::Died(how)) => {
                tracing::error!(slot = %name, release = %release.short(), %how, "died while opened");
                slot.reopen_later();
                self.drive(&name, Event::WorkerDied { release, how });
            }
            Err(OpenError::Device(error)) => {
                tracing::error!(slot = %name, %error, "cannot open a session; it is tried again");
                slot.reopen_later();
                self.trouble = Some(error);
            }
        }
    }

    /// Tries again to open a session that the device could not open.
    pub(super) fn reopen(&mut self, name: &SlotName) {
        let due = |at: Instant| Instant::now() >= at;
        if self
            .slots
            .get(name)
            .and_then(|slot| slot.reopen_at)
            .is_some_and(due)
        {
            self.open(name);
        }
    }

    pub(super) fn start_job(&mut self) {
        let Some((job, cancelled)) = self.jobs.next(clock::now()) else {
            return;
        };
        let world = super::jobs::World {
            trust: self.trust.clone(),
            config: self.config.clone(),
            remote: self.remote.clone(),
            folder: self.store.path(fetch::FOLDER),
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
        if let Some(trust) = newer {
            self.trusted_anew(trust);
        }
        if let (Some(name), Some(event)) = (&job.slot, event) {
            // A job that was superseded is of no interest; the machine ignores it as well.
            self.drive(name, event);
        }
        self.sweep();
    }

    /// A newer trust root or revocation list: kept, and held against what is on the device.
    fn trusted_anew(&mut self, trust: Trust) {
        if let Err(error) = trust.save(&self.store) {
            tracing::error!(error = %with_causes(&error), "cannot keep the newer trust documents");
            self.trouble = Some(error.to_string());
        }
        tracing::info!(
            root = trust.root_version(),
            revocations = trust.revocations_version(),
            "trust documents renewed"
        );
        self.trust = Arc::new(trust);
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
    }
}

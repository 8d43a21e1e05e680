//! The sessions of a slot: what answers, what stands ready or runs beside it, and their opening.

use std::sync::Arc;
use std::time::Instant;

use bellwether_package::SlotName;
use bellwether_protocol::{Note, Refusal};
use bellwether_rollout::device::Event;

use super::slot::{Opened, Slot, Wanted, Wants};
use super::{Agent, Message};
use crate::clock;
use crate::fetch;
use crate::serving::{Candidate, OpenError, Serving};

/// Attempts to read a good release from a disk that errs, before the one before it takes its
/// place: half a minute, in which a controller has started anew. Without one before it there is no
/// end to them.
const UNREAD_MAX: u32 = 5;

impl Agent {
    /// Makes `wanted` answer: at once when its session is there, else when it was opened. Until
    /// then what answered goes on answering.
    pub(super) fn serve(&mut self, name: &SlotName, wanted: Wanted) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.wanted = Some(wanted);
            slot.reopen_at = None;
            slot.reopened = 0;
        }
        self.arrange(name);
    }

    pub(super) fn stop(&mut self, name: &SlotName, reason: &Note) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.wanted = None;
        slot.reopen_at = None;
        let gone = [slot.current.take(), slot.standby.take()];
        gone.into_iter().flatten().for_each(|it| slot.retire(it));
        self.answering.silent(name, reason.as_str());
    }

    /// Brings the slot as near to what is wanted as the sessions allow that are there, and opens
    /// the one that is missing.
    fn arrange(&mut self, name: &SlotName) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let Some(wanted) = slot.wanted else { return };
        if !wanted.answers.is(slot.current.as_ref()) {
            if !wanted.answers.is(slot.standby.as_ref()) {
                return self.open(name, wanted.answers);
            }
            if let Some(next) = slot.standby.take() {
                self.swap(name, next);
            }
        }
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        slot.clear_standby(wanted);
        let Some(current) = slot.current.clone() else {
            return;
        };
        current.keep_tried(wanted.trial);
        match (wanted.beside, &slot.standby) {
            (None, _) => current.run_alone(),
            (Some(beside), None) => self.open(name, beside),
            (Some(_), Some(standby)) => {
                if current.runs_beside() != Some(standby.release()) {
                    current.run_beside(standby, candidate(wanted));
                }
            }
        }
    }

    /// Replaces what answers. Requests under way end on the session they began on.
    fn swap(&mut self, name: &SlotName, next: Arc<Serving>) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let trial = slot.wanted.is_some_and(|wanted| wanted.trial);
        next.run_alone();
        self.answering.serve(name, next.clone());
        tracing::info!(slot = %name, release = %next.release().short(), trial, "serves");
        let text = format!("serves {} {}", next.model(), next.version());
        let text = text + if trial { ", on trial" } else { "" };
        self.events.note(clock::now().0, Some(name.as_str()), text);
        if let Some(before) = slot.current.replace(next) {
            before.run_alone();
            // During a trial it stays ready; `arrange` decides whether it is wanted.
            let older = slot.standby.replace(before);
            older.into_iter().for_each(|it| slot.retire(it));
        }
    }

    /// Opens a session, on another thread, one at a time.
    fn open(&mut self, name: &SlotName, wants: Wants) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        if std::mem::replace(&mut slot.opening, true) {
            return;
        }
        slot.reopen_at = None;
        let (trust, config) = (self.trust.clone(), self.config.clone());
        let folder = self.store.path(fetch::FOLDER);
        let (poke, messages, name) = (self.poke.clone(), self.messages.clone(), name.clone());
        tokio::task::spawn_blocking(move || {
            let Wants {
                release,
                also_baseline,
            } = wants;
            let result = Serving::open(
                &folder,
                release,
                also_baseline,
                &name,
                &trust,
                &config,
                poke,
            );
            let opened = Opened {
                slot: name,
                wants,
                result: result.map(Arc::new),
            };
            // Without an owner the agent is stopping.
            let _ = messages.blocking_send(Message::Opened(Box::new(opened)));
        });
    }

    pub(super) fn opened(&mut self, opened: Opened) {
        let Opened {
            slot: name,
            wants,
            result,
        } = opened;
        let Some(slot) = self.slots.get_mut(&name) else {
            return;
        };
        slot.opening = false;
        let Some(wanted) = slot.wanted else { return };
        let answers = wants == wanted.answers;
        if !answers && Some(wants) != wanted.beside {
            // Another one was ordered meanwhile.
            return self.arrange(&name);
        }
        match result {
            Ok(serving) if answers => {
                self.swap(&name, serving);
                self.arrange(&name);
            }
            Ok(serving) => {
                let before = slot.standby.replace(serving);
                before.into_iter().for_each(|it| slot.retire(it));
                self.arrange(&name);
            }
            Err(error) => self.not_opened(&name, wants, wanted, error),
        }
    }

    fn not_opened(&mut self, name: &SlotName, wants: Wants, wanted: Wanted, error: OpenError) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let release = wants.release;
        match error {
            OpenError::Refused(why) => {
                tracing::error!(slot = %name, release = %release.short(), %why, "cannot be run");
                self.drive(name, Event::Unservable { release, why });
            }
            OpenError::Died(how) => {
                tracing::error!(slot = %name, release = %release.short(), %how, "died while opened");
                slot.reopen_later();
                // A good release that cannot be opened beside a candidate still answered before.
                if wants == wanted.answers || candidate(wanted) == Candidate::Beside {
                    self.drive(name, Event::WorkerDied { release, how });
                }
            }
            OpenError::Unread(error) => {
                tracing::error!(slot = %name, release = %release.short(), %error, "not read");
                let given_up = slot.reopened >= UNREAD_MAX && slot.state.previous().is_some();
                if given_up && wants == wanted.answers && !wanted.trial {
                    let why = Refusal::Damaged;
                    return self.drive(name, Event::Unservable { release, why });
                }
                slot.reopen_later();
                self.trouble = Some(format!("the disk does not give a release: {error}"));
            }
            OpenError::Device(error) => {
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
            self.arrange(name);
        }
    }
}

fn candidate(wanted: Wanted) -> Candidate {
    if wanted.trial {
        Candidate::Answers
    } else {
        Candidate::Beside
    }
}

impl Slot {
    /// Lets a session end once its requests have ended and its counts are taken.
    fn retire(&mut self, session: Arc<Serving>) {
        session.run_alone();
        self.retiring.push(session);
    }

    /// Retires what stands ready and is not wanted there. During a trial that nothing runs beside,
    /// whatever answered before stays ready.
    fn clear_standby(&mut self, wanted: Wanted) {
        let stays = match wanted.beside {
            Some(beside) => beside.is(self.standby.as_ref()),
            None => wanted.trial,
        };
        if let Some(standby) = self.standby.take_if(|_| !stays) {
            if let Some(current) = &self.current {
                current.run_alone();
            }
            self.retire(standby);
        }
    }
}

//! The slot of the agent's own programs: what serving a release means there.
//!
//! To serve the release that this process runs is to note that it is the good one, or to do nothing
//! while it is on trial. To serve another one is to put it on disk, to write down that it shall run,
//! and to end: the launcher does the rest.

use std::time::Instant;

use bellwether_package::ids::AGENT_SLOT;
use bellwether_package::{PackageId, SlotName};
use bellwether_protocol::Refusal;
use bellwether_rollout::device::{Action, Event, Traffic, Work as Stage};

use super::slot::Slot;
use super::{Agent, State};
use crate::causes::with_causes;
use crate::clock;
use crate::program::record::{Record, Started};
use crate::program::{self, Unready};
use crate::store::StoreError;

impl Agent {
    /// Performs what is different in this slot; hands every other action back.
    pub(super) fn perform_own(&mut self, name: &SlotName, action: Action) -> Option<Action> {
        match action {
            Action::Serve { release, trial, .. } => self.run_program(name, release, trial),
            Action::StopServing { .. } => self.run_installed(),
            other => return Some(other),
        }
        None
    }

    fn run_program(&mut self, name: &SlotName, release: PackageId, trial: bool) {
        if self.own.release == Some(release) {
            // On trial the record holds it as the candidate already.
            if !trial {
                self.commit_program(name, release);
            }
            return;
        }
        match self.line_up(name, release, trial) {
            Ok(()) => {
                tracing::info!(release = %release.short(), trial, "hands over to another program");
                let text = if trial {
                    "hands over to a new agent, on trial"
                } else {
                    "hands over to another agent"
                };
                let text = text.to_owned();
                self.events.note(clock::now().0, Some(AGENT_SLOT), text);
                self.hands_over = true;
            }
            Err(why) => {
                tracing::error!(release = %release.short(), %why, "cannot hand over");
                self.drive(name, Event::Unservable { release, why });
            }
        }
    }

    /// Puts the program on disk and writes down that it shall run.
    fn line_up(&self, name: &SlotName, release: PackageId, trial: bool) -> Result<(), Refusal> {
        let ready = program::verified(name, release, &self.trust, &self.config);
        let ready = ready.map_err(|unready| match unready {
            Unready::Refused(why) => why,
            Unready::NoSpace { bytes, bytes_free } => Refusal::NoSpace { bytes, bytes_free },
        })?;
        let mut record = Record::load(&self.store);
        if trial {
            let order = self
                .slots
                .get(name)
                .and_then(|slot| slot.state.work().order());
            let secs_max = order.map_or(0, |order| order.trial.secs_max);
            record.candidate = Some(Started::new(ready, secs_max));
        } else {
            record.commit(ready);
        }
        record.save(&self.store).map_err(|error| {
            tracing::error!(error = %with_causes(&error), "cannot note which program shall run");
            match error {
                StoreError::DiskFull { .. } => Refusal::NoSpace {
                    bytes: 1,
                    bytes_free: 0,
                },
                _ => Refusal::Other,
            }
        })
    }

    /// The program that runs is the good one. If that cannot be noted now, the next boot notes it:
    /// the machine says so each time.
    fn commit_program(&mut self, name: &SlotName, release: PackageId) {
        let mut record = Record::load(&self.store);
        let program = match record.candidate.as_ref().or(record.good.as_ref()) {
            Some(started) if started.program.release == release => Ok(started.program.clone()),
            _ => program::verified(name, release, &self.trust, &self.config),
        };
        match program {
            Ok(program) => {
                let mut news = record.commit(program);
                news |= record.well(release);
                if news {
                    self.keep_record(&record);
                }
            }
            Err(unready) => tracing::error!(?unready, "this program's own package is not there"),
        }
    }

    fn run_installed(&mut self) {
        let mut record = Record::load(&self.store);
        if record.commit_installed() {
            self.keep_record(&record);
        }
        if self.own.release.is_some() {
            tracing::info!("hands over to the installed program");
            self.hands_over = true;
        }
    }

    fn keep_record(&mut self, record: &Record) {
        if let Err(error) = record.save(&self.store) {
            tracing::error!(error = %with_causes(&error), "cannot note which program is good");
            self.trouble = Some(error.to_string());
        }
    }

    /// Tells the machine of programs that the launcher gave up; before its boot, which would start
    /// them again.
    pub(super) fn tell_ended(&mut self) {
        let mut record = Record::load(&self.store);
        if record.ended.is_empty() {
            return;
        }
        let Ok(name) = SlotName::new(AGENT_SLOT) else {
            return;
        };
        for ended in &record.ended {
            let (release, starts) = (ended.release, ended.starts);
            let event = match ended.last {
                Some(last) => Event::ProgramEnded {
                    release,
                    starts,
                    last,
                },
                None => Event::Unservable {
                    release,
                    why: Refusal::Damaged,
                },
            };
            self.drive(&name, event);
        }
        // Read again: what was driven may have written it.
        let told = std::mem::take(&mut record.ended);
        let mut record = Record::load(&self.store);
        let slot = self.slots.get(&name);
        if slot.is_some_and(|slot| !slot.retries.is_empty()) {
            // The disk did not take it; the next boot tells again.
            return;
        }
        record.ended.retain(|ended| !told.contains(ended));
        self.keep_record(&record);
    }

    /// The server itself has acknowledged so many records: this program reaches it.
    pub(super) fn heard_by_server(&mut self, records: usize) {
        let (Some(release), true) = (self.own.release, records > 0) else {
            return;
        };
        let slots = self.slots.iter();
        let own = slots
            .filter(|(name, _)| name.is_agent())
            .map(|(name, slot)| {
                let tried = |stage: &Stage| matches!(stage, Stage::Trial { .. });
                (name.clone(), tried(slot.state.work()))
            });
        let Some((name, on_trial)) = own.into_iter().next() else {
            return;
        };
        if on_trial {
            let traffic = Traffic {
                rows: u32::try_from(records).unwrap_or(u32::MAX),
                ..Traffic::default()
            };
            self.drive(&name, Event::Traffic { release, traffic });
        }
    }

    /// Shows whoever watches that this process is alive, and forgives its starts once it is well.
    pub(super) fn show_life(&mut self) {
        if let Some(beat) = &self.own.beat {
            beat.beat(&self.view.borrow().summary(clock::now().0).sentence);
        }
        if let Some((release, at)) = self.own.release.zip(self.well_at)
            && Instant::now() >= at
        {
            self.well_at = None;
            let mut record = Record::load(&self.store);
            if record.well(release) {
                self.keep_record(&record);
            }
        }
    }

    /// Whether every slot answers again with what it should.
    pub(super) fn has_opened(&self) -> bool {
        let opened = |slot: &Slot| {
            let wanted = slot.wanted;
            wanted.is_none_or(|wanted| wanted.answers.is(slot.current.as_ref()))
        };
        self.slots.values().all(opened)
    }
}

/// What is told of a slot of the agent's own programs.
pub(super) fn model(state: &State) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match state.serving() {
        Some(_) => format!("bellwether-agent {version}"),
        None => format!("bellwether-agent {version}, as installed"),
    }
}

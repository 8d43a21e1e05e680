//! What the agent tells the server, and shows here.

use std::sync::Arc;
use std::time::Instant;

use bellwether_package::{SlotName, UnixSecs};
use bellwether_protocol::{Record, Window};

use super::own;
use super::slot::Slot;
use super::{Agent, Message};
use crate::causes::with_causes;
use crate::clock;
use crate::serving::Serving;
use crate::status::STATUS;
use crate::view::{DeviceView, SlotView};

impl Agent {
    /// Hands the link as many due reports as it takes.
    pub(super) fn send_due(&mut self) {
        if !self.connected {
            return;
        }
        let room = self.reports.capacity();
        if room == 0 {
            return;
        }
        for report in self.outbox.due(Instant::now(), room) {
            if self.reports.try_send(report).is_err() {
                // It is sent again when no acknowledgement comes.
                return;
            }
        }
    }

    /// Takes the windows of every session, off this thread: a session that is asked at the moment
    /// makes whoever takes its window wait.
    pub(super) fn take_windows(&mut self, now: UnixSecs) {
        self.take_windows_of(self.sessions(), now);
        self.take_labels(now);
    }

    /// Takes the last windows of sessions that no request uses any more, and lets their workers
    /// end.
    pub(super) fn take_retired_windows(&mut self, now: UnixSecs) {
        let mut done = Vec::new();
        for (name, slot) in &mut self.slots {
            let (idle, busy) = std::mem::take(&mut slot.retiring)
                .into_iter()
                .partition(|session| Arc::strong_count(session) == 1);
            slot.retiring = busy;
            let idle: Vec<Arc<Serving>> = idle;
            done.extend(idle.into_iter().map(|session| (name.clone(), session)));
        }
        if !done.is_empty() {
            self.take_windows_of(done, now);
        }
    }

    /// What late labels have said since the last window.
    fn take_labels(&mut self, now: UnixSecs) {
        for labels in self.labels.tallies(now) {
            self.keep(Record::Labels(labels), now);
        }
    }

    fn take_windows_of(&self, sessions: Vec<(SlotName, Arc<Serving>)>, now: UnixSecs) {
        let messages = self.messages.clone();
        tokio::task::spawn_blocking(move || {
            let windows = windows_of(&sessions, now);
            drop(sessions);
            let _ = messages.blocking_send(Message::Windows(windows));
        });
    }

    pub(super) fn keep_windows(&mut self, windows: Vec<Window>) {
        let now = clock::now();
        self.count_served(&windows);
        windows
            .into_iter()
            .for_each(|window| self.keep(Record::Window(window), now));
    }

    /// The last windows before the agent stops.
    pub(super) fn close_windows(&mut self) {
        let windows = windows_of(&self.sessions(), clock::now());
        self.keep_windows(windows);
        self.take_labels(clock::now());
    }

    fn sessions(&self) -> Vec<(SlotName, Arc<Serving>)> {
        let of = |(name, slot): (&SlotName, &Slot)| {
            slot.sessions()
                .map(|session| (name.clone(), session.clone()))
                .collect::<Vec<_>>()
        };
        self.slots.iter().flat_map(of).collect()
    }

    /// Reports the slot's status if it changed since it was last reported.
    pub(super) fn tell_status(&mut self, name: &SlotName) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let status = slot.state.status();
        if slot.told.as_ref() == Some(&status) {
            return;
        }
        slot.told = Some(status.clone());
        self.keep(Record::Status(status), clock::now());
    }

    /// Reports every slot's status anew: the server may have lost it.
    pub(super) fn tell_statuses(&mut self) {
        let names: Vec<SlotName> = self.slots.keys().cloned().collect();
        for name in names {
            if let Some(slot) = self.slots.get_mut(&name) {
                slot.told = None;
            }
            self.tell_status(&name);
        }
    }

    pub(super) fn keep(&mut self, record: Record, now: UnixSecs) {
        match self.outbox.push(record, now) {
            Ok(()) => self.outbox_full = false,
            // Once, not at each record: the disk is full already.
            Err(error) if !self.outbox_full => {
                self.outbox_full = true;
                tracing::error!(error = %with_causes(&error), "reports are lost");
            }
            Err(_) => {}
        }
    }

    /// Shows what changed to people; `last` also when only the last contact did.
    pub(super) fn show(&mut self, last: bool) {
        let view = self.device_view();
        let changed = {
            let before = self.view.borrow();
            let same_but_times = DeviceView {
                at: before.at,
                last_contact: before.last_contact,
                reports_waiting: before.reports_waiting,
                // A figure that changes all the time must not wear out the disk.
                health: before.health.clone(),
                health_at: before.health_at,
                readings: before.readings.clone(),
                ..view.clone()
            };
            same_but_times != *before
        };
        if changed || last {
            let text = serde_json::to_vec_pretty(&view).expect("a view has plain fields");
            if let Err(error) = self.store.write_file(STATUS, &text) {
                tracing::debug!(%error, "cannot keep the status");
            }
        }
        self.view.send_replace(view);
    }

    /// Tells the service manager that this loop still turns, and how the device is.
    pub(super) fn tell_manager(&mut self) {
        let Self { manager, view, .. } = self;
        manager.alive(Instant::now(), || {
            view.borrow().summary(clock::now().0).sentence
        });
    }

    fn device_view(&self) -> DeviceView {
        DeviceView {
            device: self.config.device.to_string(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            at: clock::now().0,
            connected: self.connected,
            last_contact: self.last_contact,
            root_version: self.trust.root_version(),
            revocations_version: self.trust.revocations_version(),
            reports_waiting: self.outbox.len(),
            trouble: self.trouble.clone().or(self.lost.clone()),
            health: self.health.as_ref().map(|(health, _)| health.clone()),
            health_at: self.health.as_ref().map(|(_, at)| at.0),
            readings: self.topics.view(),
            events: self.events.view(),
            slots: self
                .slots
                .keys()
                .filter_map(|name| self.slot_view(name))
                .collect(),
        }
    }

    fn slot_view(&self, name: &SlotName) -> Option<SlotView> {
        let slot = self.slots.get(name)?;
        let status = slot.state.status();
        let current = slot.current.as_ref();
        Some(SlotView {
            slot: name.to_string(),
            phase: status.phase.to_string(),
            serving: current
                .map(|serving| serving.release())
                .or(status.serving)
                .map(|release| release.to_string()),
            model: match current {
                _ if name.is_agent() => Some(own::model(&slot.state)),
                current => {
                    current.map(|serving| format!("{} {}", serving.model(), serving.version()))
                }
            },
            candidate: status.candidate.map(|release| release.to_string()),
            previous: status.previous.map(|release| release.to_string()),
            reason: self.answering.silence(name).map(|silence| silence.why),
            since: self.answering.since(name).map(|since| since.0),
            floor: status.floor.to_string(),
            outcome: slot.outcome.clone(),
        })
    }
}

fn windows_of(sessions: &[(SlotName, Arc<Serving>)], now: UnixSecs) -> Vec<Window> {
    sessions
        .iter()
        .flat_map(|(slot, session)| session.take_windows(slot, now))
        .collect()
}

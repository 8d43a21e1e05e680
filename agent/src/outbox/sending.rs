//! What is sent when, and what travels together.

use std::time::{Duration, Instant};

use bellwether_protocol::{BootId, Bundle, Report, to_vec};

use super::Outbox;
use super::files::Kind;
use crate::link::Sending;
use crate::store::sync_folder;

/// Records on their way at most, whatever waits.
pub const UNDERWAY_MAX: usize = 16;
/// A record that the server has not acknowledged for so long is sent again; then after twice that.
pub(super) const RESEND_AFTER: Duration = Duration::from_secs(20);
/// Longest pause between two attempts: a server that is silent for days costs little.
const RESEND_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Health waits so long for a window that is taken at the same moment, and travels with it.
pub(super) const LINGER: Duration = Duration::from_secs(3);
/// Bytes of one message at most, unless one record alone is longer: what is lost with a
/// connection is sent again whole.
const MESSAGE_BYTES: u64 = 4096;

/// When a record was sent, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// `None`: over a connection that is gone.
    at: Option<Instant>,
    times: u32,
}

impl Sent {
    fn due_at(&self) -> Option<Instant> {
        let doublings = self.times.saturating_sub(1).min(16);
        let pause = RESEND_AFTER.saturating_mul(1 << doublings);
        self.at.map(|at| at + pause.min(RESEND_AFTER_MAX))
    }

    fn is_underway(&self, now: Instant) -> bool {
        self.due_at().is_some_and(|due_at| due_at > now)
    }
}

/// Reports of one message.
struct Message {
    boot: BootId,
    again: bool,
    bytes: u64,
    reports: Vec<Report>,
}

impl Outbox {
    /// Messages to send now, outcomes first, then the oldest; their records count as sent at `now`.
    /// There are never more than `records_max` messages or records.
    pub fn due(&mut self, now: Instant, records_max: usize) -> Vec<Sending> {
        let underway = self.sent.values().filter(|sent| sent.is_underway(now));
        let free = UNDERWAY_MAX.saturating_sub(underway.count());
        let mut due: Vec<(bool, u64)> = self
            .entries
            .iter()
            .filter(|(order, entry)| {
                let sent = self.sent.get(order);
                !entry.stored && !sent.is_some_and(|it| it.is_underway(now))
            })
            .map(|(order, entry)| (entry.kind != Kind::Outcome, *order))
            .collect();
        if self.lingers(&due, now) {
            return Vec::new();
        }
        due.sort_unstable();
        due.truncate(records_max.min(free));
        self.mark_windows(&mut due);
        let mut messages: Vec<Message> = Vec::new();
        for (_, order) in due {
            self.put(&mut messages, order, now);
        }
        messages.into_iter().filter_map(Message::encoded).collect()
    }

    /// Whatever was under way is due again: the connection that carried it is gone.
    pub fn link_lost(&mut self) {
        self.sent.values_mut().for_each(|sent| sent.at = None);
    }

    /// Whether nothing is due but health that may still wait for company.
    fn lingers(&mut self, due: &[(bool, u64)], now: Instant) -> bool {
        let is_health = |order| {
            let entry = self.entries.get(order);
            entry.is_some_and(|entry| entry.kind == Kind::Health)
        };
        if due.is_empty() || !due.iter().all(|(_, order)| is_health(order)) {
            self.lingering = None;
            return false;
        }
        let since = *self.lingering.get_or_insert(now);
        now.duration_since(since) < LINGER
    }

    /// Adds a record to the messages, and counts it as sent.
    fn put(&mut self, messages: &mut Vec<Message>, order: u64, now: Instant) {
        let Some(report) = self.read(order) else {
            return;
        };
        let bytes = self.entries.get(&order).map_or(0, |entry| entry.bytes);
        let sent = self
            .sent
            .entry(order)
            .or_insert(Sent { at: None, times: 0 });
        sent.at = Some(now);
        sent.times += 1;
        let again = sent.times > 1;
        let fits = |message: &&mut Message| {
            let same = (message.boot, message.again) == (report.boot, again);
            same && message.bytes + bytes <= MESSAGE_BYTES
        };
        match messages.iter_mut().find(fits) {
            Some(message) => {
                message.bytes += bytes;
                message.reports.push(report);
            }
            None => messages.push(Message {
                boot: report.boot,
                again,
                bytes,
                reports: vec![report],
            }),
        }
    }

    /// Notes on disk which windows are sent from now on, before they are: those are not merged any
    /// more, since the server may have them. A window that cannot be noted waits.
    fn mark_windows(&mut self, due: &mut Vec<(bool, u64)>) {
        let mut marked_all = true;
        for (_, order) in &*due {
            let Some(entry) = self.entries.get_mut(order) else {
                continue;
            };
            if entry.kind != Kind::Window || entry.ever_sent {
                continue;
            }
            match entry.mark_sent(&self.folder, *order) {
                Ok(()) => self.names_unflushed |= entry.unsaved.is_none(),
                Err(error) => {
                    tracing::warn!(%error, "a window waits, because the disk cannot note that it is sent");
                    marked_all = false;
                }
            }
        }
        if self.names_unflushed {
            match sync_folder(&self.folder) {
                Ok(()) => self.names_unflushed = false,
                Err(error) => {
                    tracing::warn!(%error, "windows wait, because the disk cannot note that they are sent");
                    marked_all = false;
                }
            }
        }
        if !marked_all {
            let unflushed = self.names_unflushed;
            due.retain(|(_, order)| {
                let entry = self.entries.get(order);
                entry.is_some_and(|it| {
                    let noted = it.ever_sent && (!unflushed || it.unsaved.is_some());
                    it.kind != Kind::Window || noted
                })
            });
        }
    }
}

impl Message {
    fn encoded(self) -> Option<Sending> {
        let payload = if let [report] = self.reports.as_slice() {
            to_vec(report)
        } else {
            let reports = self.reports.into_iter();
            to_vec(&Bundle {
                boot: self.boot,
                reports: reports.map(|it| (it.seq, it.at, it.record)).collect(),
            })
        };
        let payload = payload
            .inspect_err(|error| tracing::error!(%error, "reports cannot be encoded together"))
            .ok()?;
        let again = self.again;
        Some(Sending { payload, again })
    }
}

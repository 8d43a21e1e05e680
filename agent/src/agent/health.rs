//! The device's health: measured on another thread, completed with what the owner knows.

use std::time::Instant;

use bellwether_package::UnixSecs;
use bellwether_protocol::{Health, LastOutcome, Record, Served, Window};

use super::{Agent, Message};
use crate::clock;
use crate::health::Sensors;

/// Sensors that have answered.
#[derive(Debug)]
pub(super) struct Measured {
    sensors: Sensors,
    health: Health,
}

impl Agent {
    /// Has the sensors read. One that does not answer holds up the next reading and nothing else.
    pub(super) fn take_health(&mut self) {
        let Some(mut sensors) = self.sensors.take() else {
            tracing::warn!("a sensor has not answered since the last reading; none is begun");
            return;
        };
        let state_dir = self.config.state_dir.clone();
        let messages = self.messages.clone();
        tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let health = sensors.measure(&state_dir);
            tracing::debug!(took = ?begun.elapsed(), "health measured");
            let measured = Measured { sensors, health };
            // Without an owner the agent is stopping.
            let _ = messages.blocking_send(Message::Measured(Box::new(measured)));
        });
    }

    pub(super) fn measured(&mut self, measured: Measured) {
        self.sensors = Some(measured.sensors);
        let now = clock::now();
        let served = Served {
            workers_kib: self.workers_kib(),
            ..std::mem::take(&mut self.served)
        };
        let health = Health {
            clock: clock::state(self.trust.expires()),
            clock_offset_secs: clock::offset_secs(),
            served: (!self.slots.is_empty()).then_some(served),
            last_outcome: self.last_outcome(now),
            ..measured.health
        };
        self.health = Some((health.clone(), now));
        self.keep(Record::Health(health), now);
    }

    /// Adds what closed windows tell to the next health record.
    pub(super) fn count_served(&mut self, windows: &[Window]) {
        let served = &mut self.served;
        // The same rows may come in another window, under another baseline.
        for window in windows.iter().filter(|window| window.is_own()) {
            let failed = u32::try_from(window.errors.total()).unwrap_or(u32::MAX);
            served.rows = served.rows.saturating_add(window.rows);
            served.rows_failed = served.rows_failed.saturating_add(failed);
            served.rows_nonfinite = served.rows_nonfinite.saturating_add(window.rows_nonfinite);
            let latency = window.latency.map(|latency| latency.us_p99);
            served.latency_us_p99 = served.latency_us_p99.max(latency);
        }
    }

    fn workers_kib(&self) -> Option<u32> {
        let sessions = self.slots.values().filter_map(|slot| slot.current.as_ref());
        let bytes = sessions
            .filter_map(|session| session.worker_bytes())
            .sum::<u64>();
        (bytes > 0).then(|| u32::try_from(bytes / 1024).unwrap_or(u32::MAX))
    }

    fn last_outcome(&self, now: UnixSecs) -> Option<LastOutcome> {
        let outcomes = self.slots.values().filter_map(|slot| slot.outcome.as_ref());
        let last = outcomes.max_by_key(|outcome| outcome.at)?;
        Some(LastOutcome {
            word: last.word?,
            secs_ago: u32::try_from(now.0.saturating_sub(last.at)).unwrap_or(u32::MAX),
        })
    }
}

//! What has become of readings, for people.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::Readings;
use crate::view::ReadingsView;

/// One complaint a minute goes to the log; a sensor that is broken sends for months.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Counts of one topic since the agent started.
#[derive(Debug)]
pub(super) struct Seen(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    view: ReadingsView,
    complained_at: Option<Instant>,
    /// Complaints that the log was spared.
    spared: u64,
}

impl Seen {
    pub(super) fn of(readings: &Readings) -> Self {
        let view = ReadingsView {
            slot: readings.slot.to_string(),
            broker: readings.broker.to_string(),
            topic: readings.topic.clone(),
            since: clock::now().0,
            ..ReadingsView::default()
        };
        Self(Mutex::new(Inner {
            view,
            complained_at: None,
            spared: 0,
        }))
    }

    pub(super) fn view(&self) -> ReadingsView {
        self.note(|view| view.clone())
    }

    pub(super) fn note<T>(&self, note: impl FnOnce(&mut ReadingsView) -> T) -> T {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut inner.view)
    }

    /// Whether the broker is there; `trouble` says why not.
    pub(super) fn connected(&self, trouble: Option<String>) {
        self.note(|view| {
            if view.connected != trouble.is_none() {
                view.connected = trouble.is_none();
                view.since = clock::now().0;
            }
            view.trouble = trouble;
        });
    }

    /// Says in the log that something was not answered, but not each time.
    pub(super) fn complain(&self, why: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if inner
            .complained_at
            .is_some_and(|at| now - at < COMPLAIN_EVERY)
        {
            inner.spared += 1;
            return;
        }
        inner.complained_at = Some(now);
        let spared = std::mem::take(&mut inner.spared);
        let topic = &inner.view.topic;
        tracing::warn!(
            topic,
            why,
            more_before = spared,
            "a reading is not answered"
        );
    }
}

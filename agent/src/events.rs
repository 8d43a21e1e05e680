//! What happened of late, for people: the last few things, newest first.

use std::collections::VecDeque;

use crate::view::{EventView, OutcomeView};

/// Events that are kept: what fits on a phone in a few strokes.
const EVENTS_MAX: usize = 20;

/// The last events, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events(VecDeque<EventView>);

impl Events {
    /// What an earlier run of the agent left.
    pub fn of(events: Vec<EventView>) -> Self {
        Self(events.into_iter().take(EVENTS_MAX).collect())
    }

    /// Something happened at `at`. The same thing again is counted, so that it does not push out
    /// everything else.
    pub fn note(&mut self, at: u64, slot: Option<&str>, text: String) {
        if let Some(last) = self.0.front_mut()
            && (last.slot.as_deref(), &last.text) == (slot, &text)
        {
            last.at = at;
            last.times = last.times.saturating_add(1);
            return;
        }
        self.0.truncate(EVENTS_MAX - 1);
        self.0.push_front(EventView {
            at,
            slot: slot.map(str::to_owned),
            text,
            times: 1,
        });
    }

    /// An order's outcome.
    pub fn outcome(&mut self, at: u64, slot: &str, outcome: &OutcomeView) {
        let version = outcome
            .version
            .as_ref()
            .map(|version| format!("{version} "));
        let because = outcome.why.as_ref().map(|why| format!(", because {why}"));
        let (version, because) = (version.unwrap_or_default(), because.unwrap_or_default());
        let text = format!("{version}{}{because}", outcome.what);
        self.note(at, Some(slot), text);
    }

    /// All of them, newest first.
    pub fn view(&self) -> Vec<EventView> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_repetitions_are_counted() {
        let mut events = Events::default();
        for n in 0..100 {
            events.note(n, Some("a"), format!("event {n}"));
        }
        for n in 100..200 {
            events.note(n, Some("a"), "its worker died".into());
        }
        let view = events.view();
        assert_eq!(view.len(), EVENTS_MAX);
        assert_eq!((view[0].at, view[0].times), (199, 100));
        assert_eq!((view[1].at, view[1].times), (99, 1));
        events.note(200, Some("b"), "its worker died".into());
        assert_eq!(events.view()[0].times, 1, "another slot's is another event");
        assert_eq!(Events::of(events.view()), events);
    }
}

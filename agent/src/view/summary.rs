//! The one sentence that comes first: is this device well, and if not, why?

use bellwether_protocol::ClockState;
use serde::Serialize;

use super::words::{ago, short, span};
use super::{DeviceView, OutcomeView, ReadingsView, SlotView};

/// A device that has not heard its server for so long is told apart; shorter gaps are everyday.
const SILENCE_SECS: u64 = 3_600;

/// A broker of readings that is away for so long is missed; the machine that it is on may have been
/// started anew.
const DEAF_SECS: u64 = 120;

/// The one sentence, and how bad it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How bad it is.
    pub mood: Mood,
    /// The sentence, with its full stop.
    pub sentence: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mood {
    /// Nothing to do.
    Well,
    /// It serves, and somebody should look at something.
    Look,
    /// It does not serve as it should.
    NotServing,
}

impl DeviceView {
    /// The one sentence: the worst thing first.
    pub fn summary(&self, now: u64) -> Summary {
        let silent: Vec<&SlotView> = self.silent().collect();
        if let [first, others @ ..] = silent.as_slice() {
            let sentence = not_serving(first, others, now);
            return summary(Mood::NotServing, sentence);
        }
        if self.slots.iter().all(SlotView::is_own) {
            let sentence = self.waiting(now);
            return summary(Mood::Look, sentence);
        }
        match self.doubt(now) {
            Some(doubt) => summary(Mood::Look, doubt),
            None => summary(Mood::Well, "Well".into()),
        }
    }

    fn silent(&self) -> impl Iterator<Item = &SlotView> {
        self.slots.iter().filter(|slot| slot.reason.is_some())
    }

    /// No slot was ever assigned.
    fn waiting(&self, now: u64) -> String {
        let heard = match (self.connected, self.last_contact) {
            (true, _) => "connected to the server".to_owned(),
            (false, Some(at)) => format!("the server was last heard {}", ago(now, at)),
            (false, None) => "the server was never heard".to_owned(),
        };
        let but = self.trouble.as_ref().map(|trouble| format!("; {trouble}"));
        let but = but.unwrap_or_default();
        format!("Waiting for a first release; {heard}{but}")
    }

    /// What is not as it should be though every slot serves.
    fn doubt(&self, now: u64) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(format!("Serving, but: {}", trouble.trim_end_matches('.')));
        }
        let clock = self.health.as_ref().map(|health| health.clock);
        if matches!(clock, Some(ClockState::Behind | ClockState::Ahead)) {
            return Some("Serving, but this device's clock is wrong".to_owned());
        }
        let failed = |slot: &SlotView| {
            let outcome = slot.outcome.as_ref().filter(|outcome| outcome.failed)?;
            Some(format!("Well, but {}", outcome.told(&slot.slot, now)))
        };
        if let Some(failed) = self.slots.iter().find_map(failed) {
            return Some(failed);
        }
        let deaf = |readings: &&ReadingsView| {
            !readings.connected && now.saturating_sub(readings.since) >= DEAF_SECS
        };
        if let Some(deaf) = self.readings.iter().find(deaf) {
            let (broker, gap) = (&deaf.broker, span(now.saturating_sub(deaf.since)));
            let which = &deaf.slot;
            return Some(format!(
                "Well, but {broker}, where readings for {which} come from, was not reached for {gap}"
            ));
        }
        if !self.connected {
            let heard = self.last_contact.unwrap_or(0);
            let gap = now.saturating_sub(heard);
            return (gap >= SILENCE_SECS).then(|| match self.last_contact {
                Some(_) => format!("Well, but the server was not heard for {}", span(gap)),
                None => "Well, but the server was never heard".to_owned(),
            });
        }
        let trial = |slot: &SlotView| {
            let model = slot
                .model
                .as_ref()
                .filter(|_| slot.phase.starts_with("trial"))?;
            let since = slot
                .since
                .map(|since| format!(" since {}", span(now.saturating_sub(since))));
            let (name, since) = (&slot.slot, since.unwrap_or_default());
            Some(format!("Well; {model} is on trial in {name}{since}"))
        };
        self.slots.iter().find_map(trial)
    }
}

fn not_serving(first: &SlotView, others: &[&SlotView], now: u64) -> String {
    let others: Vec<&str> = others.iter().map(|slot| slot.slot.as_str()).collect();
    let others = match others.as_slice() {
        [] => String::new(),
        names => format!("; nor {}", names.join(", ")),
    };
    let name = &first.slot;
    // What became of an order is a better reason than the state that it left, if it left this one.
    let ended = first
        .outcome
        .as_ref()
        .filter(|outcome| outcome.silenced && first.serving.is_none());
    let why = match (ended, &first.reason) {
        (Some(outcome), _) => outcome.told(name, now),
        (None, Some(reason)) => match first.since {
            Some(since) => format!("{reason} (since {})", span(now.saturating_sub(since))),
            None => reason.clone(),
        },
        (None, None) => "nobody knows why".to_owned(),
    };
    format!("Not serving {name}: {why}{others}")
}

impl OutcomeView {
    /// `release tiny 1.4.0 was rolled back 12 minutes ago, because …`
    fn told(&self, slot: &str, now: u64) -> String {
        let release = match (&self.version, &self.release) {
            (Some(version), _) => format!("release {version}"),
            (None, Some(id)) => format!("release {}", short(id)),
            (None, None) => slot.to_owned(),
        };
        let when = ago(now, self.at);
        let because = self.why.as_ref().map(|why| format!(", because {why}"));
        format!(
            "{release} {} {when}{}",
            self.what,
            because.unwrap_or_default()
        )
    }
}

fn summary(mood: Mood, sentence: String) -> Summary {
    let sentence = sentence.trim_end_matches('.');
    Summary {
        mood,
        sentence: format!("{sentence}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(name: &str) -> SlotView {
        SlotView {
            slot: name.into(),
            phase: "serving".into(),
            serving: Some("ab".repeat(32)),
            model: Some("tiny 1.3.0".into()),
            since: Some(400),
            ..SlotView::default()
        }
    }

    fn device(slots: Vec<SlotView>) -> DeviceView {
        DeviceView {
            connected: true,
            last_contact: Some(990),
            slots,
            ..DeviceView::default()
        }
    }

    fn rolled_back(silenced: bool) -> Option<OutcomeView> {
        Some(OutcomeView {
            at: 280,
            version: Some("tiny 1.4.0".into()),
            what: "was rolled back".into(),
            why: Some("4 of 9 rows failed".into()),
            failed: true,
            silenced,
            ..OutcomeView::default()
        })
    }

    #[test]
    fn a_device_without_faults_is_well() {
        let summary = device(vec![serving("anomaly")]).summary(1_000);
        assert_eq!(
            (summary.mood, summary.sentence.as_str()),
            (Mood::Well, "Well.")
        );
    }

    #[test]
    fn a_silent_slot_comes_first_with_what_silenced_it() {
        let silent = SlotView {
            serving: None,
            reason: Some("no release has passed its trial here".into()),
            outcome: rolled_back(true),
            ..serving("anomaly")
        };
        let mut view = device(vec![serving("other"), silent.clone()]);
        view.trouble = Some("the disk is full".into());
        let summary = view.summary(1_000);
        assert_eq!(summary.mood, Mood::NotServing);
        assert_eq!(
            summary.sentence,
            "Not serving anomaly: release tiny 1.4.0 was rolled back 12 minutes ago, because 4 of 9 \
             rows failed."
        );
        let also = SlotView {
            slot: "wear".into(),
            reason: Some("it is outside its hours".into()),
            outcome: None,
            ..silent
        };
        let sentence = device(vec![also, view.slots.remove(1)])
            .summary(1_000)
            .sentence;
        assert_eq!(
            sentence,
            "Not serving wear: it is outside its hours (since 10 minutes); nor anomaly."
        );
    }

    #[test]
    fn what_is_amiss_while_all_serves_is_told_the_worst_first() {
        let slot = SlotView {
            outcome: rolled_back(false),
            ..serving("anomaly")
        };
        let mut view = device(vec![slot]);
        view.connected = false;
        let sentence = |view: &DeviceView| view.summary(8_000).sentence;
        assert_eq!(
            sentence(&view),
            "Well, but release tiny 1.4.0 was rolled back 2 hours ago, because 4 of 9 rows failed."
        );
        view.trouble = Some("the disk is full.".into());
        assert_eq!(sentence(&view), "Serving, but: the disk is full.");
        view.trouble = None;
        view.slots[0].outcome = None;
        view.slots[0].phase = "trial".into();
        assert_eq!(
            sentence(&view),
            "Well, but the server was not heard for 116 minutes."
        );
        view.connected = true;
        assert_eq!(
            sentence(&view),
            "Well; tiny 1.3.0 is on trial in anomaly since 2 hours."
        );
    }

    #[test]
    fn a_new_device_waits_and_says_whether_it_hears_its_server() {
        let mut view = device(Vec::new());
        let sentence = |view: &DeviceView| view.summary(1_000).sentence;
        assert_eq!(
            sentence(&view),
            "Waiting for a first release; connected to the server."
        );
        (view.connected, view.last_contact) = (false, None);
        assert_eq!(
            sentence(&view),
            "Waiting for a first release; the server was never heard."
        );
    }
}

//! What answers in each slot, and since when.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bellwether_package::sections::Inactive;
use bellwether_package::{SlotName, UnixSecs};

use super::Serving;
use crate::clock;

/// What answers in each slot.
#[derive(Debug, Default)]
pub struct Slots {
    entries: RwLock<BTreeMap<SlotName, Entry>>,
    /// Whether the device's clock is known to be wrong.
    clock_wrong: AtomicBool,
}

/// What answers in a slot.
#[derive(Debug, Clone)]
pub enum Answering {
    /// A release.
    With(Arc<Serving>),
    /// Nothing.
    Nothing(Silence),
}

/// Why a slot answers with nothing, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Why, as a sentence.
    pub why: String,
    /// Since when.
    pub since: UnixSecs,
}

#[derive(Debug)]
struct Entry {
    answering: Answering,
    since: UnixSecs,
    /// What an earlier run of the agent left there, and since when.
    before: Option<(String, UnixSecs)>,
}

impl Slots {
    /// What answers in `slot`; `None` if the device has no such slot. A release that its
    /// activation policy does not let run now is silent, and goes on by itself when it may.
    pub fn answering(&self, slot: &SlotName) -> Option<Answering> {
        let entries = self.entries();
        let entry = entries.get(slot)?;
        Some(match self.held_back(entry) {
            Some(silence) => Answering::Nothing(silence),
            None => entry.answering.clone(),
        })
    }

    /// Tells whether the device's clock is known to be wrong: then no release runs whose
    /// activation policy has hours.
    pub fn clock_is_wrong(&self, wrong: bool) {
        self.clock_wrong.store(wrong, Ordering::Relaxed);
    }

    /// The device's slots.
    pub fn names(&self) -> Vec<SlotName> {
        self.entries().keys().cloned().collect()
    }

    /// Whether any slot has a release that answers.
    pub fn any_serves(&self) -> bool {
        let serves = |entry: &Entry| {
            matches!(entry.answering, Answering::With(_)) && self.held_back(entry).is_none()
        };
        self.entries().values().any(serves)
    }

    /// Why `slot` answers with nothing.
    pub fn silence(&self, slot: &SlotName) -> Option<Silence> {
        match self.answering(slot) {
            Some(Answering::Nothing(silence)) => Some(silence),
            _ => None,
        }
    }

    /// Since when what is there has been there.
    pub fn since(&self, slot: &SlotName) -> Option<UnixSecs> {
        let silence = self.silence(slot).map(|silence| silence.since);
        silence.or_else(|| self.entries().get(slot).map(|entry| entry.since))
    }

    /// `serving` answers in `slot` from now on.
    pub fn serve(&self, slot: &SlotName, serving: Arc<Serving>) {
        let key = serving.release().to_string();
        self.set(slot, &key, |_| Answering::With(serving));
    }

    /// `slot` answers with nothing from now on, because of `why`.
    pub fn silent(&self, slot: &SlotName, why: &str) {
        let nothing = |since| {
            let why = why.to_owned();
            Answering::Nothing(Silence { why, since })
        };
        self.set(slot, why, nothing);
    }

    /// `slot` waits for what an earlier run of the agent left there: a release or a reason, and
    /// since when. If that comes again, it has not begun anew.
    pub fn resume(&self, slot: &SlotName, before: Option<(String, UnixSecs)>) {
        self.silent(slot, "its release is being opened");
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(slot) {
            entry.before = before;
        }
    }

    fn set(&self, slot: &SlotName, key: &str, answering: impl FnOnce(UnixSecs) -> Answering) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let before = entries.remove(slot);
        let since = before.as_ref().and_then(|entry| entry.known(key));
        let since = since.unwrap_or_else(clock::now);
        let entry = Entry {
            answering: answering(since),
            since,
            before: None,
        };
        entries.insert(slot.clone(), entry);
    }

    fn entries(&self) -> RwLockReadGuard<'_, BTreeMap<SlotName, Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the activation policy of what is there does not let it run now, and since when.
    fn held_back(&self, entry: &Entry) -> Option<Silence> {
        let Answering::With(serving) = &entry.answering else {
            return None;
        };
        let now = clock::now();
        let known = !self.clock_wrong.load(Ordering::Relaxed);
        let inactive = serving.inactive(known.then_some(now))?;
        let began = match &inactive {
            Inactive::OutOfHours { since, .. } => *since,
            _ => None,
        };
        Some(Silence {
            why: inactive.to_string(),
            since: began.unwrap_or(UnixSecs(0)).max(entry.since),
        })
    }
}

impl Entry {
    /// Since when `key`, a release or a reason, has been there.
    fn known(&self, key: &str) -> Option<UnixSecs> {
        let same = match &self.answering {
            Answering::With(serving) => serving.release().to_string() == key,
            Answering::Nothing(silence) => silence.why == key,
        };
        let before = self.before.as_ref().filter(|(before, _)| before == key);
        same.then_some(self.since)
            .or(before.map(|(_, since)| *since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_keeps_its_beginning_over_a_restart_and_another_one_does_not() {
        let (slots, slot) = (Slots::default(), SlotName::new("a").unwrap());
        let since = |why: &str| {
            slots.silent(&slot, why);
            slots.silence(&slot).unwrap().since
        };
        slots.resume(&slot, Some(("in repair".into(), UnixSecs(7))));
        assert_eq!(since("in repair"), UnixSecs(7));
        assert_eq!(since("in repair"), UnixSecs(7));
        assert!(since("revoked") > UnixSecs(7));
        assert!(since("in repair") > UnixSecs(7));
    }
}

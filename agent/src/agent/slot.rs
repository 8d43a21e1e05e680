//! One slot as the owner holds it: the machine's state, its sessions, what waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_package::{PackageId, SlotName};
use bellwether_protocol::{Status, WorkerDeath};
use bellwether_rollout::device::{Event, Look, State, Traffic, Work};

use crate::serving::{OpenError, Serving};
use crate::store::{Store, StoreError};
use crate::view::OutcomeView;

/// Format of the stored state; another one is not read, apart from the one before it.
const VERSION: u8 = 3;
/// The format before that, which ends one field earlier: the limit of answers that are not finite.
const VERSION_UNWATCHED: u8 = 2;
/// Folder of the states in the state folder.
const FOLDER: &str = "slots";

/// Events that wait for the disk.
const RETRIES_MAX: usize = 8;
/// First pause before a session that could not be opened is tried again; it doubles.
const REOPEN_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const REOPEN_MAX: Duration = Duration::from_secs(60);

/// One slot.
pub(super) struct Slot {
    pub(super) state: State,
    /// What became of the last order, for people.
    pub(super) outcome: Option<OutcomeView>,
    /// What shall answer, if anything.
    pub(super) wanted: Option<Wanted>,
    /// Whether a job opens a session for this slot.
    pub(super) opening: bool,
    /// When a session that could not be opened is tried again.
    pub(super) reopen_at: Option<Instant>,
    /// Attempts to open it so far.
    pub(super) reopened: u32,
    /// What answers.
    pub(super) current: Option<Arc<Serving>>,
    /// Ready, and answering nobody: during a trial the good release, before it the candidate.
    pub(super) standby: Option<Arc<Serving>>,
    /// What answered before and still has counts or requests.
    pub(super) retiring: Vec<Arc<Serving>>,
    /// Events whose state the disk did not take.
    pub(super) retries: VecDeque<Event>,
    pub(super) retry_at: Option<Instant>,
    /// The status that was reported last.
    pub(super) told: Option<Status>,
}

/// What shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) answers: Wants,
    /// Whether that is a candidate.
    pub(super) trial: bool,
    /// What runs on the same inputs.
    pub(super) beside: Option<Wants>,
}

/// One session that shall be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) release: PackageId,
    pub(super) also_baseline: Option<PackageId>,
}

impl Wants {
    pub(super) fn is(self, session: Option<&Arc<Serving>>) -> bool {
        session.is_some_and(|session| {
            (session.release(), session.also_baseline()) == (self.release, self.also_baseline)
        })
    }
}

/// A session was opened, or not.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) slot: SlotName,
    pub(super) wants: Wants,
    pub(super) result: Result<Arc<Serving>, OpenError>,
}

impl Slot {
    pub(super) fn new(state: State, outcome: Option<OutcomeView>) -> Self {
        Self {
            state,
            outcome,
            wanted: None,
            opening: false,
            reopen_at: None,
            reopened: 0,
            current: None,
            standby: None,
            retiring: Vec::new(),
            retries: VecDeque::new(),
            retry_at: None,
            told: None,
        }
    }

    /// Keeps an event for when the disk takes states again. What was only seen gives way to what was
    /// ordered or done, which comes once.
    pub(super) fn retry_later(&mut self, event: Event) {
        if self.retries.len() >= RETRIES_MAX {
            let seen = |event: &Event| {
                matches!(
                    event,
                    Event::Traffic { .. } | Event::Looked { .. } | Event::WorkerDied { .. }
                )
            };
            let least = self.retries.iter().position(seen).unwrap_or(0);
            self.retries.remove(least);
        }
        self.retries.push_back(event);
    }

    /// Tries again to open the session after a pause that doubles each time.
    pub(super) fn reopen_later(&mut self) {
        let pause = REOPEN_MIN
            .saturating_mul(1 << self.reopened.min(6))
            .min(REOPEN_MAX);
        self.reopened += 1;
        self.reopen_at = Some(Instant::now() + pause);
    }

    /// What requests have shown since the last call, of each release that is watched.
    pub(super) fn watched(&self) -> Vec<(PackageId, Traffic, Vec<WorkerDeath>)> {
        let mut seen = Vec::new();
        let mut take = |session: &Arc<Serving>, told: bool| {
            let (traffic, deaths) = session.take_watched();
            if told {
                seen.push((session.release(), traffic, deaths));
            }
        };
        self.current.iter().for_each(|current| take(current, true));
        // The good release beside a candidate is not on trial: what it shows there is forgotten.
        let candidate = self.wanted.is_some_and(|wanted| !wanted.trial);
        self.standby
            .iter()
            .for_each(|beside| take(beside, candidate));
        seen
    }

    /// What the counts of a candidate on trial say, if its order has them watched.
    pub(super) fn look(&self) -> Option<(PackageId, Look)> {
        let Work::Trial { order, .. } = self.state.work() else {
            return None;
        };
        let current = self.current.as_ref()?;
        let look = current.look(&order.trial.drift?)?;
        Some((current.release(), look))
    }

    /// Model and version of a release, if a session of it is open.
    pub(super) fn version(&self, release: PackageId) -> Option<String> {
        let mut sessions = self.sessions();
        let serving = sessions.find(|serving| serving.release() == release)?;
        Some(format!("{} {}", serving.model(), serving.version()))
    }

    /// Every session of the slot that may hold counts.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &Arc<Serving>> {
        self.retiring
            .iter()
            .chain(&self.standby)
            .chain(&self.current)
    }
}

/// The name of a slot's state in the state folder.
pub(super) fn file(name: &SlotName) -> String {
    format!("{FOLDER}/{name}")
}

/// The slots that have a state on disk.
pub(super) fn stored(store: &Store) -> Result<Vec<SlotName>, StoreError> {
    let folder = store.path(FOLDER);
    let io = |error| StoreError::io("read", &folder, error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let name = name.to_string_lossy();
        // A slot's name has no dot: beside it lie only its previous copy and what a crash left.
        let stem = name.split('.').next().unwrap_or_default();
        if let Ok(name) = SlotName::new(stem)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// What is stored of a slot cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the state of slot {slot} is damaged, or of other software")]
pub struct UnreadableSlot {
    slot: SlotName,
}

/// The stored state of every slot, for whoever only looks.
///
/// # Errors
///
/// [`UnreadableSlot`] names the first that cannot be read.
pub(crate) fn stored_states(store: &Store) -> Result<Vec<State>, UnreadableSlot> {
    let names = stored(store).unwrap_or_default();
    let read = |name: SlotName| load(store, &name).ok_or(UnreadableSlot { slot: name });
    names.into_iter().map(read).collect()
}

pub(super) fn save(store: &Store, state: &State) -> Result<(), StoreError> {
    let encoded = postcard::to_stdvec(state).expect("a slot's state has only plain fields");
    let mut bytes = vec![VERSION];
    bytes.extend(encoded);
    store.put(&file(state.slot()), &bytes)
}

/// The state of a slot; `None` when it is damaged, or of other software.
pub(super) fn load(store: &Store, name: &SlotName) -> Option<State> {
    let bytes = store
        .load(&file(name))
        .inspect_err(|error| tracing::error!(slot = %name, %error, "cannot load"))
        .ok()??;
    let (version, encoded) = bytes.split_first()?;
    let mut encoded = encoded.to_vec();
    match *version {
        VERSION => {}
        // The field is an option, and this is the encoding of none.
        VERSION_UNWATCHED => encoded.push(0),
        _ => return None,
    }
    let state: State = postcard::from_bytes(&encoded).ok()?;
    (state.slot() == name).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_the_format_before_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let name = SlotName::new("pump").unwrap();
        let state = State::new(name.clone());
        let mut bytes = vec![VERSION_UNWATCHED];
        bytes.extend(postcard::to_stdvec(&state).unwrap());
        bytes.pop();
        store.put(&file(&name), &bytes).unwrap();
        assert_eq!(load(&store, &name), Some(state.clone()));
        save(&store, &state).unwrap();
        assert_eq!(load(&store, &name), Some(state));
        store.put(&file(&name), &[VERSION + 1, 0]).unwrap();
        assert_eq!(load(&store, &name), None);
    }
}

//! The device's clock, how far it can be trusted, and the time that it cannot be before.
//!
//! A device without a battery for its clock starts in 1970, and a set one may be a year off. So
//! the agent keeps a floor on disk: the latest time at which something was signed that it has
//! verified. Its own time is the clock's, but never before the floor. What the server says the
//! time is serves to tell how far the clock is off, and to no decision about a release: a stolen
//! server could say anything.
//!
//! A process has one clock, so this is the one place of the agent with state of its own.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bellwether_package::UnixSecs;
use bellwether_protocol::ClockState;
use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError};

/// The file in the state folder.
const FILE: &str = "clock";
/// A document signed a little in the future is no proof of a wrong clock: clocks differ.
const SKEW_SECS: u64 = 120;
/// What one document may raise the floor by: a device that lay on a shelf for a year is at the
/// present after one, and a thief with the director's key does not reach the root's end with one.
const STEP_SECS_MAX: u64 = 400 * 24 * 3600;
/// The floor is written when it rose by so much: flash wears.
const KEEP_SECS: u64 = 3600;

/// The time that it cannot be before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Floor {
    at: UnixSecs,
    /// Version of the trust root under which it was raised; a newer one starts anew.
    root_version: u32,
}

impl Floor {
    /// The floor after something was verified that was signed at `signed_at`, under a root of
    /// `root_version` that expires at `root_expires`.
    fn raised(self, signed_at: UnixSecs, root_version: u32, root_expires: UnixSecs) -> Self {
        let before = if root_version > self.root_version {
            Self::default()
        } else {
            self
        };
        let within_root = signed_at.0.min(root_expires.0.saturating_sub(1));
        let within_step = if before.at.0 == 0 {
            within_root
        } else {
            within_root.min(before.at.0.saturating_add(STEP_SECS_MAX))
        };
        Self {
            at: UnixSecs(before.at.0.max(within_step)),
            root_version: before.root_version.max(root_version),
        }
    }
}

/// What the process knows of the time.
#[derive(Debug, Clone, Copy)]
struct Known {
    floor: Floor,
    /// When the floor was taken: time has gone on since.
    taken: Instant,
    /// What is on disk.
    kept: Floor,
    /// By how much the server's clock is ahead of the device's, in seconds.
    offset_secs: Option<i64>,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

fn known<T>(look: impl FnOnce(&mut Known) -> T) -> T {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    look(known.get_or_insert_with(|| Known {
        floor: Floor::default(),
        taken: Instant::now(),
        kept: Floor::default(),
        offset_secs: None,
    }))
}

/// The time: what the clock says, but never before the floor.
pub fn now() -> UnixSecs {
    by_system().max(floor())
}

/// The time as well as it is known: the server's, if it told it. For renewals and reports, never
/// for what may run here.
pub fn likely() -> UnixSecs {
    match offset_secs() {
        Some(secs) => UnixSecs(by_system().0.saturating_add_signed(secs)),
        None => now(),
    }
}

/// The time that it cannot be before.
pub fn floor() -> UnixSecs {
    known(|known| {
        let floor = known.floor.at;
        if floor.0 == 0 {
            floor
        } else {
            floor.plus_secs(known.taken.elapsed().as_secs())
        }
    })
}

/// By how much the server's clock is ahead of the device's, in seconds, if it ever told.
pub fn offset_secs() -> Option<i64> {
    known(|known| known.offset_secs)
}

/// What the clock says; 0 if it says a time before 1970.
fn by_system() -> UnixSecs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSecs(since.map_or(0, |since| since.as_secs()))
}

/// Takes the floor that an earlier run kept. One that cannot be read is as good as none.
pub fn load(store: &Store) {
    let kept = match store.load(FILE) {
        Ok(bytes) => bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok()),
        Err(error) => {
            tracing::warn!(%error, "the time floor is lost");
            None
        }
    };
    let kept: Floor = kept.unwrap_or_default();
    known(|known| {
        known.floor = kept;
        known.kept = kept;
        known.taken = Instant::now();
    });
}

/// Raises the floor: something was verified that was signed at `signed_at`, under the root of
/// `root_version` that expires at `root_expires`.
///
/// # Errors
///
/// When it cannot be kept; it holds for this run all the same.
pub fn raise(
    store: &Store,
    signed_at: UnixSecs,
    root_version: u32,
    root_expires: UnixSecs,
) -> Result<(), StoreError> {
    let (floor, kept) = known(|known| {
        let now = Floor {
            at: match known.floor.at.0 {
                0 => UnixSecs(0),
                _ => known.floor.at.plus_secs(known.taken.elapsed().as_secs()),
            },
            ..known.floor
        };
        known.floor = now.raised(signed_at, root_version, root_expires);
        known.taken = Instant::now();
        (known.floor, known.kept)
    });
    let worth_it = floor.root_version != kept.root_version
        || floor.at.0.saturating_sub(kept.at.0) >= KEEP_SECS;
    if worth_it {
        let bytes = postcard::to_stdvec(&floor).expect("two numbers");
        store.put(FILE, &bytes)?;
        known(|known| known.kept = floor);
    }
    Ok(())
}

/// The server told its time; the answer took `took` to come.
pub fn told(server: UnixSecs, took: Duration) {
    let server = server.plus_secs(took.as_secs() / 2);
    let ahead = i128::from(server.0) - i128::from(by_system().0);
    known(|known| known.offset_secs = i64::try_from(ahead).ok());
}

/// How far the clock can be trusted, under a root that expires at `root_expires`.
pub fn state(root_expires: UnixSecs) -> ClockState {
    judge(by_system(), floor(), root_expires, offset_secs())
}

fn judge(
    now: UnixSecs,
    floor: UnixSecs,
    root_expires: UnixSecs,
    offset_secs: Option<i64>,
) -> ClockState {
    if now.0.saturating_add(SKEW_SECS) < floor.0 {
        return ClockState::Behind;
    }
    match offset_secs {
        Some(secs) if secs > SKEW_SECS as i64 => ClockState::Behind,
        Some(secs) if secs < -(SKEW_SECS as i64) => ClockState::Ahead,
        _ if now >= root_expires => ClockState::Ahead,
        _ => ClockState::Plausible,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT_EXPIRES: UnixSecs = UnixSecs(2_000_000_000);

    fn floor(at: u64) -> Floor {
        Floor {
            at: UnixSecs(at),
            root_version: 3,
        }
    }

    #[test]
    fn a_clock_behind_a_signed_document_or_past_its_root_is_told() {
        let state = |now| judge(UnixSecs(now), UnixSecs(10_000), UnixSecs(90_000), None);
        assert_eq!(state(0), ClockState::Behind);
        assert_eq!(state(9_990), ClockState::Plausible);
        assert_eq!(state(90_000), ClockState::Ahead);
    }

    #[test]
    fn a_clock_that_differs_from_the_servers_is_told() {
        let year = 365 * 24 * 3600;
        let state = |ahead| judge(UnixSecs(50_000), UnixSecs(0), UnixSecs(90_000), Some(ahead));
        assert_eq!(state(year), ClockState::Behind);
        assert_eq!(state(-year), ClockState::Ahead);
        assert_eq!(state(60), ClockState::Plausible);
        assert_eq!(state(-60), ClockState::Plausible);
    }

    #[test]
    fn the_floor_rises_never_falls_and_stays_below_the_roots_end() {
        let first = Floor::default().raised(UnixSecs(1_700_000_000), 3, ROOT_EXPIRES);
        assert_eq!(first, floor(1_700_000_000));
        let older = first.raised(UnixSecs(1_600_000_000), 3, ROOT_EXPIRES);
        assert_eq!(older, first);
        let newer = first.raised(UnixSecs(1_700_000_100), 3, ROOT_EXPIRES);
        assert_eq!(newer, floor(1_700_000_100));
        let last = floor(1_990_000_000).raised(UnixSecs(u64::MAX), 3, ROOT_EXPIRES);
        assert_eq!(last, floor(1_999_999_999));
    }

    #[test]
    fn one_document_raises_the_floor_by_a_bounded_step() {
        let far = floor(1_700_000_000).raised(UnixSecs(1_900_000_000), 3, ROOT_EXPIRES);
        assert_eq!(far, floor(1_700_000_000 + STEP_SECS_MAX));
    }

    #[test]
    fn a_new_root_may_lower_the_floor_and_an_old_one_may_not() {
        let next = floor(1_900_000_000).raised(UnixSecs(1_700_000_000), 4, ROOT_EXPIRES);
        assert_eq!((next.at, next.root_version), (UnixSecs(1_700_000_000), 4));
        let old = next.raised(UnixSecs(1_600_000_000), 3, ROOT_EXPIRES);
        assert_eq!(old, next);
    }

    #[test]
    fn the_floor_outlives_the_process_and_time_goes_on_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        // Far below the present, so that other tests of this process see their own clock.
        raise(&store, UnixSecs(1_000_000), 1, ROOT_EXPIRES).unwrap();
        load(&store);
        assert!(super::floor() >= UnixSecs(1_000_000));
        assert!(super::floor() < UnixSecs(1_000_600));
        assert!(now() > UnixSecs(1_700_000_000));
    }
}

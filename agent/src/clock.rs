//! The device's clock, and how far it can be trusted.

use std::time::SystemTime;

use bellwether_package::UnixSecs;
use bellwether_protocol::ClockState;

/// A document signed a little in the future is no proof of a wrong clock: clocks differ.
const SKEW_SECS: u64 = 120;

/// What the clock says; 0 if it says a time before 1970.
pub fn now() -> UnixSecs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSecs(since.map_or(0, |since| since.as_secs()))
}

/// How far `now` can be trusted: `signed` is the latest time at which a verified document was
/// signed, `root_expires` the end of the trust root in force.
pub fn state(now: UnixSecs, signed: UnixSecs, root_expires: UnixSecs) -> ClockState {
    if now.0.saturating_add(SKEW_SECS) < signed.0 {
        ClockState::Behind
    } else if now >= root_expires {
        ClockState::Ahead
    } else {
        ClockState::Plausible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_behind_a_signed_document_or_past_its_root_is_told() {
        let state = |now| state(UnixSecs(now), UnixSecs(10_000), UnixSecs(90_000));
        assert_eq!(state(0), ClockState::Behind);
        assert_eq!(state(9_990), ClockState::Plausible);
        assert_eq!(state(90_000), ClockState::Ahead);
    }
}

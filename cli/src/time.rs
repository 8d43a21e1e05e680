//! The wall clock, read once per command, and times as people read them (UTC).

use std::time::{SystemTime, UNIX_EPOCH};

use bellwether_package::UnixSecs;
pub(crate) use bellwether_package::civil::DAY_SECS;

use crate::failure::{Failure, Result, Who};

/// Now.
///
/// # Errors
/// When this machine's clock stands before 1970.
pub(crate) fn now() -> Result<UnixSecs> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|elapsed| UnixSecs(elapsed.as_secs()))
        .map_err(|error| {
            Failure::new(Who::Machine, "this machine's clock stands before 1970")
                .next("set the clock: approvals and expiries depend on it")
                .because(error)
        })
}

/// `2026-11-23`.
pub(crate) fn date(secs: u64) -> String {
    UnixSecs(secs).civil().date().to_string()
}

/// `2026-11-23 20:05:00Z`.
pub(crate) fn stamp(secs: u64) -> String {
    UnixSecs(secs).civil().to_string()
}

//! The one place that reads the clock; decisions get the time as an argument.

use std::time::SystemTime;

use bellwether_package::UnixSecs;

/// Seconds since 1970 UTC by this machine's clock; 0 if it stands before that.
pub(crate) fn now() -> UnixSecs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSecs(since.map_or(0, |since| since.as_secs()))
}

//! The wall clock, read once per command, and times as people read them (UTC).

use std::time::{SystemTime, UNIX_EPOCH};

use bellwether_package::UnixSecs;

use crate::failure::{Failure, Result, Who};

/// Seconds of a day.
pub(crate) const DAY_SECS: u64 = 86_400;

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
    let (year, month, day) = civil(secs / DAY_SECS);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-23 20:05:00Z`.
pub(crate) fn stamp(secs: u64) -> String {
    let rest = secs % DAY_SECS;
    format!(
        "{} {:02}:{:02}:{:02}Z",
        date(secs),
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Year, month and day of a day since 1970-01-01, after Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil(days: u64) -> (u64, u64, u64) {
    // Far beyond any expiry; keeps the sums below from overflowing.
    let shifted = days.min(3_000_000_000) + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_calendar_has_them() {
        assert_eq!(stamp(0), "1970-01-01 00:00:00Z");
        assert_eq!(stamp(951_782_400), "2000-02-29 00:00:00Z");
        assert_eq!(stamp(1_795_465_103), "2026-11-23 20:18:23Z");
        assert_eq!(date(4_102_444_799), "2099-12-31");
        let _ = date(u64::MAX);
    }
}

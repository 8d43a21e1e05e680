//! Times as people read them: the calendar, in UTC.

use core::fmt;

use crate::ids::UnixSecs;

/// Seconds of a day.
pub const DAY_SECS: u64 = 86_400;

/// A time as the calendar has it. It is shown as `2026-11-23 20:18:23Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// The year.
    pub year: u64,
    /// The month, from 1.
    pub month: u64,
    /// The day of the month, from 1.
    pub day: u64,
    /// Seconds since midnight.
    pub second_of_day: u64,
}

impl UnixSecs {
    /// This time in the calendar, after Howard Hinnant's `civil_from_days`
    /// (<https://howardhinnant.github.io/date_algorithms.html>).
    pub fn civil(self) -> Civil {
        // Far beyond any expiry; keeps the sums below from overflowing.
        let shifted = (self.0 / DAY_SECS).min(3_000_000_000) + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        Civil {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            second_of_day: self.0 % DAY_SECS,
        }
    }
}

impl Civil {
    /// The date alone: `2026-11-23`.
    pub fn date(self) -> impl fmt::Display {
        fmt::from_fn(move |f| write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day))
    }

    /// The time of day to the minute: `20:18`.
    pub fn minute(self) -> impl fmt::Display {
        let minute = self.second_of_day / 60;
        fmt::from_fn(move |f| write!(f, "{:02}:{:02}", minute / 60, minute % 60))
    }
}

impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = self.second_of_day % 60;
        write!(f, "{} {}:{second:02}Z", self.date(), self.minute())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn times_are_read_as_the_calendar_has_them() {
        let stamp = |secs| UnixSecs(secs).civil().to_string();
        assert_eq!(stamp(0), "1970-01-01 00:00:00Z");
        assert_eq!(stamp(951_782_400), "2000-02-29 00:00:00Z");
        assert_eq!(stamp(1_795_465_103), "2026-11-23 20:18:23Z");
        let last = UnixSecs(4_102_444_799).civil();
        assert_eq!(last.date().to_string(), "2099-12-31");
        assert_eq!(last.minute().to_string(), "23:59");
        let _ = stamp(u64::MAX);
    }
}

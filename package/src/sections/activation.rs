//! Where and when a model may run, as those who approved it have signed.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::ACTIVATION_RULES_MAX;
use crate::bounded;
use crate::civil::DAY_SECS;
use crate::ids::{Attribute, Selector, UnixSecs};

/// Days and minutes, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hours {
    /// Bit 0 is Monday, bit 6 Sunday.
    pub days: u8,
    /// First minute of the day, 0 to 1439.
    pub from_minute: u16,
    /// First minute that is no longer meant, 1 to 1440, greater than `from_minute`.
    pub until_minute: u16,
}

impl Hours {
    /// Whether day `day` since 1970-01-01 is one of these.
    fn on(&self, day: u64) -> bool {
        // 1970-01-01 was a Thursday, day 3 when Monday is day 0.
        self.days >> ((day + 3) % 7) & 1 == 1
    }

    /// Whether `now` is one of these minutes.
    pub fn contain(&self, now: UnixSecs) -> bool {
        let minute = (now.0 % DAY_SECS / 60) as u16;
        self.on(now.0 / DAY_SECS) && self.from_minute <= minute && minute < self.until_minute
    }

    /// The end of these hours that `now` saw last.
    fn ended(&self, now: UnixSecs) -> Option<UnixSecs> {
        let today = now.0 / DAY_SECS;
        let days = (0..=7).filter_map(|back| today.checked_sub(back));
        let end = |day| UnixSecs(day * DAY_SECS).plus_secs(u64::from(self.until_minute) * 60);
        days.filter(|day| self.on(*day))
            .map(end)
            .find(|end| *end <= now)
    }

    /// When these hours begin next.
    fn begins(&self, now: UnixSecs) -> Option<UnixSecs> {
        let today = now.0 / DAY_SECS;
        let days = (0..=7).filter_map(|ahead| today.checked_add(ahead));
        let start = |day: u64| {
            let secs = day.checked_mul(DAY_SECS)?;
            secs.checked_add(u64::from(self.from_minute) * 60)
        };
        days.filter(|day| self.on(*day))
            .filter_map(start)
            .map(UnixSecs)
            .find(|start| *start > now)
    }
}

/// Where and when the model may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Devices on which it may run; empty: all.
    #[serde(deserialize_with = "bounded::list::<_, _, ACTIVATION_RULES_MAX>")]
    pub regions: Vec<Selector>,
    /// Devices on which it must not run, whatever `regions` says.
    #[serde(deserialize_with = "bounded::list::<_, _, ACTIVATION_RULES_MAX>")]
    pub excluded: Vec<Selector>,
    /// When it may run; empty: always.
    #[serde(deserialize_with = "bounded::list::<_, _, ACTIVATION_RULES_MAX>")]
    pub hours: Vec<Hours>,
}

impl Activation {
    /// Whether the model may run on a device with these attributes at this time, and why not.
    /// Without a clock a policy with hours says no.
    ///
    /// # Errors
    ///
    /// [`Inactive`], the first thing found.
    pub fn allows(&self, attributes: &[Attribute], now: Option<UnixSecs>) -> Result<(), Inactive> {
        let matches = |selector: &&Selector| selector.matches(attributes);
        if let Some(excluded) = self.excluded.iter().find(matches) {
            return Err(Inactive::Excluded(Box::new(excluded.clone())));
        }
        if !self.regions.is_empty() && !self.regions.iter().any(|one| matches(&one)) {
            return Err(Inactive::Elsewhere);
        }
        if self.hours.is_empty() {
            return Ok(());
        }
        let now = now.ok_or(Inactive::NoClock)?;
        if self.hours.iter().any(|hours| hours.contain(now)) {
            return Ok(());
        }
        Err(Inactive::OutOfHours {
            since: self.hours.iter().filter_map(|one| one.ended(now)).max(),
            until: self.hours.iter().filter_map(|one| one.begins(now)).min(),
        })
    }
}

/// Why a model may not run here and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inactive {
    /// It must not run on devices with these attributes, and this is one.
    Excluded(Box<Selector>),
    /// It may run on certain devices only, and this is none of them.
    Elsewhere,
    /// It is none of its hours.
    OutOfHours {
        /// When the last of them ended.
        since: Option<UnixSecs>,
        /// When the next of them begin.
        until: Option<UnixSecs>,
    },
    /// It has hours, and nobody knows the time.
    NoClock,
}

impl fmt::Display for Inactive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded(selector) => {
                write!(f, "its activation policy excludes devices with {selector}")
            }
            Self::Elsewhere => {
                f.write_str("its activation policy is for devices with other attributes")
            }
            Self::OutOfHours { until, .. } => {
                f.write_str("it is outside the hours of its activation policy")?;
                match until {
                    Some(until) => write!(f, "; they begin at {}", until.civil()),
                    None => Ok(()),
                }
            }
            Self::NoClock => f.write_str(
                "its activation policy has hours, and this device's clock cannot be trusted",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;
    use std::vec;

    use super::*;

    const WEDNESDAY: u64 = 1_795_564_800;

    fn at(days: u64, hour: u64, minute: u64) -> UnixSecs {
        UnixSecs(WEDNESDAY + days * DAY_SECS + hour * 3600 + minute * 60)
    }

    /// Monday to Friday from 6:00 to 18:00, Saturday from 6:00 to 12:00.
    fn working_hours() -> Activation {
        let hours = |days, until: u16| Hours {
            days,
            from_minute: 6 * 60,
            until_minute: until * 60,
        };
        Activation {
            hours: vec![hours(0b0001_1111, 18), hours(0b0010_0000, 12)],
            ..Activation::default()
        }
    }

    #[test]
    fn outside_its_hours_a_model_is_told_since_when_and_until_when() {
        assert_eq!(at(0, 0, 0).civil().to_string(), "2026-11-25 00:00:00Z");
        let policy = working_hours();
        let allows = |now| policy.allows(&[], Some(now));
        let out = |since, until| {
            Err(Inactive::OutOfHours {
                since: Some(since),
                until: Some(until),
            })
        };
        assert_eq!(
            allows(at(0, 5, 59)),
            out(UnixSecs(at(0, 0, 0).0 - 6 * 3600), at(0, 6, 0))
        );
        assert_eq!(allows(at(0, 6, 0)), Ok(()));
        assert_eq!(allows(at(0, 17, 59)), Ok(()));
        assert_eq!(allows(at(0, 18, 0)), out(at(0, 18, 0), at(1, 6, 0)));
        let (saturday, monday) = (3, 5);
        assert_eq!(allows(at(saturday, 11, 0)), Ok(()));
        let weekend = out(at(saturday, 12, 0), at(monday, 6, 0));
        assert_eq!(allows(at(saturday, 12, 0)), weekend);
        assert_eq!(allows(at(saturday + 1, 23, 0)), weekend);
        let told = weekend.unwrap_err().to_string();
        assert!(
            told.ends_with("they begin at 2026-11-30 06:00:00Z"),
            "{told}"
        );
        assert_eq!(policy.allows(&[], None), Err(Inactive::NoClock));
    }

    #[test]
    fn hours_at_either_end_of_time_overflow_nothing() {
        let policy = working_hours();
        for now in [0, 1, u64::MAX - 1, u64::MAX] {
            let _ = policy.allows(&[], Some(UnixSecs(now)));
        }
    }

    #[test]
    fn a_device_must_be_among_the_regions_and_not_among_the_excluded() {
        let selector = |text| Selector::new(text).unwrap();
        let device = |site| {
            let (class, site) = (
                Attribute::new("class", "pump"),
                Attribute::new("site", site),
            );
            [class.unwrap(), site.unwrap()]
        };
        let policy = Activation {
            regions: vec![selector("site=lyon"), selector("site=bonn,class=pump")],
            excluded: vec![selector("class=fan"), selector("site=bonn")],
            hours: Vec::new(),
        };
        assert_eq!(policy.allows(&device("lyon"), None), Ok(()));
        let excluded = Inactive::Excluded(Box::new(selector("site=bonn")));
        assert!(excluded.to_string().contains("site=bonn"));
        assert_eq!(policy.allows(&device("bonn"), None), Err(excluded));
        assert_eq!(
            policy.allows(&device("oslo"), None),
            Err(Inactive::Elsewhere)
        );
        assert_eq!(Activation::default().allows(&[], None), Ok(()));
    }
}

//! How long to wait before a dead worker is replaced.

use std::time::{Duration, Instant};

/// The wait after a second death in a row. The first is replaced at once: one bad input must not
/// cost the readings after it.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest wait, so that a device recovers within a minute of whatever ailed it.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Successful runs in a row after which earlier deaths are forgotten.
pub const RUNS_TO_FORGET: u32 = 16;

/// Capped exponential backoff over deaths that no healthy spell separates.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    deaths: u32,
    runs: u32,
    ready_at: Option<Instant>,
}

impl Backoff {
    /// A worker died at `now`, or could not be started.
    pub fn died(&mut self, now: Instant) {
        self.deaths = self.deaths.saturating_add(1);
        self.runs = 0;
        self.ready_at = Some(now + wait_after(self.deaths));
    }

    /// A run ended well.
    pub fn succeeded(&mut self) {
        self.runs = self.runs.saturating_add(1);
        if self.runs >= RUNS_TO_FORGET {
            self.deaths = 0;
        }
    }

    /// How long until a new worker may start; `None` if it may now.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.ready_at?.checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }

    /// Deaths without a healthy spell between them.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }
}

fn wait_after(deaths: u32) -> Duration {
    match deaths {
        0 | 1 => Duration::ZERO,
        // 2^10 times the first wait is already beyond the cap.
        n => (BACKOFF_FIRST * (1 << (n - 2).min(10))).min(BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let waits: Vec<_> = (0..14).map(wait_after).collect();
        assert_eq!(waits[1], Duration::ZERO);
        assert_eq!(waits[2], BACKOFF_FIRST);
        assert_eq!(waits[3], BACKOFF_FIRST * 2);
        assert_eq!(waits[13], BACKOFF_MAX);
        assert_eq!(wait_after(u32::MAX), BACKOFF_MAX);
        assert!(waits.is_sorted());
    }

    #[test]
    fn a_healthy_spell_forgets_deaths_and_one_success_does_not() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.died(now);
        backoff.succeeded();
        backoff.died(now);
        assert_eq!(backoff.wait(now), Some(BACKOFF_FIRST));
        assert_eq!(backoff.wait(now + BACKOFF_FIRST), None);
        (0..RUNS_TO_FORGET).for_each(|_| backoff.succeeded());
        backoff.died(now);
        assert_eq!(backoff.wait(now), None);
    }
}

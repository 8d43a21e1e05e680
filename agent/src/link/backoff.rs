//! How long the link waits before it tries again.

use std::time::Duration;

/// Pauses are drawn from ranges that double up to this. A fleet that lost its server for days
/// still returns within minutes.
const RANGE_MAX: Duration = Duration::from_secs(600);

/// Pauses between attempts to connect, with full jitter: each is drawn evenly from zero to a
/// range, and the range doubles with each attempt that failed. A fleet that lost its server at one
/// instant returns spread over the first range, not in waves.
#[derive(Debug)]
pub struct Backoff {
    spread: Duration,
    range_max: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses whose first range is `spread`.
    pub fn new(spread: Duration) -> Self {
        Self {
            spread,
            range_max: RANGE_MAX,
            failures: 0,
        }
    }

    /// The same with another last range.
    pub fn up_to(self, range_max: Duration) -> Self {
        Self { range_max, ..self }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        self.range().mul_f64(drawn())
    }

    /// The connection held: the next range is the first again.
    pub fn steady(&mut self) {
        self.failures = 0;
    }

    fn range(&mut self) -> Duration {
        let doubled = self.spread.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.range_max.max(self.spread))
    }
}

/// Between half of `pause` and all of it: for work that a fleet shall not do in one instant.
pub fn jittered(pause: Duration) -> Duration {
    pause / 2 + (pause / 2).mul_f64(drawn())
}

/// A number drawn evenly from zero to one. Without random numbers the middle: it delays, and
/// harms nothing.
fn drawn() -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Duration = Duration::from_secs(60);

    /// Devices of a fleet that lost its server at one instant.
    const FLEET: usize = 12_000;
    /// Stretches of five seconds that sixty seconds have.
    const STRETCHES: usize = 12;

    fn returns(attempt: usize) -> Vec<Duration> {
        (0..FLEET)
            .map(|_| {
                let mut backoff = Backoff::new(SPREAD);
                (0..attempt).for_each(|_| {
                    backoff.pause();
                });
                backoff.pause()
            })
            .collect()
    }

    #[test]
    fn a_fleet_returns_spread_evenly_over_a_minute() {
        let returns = returns(0);
        let mut stretches = [0_usize; STRETCHES];
        for at in &returns {
            assert!(*at <= SPREAD, "{at:?}");
            let stretch = at.as_secs() as usize * STRETCHES / 60;
            stretches[stretch.min(STRETCHES - 1)] += 1;
        }
        // A thousand are expected in each; 200 are more than six standard deviations.
        for (stretch, count) in stretches.iter().enumerate() {
            assert!((800..=1200).contains(count), "{stretch}: {count}");
        }
    }

    #[test]
    fn ranges_double_up_to_ten_minutes_and_start_anew_once_a_connection_held() {
        let mut backoff = Backoff::new(SPREAD);
        let ranges: Vec<u64> = (0..6).map(|_| backoff.range().as_secs()).collect();
        assert_eq!(ranges, [60, 120, 240, 480, 600, 600]);
        (0..100).for_each(|_| {
            assert!(backoff.pause() <= RANGE_MAX);
        });
        backoff.steady();
        assert_eq!(backoff.range(), SPREAD);
    }

    #[test]
    fn the_second_attempt_of_a_fleet_is_spread_over_two_minutes() {
        let returns = returns(1);
        let mean = returns.iter().sum::<Duration>() / FLEET as u32;
        assert!((57..=63).contains(&mean.as_secs()), "{mean:?}");
        assert!(returns.iter().any(|at| *at > Duration::from_secs(110)));
    }

    #[test]
    fn jitter_never_makes_a_pause_longer_than_asked() {
        let pauses: Vec<_> = (0..64).map(|_| jittered(SPREAD)).collect();
        assert!(pauses.iter().all(|it| *it >= SPREAD / 2 && *it <= SPREAD));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}

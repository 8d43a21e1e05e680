//! How long a parent looks for an answer before it sleeps.
//!
//! A process that sleeps on an idle core is woken in 5 to 70 µs, which is longer than a small model
//! runs. So the parent looks for the answer itself around the time at which the last one came. What
//! that costs is bounded: a quarter of a millisecond, and an eighth of the model's own time.

use std::time::Duration;

/// How much earlier than the last answer a parent begins to look, and how much later it gives up:
/// as long as it takes to be woken by a timer, and a little.
const EARLY: Duration = Duration::from_micros(200);
/// The share of the last answer's time by which the next one may differ: a sixteenth.
const SPREAD: u32 = 16;
/// To models that run longer than this, being woken is nothing.
const USUAL_MAX: Duration = Duration::from_millis(5);

/// When the next answer is expected.
#[derive(Debug)]
pub(super) struct Patience {
    /// Whether there is a core left for the worker while the parent looks.
    cores: bool,
    last: Option<Duration>,
}

/// When to look, counted from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) from: Duration,
    pub(super) until: Duration,
}

impl Patience {
    pub(super) fn new(busy_wait: bool) -> Self {
        let cores = std::thread::available_parallelism();
        Self {
            cores: busy_wait && cores.is_ok_and(|cores| cores.get() > 1),
            last: None,
        }
    }

    /// When to look for the next answer; `None`: sleep until it comes.
    pub(super) fn look(&self) -> Option<Look> {
        let last = self.last.filter(|last| self.cores && *last <= USUAL_MAX)?;
        let early = EARLY + last / SPREAD;
        Some(Look {
            from: last.saturating_sub(early),
            until: last + early,
        })
    }

    /// An answer took so long.
    pub(super) fn answered(&mut self, took: Duration) {
        self.last = Some(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(last: Duration) -> Option<Look> {
        let mut patience = Patience {
            cores: true,
            last: None,
        };
        assert_eq!(patience.look(), None, "nothing is known yet");
        patience.answered(last);
        patience.look()
    }

    #[test]
    fn what_looking_costs_is_bounded() {
        for us in [1, 50, 300, 1_000, 4_900] {
            let last = Duration::from_micros(us);
            let look = after(last).unwrap();
            assert!(look.from <= last && last < look.until, "{us} µs");
            // Beyond the model's own time, should the next answer take as long.
            assert!(last - look.from <= EARLY + last / SPREAD, "{us} µs");
        }
        assert_eq!(after(Duration::from_secs(1)), None);
    }

    #[test]
    fn nobody_looks_without_a_core_to_spare() {
        let mut patience = Patience::new(false);
        patience.answered(Duration::from_micros(1));
        assert_eq!(patience.look(), None);
    }
}

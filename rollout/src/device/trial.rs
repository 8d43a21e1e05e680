//! The trial: the candidate answers, watched.

use serde::{Deserialize, Serialize};

use bellwether_package::ids::{PackageId, UnixSecs};
use bellwether_protocol::{OutcomeKind, TrialFailure, TrialLimits, WorkerDeath};

use super::{Action, Step, Traffic, Work};

/// Longest stretch that one look at the clock adds to a trial, in seconds. A clock that jumps, or
/// a device that slept, does not shorten the watch.
pub const TICK_SECS_MAX: u64 = 60;
/// Rows before a 99th percentile says more than the longest answer does.
pub const LATENCY_ROWS_MIN: u32 = 100;

/// What was seen of a candidate since its trial started. Not stored at each row: after a boot the
/// trial starts anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Seconds watched.
    pub secs: u64,
    /// When the clock was last looked at.
    pub seen_at: UnixSecs,
    /// Rows asked.
    pub rows: u32,
    /// Rows that failed.
    pub rows_failed: u32,
    /// Rows whose answers hold NaN or infinity.
    pub rows_nonfinite: u32,
    /// Times that the worker died.
    pub deaths: u32,
    /// How it died last.
    pub death_last: Option<WorkerDeath>,
    /// 99th percentile of latency, in microseconds.
    pub latency_us_p99: Option<u32>,
    /// Starts of the device during the trial.
    pub boots: u32,
    /// Over its planned time, with too few rows to commit.
    pub held: bool,
}

impl Trial {
    pub(super) fn new(now: UnixSecs) -> Self {
        Self {
            secs: 0,
            seen_at: now,
            rows: 0,
            rows_failed: 0,
            rows_nonfinite: 0,
            deaths: 0,
            death_last: None,
            latency_us_p99: None,
            boots: 0,
            held: false,
        }
    }

    fn advance(&mut self, now: UnixSecs) {
        self.secs += now.secs_since(self.seen_at).min(TICK_SECS_MAX);
        self.seen_at = now;
    }

    fn add(&mut self, traffic: &Traffic) {
        self.rows = self.rows.saturating_add(traffic.rows);
        self.rows_failed = self.rows_failed.saturating_add(traffic.rows_failed);
        self.rows_nonfinite = self.rows_nonfinite.saturating_add(traffic.rows_nonfinite);
        self.latency_us_p99 = traffic.latency_us_p99.or(self.latency_us_p99);
    }

    /// What ends the trial on the spot, if anything does.
    fn failure(&self, limits: &TrialLimits) -> Option<TrialFailure> {
        let rows = self.rows;
        if self.exceeds(self.rows_nonfinite, limits.nonfinite_share_max_ppm, limits) {
            let (rows_nonfinite, share_max_ppm) =
                (self.rows_nonfinite, limits.nonfinite_share_max_ppm);
            return Some(TrialFailure::Nonfinite {
                rows_nonfinite,
                rows,
                share_max_ppm,
            });
        }
        if self.exceeds(self.rows_failed, limits.error_share_max_ppm, limits) {
            let (rows_failed, share_max_ppm) = (self.rows_failed, limits.error_share_max_ppm);
            return Some(TrialFailure::Errors {
                rows_failed,
                rows,
                share_max_ppm,
            });
        }
        if let Some(last) = self.death_last
            && self.deaths > limits.worker_deaths_max
        {
            let (deaths, deaths_max) = (self.deaths, limits.worker_deaths_max);
            return Some(TrialFailure::WorkerDeaths {
                deaths,
                deaths_max,
                last,
            });
        }
        let (us_p99, us_p99_max) = (self.latency_us_p99?, limits.latency_us_p99_max?);
        (rows >= LATENCY_ROWS_MIN && us_p99 > us_p99_max)
            .then_some(TrialFailure::Latency { us_p99, us_p99_max })
    }

    /// Whether so many bad rows are too many even if all further rows, up to the least number that
    /// a trial needs, turn out well. Otherwise the first bad row would be a share of one.
    fn exceeds(&self, bad: u32, share_max_ppm: u32, limits: &TrialLimits) -> bool {
        let rows = u64::from(self.rows.max(limits.rows_min));
        u64::from(bad) * 1_000_000 > u64::from(share_max_ppm) * rows
    }

    fn passed(&self, limits: &TrialLimits) -> bool {
        self.secs >= u64::from(limits.secs_min) && self.rows >= limits.rows_min.max(1)
    }
}

impl Step {
    pub(super) fn tick(&mut self) {
        self.watch(None, |_| ());
    }

    pub(super) fn traffic(&mut self, release: &PackageId, traffic: &Traffic) {
        self.watch(Some(release), |trial| trial.add(traffic));
    }

    pub(super) fn worker_died(&mut self, release: &PackageId, how: WorkerDeath) {
        if self.is_on_trial(release) {
            self.watch(Some(release), |trial| {
                trial.deaths = trial.deaths.saturating_add(1);
                trial.death_last = Some(how);
            });
        } else {
            self.good_worker_died(release, how);
        }
    }

    pub(super) fn is_on_trial(&self, release: &PackageId) -> bool {
        matches!(&self.state.work, Work::Trial { order, .. } if order.release == *release)
    }

    pub(super) fn serve_candidate(&mut self) {
        if let Work::Trial { order, .. } = &self.state.work {
            let (release, also_baseline) = (order.release, order.also_baseline);
            self.act(Action::Serve {
                release,
                also_baseline,
                trial: true,
            });
        }
    }

    /// Adds to what is known of the candidate on trial and judges it.
    fn watch(&mut self, release: Option<&PackageId>, see: impl FnOnce(&mut Trial)) {
        let now = self.now;
        let Work::Trial { order, trial } = &mut self.state.work else {
            return;
        };
        if release.is_some_and(|release| *release != order.release) {
            return;
        }
        trial.advance(now);
        see(trial);
        if let Some(why) = trial.failure(&order.trial) {
            self.fail(OutcomeKind::RolledBackItself(why));
        } else if trial.passed(&order.trial) {
            let order = order.clone();
            self.commit(order);
        } else {
            trial.held = trial.secs >= u64::from(order.trial.secs_max);
        }
    }
}

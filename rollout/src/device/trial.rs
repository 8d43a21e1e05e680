//! The candidate watched: beside what serves, then answering itself.
//!
//! Errors, non-finite answers, dead workers, latency, memory and answers that disagree with the
//! other release's end it on the spot. Outputs that moved are judged by the other release where it
//! runs on the same inputs: it says whether the inputs would have moved them anyway. Where it does
//! not, they end the trial only while the inputs are known not to have moved; otherwise nobody can
//! tell here who is to blame, and the trial is held and told.

use serde::{Deserialize, Serialize};

use bellwether_package::ids::{PackageId, UnixSecs};
use bellwether_protocol::{OutcomeKind, ProofFailure, TrialFailure, TrialLimits, WorkerDeath};

use super::{Action, Budget, Drift, Order, Shadow, Step, Traffic, Work};

/// Longest stretch that one look at the clock adds to a trial, in seconds. A clock that jumps, or
/// a device that slept, does not shorten the watch.
pub const TICK_SECS_MAX: u64 = 60;
/// Rows before a 99th percentile says more than the longest answer does.
pub const LATENCY_ROWS_MIN: u32 = 100;

/// What was seen of a candidate since it began to answer, or to run beside what serves. Not stored
/// at each row: after a boot both start anew.
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
    /// The most memory that its worker held, in bytes.
    pub memory_bytes_peak: Option<u64>,
    /// Rows compared with the other release's answers.
    pub rows_compared: u32,
    /// Of these, rows that disagree.
    pub rows_disagreeing: u32,
    /// What the package promises of itself.
    pub budget: Budget,
    /// What the counts last said.
    pub look: Option<Look>,
    /// Starts of the device during it.
    pub boots: u32,
    /// Why it goes on though its time is over, or does not commit.
    pub held: Option<Held>,
}

/// What the counts of a candidate on trial say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Of its raw inputs, against its own baseline.
    pub inputs: Drift,
    /// Of its outputs, against its own baseline.
    pub outputs: Drift,
}

/// Why a trial is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// Over its planned time, with too few rows to commit.
    Rows,
    /// Its outputs moved, and nothing tells whether the inputs or the release are the cause.
    Drift,
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
            memory_bytes_peak: None,
            rows_compared: 0,
            rows_disagreeing: 0,
            budget: Budget::default(),
            look: None,
            boots: 0,
            held: None,
        }
    }

    fn advance(&mut self, now: UnixSecs) {
        self.secs += now.secs_since(self.seen_at).min(TICK_SECS_MAX);
        self.seen_at = now;
    }

    fn add(&mut self, traffic: &Traffic) {
        let add = |sum: &mut u32, rows| *sum = sum.saturating_add(rows);
        add(&mut self.rows, traffic.rows);
        add(&mut self.rows_failed, traffic.rows_failed);
        add(&mut self.rows_nonfinite, traffic.rows_nonfinite);
        add(&mut self.rows_compared, traffic.rows_compared);
        add(&mut self.rows_disagreeing, traffic.rows_disagreeing);
        self.latency_us_p99 = traffic.latency_us_p99.or(self.latency_us_p99);
        self.memory_bytes_peak = traffic.memory_bytes_peak.max(self.memory_bytes_peak);
        self.budget = traffic.budget;
    }

    /// What ends it on the spot, if anything does.
    fn failure(&self, limits: &TrialLimits) -> Option<TrialFailure> {
        self.bad_answers(limits)
            .or_else(|| self.worker_deaths(limits))
            .or_else(|| self.over_budget(limits))
            .or_else(|| self.disagreement(limits))
    }

    fn bad_answers(&self, limits: &TrialLimits) -> Option<TrialFailure> {
        let rows = self.rows;
        let (nonfinite, failed) = (self.rows_nonfinite, self.rows_failed);
        let share_max_ppm = limits.nonfinite_share_max_ppm;
        if exceeds(nonfinite, rows, share_max_ppm, limits.rows_min) {
            return Some(TrialFailure::Nonfinite {
                rows_nonfinite: nonfinite,
                rows,
                share_max_ppm,
            });
        }
        let share_max_ppm = limits.error_share_max_ppm;
        exceeds(failed, rows, share_max_ppm, limits.rows_min).then_some(TrialFailure::Errors {
            rows_failed: failed,
            rows,
            share_max_ppm,
        })
    }

    fn worker_deaths(&self, limits: &TrialLimits) -> Option<TrialFailure> {
        let last = self.death_last?;
        let (deaths, deaths_max) = (self.deaths, limits.worker_deaths_max);
        (deaths > deaths_max).then_some(TrialFailure::WorkerDeaths {
            deaths,
            deaths_max,
            last,
        })
    }

    /// The order's limit of latency goes before the package's own promise; memory has only that.
    fn over_budget(&self, limits: &TrialLimits) -> Option<TrialFailure> {
        let latency = self
            .latency_us_p99
            .zip(limits.latency_us_p99_max.or(self.budget.latency_us_p99))
            .filter(|(us_p99, us_p99_max)| self.rows >= LATENCY_ROWS_MIN && us_p99 > us_p99_max)
            .map(|(us_p99, us_p99_max)| TrialFailure::Latency { us_p99, us_p99_max });
        let memory = self
            .memory_bytes_peak
            .zip(self.budget.memory_bytes)
            .filter(|(bytes, bytes_max)| bytes > bytes_max)
            .map(|(bytes, bytes_max)| TrialFailure::Memory { bytes, bytes_max });
        latency.or(memory)
    }

    fn disagreement(&self, limits: &TrialLimits) -> Option<TrialFailure> {
        let shadow = limits.shadow?;
        let (rows_disagreeing, rows) = (self.rows_disagreeing, self.rows_compared);
        let share_max_ppm = shadow.disagree_share_max_ppm;
        exceeds(rows_disagreeing, rows, share_max_ppm, shadow.rows_min).then_some(
            TrialFailure::Disagrees {
                rows_disagreeing,
                rows,
                share_max_ppm,
            },
        )
    }

    /// Whether enough rows agree with the other release's on the same inputs. Then outputs that
    /// moved moved with the inputs. Ask after [`Trial::failure`].
    fn agrees(&self, limits: &TrialLimits) -> bool {
        let enough = |rows_min: u32| self.rows_compared >= rows_min.max(1);
        limits.shadow.is_some_and(|shadow| enough(shadow.rows_min))
    }

    /// What outputs that moved mean.
    fn moved_outputs(&self, limits: &TrialLimits) -> Result<Option<Held>, TrialFailure> {
        let Some(Look {
            inputs,
            outputs: Drift::Moved(moved),
        }) = self.look.filter(|_| !self.agrees(limits))
        else {
            return Ok(None);
        };
        if inputs != Drift::Still {
            return Ok(Some(Held::Drift));
        }
        Err(TrialFailure::OutputDrift {
            field: moved.field,
            psi_milli: moved.psi_milli,
            outside_rise_ppm: moved.outside_rise_ppm,
            values: moved.values,
        })
    }

    fn passed_trial(&self, limits: &TrialLimits, rows_min: u32) -> bool {
        self.secs >= u64::from(limits.secs_min) && self.rows >= rows_min.max(1)
    }

    fn passed_shadowing(&self, limits: &TrialLimits) -> bool {
        limits.shadow.is_none_or(|shadow| {
            self.secs >= u64::from(shadow.secs_min) && self.rows >= shadow.rows_min.max(1)
        })
    }
}

/// Whether so many bad rows are too many even if all further rows, up to the least number needed,
/// turn out well. Otherwise the first bad row would be a share of one.
fn exceeds(bad: u32, rows: u32, share_max_ppm: u32, rows_min: u32) -> bool {
    let rows = u64::from(rows.max(rows_min));
    u64::from(bad) * 1_000_000 > u64::from(share_max_ppm) * rows
}

impl Step {
    pub(super) fn tick(&mut self) {
        self.watch(None, |_| ());
    }

    pub(super) fn traffic(&mut self, release: &PackageId, traffic: &Traffic) {
        self.good_answered(release, traffic);
        self.watch(Some(release), |trial| trial.add(traffic));
    }

    pub(super) fn looked(&mut self, release: &PackageId, look: Look) {
        self.watch(Some(release), |trial| trial.look = Some(look));
    }

    pub(super) fn worker_died(&mut self, release: &PackageId, how: WorkerDeath) {
        let candidate = self.state.work.order().map(|order| order.release);
        if self.state.work.runs_candidate() && candidate == Some(*release) {
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
            let good = self.state.good.as_ref().map(|good| Shadow {
                release: good.release,
                also_baseline: good.also_baseline,
            });
            let shadow = good.filter(|_| order.trial.shadow.is_some());
            self.act(Action::Serve {
                release,
                also_baseline,
                trial: true,
                shadow,
            });
        }
    }

    /// Adds to what is known of the candidate and judges it.
    fn watch(&mut self, release: Option<&PackageId>, see: impl FnOnce(&mut Trial)) {
        let now = self.now;
        let (Work::Trial { order, trial } | Work::Shadowing { order, trial }) =
            &mut self.state.work
        else {
            return;
        };
        if release.is_some_and(|release| *release != order.release) {
            return;
        }
        trial.advance(now);
        see(trial);
        let (order, trial) = (order.clone(), trial.clone());
        if matches!(self.state.work, Work::Shadowing { .. }) {
            self.judge_shadow(order, &trial);
        } else {
            self.judge_trial(order, &trial);
        }
    }

    fn judge_shadow(&mut self, order: Order, trial: &Trial) {
        if let Some(why) = trial.failure(&order.trial) {
            let why = ProofFailure::Shadowed(why);
            self.fail(OutcomeKind::FailedBeforeServing(why));
        } else if trial.passed_shadowing(&order.trial) || self.state.good.is_none() {
            // Without a good release nothing is left to compare with.
            self.start_trial(order);
        }
    }

    fn judge_trial(&mut self, order: Order, trial: &Trial) {
        if let Some(why) = trial.failure(&order.trial) {
            return self.fail(OutcomeKind::RolledBackItself(why));
        }
        let held = match trial.moved_outputs(&order.trial) {
            Ok(held) => held,
            Err(why) => return self.fail(OutcomeKind::RolledBackItself(why)),
        };
        // One report that reached the server is as good as a hundred.
        let own = self.state.slot.is_agent();
        let rows_min = if own { 1 } else { order.trial.rows_min };
        if held.is_none() && trial.passed_trial(&order.trial, rows_min) {
            return self.commit(order);
        }
        let late = trial.secs >= u64::from(order.trial.secs_max);
        if late && own && trial.rows == 0 {
            // Programs that cannot be told anything any more must not stay.
            let secs = order.trial.secs_max;
            let why = TrialFailure::ServerNotReached { secs };
            return self.fail(OutcomeKind::RolledBackItself(why));
        }
        if let Work::Trial { trial, .. } = &mut self.state.work {
            trial.held = held.or(late.then_some(Held::Rows));
        }
    }
}

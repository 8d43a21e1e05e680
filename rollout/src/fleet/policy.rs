//! How a rollout may go, and whether its arms can reach its certainty at all.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use bellwether_protocol::TrialLimits;

use super::arms::p_least;

/// Stages of one rollout at most.
pub const STAGES_MAX: usize = 16;
/// Largest cohort that a least number of devices is looked for in.
pub const COHORT_MAX: u32 = 100_000;
/// Least share of a stage that must succeed, in parts per million: with less than half, silence
/// could advance a rollout.
pub const SUCCEEDED_SHARE_LEAST_PPM: u32 = 500_000;

/// Least alpha: the finest p-value that random choices of devices can still tell.
pub const ALPHA_LEAST: f64 = 0.0002;

/// How a rollout may go. Every number is stated; none has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// In order, each treating more devices than the one before.
    pub stages: Vec<Stage>,
    /// Devices that stay on the older release until the last soak ends.
    pub holdout: u32,
    /// What a stage must show before the next.
    pub gates: Gates,
    /// What counts as moved.
    pub limits: Limits,
    /// How sure a verdict must be.
    pub certainty: Certainty,
    /// What follows a verdict.
    pub responses: Responses,
    /// What a device watches by itself.
    pub trial: TrialLimits,
}

/// One stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// How many devices are treated in all once it is reached.
    pub treated: Treated,
    /// How long it lasts at least once enough of its devices have committed, in seconds.
    pub soak_secs: u64,
}

/// How many devices are treated in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Treated {
    /// That many, the holdout excepted.
    Devices(u32),
    /// That share of the cohort in parts per million, rounded up, the holdout excepted.
    SharePpm(u32),
    /// All but the holdout.
    AllButHoldout,
    /// All, the holdout included. Only as the last stage: nothing is left to compare with.
    All,
}

/// What a stage must show before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// Share of all treated devices that must have committed, in parts per million.
    pub succeeded_share_min_ppm: u32,
    /// Treated devices that may fail, over the whole rollout.
    pub failed_max: u32,
    /// Share of treated devices that may be silent, in parts per million.
    pub silent_share_max_ppm: u32,
    /// A device unheard of for that long, or without an outcome that long after its assignment, is
    /// silent. In seconds.
    pub silence_secs: u64,
    /// Windows that a device must have sent before its figures count.
    pub windows_min: u32,
    /// Rows that these windows must hold.
    pub rows_min: u64,
}

/// What counts as moved: effect sizes, not significance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Population stability index of a field, bias removed. Natural logarithm.
    pub psi_max: f64,
    /// Rise of the share of values of a field outside its baseline's bins (missing, NaN, infinite,
    /// foreign, or beyond the training range), 0 to 1.
    pub outside_rise_max: f64,
    /// Rise of the share of rows that fail over the control arm, 0 to 1; also for rows whose
    /// answers are not finite.
    pub error_rise_max: f64,
    /// 99th percentile of latency over the control arm's, as a ratio above 1.
    pub latency_ratio_max: f64,
}

/// How sure a verdict must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certainty {
    /// Greatest p-value at which arms are said to differ.
    pub alpha: f64,
    /// Devices that may lie without changing a verdict.
    pub liars: u32,
}

/// What follows a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Responses {
    /// The release is to blame: its outputs, errors or latency.
    pub release: Response,
    /// The release is to blame: trained on the wrong slice.
    pub baseline: Response,
    /// Too many devices refused it, failed it or went back.
    pub failed: Response,
}

/// What is done with the treated devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Order them back to the older release.
    RollBack,
    /// Leave them, and wait for a person.
    Pause,
    /// Order them to answer with nothing.
    Disable,
}

/// Why a policy cannot be used on a cohort. The operator can mend it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Inadmissible {
    /// A number that means nothing.
    #[error("policy: {0}")]
    Figure(&'static str),
    /// A stage that does not treat more devices than the one before, in this cohort.
    #[error(
        "policy: stage {stage} treats {treated} of {cohort} devices, not more than the stage \
         before{}", Least(*.devices_least)
    )]
    StageEmpty {
        /// Its number, from 1.
        stage: usize,
        /// Devices that it treats.
        treated: u32,
        /// Devices in the cohort.
        cohort: u32,
        /// The least cohort that would do, if any does.
        devices_least: Option<u32>,
    },
    /// An arm with no honest majority.
    #[error(
        "policy: stage {stage} has {treated} treated and {control} control devices, and each arm \
         needs {arm_least} so that {liars} may lie{}", Least(*.devices_least)
    )]
    ArmTooSmall {
        /// The stage's number, from 1.
        stage: usize,
        /// Devices treated.
        treated: u32,
        /// Devices left.
        control: u32,
        /// Devices that each arm needs.
        arm_least: u32,
        /// Devices that may lie.
        liars: u32,
        /// The least cohort that would do, if any does.
        devices_least: Option<u32>,
    },
    /// Arms too small ever to reach the certainty.
    #[error(
        "policy: stage {stage} treats {treated} of {cohort} devices, so no verdict can be surer \
         than p = {p_least:.4}, and the policy asks for {alpha}{}", Least(*.devices_least)
    )]
    Uncertain {
        /// The stage's number, from 1.
        stage: usize,
        /// Devices treated.
        treated: u32,
        /// Devices in the cohort.
        cohort: u32,
        /// The least p-value that these arms can show.
        p_least: f64,
        /// What the policy asks for.
        alpha: f64,
        /// The least cohort that would do, if any does.
        devices_least: Option<u32>,
    },
}

impl Policy {
    /// Whether this policy can be used on a cohort of so many devices that has an older release to
    /// compare with: each number means something, each stage treats more devices than the one
    /// before, an honest majority is left in each arm, and even with the liars that it allows the
    /// arms can show its certainty (see [`p_least`]).
    ///
    /// # Errors
    ///
    /// [`Inadmissible`], with the least number of devices that would do.
    pub fn admissible(&self, cohort: u32) -> Result<(), Inadmissible> {
        self.check_figures()?;
        let Err(mut why) = self.check_arms(cohort) else {
            return Ok(());
        };
        let found = (cohort + 1..=COHORT_MAX).find(|more| self.check_arms(*more).is_ok());
        match &mut why {
            Inadmissible::Figure(_) => {}
            Inadmissible::StageEmpty { devices_least, .. }
            | Inadmissible::ArmTooSmall { devices_least, .. }
            | Inadmissible::Uncertain { devices_least, .. } => *devices_least = found,
        }
        Err(why)
    }

    /// Whether this policy can be used on a cohort with no older release to compare with: each
    /// number means something, and the first stage treats a device; later ones need no more.
    ///
    /// # Errors
    ///
    /// [`Inadmissible`].
    pub fn admissible_uncompared(&self, cohort: u32) -> Result<(), Inadmissible> {
        self.check_figures()?;
        let starts = |devices| self.treated_in_all(0, devices).unwrap_or(0) > 0;
        if starts(cohort) {
            return Ok(());
        }
        Err(Inadmissible::StageEmpty {
            stage: 1,
            treated: 0,
            cohort,
            devices_least: (cohort + 1..=COHORT_MAX).find(|more| starts(*more)),
        })
    }

    /// Whether each number means something, whatever the cohort.
    ///
    /// # Errors
    ///
    /// [`Inadmissible::Figure`].
    pub fn check_figures(&self) -> Result<(), Inadmissible> {
        let refuse = |bad: bool, why| {
            if bad {
                Err(Inadmissible::Figure(why))
            } else {
                Ok(())
            }
        };
        let not_positive = |figure: f64| !(figure.is_finite() && figure > 0.0);
        let no_share = |figure: f64| !(figure > 0.0 && figure <= 1.0);
        let (gates, limits, certainty) = (&self.gates, &self.limits, &self.certainty);
        refuse(self.stages.is_empty(), "there is no stage")?;
        refuse(
            self.stages.len() > STAGES_MAX,
            "there are more than 16 stages",
        )?;
        let all = self
            .stages
            .iter()
            .position(|stage| stage.treated == Treated::All);
        refuse(
            all.is_some_and(|place| place + 1 < self.stages.len()),
            "only the last stage may treat all devices",
        )?;
        refuse(
            gates.succeeded_share_min_ppm < SUCCEEDED_SHARE_LEAST_PPM
                || gates.succeeded_share_min_ppm > 1_000_000,
            "succeeded_share_min_ppm must be 500000 to 1000000",
        )?;
        refuse(
            gates.silent_share_max_ppm >= 1_000_000,
            "silent_share_max_ppm must be below 1000000",
        )?;
        refuse(gates.silence_secs == 0, "silence_secs must not be 0")?;
        refuse(
            gates.windows_min == 0 || gates.rows_min == 0,
            "windows_min and rows_min must not be 0",
        )?;
        refuse(
            gates.failed_max < certainty.liars,
            "failed_max must be at least the liars",
        )?;
        refuse(not_positive(limits.psi_max), "psi_max must be above 0")?;
        refuse(
            no_share(limits.outside_rise_max),
            "outside_rise_max must be above 0, at most 1",
        )?;
        refuse(
            no_share(limits.error_rise_max),
            "error_rise_max must be above 0, at most 1",
        )?;
        refuse(
            not_positive(limits.latency_ratio_max - 1.0),
            "latency_ratio_max must be above 1",
        )?;
        refuse(
            !(certainty.alpha >= ALPHA_LEAST && certainty.alpha < 0.5),
            "alpha must be at least 0.0002 and below 0.5",
        )?;
        refuse(
            self.trial.secs_max < self.trial.secs_min,
            "a trial's secs_max must not be below its secs_min",
        )?;
        self.check_watch(refuse)
    }

    fn check_watch(
        &self,
        refuse: impl Fn(bool, &'static str) -> Result<(), Inadmissible>,
    ) -> Result<(), Inadmissible> {
        let (shadow, drift) = (self.trial.shadow, self.trial.drift);
        refuse(
            shadow.is_some_and(|it| it.rows_min == 0 || it.disagree_share_max_ppm > 1_000_000),
            "trial.shadow's rows_min must not be 0, its disagree_share_max_ppm at most 1000000",
        )?;
        refuse(
            drift.is_some_and(|it| it.rows_min == 0 || it.psi_max_milli == 0),
            "trial.drift's rows_min and psi_max_milli must not be 0",
        )
    }

    /// How many devices of a cohort are treated once this stage is reached; `None` if there is no
    /// such stage.
    pub fn treated_in_all(&self, stage: usize, cohort: u32) -> Option<u32> {
        let most = cohort.saturating_sub(self.holdout);
        Some(match self.stages.get(stage)?.treated {
            Treated::Devices(devices) => devices.min(most),
            Treated::SharePpm(share) => {
                let devices = (u64::from(share) * u64::from(cohort)).div_ceil(1_000_000);
                u32::try_from(devices).unwrap_or(u32::MAX).min(most)
            }
            Treated::AllButHoldout => most,
            Treated::All => cohort,
        })
    }

    fn check_arms(&self, cohort: u32) -> Result<(), Inadmissible> {
        let Certainty { alpha, liars } = self.certainty;
        let arm_least = liars.saturating_mul(2).saturating_add(1);
        let devices_least = None;
        let mut before = 0;
        for index in 0..self.stages.len() {
            let stage = index + 1;
            let treated = self.treated_in_all(index, cohort).unwrap_or(0);
            if treated <= before {
                return Err(Inadmissible::StageEmpty {
                    stage,
                    treated,
                    cohort,
                    devices_least,
                });
            }
            before = treated;
            if self.stages[index].treated == Treated::All {
                continue;
            }
            let control = cohort - treated;
            if treated.min(control) < arm_least {
                let why = Inadmissible::ArmTooSmall {
                    stage,
                    treated,
                    control,
                    arm_least,
                    liars,
                    devices_least,
                };
                return Err(why);
            }
            let p_least = p_least(cohort, treated, liars);
            if p_least > alpha * (1.0 + 1e-9) {
                let why = Inadmissible::Uncertain {
                    stage,
                    treated,
                    cohort,
                    p_least,
                    alpha,
                    devices_least,
                };
                return Err(why);
            }
        }
        Ok(())
    }
}

struct Least(Option<u32>);

impl core::fmt::Display for Least {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(devices) => write!(f, "; a cohort of {devices} devices would do"),
            None => write!(f, "; no cohort up to {COHORT_MAX} devices would do"),
        }
    }
}

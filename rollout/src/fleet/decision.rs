//! What to do, with the reasons and figures that decided it.
//!
//! A reason is at once the audit entry, the field of the API and the console's sentence: its
//! `Display` is one plain sentence without a full stop.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use bellwether_drift::Verdict;
use bellwether_protocol::DeviceId;

use super::snapshot::RolloutState;

/// What a rollout does next, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The generation that it was decided for; committing it under another one is refused.
    pub generation: u64,
    /// What to do.
    pub action: Action,
    /// What the figures say.
    pub verdict: Verdict,
    /// Whose doing it is, if something moved.
    pub attribution: Option<Attribution>,
    /// Why, most important first; never empty.
    pub reasons: Vec<Reason>,
    /// What people should be told, whatever the action is.
    pub notices: Vec<Notice>,
}

/// What to do. Repeating one that was carried out already is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Assign the new release to these devices and enter this stage.
    Advance {
        /// Index of the stage.
        stage: u8,
        /// Devices to treat in addition.
        devices: Vec<DeviceId>,
    },
    /// Nothing yet.
    Hold,
    /// Stop, and wait for a person.
    Pause,
    /// Order these devices back to the older release, and end the rollout.
    RollBack {
        /// All treated devices.
        devices: Vec<DeviceId>,
    },
    /// Order these devices to answer with nothing, and end the rollout.
    Disable {
        /// All treated devices.
        devices: Vec<DeviceId>,
    },
    /// Nothing but telling people the notices.
    Notify,
    /// The rollout is done.
    Complete,
}

/// Whose doing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// The world moved: both arms see it.
    World,
    /// The release was trained on the wrong slice.
    Baseline,
    /// The release answers worse.
    Release,
    /// A sensor of one device.
    Sensor,
    /// Not enough to tell.
    Unknown,
}

/// What is compared between arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Inputs against the baseline of the release that each device runs.
    InputsOwn,
    /// Inputs of all devices against the older release's baseline.
    InputsReference,
    /// Outputs against what the release that each device runs is expected to answer.
    Outputs,
    /// Share of rows that failed.
    Errors,
    /// Share of rows whose answers are NaN or infinite.
    Nonfinite,
    /// 99th percentile of latency, in microseconds.
    Latency,
}

/// The unit of a comparison's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Population stability index, bias removed.
    Psi,
    /// Rise of the share of values outside the baseline's bins: missing, NaN, infinite, foreign, or
    /// beyond the training range.
    OutsideRise,
    /// A share, 0 to 1.
    Share,
    /// Microseconds.
    Micros,
}

/// One arm's figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ArmFigure {
    /// Devices measured.
    pub devices: usize,
    /// Median over them.
    pub median: f64,
}

/// Treated against control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What is compared.
    pub metric: Metric,
    /// The release that the treated devices run.
    pub release: String,
    /// The field that moved most, for inputs and outputs.
    pub field: Option<String>,
    /// The unit of the medians.
    pub measure: Measure,
    /// The treated arm.
    pub treated: ArmFigure,
    /// The control arm.
    pub control: ArmFigure,
    /// P-value of the permutation test over devices; `None` where no arms are compared.
    pub p_value: Option<f64>,
}

/// One field's figure over a cohort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldFigure {
    /// The field.
    pub field: String,
    /// The unit.
    pub measure: Measure,
    /// The figure; over several devices the median.
    pub value: f64,
}

/// Why a decision was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The rollout is not running.
    NotRunning {
        /// What it is instead.
        state: RolloutState,
    },
    /// Snapshot and rollout were read at different times.
    SnapshotStale,
    /// The policy cannot be used on this cohort.
    Inadmissible {
        /// Why, and what would do.
        why: String,
    },
    /// The first stage begins.
    Starts {
        /// Devices drawn.
        devices: usize,
        /// Devices in the cohort.
        cohort: usize,
    },
    /// Too many treated devices refused or failed the release.
    Failed {
        /// Devices that did.
        devices: usize,
        /// Devices treated.
        treated: usize,
        /// Devices that may.
        failed_max: u32,
        /// One of them.
        example: DeviceId,
        /// What it told.
        told: String,
    },
    /// Only the treated arm moved, beyond its own expectation.
    ReleaseMoved(Comparison),
    /// Inputs are alike in both arms, but far from the new release's baseline.
    BaselineFar(Comparison),
    /// Inputs moved in both arms.
    WorldMoved {
        /// The medians, both arms against the older release's baseline.
        comparison: Comparison,
        /// Whether the new release's baseline fits the present inputs.
        fits_new: bool,
    },
    /// Inputs moved in one arm only, which a random draw should not give.
    ArmsUnlike(Comparison),
    /// A difference that is large, but not certain.
    Uncertain {
        /// The figures.
        comparison: Comparison,
        /// The certainty asked for.
        alpha: f64,
    },
    /// Inputs of more devices moved than single sensors explain, and of fewer than the cohort.
    ManyMoved {
        /// Devices whose inputs moved.
        devices: usize,
        /// Devices measured.
        measured: usize,
    },
    /// One device is away from its cohort and left out of the arms.
    SensorLeftOut {
        /// Which one.
        device: DeviceId,
        /// Its figure.
        figure: FieldFigure,
    },
    /// Too few devices have sent enough.
    TooFewFigures {
        /// Treated devices measured.
        treated: usize,
        /// Control devices measured.
        control: usize,
        /// Windows that each must have sent.
        windows_min: u32,
        /// Rows that each must have sent.
        rows_min: u64,
    },
    /// Too few of the devices that are treated by now have sent enough.
    Unmeasured {
        /// Treated devices measured.
        measured: usize,
        /// Treated devices that must be.
        needed: usize,
    },
    /// There is no older release to compare with.
    NothingToCompare,
    /// The devices' own programs have no figures: outcomes, silence and soak decide.
    OutcomesAlone,
    /// Too few treated devices have committed.
    Waiting {
        /// Devices that have.
        succeeded: usize,
        /// Devices that must.
        needed: usize,
        /// Devices treated.
        treated: usize,
    },
    /// Too many treated devices are silent.
    Silent {
        /// Devices that are.
        devices: usize,
        /// Devices treated.
        treated: usize,
        /// For how long, in seconds.
        silence_secs: u64,
    },
    /// The soak is not over.
    Soaking {
        /// Seconds since enough devices had committed.
        secs: u64,
        /// Seconds that it lasts.
        soak_secs: u64,
    },
    /// The stage has shown all that it must.
    StagePassed {
        /// Its number, from 1.
        stage: usize,
        /// Devices that committed.
        succeeded: usize,
        /// Devices treated.
        treated: usize,
        /// How long it soaked, in seconds.
        soaked_secs: u64,
    },
    /// Nothing moved.
    ArmsAlike(Comparison),
}

/// What people should be told, whatever happens to a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The world moved away from a release's training data: ask for retraining.
    Retrain {
        /// The release that no longer fits.
        release: String,
        /// Fields that moved, most first.
        fields: Vec<FieldFigure>,
        /// Devices measured.
        devices: usize,
    },
    /// One device's inputs are away from its cohort: look at its sensor.
    Sensor {
        /// Which one.
        device: DeviceId,
        /// Its figure.
        figure: FieldFigure,
        /// The cohort's median of the same.
        cohort_median: f64,
    },
}

/// A verdict's word, as the API and the console write it.
pub fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::Drifted => "drifted",
        Verdict::Failing => "failing",
        Verdict::Insufficient => "insufficient",
        Verdict::Invalid => "invalid",
    }
}

impl Action {
    /// The action's name, as in code, API and console.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Advance { .. } => "advance",
            Self::Hold => "hold",
            Self::Pause => "pause",
            Self::RollBack { .. } => "roll_back",
            Self::Disable { .. } => "disable",
            Self::Notify => "notify",
            Self::Complete => "complete",
        }
    }
}

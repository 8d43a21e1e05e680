//! Reasons and notices as plain sentences with their figures, for audit, API and console.

use core::fmt;

use super::decision::{Attribution, Comparison, FieldFigure, Measure, Metric, Notice, Reason};
use super::snapshot::RolloutState;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning { state } => write!(f, "the rollout is {}", state_word(*state)),
            Self::SnapshotStale => f.write_str(
                "the rollout changed while its devices were read; this is looked at again",
            ),
            Self::Inadmissible { why } => f.write_str(why),
            Self::Starts { devices, cohort } => {
                write!(
                    f,
                    "the rollout starts with {devices} of {cohort} devices, drawn at random"
                )
            }
            Self::Failed {
                devices,
                treated,
                failed_max,
                example,
                told,
            } => write!(
                f,
                "{devices} of {treated} treated devices did not take the release, {failed_max} may; \
                 {example}: {told}"
            ),
            Self::ReleaseMoved(it) => fmt_release_moved(it, f),
            Self::BaselineFar(it) => write!(
                f,
                "inputs of the {} treated devices lie far from release {}'s baseline (median {}; \
                 control {} against its own){}",
                it.treated.devices,
                it.release,
                it.of_treated(),
                it.of_control(),
                it.certainty()
            ),
            Self::WorldMoved {
                comparison: it,
                fits_new,
            } => write!(
                f,
                "inputs moved in both arms (treated: median {}; control: {}), so no release is to \
                 blame; release {}'s own baseline {} them",
                it.of_treated(),
                it.of_control(),
                it.release,
                if *fits_new { "fits" } else { "does not fit" }
            ),
            Self::ArmsUnlike(it) => write!(
                f,
                "inputs moved in one arm only (treated: median {}; control: {}){}, which a random \
                 draw should not give",
                it.of_treated(),
                it.of_control(),
                it.certainty()
            ),
            Self::Uncertain {
                comparison: it,
                alpha,
            } => write!(
                f,
                "{} of the treated arm moved (median {}; control {}), but not with the certainty \
                 asked for{}, above {alpha}",
                it.metric,
                it.of_treated(),
                it.of_control(),
                it.certainty()
            ),
            Self::ManyMoved { devices, measured } => write!(
                f,
                "inputs of {devices} of {measured} devices moved: too many for single sensors, too \
                 few for the whole cohort"
            ),
            Self::SensorLeftOut { device, figure } => {
                write!(
                    f,
                    "{device} is left out of the arms: its inputs are away from its cohort's ({figure})"
                )
            }
            Self::TooFewFigures {
                treated,
                control,
                windows_min,
                rows_min,
            } => write!(
                f,
                "{treated} treated and {control} control devices have sent the {windows_min} windows \
                 and {rows_min} rows that figures need, too few for a verdict"
            ),
            Self::Unmeasured { measured, needed } => {
                write!(
                    f,
                    "{measured} treated devices have sent enough for figures, {needed} must"
                )
            }
            Self::OutcomesAlone => f.write_str(
                "programs are judged by what devices told of them, for they have no figures",
            ),
            Self::NothingToCompare => f.write_str("there is no older release to compare with"),
            Self::Waiting {
                succeeded,
                needed,
                treated,
            } => {
                write!(
                    f,
                    "{succeeded} of {treated} treated devices have committed, {needed} must"
                )
            }
            Self::Silent {
                devices,
                treated,
                silence_secs,
            } => write!(
                f,
                "{devices} of {treated} treated devices are silent for {silence_secs} s or more, and \
                 silence is not health"
            ),
            Self::Soaking { secs, soak_secs } => {
                write!(f, "the stage has soaked for {secs} s of {soak_secs} s")
            }
            Self::StagePassed {
                stage,
                succeeded,
                treated,
                soaked_secs,
            } => write!(
                f,
                "stage {stage} has passed: {succeeded} of {treated} treated devices have committed, \
                 soaked for {soaked_secs} s"
            ),
            Self::ArmsAlike(it) => write!(
                f,
                "{} of {} treated and {} control devices are alike (median {}; control {})",
                it.metric,
                it.treated.devices,
                it.control.devices,
                it.of_treated(),
                it.of_control()
            ),
        }
    }
}

fn fmt_release_moved(it: &Comparison, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (devices, release) = (it.treated.devices, &it.release);
    match it.metric {
        Metric::InputsOwn | Metric::InputsReference | Metric::Outputs => write!(
            f,
            "{} of the {devices} treated devices lie far from what release {release} is expected to \
             give (median {}; control {} against its own)",
            it.metric,
            it.of_treated(),
            it.of_control()
        ),
        Metric::Errors => write!(
            f,
            "rows fail on the {devices} devices that run release {release} (median {}; control {})",
            it.of_treated(),
            it.of_control()
        ),
        Metric::Nonfinite => write!(
            f,
            "answers of release {release} are NaN or infinite on {devices} devices (median {}; \
             control {})",
            it.of_treated(),
            it.of_control()
        ),
        Metric::Latency => write!(
            f,
            "release {release} is slow on {devices} devices (median p99 {}; control {})",
            it.of_treated(),
            it.of_control()
        ),
    }?;
    write!(f, "{}", it.certainty())
}

impl Comparison {
    fn of_treated(&self) -> Figure<'_> {
        Figure {
            measure: self.measure,
            value: self.treated.median,
            field: self.field.as_deref(),
        }
    }

    fn of_control(&self) -> Figure<'_> {
        Figure {
            measure: self.measure,
            value: self.control.median,
            field: None,
        }
    }

    fn certainty(&self) -> Certainty {
        Certainty {
            p_value: self.p_value,
            devices: self.treated.devices + self.control.devices,
        }
    }
}

/// A value with its unit, and its field if it is the first to be named.
struct Figure<'a> {
    measure: Measure,
    value: f64,
    field: Option<&'a str>,
}

impl fmt::Display for Figure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        match (self.measure, self.field) {
            (Measure::Psi, Some(field)) => write!(f, "PSI {value:.2} on {field}"),
            (Measure::Psi, None) => write!(f, "{value:.2}"),
            (Measure::OutsideRise, Some(field)) => {
                write!(
                    f,
                    "{:.1} % more values of {field} outside the training range",
                    value * 100.0
                )
            }
            (Measure::OutsideRise | Measure::Share, _) => write!(f, "{:.2} %", value * 100.0),
            (Measure::Micros, _) => write!(f, "{value:.0} µs"),
        }
    }
}

struct Certainty {
    p_value: Option<f64>,
    devices: usize,
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.p_value {
            Some(p) if p < 0.0001 => write!(f, ", p < 0.0001 over {} devices", self.devices),
            Some(p) => write!(f, ", p = {p:.4} over {} devices", self.devices),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InputsOwn | Self::InputsReference => "inputs",
            Self::Outputs => "outputs",
            Self::Errors => "errors",
            Self::Nonfinite => "answers that are not finite",
            Self::Latency => "latency",
        })
    }
}

impl fmt::Display for FieldFigure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = Figure {
            measure: self.measure,
            value: self.value,
            field: Some(&self.field),
        };
        figure.fmt(f)
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retrain {
                release,
                fields,
                devices,
            } => {
                write!(
                    f,
                    "inputs of the cohort moved away from release {release}'s training data, over \
                     {devices} devices: retrain it ("
                )?;
                for (place, field) in fields.iter().enumerate() {
                    write!(f, "{}{field}", if place == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Self::Sensor {
                device,
                figure,
                cohort_median,
            } => {
                let cohort = Figure {
                    measure: figure.measure,
                    value: *cohort_median,
                    field: None,
                };
                write!(
                    f,
                    "{device}: look at its sensor, {figure} where its cohort has {cohort}"
                )
            }
        }
    }
}

impl fmt::Display for Attribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::World => "world",
            Self::Baseline => "baseline",
            Self::Release => "release",
            Self::Sensor => "sensor",
            Self::Unknown => "unknown",
        })
    }
}

fn state_word(state: RolloutState) -> &'static str {
    match state {
        RolloutState::Draft => "not started",
        RolloutState::Running => "running",
        RolloutState::Paused => "paused",
        RolloutState::RolledBack => "rolled back",
        RolloutState::Disabled => "disabled",
        RolloutState::Complete => "complete",
    }
}

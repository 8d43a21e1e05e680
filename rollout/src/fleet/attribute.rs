//! Whose doing is it? The table of docs/DRIFT.md, over the devices of both arms. The devices' own
//! programs have no figures: of them only outcomes are known.
//!
//! 1. Devices that sent enough are measured; the rest say nothing.
//! 2. One device away from its cohort, judged by inputs under the older release's baseline, is a
//!    sensor's doing. It is left out.
//! 3. Rows that fail, answers that are not finite, and latency: only the treated arm moved, so the
//!    release did it.
//! 4. Inputs of both arms under the same, older baseline: moved in both, the world did it; in one
//!    only, nobody knows.
//! 5. Inputs of the treated arm far from the new release's own baseline, though not moved: it was
//!    trained on the wrong slice.
//! 6. Outputs of the treated arm far from its own expectation, control's not: the release did it.

use alloc::vec::Vec;

use super::arms::{compare, median, p_least};
use super::cohort::{Measured, away, field_name, measure, moved_fields, reference, typical};
use super::decision::{
    ArmFigure, Attribution, Comparison, Measure, Metric, Notice, Reason, Verdict,
};
use super::policy::{Limits, Policy};
use super::score::{Divergence, Scores};
use super::snapshot::{Rollout, Snapshot};

/// What the figures say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    pub(super) verdict: Verdict,
    pub(super) attribution: Option<Attribution>,
    /// Why, if the figures alone decide; else what they add.
    pub(super) reasons: Vec<Reason>,
    pub(super) notices: Vec<Notice>,
    /// Treated devices that have sent enough, those that were left out included.
    pub(super) treated_measured: usize,
}

pub(super) fn look(policy: &Policy, rollout: &Rollout, snapshot: &Snapshot) -> Look {
    if rollout.slot.is_agent() {
        return Look::of(Reason::OutcomesAlone);
    }
    let (windows_min, rows_min) = (policy.gates.windows_min, policy.gates.rows_min);
    let measured: Vec<Measured<'_>> = snapshot
        .devices
        .iter()
        .filter_map(|view| measure(view, windows_min, rows_min))
        .collect();
    let liars = policy.certainty.liars as usize;
    let sensors = away(&measured, &policy.limits, liars, &snapshot.inputs);
    let mut cohort = Cohort {
        policy,
        rollout,
        snapshot,
        treated: Vec::new(),
        control: Vec::new(),
    };
    for device in &measured {
        if sensors.notices.iter().all(|notice| !names(notice, device)) {
            let arm = device.view.arm.is_treated();
            if arm {
                &mut cohort.treated
            } else {
                &mut cohort.control
            }
            .push(*device);
        }
    }
    let mut look = cohort.look(sensors.notices.len());
    if let Some(devices) = sensors.many
        && look.tells_nothing()
    {
        look = Look::unknown(Reason::ManyMoved {
            devices,
            measured: measured.len(),
        });
    }
    look.leave_out(sensors.notices);
    look.treated_measured = measured
        .iter()
        .filter(|device| device.view.arm.is_treated())
        .count();
    look
}

/// Both arms, without the devices that are left out.
struct Cohort<'a> {
    policy: &'a Policy,
    rollout: &'a Rollout,
    snapshot: &'a Snapshot,
    treated: Vec<Measured<'a>>,
    control: Vec<Measured<'a>>,
}

/// What a comparison of divergences looks at.
type Side = fn(&Scores) -> Option<&Divergence>;
/// A figure of a whole device; rises are differences of it.
type Figure = fn(&Scores) -> Option<f64>;

impl Cohort<'_> {
    fn look(&self, left_out: usize) -> Look {
        if self.rollout.previous.is_none() {
            return self.look_alone();
        }
        if !self.is_enough(left_out) {
            return Look::insufficient(self.too_few());
        }
        if let Some(look) = self.look_at_failures() {
            return look;
        }
        let Some(inputs) = self.divergence(Metric::InputsReference, reference) else {
            return Look::insufficient(self.too_few());
        };
        let (Some(own), Some(outputs)) = (
            self.divergence(Metric::InputsOwn, own),
            self.divergence(Metric::Outputs, outputs),
        ) else {
            return Look::insufficient(self.too_few());
        };
        match (inputs.treated >= 1.0, inputs.control >= 1.0) {
            (true, true) => self.look_at_world(inputs, &own, outputs),
            (false, false) if own.treated >= 1.0 => self.look_at_baseline(own),
            (false, false) => self.look_at_outputs(outputs, inputs.comparison),
            _ => Look::unknown(Reason::ArmsUnlike(inputs.comparison)),
        }
    }

    /// Whether these arms can show the policy's certainty, and keep an honest majority. A device
    /// that was left out is one liar less to expect.
    fn is_enough(&self, left_out: usize) -> bool {
        let (treated, control) = (self.treated.len(), self.control.len());
        let liars = (self.policy.certainty.liars as usize).saturating_sub(left_out);
        let reachable = p_least((treated + control) as u32, treated as u32, 0);
        treated.min(control) > 2 * liars && reachable <= self.policy.certainty.alpha * (1.0 + 1e-9)
    }

    fn too_few(&self) -> Reason {
        Reason::TooFewFigures {
            treated: self.treated.len(),
            control: self.control.len(),
            windows_min: self.policy.gates.windows_min,
            rows_min: self.policy.gates.rows_min,
        }
    }

    /// Step 3: rows that fail, answers that are not finite, latency.
    fn look_at_failures(&self) -> Option<Look> {
        let limits = &self.policy.limits;
        let share = limits.error_rise_max;
        let rise_us = libm::log(limits.latency_ratio_max);
        let figures: [(Metric, Measure, f64, Figure); 3] = [
            (Metric::Nonfinite, Measure::Share, share, |scores| {
                Some(scores.nonfinite_share)
            }),
            (Metric::Errors, Measure::Share, share, |scores| {
                Some(scores.error_share)
            }),
            (Metric::Latency, Measure::Micros, rise_us, |scores| {
                scores.latency_us_p99.map(|us| libm::log(us.max(1.0)))
            }),
        ];
        let mut uncertain = None;
        for (metric, measure, rise, figure) in figures {
            let Some(found) = self.figure(metric, measure, rise, figure) else {
                continue;
            };
            if found.p_value <= Some(self.policy.certainty.alpha) {
                return Some(Look::moved(
                    Verdict::Failing,
                    Attribution::Release,
                    Reason::ReleaseMoved(found),
                ));
            }
            uncertain = uncertain.or(Some(found));
        }
        uncertain.map(|comparison| self.uncertain(comparison))
    }

    /// A figure of whole devices, if the treated arm's median lies `rise` above control's.
    fn figure(
        &self,
        metric: Metric,
        measure: Measure,
        rise: f64,
        figure: Figure,
    ) -> Option<Comparison> {
        let of = |arm: &[Measured<'_>]| -> Vec<f64> {
            arm.iter()
                .filter_map(|device| figure(device.scores))
                .collect()
        };
        let (treated, control) = (of(&self.treated), of(&self.control));
        let compared = compare(&treated, &control, rise, self.alpha(), self.seed())?;
        let told = |value: f64| {
            if measure == Measure::Micros {
                libm::exp(value)
            } else {
                value
            }
        };
        (compared.treated >= compared.control + rise).then(|| Comparison {
            metric,
            release: self.rollout.release.label.clone(),
            field: None,
            measure,
            treated: ArmFigure {
                devices: treated.len(),
                median: told(compared.treated),
            },
            control: ArmFigure {
                devices: control.len(),
                median: told(compared.control),
            },
            p_value: Some(compared.p_value),
        })
    }

    /// Step 4, moved in both: no release is blamed for it. If the new release fits the present
    /// inputs it may go on, and is the cure; its outputs are then judged as ever.
    fn look_at_world(&self, inputs: Compared, own: &Compared, outputs: Compared) -> Look {
        let fits_new = own.treated < 1.0;
        let comparison = inputs.comparison.clone();
        let reason = Reason::WorldMoved {
            comparison,
            fits_new,
        };
        let mut look = if fits_new {
            self.look_at_outputs(outputs, inputs.comparison)
        } else {
            Look::moved(Verdict::Drifted, Attribution::World, reason.clone())
        };
        let everybody: Vec<Measured<'_>> =
            self.treated.iter().chain(&self.control).copied().collect();
        look.notices.push(Notice::Retrain {
            // The figures are those under the older release's baseline.
            release: self
                .rollout
                .previous
                .as_ref()
                .unwrap_or(&self.rollout.release)
                .label
                .clone(),
            fields: moved_fields(&everybody, &self.policy.limits, &self.snapshot.inputs),
            devices: everybody.len(),
        });
        if look.attribution.is_none() {
            look.attribution = Some(Attribution::World);
            look.reasons.insert(0, reason);
        }
        look
    }

    /// Step 5.
    fn look_at_baseline(&self, own: Compared) -> Look {
        if own.is_certain(self.alpha()) {
            let reason = Reason::BaselineFar(own.comparison);
            Look::moved(Verdict::Drifted, Attribution::Baseline, reason)
        } else {
            self.uncertain(own.comparison)
        }
    }

    /// Step 6.
    fn look_at_outputs(&self, outputs: Compared, alike: Comparison) -> Look {
        if outputs.treated < 1.0 {
            Look {
                verdict: Verdict::Healthy,
                ..Look::of(Reason::ArmsAlike(alike))
            }
        } else if outputs.is_certain(self.alpha()) {
            let reason = Reason::ReleaseMoved(outputs.comparison);
            Look::moved(Verdict::Drifted, Attribution::Release, reason)
        } else {
            self.uncertain(outputs.comparison)
        }
    }

    /// Without an older release nothing can be told apart: what moved holds the rollout.
    fn look_alone(&self) -> Look {
        let of = |side: Side| -> Vec<&Divergence> {
            self.treated
                .iter()
                .filter_map(|device| side(device.scores))
                .collect()
        };
        if self.treated.is_empty() {
            return Look::insufficient(self.too_few());
        }
        for (metric, side) in [(Metric::InputsOwn, own as Side), (Metric::Outputs, outputs)] {
            let divergences = of(side);
            let farness = farness(&divergences, &self.policy.limits);
            if median(&farness).is_some_and(|middle| middle >= 1.0) {
                let comparison = self.comparison(metric, &divergences, &[], None);
                let alpha = self.alpha();
                let mut look = Look::unknown(Reason::Uncertain { comparison, alpha });
                look.reasons.push(Reason::NothingToCompare);
                return look;
            }
        }
        Look {
            verdict: Verdict::Healthy,
            ..Look::of(Reason::NothingToCompare)
        }
    }

    /// Compares the arms by how far each device's worst field lies from a baseline, in limits.
    /// `None` if the arms cannot be compared.
    fn divergence(&self, metric: Metric, side: Side) -> Option<Compared> {
        let of = |arm: &'_ [Measured<'_>]| -> Vec<Divergence> {
            arm.iter()
                .filter_map(|device| side(device.scores).cloned())
                .collect()
        };
        let (treated, control) = (of(&self.treated), of(&self.control));
        let (treated, control): (Vec<_>, Vec<_>) =
            (treated.iter().collect(), control.iter().collect());
        let limits = &self.policy.limits;
        let (far_treated, far_control) = (farness(&treated, limits), farness(&control, limits));
        let compared = compare(&far_treated, &far_control, 1.0, self.alpha(), self.seed())?;
        Some(Compared {
            treated: compared.treated,
            control: compared.control,
            comparison: self.comparison(metric, &treated, &control, Some(compared.p_value)),
        })
    }

    /// The figures of the field that moved most in the treated arm, for people.
    fn comparison(
        &self,
        metric: Metric,
        treated: &[&Divergence],
        control: &[&Divergence],
        p_value: Option<f64>,
    ) -> Comparison {
        let limits = &self.policy.limits;
        let fields = treated.iter().map(|it| it.fields.len()).max().unwrap_or(0);
        let most = (0..fields)
            .filter_map(|field| Some((field, typical(treated, field, limits)?)))
            .max_by(|a, b| a.1.0.total_cmp(&b.1.0));
        let (field, measure) = most.map_or((0, Measure::Psi), |(field, (_, it))| (field, it));
        let figure = |arm: &[&Divergence]| {
            let values: Vec<f64> = arm.iter().map(|it| it.value(field, measure)).collect();
            ArmFigure {
                devices: arm.len(),
                median: median(&values).unwrap_or(0.0),
            }
        };
        let names = match metric {
            Metric::Outputs => &self.snapshot.outputs,
            _ => &self.snapshot.inputs,
        };
        Comparison {
            metric,
            release: self.rollout.release.label.clone(),
            field: most.map(|_| field_name(names, field)),
            measure,
            treated: figure(treated),
            control: figure(control),
            p_value,
        }
    }

    fn uncertain(&self, comparison: Comparison) -> Look {
        Look::unknown(Reason::Uncertain {
            comparison,
            alpha: self.alpha(),
        })
    }

    fn alpha(&self) -> f64 {
        self.policy.certainty.alpha
    }

    /// Random choices of devices differ between rollouts, never between repeats.
    fn seed(&self) -> u64 {
        self.rollout.id.0
    }
}

/// Medians in limits, and the same for people.
struct Compared {
    treated: f64,
    control: f64,
    comparison: Comparison,
}

impl Compared {
    fn is_certain(&self, alpha: f64) -> bool {
        self.comparison
            .p_value
            .is_some_and(|p_value| p_value <= alpha * (1.0 + 1e-9))
    }
}

impl Look {
    fn of(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Insufficient,
            attribution: None,
            reasons: alloc::vec![reason],
            notices: Vec::new(),
            treated_measured: 0,
        }
    }

    fn insufficient(reason: Reason) -> Self {
        Self::of(reason)
    }

    fn unknown(reason: Reason) -> Self {
        Self {
            attribution: Some(Attribution::Unknown),
            ..Self::of(reason)
        }
    }

    fn moved(verdict: Verdict, attribution: Attribution, reason: Reason) -> Self {
        Self {
            verdict,
            attribution: Some(attribution),
            ..Self::of(reason)
        }
    }

    /// Nothing moved between the arms, or too little is known.
    fn tells_nothing(&self) -> bool {
        self.attribution.is_none()
    }

    fn leave_out(&mut self, sensors: Vec<Notice>) {
        for notice in &sensors {
            if let Notice::Sensor { device, figure, .. } = notice {
                let (device, figure) = (device.clone(), figure.clone());
                self.reasons.push(Reason::SensorLeftOut { device, figure });
            }
        }
        if !sensors.is_empty() && self.attribution.is_none() {
            self.attribution = Some(Attribution::Sensor);
        }
        self.notices.extend(sensors);
    }
}

fn own(scores: &Scores) -> Option<&Divergence> {
    Some(&scores.inputs_own)
}

fn outputs(scores: &Scores) -> Option<&Divergence> {
    Some(&scores.outputs_own)
}

/// Each device's worst field, in limits.
fn farness(divergences: &[&Divergence], limits: &Limits) -> Vec<f64> {
    divergences
        .iter()
        .map(|it| it.worst(limits).map_or(0.0, |far| far.ratio))
        .collect()
}

fn names(notice: &Notice, device: &Measured<'_>) -> bool {
    matches!(notice, Notice::Sensor { device: named, .. } if *named == device.view.device)
}

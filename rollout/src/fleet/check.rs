//! An independent look at whether a decision is legal.
//!
//! Written against the rules, not against the planner: it shares no counting with it, so a mistake
//! has to be made twice to reach a device.

use bellwether_package::ids::UnixSecs;
use bellwether_protocol::{DeviceId, OutcomeKind};

use super::decision::{Action, Attribution, Decision};
use super::draw::rank;
use super::policy::{Policy, Treated};
use super::snapshot::{Arm, DeviceView, Rollout, RolloutState, Snapshot};

/// Why a decision may not be carried out. We are at fault: the planner made a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// Decided for another state of the rollout.
    #[error("the decision was made for another generation of the rollout")]
    Generation,
    /// The rollout is not running, so nothing may change.
    #[error("the rollout is not running")]
    NotRunning,
    /// A decision without a reason.
    #[error("the decision gives no reason")]
    NoReason,
    /// A notice was asked for, and there is none.
    #[error("the decision asks to notify, with nothing to tell")]
    NoNotice,
    /// Not the stage after the present one.
    #[error("the stage is not the one after the present one")]
    StageSkipped,
    /// Names a device that may not be treated now: unknown, treated already, held out, named
    /// twice, or behind others in the draw.
    #[error("a device is named that is not next in the draw")]
    DeviceNotNext,
    /// More devices than the stage treats.
    #[error("more devices would be treated than the stage allows")]
    TooManyTreated,
    /// The present stage has soaked for less than the policy asks.
    #[error("the present stage has not soaked long enough")]
    NotSoaked,
    /// Fewer than half of the treated devices have committed.
    #[error("too few treated devices have committed to go on")]
    TooFewCommitted,
    /// More devices failed than may.
    #[error("more treated devices failed than may")]
    TooManyFailed,
    /// Going on although something is blamed.
    #[error("the rollout would go on although the release is to blame, or nobody knows")]
    Blamed,
    /// Going back although no release is to blame.
    #[error("devices would go back although no release is to blame")]
    NotBlamed,
    /// Devices to go back are not exactly the treated ones.
    #[error("the devices to go back are not exactly the treated ones")]
    NotTheTreated,
    /// Complete before the last stage.
    #[error("the rollout would be complete before its last stage")]
    NotLastStage,
}

/// Whether a decision may be carried out now.
///
/// # Errors
///
/// [`Illegal`], the first rule that it breaks.
pub fn check(
    decision: &Decision,
    policy: &Policy,
    rollout: &Rollout,
    snapshot: &Snapshot,
    now: UnixSecs,
) -> Result<(), Illegal> {
    let checker = Checker {
        decision,
        policy,
        rollout,
        devices: &snapshot.devices,
        now,
    };
    refuse(decision.reasons.is_empty(), Illegal::NoReason)?;
    refuse(
        decision.generation != rollout.generation,
        Illegal::Generation,
    )?;
    match &decision.action {
        Action::Hold => return Ok(()),
        Action::Notify => return refuse(decision.notices.is_empty(), Illegal::NoNotice),
        _ => {}
    }
    refuse(rollout.state != RolloutState::Running, Illegal::NotRunning)?;
    refuse(
        decision.generation != snapshot.generation,
        Illegal::Generation,
    )?;
    match &decision.action {
        Action::Hold | Action::Notify => Ok(()),
        Action::Advance { stage, devices } => checker.advance(usize::from(*stage), devices),
        Action::Complete => checker.complete(),
        Action::Pause => checker.blamed(),
        Action::RollBack { devices } | Action::Disable { devices } => checker.go_back(devices),
    }
}

struct Checker<'a> {
    decision: &'a Decision,
    policy: &'a Policy,
    rollout: &'a Rollout,
    devices: &'a [DeviceView],
    now: UnixSecs,
}

impl Checker<'_> {
    fn advance(&self, stage: usize, devices: &[DeviceId]) -> Result<(), Illegal> {
        let next = self.rollout.stage.map_or(0, |stage| usize::from(stage) + 1);
        refuse(
            stage != next || next >= self.policy.stages.len(),
            Illegal::StageSkipped,
        )?;
        if self.rollout.stage.is_some() {
            self.stage_passed()?;
        }
        let cohort = u32::try_from(self.devices.len()).unwrap_or(u32::MAX);
        let target = self.policy.treated_in_all(stage, cohort).unwrap_or(0) as usize;
        let treated = self
            .devices
            .iter()
            .filter(|view| view.arm.is_treated())
            .count();
        let over = !devices.is_empty() && treated + devices.len() > target;
        refuse(over, Illegal::TooManyTreated)?;
        self.next_in_draw(devices, self.policy.stages[stage].treated == Treated::All)
    }

    /// Every device named is untreated and named once, and no untreated one that is left stands
    /// before it in the draw.
    fn next_in_draw(&self, devices: &[DeviceId], everybody: bool) -> Result<(), Illegal> {
        let place = |device: &DeviceId| {
            (
                rank(self.rollout.id, &self.rollout.release.id, device),
                device.clone(),
            )
        };
        let may = |arm: Arm| arm == Arm::Control || (everybody && arm == Arm::Holdout);
        let mut named: alloc::vec::Vec<&DeviceId> = devices.iter().collect();
        named.sort_unstable();
        let before = named.len();
        named.dedup();
        refuse(named.len() != before, Illegal::DeviceNotNext)?;
        let last = devices.iter().map(place).max();
        let mut found = 0;
        for view in self.devices {
            if named.binary_search(&&view.device).is_ok() {
                refuse(!may(view.arm), Illegal::DeviceNotNext)?;
                found += 1;
            } else if may(view.arm) {
                let passed_over = last
                    .as_ref()
                    .is_some_and(|last| place(&view.device) < *last);
                refuse(passed_over, Illegal::DeviceNotNext)?;
            }
        }
        refuse(found != devices.len(), Illegal::DeviceNotNext)
    }

    fn complete(&self) -> Result<(), Illegal> {
        let last = self.rollout.stage.map(|stage| usize::from(stage) + 1);
        refuse(
            last != Some(self.policy.stages.len()),
            Illegal::NotLastStage,
        )?;
        self.stage_passed()
    }

    /// What must hold before the present stage may be left behind.
    fn stage_passed(&self) -> Result<(), Illegal> {
        let blamed = matches!(
            self.decision.attribution,
            Some(Attribution::Release | Attribution::Baseline | Attribution::Unknown)
        );
        refuse(blamed, Illegal::Blamed)?;
        let soak_secs = self
            .rollout
            .stage
            .and_then(|stage| self.policy.stages.get(usize::from(stage)))
            .map_or(u64::MAX, |stage| stage.soak_secs);
        let soaked = self.now.secs_since(self.rollout.stage_since) >= soak_secs;
        refuse(!soaked, Illegal::NotSoaked)?;
        let (mut treated, mut committed, mut failed) = (0_usize, 0_usize, 0_usize);
        for view in self.devices.iter().filter(|view| view.arm.is_treated()) {
            treated += 1;
            match view.outcome.as_ref().map(|told| &told.kind) {
                Some(OutcomeKind::Committed) => committed += 1,
                _ if view.has_failed() => failed += 1,
                _ => {}
            }
        }
        refuse(
            failed > self.policy.gates.failed_max as usize,
            Illegal::TooManyFailed,
        )?;
        // The policy asks for half at least; liars are the only ones who may be missing from it.
        let half = treated
            .div_ceil(2)
            .min(treated - (self.policy.certainty.liars as usize).min(treated));
        refuse(committed < half.max(1), Illegal::TooFewCommitted)
    }

    fn go_back(&self, devices: &[DeviceId]) -> Result<(), Illegal> {
        self.blamed()?;
        let treated = self.devices.iter().filter(|view| view.arm.is_treated());
        let all = treated.clone().all(|view| devices.contains(&view.device));
        refuse(
            !all || treated.count() != devices.len(),
            Illegal::NotTheTreated,
        )
    }

    fn blamed(&self) -> Result<(), Illegal> {
        let blamed = matches!(
            self.decision.attribution,
            Some(Attribution::Release | Attribution::Baseline)
        );
        refuse(!blamed, Illegal::NotBlamed)
    }
}

fn refuse(broken: bool, rule: Illegal) -> Result<(), Illegal> {
    if broken { Err(rule) } else { Ok(()) }
}

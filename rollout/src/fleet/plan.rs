//! The planner: what a rollout does next.

use alloc::string::ToString;
use alloc::vec::Vec;

use bellwether_package::ids::UnixSecs;
use bellwether_protocol::DeviceId;

use super::attribute::{Look, look};
use super::decision::{Action, Attribution, Decision, Reason, Verdict};
use super::draw::rank;
use super::gates::Standing;
use super::policy::{Policy, Response, Treated};
use super::snapshot::{Arm, DeviceView, Rollout, RolloutState, Snapshot};

/// What the rollout does next, from everything that is stored about it. The same arguments always
/// give the same decision; the server carries it out if [`check`](super::check) finds it legal and
/// the rollout's generation has not changed.
pub fn plan(policy: &Policy, rollout: &Rollout, snapshot: &Snapshot, now: UnixSecs) -> Decision {
    let planner = Planner {
        policy,
        rollout,
        snapshot,
    };
    let standing = Standing::of(policy, rollout, snapshot, now);
    if let Some(decision) = planner
        .not_now()
        .or_else(|| planner.too_many_failed(&standing))
    {
        return decision;
    }
    match rollout.stage {
        None => planner.start(),
        Some(stage) => planner.go_on(usize::from(stage), &standing, now),
    }
}

struct Planner<'a> {
    policy: &'a Policy,
    rollout: &'a Rollout,
    snapshot: &'a Snapshot,
}

impl Planner<'_> {
    fn not_now(&self) -> Option<Decision> {
        let state = self.rollout.state;
        if state != RolloutState::Running {
            return Some(self.hold(Reason::NotRunning { state }));
        }
        if self.snapshot.generation != self.rollout.generation {
            return Some(self.hold(Reason::SnapshotStale));
        }
        let admissible = match &self.rollout.previous {
            // Programs have no figures, and without an older release there are no arms.
            _ if self.rollout.slot.is_agent() => self.policy.admissible_uncompared(self.cohort()),
            None => self.policy.admissible_uncompared(self.cohort()),
            // Arms are checked before devices are bound to them; afterwards the figures tell.
            Some(_) if self.rollout.stage.is_some() => self.policy.check_figures(),
            Some(_) => self.policy.admissible(self.cohort()),
        };
        let why = admissible.err()?.to_string();
        Some(self.hold(Reason::Inadmissible { why }))
    }

    /// Refusals and failures that devices told, whatever their figures say.
    fn too_many_failed(&self, standing: &Standing<'_>) -> Option<Decision> {
        let failed_max = self.policy.gates.failed_max;
        let example = standing.failed.first()?;
        if standing.failed.len() <= failed_max as usize {
            return None;
        }
        let reason = Reason::Failed {
            devices: standing.failed.len(),
            treated: standing.treated.len(),
            failed_max,
            example: example.device.clone(),
            told: example
                .outcome
                .as_ref()
                .map(|told| told.kind.to_string())
                .unwrap_or_default(),
        };
        let mut decision = self.hold(reason);
        decision.verdict = Verdict::Failing;
        decision.attribution = Some(Attribution::Release);
        decision.action = self.respond(self.policy.responses.failed, standing);
        Some(decision)
    }

    fn start(&self) -> Decision {
        let devices = self.drawn(0);
        let reason = Reason::Starts {
            devices: devices.len(),
            cohort: self.snapshot.devices.len(),
        };
        if devices.is_empty() {
            return self.hold(reason);
        }
        Decision {
            action: Action::Advance { stage: 0, devices },
            ..self.hold(reason)
        }
    }

    fn go_on(&self, stage: usize, standing: &Standing<'_>, now: UnixSecs) -> Decision {
        let untreated = |view: &DeviceView| !view.arm.is_treated();
        let has_figures = !self.rollout.slot.is_agent();
        let compared = has_figures && self.snapshot.devices.iter().any(untreated);
        let look = look(self.policy, self.rollout, self.snapshot);
        match look.attribution {
            Some(Attribution::Release) => self.blame(self.policy.responses.release, look, standing),
            Some(Attribution::Baseline) => {
                self.blame(self.policy.responses.baseline, look, standing)
            }
            Some(Attribution::Unknown) => self.decide(Action::Hold, look),
            Some(Attribution::World) if look.verdict == Verdict::Drifted => {
                self.decide(Action::Hold, look)
            }
            _ => self.pass_gates(stage, look, compared, standing, now),
        }
    }

    fn blame(&self, response: Response, look: Look, standing: &Standing<'_>) -> Decision {
        self.decide(self.respond(response, standing), look)
    }

    /// Nothing moved, or too little is known: count.
    fn pass_gates(
        &self,
        stage: usize,
        mut look: Look,
        compared: bool,
        standing: &Standing<'_>,
        now: UnixSecs,
    ) -> Decision {
        if let Some(reason) = self.waits_for(stage, standing, now) {
            look.reasons.insert(0, reason);
            return self.decide(Action::Hold, look);
        }
        if compared && look.verdict == Verdict::Insufficient {
            return self.decide(Action::Hold, look);
        }
        if compared && look.treated_measured < standing.needed {
            // What earlier stages have shown says nothing of the devices that joined since.
            let (measured, needed) = (look.treated_measured, standing.needed);
            look.reasons
                .insert(0, Reason::Unmeasured { measured, needed });
            return self.decide(Action::Hold, look);
        }
        look.reasons.insert(
            0,
            Reason::StagePassed {
                stage: stage + 1,
                succeeded: standing.succeeded,
                treated: standing.treated.len(),
                soaked_secs: standing
                    .soaking_since
                    .map_or(0, |since| now.secs_since(since)),
            },
        );
        let next = stage + 1;
        if next >= self.policy.stages.len() {
            return self.decide(Action::Complete, look);
        }
        let devices = self.drawn(next);
        self.decide(
            Action::Advance {
                stage: next as u8,
                devices,
            },
            look,
        )
    }

    /// The first gate that is not passed yet.
    fn waits_for(&self, stage: usize, standing: &Standing<'_>, now: UnixSecs) -> Option<Reason> {
        let treated = standing.treated.len();
        if standing.is_silent(self.policy) {
            let (devices, silence_secs) = (standing.silent, self.policy.gates.silence_secs);
            return Some(Reason::Silent {
                devices,
                treated,
                silence_secs,
            });
        }
        let (succeeded, needed) = (standing.succeeded, standing.needed);
        let Some(since) = standing.soaking_since else {
            return Some(Reason::Waiting {
                succeeded,
                needed,
                treated,
            });
        };
        let soak_secs = self
            .policy
            .stages
            .get(stage)
            .map_or(u64::MAX, |stage| stage.soak_secs);
        let secs = now.secs_since(since);
        (secs < soak_secs).then_some(Reason::Soaking { secs, soak_secs })
    }

    /// Devices that this stage treats in addition, from the front of the draw.
    fn drawn(&self, stage: usize) -> Vec<DeviceId> {
        let target = self
            .policy
            .treated_in_all(stage, self.cohort())
            .unwrap_or(0) as usize;
        let everybody = self
            .policy
            .stages
            .get(stage)
            .is_some_and(|stage| stage.treated == Treated::All);
        let devices = &self.snapshot.devices;
        let treated = devices.iter().filter(|view| view.arm.is_treated()).count();
        let mut left: Vec<&DeviceView> = devices
            .iter()
            .filter(|view| view.arm == Arm::Control || (everybody && view.arm == Arm::Holdout))
            .collect();
        let (id, release) = (self.rollout.id, &self.rollout.release.id);
        left.sort_by_cached_key(|view| (rank(id, release, &view.device), view.device.clone()));
        left.truncate(target.saturating_sub(treated));
        left.into_iter().map(|view| view.device.clone()).collect()
    }

    fn respond(&self, response: Response, standing: &Standing<'_>) -> Action {
        let devices = standing
            .treated
            .iter()
            .map(|view| view.device.clone())
            .collect();
        match response {
            Response::RollBack => Action::RollBack { devices },
            Response::Pause => Action::Pause,
            Response::Disable => Action::Disable { devices },
        }
    }

    fn decide(&self, action: Action, look: Look) -> Decision {
        let action = match action {
            Action::Hold if !look.notices.is_empty() => Action::Notify,
            other => other,
        };
        Decision {
            generation: self.rollout.generation,
            action,
            verdict: look.verdict,
            attribution: look.attribution,
            reasons: look.reasons,
            notices: look.notices,
        }
    }

    fn hold(&self, reason: Reason) -> Decision {
        Decision {
            generation: self.rollout.generation,
            action: Action::Hold,
            verdict: Verdict::Insufficient,
            attribution: None,
            reasons: alloc::vec![reason],
            notices: Vec::new(),
        }
    }

    fn cohort(&self) -> u32 {
        u32::try_from(self.snapshot.devices.len()).unwrap_or(u32::MAX)
    }
}

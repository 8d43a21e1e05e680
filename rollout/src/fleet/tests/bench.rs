//! A cohort to decide about.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use bellwether_package::ids::{Digest, PackageId, SlotName, UnixSecs};
use bellwether_protocol::{DeviceId, OutcomeKind, Refusal, RolloutId, TrialFailure, TrialLimits};

use super::super::*;

pub(super) const START: UnixSecs = UnixSecs(1_764_000_000);
pub(super) const SOAK_SECS: u64 = 600;
/// Long after the soak of the present stage.
pub(super) const NOW: UnixSecs = UnixSecs(START.0 + 2 * SOAK_SECS);

pub(super) fn policy() -> Policy {
    let stage = |treated| Stage {
        treated,
        soak_secs: SOAK_SECS,
    };
    Policy {
        stages: vec![
            stage(Treated::Devices(3)),
            stage(Treated::Devices(6)),
            stage(Treated::AllButHoldout),
            stage(Treated::All),
        ],
        holdout: 3,
        gates: Gates {
            succeeded_share_min_ppm: 900_000,
            failed_max: 0,
            silent_share_max_ppm: 100_000,
            silence_secs: 100_000,
            windows_min: 3,
            rows_min: 1_000,
        },
        limits: Limits {
            psi_max: 0.25,
            outside_rise_max: 0.1,
            error_rise_max: 0.01,
            latency_ratio_max: 2.0,
        },
        certainty: Certainty {
            alpha: 0.01,
            liars: 0,
        },
        responses: Responses {
            release: Response::RollBack,
            baseline: Response::RollBack,
            failed: Response::RollBack,
        },
        trial: TrialLimits {
            secs_min: 60,
            rows_min: 100,
            secs_max: 600,
            error_share_max_ppm: 10_000,
            nonfinite_share_max_ppm: 0,
            worker_deaths_max: 1,
            latency_us_p99_max: None,
            shadow: None,
            drift: None,
        },
    }
}

/// The same with liars, and a certainty that small arms can reach in spite of them.
pub(super) fn policy_with_liars(liars: u32) -> Policy {
    let mut policy = policy();
    policy.certainty = Certainty { alpha: 0.05, liars };
    policy.gates.failed_max = liars;
    policy
}

pub(super) fn package(tag: u8) -> PackageId {
    PackageId(Digest([tag; 32]))
}

pub(super) fn rollout(stage: Option<u8>) -> Rollout {
    Rollout {
        id: RolloutId(7),
        slot: SlotName::new("pump").unwrap(),
        release: Release {
            id: package(2),
            label: "2.0.0".to_string(),
        },
        previous: Some(Release {
            id: package(1),
            label: "1.0.0".to_string(),
        }),
        state: RolloutState::Running,
        stage,
        stage_since: START,
        generation: 4,
    }
}

pub(super) fn names() -> (Vec<String>, Vec<String>) {
    let inputs = (1..=3).map(|n| format!("V{n}")).collect();
    (inputs, vec!["fault".to_string()])
}

/// PSI of the second input and of the output; everything else is as it should be.
pub(super) fn scores(reference: f64, own: f64, output: f64) -> Scores {
    Scores {
        windows: 10,
        rows: 10_000,
        inputs_reference: Some(divergence(3, 1, reference)),
        inputs_own: divergence(3, 1, own),
        outputs_own: divergence(1, 0, output),
        error_share: 0.0,
        nonfinite_share: 0.0,
        latency_us_p99: Some(900.0),
    }
}

pub(super) fn divergence(fields: usize, field: usize, psi: f64) -> Divergence {
    let mut all = vec![
        FieldScore {
            psi: Some(0.01),
            outside_rise: Some(0.0)
        };
        fields
    ];
    all[field].psi = Some(psi);
    Divergence { fields: all }
}

pub(super) fn device(n: usize) -> DeviceId {
    DeviceId::new(&format!("press-{n:03}")).unwrap()
}

pub(super) fn committed() -> Option<Told> {
    Some(Told {
        kind: OutcomeKind::Committed,
        at: START,
    })
}

pub(super) fn failed() -> Option<Told> {
    let why = TrialFailure::Unservable(Refusal::Damaged);
    Some(Told {
        kind: OutcomeKind::RolledBackItself(why),
        at: START,
    })
}

/// `treated` of `cohort` devices on the new release, as the draw has it; each treated device has
/// committed and scores `of_treated`, each other one `of_control`.
pub(super) fn snapshot(
    cohort: usize,
    treated: usize,
    holdout: u32,
    of_treated: &Scores,
    of_control: &Scores,
) -> Snapshot {
    let devices: Vec<DeviceId> = (0..cohort).map(device).collect();
    let rollout = rollout(None);
    let arms = draw_arms(rollout.id, &rollout.release.id, holdout, &devices);
    let view = |(place, (device, arm)): (usize, (DeviceId, Arm))| {
        let is_treated = place < treated;
        DeviceView {
            device,
            arm: if is_treated {
                Arm::Treated { stage: 0 }
            } else {
                arm
            },
            assigned_at: is_treated.then_some(START),
            last_seen: Some(NOW),
            phase: None,
            serving: Some(if is_treated { package(2) } else { package(1) }),
            outcome: if is_treated { committed() } else { None },
            scores: Some(if is_treated {
                of_treated.clone()
            } else {
                of_control.clone()
            }),
        }
    };
    let (inputs, outputs) = names();
    let devices = arms.into_iter().enumerate().map(view).collect();
    Snapshot {
        generation: 4,
        devices,
        inputs,
        outputs,
    }
}

/// Three of twelve treated.
pub(super) fn three_of_twelve(of_treated: &Scores, of_control: &Scores) -> Snapshot {
    snapshot(12, 3, 3, of_treated, of_control)
}

/// Plans, and insists that the plan is legal.
pub(super) fn decide(policy: &Policy, rollout: &Rollout, snapshot: &Snapshot) -> Decision {
    let decision = plan(policy, rollout, snapshot, NOW);
    assert_eq!(
        check(&decision, policy, rollout, snapshot, NOW),
        Ok(()),
        "{decision:?}"
    );
    decision
}

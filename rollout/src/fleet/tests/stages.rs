//! Stages: the draw, the gates, and policies that cannot work.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use bellwether_package::ids::UnixSecs;
use bellwether_protocol::{DeviceId, OutcomeKind, Refusal, RolloutId};

use super::super::arms::p_least;
use super::super::*;
use super::bench::*;

fn well() -> Scores {
    scores(0.02, 0.02, 0.01)
}

/// Carries a decision out, as the server would: treats, and lets every device commit.
fn carry_out(decision: &Decision, rollout: &mut Rollout, snapshot: &mut Snapshot) {
    let Action::Advance { stage, devices } = &decision.action else {
        panic!("{decision:?}")
    };
    for view in &mut snapshot.devices {
        if devices.contains(&view.device) {
            view.arm = Arm::Treated { stage: *stage };
            view.assigned_at = Some(START);
            view.outcome = committed();
        }
    }
    rollout.stage = Some(*stage);
}

#[test]
fn a_healthy_rollout_goes_through_all_stages_and_keeps_its_holdout_to_the_last() {
    let policy = policy();
    let mut rollout = rollout(None);
    let mut snapshot = snapshot(12, 0, 3, &well(), &well());
    let mut treated = Vec::new();
    for _ in 0..4 {
        let decision = decide(&policy, &rollout, &snapshot);
        carry_out(&decision, &mut rollout, &mut snapshot);
        treated.push(
            snapshot
                .devices
                .iter()
                .filter(|view| view.arm.is_treated())
                .count(),
        );
    }
    assert_eq!(treated, [3, 6, 9, 12]);
    assert_eq!(
        decide(&policy, &rollout, &snapshot).action,
        Action::Complete
    );
}

#[test]
fn repeating_a_decision_gives_the_same_one_in_any_order_of_devices() {
    let mut shuffled = snapshot(12, 0, 3, &well(), &well());
    let decision = decide(&policy(), &rollout(None), &shuffled);
    shuffled.devices.reverse();
    assert_eq!(decide(&policy(), &rollout(None), &shuffled), decision);
}

#[test]
fn the_draw_differs_between_rollouts_and_never_between_repeats() {
    let devices: Vec<DeviceId> = (0..40).map(device).collect();
    let drawn = |id| draw_arms(RolloutId(id), &package(2), 5, &devices);
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    assert_eq!(
        drawn(1)
            .iter()
            .filter(|(_, arm)| *arm == Arm::Holdout)
            .count(),
        5
    );
}

/// A draw that is committed: it decides which devices are treated in rollouts that are under way.
#[test]
fn the_draw_never_changes() {
    let devices: Vec<DeviceId> = (0..6).map(device).collect();
    let arms = draw_arms(RolloutId(7), &package(2), 2, &devices);
    let order: Vec<&str> = arms
        .iter()
        .map(|(device, _)| &device.as_str()[6..])
        .collect();
    assert_eq!(order, ["005", "000", "001", "004", "002", "003"]);
}

#[test]
fn each_device_is_drawn_first_about_as_often() {
    let devices: Vec<DeviceId> = (0..10).map(device).collect();
    let mut first = vec![0_u32; 10];
    for id in 0..10_000 {
        let drawn = draw_arms(RolloutId(id), &package(2), 0, &devices);
        first[devices
            .iter()
            .position(|device| *device == drawn[0].0)
            .unwrap()] += 1;
    }
    // 1,000 expected of each, with a deviation of 30.
    assert!(
        first.iter().all(|count| (850..=1_150).contains(count)),
        "{first:?}"
    );
}

#[test]
fn a_stage_waits_for_its_devices_and_its_soak() {
    let mut snapshot = three_of_twelve(&well(), &well());
    snapshot.devices[1].outcome = None;
    let decision = decide(&policy(), &rollout(Some(0)), &snapshot);
    assert_eq!(decision.action, Action::Hold);
    assert_eq!(
        decision.reasons[0].to_string(),
        "2 of 3 treated devices have committed, 3 must"
    );
    snapshot.devices[1].outcome = Some(Told {
        kind: OutcomeKind::Committed,
        at: UnixSecs(NOW.0 - 5),
    });
    let decision = decide(&policy(), &rollout(Some(0)), &snapshot);
    assert_eq!(
        decision.reasons[0],
        Reason::Soaking {
            secs: 5,
            soak_secs: SOAK_SECS
        }
    );
}

#[test]
fn devices_that_joined_since_must_be_measured_too() {
    let mut snapshot = snapshot(12, 6, 3, &well(), &well());
    snapshot.devices[3..6]
        .iter_mut()
        .for_each(|view| view.scores = None);
    let mut policy = policy();
    policy.certainty.alpha = 0.02;
    let decision = decide(&policy, &rollout(Some(1)), &snapshot);
    assert_eq!(decision.action, Action::Hold);
    assert_eq!(
        decision.reasons[0],
        Reason::Unmeasured {
            measured: 3,
            needed: 6
        }
    );
}

#[test]
fn one_failure_too_many_rolls_back_whatever_the_figures_say() {
    let mut snapshot = three_of_twelve(&well(), &well());
    snapshot.devices[2].outcome = failed();
    let decision = decide(&policy(), &rollout(Some(0)), &snapshot);
    assert!(matches!(&decision.action, Action::RollBack { devices } if devices.len() == 3));
    assert_eq!(decision.verdict, Verdict::Failing);
    let mut lenient = policy();
    lenient.gates.failed_max = 1;
    let decision = decide(&lenient, &rollout(Some(0)), &snapshot);
    assert_eq!(
        decision.action,
        Action::Hold,
        "one may fail, but too few have committed"
    );
}

#[test]
fn a_device_that_cannot_download_holds_and_blames_nobody() {
    let mut snapshot = three_of_twelve(&well(), &well());
    let kind = OutcomeKind::Refused(Refusal::Unreachable { attempts: 30 });
    snapshot.devices[2].outcome = Some(Told { kind, at: START });
    let decision = decide(&policy(), &rollout(Some(0)), &snapshot);
    assert_eq!(
        (decision.action, decision.attribution),
        (Action::Hold, None)
    );
}

#[test]
fn silence_holds() {
    let mut snapshot = three_of_twelve(&well(), &well());
    snapshot.devices[0].last_seen = Some(START);
    let mut policy = policy();
    policy.gates.silence_secs = SOAK_SECS;
    let decision = decide(&policy, &rollout(Some(0)), &snapshot);
    assert_eq!(decision.action, Action::Hold);
    assert!(matches!(
        decision.reasons[0],
        Reason::Silent {
            devices: 1,
            treated: 3,
            ..
        }
    ));
}

#[test]
fn a_rollout_that_is_not_running_holds() {
    let snapshot = three_of_twelve(&scores(0.02, 1.84, 1.2), &well());
    for state in [
        RolloutState::Draft,
        RolloutState::Paused,
        RolloutState::RolledBack,
    ] {
        let rollout = Rollout {
            state,
            ..rollout(Some(0))
        };
        assert_eq!(decide(&policy(), &rollout, &snapshot).action, Action::Hold);
    }
}

#[test]
fn a_snapshot_of_another_generation_decides_nothing() {
    let snapshot = Snapshot {
        generation: 3,
        ..three_of_twelve(&well(), &well())
    };
    let decision = decide(&policy(), &rollout(Some(0)), &snapshot);
    assert_eq!(decision.reasons, [Reason::SnapshotStale]);
}

#[test]
fn arms_too_small_for_the_certainty_are_refused_with_the_least_number() {
    let mut policy = policy();
    assert_eq!(policy.admissible(12), Ok(()));
    // 3 of 11: 1/165 is above 0.005; 3 of 12: 1/220 is below.
    policy.certainty.alpha = 0.005;
    let why = policy.admissible(11).unwrap_err();
    assert!(
        matches!(
            why,
            Inadmissible::Uncertain {
                stage: 1,
                devices_least: Some(12),
                ..
            }
        ),
        "{why:?}"
    );
    assert_eq!(
        why.to_string(),
        "policy: stage 1 treats 3 of 11 devices, so no verdict can be surer than p = 0.0061, and \
         the policy asks for 0.005; a cohort of 12 devices would do"
    );
    let decision = decide(
        &policy,
        &rollout(None),
        &snapshot(11, 0, 3, &well(), &well()),
    );
    assert_eq!(decision.action, Action::Hold);
    assert!(matches!(decision.reasons[0], Reason::Inadmissible { .. }));
}

#[test]
fn a_first_install_whose_first_stage_is_empty_is_refused_with_the_least_number() {
    let policy = policy();
    assert!(policy.holdout > 0);
    let why = policy.admissible_uncompared(policy.holdout).unwrap_err();
    let least = Some(policy.holdout + 1);
    assert!(
        matches!(&why, Inadmissible::StageEmpty { stage: 1, treated: 0, devices_least, .. }
            if *devices_least == least),
        "{why:?}"
    );
    assert_eq!(policy.admissible_uncompared(policy.holdout + 1), Ok(()));
}

#[test]
fn twelve_devices_certify_what_the_documentation_says() {
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert!(close(p_least(12, 1, 0), 1.0 / 12.0));
    assert!(close(p_least(12, 2, 0), 1.0 / 66.0));
    assert!(close(p_least(12, 3, 0), 1.0 / 220.0));
    assert!(
        close(p_least(12, 3, 1), 10.0 / 220.0),
        "one of three may claim to be well"
    );
    assert_eq!(p_least(12, 12, 0), 1.0);
    assert_eq!(p_least(12, 1, 1), 1.0);
}

#[test]
fn liars_need_an_honest_majority_in_each_arm() {
    let policy = policy_with_liars(2);
    assert!(matches!(
        policy.admissible(12),
        Err(Inadmissible::ArmTooSmall {
            stage: 1,
            arm_least: 5,
            devices_least: None,
            ..
        })
    ));
    assert_eq!(policy_with_liars(1).admissible(12), Ok(()));
}

#[test]
fn figures_that_mean_nothing_are_refused() {
    let bad: [fn(&mut Policy); 9] = [
        |it| it.stages.clear(),
        |it| it.stages[0].treated = Treated::All,
        |it| it.certainty.alpha = 0.0,
        |it| it.certainty.alpha = f64::NAN,
        |it| it.limits.psi_max = f64::NAN,
        |it| it.limits.latency_ratio_max = 1.0,
        |it| it.gates.succeeded_share_min_ppm = 400_000,
        |it| it.gates.windows_min = 0,
        |it| it.trial.secs_max = 1,
    ];
    for spoil in bad {
        let mut policy = policy();
        spoil(&mut policy);
        assert!(matches!(
            policy.admissible(1_000),
            Err(Inadmissible::Figure(_))
        ));
    }
}

#[test]
fn a_policy_has_no_defaults_and_no_unknown_fields() {
    let mut json = serde_json::to_value(policy()).unwrap();
    assert_eq!(
        serde_json::from_value::<Policy>(json.clone()).unwrap(),
        policy()
    );
    json["certainty"]["confidence"] = serde_json::json!(1);
    assert!(serde_json::from_value::<Policy>(json.clone()).is_err());
    json["certainty"].as_object_mut().unwrap().clear();
    assert!(serde_json::from_value::<Policy>(json).is_err());
}

#[test]
fn a_decision_survives_json() {
    let snapshot = three_of_twelve(&scores(0.02, 1.84, 1.2), &well());
    let decision = decide(&policy(), &rollout(Some(0)), &snapshot);
    let json = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&json).unwrap(), decision);
}

#[test]
fn illegal_decisions_are_told_apart() {
    let (policy, rollout) = (policy(), rollout(Some(0)));
    let snapshot = three_of_twelve(&well(), &well());
    let good = decide(&policy, &rollout, &snapshot);
    let illegal = |change: &dyn Fn(&mut Decision)| {
        let mut decision = good.clone();
        change(&mut decision);
        check(&decision, &policy, &rollout, &snapshot, NOW).unwrap_err()
    };
    let held_out = snapshot.devices[11].device.clone();
    let treated = snapshot.devices[0].device.clone();
    let skipped = snapshot.devices[8].device.clone();
    let advance = |stage, devices| {
        move |it: &mut Decision| {
            let _: &Vec<DeviceId> = &devices;
            it.action = Action::Advance {
                stage,
                devices: Vec::clone(&devices),
            };
        }
    };
    assert_eq!(illegal(&|it| it.generation = 3), Illegal::Generation);
    assert_eq!(illegal(&|it| it.reasons.clear()), Illegal::NoReason);
    assert_eq!(illegal(&|it| it.action = Action::Notify), Illegal::NoNotice);
    assert_eq!(illegal(&advance(2, vec![])), Illegal::StageSkipped);
    assert_eq!(illegal(&advance(1, vec![held_out])), Illegal::DeviceNotNext);
    assert_eq!(
        illegal(&advance(1, vec![treated.clone()])),
        Illegal::DeviceNotNext
    );
    assert_eq!(illegal(&advance(1, vec![skipped])), Illegal::DeviceNotNext);
    let many: Vec<DeviceId> = snapshot.devices[3..8]
        .iter()
        .map(|it| it.device.clone())
        .collect();
    assert_eq!(illegal(&advance(1, many)), Illegal::TooManyTreated);
    assert_eq!(
        illegal(&|it| it.action = Action::Complete),
        Illegal::NotLastStage
    );
    assert_eq!(
        illegal(&|it| it.attribution = Some(Attribution::Baseline)),
        Illegal::Blamed
    );
    let back = Action::RollBack {
        devices: vec![treated],
    };
    assert_eq!(illegal(&|it| it.action = back.clone()), Illegal::NotBlamed);
    let blamed = |it: &mut Decision| {
        it.action = back.clone();
        it.attribution = Some(Attribution::Release);
    };
    assert_eq!(illegal(&blamed), Illegal::NotTheTreated);
    let early = check(&good, &policy, &rollout, &snapshot, UnixSecs(START.0 + 1));
    assert_eq!(early, Err(Illegal::NotSoaked));
    let mut waiting = snapshot.clone();
    waiting.devices[..2]
        .iter_mut()
        .for_each(|view| view.outcome = None);
    let early = check(&good, &policy, &rollout, &waiting, NOW);
    assert_eq!(early, Err(Illegal::TooFewCommitted));
    waiting.devices[0].outcome = failed();
    let ill = check(&good, &policy, &rollout, &waiting, NOW);
    assert_eq!(ill, Err(Illegal::TooManyFailed));
}

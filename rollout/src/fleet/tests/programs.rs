//! Releases of the devices' own programs: no figures, so outcomes, silence and soak decide.

use alloc::string::ToString;

use bellwether_package::ids::{AGENT_SLOT, SlotName, UnixSecs};

use super::super::*;
use super::bench::*;

fn programs(stage: Option<u8>) -> Rollout {
    Rollout {
        slot: SlotName::new(AGENT_SLOT).unwrap(),
        ..rollout(stage)
    }
}

/// Nobody sends windows of programs.
fn without_figures(treated: usize) -> Snapshot {
    let nothing = Scores::default();
    let mut snapshot = snapshot(12, treated, 3, &nothing, &nothing);
    for view in &mut snapshot.devices {
        view.scores = None;
    }
    snapshot
}

#[test]
fn programs_advance_on_outcomes_alone_where_a_model_would_wait_for_figures() {
    let snapshot = without_figures(3);
    let decision = decide(&policy(), &programs(Some(0)), &snapshot);
    assert!(
        matches!(&decision.action, Action::Advance { stage: 1, devices } if devices.len() == 3)
    );
    assert!(decision.reasons.contains(&Reason::OutcomesAlone));
    assert_eq!(decision.attribution, None);
    let model = decide(&policy(), &rollout(Some(0)), &snapshot);
    assert_eq!(model.action, Action::Hold);
}

#[test]
fn programs_go_through_all_stages_and_keep_their_holdout_to_the_last() {
    let (policy, mut rollout) = (policy(), programs(None));
    let mut snapshot = without_figures(0);
    for expected in [3, 6, 9, 12] {
        let decision = decide(&policy, &rollout, &snapshot);
        let Action::Advance { stage, devices } = &decision.action else {
            panic!("{decision:?}")
        };
        rollout.stage = Some(*stage);
        for view in &mut snapshot.devices {
            if devices.contains(&view.device) {
                view.arm = Arm::Treated { stage: *stage };
                view.assigned_at = Some(START);
                view.outcome = committed();
            }
        }
        let treated = snapshot.devices.iter().filter(|view| view.arm.is_treated());
        assert_eq!(treated.count(), expected);
    }
    let last = decide(&policy, &rollout, &snapshot);
    assert_eq!(last.action, Action::Complete);
}

#[test]
fn programs_wait_for_their_devices_and_their_soak_and_for_the_silent() {
    let (policy, rollout) = (policy(), programs(Some(0)));
    let mut waiting = without_figures(3);
    waiting.devices[0].outcome = None;
    let decision = decide(&policy, &rollout, &waiting);
    assert_eq!(decision.action, Action::Hold);
    assert!(matches!(decision.reasons[0], Reason::Waiting { .. }));
    let early = plan(
        &policy,
        &rollout,
        &without_figures(3),
        UnixSecs(START.0 + 5),
    );
    assert!(matches!(early.reasons[0], Reason::Soaking { secs: 5, .. }));
    let mut hasty = policy.clone();
    hasty.gates.silence_secs = SOAK_SECS;
    let mut silent = without_figures(3);
    silent.devices[0].last_seen = Some(START);
    let decision = decide(&hasty, &rollout, &silent);
    assert!(matches!(decision.reasons[0], Reason::Silent { .. }));
}

#[test]
fn programs_that_fail_on_too_many_devices_are_taken_back() {
    let mut ill = without_figures(3);
    ill.devices[1].outcome = failed();
    let decision = decide(&policy(), &programs(Some(0)), &ill);
    assert!(matches!(&decision.action, Action::RollBack { devices } if devices.len() == 3));
    assert!(decision.reasons[0].to_string().contains("1 of 3"));
}

#[test]
fn programs_need_no_arms_that_could_be_compared() {
    let mut strict = policy();
    strict.certainty.alpha = 0.0005;
    let decision = decide(&strict, &programs(None), &without_figures(0));
    assert!(matches!(decision.action, Action::Advance { stage: 0, .. }));
    let model = decide(&strict, &rollout(None), &without_figures(0));
    assert!(matches!(model.reasons[0], Reason::Inadmissible { .. }));
}

//! Whose fault is it: each row of the table.

extern crate std;

use alloc::string::ToString;
use alloc::vec::Vec;

use super::super::*;
use super::bench::*;

fn decided(snapshot: &Snapshot) -> Decision {
    let decision = decide(&policy(), &rollout(Some(0)), snapshot);
    std::println!("{}: {}", decision.action.name(), decision.reasons[0]);
    decision
}

fn treated(snapshot: &Snapshot) -> Vec<bellwether_protocol::DeviceId> {
    let treated = snapshot.devices.iter().filter(|view| view.arm.is_treated());
    treated.map(|view| view.device.clone()).collect()
}

#[test]
fn nothing_moved_so_the_rollout_advances() {
    let alike = scores(0.02, 0.03, 0.01);
    let decision = decided(&three_of_twelve(&alike, &alike));
    assert!(
        matches!(decision.action, Action::Advance { stage: 1, ref devices } if devices.len() == 3)
    );
    assert_eq!(
        (decision.verdict, decision.attribution),
        (Verdict::Healthy, None)
    );
}

#[test]
fn devices_that_export_nothing_never_advance_a_rollout() {
    let untold = |fields| Divergence {
        fields: alloc::vec![FieldScore::default(); fields],
    };
    let mut no_inputs = scores(0.02, 0.03, 0.01);
    no_inputs.inputs_reference = Some(untold(3));
    let mut no_outputs = scores(0.02, 0.03, 0.01);
    no_outputs.outputs_own = untold(1);
    for silent in [no_inputs, no_outputs] {
        let decision = decided(&three_of_twelve(&silent, &silent));
        assert_eq!(decision.action, Action::Hold);
        assert_eq!(decision.verdict, Verdict::Insufficient);
    }
}

#[test]
fn a_release_trained_on_the_wrong_slice_is_rolled_back() {
    let snapshot = three_of_twelve(&scores(0.02, 1.84, 1.2), &scores(0.02, 0.02, 0.01));
    let decision = decided(&snapshot);
    assert_eq!(
        decision.action,
        Action::RollBack {
            devices: treated(&snapshot)
        }
    );
    assert_eq!(decision.attribution, Some(Attribution::Baseline));
    assert_eq!(
        decision.reasons[0].to_string(),
        "inputs of the 3 treated devices lie far from release 2.0.0's baseline (median PSI 1.84 on \
         V2; control 0.02 against its own), p = 0.0045 over 12 devices"
    );
}

#[test]
fn a_release_whose_outputs_alone_moved_is_rolled_back() {
    let snapshot = three_of_twelve(&scores(0.02, 0.03, 0.9), &scores(0.02, 0.02, 0.01));
    let decision = decided(&snapshot);
    assert_eq!(
        decision.action,
        Action::RollBack {
            devices: treated(&snapshot)
        }
    );
    assert_eq!(
        (decision.verdict, decision.attribution),
        (Verdict::Drifted, Some(Attribution::Release))
    );
    assert_eq!(
        decision.reasons[0].to_string(),
        "outputs of the 3 treated devices lie far from what release 2.0.0 is expected to give \
         (median PSI 0.90 on fault; control 0.01 against its own), p = 0.0045 over 12 devices"
    );
}

#[test]
fn a_release_that_gives_nan_or_errors_or_is_slow_is_rolled_back() {
    let well = scores(0.02, 0.02, 0.01);
    let ills = [
        Scores {
            nonfinite_share: 0.04,
            ..well.clone()
        },
        Scores {
            error_share: 0.04,
            ..well.clone()
        },
        Scores {
            latency_us_p99: Some(2_500.0),
            ..well.clone()
        },
    ];
    for ill in ills {
        let decision = decided(&three_of_twelve(&ill, &well));
        assert!(matches!(decision.action, Action::RollBack { .. }));
        assert_eq!(
            (decision.verdict, decision.attribution),
            (Verdict::Failing, Some(Attribution::Release))
        );
    }
}

#[test]
fn a_world_that_moved_is_no_releases_fault() {
    let snapshot = three_of_twelve(&scores(1.1, 1.2, 0.8), &scores(1.0, 1.0, 0.7));
    let decision = decided(&snapshot);
    assert_eq!(decision.action, Action::Notify);
    assert_eq!(
        (decision.verdict, decision.attribution),
        (Verdict::Drifted, Some(Attribution::World))
    );
    let Notice::Retrain {
        fields, devices, ..
    } = &decision.notices[0]
    else {
        panic!()
    };
    assert_eq!((fields[0].field.as_str(), *devices), ("V2", 12));
    std::println!("{}", decision.notices[0]);
}

#[test]
fn a_release_that_fits_the_moved_world_goes_on() {
    let snapshot = three_of_twelve(&scores(1.1, 0.02, 0.02), &scores(1.0, 1.0, 0.7));
    let decision = decided(&snapshot);
    assert!(
        matches!(decision.action, Action::Advance { .. }),
        "it is the cure"
    );
    assert_eq!(decision.attribution, Some(Attribution::World));
    assert!(matches!(&decision.notices[0], Notice::Retrain { release, .. } if release == "1.0.0"));
}

#[test]
fn a_release_that_answers_worse_in_a_moved_world_is_still_rolled_back() {
    let ill = Scores {
        nonfinite_share: 0.2,
        ..scores(1.1, 1.1, 0.02)
    };
    let decision = decided(&three_of_twelve(&ill, &scores(1.0, 1.0, 0.7)));
    assert!(matches!(decision.action, Action::RollBack { .. }));
}

#[test]
fn one_device_away_from_its_cohort_is_flagged_and_nothing_is_rolled_back() {
    let well = scores(0.02, 0.02, 0.01);
    for place in [0, 11] {
        let mut snapshot = three_of_twelve(&well, &well);
        snapshot.devices[place].scores = Some(scores(6.0, 6.0, 4.0));
        let mut lenient = policy();
        lenient.certainty.alpha = 0.02;
        let decision = decide(&lenient, &rollout(Some(0)), &snapshot);
        assert_eq!(decision.attribution, Some(Attribution::Sensor));
        let Notice::Sensor { device, figure, .. } = &decision.notices[0] else {
            panic!()
        };
        assert_eq!(
            (device, figure.value),
            (&snapshot.devices[place].device, 6.0)
        );
        assert!(matches!(decision.action, Action::Advance { .. }));
        std::println!("{}", decision.notices[0]);
    }
}

#[test]
fn a_sensor_flag_alone_notifies_while_the_stage_soaks() {
    let well = scores(0.02, 0.02, 0.01);
    let mut snapshot = three_of_twelve(&well, &well);
    snapshot.devices[5].scores = Some(scores(6.0, 6.0, 4.0));
    let mut rollout = rollout(Some(0));
    rollout.stage_since = NOW;
    let decision = decide(&policy(), &rollout, &snapshot);
    assert_eq!(decision.action, Action::Notify);
    assert_eq!(decision.attribution, Some(Attribution::Sensor));
}

#[test]
fn a_stuck_sensor_is_seen_by_values_outside_the_training_range() {
    let well = scores(0.02, 0.02, 0.01);
    let mut snapshot = three_of_twelve(&well, &well);
    let mut stuck = well;
    let field = &mut stuck.inputs_reference.as_mut().unwrap().fields[2];
    *field = FieldScore {
        psi: None,
        outside_rise: Some(1.0),
    };
    snapshot.devices[7].scores = Some(stuck);
    let decision = decide(&policy(), &rollout(Some(0)), &snapshot);
    assert!(
        decision.notices[0]
            .to_string()
            .contains("100.0 % more values of V3")
    );
}

#[test]
fn inputs_of_one_arm_only_hold_because_nobody_can_tell() {
    let snapshot = three_of_twelve(&scores(1.5, 1.5, 0.01), &scores(0.02, 0.02, 0.01));
    let decision = decided(&snapshot);
    assert_eq!(decision.action, Action::Hold);
    assert_eq!(decision.attribution, Some(Attribution::Unknown));
}

#[test]
fn a_difference_that_is_not_certain_holds() {
    let mut snapshot = three_of_twelve(&scores(0.02, 1.8, 0.01), &scores(0.02, 0.02, 0.01));
    // One treated device says that it is well: 10 of 220 draws would show as much.
    snapshot.devices[0].scores = Some(scores(0.02, 0.02, 0.01));
    let decision = decided(&snapshot);
    assert_eq!(decision.action, Action::Hold);
    assert_eq!(decision.attribution, Some(Attribution::Unknown));
    assert!(
        decision.reasons[0]
            .to_string()
            .contains("p = 0.0455 over 12 devices")
    );
}

#[test]
fn too_few_devices_measured_hold() {
    let well = scores(0.02, 0.02, 0.01);
    let mut snapshot = three_of_twelve(&well, &well);
    let few = Scores { windows: 2, ..well };
    snapshot.devices[3..]
        .iter_mut()
        .for_each(|view| view.scores = Some(few.clone()));
    let decision = decided(&snapshot);
    assert_eq!(
        (decision.action, decision.verdict),
        (Action::Hold, Verdict::Insufficient)
    );
}

#[test]
fn responses_are_the_policys() {
    let snapshot = three_of_twelve(&scores(0.02, 1.84, 1.2), &scores(0.02, 0.02, 0.01));
    let mut policy = policy();
    policy.responses.baseline = Response::Pause;
    assert_eq!(
        decide(&policy, &rollout(Some(0)), &snapshot).action,
        Action::Pause
    );
    policy.responses.baseline = Response::Disable;
    let decision = decide(&policy, &rollout(Some(0)), &snapshot);
    assert_eq!(
        decision.action,
        Action::Disable {
            devices: treated(&snapshot)
        }
    );
}

#[test]
fn without_an_older_release_what_moved_holds_and_nothing_moved_goes_on() {
    let mut first = rollout(Some(0));
    first.previous = None;
    let mut snapshot = three_of_twelve(&scores(0.02, 0.02, 0.01), &scores(0.0, 0.0, 0.0));
    snapshot.devices[3..]
        .iter_mut()
        .for_each(|view| view.scores = None);
    let decision = decide(&policy(), &first, &snapshot);
    assert!(matches!(decision.action, Action::Advance { .. }));
    snapshot.devices[..3]
        .iter_mut()
        .for_each(|view| view.scores = Some(scores(1.0, 1.0, 0.0)));
    let decision = decide(&policy(), &first, &snapshot);
    assert_eq!(
        (decision.action, decision.attribution),
        (Action::Hold, Some(Attribution::Unknown))
    );
}

#[test]
fn a_large_cohort_is_judged_by_random_draws_and_always_alike() {
    let snapshot = snapshot(
        60,
        20,
        5,
        &scores(0.02, 1.84, 1.2),
        &scores(0.02, 0.02, 0.01),
    );
    let decision = decided(&snapshot);
    assert!(matches!(decision.action, Action::RollBack { .. }));
    assert_eq!(decision, decided(&snapshot));
}

#[test]
fn the_watch_tells_world_sensor_and_too_few() {
    let policy = WatchPolicy {
        limits: policy().limits,
        windows_min: 3,
        rows_min: 1_000,
        devices_min: 5,
        liars: 1,
        silence_secs: 3_600,
    };
    let (well, moved) = (scores(0.02, 0.02, 0.01), scores(1.4, 1.4, 0.8));
    let watched = |snapshot: &Snapshot| watch(&policy, "1.0.0", snapshot, NOW);

    assert_eq!(watched(&snapshot(12, 0, 0, &well, &well)), []);
    let world = watched(&snapshot(12, 0, 0, &moved, &moved));
    assert!(matches!(
        &world[..],
        [Finding::Notice(Notice::Retrain { devices: 12, .. })]
    ));

    let mut one = snapshot(12, 0, 0, &well, &well);
    one.devices[4].scores = Some(moved.clone());
    let sensor = watched(&one);
    assert!(
        matches!(&sensor[..], [Finding::Notice(Notice::Sensor { device, .. })]
        if *device == one.devices[4].device)
    );

    one.devices[..4]
        .iter_mut()
        .for_each(|view| view.scores = Some(moved.clone()));
    let many = watched(&one);
    assert_eq!(
        many,
        [Finding::ManyMoved {
            devices: 5,
            measured: 12
        }]
    );

    let mut silent = snapshot(12, 0, 0, &moved, &moved);
    silent.devices[..8]
        .iter_mut()
        .for_each(|view| view.last_seen = Some(START));
    silent.devices[..8]
        .iter_mut()
        .for_each(|view| view.last_seen = Some(bellwether_package::ids::UnixSecs(0)));
    assert_eq!(
        watched(&silent),
        [Finding::TooFewFigures {
            measured: 4,
            devices_min: 5
        }]
    );
}

//! What holds for any snapshot.

use alloc::vec::Vec;

use bellwether_package::ids::UnixSecs;
use proptest::prelude::*;

use super::super::*;
use super::bench::*;

/// Any figure that a device can tell.
fn any_figure() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1e12), 0.0..0.5_f64, 0.0..10.0_f64]
}

prop_compose! {
    fn any_scores()(
        psi in prop::array::uniform3(any_figure()),
        shares in prop::array::uniform3(0.0..=1.0_f64),
        latency in prop::option::of(0.0..1e9_f64),
        windows in 0_u32..6,
    ) -> Scores {
        let mut scores = scores(psi[0], psi[1], psi[2]);
        scores.inputs_own.fields[2].outside_rise = Some(shares[2] - 0.5);
        Scores { error_share: shares[0], nonfinite_share: shares[1], latency_us_p99: latency,
                 windows, ..scores }
    }
}

prop_compose! {
    /// A device of any sort, in any state.
    fn any_view(n: usize)(
        arm in prop_oneof![
            (0_u8..4).prop_map(|stage| Arm::Treated { stage }), Just(Arm::Control), Just(Arm::Holdout)
        ],
        assigned in any::<bool>(),
        seen in prop::option::of(0_u64..3 * SOAK_SECS),
        outcome in prop_oneof![Just(None), Just(committed()), Just(failed())],
        scores in prop::option::weighted(0.8, any_scores()),
    ) -> DeviceView {
        DeviceView {
            device: device(n),
            arm,
            assigned_at: (assigned && arm.is_treated()).then_some(START),
            last_seen: seen.map(|secs| UnixSecs(START.0 + secs)),
            phase: None,
            serving: None,
            outcome,
            scores,
        }
    }
}

prop_compose! {
    fn any_snapshot()(cohort in 0_usize..24)(
        devices in (0..cohort).map(any_view).collect::<Vec<_>>()
    ) -> Snapshot {
        let (inputs, outputs) = names();
        Snapshot { generation: 4, devices, inputs, outputs }
    }
}

/// What the honest devices see, and what must follow.
#[derive(Debug, Clone, Copy)]
enum Case {
    Well,
    World,
    WorldCured,
    Baseline,
    Outputs,
    Nonfinite,
    Slow,
    Failed,
}

const CASES: [Case; 8] = [
    Case::Well,
    Case::World,
    Case::WorldCured,
    Case::Baseline,
    Case::Outputs,
    Case::Nonfinite,
    Case::Slow,
    Case::Failed,
];

impl Case {
    fn arms(self) -> (Scores, Scores) {
        let well = scores(0.02, 0.02, 0.01);
        let treated = match self {
            Self::Well | Self::Failed => well.clone(),
            Self::World => scores(1.2, 1.3, 0.9),
            Self::WorldCured => scores(1.2, 0.03, 0.02),
            Self::Baseline => scores(0.02, 1.8, 1.1),
            Self::Outputs => scores(0.02, 0.02, 1.1),
            Self::Nonfinite => Scores {
                nonfinite_share: 0.3,
                ..well.clone()
            },
            Self::Slow => Scores {
                latency_us_p99: Some(9_000.0),
                ..well.clone()
            },
        };
        let moved = matches!(self, Self::World | Self::WorldCured);
        (treated, if moved { scores(1.1, 1.1, 0.8) } else { well })
    }

    fn expected(self) -> (&'static str, Option<Attribution>) {
        match self {
            Self::Well => ("advance", None),
            Self::World => ("notify", Some(Attribution::World)),
            Self::WorldCured => ("advance", Some(Attribution::World)),
            Self::Baseline => ("roll_back", Some(Attribution::Baseline)),
            Self::Outputs | Self::Nonfinite | Self::Slow | Self::Failed => {
                ("roll_back", Some(Attribution::Release))
            }
        }
    }

    fn snapshot(self, cohort: usize, treated: usize) -> Snapshot {
        let (of_treated, of_control) = self.arms();
        let mut snapshot = snapshot(cohort, treated, 0, &of_treated, &of_control);
        if matches!(self, Self::Failed) {
            snapshot.devices[..treated]
                .iter_mut()
                .for_each(|view| view.outcome = failed());
        }
        snapshot
    }
}

/// Anything, or what the devices of another case would tell.
fn any_lie() -> impl Strategy<Value = Scores> {
    let other = prop::sample::select(&CASES[..]).prop_map(|case| case.arms().0);
    prop_oneof![1 => any_scores(), 3 => other]
}

/// A flagged sensor is no verdict on the rollout.
fn verdict_of(decision: &Decision) -> (&'static str, Option<Attribution>) {
    let attribution = decision.attribution.filter(|it| *it != Attribution::Sensor);
    (decision.action.name(), attribution)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_plan_is_legal(
        snapshot in any_snapshot(),
        stage in prop::option::of(0_u8..5),
        liars in 0_u32..3,
        secs in 0_u64..3 * SOAK_SECS,
        has_previous in any::<bool>(),
    ) {
        let policy = policy_with_liars(liars);
        let mut rollout = rollout(stage);
        rollout.previous = rollout.previous.filter(|_| has_previous);
        let now = UnixSecs(START.0 + secs);
        let decision = plan(&policy, &rollout, &snapshot, now);
        prop_assert_eq!(check(&decision, &policy, &rollout, &snapshot, now), Ok(()));
        prop_assert!(!decision.reasons.is_empty());
    }

    #[test]
    fn the_order_of_devices_does_not_matter(
        snapshot in any_snapshot(), stage in prop::option::of(0_u8..4)
    ) {
        let mut reversed = snapshot.clone();
        reversed.devices.reverse();
        let (a, b) = (
            plan(&policy(), &rollout(stage), &snapshot, NOW),
            plan(&policy(), &rollout(stage), &reversed, NOW),
        );
        prop_assert_eq!((a.action.name(), a.verdict, a.attribution),
                        (b.action.name(), b.verdict, b.attribution));
    }

    #[test]
    fn silence_never_advances(mut snapshot in any_snapshot(), stage in 0_u8..4, liars in 0_u32..3) {
        for view in &mut snapshot.devices {
            view.last_seen = Some(START);
            view.outcome = None;
        }
        let mut policy = policy_with_liars(liars);
        policy.gates.silence_secs = SOAK_SECS;
        let decision = plan(&policy, &rollout(Some(stage)), &snapshot, NOW);
        prop_assert!(!["advance", "complete"].contains(&decision.action.name()));
    }

    /// As many devices as the policy says may tell anything: figures and outcomes.
    #[test]
    fn liars_change_no_verdict(
        case in prop::sample::select(&CASES[..]),
        cohort in 6_usize..24,
        treated_share in 0.1..0.9_f64,
        liars in 0_u32..4,
        lies in prop::collection::vec((any::<bool>(), any_lie(), any::<bool>()), 4),
    ) {
        let treated = ((cohort as f64 * treated_share) as usize).max(1);
        let mut policy = policy_with_liars(liars);
        let stage = |devices| Stage { treated: devices, soak_secs: SOAK_SECS };
        policy.holdout = 0;
        policy.stages = [stage(Treated::Devices(treated as u32)), stage(Treated::All)].into();
        prop_assume!(policy.admissible(cohort as u32).is_ok());

        let rollout = rollout(Some(0));
        let mut snapshot = case.snapshot(cohort, treated);
        prop_assert_eq!(verdict_of(&decide(&policy, &rollout, &snapshot)), case.expected());

        for (lie, (in_treated, scores, says_committed)) in
            lies.into_iter().take(liars as usize).enumerate()
        {
            let place = if in_treated { lie } else { cohort - 1 - lie };
            let view = &mut snapshot.devices[place];
            view.scores = Some(Scores { windows: 10, ..scores });
            if view.arm.is_treated() {
                view.outcome = if says_committed { committed() } else { failed() };
            }
        }
        let decision = decide(&policy, &rollout, &snapshot);
        prop_assert_eq!(verdict_of(&decision), case.expected(), "{:?}", decision.reasons);
    }
}

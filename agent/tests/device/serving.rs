//! Orders, trials, refusals and reports, end to end.

use bellwether_package::{SlotName, UnixSecs};
use bellwether_protocol::{
    Desired, DeviceId, Documents, Note, OutcomeKind, ProofFailure, Record, Refusal, Sequence,
    SlotAssignment, Tally, Topic, TrialFailure, to_vec,
};

use crate::bench::{Bench, DEVICE, wait};
use crate::model;
use crate::package::Package;
use crate::people::{NEVER, SLOT, trial};

fn doubling(bench: &Bench) -> Package {
    Package::approved(&bench.people, 1, &model::times(2.0), |x| 2.0 * x)
}

fn tripling(bench: &Bench) -> Package {
    Package::approved(&bench.people, 2, &model::times(3.0), |x| 3.0 * x)
}

fn rooting(bench: &Bench) -> Package {
    Package::approved(&bench.people, 3, &model::root(), f32::sqrt)
}

#[test]
fn an_order_is_fetched_proved_served_committed_and_survives_without_a_network() {
    let mut bench = Bench::new();
    let mut agent = bench.start();
    assert_eq!(bench.ask([1.0, 2.0]).unwrap().0, 404, "no slot yet");
    let first = doubling(&bench);
    bench.install(&first);
    assert_eq!(
        bench.scores([1.0, 2.0]),
        (vec![Some(2.0), Some(4.0)], first.id.to_string())
    );
    assert_eq!(bench.wait_outcome(first.id), OutcomeKind::Committed);
    assert_eq!(bench.get("/v2/health/ready").unwrap().0, 200);
    assert_eq!(
        bench.get(&format!("/v2/models/{SLOT}")).unwrap().1["versions"][0],
        "1.1.0"
    );
    bench.server.world().down = true;
    agent.kill();
    let _agent = bench.start();
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(2.0), Some(4.0)]);
    assert!(!bench.status().unwrap().connected);
}

#[test]
fn no_request_fails_while_a_release_replaces_another() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let (first, second) = (doubling(&bench), tripling(&bench));
    bench.install(&first);
    bench.order(&second, 1, 5);
    wait("the second release's commit", || {
        let (status, answer) = bench.ask([1.0, 1.0]).unwrap();
        assert_eq!(status, 200, "{answer}");
        let slot = bench.slot()?;
        (slot.phase == "serving" && slot.serving == Some(second.id.to_string())).then_some(())
    });
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(3.0), Some(6.0)]);
    assert_eq!(bench.wait_outcome(second.id), OutcomeKind::Committed);
    let third = rooting(&bench);
    bench.install(&third);
    wait("the first release's removal", || {
        (bench.packages(".bwp").len() == 2).then_some(())
    });
    assert!(
        !bench
            .packages(".bwp")
            .iter()
            .any(|name| name.starts_with(&first.id.to_string()))
    );
}

#[test]
fn a_candidate_that_answers_nan_is_taken_back_by_the_device_itself() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let (first, second) = (doubling(&bench), rooting(&bench));
    bench.install(&first);
    bench.order(&second, 3600, 1_000_000);
    wait("the trial", || {
        bench.slot().filter(|slot| slot.phase == "trial")
    });
    wait("the candidate's answers", || {
        (bench.scores([4.0, 9.0]).1 == second.id.to_string()).then_some(())
    });
    bench.server.world().down = true;
    for _ in 0..200 {
        let (status, _) = bench.ask([-1.0, 4.0]).unwrap();
        assert_eq!(status, 200);
        if bench.scores([1.0, 2.0]).1 == first.id.to_string() {
            break;
        }
    }
    wait("the good release", || {
        let slot = bench.slot()?;
        (slot.phase == "serving" && slot.serving == Some(first.id.to_string())).then_some(())
    });
    bench.server.world().down = false;
    let outcome = bench.wait_outcome(second.id);
    assert!(
        matches!(
            outcome,
            OutcomeKind::RolledBackItself(TrialFailure::Nonfinite { .. })
        ),
        "{outcome:?}"
    );
}

#[test]
fn releases_that_must_not_run_never_answer() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let first = doubling(&bench);
    bench.install(&first);

    let unapproved = Package::bare(4, &model::times(4.0), |x| 4.0 * x);
    bench.order(&unapproved, 0, 0);
    let outcome = bench.wait_outcome(unapproved.id);
    let expected = Refusal::NotApproved {
        persons: 0,
        threshold: 2,
    };
    assert_eq!(outcome, OutcomeKind::Refused(expected));

    let wrong = Package::approved(&bench.people, 5, &model::times(5.0), |x| 6.0 * x);
    bench.order(&wrong, 0, 0);
    let outcome = bench.wait_outcome(wrong.id);
    assert!(
        matches!(
            outcome,
            OutcomeKind::FailedBeforeServing(ProofFailure::GoldenMismatch { .. })
        ),
        "{outcome:?}"
    );

    let revoked = tripling(&bench);
    let list = bench.people.revocations(2, &[revoked.id]);
    bench
        .server
        .world()
        .files
        .insert("/v1/revocations".into(), list);
    bench.order(&revoked, 0, 0);
    assert_eq!(
        bench.wait_outcome(revoked.id),
        OutcomeKind::Refused(Refusal::Revoked)
    );

    let mut damaged = rooting(&bench);
    *damaged.bytes.last_mut().unwrap() ^= 1;
    bench.order(&damaged, 0, 0);
    assert_eq!(
        bench.wait_outcome(damaged.id),
        OutcomeKind::Refused(Refusal::Damaged)
    );

    assert_eq!(bench.scores([1.0, 2.0]).1, first.id.to_string());
    assert!(bench.packages(".part").is_empty());
    assert_eq!(bench.packages(".bwp"), [format!("{}.bwp", first.id)]);
}

#[test]
fn a_serving_release_that_is_revoked_stops_answering() {
    let mut bench = Bench::new();
    let mut agent = bench.start();
    let first = doubling(&bench);
    bench.install(&first);
    let list = bench.people.revocations(2, &[first.id]);
    bench
        .server
        .world()
        .files
        .insert("/v1/revocations".into(), list);
    agent.kill();
    let _agent = bench.start();
    let outcome = wait("the loss", || match bench.wait_outcome(first.id) {
        OutcomeKind::Lost(why) => Some(why),
        _ => None,
    });
    assert_eq!(outcome, Refusal::Revoked);
    wait("silence", || {
        bench.ask([1.0, 2.0]).filter(|(status, _)| *status == 503)
    });
}

#[test]
fn a_revocation_that_the_server_tells_of_is_fetched_at_once() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let first = doubling(&bench);
    bench.install(&first);
    let notice = |revocations_version| {
        let documents = Documents {
            root_version: 1,
            revocations_version: Some(revocations_version),
        };
        let topic = Topic::Documents(DeviceId::new(DEVICE).unwrap()).to_string();
        (topic, to_vec(&documents).unwrap())
    };
    // By itself it would look again tomorrow. A version that is nowhere does no harm.
    let list = bench.people.revocations(2, &[first.id]);
    let mut world = bench.server.world();
    world.files.insert("/v1/revocations".into(), list);
    world.strays.extend([notice(9), notice(2)]);
    drop(world);
    wait("silence", || {
        bench.ask([1.0, 2.0]).filter(|(status, _)| *status == 503)
    });
    let lost = OutcomeKind::Lost(Refusal::Revoked);
    wait("the loss", || {
        (bench.wait_outcome(first.id) == lost).then_some(())
    });
}

#[test]
fn foreign_forged_stale_and_garbage_assignments_change_nothing() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let (first, second) = (doubling(&bench), tripling(&bench));
    bench.install(&first);
    bench
        .server
        .world()
        .files
        .insert(second.path(), second.bytes.clone());
    let slot = SlotAssignment {
        slot: SlotName::new(SLOT).unwrap(),
        desired: second.desired(),
        also_baseline: None,
        trial: trial(0, 0),
        rollout: None,
        ordered_back: false,
        treated: None,
    };
    let at = |epoch, n| Sequence { epoch, n };
    let people = &bench.people;
    let mut forged = people.assignment_of(DEVICE, at(1, 50), slot.clone(), NEVER);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let bad = [
        people.assignment_of("pump-2", at(1, 50), slot.clone(), NEVER),
        people.assignment_of(DEVICE, at(1, 50), slot.clone(), UnixSecs(10)),
        people.assignment_of(DEVICE, at(9, 50), slot.clone(), NEVER),
        people.assignment_of(DEVICE, at(1, 0), slot, NEVER),
        forged,
        b"garbage".to_vec(),
        vec![0xff; 4096],
    ];
    for bytes in bad {
        bench.server.assign(bytes);
        // Each connection sends what is new in order: a report that follows proves it was taken.
        let seen = bench.server.world().reports.len();
        wait("later reports", || {
            (bench.server.world().reports.len() > seen + 2).then_some(())
        });
    }
    let slot = bench.slot().unwrap();
    assert_eq!(
        (slot.phase.as_str(), slot.floor.as_str()),
        ("serving", "1.1")
    );
    assert_eq!(bench.scores([1.0, 2.0]).1, first.id.to_string());
}

#[test]
fn a_disabled_slot_says_why() {
    let mut bench = Bench::new();
    let mut agent = bench.start();
    let first = doubling(&bench);
    bench.install(&first);
    bench.order_desired(
        Desired::Disable {
            reason: Note::new("the pump is in repair"),
        },
        0,
        0,
    );
    let (_, answer) = wait("the end", || {
        bench.ask([1.0, 2.0]).filter(|(status, _)| *status == 503)
    });
    assert_eq!(answer["reason"], "the pump is in repair");
    let since = answer["since"].as_u64().unwrap();
    let told = answer["error"].as_str().unwrap();
    let when = UnixSecs(since).civil().to_string();
    assert!(told.contains(&when) && told.contains("in repair"), "{told}");
    agent.kill();
    let _agent = bench.start();
    let (_, answer) = wait("the same reason", || {
        bench
            .ask([1.0, 2.0])
            .filter(|(_, answer)| answer["reason"] == "the pump is in repair")
    });
    assert_eq!(answer["since"], since, "a restart is no new beginning");
}

#[test]
fn windows_reach_the_server_with_exported_fields_only() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let first = doubling(&bench);
    bench.install(&first);
    for _ in 0..10 {
        bench.scores([1.0, 2.0]);
    }
    let window = wait("a window", || {
        let world = bench.server.world();
        world
            .reports
            .iter()
            .find_map(|report| match &report.record {
                Record::Window(window) => Some(window.clone()),
                _ => None,
            })
    });
    assert!(window.is_own() && window.rows > 0 && window.latency.is_some());
    assert_eq!(
        window.inputs[0].as_ref().unwrap().total(),
        u64::from(window.rows)
    );
    assert!(window.inputs[1].is_none(), "position is not exported");
    wait("an empty outbox", || {
        let view = bench.status()?;
        (view.reports_waiting < 5).then_some(())
    });
}

#[test]
fn the_local_api_refuses_what_is_too_large_or_no_request() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let first = doubling(&bench);
    bench.install(&first);
    let path = format!("/v2/models/{SLOT}/infer");
    assert_eq!(bench.post(&path, b"{").unwrap().0, 400);
    let large = vec![b' '; (1 << 20) + 1];
    assert_eq!(bench.post(&path, &large).unwrap().0, 413);
    let body = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
    let (status, answer) = bench.post(&path, body.as_bytes()).unwrap();
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains('x'), "{answer}");
    let nothing = bench
        .post("/v2/models/no-such/infer", body.as_bytes())
        .unwrap();
    assert_eq!(nothing.0, 404);
}

#[test]
fn a_state_that_the_disk_refuses_is_tried_again_while_the_device_serves() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let (first, second) = (doubling(&bench), tripling(&bench));
    bench.install(&first);
    // A folder in the way of the state's file: the disk refuses each write of it.
    let obstacle = bench.state.join(format!("slots/{SLOT}.tmp"));
    std::fs::create_dir(&obstacle).unwrap();
    bench.order(&second, 0, 0);
    wait("the trouble to be told", || bench.status()?.trouble);
    assert_eq!(bench.scores([1.0, 2.0]).1, first.id.to_string());
    std::fs::remove_dir(&obstacle).unwrap();
    bench.wait_committed(second.id);
    assert_eq!(bench.status().unwrap().trouble, None);
}

#[test]
fn an_occupied_port_is_told_at_the_start() {
    let mut bench = Bench::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    bench.listen_on(&address);
    let mut agent = bench.spawn();
    let status = wait("the agent's end", || agent.exited());
    assert!(!status.success());
    let told = format!("cannot listen on {address}");
    assert!(bench.log().contains(&told), "{}", bench.log());
}

#[test]
fn late_labels_reach_the_server_as_counts() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let first = doubling(&bench);
    bench.install(&first);
    let (_, answer) = bench.ask([1.0, 2.0]).unwrap();
    let prediction = answer["parameters"]["prediction"].as_str().unwrap();
    // The model answered 2 and 4.
    let body = serde_json::json!({
        "labels": [{"prediction": prediction, "values": {"low": 2.5, "high": 4.0}}],
    });
    let path = format!("/v2/models/{SLOT}/labels");
    let (status, counted) = bench.post(&path, body.to_string().as_bytes()).unwrap();
    assert_eq!((status, &counted["counted"]), (200, &2.into()), "{counted}");
    let (_, again) = bench.post(&path, body.to_string().as_bytes()).unwrap();
    assert_eq!(
        (&again["counted"], &again["repeated"]),
        (&0.into(), &2.into())
    );
    let nothing = bench.post("/v2/models/no-such/labels", b"{}").unwrap();
    assert_eq!(nothing.0, 404);
    assert_eq!(bench.post(&path, b"{}").unwrap().0, 400);
    let labels = wait("labels of both fields", || {
        let world = bench.server.world();
        let labels = world
            .reports
            .iter()
            .filter_map(|report| match &report.record {
                Record::Labels(labels) => Some(labels.clone()),
                _ => None,
            });
        Some(labels.collect::<Vec<_>>()).filter(|labels| labels.len() == 2)
    });
    let mut squares = Vec::new();
    for told in &labels {
        assert_eq!((told.release, told.check(None)), (first.id, Ok(())));
        let Tally::Numbers(errors) = told.tally else {
            panic!("{told:?}");
        };
        assert_eq!(errors.labels, 1);
        squares.push((told.field, errors.sum, errors.sum_sq));
    }
    squares.sort_by_key(|(field, ..)| *field);
    assert_eq!(squares, [(0, -0.5, 0.25), (1, 0.0, 0.0)]);
}

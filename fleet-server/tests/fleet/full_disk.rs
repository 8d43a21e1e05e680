//! A full disk: told as such, and nothing that was acknowledged is lost.

use bellwether_protocol::{Ack, Outcome, OutcomeKind, Record, Topic, decode, to_vec};
use bellwether_tests::small_disk;

use crate::support::{Device, Fleet, Mqtt, SLOT, id_of, package};

/// Reports that find room in a log which the database has grown already, at most.
const REPORTS_MAX: usize = 2000;

/// Sends a report; whether the server stored it.
fn told(mqtt: &mut Mqtt, device: &Device, payload: &[u8], seq: u64) -> bool {
    assert!(mqtt.publish(&Topic::Report(device.id.clone()).name(), false, payload));
    let ack = Topic::Ack(device.id.clone()).name();
    // Several silences: a server that has trouble with its disk pauses between batches.
    (0..6)
        .filter_map(|_| mqtt.listen())
        .filter(|(topic, _)| topic.as_str() == ack.as_str())
        .any(|(_, bytes)| decode::<Ack>(&bytes).expect("an ack").seqs.contains(&seq))
}

#[test]
fn a_full_disk_is_told_and_nothing_acknowledged_is_lost() {
    if !small_disk::inside("full_disk::a_full_disk_is_told_and_nothing_acknowledged_is_lost") {
        return;
    }
    let mut fleet = Fleet::init(&[], "");
    small_disk::put_under(&fleet.data(), 24);
    fleet.launch();
    let release = fleet.release(1, &[1, 2]);
    let mut device = fleet.enrol("pump-1");
    let mut mqtt = device.connect();
    assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
    let outcome = Record::Outcome(Outcome {
        slot: bellwether_package::SlotName::new(SLOT).expect("a name"),
        release: Some(release),
        sequence: Default::default(),
        rollout: None,
        kind: OutcomeKind::Committed,
        serving: Some(release),
    });
    let ballast = fleet.data().join("ballast");
    small_disk::fill(&ballast);

    let second = package(2);
    let (status, answer) = fleet.operator().post_bytes("/v1/packages", &second);
    assert_eq!(status, 507, "{answer}");
    assert_eq!(answer["error"]["code"], "disk-full");
    let mut acknowledged = 0;
    let refused = (0..REPORTS_MAX)
        .find_map(|_| {
            let report = device.report(outcome.clone());
            let payload = to_vec(&report).expect("within bounds");
            let stored = told(&mut mqtt, &device, &payload, report.seq);
            acknowledged += usize::from(stored);
            (!stored).then_some((payload, report.seq))
        })
        .expect("a disk without room takes no more reports");
    let (status, _) = fleet.stranger().get("/healthz");
    assert_eq!(status, 200, "it still answers");

    // Killed while the disk is full, started once there is room.
    fleet.kill();
    std::fs::remove_file(&ballast).expect("room");
    fleet.launch();
    device.mqtts = fleet.mqtts;
    let mut mqtt = device.connect();
    assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
    let (payload, seq) = refused;
    assert!(told(&mut mqtt, &device, &payload, seq), "it is taken now");
    let path = format!("/v1/devices/{}", device.id);
    assert_eq!(fleet.operator().get(&path).0, 200);
    let (_, audit) = fleet.operator().get("/v1/audit?most=1000");
    let outcomes = audit.as_array().expect("a list").iter();
    let outcomes = outcomes
        .filter(|entry| entry["action"] == "outcome")
        .count();
    assert_eq!(outcomes, acknowledged + 1);
    let (status, answer) = fleet.operator().post_bytes("/v1/packages", &second);
    assert_eq!(
        (status, &answer["id"]),
        (201, &id_of(&second).to_string().into())
    );
}

//! Reports: stored once, acknowledged each time; what cannot be read or true changes nothing.

use bellwether_protocol::{
    Battery, BatteryState, BootId, BriefHealth, ClockState, DeviceId, Errors, Health, Labels,
    LastOutcome, LinkKind, Network, OutcomeWord, Record, Room, Served, Tally, Topic, decode,
    to_vec,
};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::LastWill;
use serde_json::json;

use crate::support::{Device, Fleet, eventually, window};

fn health() -> Record {
    Record::Health(Health {
        agent_version: Some("0.1.0".parse().expect("a version")),
        uptime_secs: 77,
        clock_offset_secs: Some(-3),
        memory: Some(Room {
            kib: 1 << 20,
            kib_free: 3 << 18,
        }),
        temperature_centi_c: Some(4150),
        network: Some(Network {
            link: LinkKind::Wifi,
            signal_dbm: Some(-60),
            received_kib: 2,
            sent_kib: 1,
            errors: 4,
        }),
        battery: Some(Battery {
            percent: 80,
            state: BatteryState::Charging,
        }),
        served: Some(Served {
            rows: 10,
            rows_failed: 1,
            latency_us_p99: Some(900),
            workers_kib: Some(20_000),
            ..Served::default()
        }),
        last_outcome: Some(LastOutcome {
            word: OutcomeWord::RolledBackItself,
            secs_ago: 60,
        }),
        ..Health::default()
    })
}

/// As agents in the field may still tell it.
fn brief_health() -> Record {
    Record::BriefHealth(BriefHealth {
        cpu_permille: Some(120),
        memory_bytes_used: Some(1 << 28),
        memory_bytes: Some(1 << 30),
        disk_bytes_free: None,
        disk_bytes: None,
        temperature_centi_c: Some(4150),
        load_centi: None,
        uptime_secs: 77,
        agent_version: "0.1.0".try_into().expect("short"),
        clock: ClockState::Plausible,
    })
}

#[test]
fn a_replayed_report_is_stored_once_and_acknowledged_again() {
    let fleet = Fleet::start();
    let release = fleet.release(1, &[]);
    let mut device = fleet.enrol("pump-1");
    let mut mqtt = device.connect();
    assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
    let outcome = |fleet: &Fleet| {
        let (_, audit) = fleet.operator().get("/v1/audit");
        let list = audit.as_array().expect("a list");
        list.iter()
            .filter(|entry| entry["action"] == "outcome")
            .count()
    };
    let record = Record::Outcome(bellwether_protocol::Outcome {
        slot: bellwether_package::SlotName::new("cavitation").expect("a name"),
        release: Some(release),
        sequence: Default::default(),
        rollout: None,
        kind: bellwether_protocol::OutcomeKind::Committed,
        serving: Some(release),
    });
    let report = device.report(record);
    mqtt.report(&device, &report);
    assert_eq!(outcome(&fleet), 1);
    for _ in 0..3 {
        mqtt.report(&device, &report);
    }
    assert_eq!(outcome(&fleet), 1, "the replayed report was stored again");
    // Another boot may use the same number.
    device.boot = BootId(2);
    let other = bellwether_protocol::Report {
        boot: device.boot,
        ..report
    };
    mqtt.report(&device, &other);
    assert_eq!(outcome(&fleet), 2);
}

#[test]
fn a_status_and_an_outcome_that_arrive_late_do_not_undo_later_ones() {
    let fleet = Fleet::start();
    let (old, new) = (fleet.release(1, &[]), fleet.release(2, &[]));
    let mut device = fleet.enrol("pump-1");
    let mut mqtt = device.connect();
    assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
    let slot = bellwether_package::SlotName::new("cavitation").expect("a name");
    let status = |serving| {
        Record::Status(bellwether_protocol::Status {
            slot: slot.clone(),
            phase: bellwether_protocol::Phase::Serving,
            serving: Some(serving),
            candidate: None,
            previous: None,
            floor: Default::default(),
            rollout: None,
        })
    };
    let outcome = |release| {
        Record::Outcome(bellwether_protocol::Outcome {
            slot: slot.clone(),
            release: Some(release),
            sequence: Default::default(),
            rollout: None,
            kind: bellwether_protocol::OutcomeKind::Committed,
            serving: Some(release),
        })
    };
    // The link lost the first two, so the device sends them again after the other two.
    let mut made =
        [outcome(old), status(old), outcome(new), status(new)].map(|record| device.report(record));
    made.iter_mut()
        .for_each(|report| report.at = crate::support::now());
    for place in [2, 3, 0, 1] {
        mqtt.report(&device, &made[place]);
    }
    let (_, shown) = fleet.operator().get("/v1/devices/pump-1");
    let shown = &shown["slots"][0];
    assert_eq!(shown["serving"], new.to_string());
    assert_eq!(shown["outcome"]["release"], new.to_string());
    // After a restart the device counts from the start again.
    device.boot = BootId(2);
    let restarted = bellwether_protocol::Report {
        boot: device.boot,
        seq: 0,
        ..device.report(status(old))
    };
    mqtt.report(&device, &restarted);
    let (_, shown) = fleet.operator().get("/v1/devices/pump-1");
    assert_eq!(shown["slots"][0]["serving"], old.to_string());
}

#[test]
fn health_and_last_seen_are_shown() {
    let fleet = Fleet::start();
    let mut device = fleet.enrol("pump-1");
    let mut mqtt = device.connect();
    assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
    let report = device.report(health());
    mqtt.report(&device, &report);
    let (_, shown) = fleet.operator().get("/v1/devices/pump-1");
    let seen = &shown["health"];
    assert_eq!(seen["temperature_centi_c"], 4150);
    assert_eq!(seen["clock"], "plausible");
    assert_eq!(seen["clock_offset_secs"], -3);
    assert_eq!(seen["memory_bytes_used"], 1 << 28);
    assert_eq!(
        seen["network"],
        json!({"link": "wifi", "signal_dbm": -60, "received_bytes": 2048, "sent_bytes": 1024, "errors": 4})
    );
    assert_eq!(seen["battery"], json!({"percent": 80, "state": "charging"}));
    assert_eq!(seen["served"]["rows_failed"], 1);
    assert_eq!(seen["served"]["workers_bytes"], 20_480_000);
    assert_eq!(seen["last_outcome"]["kind"], "rolled-back-itself");
    assert_eq!(
        seen["last_outcome"]["at"],
        seen["at"].as_u64().expect("a time") - 60
    );
    assert!(shown["last_seen"].is_u64());

    let report = device.report(brief_health());
    mqtt.report(&device, &report);
    let (_, shown) = fleet.operator().get("/v1/devices/pump-1");
    assert_eq!(shown["health"]["memory_bytes_used"], 1 << 28);
    assert_eq!(shown["health"]["agent_version"], "0.1.0");
    assert_eq!(shown["health"]["battery"], json!(null));
}

#[test]
fn garbage_and_oversized_reports_leave_everything_as_it_was() {
    let fleet = Fleet::start();
    let mut device = fleet.enrol("pump-1");
    let mut mqtt = device.connect();
    assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
    let topic = Topic::Report(device.id.clone()).name();
    let good = to_vec(&device.report(health())).expect("within bounds");
    let mut garbage: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0],
        vec![1],
        vec![255; 100],
        vec![0; 17_000],
    ];
    for place in 0..good.len() {
        let mut damaged = good.clone();
        damaged[place] ^= 0x80;
        // Some damage gives another valid report; those are not garbage.
        if decode::<bellwether_protocol::Report>(&damaged).is_err() {
            garbage.push(damaged);
        }
        garbage.push(good[..place].to_vec());
    }
    garbage.push([good.as_slice(), &[0]].concat());
    for payload in &garbage {
        assert!(
            mqtt.publish(&topic, false, payload),
            "the broker passes reports on unread"
        );
    }
    // Reports are taken in order: once this one is acknowledged, all were looked at.
    let report = device.report(health());
    let ack = mqtt.report(&device, &report);
    assert_eq!(ack.seqs.as_slice(), [report.seq]);
    assert_eq!(mqtt.listen(), None, "garbage was acknowledged");
    let (_, audit) = fleet.operator().get("/v1/audit");
    let actions: Vec<_> = audit
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["action"].clone())
        .collect();
    assert_eq!(actions, [json!("enrol"), json!("claim")]);
}

#[test]
fn a_window_that_cannot_be_true_is_flagged_and_counts_for_nothing() {
    let fleet = Fleet::start();
    let release = fleet.release(1, &[]);
    let mut device = fleet.enrol("pump-1");
    let mut mqtt = device.connect();
    assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
    let mut lie = window(release, release, 100, 0.0);
    lie.rows = 3;
    let report = device.report(Record::Window(lie));
    mqtt.report(&device, &report);
    let flags = eventually("the flag", || {
        let (_, flags) = fleet.operator().get("/v1/flags");
        (flags.as_array()?.len() == 1).then_some(flags)
    });
    assert_eq!(flags[0]["kind"], "invalid");
    assert_eq!(flags[0]["device"], "pump-1");
    let (_, shown) = fleet.operator().get("/v1/devices/pump-1");
    assert_eq!(shown["flags"].as_array().map(Vec::len), Some(1));
}

#[test]
fn late_labels_are_added_up_over_the_fleet_and_lies_are_left_out() {
    let fleet = Fleet::start();
    let release = fleet.release(1, &[]);
    let labels = |field, labels: f64, error: f64| {
        Record::Labels(Labels {
            slot: bellwether_package::SlotName::new("cavitation").expect("a name"),
            release,
            field,
            started_at: crate::support::now(),
            secs: 10,
            tally: Tally::Numbers(Errors {
                labels: labels as u32,
                sum: -labels * error,
                sum_abs: labels * error,
                sum_sq: labels * error * error,
            }),
        })
    };
    // A field that the release does not have makes the third device a liar.
    let told = [
        ("pump-1", 0, 30.0, 1.0),
        ("pump-2", 0, 10.0, 3.0),
        ("pump-3", 7, 9.0, 1.0),
    ];
    for (name, field, count, error) in told {
        let mut device = fleet.enrol(name);
        let mut mqtt = device.connect();
        assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
        let report = device.report(labels(field, count, error));
        mqtt.report(&device, &report);
        mqtt.report(&device, &report);
    }
    let shown = |query: &str| {
        let path = format!("/v1/packages/{release}/labels{query}");
        let (status, shown) = fleet.operator().get(&path);
        assert_eq!(status, 200, "{shown}");
        shown
    };
    let all = shown("");
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    assert_eq!(all[0]["field"], "score");
    assert_eq!(
        (&all[0]["devices"], &all[0]["labels"]),
        (&json!(2), &json!(40))
    );
    assert_eq!(all[0]["numbers"]["bias"], -1.5);
    assert_eq!(all[0]["numbers"]["mean_abs"], 1.5);
    assert_eq!(all[0]["numbers"]["root_mean_sq"], 3.0_f64.sqrt());
    let one = shown("?device=pump-2");
    assert_eq!(
        (&one[0]["labels"], &one[0]["numbers"]["bias"]),
        (&json!(10), &json!(-3.0))
    );
    assert_eq!(shown("?device=pump-3"), json!([]));
    let (status, _) = fleet
        .stranger()
        .get(&format!("/v1/packages/{release}/labels"));
    assert_eq!(status, 401);
}

#[test]
fn a_lost_connection_is_told_by_the_last_will_until_the_device_is_heard_again() {
    let fleet = Fleet::start();
    let mut device = fleet.enrol("pump-1");
    let will = |boot: BootId| {
        LastWill::new(
            Topic::Gone(DeviceId::new("pump-1").expect("an id"))
                .name()
                .as_str(),
            boot.0.to_le_bytes().to_vec(),
            QoS::AtLeastOnce,
            false,
            None,
        )
    };
    let gone = |fleet: &Fleet| {
        let (_, shown) = fleet.operator().get("/v1/devices/pump-1");
        shown["gone_at"].as_u64()
    };
    let connect = |device: &Device| {
        let boot = device.boot;
        let mut mqtt = device
            .try_connect("pump-1", Some(will(boot)))
            .expect("its own last will");
        assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
        mqtt
    };
    let mut mqtt = connect(&device);
    let report = device.report(health());
    mqtt.report(&device, &report);
    assert_eq!(gone(&fleet), None);
    drop(mqtt);
    eventually("the last will", || gone(&fleet));

    let mut mqtt = connect(&device);
    let report = device.report(health());
    mqtt.report(&device, &report);
    assert_eq!(gone(&fleet), None, "heard again");

    // The will of an earlier boot comes late.
    device.boot = BootId(2);
    device.seq = 0;
    let report = device.report(health());
    mqtt.report(&device, &report);
    drop(mqtt);
    let mut later = device.connect();
    assert!(later.subscribe(&Topic::Ack(device.id.clone()).name()));
    let report = device.report(health());
    later.report(&device, &report);
    assert_eq!(gone(&fleet), None, "the will was of another boot");
}

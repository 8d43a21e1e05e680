//! No device can act as another, whatever it tries.

use bellwether_protocol::Topic;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::LastWill;
use serde_json::json;

use crate::support::{Fleet, SLOT};

#[test]
fn a_device_cannot_publish_subscribe_or_retain_as_another() {
    let fleet = Fleet::start();
    let (a, b) = (fleet.enrol("pump-a"), fleet.enrol("pump-b"));
    // Something is retained for b.
    let order = json!({ "slot": SLOT, "selector": "*", "reason": "a test" });
    assert_eq!(fleet.operator().post("/v1/disable", &order).0, 200);
    let mut of_b = b.connect();
    let assignment = Topic::Assignment(b.id.clone());
    assert!(of_b.subscribe(&assignment.name()));
    let retained = of_b.next(&assignment);

    let mut of_a = a.connect();
    for topic in [
        Topic::Report(b.id.clone()),
        Topic::Ack(b.id.clone()),
        Topic::Documents(b.id.clone()),
        assignment.clone(),
    ] {
        assert!(!of_a.publish(&topic.name(), false, b"forged"), "{topic}");
        assert!(
            !of_a.publish(&topic.name(), true, b"forged"),
            "{topic} retained"
        );
    }
    let own = Topic::Report(a.id.clone()).name();
    assert!(!of_a.publish(&own, true, b"retained"), "a device retains");
    assert!(!of_a.publish("somewhere/else", false, b"x"));
    let name = assignment.name();
    for filter in [
        name.as_str(),
        "#",
        "bw/#",
        "bw/1/+/assignment",
        "bw/1/pump-b/#",
        "bw/1/pump-b/report",
        "bw/1/pump-b/documents",
        "bw/1/pump-a/report",
        "$share/x/bw/1/pump-b/assignment",
        "$share/x/bw/1/pump-a/assignment",
        "$share/ingest/bw/1/+/report",
        "$SYS/#",
    ] {
        assert!(!of_a.subscribe(filter), "{filter}");
    }
    assert_eq!(of_a.listen(), None, "a hears something of b");

    assert!(
        a.try_connect("pump-b", None).is_err(),
        "another's client id"
    );
    assert!(
        a.try_connect("SERVER", None).is_err(),
        "the server's client id"
    );
    let will = LastWill::new(name.as_str(), "forged", QoS::AtLeastOnce, true, None);
    assert!(
        a.try_connect("pump-a", Some(will)).is_err(),
        "a last will on another's topic"
    );

    for (topic, payload, retain) in [
        (Topic::Gone(b.id.clone()), &b"12345678"[..], false),
        (Topic::Report(a.id.clone()), b"12345678", false),
        (Topic::Gone(a.id.clone()), b"12345678", true),
        (Topic::Gone(a.id.clone()), b"123456789", false),
    ] {
        let will = LastWill::new(
            topic.name().as_str(),
            payload,
            QoS::AtLeastOnce,
            retain,
            None,
        );
        let refused = a.try_connect("pump-a", Some(will)).is_err();
        assert!(refused, "a last will on {topic}, retained: {retain}");
    }

    let mut again = b.connect();
    assert!(again.subscribe(&name));
    assert_eq!(
        again.next(&assignment),
        retained,
        "b's assignment is as the server retained it"
    );
}

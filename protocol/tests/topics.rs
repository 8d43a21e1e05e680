//! Topic names: built and parsed alike, and nothing else passes.

use bellwether_protocol::{DeviceId, Topic};

#[test]
fn topics_are_built_and_parsed_alike() {
    let device = DeviceId::new("press-07").unwrap();
    let topics = [
        (
            Topic::Assignment(device.clone()),
            "bw/1/press-07/assignment",
        ),
        (Topic::Documents(device.clone()), "bw/1/press-07/documents"),
        (Topic::Ack(device.clone()), "bw/1/press-07/ack"),
        (Topic::Report(device), "bw/1/press-07/report"),
    ];
    for (topic, text) in topics {
        assert_eq!(topic.name().as_str(), text);
        assert_eq!(Topic::parse(text).unwrap(), topic);
        assert_ne!(topic.device_publishes(), topic.device_subscribes());
    }
}

#[test]
fn topics_of_others_are_refused() {
    let foreign = [
        "",
        "bw/1/press-07",
        "bw/1//report",
        "bw/2/press-07/report",
        "bw/1/+/report",
        "bw/1/press-07/report/x",
        "bw/1/press-07/Report",
        "bw/1/#",
        "bw/1/PRESS/report",
        "/bw/1/press-07/report",
        "$share/ingest/bw/1/+/report",
    ];
    for text in foreign {
        assert!(Topic::parse(text).is_err(), "{text}");
    }
    assert!(Topic::parse(&format!("bw/1/{}/report", "d".repeat(49))).is_err());
}

//! Readings by MQTT, answered on another topic.

use std::time::{Duration, Instant};

use bellwether_protocol::{Desired, Note, Record};
use serde_json::{Value, json};

use crate::bench::{Agent, Bench, wait};
use crate::broker::{Broker, Sensor};
use crate::model;
use crate::package::Package;

const ANSWERS: &str = "pump/anomaly";
const STATE: &str = "pump/anomaly/state";

/// A device that answers `pump/readings`, and whoever listens.
fn listening(broker: &Broker, more: &str) -> (Bench, Agent, Sensor) {
    let bench = Bench::new();
    bench.configure(&format!(
        "[[readings]]\nslot = \"anomaly\"\nbroker = \"{}\"\ntopic = \"pump/readings\"\n\
         answers = \"{ANSWERS}\"\n{more}",
        broker.address
    ));
    let agent = bench.start();
    (bench, agent, broker.client("pump"))
}

fn doubling(bench: &Bench) -> Package {
    Package::approved(&bench.people, 0, &model::times(2.0), |x| 2.0 * x)
}

fn seen(bench: &Bench) -> bellwether_agent::view::ReadingsView {
    let mut view = wait("the status", || bench.status());
    view.readings.remove(0)
}

fn serves(state: &Value) -> bool {
    state["serving"] == true
}

#[test]
fn readings_are_answered_in_order_and_a_disabled_model_is_silent_and_says_why() {
    let broker = Broker::start();
    let (mut bench, mut agent, mut sensor) = listening(
        &broker,
        "put = \"answer\"\nfields = { position = \"/at/x\" }\n",
    );
    let state = sensor.hears_that(STATE, |state| state["slot"] == "anomaly");
    assert!(!serves(&state), "{state}");
    bench.install(&doubling(&bench));
    let state = sensor.hears_that(STATE, serves);
    assert_eq!(
        (&state["model"], &state["version"]),
        (&json!("tiny"), &json!("1.0.0"))
    );

    for n in 0..20 {
        sensor.publish(
            "pump/readings",
            json!({"flow": n, "at": {"x": 0.5}, "n": n}).to_string(),
        );
    }
    for n in 0..20 {
        let answer = sensor.hears(ANSWERS);
        assert_eq!(answer["n"], n, "{answer}");
        let scores = json!({"low": 2.0 * f64::from(n), "high": 1.0});
        assert_eq!(answer["answer"]["outputs"], json!({ "scores": scores }));
        assert_eq!(answer["answer"]["release"], state["release"]);
    }
    // Predictions are the same as those of the API: a label may come for them.
    sensor.publish("pump/readings", "{\"flow\": 3, \"at\": {\"x\": 1}}");
    let prediction = sensor.hears(ANSWERS)["answer"]["prediction"].clone();
    let labels = json!({"labels": [{"prediction": prediction, "values": {"low": 6.0}}]});
    let (status, counted) = bench
        .post("/v2/models/anomaly/labels", labels.to_string().as_bytes())
        .unwrap();
    assert_eq!((status, &counted["counted"]), (200, &json!(1)), "{counted}");

    for bad in [
        "{",
        "[]",
        "{\"flow\": 1}",
        "{\"flow\": \"x\", \"at\": {\"x\": 1}}",
        "",
    ] {
        sensor.publish("pump/readings", bad);
        let error = sensor.hears("pump/anomaly/errors");
        assert!(
            error["error"].as_str().is_some_and(|text| !text.is_empty()),
            "{bad}"
        );
    }
    wait("21 rows at the server", || {
        let world = bench.server.world();
        let rows = world
            .reports
            .iter()
            .filter_map(|report| match &report.record {
                Record::Window(window) => Some(window.rows),
                _ => None,
            });
        // Those that the installation asked are among them.
        (rows.sum::<u32>() >= 22).then_some(())
    });
    bench.order_desired(
        Desired::Disable {
            reason: Note::new("the pump is in repair"),
        },
        0,
        0,
    );
    let state = sensor.hears_that(STATE, |state| !serves(state));
    assert_eq!(state["reason"], "the pump is in repair");
    assert!(state["since"].as_u64().is_some_and(|since| since > 0));
    sensor.publish("pump/readings", "{\"flow\": 3, \"at\": {\"x\": 1}}");
    assert_eq!(
        sensor.hears_within(ANSWERS, Duration::from_millis(500)),
        None
    );
    let counts = wait("the silence to be counted", || {
        Some(seen(&bench)).filter(|counts| counts.silent > 0)
    });
    let counts = (counts.answered, counts.refused, counts.silent);
    assert_eq!(counts, (21, 5, 1));
    assert!(agent.stop().success());
    let state = sensor.hears_that(STATE, |state| state["reason"] != "the pump is in repair");
    assert_eq!(state["reason"], "the agent was stopped");
}

#[test]
fn a_burst_is_answered_or_counted_and_one_that_was_killed_is_told() {
    const BURST: u64 = 2_000;
    let broker = Broker::start();
    let (mut bench, mut agent, mut sensor) = listening(&broker, "");
    bench.install(&doubling(&bench));
    sensor.hears_that(STATE, serves);
    for n in 0..BURST {
        sensor.publish(
            "pump/readings",
            json!({"flow": n, "position": 0}).to_string(),
        );
    }
    // A sensor that reads what it gets; otherwise its broker would hold it up.
    let mut answers = 0;
    let begun = Instant::now();
    let counts = wait("the whole burst", || {
        while sensor
            .hears_within(ANSWERS, Duration::from_millis(50))
            .is_some()
        {
            answers += 1;
        }
        let counts = seen(&bench);
        let all = counts.answered + counts.left_out == BURST;
        (all && counts.answered == answers).then_some(counts)
    });
    println!("{answers} of {BURST} answered in {:?}", begun.elapsed());
    assert_eq!((counts.refused, counts.failed, counts.silent), (0, 0, 0));
    agent.kill();
    let state = sensor.hears_that(STATE, |state| !serves(state));
    assert_eq!(state["reason"], "the agent's connection is lost");
}

#[test]
fn a_broker_that_comes_back_is_found_again_and_meanwhile_people_are_told() {
    if std::env::var("BELLWETHER_BROKER").is_ok() {
        return;
    }
    let broker = Broker::start();
    let address = broker.address;
    let (mut bench, _agent, mut sensor) = listening(&broker, "");
    bench.install(&doubling(&bench));
    sensor.hears_that(STATE, serves);
    drop((broker, sensor));
    let gone = wait("the broker's absence to be seen", || {
        Some(seen(&bench)).filter(|readings| !readings.connected)
    });
    assert!(gone.trouble.is_some());
    // The application's way in does not care.
    bench.scores([1.0, 2.0]);
    let broker = Broker::start_on(address);
    let mut sensor = broker.client("pump");
    sensor.hears_that(STATE, serves);
    let mut answered = || {
        wait("an answer", || {
            sensor.publish("pump/readings", "{\"flow\": 3, \"position\": 4}");
            sensor.hears_within(ANSWERS, Duration::from_secs(1))
        })
    };
    let scores = json!({"low": 6.0, "high": 8.0});
    assert_eq!(answered()["outputs"]["scores"], scores);
    // A reading that is far too long costs a connection, and no more.
    broker
        .client("other")
        .publish_now("pump/readings", vec![b' '; 100_000]);
    wait("the connection to end", || {
        (!seen(&bench).connected).then_some(())
    });
    assert_eq!(answered()["outputs"]["scores"], scores);
}

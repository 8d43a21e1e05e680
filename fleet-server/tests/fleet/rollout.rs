//! Rollouts: refused, staged, rolled back, and still there after `kill -9`.

use bellwether_package::PackageId;
use bellwether_protocol::{
    Assignment, Desired, OutcomeKind, Record, Sequence, SlotAssignment, Topic,
};
use bellwether_rollout::fleet::Policy;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::{Value, json};

use crate::support::{Device, Fleet, Mqtt, SLOT, eventually, told, window};

pub(crate) fn policy(treated: u32) -> Value {
    json!({
        "stages": [
            { "treated": { "devices": treated }, "soak_secs": 0 },
            { "treated": "all", "soak_secs": 0 },
        ],
        "holdout": 1,
        "gates": {
            "succeeded_share_min_ppm": 1_000_000, "failed_max": 0, "silent_share_max_ppm": 0,
            "silence_secs": 600, "windows_min": 1, "rows_min": 200,
        },
        "limits": {
            "psi_max": 0.25, "outside_rise_max": 0.1, "error_rise_max": 0.05,
            "latency_ratio_max": 2.0,
        },
        "certainty": { "alpha": 0.1, "liars": 0 },
        "responses": { "release": "roll_back", "baseline": "roll_back", "failed": "roll_back" },
        "trial": {
            "secs_min": 0, "rows_min": 0, "secs_max": 60, "error_share_max_ppm": 1000,
            "nonfinite_share_max_ppm": 0, "worker_deaths_max": 0, "latency_us_p99_max": null,
        },
    })
}

/// A device at its post: it obeys, and tells.
pub(crate) struct Worker {
    device: Device,
    mqtt: Mqtt,
    /// What it serves.
    serves: Option<PackageId>,
    /// The last assignment, and its order.
    pub(crate) last: Option<(Assignment, SlotAssignment)>,
}

impl Worker {
    pub(crate) fn of(device: Device) -> Self {
        let mqtt = Self::subscribed(&device);
        Self {
            device,
            mqtt,
            serves: None,
            last: None,
        }
    }

    fn subscribed(device: &Device) -> Mqtt {
        let mut mqtt = device.connect();
        assert!(mqtt.subscribe(&Topic::Ack(device.id.clone()).name()));
        assert!(mqtt.subscribe(&Topic::Assignment(device.id.clone()).name()));
        mqtt
    }

    fn reconnect(&mut self, fleet: &Fleet) {
        self.device.mqtts = fleet.mqtts;
        self.mqtt = Self::subscribed(&self.device);
    }

    fn tell(&mut self, record: Record) {
        let report = self.device.report(record);
        self.mqtt.report(&self.device, &report);
    }

    /// Waits for an order to serve this release, carries it out and tells how it went.
    pub(crate) fn obey(&mut self, fleet: &Fleet, release: PackageId, kind: OutcomeKind) {
        let topic = Topic::Assignment(self.device.id.clone());
        let (assignment, order) = eventually("the order", || {
            let assignment = fleet.open(&self.device, &self.mqtt.next(&topic));
            let order = assignment.slots.first().cloned()?;
            let serves =
                matches!(&order.desired, Desired::Serve { release: it, .. } if *it == release);
            serves.then_some((assignment, order))
        });
        for record in told(&order, &assignment, kind) {
            self.tell(record);
        }
        self.serves = Some(release);
        self.last = Some((assignment, order));
    }

    fn sequence(&self) -> Sequence {
        self.last.as_ref().expect("an order came").0.sequence
    }
}

fn roll_out(fleet: &Fleet, release: PackageId, policy: &Value) -> (u16, Value) {
    roll_out_in(SLOT, fleet, release, policy)
}

pub(crate) fn roll_out_in(
    slot: &str,
    fleet: &Fleet,
    release: PackageId,
    policy: &Value,
) -> (u16, Value) {
    let request = json!({
        "slot": slot, "release": release.to_string(), "selector": "class=pump", "policy": policy,
        "start": true,
    });
    fleet.operator().post("/v1/rollouts", &request)
}

pub(crate) fn state(fleet: &Fleet, id: u64, wanted: &str) -> Value {
    let mut last = Value::Null;
    let began = std::time::Instant::now();
    loop {
        let (_, shown) = fleet.operator().get(&format!("/v1/rollouts/{id}"));
        if shown["state"] == wanted {
            return shown;
        }
        if began.elapsed() > crate::support::PATIENCE {
            panic!("not {wanted}: {last:#}\n{}", fleet.log());
        }
        last = shown;
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Twelve devices that all serve release 1, and release 2 that is approved.
fn settled() -> (Fleet, Vec<Worker>, PackageId, PackageId) {
    let fleet = Fleet::start();
    assert_eq!(fleet.publish_revocations(1, &[]).0, 200);
    let (one, two) = (fleet.release(1, &[1, 2]), fleet.release(2, &[1, 2]));
    let mut workers: Vec<Worker> = (0..12)
        .map(|n| Worker::of(fleet.enrol(&format!("pump-{n:02}"))))
        .collect();
    let mut first = policy(1);
    first["stages"] = json!([{ "treated": "all", "soak_secs": 0 }]);
    first["holdout"] = json!(0);
    let (status, made) = roll_out(&fleet, one, &first);
    assert_eq!(status, 201, "{made}");
    for worker in &mut workers {
        worker.obey(&fleet, one, OutcomeKind::Committed);
    }
    state(&fleet, made["id"].as_u64().expect("an id"), "complete");
    (fleet, workers, one, two)
}

/// The devices of a rollout that are treated, by their places among the workers.
pub(crate) fn treated(fleet: &Fleet, id: u64, count: usize) -> Vec<usize> {
    eventually("the stage's devices", || {
        let (_, shown) = fleet.operator().get(&format!("/v1/rollouts/{id}"));
        let devices = shown["device_states"].as_array()?;
        let places = devices
            .iter()
            .enumerate()
            .filter(|(_, device)| device["arm"] == "treated")
            .map(|(place, _)| place)
            .collect::<Vec<_>>();
        (places.len() == count).then_some(places)
    })
}

/// Each device sends one window; those that serve `two` count under `one`'s baseline as well.
fn send_windows(workers: &mut [Worker], one: PackageId, two: PackageId, shift_of_two: f32) {
    for worker in workers {
        let serves = worker.serves.expect("it serves");
        let mut own = window(serves, serves, 600, 0.0);
        if serves == two {
            own.outputs = window(serves, serves, 600, shift_of_two).outputs;
            worker.tell(Record::Window(window(two, one, 600, 0.0)));
        }
        worker.tell(Record::Window(own));
    }
}

#[test]
fn a_policy_that_can_never_be_certain_is_refused_with_the_least_number() {
    let fleet = Fleet::start();
    assert_eq!(fleet.publish_revocations(1, &[]).0, 200);
    let (one, two) = (fleet.release(1, &[1, 2]), fleet.release(2, &[1, 2]));
    let mut worker = Worker::of(fleet.enrol("pump-1"));
    let mut first = policy(1);
    first["stages"] = json!([{ "treated": "all", "soak_secs": 0 }]);
    first["holdout"] = json!(0);
    let (status, made) = roll_out(&fleet, one, &first);
    assert_eq!(status, 201, "{made}");
    worker.obey(&fleet, one, OutcomeKind::Committed);
    let (status, answer) = roll_out(&fleet, two, &policy(1));
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("policy-inadmissible")),
        "{answer}"
    );
    let message = answer["error"]["message"].as_str().expect("text");
    assert!(message.contains("would do"), "{message}");
    for section in ["", "/gates", "/trial", "/limits", "/stages/0"] {
        let mut unknown = policy(1);
        unknown.pointer_mut(section).expect("a section")["surprise"] = json!(1);
        let (status, answer) = roll_out(&fleet, two, &unknown);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!("policy")),
            "{section}"
        );
    }
}

#[test]
fn only_releases_are_rolled_out_unless_it_is_a_drill() {
    for drill in [false, true] {
        let arguments: &[&str] = if drill {
            &["--drill-offer-unapproved"]
        } else {
            &[]
        };
        let fleet = Fleet::start_with(arguments, "");
        assert_eq!(fleet.publish_revocations(1, &[]).0, 200);
        fleet.enrol("pump-1");
        let release = fleet.release(1, &[1]);
        let mut first = policy(1);
        first["stages"] = json!([{ "treated": "all", "soak_secs": 0 }]);
        first["holdout"] = json!(0);
        let (status, answer) = roll_out(&fleet, release, &first);
        let (_, health) = fleet.operator().get("/healthz");
        assert_eq!(health["drill_offer_unapproved"], drill);
        if drill {
            assert_eq!(status, 201, "{answer}");
            assert!(fleet.log().contains("DRILL"));
        } else {
            assert_eq!(
                (status, &answer["error"]["code"]),
                (409, &json!("not-a-release"))
            );
            let message = answer["error"]["message"].as_str().expect("text");
            assert!(message.contains("1 of 2 persons"), "{message}");
        }
    }
}

#[test]
fn a_rollout_survives_kill_and_goes_on() {
    let (mut fleet, mut workers, one, two) = settled();
    let (status, made) = roll_out(&fleet, two, &policy(2));
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_u64().expect("an id");
    let (status, answer) = roll_out(&fleet, two, &policy(2));
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("rollout-unfinished"))
    );
    let places = treated(&fleet, id, 2);
    let sequence = workers[places[0]].sequence();

    fleet.kill();
    fleet.launch();
    for worker in &mut workers {
        worker.reconnect(&fleet);
    }
    assert_eq!(
        treated(&fleet, id, 2),
        places,
        "the same devices are treated after the restart"
    );
    for place in &places {
        let worker = &mut workers[*place];
        worker.obey(&fleet, two, OutcomeKind::Committed);
        assert!(worker.sequence() > sequence);
        let order = &worker.last.as_ref().expect("an order").1;
        assert_eq!(order.also_baseline, Some(one));
        assert_eq!(order.treated, Some(true));
    }
    send_windows(&mut workers, one, two, 0.0);
    for place in treated(&fleet, id, 12) {
        if workers[place].serves != Some(two) {
            workers[place].obey(&fleet, two, OutcomeKind::Committed);
        }
    }
    let shown = state(&fleet, id, "complete");
    assert_eq!(shown["decision"]["decision"], "complete");
    let (_, why) = fleet.operator().get("/v1/devices/pump-00/why");
    let sentence = why["sentence"].as_str().expect("text");
    assert!(
        sentence.starts_with("It is well: it serves pump-anomaly 2.0.0"),
        "{sentence}"
    );
}

#[test]
fn drifted_outputs_of_the_treated_arm_roll_it_back_with_the_figures() {
    let (fleet, mut workers, one, two) = settled();
    let (status, made) = roll_out(&fleet, two, &policy(3));
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_u64().expect("an id");
    let places = treated(&fleet, id, 3);
    for place in &places {
        workers[*place].obey(&fleet, two, OutcomeKind::Committed);
    }
    let before = workers[places[0]].sequence();
    send_windows(&mut workers, one, two, 0.5);
    let shown = state(&fleet, id, "rolled_back");
    assert_eq!(shown["decision"]["decision"], "roll_back");
    let text = shown["decision"]["text"].as_str().expect("text");
    assert!(text.contains("PSI") && text.contains("score"), "{text}");
    assert_eq!(
        shown["decision"]["figures"]["attribution"], "release",
        "{shown:#}"
    );
    for place in &places {
        let worker = &mut workers[*place];
        worker.obey(&fleet, one, OutcomeKind::RolledBackByOrder);
        assert!(worker.sequence() > before, "a rollback is a new assignment");
        assert!(
            worker
                .last
                .as_ref()
                .is_some_and(|(_, order)| order.ordered_back)
        );
    }
    let device = workers[places[0]].device.id.clone();
    let (_, why) = fleet
        .operator()
        .get(&format!("/v1/devices/{device}/why?slot={SLOT}"));
    let sentence = why["sentence"].as_str().expect("text");
    assert!(
        sentence.contains("ordered back") && sentence.contains("PSI"),
        "{sentence}"
    );
    let (_, audit) = fleet.operator().get("/v1/audit");
    let noted = audit.as_array().expect("a list").iter().any(|entry| {
        entry["action"] == "roll_back" && entry["actor"] == "planner" && entry["text"] == text
    });
    assert!(noted, "the audit entry is the API's text");
}

#[test]
fn an_operator_pauses_resumes_and_rolls_back() {
    let (fleet, mut workers, one, two) = settled();
    let (_, made) = roll_out(&fleet, two, &policy(2));
    let id = made["id"].as_u64().expect("an id");
    let places = treated(&fleet, id, 2);
    let order = |what: &str, reason: &str| {
        fleet.operator().post(
            &format!("/v1/rollouts/{id}/{what}"),
            &json!({ "reason": reason }),
        )
    };
    let mut paused = order("pause", "lunch");
    if paused.0 == 409 {
        paused = order("pause", "lunch");
    }
    assert_eq!((paused.0, &paused.1["state"]), (200, &json!("paused")));
    assert_eq!(order("pause", "").0, 409);
    assert_eq!(order("resume", "").1["state"], "running");
    for place in &places {
        workers[*place].obey(&fleet, two, OutcomeKind::Committed);
    }
    let back = eventually("the order to be taken", || {
        let back = order("rollback", "smells funny");
        (back.0 == 200).then_some(back)
    });
    assert_eq!(back.1["state"], "rolled_back");
    for place in &places {
        workers[*place].obey(&fleet, one, OutcomeKind::RolledBackByOrder);
    }
    assert_eq!(order("resume", "").0, 409);
}

#[test]
fn the_policy_in_the_documentation_fits_the_cohort_it_is_said_to_fit() {
    let guide = include_str!("../../../docs/operating.md");
    let (_, from_policy) = guide.split_once("\n## A policy\n").expect("the section");
    let (_, from_block) = from_policy.split_once("```toml\n").expect("the policy");
    let (policy, _) = from_block.split_once("```").expect("its end");
    let policy: Policy = Figment::from(Toml::string(policy))
        .extract()
        .expect("a policy");
    assert_eq!(policy.admissible(100), Ok(()));
}

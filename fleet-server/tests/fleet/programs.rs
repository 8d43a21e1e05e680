//! Releases of the devices' own programs, over the server's own roads.

use bellwether_package::ids::AGENT_SLOT;
use bellwether_protocol::{OutcomeKind, TrialFailure};
use serde_json::json;

use crate::rollout::{Worker, policy, roll_out_in, state, treated};

use crate::support::{Fleet, SLOT, programs};

/// Too few for any certainty, which programs do not need.
const DEVICES: usize = 4;

#[test]
fn programs_pass_their_stages_on_outcomes_alone_and_go_back_when_one_fails() {
    let fleet = Fleet::start();
    assert_eq!(fleet.publish_revocations(1, &[]).0, 200);
    let release = |major| fleet.release_of(&programs(major), &[AGENT_SLOT, SLOT], &[1, 2]);
    let (one, two, three) = (release(1), release(2), release(3));
    let mut workers: Vec<Worker> = (0..DEVICES)
        .map(|n| Worker::of(fleet.enrol(&format!("pump-{n:02}"))))
        .collect();
    let mut everybody = policy(1);
    everybody["stages"] = json!([{ "treated": "all", "soak_secs": 0 }]);
    everybody["holdout"] = json!(0);

    let (status, refused) = roll_out_in(SLOT, &fleet, one, &everybody);
    assert_eq!(status, 409, "{refused}");
    let message = refused["error"]["message"].as_str().expect("text");
    assert!(message.contains("slot `agent` takes"), "{message}");
    let model = fleet.release(9, &[1, 2]);
    assert_eq!(roll_out_in(AGENT_SLOT, &fleet, model, &everybody).0, 409);

    let (status, made) = roll_out_in(AGENT_SLOT, &fleet, one, &everybody);
    assert_eq!(status, 201, "{made}");
    for worker in &mut workers {
        worker.obey(&fleet, one, OutcomeKind::Committed);
    }
    state(&fleet, made["id"].as_u64().expect("an id"), "complete");

    // With something to go back to, and nobody sends a window.
    let (status, made) = roll_out_in(AGENT_SLOT, &fleet, two, &policy(2));
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_u64().expect("an id");
    let first = treated(&fleet, id, 2);
    for place in &first {
        workers[*place].obey(&fleet, two, OutcomeKind::Committed);
        let order = &workers[*place].last.as_ref().expect("an order").1;
        assert_eq!(order.also_baseline, None);
    }
    treated(&fleet, id, DEVICES);
    for place in (0..DEVICES).filter(|place| !first.contains(place)) {
        workers[place].obey(&fleet, two, OutcomeKind::Committed);
    }
    let shown = state(&fleet, id, "complete");
    assert!(
        shown.to_string().contains("they have no figures"),
        "{shown:#}"
    );

    let (status, made) = roll_out_in(AGENT_SLOT, &fleet, three, &policy(2));
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_u64().expect("an id");
    let first = treated(&fleet, id, 2);
    let why = TrialFailure::ServerNotReached { secs: 60 };
    let worker = &mut workers[first[0]];
    worker.obey(&fleet, three, OutcomeKind::RolledBackItself(why));
    let shown = state(&fleet, id, "rolled_back");
    let told = "it did not reach the server within 60 s";
    assert!(shown.to_string().contains(told), "{shown:#}");
    worker.obey(&fleet, two, OutcomeKind::RolledBackByOrder);
    let order = &worker.last.as_ref().expect("an order").1;
    assert!(order.ordered_back);
}

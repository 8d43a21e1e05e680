//! Starting, stopping, and what an operator meets on the way.

use bellwether_protocol::Topic;
use serde_json::json;

use crate::support::{Fleet, SLOT, eventually};

#[test]
fn an_occupied_port_is_told_clearly() {
    for (name, word) in [("https", "HTTPS"), ("mqtts", "MQTT")] {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        let fleet = Fleet::init(&[], "");
        let other = if name == "https" { "mqtts" } else { "https" };
        let text = format!("{name} = \"{address}\"\n{other} = \"127.0.0.1:0\"\n");
        std::fs::write(fleet.folder().join("server.toml"), text).expect("written");
        let ended = fleet.command().output().expect("it runs");
        assert!(!ended.status.success());
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            told.contains(&address.to_string()) && told.contains(word),
            "{told}"
        );
    }
}

#[test]
fn an_unknown_key_in_the_configuration_is_refused() {
    let fleet = Fleet::init(&[], "windows_keptt = 3\n");
    let ended = fleet.command().output().expect("it runs");
    assert!(!ended.status.success());
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(told.contains("windows_keptt"), "{told}");
}

#[test]
fn init_does_not_overwrite_a_server() {
    let fleet = Fleet::init(&[], "");
    let before = std::fs::read(fleet.data().join("ca-key.pem")).expect("a key");
    let again = std::process::Command::new(env!("CARGO_BIN_EXE_bellwether-server"))
        .args(["init", "--data"])
        .arg(fleet.data())
        .output()
        .expect("it runs");
    assert!(!again.status.success());
    assert_eq!(
        std::fs::read(fleet.data().join("ca-key.pem")).expect("a key"),
        before
    );
    assert_eq!(fleet.said.len(), 3);
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let fleet = Fleet::start();
    let second = fleet.command().output().expect("it runs");
    assert!(!second.status.success());
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("another process serves"), "{told}");
}

#[test]
fn a_rotated_root_is_kept_and_every_assignment_is_signed_under_it() {
    let mut fleet = Fleet::start();
    let mut device = fleet.enrol("pump-1");
    let order = json!({ "slot": SLOT, "selector": "*", "reason": "a test" });
    assert_eq!(fleet.operator().post("/v1/disable", &order).0, 200);
    let topic = Topic::Assignment(device.id.clone());
    let mut mqtt = device.connect();
    assert!(mqtt.subscribe(&topic.name()));
    let before = fleet.open(&device, &mqtt.next(&topic)).sequence;
    assert_eq!((before.epoch, before.n), (1, 1));

    let (status, answer) = fleet.rotate(&[1]);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("trust-root-refused"))
    );
    let (status, answer) = fleet.rotate(&[2, 3]);
    assert_eq!((status, &answer["version"]), (200, &json!(2)), "{answer}");
    // The order of before may be told once more: it was signed under the old root, and is no order now.
    let after = eventually("an order under the new root", || {
        fleet.try_open(&device, &mqtt.next(&topic)).ok()
    });
    let after = after.sequence;
    assert_eq!(
        (after.epoch, after.n),
        (2, 1),
        "a rotation starts the numbers anew"
    );

    // The file beside the server is still the old one; the stored chain holds.
    fleet.kill();
    fleet.launch();
    assert_eq!(fleet.stranger().get("/healthz").1["root_version"], 2);
    device.mqtts = fleet.mqtts;
    let mut mqtt = device.connect();
    assert!(mqtt.subscribe(&topic.name()));
    assert_eq!(fleet.open(&device, &mqtt.next(&topic)).sequence, after);
}

#[test]
fn a_terminated_server_stops_cleanly_and_starts_again() {
    let mut fleet = Fleet::start();
    fleet.enrol("pump-1");
    let order = json!({ "slot": SLOT, "selector": "*", "reason": "maintenance" });
    assert_eq!(fleet.operator().post("/v1/disable", &order).0, 200);
    let ended = fleet.stop();
    assert!(ended.success(), "{}", fleet.log());
    assert!(!fleet.data().join("endpoints.json").exists());
    fleet.launch();
    let (_, shown) = fleet.operator().get("/v1/devices/pump-1");
    assert_eq!(shown["slots"][0]["disabled"], "maintenance");
    let (status, description) = fleet.stranger().get("/openapi.json");
    assert_eq!(status, 200);
    assert!(description["paths"]["/v1/rollouts"]["post"].is_object());
    let (status, answer) = fleet.operator().get("/v1/nothing");
    assert_eq!(
        (status, &answer["error"]["code"]),
        (404, &json!("not-found"))
    );
}

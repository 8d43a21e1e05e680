//! Claims are used once, soon, and by whom they are meant for.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{Fleet, eventually};

#[test]
fn a_claim_is_used_once_and_expires() {
    let fleet = Fleet::start();
    let pair = rcgen::KeyPair::generate().expect("a key");

    let claim = fleet.claim(json!({ "tags": { "site": "lyon" } }));
    let (status, answer) = fleet.ask_to_enrol(&claim, "pump-1", &pair);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["attributes"],
        json!({ "class": "pump", "site": "lyon" })
    );
    let (status, answer) = fleet.ask_to_enrol(&claim, "pump-2", &pair);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (403, &json!("claim-used"))
    );
    assert!(
        answer["error"]["next"]
            .as_str()
            .is_some_and(|next| !next.is_empty())
    );

    let claim = fleet.claim(json!({ "ttl_secs": 1 }));
    let refused = eventually("the claim to expire", || {
        let (status, answer) = fleet.ask_to_enrol(&claim, "pump-1", &pair);
        // Until then the device's id is taken, which leaves the claim as it is.
        (status != 409).then_some((status, answer))
    });
    assert_eq!(
        (refused.0, &refused.1["error"]["code"]),
        (403, &json!("claim-expired"))
    );

    let (status, answer) = fleet.ask_to_enrol("no-such-claim", "pump-3", &pair);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (403, &json!("claim-unknown"))
    );
    let claim = fleet.claim(json!({ "device": "pump-4" }));
    let (status, _) = fleet.ask_to_enrol(&claim, "pump-5", &pair);
    assert_eq!(status, 403, "a claim for another device");
    let (status, _) = fleet.ask_to_enrol(&claim, "pump-4", &pair);
    assert_eq!(status, 200, "the refused attempt did not use it up");

    let (_, devices) = fleet.operator().get("/v1/devices");
    let ids: Vec<_> = devices
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| &it["device"])
        .collect();
    assert_eq!(ids, ["pump-1", "pump-4"]);
    let (_, audit) = fleet.operator().get("/v1/audit");
    assert!(
        !audit.to_string().contains(&claim),
        "a claim stands in the audit log"
    );
    assert!(!fleet.log().contains(&claim), "a claim stands in the log");
}

#[test]
fn names_that_are_no_device_ids_are_refused() {
    let fleet = Fleet::start();
    let pair = rcgen::KeyPair::generate().expect("a key");
    let claim = fleet.claim(json!({}));
    let long = "x".repeat(49);
    for name in [
        "SERVER",
        "server/../x",
        "pump 1",
        "",
        "#",
        "+",
        long.as_str(),
        "pümp",
    ] {
        let (status, answer) = fleet.ask_to_enrol(&claim, name, &pair);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!("device")),
            "{name}"
        );
    }
    let ask = json!({ "claim": claim, "device": "pump-1", "csr_pem": "rubbish" });
    let (status, answer) = fleet.stranger().post("/v1/enroll", &ask);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("csr")));
    let ask = json!({ "claim": claim, "device": "pump-1", "csr_pem": "", "surprise": 1 });
    let (status, answer) = fleet.stranger().post("/v1/enroll", &ask);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("body-unreadable"))
    );
    let (status, _) = fleet.ask_to_enrol(&claim, "pump-1", &pair);
    assert_eq!(status, 200, "the claim is still good");
}

#[test]
fn only_the_token_opens_the_api() {
    let fleet = Fleet::start();
    let device = fleet.enrol("pump-1");
    for path in [
        "/v1/devices",
        "/v1/packages",
        "/v1/rollouts",
        "/v1/audit",
        "/v1/flags",
    ] {
        let (status, answer) = fleet.stranger().get(path);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (401, &json!("token-missing")),
            "{path}"
        );
        let (status, answer) = fleet.with_token("wrong").get(path);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (401, &json!("token-wrong")),
            "{path}"
        );
        let (status, _) = fleet.http_of(&device).get(path);
        assert_eq!(status, 401, "a device is no operator: {path}");
        let (status, _) = fleet.operator().get(path);
        assert_eq!(status, 200, "{path}");
    }
    let (status, _, _) = fleet.http_of(&device).get_raw("/v1/trust-root", &[]);
    assert_eq!(
        status, 200,
        "a device fetches the trust root with its certificate"
    );
    let (status, _, _) = fleet.stranger().get_raw("/v1/trust-root", &[]);
    assert_eq!(status, 401);
    let (status, _) = fleet.http_of(&device).post("/v1/claims", &json!({}));
    assert_eq!(status, 401);
}

#[test]
fn secrets_are_for_their_owner_alone() {
    let fleet = Fleet::start();
    for file in [
        "api-token",
        "director.key",
        "ca-key.pem",
        "bellwether.db",
        "tls/server-key.pem",
    ] {
        let mode = std::fs::metadata(fleet.data().join(file))
            .expect(file)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

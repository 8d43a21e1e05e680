//! Certificates are renewed, and taken back.

use serde_json::{Value, json};

use crate::support::{Device, Fleet, certificate_request, eventually};

fn renew(fleet: &Fleet, device: &Device) -> (u16, Value, rcgen::KeyPair) {
    let pair = rcgen::KeyPair::generate().expect("a key");
    let ask = json!({ "csr_pem": certificate_request(&pair) });
    let (status, answer) = fleet.http_of(device).post("/v1/renew", &ask);
    (status, answer, pair)
}

fn trust_root(fleet: &Fleet, device: &Device) -> u16 {
    fleet.http_of(device).get_raw("/v1/trust-root", &[]).0
}

#[test]
fn the_device_that_used_a_claim_may_ask_again_with_the_same_key_alone() {
    let fleet = Fleet::start();
    let pair = rcgen::KeyPair::generate().expect("a key");
    let claim = fleet.claim(json!({}));
    let (status, first) = fleet.ask_to_enrol(&claim, "pump-1", &pair);
    assert_eq!(status, 200, "{first}");
    let (status, second) = fleet.ask_to_enrol(&claim, "pump-1", &pair);
    assert_eq!(status, 200, "its first answer may have been lost: {second}");

    let other = rcgen::KeyPair::generate().expect("a key");
    let (status, answer) = fleet.ask_to_enrol(&claim, "pump-1", &other);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (403, &json!("claim-used"))
    );
    let first = fleet.device("pump-1", &pair, &first);
    let second = fleet.device("pump-1", &pair, &second);
    assert_eq!(trust_root(&fleet, &second), 200);
    assert_eq!(trust_root(&fleet, &first), 403, "only the latest is good");
}

#[test]
fn a_device_that_is_shut_out_loses_its_connection_and_gets_none() {
    let mut fleet = Fleet::start();
    let mut device = fleet.enrol("pump-1");
    let other = fleet.enrol("pump-2");
    let mut live = device.connect();
    let mut others = other.connect();

    let nobody = json!({ "reason": "stolen" });
    let (status, _) = fleet.stranger().post("/v1/devices/pump-1/revoke", &nobody);
    assert_eq!(status, 401);
    let (status, answer) = fleet
        .operator()
        .post("/v1/devices/pump-1/revoke", &json!({ "reason": " " }));
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("reason")));
    let (status, _) = fleet.operator().post("/v1/devices/pump-1/revoke", &nobody);
    assert_eq!(status, 200);

    live.ended();
    assert!(device.try_connect("pump-1", None).is_err(), "by MQTT");
    assert_eq!(trust_root(&fleet, &device), 403, "by HTTPS");
    let (status, answer, _) = renew(&fleet, &device);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (403, &json!("certificate-revoked"))
    );
    let (_, shown) = fleet.operator().get("/v1/devices/pump-1");
    assert_eq!(shown["revoked"]["reason"], "stolen");
    assert!(
        others.publish("bw/1/pump-2/report", false, b"x"),
        "others stay"
    );

    // The database knows it too.
    fleet.kill();
    fleet.launch();
    assert_eq!(trust_root(&fleet, &device), 403);
    device.mqtts = fleet.mqtts;
    assert!(device.try_connect("pump-1", None).is_err());

    let again = fleet.enrol("pump-1");
    again.connect();
    assert_eq!(trust_root(&fleet, &again), 200);
    assert_eq!(trust_root(&fleet, &device), 403, "its old certificate");
    assert!(device.try_connect("pump-1", None).is_err());
    let (_, shown) = fleet.operator().get("/v1/devices/pump-1");
    assert_eq!(shown["revoked"], Value::Null);
}

#[test]
fn a_renewed_certificate_is_for_the_new_key_and_leaves_the_old_one_good() {
    let fleet = Fleet::start();
    let first = fleet.enrol("pump-1");
    let (status, answer, pair) = renew(&fleet, &first);
    assert_eq!(status, 200, "{answer}");
    let second = fleet.device("pump-1", &pair, &answer);
    second.connect();
    assert_eq!(trust_root(&fleet, &second), 200);
    assert_eq!(trust_root(&fleet, &first), 200, "the answer may be lost");

    // A device that loses every answer still has the certificate that it shows.
    let lost: Vec<Device> = (0..6)
        .map(|_| {
            let (status, answer, pair) = renew(&fleet, &first);
            assert_eq!(status, 200, "{answer}");
            fleet.device("pump-1", &pair, &answer)
        })
        .collect();
    assert_eq!(trust_root(&fleet, &first), 200);
    let good = lost.iter().filter(|one| trust_root(&fleet, one) == 200);
    assert!(good.count() <= 4, "older ones are taken back");

    let (status, answer) = fleet
        .stranger()
        .post("/v1/renew", &json!({ "csr_pem": "" }));
    assert_eq!(
        (status, &answer["error"]["code"]),
        (401, &json!("credentials-missing"))
    );
}

#[test]
fn an_old_tls_is_refused_by_https() {
    use std::net::TcpStream;
    use std::sync::Arc;

    let fleet = Fleet::start();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let handshake = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .expect("a version")
            .with_root_certificates(fleet.roots())
            .with_no_client_auth();
        let name = "127.0.0.1".try_into().expect("a name");
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut stream = TcpStream::connect(fleet.https).expect("it listens");
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok::<_, std::io::Error>(())
    };
    eventually("TLS 1.3", || handshake(&[&rustls::version::TLS13]).ok());
    let refused = handshake(&[&rustls::version::TLS12]).expect_err("TLS 1.2");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

//! What people beside the device see, and what its release's activation policy makes of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use bellwether_agent::api::{ENDPOINTS, Endpoints};
use bellwether_package::Selector;
use bellwether_package::sections::{Activation, Hours};
use bellwether_protocol::{Desired, Note, OutcomeKind};
use serde_json::Value;

use crate::bench::{Agent, Bench, DEVICE, wait};
use crate::model;
use crate::package::Package;

fn doubling(bench: &Bench) -> Package {
    Package::approved(&bench.people, 1, &model::times(2.0), |x| 2.0 * x)
}

/// Head and body of `GET /`, read to the end.
fn page(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: device\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

fn status(bench: &Bench, more: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bellwether-agent"))
        .args(["status", "--config"])
        .arg(&bench.config)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_page_and_the_terminal_say_the_same_before_and_after_a_model_is_disabled() {
    let mut bench = Bench::new();
    bench.configure("[page]\nlisten = \"127.0.0.1:0\"\n");
    let mut agent = bench.start();
    let first = doubling(&bench);
    bench.install(&first);
    let endpoints = std::fs::read(bench.state.join(ENDPOINTS)).unwrap();
    let endpoints: Endpoints = serde_json::from_slice(&endpoints).unwrap();
    let own = endpoints.page.unwrap();
    wait("health and the link", || {
        let view = bench.status()?;
        (view.health.is_some() && view.connected).then_some(())
    });
    for address in [&own, &endpoints.api] {
        let (head, body) = page(address, "/");
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("content-security-policy: default-src 'none'"));
        let sentence = body.find(">Well.</h1>").unwrap_or_else(|| panic!("{body}"));
        assert!(sentence < body.find("serves tiny 1.1.0").unwrap());
        for told in [
            DEVICE,
            "<svg",
            "connected",
            "free",
            "tiny 1.1.0 passed its trial",
        ] {
            assert!(body.contains(told), "{told} is not in {body}");
        }
    }
    let (head, _) = page(&own, "/status");
    assert!(
        head.starts_with("http/1.1 404"),
        "the page's address has only the page"
    );
    let text = status(&bench, &[]);
    assert_eq!(text.lines().next(), Some("Well."));
    assert!(text.contains("anomaly: serves tiny 1.1.0"), "{text}");

    let reason = Note::new("the pump is in repair");
    bench.order_desired(Desired::Disable { reason }, 0, 0);
    wait("the end", || {
        bench.ask([1.0, 2.0]).filter(|(status, _)| *status == 503)
    });
    let sentence = "Not serving anomaly: release tiny 1.1.0 was disabled by order";
    // The slot falls silent a moment before the page is told.
    wait("the page", || {
        page(&own, "/").1.contains(sentence).then_some(())
    });
    agent.kill();
    let text = status(&bench, &[]);
    let mut lines = text.lines();
    let told = "The agent does not answer; this is what it last wrote.";
    assert_eq!(lines.next(), Some(told));
    let worst = lines.next().unwrap();
    assert!(worst.starts_with(sentence), "{text}");
    assert!(worst.ends_with("because the pump is in repair."), "{text}");
    let json: Value = serde_json::from_str(&status(&bench, &["--json"])).unwrap();
    assert_eq!(json["summary"]["mood"], "not-serving");
    assert_eq!(json["running"], false);
    assert_eq!(json["slots"][0]["reason"], "the pump is in repair");
}

/// A package with this policy, on trial at the device.
fn ordered(bench: &mut Bench, policy: Activation) -> Package {
    let package = Package::under(&bench.people, 2, &model::times(2.0), |x| 2.0 * x, policy);
    bench.order(&package, 0, 0);
    package
}

/// The refusal of a request, once the release is there.
fn refusal(bench: &Bench) -> Value {
    let (_, answer) = wait("the policy's refusal", || {
        let policy = |answer: &Value| {
            let reason = answer["reason"].as_str().unwrap_or_default();
            reason.contains("activation policy")
        };
        bench
            .ask([1.0, 2.0])
            .filter(|(status, answer)| *status == 503 && policy(answer))
    });
    answer
}

fn started() -> (Bench, Agent) {
    let bench = Bench::new();
    let agent = bench.start();
    (bench, agent)
}

#[test]
fn outside_its_hours_a_release_is_disabled_and_says_until_when() {
    let (mut bench, _agent) = started();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let minute = (now.as_secs() % 86_400 / 60) as u16;
    // Half an hour, about twelve hours from now, every day.
    let from_minute = (minute + 12 * 60) % (24 * 60 - 30);
    let hours = Hours {
        days: 0b0111_1111,
        from_minute,
        until_minute: from_minute + 30,
    };
    let policy = Activation {
        hours: vec![hours],
        ..Activation::default()
    };
    let package = ordered(&mut bench, policy);
    let answer = refusal(&bench);
    let reason = answer["reason"].as_str().unwrap();
    let begin = format!("{:02}:{:02}:00Z", from_minute / 60, from_minute % 60);
    assert!(reason.ends_with(&begin), "{reason} has not {begin}");
    assert!(answer["since"].as_u64().unwrap() <= now.as_secs() + 60);
    assert_eq!(bench.get("/v2/models/anomaly/ready").unwrap().0, 503);
    assert_eq!(bench.get("/v2/health/ready").unwrap().0, 503);
    let slot = bench.slot().unwrap();
    assert_eq!(slot.serving, Some(package.id.to_string()));
    assert_eq!(slot.reason.as_deref(), Some(reason));
    let sentence = bench.status().unwrap().summary(0).sentence;
    assert!(
        sentence.starts_with("Not serving anomaly: it is outside"),
        "{sentence}"
    );
}

#[test]
fn a_release_runs_only_on_devices_with_its_attributes_and_never_on_those_excluded() {
    let (mut bench, _agent) = started();
    let selector = |text| vec![Selector::new(text).unwrap()];
    let elsewhere = Activation {
        regions: selector("class=fan"),
        ..Activation::default()
    };
    ordered(&mut bench, elsewhere);
    assert!(
        refusal(&bench)["reason"]
            .as_str()
            .unwrap()
            .contains("other attributes")
    );
    let excluded = Activation {
        excluded: selector("class=pump"),
        ..Activation::default()
    };
    ordered(&mut bench, excluded);
    wait("the second policy", || {
        let reason = refusal(&bench)["reason"].as_str()?.to_owned();
        reason.contains("class=pump").then_some(())
    });
    let here = Activation {
        regions: selector("class=pump"),
        excluded: selector("class=fan"),
        ..Activation::default()
    };
    let third = ordered(&mut bench, here);
    bench.wait_committed(third.id);
    assert_eq!(bench.scores([1.0, 2.0]).1, third.id.to_string());
    assert_eq!(bench.wait_outcome(third.id), OutcomeKind::Committed);
}

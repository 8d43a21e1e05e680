//! The Open Inference Protocol as other people's clients speak it.
//!
//! `agent/tests/tritonclient/` holds what tritonclient puts on the wire, recorded byte by byte,
//! and a script that asks a running agent by tritonclient itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{Bench, wait};
use crate::model;
use crate::package::Package;

const LENGTH: &str = "inference-header-content-length";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tritonclient")
}

fn serving() -> (Bench, crate::bench::Agent, Package) {
    let mut bench = Bench::new();
    let socket = bench.state.with_file_name("api.sock");
    bench.configure(&format!("[api]\nsocket = {socket:?}\n"));
    let agent = bench.start();
    let package = Package::approved(&bench.people, 1, &model::times(2.0), |x| 2.0 * x);
    bench.install(&package);
    (bench, agent, package)
}

/// An answer: status, head in small letters, body.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// Sends `request` as it is and reads one answer.
    fn to(request: &[u8], stream: &mut (impl Read + Write)) -> Self {
        stream.write_all(request).unwrap();
        let mut data = Vec::new();
        let end = loop {
            let end = data.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            more(stream, &mut data);
        };
        let head = String::from_utf8(data[..end].to_vec()).unwrap();
        let head = head.to_ascii_lowercase();
        let length: usize = value(&head, "content-length").map_or(0, |text| text.parse().unwrap());
        while data.len() < end + length {
            more(stream, &mut data);
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = data.split_off(end);
        Self { status, head, body }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The JSON and the numbers after it.
    fn binary(&self) -> (Value, Vec<f32>) {
        let length = value(&self.head, LENGTH).unwrap().parse().unwrap();
        let (json, binary) = self.body.split_at(length);
        let numbers = binary.as_chunks::<4>().0.iter();
        let numbers = numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (serde_json::from_slice(json).unwrap(), numbers)
    }
}

fn more(stream: &mut impl Read, data: &mut Vec<u8>) {
    let mut some = [0; 4096];
    let read = stream.read(&mut some).unwrap();
    assert!(read > 0, "the agent closed the connection");
    data.extend(&some[..read]);
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn recorded(name: &str, stream: &mut (impl Read + Write)) -> Answer {
    let path = folder().join(format!("requests/{name}.http"));
    Answer::to(&std::fs::read(path).unwrap(), stream)
}

/// Everything that was recorded, in one connection, as tritonclient keeps one.
fn check_recorded(stream: &mut (impl Read + Write), release: &str) {
    for name in ["live", "ready", "model_ready", "version_ready"] {
        assert_eq!(recorded(name, stream).status, 200, "{name}");
    }
    let server = recorded("server", stream).json();
    assert_eq!(
        server["extensions"],
        json!(["binary_tensor_data", "bellwether_labels"])
    );
    for name in ["model", "version"] {
        let model = recorded(name, stream).json();
        let port = json!([{"name": "readings", "datatype": "FP32", "shape": [-1, 2]}]);
        assert_eq!(model["inputs"], port);
        assert_eq!(model["versions"], json!(["1.1.0"]));
    }
    let (answer, scores) = recorded("binary", stream).binary();
    assert_eq!(scores, [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(answer["outputs"][0]["shape"], json!([2, 2]));
    assert_eq!(answer["outputs"][0]["parameters"]["binary_data_size"], 16);
    assert_eq!(answer["parameters"]["release"], release);
    let answer = recorded("json", stream);
    assert_eq!(value(&answer.head, LENGTH), None);
    assert_eq!(answer.json()["outputs"][0]["data"], json!([2.0, 4.0]));
    let (_, scores) = recorded("json_nan_binary_out", stream).binary();
    assert!(scores[0].is_nan() && scores[1] == 5.0, "{scores:?}");
    let (answer, _) = recorded("versioned", stream).binary();
    assert_eq!(
        (&answer["id"], &answer["model_version"]),
        (&json!("request 7"), &json!("1.1.0"))
    );
    let refused = recorded("classification", stream);
    assert_eq!(refused.status, 400);
    assert!(
        refused.json()["error"]
            .as_str()
            .unwrap()
            .contains("classification")
    );
}

#[test]
fn what_tritonclient_sends_is_answered_over_tcp_and_over_a_unix_socket() {
    let (bench, _agent, package) = serving();
    let release = package.id.to_string();
    let mut tcp = TcpStream::connect(bench.address()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    check_recorded(&mut tcp, &release);
    let mut unix = UnixStream::connect(bench.state.with_file_name("api.sock")).unwrap();
    unix.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    check_recorded(&mut unix, &release);
}

#[test]
fn requests_that_fit_nothing_are_refused_with_a_reason_and_the_right_status() {
    let (bench, _agent, _) = serving();
    let mut stream = TcpStream::connect(bench.address()).unwrap();
    let infer = "/v2/models/anomaly/infer";
    let mut ask = |method: &str, path: &str, headers: &str, body: &str| {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: device\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        let answer = Answer::to(format!("{head}{body}").as_bytes(), &mut stream);
        let error = answer.json()["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (answer.status, error)
    };
    let tensor = |datatype: &str, data: &str| {
        format!(
            r#"{{"inputs":[{{"name":"readings","shape":[1,2],"datatype":"{datatype}","data":{data}}}]}}"#
        )
    };
    let length = |length: &str| format!("{LENGTH}: {length}\r\n");
    for (method, path, headers, body, status, told) in [
        ("GET", "/v3", "", "", 404, "/v3"),
        ("GET", infer, "", "", 405, "GET"),
        (
            "POST",
            "/v2/models/anomaly/versions/2/infer",
            "",
            "",
            404,
            "1.1.0",
        ),
        ("POST", infer, "", "{", 400, "not an inference request"),
        ("POST", infer, "", &tensor("FP64", "[1,2]"), 400, "readings"),
        (
            "POST",
            infer,
            "",
            &tensor("FP32", "[1]"),
            400,
            "fill its shape",
        ),
        (
            "POST",
            infer,
            "",
            &tensor("FP32", "[1,\"a\"]"),
            400,
            "element 1",
        ),
        ("POST", infer, &length("99"), "{}", 400, LENGTH),
        ("POST", infer, &length("é"), "{}", 400, LENGTH),
        ("POST", infer, &length("0"), "1234", 400, "whole rows"),
        (
            "POST",
            infer,
            "content-encoding: gzip\r\n",
            "{}",
            415,
            "compressed",
        ),
    ] {
        let (found, error) = ask(method, path, headers, body);
        assert_eq!(found, status, "{method} {path} {body}: {error}");
        assert!(error.contains(told), "{told} is not in {error}");
    }
    let (status, _) = ask("POST", infer, "", &tensor("FP32", "[1,2]"));
    assert_eq!(status, 200, "and the connection lives on");
}

#[test]
fn a_body_of_binary_data_alone_is_answered() {
    let (bench, _agent, _) = serving();
    let mut stream = TcpStream::connect(bench.address()).unwrap();
    let head = "POST /v2/models/anomaly/infer HTTP/1.1\r\nhost: device\r\n";
    let head = format!("{head}content-length: 16\r\n{LENGTH}: 0\r\n\r\n");
    let body = [1.0_f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
    let answer = Answer::to(&[head.as_bytes(), &body].concat(), &mut stream);
    assert_eq!(answer.binary().1, [2.0, 4.0, 6.0, 8.0]);
}

/// `BELLWETHER_TRITONCLIENT` is a Python interpreter that has what
/// `agent/tests/tritonclient/requirements.txt` names.
#[test]
#[ignore = "needs Python with tritonclient; see agent/tests/tritonclient/requirements.txt"]
fn tritonclient_itself_works_unchanged() {
    let (bench, _agent, _) = serving();
    let python = std::env::var_os("BELLWETHER_TRITONCLIENT").expect("BELLWETHER_TRITONCLIENT");
    let script = folder().join("check.py");
    let mut check = Command::new(python)
        .arg(script)
        .arg(bench.address())
        .spawn()
        .unwrap();
    let status = wait("the script's end", || check.try_wait().unwrap());
    assert!(status.success(), "{}", bench.log());
}

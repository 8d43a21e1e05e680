//! Figures of a real agent, for `cargo xtask bench agent`: printed, and judged elsewhere.
//!
//! `BELLWETHER_AGENT` and `BELLWETHER_WORKER` name the programs that are measured.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellwether_agent::config::Config;
use bellwether_agent::fetch;
use bellwether_agent::store::Store;
use bellwether_agent::trust::Trust;
use bellwether_package::SlotName;
use bellwether_package::sections::DType;
use bellwether_protocol::{DeviceId, Documents, Record, Topic, to_vec};
use bellwether_runtime::{Options, Session, Tensor};

use crate::bench::{Bench, DEVICE, wait};
use crate::downloads::large;
use crate::model;
use crate::package::Package;
use crate::people::SLOT;
use crate::server::Server;

/// Headers of one segment: IPv4, and TCP with time stamps.
const HEADER_BYTES: f64 = 52.0;
/// Reports that a mean is taken over.
const REPORTS: usize = 20;
/// Pings that a mean is taken over.
const PINGS: f64 = 6.0;
/// How long the agent is watched at rest.
const REST: Duration = Duration::from_secs(60);
/// Releases that replace one another while applications ask.
const SWAPS: u32 = 100;
/// Applications that ask meanwhile.
const APPLICATIONS: usize = 2;
/// Requests that a median is taken over.
const REQUESTS: usize = 2000;
/// Rows of two readings that make one kilobyte.
const ROWS: usize = 128;

fn figure(name: &str, value: f64) {
    println!("FIGURE\t{name}\t{value}");
}

/// A device with these intervals, and what it serves.
fn device(intervals: &str, server: Server) -> Bench {
    let bench = Bench::with(server);
    let text = std::fs::read_to_string(&bench.config).unwrap();
    let before = "[report]\nwindow_secs = 1\nhealth_secs = 1\n\
                  [link]\nspread_secs = 1\nkeep_alive_secs = 30\n";
    assert!(text.contains(before), "{text}");
    std::fs::write(&bench.config, text.replace(before, intervals)).unwrap();
    bench
}

fn first(bench: &Bench) -> Package {
    Package::approved(&bench.people, 1, &model::times(2.0), |x| 2.0 * x)
}

fn second(bench: &Bench) -> Package {
    Package::approved(&bench.people, 2, &model::times(3.0), |x| 3.0 * x)
}

#[test]
#[ignore = "measures for a minute; run by `cargo xtask bench agent`"]
fn rest_and_memory() {
    let mut bench = device("", Server::start());
    let agent = bench.start();
    let release = first(&bench);
    bench.install(&release);
    (0..100).for_each(|_| drop(bench.scores([1.0, 2.0])));
    // Whatever an update took is given back, and the first refresh is over.
    std::thread::sleep(Duration::from_secs(15));
    let before = cpu_ticks(agent.id());
    std::thread::sleep(REST);
    let ticks = cpu_ticks(agent.id()) - before;
    // A tick is a hundredth of a second.
    figure("rest_share", ticks as f64 / 100.0 / REST.as_secs_f64());
    figure("resident_kib", status_kib(agent.id(), "VmRSS"));
}

#[test]
#[ignore = "measures for a minute; run by `cargo xtask bench agent`"]
fn bytes_of_a_day() {
    let mut of_day = 0.0;
    // Reports, and the connection that they go over.
    let intervals = "[report]\nwindow_secs = 2\nhealth_secs = 2\n";
    let mut bench = device(intervals, Server::start());
    let _agent = bench.start();
    let release = first(&bench);
    bench.install(&release);
    let socket = bench.server.mqtts;
    let connected = wire_bytes(socket);
    let windows = |bench: &Bench| {
        let world = bench.server.world();
        let is_window = |record: &Record| matches!(record, Record::Window(_));
        world
            .reports
            .iter()
            .filter(|it| is_window(&it.record))
            .count()
    };
    let (before, begun) = (wire_bytes(socket), windows(&bench));
    wait("reports", || {
        (0..4).for_each(|_| drop(bench.scores([1.0, 2.0])));
        (windows(&bench) >= begun + REPORTS).then_some(())
    });
    let a_report = (wire_bytes(socket) - before) / (windows(&bench) - begun) as f64;
    figure("report_wire_bytes", a_report);
    figure("connect_wire_bytes", connected);
    of_day += connected + 24.0 * a_report;
    drop(bench);

    // Pings.
    let intervals = "[link]\nkeep_alive_secs = 5\n";
    let mut bench = device(intervals, Server::start());
    let _agent = bench.start();
    let release = first(&bench);
    bench.install(&release);
    let socket = bench.server.mqtts;
    wait("an empty outbox", || {
        (bench.status()?.reports_waiting == 0).then_some(())
    });
    let before = wire_bytes(socket);
    std::thread::sleep(Duration::from_secs_f64(5.0 * PINGS + 0.5));
    let a_ping = (wire_bytes(socket) - before) / PINGS;
    figure("ping_wire_bytes", a_ping);
    of_day += 48.0 * a_ping;

    // An assignment that comes again, with its notice.
    let before = wire_bytes(socket);
    bench.order(&release, 0, 0);
    let documents = Documents {
        root_version: 1,
        revocations_version: Some(1),
    };
    let topic = Topic::Documents(DeviceId::new(DEVICE).unwrap()).to_string();
    let notice = (topic, to_vec(&documents).unwrap());
    bench.server.world().strays.push(notice);
    wait("the outcome", || bench.wait_outcome(release.id).into());
    std::thread::sleep(Duration::from_secs(4));
    let an_order = wire_bytes(socket) - before;
    figure("order_wire_bytes", an_order);
    of_day += 4.0 * an_order;
    drop(bench);

    // A look for trust documents.
    let mut server = Server::start();
    let proxy = Proxy::before(server.https);
    server.https = proxy.address;
    let bench = device("[report]\ntrust_secs = 2\n", server);
    let _agent = bench.start();
    wait("a first look", || (proxy.connections() > 2).then_some(()));
    let (before, looks) = (proxy.wire_bytes(), proxy.connections());
    wait("looks", || (proxy.connections() >= looks + 8).then_some(()));
    let a_look = 2.0 * (proxy.wire_bytes() - before) / (proxy.connections() - looks) as f64;
    figure("look_wire_bytes", a_look);
    of_day += a_look;
    figure("day_wire_bytes", of_day);
}

#[test]
#[ignore = "measures for a minute; run by `cargo xtask bench agent`"]
fn inference() {
    let mut bench = device("", Server::start());
    let _agent = bench.start();
    let release = first(&bench);
    bench.install(&release);
    let mut over_http = OverHttp::connect(&bench);
    let mut session = session(&bench, &release);
    let values: Vec<f32> = (0..2 * ROWS).map(|n| n as f32).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
    let tensor = Tensor {
        name: "readings".into(),
        dtype: DType::F32,
        shape: vec![ROWS as u32, 2],
        bytes,
    };
    let mut times = [Vec::new(), Vec::new()];
    // In alternation, so that what else the machine does meets both.
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        over_http.ask(&tensor.bytes);
        times[0].push(begun.elapsed());
        let begun = Instant::now();
        session.run(std::slice::from_ref(&tensor)).unwrap();
        times[1].push(begun.elapsed());
    }
    let [http, direct] = times.map(median_us);
    figure("request_us", http);
    figure("direct_us", direct);
}

#[test]
#[ignore = "measures for minutes; run by `cargo xtask bench agent`"]
fn swaps() {
    let mut bench = device("", Server::start());
    let _agent = bench.start();
    let releases = [first(&bench), second(&bench)];
    bench.install(&releases[0]);
    let address = bench.address();
    let done = Arc::new(AtomicBool::new(false));
    let (asked, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let applications: Vec<_> = (0..APPLICATIONS)
        .map(|_| {
            let (address, done) = (address.clone(), done.clone());
            let (asked, failed) = (asked.clone(), failed.clone());
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let status = crate::bench::ask_at(&address, [1.0, 2.0]);
                    asked.fetch_add(1, Ordering::Relaxed);
                    if status != Some(200) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for n in 0..SWAPS {
        let release = &releases[(n as usize + 1) % 2];
        bench.order(release, 0, 0);
        bench.wait_committed(release.id);
    }
    done.store(true, Ordering::Relaxed);
    applications.into_iter().for_each(|it| it.join().unwrap());
    figure("swap_requests", asked.load(Ordering::Relaxed) as f64);
    figure("swap_failures", failed.load(Ordering::Relaxed) as f64);
}

#[test]
#[ignore = "measures for a minute; run by `cargo xtask bench agent`"]
fn from_order_to_trial() {
    let mut bench = device("", Server::start());
    let _agent = bench.start();
    let before = first(&bench);
    bench.install(&before);
    // Some 0.7 MB, of which no chunk is on the device.
    let release = large(&bench);
    bench.upload(&release);
    let begun = Instant::now();
    bench.order_desired(release.desired(), 3600, 1_000_000);
    wait("the trial", || {
        bench.slot().filter(|slot| slot.phase == "trial")
    });
    wait("its answers", || {
        (bench.scores([1.0, 2.0]).1 == release.id.to_string()).then_some(())
    });
    figure("trial_ms", begun.elapsed().as_secs_f64() * 1e3);
    figure("trial_package_bytes", release.bytes.len() as f64);
}

/// One connection that is kept open, as an application's is.
struct OverHttp {
    stream: TcpStream,
    head: Vec<u8>,
}

impl OverHttp {
    fn connect(bench: &Bench) -> Self {
        let stream = TcpStream::connect(bench.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        let json = serde_json::json!({
            "inputs": [{"name": "readings", "shape": [ROWS, 2], "datatype": "FP32",
                        "parameters": {"binary_data_size": 8 * ROWS}}],
            "parameters": {"binary_data_output": true},
        })
        .to_string();
        let length = json.len() + 8 * ROWS;
        let head = format!(
            "POST /v2/models/{SLOT}/infer HTTP/1.1\r\nHost: agent\r\nContent-Type: \
             application/octet-stream\r\nInference-Header-Content-Length: {}\r\nContent-Length: \
             {length}\r\n\r\n{json}",
            json.len()
        );
        Self {
            stream,
            head: head.into_bytes(),
        }
    }

    /// Asks, and reads the answer to its end.
    fn ask(&mut self, tensor: &[u8]) {
        let request = [self.head.as_slice(), tensor].concat();
        self.stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = self.stream.read(&mut buffer).unwrap();
            assert_ne!(read, 0, "the agent closed the connection");
            answer.extend_from_slice(&buffer[..read]);
            let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&answer[..end]).unwrap().to_lowercase();
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let length = head
                .lines()
                .find_map(|it| it.strip_prefix("content-length:"));
            let length: usize = length.unwrap().trim().parse().unwrap();
            if answer.len() >= end + 4 + length {
                return;
            }
        }
    }
}

/// The release that the device has, opened without the agent.
fn session(bench: &Bench, release: &Package) -> Session {
    let config = Config::read(&bench.config).unwrap();
    let store = Store::reader(&bench.state);
    let trust = Trust::load(&store).unwrap();
    let path = fetch::path(&store.path(fetch::FOLDER), release.id);
    let slot = SlotName::new(SLOT).unwrap();
    let (package, blob) = trust
        .verify_installed(&path, release.id, &slot, &config.attributes())
        .map_err(|why| format!("{why:?}"))
        .unwrap();
    Session::open(package, blob, Options::new(&config.worker)).unwrap()
}

/// Counts what passes to a server, a connection at a time in two threads.
struct Proxy {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Proxy {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            bytes: Arc::default(),
            reads: Arc::default(),
            connections: Arc::default(),
        };
        let (bytes, reads) = (proxy.bytes.clone(), proxy.reads.clone());
        let connections = proxy.connections.clone();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                let far = TcpStream::connect(server).unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                for (from, to) in [
                    (near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (far, near),
                ] {
                    let (bytes, reads) = (bytes.clone(), reads.clone());
                    std::thread::spawn(move || pass(from, to, &bytes, &reads));
                }
            }
        });
        proxy
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes in both directions, with the headers of a segment for each read and its answer, and of
    /// seven that open and close each connection.
    fn wire_bytes(&self) -> f64 {
        let segments = 2 * self.reads.load(Ordering::Relaxed) + 7 * self.connections();
        self.bytes.load(Ordering::Relaxed) as f64 + HEADER_BYTES * segments as f64
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, bytes: &AtomicU64, reads: &AtomicU64) {
    let mut buffer = [0; 1400];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        bytes.fetch_add(read as u64, Ordering::Relaxed);
        reads.fetch_add(1, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Bytes in both directions of the agent's connection to `server`, as its kernel counts them, with
/// the headers of every segment.
fn wire_bytes(server: SocketAddr) -> f64 {
    let filter = format!("dport = :{}", server.port());
    let output = Command::new("ss")
        .args(["-tinH", "state", "established", &filter])
        .output()
        .expect("ss, of Debian's package iproute2");
    let text = String::from_utf8(output.stdout).unwrap();
    let count = |name: &str| -> f64 {
        let words = text.split_whitespace();
        let counts = words.filter_map(|word| word.strip_prefix(name));
        counts.map(|count| count.parse::<f64>().unwrap()).sum()
    };
    let segments = count("segs_out:") + count("segs_in:");
    assert!(segments > 0.0, "no connection to {server}: {text}");
    count("bytes_sent:") + count("bytes_received:") + HEADER_BYTES * segments
}

fn cpu_ticks(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name in parentheses may hold spaces; user and system time are the 14th and 15th field.
    let (_, fields) = text.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn status_kib(process: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

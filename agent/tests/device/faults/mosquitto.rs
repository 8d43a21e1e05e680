//! The link against another broker than the one in the fleet server: a real mosquitto, over TLS 1.3
//! with the device's certificate, that keeps nothing over a restart.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_protocol::topic::{GONE_FILTER, INGEST_FILTER};
use bellwether_protocol::{
    Ack, BootId, Bundle, DeviceId, OutcomeKind, Record, Report, Topic, to_vec,
};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{Client, Event, MqttOptions};

use crate::bench::{Bench, DEVICE, wait};
use crate::model;
use crate::package::Package;
use crate::people::trial;
use crate::server::Server;

/// What a fleet's operator would write, but for the second listener: the server's own way in.
const CONFIG: &str = "\
per_listener_settings true
persistence false
listener DEVICES 127.0.0.1
cafile FOLDER/ca.pem
certfile FOLDER/broker.pem
keyfile FOLDER/broker.key
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file FOLDER/acl
listener SERVER 127.0.0.1
allow_anonymous true
";

/// Each device its own topics, and nothing else.
const ACL: &str = "\
pattern write bw/1/%u/report
pattern write bw/1/%u/gone
pattern read bw/1/%u/assignment
pattern read bw/1/%u/documents
pattern read bw/1/%u/ack
";

/// A running mosquitto, ended when dropped.
struct Broker {
    folder: tempfile::TempDir,
    devices: SocketAddr,
    server: SocketAddr,
    process: Child,
}

impl Broker {
    fn start(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [devices, own] = [free_address(), free_address()];
        let (authority, certificate, key) = server.broker_certificate();
        for (name, text) in [
            ("ca.pem", authority),
            ("broker.pem", certificate),
            ("broker.key", key),
            ("acl", ACL.to_owned()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let config = CONFIG
            .replace("DEVICES", &devices.port().to_string())
            .replace("SERVER", &own.port().to_string())
            .replace("FOLDER", folder.path().to_str().unwrap());
        std::fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        // It gives up root's rights, and has to read its files after that.
        Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(folder.path())
            .status()
            .unwrap();
        let process = run(folder.path(), own);
        Self {
            folder,
            devices,
            server: own,
            process,
        }
    }

    /// It ends at once and starts anew, knowing nothing.
    fn restart(&mut self) {
        self.stop();
        self.process = run(self.folder.path(), self.server);
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

fn run(folder: &Path, listens: SocketAddr) -> Child {
    // Debian has it where only root's path leads.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("mosquitto");
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    command.arg("-c").arg(folder.join("mosquitto.conf"));
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(folder.join("log"));
    command.stderr(log.unwrap()).stdout(Stdio::null());
    let mut process = command.spawn().unwrap_or_else(|error| {
        panic!("cannot start mosquitto ({error}): on Debian `apt-get install mosquitto`")
    });
    wait("mosquitto", || {
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(process.try_wait().unwrap().is_none(), "{}", log());
        TcpStream::connect(listens).ok()
    });
    process
}

/// The server's side of the broker: takes reports and acknowledges them.
struct Fleet {
    client: Client,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    reports: Vec<(Report, QoS)>,
    gone: Vec<Vec<u8>>,
    connections: usize,
}

impl Fleet {
    fn join(broker: SocketAddr) -> Self {
        let mut options = MqttOptions::new("fleet", "127.0.0.1", broker.port());
        options.set_clean_start(true);
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut connection) = Client::new(options, 64);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let fleet = Self {
            client: client.clone(),
            seen: seen.clone(),
        };
        std::thread::spawn(move || {
            loop {
                match connection.recv() {
                    Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                        for filter in [INGEST_FILTER, GONE_FILTER] {
                            client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                        }
                        seen.lock().unwrap().connections += 1;
                    }
                    Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                        take(&client, &publish, &seen);
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => std::thread::sleep(Duration::from_millis(100)),
                    Err(_) => return,
                }
            }
        });
        fleet.joined(1);
        fleet
    }

    fn joined(&self, times: usize) {
        wait("the fleet's own connection", || {
            (self.seen.lock().unwrap().connections >= times).then_some(())
        });
    }

    /// Publishes an order, retained.
    fn assign(&self, bench: &Bench, n: u64, package: &Package) {
        bench.upload(package);
        let order = bench
            .people
            .assignment(DEVICE, n, package.desired(), trial(0, 0));
        let topic = Topic::Assignment(DeviceId::new(DEVICE).unwrap()).to_string();
        self.client
            .publish(topic, QoS::AtLeastOnce, true, order)
            .unwrap();
    }

    fn committed(&self, package: &Package) -> usize {
        let seen = self.seen.lock().unwrap();
        let told = |record: &Record| {
            matches!(record, Record::Outcome(outcome)
                if outcome.release == Some(package.id) && outcome.kind == OutcomeKind::Committed)
        };
        let records = seen.reports.iter().map(|(report, _)| &report.record);
        records.filter(|record| told(record)).count()
    }
}

fn take(client: &Client, publish: &Publish, seen: &Mutex<Seen>) {
    let topic = std::str::from_utf8(&publish.topic).unwrap();
    let mut seen = seen.lock().unwrap();
    match Topic::parse(topic).unwrap() {
        Topic::Report(device) => {
            let reports = Bundle::open(&publish.payload).unwrap();
            let ack = Ack {
                boot: reports[0].boot,
                seqs: reports.iter().map(|report| report.seq).collect(),
            };
            for report in reports {
                let known =
                    |(it, _): &(Report, QoS)| (it.boot, it.seq) == (report.boot, report.seq);
                if !seen.reports.iter().any(known) {
                    seen.reports.push((report, publish.qos));
                }
            }
            let topic = Topic::Ack(device).to_string();
            let _ = client.try_publish(topic, QoS::AtMostOnce, false, to_vec(&ack).unwrap());
        }
        Topic::Gone(_) => seen.gone.push(publish.payload.to_vec()),
        other => panic!("nobody publishes to {other}"),
    }
}

fn serves(bench: &Bench, fleet: &Fleet, package: &Package) {
    bench.wait_committed(package.id);
    wait("the outcome", || {
        (fleet.committed(package) > 0).then_some(())
    });
    assert_eq!(fleet.committed(package), 1);
    wait("acknowledgements to empty the outbox", || {
        (bench.status()?.reports_waiting < 3).then_some(())
    });
}

#[test]
fn mosquitto_carries_orders_and_reports_over_its_restarts_and_tells_who_is_gone() {
    let server = Server::start();
    let mut broker = Broker::start(&server);
    server.world().mqtts = broker.devices.to_string();
    let bench = Bench::with(server);
    let fleet = Fleet::join(broker.server);
    let [first, second] = [2.0, 3.0].map(|factor| {
        Package::approved(&bench.people, factor as u32, &model::times(factor), |x| {
            factor * x
        })
    });

    // The order was there before the device.
    fleet.assign(&bench, 1, &first);
    let mut agent = bench.start();
    serves(&bench, &fleet, &first);

    broker.restart();
    wait("the agent to notice", || {
        (!bench.status()?.connected).then_some(())
    });
    bench.scores([1.0, 2.0]);
    fleet.joined(2);
    fleet.assign(&bench, 2, &second);
    serves(&bench, &fleet, &second);

    agent.kill();
    let boot = fleet.seen.lock().unwrap().reports[0].0.boot;
    let gone = wait("the last will", || {
        fleet.seen.lock().unwrap().gone.first().cloned()
    });
    assert_eq!(BootId(u64::from_le_bytes(gone.try_into().unwrap())), boot);
}

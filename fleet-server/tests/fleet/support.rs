//! A fleet server in a folder of its own, operators and devices that talk to it.

mod documents;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_package::chain::{join, split};
use bellwether_package::root::RootDocument;
use bellwether_package::{PackageId, PublicKey, RevocationList, RootChain, RootId, UnixSecs};
use bellwether_protocol::assignment::{Addressee, AssignmentError, open_assignment};
use bellwether_protocol::{
    Ack, Assignment, BootId, DeviceId, Record, Report, Topic, decode, to_vec,
};
use ed25519_dalek::SigningKey;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PubAckReason, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub(crate) use documents::*;

/// Longest wait for anything: the machine may be busy with something else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a message that must not come is waited for.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);
/// The slot that tests use.
pub(crate) const SLOT: &str = "cavitation";

pub(crate) fn now() -> UnixSecs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixSecs(since.expect("after 1970").as_secs())
}

/// Waits until `look` sees something.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// A server, its folder, and everything that its operator holds.
pub(crate) struct Fleet {
    folder: tempfile::TempDir,
    child: Option<Child>,
    arguments: Vec<String>,
    /// Where it listens.
    pub(crate) https: SocketAddr,
    /// Where its broker listens.
    pub(crate) mqtts: SocketAddr,
    token: String,
    chain: RootChain,
    /// What `init` said.
    pub(crate) said: BTreeMap<String, String>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Fleet {
    /// A new server with a trust root: ann, ben and cleo have keys 1 to 3, two must approve.
    pub(crate) fn start() -> Self {
        Self::start_with(&[], "")
    }

    pub(crate) fn start_with(arguments: &[&str], config: &str) -> Self {
        let mut fleet = Self::init(arguments, config);
        fleet.launch();
        fleet
    }

    /// Everything made, nothing started.
    pub(crate) fn init(arguments: &[&str], config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let made = Command::new(env!("CARGO_BIN_EXE_bellwether-server"))
            .args(["init", "--data"])
            .arg(&data)
            .output()
            .expect("the binary runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let said: BTreeMap<String, String> = String::from_utf8_lossy(&made.stdout)
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let director: PublicKey = said["director"].parse().expect("a public key");
        let signed = root_document(director)
            .sign(&[&key(1), &key(2)])
            .expect("a valid root");
        let file = join(&[signed]).expect("a chain");
        std::fs::write(folder.path().join("root.bwt"), &file).expect("written");
        let text = format!(
            "https = \"127.0.0.1:0\"\nmqtts = \"127.0.0.1:0\"\nplanner_period_ms = 200\n{config}"
        );
        std::fs::write(folder.path().join("server.toml"), text).expect("written");
        let token = std::fs::read_to_string(data.join("api-token")).expect("a token");
        Self {
            folder,
            child: None,
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            https: SocketAddr::from(([127, 0, 0, 1], 0)),
            mqtts: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: token.trim().to_owned(),
            chain: RootChain::verify_from_first(&file).expect("a valid chain"),
            said,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether-server"));
        command
            .args(["run", "--data"])
            .arg(self.data())
            .arg("--trust-root")
            .arg(self.folder.path().join("root.bwt"))
            .arg("--config")
            .arg(self.folder.path().join("server.toml"))
            .args(&self.arguments);
        command
    }

    /// Starts it, and waits until it serves.
    pub(crate) fn launch(&mut self) {
        let endpoints = self.data().join("endpoints.json");
        let _ = std::fs::remove_file(&endpoints);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log");
        let child = self
            .command()
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        self.child = Some(child);
        let found = eventually("the server to serve", || {
            let child = self.child.as_mut().expect("started");
            if let Some(status) = child.try_wait().expect("our child") {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            serde_json::from_slice::<Value>(&std::fs::read(&endpoints).ok()?).ok()
        });
        let address = |name: &str| {
            found[name]
                .as_str()
                .expect("text")
                .parse()
                .expect("an address")
        };
        self.https = address("https");
        self.mqtts = address("mqtts");
        eventually("the server's link", || {
            let (_, health) = self.operator().get("/healthz");
            (health["broker_connected"] == true).then_some(())
        });
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop, and says how it ended.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let asked = Command::new("kill")
            .arg(child.id().to_string())
            .status()
            .expect("kill runs");
        assert!(asked.success());
        eventually("the server to stop", || {
            child.try_wait().expect("our child")
        })
    }

    fn ca(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.data().join("ca.pem")).expect("a certificate")
    }

    pub(crate) fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca()).expect("a CA");
        roots
    }

    pub(crate) fn operator(&self) -> Http {
        Http::new(self, Some(self.token.clone()), None)
    }

    pub(crate) fn stranger(&self) -> Http {
        Http::new(self, None, None)
    }

    pub(crate) fn with_token(&self, token: &str) -> Http {
        Http::new(self, Some(token.to_owned()), None)
    }

    /// Publishes the next version of the trust root, signed by these persons. The file that the
    /// server is started with stays as it was.
    pub(crate) fn rotate(&mut self, persons: &[u8]) -> (u16, Value) {
        let director: PublicKey = self.said["director"].parse().expect("a public key");
        let next = RootDocument {
            version: 2,
            id: Some(self.root()),
            ..root_document(director)
        };
        let keys: Vec<SigningKey> = persons.iter().map(|person| key(*person)).collect();
        let signed = next
            .sign(&keys.iter().collect::<Vec<_>>())
            .expect("a valid root");
        let file = std::fs::read(self.folder.path().join("root.bwt")).expect("the chain");
        let first = split(&file).expect("a chain")[0].to_vec();
        let file = join(&[first, signed]).expect("a chain");
        let answer = self.operator().post_bytes("/v1/trust-root", &file);
        if answer.0 == 200 {
            self.chain = RootChain::verify_from_first(&file).expect("a valid chain");
        }
        answer
    }

    pub(crate) fn root(&self) -> RootId {
        self.chain.id()
    }

    /// Publishes an empty revocation list of that version.
    pub(crate) fn publish_revocations(&self, version: u64, packages: &[PackageId]) -> (u16, Value) {
        let list = RevocationList {
            root: self.root(),
            version,
            expires: now().plus_secs(86_400),
            packages: packages.iter().copied().collect(),
            least: heapless::Vec::new(),
        };
        let signed = list.sign(&[&key(1), &key(2)]).expect("a valid list");
        self.operator().put_bytes("/v1/revocations", &signed)
    }

    /// Uploads a package of that version, approved by these persons.
    pub(crate) fn release(&self, major: u32, persons: &[u8]) -> PackageId {
        self.release_of(&package(major), &[SLOT], persons)
    }

    /// Uploads these bytes, approved for these slots by these persons.
    pub(crate) fn release_of(&self, bytes: &[u8], slots: &[&str], persons: &[u8]) -> PackageId {
        let (status, answer) = self.operator().post_bytes("/v1/packages", bytes);
        assert_eq!(status, 201, "{answer}");
        let id = id_of(bytes);
        assert_eq!(answer["id"], id.to_string());
        for person in persons {
            let signed = approval_for(self.root(), id, slots)
                .sign(&key(*person))
                .expect("signed");
            let path = format!("/v1/packages/{id}/approvals");
            let (status, answer) = self.operator().post_bytes(&path, &signed);
            assert_eq!(status, 200, "{answer}");
        }
        id
    }

    pub(crate) fn claim(&self, request: Value) -> String {
        let (status, answer) = self.operator().post("/v1/claims", &request);
        assert_eq!(status, 201, "{answer}");
        answer["claim"].as_str().expect("text").to_owned()
    }

    /// Enrols a device of class pump.
    pub(crate) fn enrol(&self, device: &str) -> Device {
        let claim = self.claim(json!({ "device": device }));
        let pair = rcgen::KeyPair::generate().expect("a key");
        let (status, answer) = self.ask_to_enrol(&claim, device, &pair);
        assert_eq!(status, 200, "{answer}");
        self.device(device, &pair, &answer)
    }

    /// The device that holds this key and was given the certificate in `answer`.
    pub(crate) fn device(&self, device: &str, pair: &rcgen::KeyPair, answer: &Value) -> Device {
        let pem = answer["certificate_pem"].as_str().expect("text");
        Device {
            id: DeviceId::new(device).expect("an id"),
            certificate: CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate"),
            key: pair.serialize_der(),
            key_pem: pair.serialize_pem(),
            ca: self.ca(),
            mqtts: self.mqtts,
            boot: BootId(u64::from_le_bytes(*b"bellwthr")),
            seq: 0,
        }
    }

    pub(crate) fn ask_to_enrol(
        &self,
        claim: &str,
        device: &str,
        pair: &rcgen::KeyPair,
    ) -> (u16, Value) {
        let csr = certificate_request(pair);
        let ask = json!({
            "claim": claim, "device": device, "csr_pem": csr, "attributes": { "class": "pump" },
        });
        self.stranger().post("/v1/enroll", &ask)
    }

    pub(crate) fn http_of(&self, device: &Device) -> Http {
        Http::new(self, None, Some(device))
    }

    /// Opens what was published to a device.
    pub(crate) fn open(&self, device: &Device, bytes: &[u8]) -> Assignment {
        self.try_open(device, bytes)
            .expect("signed by our director, for this device")
    }

    /// Opens what was published to a device, as the device would under the newest root.
    pub(crate) fn try_open(
        &self,
        device: &Device,
        bytes: &[u8],
    ) -> Result<Assignment, AssignmentError> {
        let root = self.chain.latest();
        let to = Addressee {
            device: &device.id,
            root: root.id(),
            root_version: root.version(),
            directors: root.director_keys(),
            now: Some(now()),
        };
        open_assignment(bytes, &to)
    }
}

/// A certificate request for that key, in PEM.
pub(crate) fn certificate_request(pair: &rcgen::KeyPair) -> String {
    let params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    let csr = params.serialize_request(pair).expect("a request");
    csr.pem().expect("PEM")
}

/// A client of the REST API.
pub(crate) struct Http {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
}

impl Http {
    fn new(fleet: &Fleet, token: Option<String>, device: Option<&Device>) -> Self {
        let certificate =
            |der: &CertificateDer<'_>| ureq::tls::Certificate::from_der(der).to_owned();
        let client = device.map(|device| {
            let key = ureq::tls::PrivateKey::from_pem(device.key_pem.as_bytes()).expect("a key");
            ureq::tls::ClientCert::new_with_certs(&[certificate(&device.certificate)], key)
        });
        let tls = ureq::tls::TlsConfig::builder()
            .provider(ureq::tls::TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(ureq::tls::RootCerts::new_with_certs(&[certificate(
                &fleet.ca(),
            )]))
            .client_cert(client)
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Self {
            agent,
            base: format!("https://{}", fleet.https),
            token,
        }
    }

    fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
        let (status, bytes, _) = Self::raw(result);
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    fn raw(
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> (u16, Vec<u8>, ureq::http::HeaderMap) {
        let mut answer = result.expect("the server answers");
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(1 << 24)
            .read_to_vec()
            .expect("a body");
        (answer.status().as_u16(), bytes, answer.headers().clone())
    }

    fn bearer(&self) -> String {
        self.token
            .as_ref()
            .map(|token| format!("Bearer {token}"))
            .unwrap_or_default()
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let request = self.agent.get(format!("{}{path}", self.base));
        Self::answer(if self.token.is_some() {
            request.header("authorization", self.bearer()).call()
        } else {
            request.call()
        })
    }

    pub(crate) fn get_raw(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, Vec<u8>, ureq::http::HeaderMap) {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if self.token.is_some() {
            request = request.header("authorization", self.bearer());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Self::raw(request.call())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if self.token.is_some() {
            request = request.header("authorization", self.bearer());
        }
        Self::answer(request.send_json(body))
    }

    pub(crate) fn post_bytes(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.base));
        Self::answer(request.header("authorization", self.bearer()).send(body))
    }

    pub(crate) fn put_bytes(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let request = self.agent.put(format!("{}{path}", self.base));
        Self::answer(request.header("authorization", self.bearer()).send(body))
    }
}

/// An enrolled device.
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    key_pem: String,
    ca: CertificateDer<'static>,
    pub(crate) mqtts: SocketAddr,
    pub(crate) boot: BootId,
    pub(crate) seq: u64,
}

impl Device {
    /// Its next report of this record.
    pub(crate) fn report(&mut self, record: Record) -> Report {
        self.seq += 1;
        Report {
            boot: self.boot,
            seq: self.seq,
            at: now(),
            record,
        }
    }

    pub(crate) fn connect(&self) -> Mqtt {
        self.try_connect(self.id.as_str(), None)
            .expect("the broker lets its own device in")
    }

    pub(crate) fn try_connect(
        &self,
        client_id: &str,
        will: Option<LastWill>,
    ) -> Result<Mqtt, ConnectionError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.clone()).expect("a CA");
        let key = PrivateKeyDer::Pkcs8(self.key.clone().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![self.certificate.clone()], key)
            .expect("a key that fits");
        let host = self.mqtts.ip().to_string();
        let mut options = MqttOptions::new(client_id, host, self.mqtts.port());
        options
            .set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))))
            .set_clean_start(true)
            .set_keep_alive(Duration::from_secs(60))
            .set_max_packet_size(Some(64 * 1024));
        if let Some(will) = will {
            options.set_last_will(will);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("tokio");
        let (client, events) = AsyncClient::new(options, 64);
        let mut mqtt = Mqtt {
            runtime,
            client,
            events,
            heard: Vec::new(),
        };
        mqtt.until("the connection", |packet| {
            matches!(packet, Packet::ConnAck(_)).then_some(())
        })?;
        Ok(mqtt)
    }
}

/// A connection to the broker.
pub(crate) struct Mqtt {
    runtime: Runtime,
    client: AsyncClient,
    events: EventLoop,
    heard: Vec<(String, Vec<u8>)>,
}

impl Mqtt {
    fn until<T>(
        &mut self,
        what: &str,
        wanted: impl Fn(&Packet) -> Option<T>,
    ) -> Result<T, ConnectionError> {
        let Self {
            runtime,
            events,
            heard,
            ..
        } = self;
        runtime.block_on(async {
            let answer = async {
                loop {
                    if let Event::Incoming(packet) = events.poll().await? {
                        if let Packet::Publish(message) = &packet {
                            let topic = String::from_utf8_lossy(&message.topic).into_owned();
                            heard.push((topic, message.payload.to_vec()));
                        }
                        if let Some(answer) = wanted(&packet) {
                            return Ok(answer);
                        }
                    }
                }
            };
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            answer.unwrap_or_else(|_| panic!("waited in vain for {what}"))
        })
    }

    /// Whether the broker took it.
    pub(crate) fn publish(&mut self, topic: &str, retain: bool, payload: &[u8]) -> bool {
        self.client
            .try_publish(topic, QoS::AtLeastOnce, retain, payload.to_vec())
            .expect("room");
        self.until("PUBACK", |packet| match packet {
            Packet::PubAck(ack) => {
                let taken = [PubAckReason::Success, PubAckReason::NoMatchingSubscribers];
                Some(taken.contains(&ack.reason))
            }
            _ => None,
        })
        .expect("connected")
    }

    /// Waits until the broker ends the connection.
    pub(crate) fn ended(&mut self) {
        let ended = self.until("the end of the connection", |packet| {
            matches!(packet, Packet::Disconnect(_)).then_some(())
        });
        // With a farewell or without.
        let _ = ended;
    }

    /// Whether the broker granted it.
    pub(crate) fn subscribe(&mut self, filter: &str) -> bool {
        self.client
            .try_subscribe(filter, QoS::AtLeastOnce)
            .expect("room");
        self.until("SUBACK", |packet| match packet {
            Packet::SubAck(ack) => {
                let granted =
                    |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                Some(ack.return_codes.iter().any(granted))
            }
            _ => None,
        })
        .expect("connected")
    }

    /// The next message, or none within [`SILENCE`].
    pub(crate) fn listen(&mut self) -> Option<(String, Vec<u8>)> {
        if self.heard.is_empty() {
            let Self {
                runtime,
                events,
                heard,
                ..
            } = self;
            let _ = runtime.block_on(async {
                let listening = async {
                    while let Ok(event) = events.poll().await {
                        if let Event::Incoming(Packet::Publish(message)) = event {
                            let topic = String::from_utf8_lossy(&message.topic).into_owned();
                            heard.push((topic, message.payload.to_vec()));
                            return;
                        }
                    }
                };
                tokio::time::timeout(SILENCE, listening).await
            });
        }
        if self.heard.is_empty() {
            None
        } else {
            Some(self.heard.remove(0))
        }
    }

    /// The next message on that topic; others are left for later.
    pub(crate) fn next(&mut self, topic: &Topic) -> Vec<u8> {
        let name = topic.name();
        let mut others = Vec::new();
        let found = eventually(&format!("a message on {topic}"), || {
            let (on, payload) = self.listen()?;
            if on == name.as_str() {
                return Some(payload);
            }
            others.push((on, payload));
            None
        });
        self.heard.splice(0..0, others);
        found
    }

    /// Reports and waits for the acknowledgement.
    pub(crate) fn report(&mut self, device: &Device, report: &Report) -> Ack {
        let payload = to_vec(report).expect("within bounds");
        assert!(self.publish(&Topic::Report(device.id.clone()).name(), false, &payload));
        eventually("the acknowledgement", || {
            let ack: Ack = decode(&self.next(&Topic::Ack(device.id.clone()))).expect("an ack");
            ack.seqs.contains(&report.seq).then_some(ack)
        })
    }
}

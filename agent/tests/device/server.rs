//! A server and broker just large enough for one device: real sockets, real TLS, no decisions.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bellwether_package::Digest;
use bellwether_package::digest::sha256;
use bellwether_protocol::{Ack, Bundle, DeviceId, Report, Topic, to_vec};
use bytes::{BufMut as _, BytesMut};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DnType,
    IsCa, Issuer, KeyPair, SanType,
};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Packet, PingResp, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the server has and has seen.
#[derive(Default)]
pub(crate) struct World {
    /// Bodies by path.
    pub(crate) files: HashMap<String, Vec<u8>>,
    /// The retained assignment.
    pub(crate) assignment: Vec<u8>,
    /// Counts up with each new assignment.
    pub(crate) assignment_version: u64,
    /// Reports in the order of arrival.
    pub(crate) reports: Vec<Report>,
    /// Whether reports are acknowledged.
    pub(crate) acknowledges: bool,
    /// `Range` headers seen on package downloads.
    pub(crate) ranges: Vec<Option<String>>,
    /// Bytes of packages sent.
    pub(crate) package_bytes_sent: usize,
    /// Packages are refused with this status line.
    pub(crate) refuses_packages: Option<&'static str>,
    /// Bodies are cut after so many bytes, once.
    pub(crate) cut_once: Option<usize>,
    /// Each 16 KiB of a body waits so long.
    pub(crate) pause: Option<Duration>,
    /// Certificate requests and claims seen.
    pub(crate) claims: Vec<String>,
    /// The trust chain handed out at enrolment.
    pub(crate) chain: Vec<u8>,
    /// Broker address handed out at enrolment.
    pub(crate) mqtts: String,
    /// Messages to whoever is connected: topic and payload, each sent once.
    pub(crate) strays: Vec<(String, Vec<u8>)>,
    /// Connections are refused while it is down.
    pub(crate) down: bool,
    /// By how much the server's clock is ahead of the device's, in seconds.
    pub(crate) ahead_secs: i64,
    /// How long the certificates that it gives are good for.
    pub(crate) certificate_life: Option<Duration>,
    /// The name that certificates are given for, whatever is asked.
    pub(crate) certified_as: Option<String>,
    /// The certificates that were shown to the broker, in the order of the connections.
    pub(crate) shown: Vec<Vec<u8>>,
    /// How many certificates were renewed.
    pub(crate) renewals: usize,
}

/// A running server; its threads end with the process.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) https: SocketAddr,
    pub(crate) mqtts: SocketAddr,
    pub(crate) authority: Digest,
    issuer: Arc<Authority>,
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_ahead(0)
    }

    /// One whose clock is so many seconds ahead of the device's, and whose own certificate is good
    /// for a day around that time.
    pub(crate) fn start_ahead(ahead_secs: i64) -> Self {
        let authority = Arc::new(authority());
        let world = Arc::new(Mutex::new(World {
            acknowledges: true,
            ahead_secs,
            ..World::default()
        }));
        let https = TcpListener::bind("127.0.0.1:0").unwrap();
        let mqtts = TcpListener::bind("127.0.0.1:0").unwrap();
        let der = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
        let server = Self {
            world: world.clone(),
            https: https.local_addr().unwrap(),
            mqtts: mqtts.local_addr().unwrap(),
            authority: sha256(&der),
            issuer: authority.clone(),
        };
        server.world().mqtts = server.mqtts.to_string();
        let open = Arc::new(tls(&authority, false, ahead_secs));
        let mutual = Arc::new(tls(&authority, true, ahead_secs));
        let of_https = (world.clone(), authority.clone());
        accept(https, open, move |stream| {
            http(stream, &of_https.0, &of_https.1)
        });
        accept(mqtts, mutual, move |stream| {
            let _ = broker(stream, &world);
        });
        server
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// PEM files for another broker: the authority, and a certificate for this machine with its key.
    pub(crate) fn broker_certificate(&self) -> (String, String, String) {
        let (certificate, key) = certificate(&self.issuer, 0);
        (
            self.issuer.pem.clone(),
            certificate.pem(),
            key.serialize_pem(),
        )
    }

    pub(crate) fn assign(&self, signed: Vec<u8>) {
        let mut world = self.world();
        world.assignment = signed;
        world.assignment_version += 1;
    }
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    serve: impl Fn(Stream) + Send + Sync + 'static,
) {
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (serve, config) = (serve.clone(), config.clone());
            std::thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                serve(StreamOwned::new(connection, stream));
            });
        }
    });
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "test authority");
    let pem = params.self_signed(&key).unwrap().pem();
    Authority {
        issuer: Issuer::new(params, key),
        pem,
    }
}

/// A certificate for this machine, and its key.
fn certificate(authority: &Authority, ahead_secs: i64) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    if ahead_secs != 0 {
        let now = ahead(ahead_secs);
        params.not_before = (now - DAY / 2).into();
        params.not_after = (now + DAY / 2).into();
    }
    (params.signed_by(&key, &authority.issuer).unwrap(), key)
}

fn tls(authority: &Authority, mutual: bool, ahead_secs: i64) -> ServerConfig {
    let (certificate, key) = certificate(authority, ahead_secs);
    let of_authority = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = {
        let mut roots = RootCertStore::empty();
        roots.add(of_authority.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let verifier = if mutual {
            verifier
        } else {
            verifier.allow_unauthenticated()
        };
        builder.with_client_cert_verifier(verifier.build().unwrap())
    };
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    builder
        .with_single_cert(vec![certificate.der().clone(), of_authority], key)
        .unwrap()
}

fn http(mut stream: Stream, world: &Mutex<World>, authority: &Authority) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 || world.lock().unwrap().down {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let header = |name: &str| {
        let line = head.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap(), words.next().unwrap().to_owned());
    let mut body = vec![0; header("content-length").map_or(0, |text| text.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    if method == "post" {
        let answer = if path == "/v1/renew" {
            renew(&stream, &body, world, authority)
        } else {
            enrol(&body, world, authority)
        };
        return answer_with(&mut stream, "200 OK", "", &answer, None);
    }
    let range = header("range");
    let refuses = world.lock().unwrap().refuses_packages;
    if let Some(status) = refuses.filter(|_| path.starts_with("/v1/packages/")) {
        world.lock().unwrap().ranges.push(range);
        return answer_with(&mut stream, status, "", b"{}", None);
    }
    let now = httpdate::fmt_http_date(ahead(world.lock().unwrap().ahead_secs));
    let date = format!("date: {now}\r\n");
    let (file, cut, pause) = {
        let mut world = world.lock().unwrap();
        let is_package = path.starts_with("/v1/packages/");
        if is_package {
            world.ranges.push(range.clone());
        }
        let cut = if is_package {
            world.cut_once.take()
        } else {
            None
        };
        (
            world.files.get(&path).cloned(),
            cut,
            world.pause.filter(|_| is_package),
        )
    };
    let Some(file) = file else {
        let error = br#"{"error":{"code":"unknown","message":"no such thing","next":"none"}}"#;
        return answer_with(&mut stream, "404 Not Found", "", error, None);
    };
    let (from, end) = range.as_deref().map_or((0, file.len()), |range| {
        let (from, last) = range["bytes=".len()..].split_once('-').unwrap();
        let end = last.parse().map_or(file.len(), |last: usize| last + 1);
        (from.parse().unwrap(), end.min(file.len()))
    });
    if from > 0 && from >= file.len() {
        return answer_with(&mut stream, "416 Range Not Satisfiable", "", b"", None);
    }
    let extra = format!(
        "{date}content-range: bytes {from}-{}/{}\r\n",
        end - 1,
        file.len()
    );
    let (status, extra) = if range.is_some() {
        ("206 Partial Content", extra.as_str())
    } else {
        ("200 OK", date.as_str())
    };
    let body = &file[from..end];
    let end = cut.map_or(body.len(), |cut| cut.min(body.len()));
    send_head(&mut stream, status, extra, body.len());
    for part in body[..end].chunks(16 * 1024) {
        if stream
            .write_all(part)
            .and_then(|()| stream.flush())
            .is_err()
        {
            return;
        }
        if path.starts_with("/v1/packages/") {
            world.lock().unwrap().package_bytes_sent += part.len();
        }
        std::thread::sleep(pause.unwrap_or_default());
    }
    close(stream);
}

fn answer_with(stream: &mut Stream, status: &str, extra: &str, body: &[u8], _: Option<()>) {
    send_head(stream, status, extra, body.len());
    let _ = stream.write_all(body);
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn send_head(stream: &mut Stream, status: &str, extra: &str, length: usize) {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{extra}\r\n"
    );
    let _ = stream.write_all(head.as_bytes());
}

fn close(mut stream: Stream) {
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn enrol(body: &[u8], world: &Mutex<World>, authority: &Authority) -> Vec<u8> {
    use base64::Engine as _;
    let ask: serde_json::Value = serde_json::from_slice(body).unwrap();
    let mut world = world.lock().unwrap();
    let certificate = certify(&ask, ask["device"].as_str().unwrap(), &world, authority);
    world.claims.push(ask["claim"].as_str().unwrap().to_owned());
    serde_json::to_vec(&serde_json::json!({
        "certificate_pem": certificate,
        "ca_pem": authority.pem,
        "mqtts": world.mqtts,
        "trust_root_b64": base64::engine::general_purpose::STANDARD.encode(&world.chain),
        "attributes": {},
    }))
    .unwrap()
}

/// A certificate for the key of a request.
fn certify(ask: &serde_json::Value, device: &str, world: &World, authority: &Authority) -> String {
    let csr = CertificateSigningRequestParams::from_pem(ask["csr_pem"].as_str().unwrap()).unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    let device = world.certified_as.as_deref().unwrap_or(device);
    params.distinguished_name.push(DnType::CommonName, device);
    if let Some(life) = world.certificate_life {
        params.not_before = SystemTime::now().into();
        params.not_after = (SystemTime::now() + life).into();
    }
    let signed = params.signed_by(&csr.public_key, &authority.issuer);
    signed.unwrap().pem()
}

fn renew(stream: &Stream, body: &[u8], world: &Mutex<World>, authority: &Authority) -> Vec<u8> {
    let shown = stream.conn.peer_certificates();
    assert!(shown.is_some(), "a renewal without a certificate");
    let ask: serde_json::Value = serde_json::from_slice(body).unwrap();
    let mut world = world.lock().unwrap();
    world.renewals += 1;
    // The later ones are good for as long as any test takes.
    world.certificate_life = None;
    serde_json::to_vec(&serde_json::json!({
        "certificate_pem": certify(&ask, crate::bench::DEVICE, &world, authority),
        "mqtts": world.mqtts,
    }))
    .unwrap()
}

fn ahead(secs: i64) -> SystemTime {
    let by = Duration::from_secs(secs.unsigned_abs());
    if secs < 0 {
        SystemTime::now() - by
    } else {
        SystemTime::now() + by
    }
}

/// One MQTT connection: retained assignment and acknowledgements down, reports up.
fn broker(mut stream: Stream, world: &Mutex<World>) -> std::io::Result<()> {
    stream
        .sock
        .set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut buffer = BytesMut::new();
    let mut device = None;
    let mut sent = 0;
    loop {
        if world.lock().unwrap().down {
            return Ok(());
        }
        let mut bytes = [0; 16 * 1024];
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => buffer.put_slice(&bytes[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        while let Ok(packet) = Packet::read(&mut buffer, Some(1 << 20)) {
            match packet {
                Packet::Connect(connect, _, _) => {
                    device = Some(DeviceId::new(&connect.client_id).unwrap());
                    let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
                    world.lock().unwrap().shown.push(shown);
                    let code = ConnectReturnCode::Success;
                    let ack = ConnAck {
                        session_present: false,
                        code,
                        properties: None,
                    };
                    send(&mut stream, Packet::ConnAck(ack))?;
                }
                Packet::Subscribe(subscribe) => {
                    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
                    let return_codes = vec![granted; subscribe.filters.len()];
                    let ack = SubAck {
                        pkid: subscribe.pkid,
                        return_codes,
                        properties: None,
                    };
                    send(&mut stream, Packet::SubAck(ack))?;
                }
                Packet::PingReq(_) => send(&mut stream, Packet::PingResp(PingResp))?,
                Packet::Publish(publish) => {
                    if publish.qos != QoS::AtMostOnce {
                        let ack = PubAck::new(publish.pkid, None);
                        send(&mut stream, Packet::PubAck(ack))?;
                    }
                    take_report(&mut stream, device.as_ref().unwrap(), &publish, world)?;
                }
                _ => {}
            }
        }
        let assignment = {
            let world = world.lock().unwrap();
            let new = device.is_some() && world.assignment_version > sent;
            sent = if new { world.assignment_version } else { sent };
            new.then(|| world.assignment.clone())
        };
        if let Some(assignment) = assignment {
            let topic = Topic::Assignment(device.clone().unwrap()).to_string();
            let mut publish = Publish::new(topic, QoS::AtMostOnce, assignment, None);
            publish.retain = true;
            send(&mut stream, Packet::Publish(publish))?;
        }
        if device.is_some() {
            let strays = std::mem::take(&mut world.lock().unwrap().strays);
            for (topic, payload) in strays {
                let publish = Publish::new(topic, QoS::AtMostOnce, payload, None);
                send(&mut stream, Packet::Publish(publish))?;
            }
        }
    }
}

fn take_report(
    stream: &mut Stream,
    device: &DeviceId,
    publish: &Publish,
    world: &Mutex<World>,
) -> std::io::Result<()> {
    let reports = Bundle::open(&publish.payload).unwrap();
    let ack = Ack {
        boot: reports[0].boot,
        seqs: reports.iter().map(|report| report.seq).collect(),
    };
    let acknowledges = {
        let mut world = world.lock().unwrap();
        for report in reports {
            let known = |it: &Report| (it.boot, it.seq) == (report.boot, report.seq);
            if !world.reports.iter().any(known) {
                world.reports.push(report);
            }
        }
        world.acknowledges
    };
    if acknowledges {
        let topic = Topic::Ack(device.clone()).to_string();
        let publish = Publish::new(topic, QoS::AtMostOnce, to_vec(&ack).unwrap(), None);
        send(stream, Packet::Publish(publish))?;
    }
    Ok(())
}

fn send(stream: &mut Stream, packet: Packet) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).unwrap();
    stream.write_all(&bytes)?;
    stream.flush()
}

//! The agent as a package installs it: enrolled by root, run by a user of its own, and silent about
//! what nobody may know.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::bench::{Bench, wait};
use crate::model;
use crate::package::Package;
use crate::server::Server;

/// The user of whoever owns nothing.
const NOBODY: u32 = 65_534;
const CLAIM: &str = "a-claim-that-nobody-may-see-7c21";

/// A device whose state folder belongs to another user, if this is root; the claim's file is
/// root's.
fn bench_of_nobody() -> Option<(Bench, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can hand over to another user");
        return None;
    }
    let bench = Bench::unenrolled(Server::start());
    let around = bench.state.parent().unwrap();
    std::fs::set_permissions(around, PermissionsExt::from_mode(0o755)).unwrap();
    let claim = around.join("claim");
    std::fs::write(&claim, CLAIM).unwrap();
    std::fs::set_permissions(&claim, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::create_dir(&bench.state).unwrap();
    chown(&bench.state, Some(NOBODY), Some(NOBODY)).unwrap();
    Some((bench, claim))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn enrolled_by_root_all_that_the_device_keeps_belongs_to_the_services_user_alone() {
    let Some((bench, claim)) = bench_of_nobody() else {
        return;
    };
    let output = bench.enroll_command(&claim).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(bench.server.world().claims, [CLAIM]);
    let files = files_below(&bench.state);
    assert!(files.contains(&bench.state.join("identity")), "{files:?}");
    for path in files {
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            (NOBODY, NOBODY),
            "{path:?}"
        );
        assert_eq!(metadata.mode() & 0o077, 0, "{path:?}");
    }
    // The service's user starts with it; root does not, and changes nothing.
    let mut run = Command::new(env!("CARGO_BIN_EXE_bellwether-agent"));
    run.arg("run").arg("--config").arg(&bench.config);
    let refused = run.output().unwrap();
    assert!(!refused.status.success());
    assert!(
        told(&refused).contains("belongs to user 65534"),
        "{}",
        told(&refused)
    );
    let mut agent = run
        .uid(NOBODY)
        .gid(NOBODY)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait("the agent of the service's user", || bench.status());
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn a_claim_may_come_by_standard_input_and_a_nameless_device_is_not_enrolled() {
    let bench = Bench::unenrolled(Server::start());
    let mut enroll = bench.enroll_command(Path::new("-"));
    let enroll = enroll.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = enroll.spawn().unwrap();
    let mut input = running.stdin.take().unwrap();
    writeln!(input, "{CLAIM}").unwrap();
    drop(input);
    assert!(running.wait().unwrap().success());
    assert_eq!(bench.server.world().claims, [CLAIM]);

    let text = std::fs::read_to_string(&bench.config).unwrap();
    std::fs::write(&bench.config, text.replace("\"pump-1\"", "\"change-me\"")).unwrap();
    let output = bench.enroll_command(&bench.config).output().unwrap();
    assert!(
        told(&output).contains("which device this is"),
        "{}",
        told(&output)
    );
    assert_eq!(bench.server.world().claims.len(), 1, "nothing was asked");
}

#[test]
fn no_log_holds_a_claim_or_a_key_even_at_the_finest_level() {
    let mut bench = Bench::unenrolled(Server::start());
    // The key is replaced while the log is written.
    bench.server.world().certificate_life = Some(Duration::from_secs(6));
    let claim = bench.state.with_file_name("claim");
    std::fs::write(&claim, CLAIM).unwrap();
    let mut enroll = bench.enroll_command(&claim);
    let enrolled = enroll.env("BELLWETHER_LOG", "trace").output().unwrap();
    assert!(enrolled.status.success(), "{}", told(&enrolled));
    let mut secrets = keys(&bench);
    let mut agent = bench.spawn_with(&[("BELLWETHER_LOG", "trace")]);
    bench.install(&Package::approved(
        &bench.people,
        0,
        &model::times(2.0),
        |x| 2.0 * x,
    ));
    wait("another key", || {
        (bench.server.world().renewals > 0).then_some(())
    });
    wait("its certificate", || {
        (keys(&bench).len() == 2).then_some(())
    });
    assert!(agent.stop().success());
    secrets.extend(keys(&bench));
    secrets.dedup();
    assert!(secrets.len() >= 2, "the key was replaced");
    let log = told(&enrolled) + &bench.log();
    assert!(log.contains("agent stops"), "{log}");
    assert!(!log.contains(CLAIM), "{}", around(&log, CLAIM));
    for secret in secrets {
        for shape in shapes(&secret) {
            assert!(!log.contains(&shape), "{}", around(&log, &shape));
        }
    }
}

/// The private numbers of the keys in the state folder: the one in use and the one before.
fn keys(bench: &Bench) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for name in ["identity.prev", "identity"] {
        let Ok(bytes) = std::fs::read(bench.state.join(name)) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (_, rest) = text.split_once("-----BEGIN PRIVATE KEY-----").unwrap();
        let (body, _) = rest.split_once("-----END PRIVATE KEY-----").unwrap();
        let der = STANDARD.decode(body.replace(['\r', '\n'], "")).unwrap();
        // RFC 5915: version 1, then an octet string of 32 bytes.
        let begin = [2, 1, 1, 4, 32];
        let at = der.windows(5).position(|window| window == begin).unwrap();
        found.push(der[at + 5..at + 37].to_vec());
    }
    found
}

/// How bytes may stand in a log: a third of them is enough to be found.
fn shapes(secret: &[u8]) -> Vec<String> {
    let decimal: Vec<String> = secret.iter().map(u8::to_string).collect();
    let hex = |byte: &u8| format!("{byte:02x}");
    let hex: String = secret.iter().map(hex).collect();
    let mut shapes = vec![
        decimal[..10].join(", "),
        hex[..20].to_owned(),
        hex[..20].to_uppercase(),
    ];
    // Base64 depends on what stands before.
    for skip in 0..3 {
        let part = &secret[skip..skip + 15];
        shapes.extend([STANDARD.encode(part), URL_SAFE.encode(part)]);
    }
    shapes
}

fn around(log: &str, what: &str) -> String {
    let at = log.find(what).unwrap_or(0);
    let line = log[..at].rfind('\n').map_or(0, |end| end + 1);
    log[line..].lines().next().unwrap_or_default().to_owned()
}

#[test]
fn whoever_may_not_read_the_state_folder_can_ask_an_agent_at_a_fixed_address() {
    let Some((mut bench, claim)) = bench_of_nobody() else {
        return;
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    bench.listen_on(&address);
    let output = bench.enroll_command(&claim).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let mut run = Command::new(env!("CARGO_BIN_EXE_bellwether-agent"));
    run.arg("run").arg("--config").arg(&bench.config);
    let run = run.uid(NOBODY).gid(NOBODY).stderr(Stdio::null());
    let mut agent = run.spawn().unwrap();
    wait("the agent", || bench.status());
    let mut status = Command::new(env!("CARGO_BIN_EXE_bellwether-agent"));
    status.arg("status").arg("--config").arg(&bench.config);
    // Neither root nor the agent's user.
    let seen = status.uid(NOBODY - 1).gid(NOBODY - 1).output().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(seen.status.success(), "{}", told(&seen));
    assert!(
        told(&seen).starts_with("Waiting for a first release;"),
        "{}",
        told(&seen)
    );
}

//! Enrolment against a real TLS server: what is pinned, what is kept, what is refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bellwether_agent::config::Config;
use bellwether_agent::enrol::{EnrolError, Request, enrol};
use bellwether_agent::identity::Identity;
use bellwether_agent::store::Store;
use bellwether_package::Digest;

use crate::people::People;
use crate::server::Server;

struct Bench {
    folder: tempfile::TempDir,
    server: Server,
    config: Config,
    request: Request,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let people = People::new();
    server.world().chain = people.chain(2);
    let claim_file = folder.path().join("claim");
    std::fs::write(&claim_file, "secret-claim\n").unwrap();
    let text = format!(
        "device = \"pump-1\"\nstate_dir = {:?}\nworker = \"unused\"\n",
        folder.path().join("state")
    );
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    let request = Request {
        server: format!("https://{}", server.https),
        authority: server.authority,
        root: people.fingerprint(),
        claim_file,
    };
    Bench {
        config: Config::read(&path).unwrap(),
        folder,
        server,
        request,
    }
}

fn is_enrolled(folder: &Path) -> bool {
    Identity::load(&Store::reader(&folder.join("state"))).is_ok()
}

#[test]
fn a_device_is_enrolled_with_a_key_that_it_made_and_nobody_else_reads() {
    let bench = bench();
    enrol(&bench.config, &bench.request).unwrap();
    assert!(is_enrolled(bench.folder.path()));
    assert_eq!(bench.server.world().claims, ["secret-claim"]);
    for file in std::fs::read_dir(bench.folder.path().join("state")).unwrap() {
        let file = file.unwrap();
        let metadata = file.metadata().unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(
            metadata.permissions().mode() & 0o777,
            expected,
            "{:?}",
            file.path()
        );
    }
}

#[test]
fn a_torn_identity_is_the_same_from_its_other_copy() {
    let bench = bench();
    let folder = bench.folder.path().join("state");
    bench.server.world().certificate_life = Some(Duration::from_secs(1000));
    enrol(&bench.config, &bench.request).unwrap();
    let first = Identity::load(&Store::reader(&folder)).unwrap();
    bench.server.world().certificate_life = Some(Duration::from_secs(5000));
    enrol(&bench.config, &bench.request).unwrap();
    let second = Identity::load(&Store::reader(&folder)).unwrap();
    assert_ne!(first.valid_until, second.valid_until);
    std::fs::write(folder.join("identity"), b"torn").unwrap();
    let found = Identity::load(&Store::reader(&folder)).unwrap();
    assert_eq!(found.valid_until, second.valid_until);
    assert!(found.tls().is_ok(), "its key came with it");
}

#[test]
fn a_certificate_for_another_device_is_not_kept() {
    let bench = bench();
    bench.server.world().certified_as = Some("pump-2".into());
    let error = enrol(&bench.config, &bench.request).unwrap_err();
    assert!(matches!(error, EnrolError::Identity(_)), "{error:?}");
    assert!(!is_enrolled(bench.folder.path()));
}

#[test]
fn a_server_with_another_authority_never_sees_the_claim() {
    let mut bench = bench();
    bench.request.authority = Server::start().authority;
    let error = enrol(&bench.config, &bench.request).unwrap_err();
    assert!(
        matches!(error, EnrolError::WrongAuthority { .. }),
        "{error:?}"
    );
    assert!(bench.server.world().claims.is_empty());
    assert!(!is_enrolled(bench.folder.path()));
}

#[test]
fn a_trust_root_with_another_fingerprint_is_refused() {
    let mut bench = bench();
    bench.request.root = Digest([7; 32]);
    let error = enrol(&bench.config, &bench.request).unwrap_err();
    assert!(matches!(error, EnrolError::Trust(_)), "{error:?}");
    assert!(!is_enrolled(bench.folder.path()));
}

#[test]
fn an_unreachable_server_is_told_as_such() {
    let mut bench = bench();
    bench.request.server = "https://127.0.0.1:1".into();
    let error = enrol(&bench.config, &bench.request).unwrap_err();
    assert!(matches!(error, EnrolError::Unreachable { .. }), "{error:?}");
    bench.request.server = "http://127.0.0.1:1".into();
    let error = enrol(&bench.config, &bench.request).unwrap_err();
    assert!(matches!(error, EnrolError::Address(_)), "{error:?}");
}

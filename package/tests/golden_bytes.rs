//! Documents of fixed content under fixed keys, byte for byte as they were when the format was
//! made. A difference means that devices in the field no longer understand us.
//!
//! After a deliberate change of format (with a new version byte):
//! `cargo test -p bellwether-package --test golden_bytes -- --ignored`

use bellwether_package::read::{NoBlobs, read};
use bellwether_package::sections::{Activation, Hours};
use bellwether_package::write::{MicroDraft, replace_approvals};
use bellwether_package::{
    Decision, ModelName, ModelVersion, PackageId, RevocationList, RootChain, Selector, chain,
    digest::sha256,
};

mod common;

use common::{NOW, World, draft, genesis, key, pin, root_document, sign_root, signed};

fn vectors() -> Vec<(&'static str, Vec<u8>)> {
    let world = World::new();
    let mut draft = draft();
    draft.activation = Some(Activation {
        regions: vec![Selector::new("site=lyon").expect("valid")],
        excluded: vec![Selector::new("class=valve,site=lyon").expect("valid")],
        hours: vec![Hours {
            days: 0x1f,
            from_minute: 360,
            until_minute: 1320,
        }],
    });
    draft.micro = Some(MicroDraft {
        bytes: b"a plan",
        plan_version: 1,
        memory_bytes: 4096,
    });
    let plain = draft.to_vec().expect("valid");
    let id = read(&*plain, NoBlobs).expect("intact").id();
    let mut approval = common::approval(world.root.id(), id);
    let ann = signed(&approval, 1);
    approval.decision = Decision::Reject;
    let ben = signed(&approval, 2);
    let mut package = Vec::new();
    replace_approvals(&*plain, &mut package, vec![ann.clone(), ben.clone()]).expect("valid");

    let mut second = root_document();
    second.version = 2;
    second.id = Some(world.root.id());
    second.expires = second.expires.plus_secs(1);
    let roots = [
        sign_root(&root_document(), &[1, 2]),
        sign_root(&second, &[2, 3]),
    ];

    let mut list: RevocationList = genesis(world.root.id());
    list.packages
        .push(PackageId(sha256(b"revoked")))
        .expect("room");
    let least = ModelVersion {
        major: 1,
        minor: 2,
        patch: 300,
    };
    list.least
        .push((ModelName::new("pump-anomaly").expect("valid"), least))
        .expect("room");
    vec![
        ("package.hex", package),
        ("approval.hex", ann),
        ("rejection.hex", ben),
        ("trust_root.hex", chain::join(&roots).expect("two")),
        (
            "revocations.hex",
            list.sign(&[&key(2), &key(3)]).expect("valid"),
        ),
    ]
}

fn path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name)
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| {
        line.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            + "\n"
    });
    lines.collect()
}

#[test]
fn the_bytes_of_every_document_stay_the_same() {
    for (name, bytes) in vectors() {
        let committed = std::fs::read_to_string(path(name)).unwrap();
        assert!(
            committed == hex(&bytes),
            "{name} has other bytes than it had"
        );
    }
}

#[test]
fn the_committed_trust_root_still_verifies() {
    let bytes: Vec<u8> = std::fs::read_to_string(path("trust_root.hex"))
        .unwrap()
        .lines()
        .flat_map(|line| line.as_bytes().chunks(2))
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let fingerprint = pin(&sign_root(&root_document(), &[1, 2]));
    let chain = RootChain::verify(&bytes, &fingerprint).unwrap();
    assert_eq!(chain.latest().version(), 2);
    assert!(chain.latest().expires() > NOW);
}

#[test]
#[ignore = "writes the committed vectors anew"]
fn write_the_vectors() {
    for (name, bytes) in vectors() {
        std::fs::write(path(name), hex(&bytes)).unwrap();
    }
}

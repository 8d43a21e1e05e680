//! Revocation lists: who may sign them, and that they never go back.

use bellwether_package::document::DocumentError;
use bellwether_package::revocations::RevocationsError;
use bellwether_package::{DocumentType, ModelVersion, Revocations, RootId, SignedBuf};

mod common;

use common::{genesis, key, revocations, root_document, trust};

#[test]
fn a_list_needs_the_approvers_or_the_roots_threshold() {
    let mut document = root_document();
    // Only Ben and Cleo approve; only Ann alone holds the root.
    document.approvers.persons = [1, 2].into_iter().collect();
    document.root.threshold = 1;
    document.root.persons = [0].into_iter().collect();
    let signed = common::sign_root(&document, &[1]);
    let root = bellwether_package::TrustRoot::pinned(&signed, &common::pin(&signed)).unwrap();
    let list = genesis(root.id());
    assert!(Revocations::verify(&list.sign(&[&key(1)]).unwrap(), &root).is_ok());
    assert!(Revocations::verify(&list.sign(&[&key(2), &key(3)]).unwrap(), &root).is_ok());
    for keys in [[key(2), key(2)], [key(9), key(40)], [key(3), key(40)]] {
        let signed = list.sign(&[&keys[0], &keys[1]]).unwrap();
        assert_eq!(
            Revocations::verify(&signed, &root),
            Err(RevocationsError::Threshold)
        );
    }
}

#[test]
fn two_keys_of_one_person_do_not_revoke() {
    let root = trust(&root_document());
    let signed = genesis(root.id()).sign(&[&key(1), &key(11)]).unwrap();
    assert_eq!(
        Revocations::verify(&signed, &root),
        Err(RevocationsError::Threshold)
    );
}

#[test]
fn a_list_for_another_trust_root_is_refused() {
    let root = trust(&root_document());
    let of = RootId(bellwether_package::digest::sha256(b"other"));
    let signed = genesis(of).sign(&[&key(1), &key(2)]).unwrap();
    assert_eq!(
        Revocations::verify(&signed, &root),
        Err(RevocationsError::OtherRoot { of })
    );
}

#[test]
fn an_older_list_never_replaces_a_newer_one() {
    let root = trust(&root_document());
    let mut list = genesis(root.id());
    let old = list.sign(&[&key(1), &key(2)]).unwrap();
    list.version = 2;
    let held = revocations(&list, &root);
    assert_eq!(
        held.replace(&old, &root),
        Err(RevocationsError::Older { held: 2, found: 1 })
    );
    let same = list.sign(&[&key(1), &key(2)]).unwrap();
    assert_eq!(held.replace(&same, &root).unwrap().version(), 2);
}

#[test]
fn a_list_that_contradicts_itself_is_refused() {
    let root = trust(&root_document());
    let mut list = genesis(root.id());
    list.version = 0;
    assert!(matches!(list.encode(), Err(DocumentError::Invalid(_))));
    let mut list = genesis(root.id());
    let model = bellwether_package::ModelName::new("pump").unwrap();
    for minor in [1, 2] {
        let least = ModelVersion {
            major: 1,
            minor,
            patch: 0,
        };
        list.least.push((model.clone(), least)).unwrap();
    }
    assert!(matches!(list.encode(), Err(DocumentError::Invalid(_))));
}

#[test]
fn damaged_lists_are_refused_without_panic() {
    let root = trust(&root_document());
    let signed = genesis(root.id()).sign(&[&key(1), &key(2)]).unwrap();
    for place in 0..signed.len() {
        let mut bytes = signed.clone();
        bytes[place] ^= 1;
        assert!(Revocations::verify(&bytes, &root).is_err(), "byte {place}");
        assert!(Revocations::verify(&signed[..place], &root).is_err());
    }
}

#[test]
fn an_approval_signed_list_of_another_type_is_refused() {
    let root = trust(&root_document());
    let payload = genesis(root.id()).encode().unwrap();
    let keys = [&key(1), &key(2)];
    let signed = SignedBuf::sign(DocumentType::Assignment, payload, &keys)
        .encode()
        .unwrap();
    assert_eq!(
        Revocations::verify(&signed, &root),
        Err(RevocationsError::Threshold)
    );
}

//! The trust root: what starts a chain, what continues it, and every way to cheat.

use bellwether_package::RootChain;
use bellwether_package::chain::{VERSIONS_MAX, join, split};
use bellwether_package::document::DocumentError;
use bellwether_package::root::{Role, RootDocument, RootError, TrustRoot};
use bellwether_package::sign::public_key;

mod common;

use common::{key, pin, root_document, sign_root, trust};

/// Version 2: Dan (4) takes the place of Cleo (3).
fn second() -> RootDocument {
    let mut next = root_document();
    next.version = 2;
    next.id = Some(trust(&root_document()).id());
    next.persons[2].name = "dan".try_into().expect("short");
    next.persons[2].keys = [public_key(&key(4))].into_iter().collect();
    next
}

#[test]
fn a_rotation_signed_by_old_and_new_threshold_is_taken() {
    let first = trust(&root_document());
    let next = first.rotate(&sign_root(&second(), &[1, 2])).unwrap();
    assert_eq!((next.version(), next.id()), (2, first.id()));
    assert_ne!(next.fingerprint(), first.fingerprint());
    // Ben and Cleo for the old, Ben and Dan for the new.
    assert!(first.rotate(&sign_root(&second(), &[2, 3, 4])).is_ok());
}

#[test]
fn a_root_that_lacks_the_old_threshold_is_refused() {
    let first = trust(&root_document());
    let error = first.rotate(&sign_root(&second(), &[2, 4])).unwrap_err();
    assert_eq!(error, RootError::OldThreshold { version: 2 });
}

#[test]
fn a_root_that_lacks_the_new_threshold_is_refused() {
    let first = trust(&root_document());
    let error = first.rotate(&sign_root(&second(), &[2, 3])).unwrap_err();
    assert_eq!(error, RootError::NewThreshold { version: 2 });
}

#[test]
fn two_keys_of_one_person_do_not_reach_a_threshold_of_two() {
    let first = trust(&root_document());
    let error = first.rotate(&sign_root(&second(), &[1, 11])).unwrap_err();
    assert_eq!(error, RootError::OldThreshold { version: 2 });
}

#[test]
fn a_root_that_skips_a_version_is_refused() {
    let first = trust(&root_document());
    for version in [3, 4, u32::MAX] {
        let mut next = second();
        next.version = version;
        let error = first.rotate(&sign_root(&next, &[1, 2])).unwrap_err();
        assert_eq!(
            error,
            RootError::Version {
                held: 1,
                found: version
            }
        );
    }
}

#[test]
fn a_root_that_goes_back_or_stays_is_refused() {
    let second = trust(&root_document())
        .rotate(&sign_root(&second(), &[1, 2]))
        .unwrap();
    let mut again = second.document().clone();
    again.expires = again.expires.plus_secs(1);
    let error = second.rotate(&sign_root(&again, &[1, 2])).unwrap_err();
    assert_eq!(error, RootError::Version { held: 2, found: 2 });
    let error = second
        .rotate(&sign_root(&root_document(), &[1, 2]))
        .unwrap_err();
    assert_eq!(error, RootError::Version { held: 2, found: 1 });
}

#[test]
fn a_root_of_another_chain_is_refused() {
    let first = trust(&root_document());
    let mut next = second();
    next.id = Some(bellwether_package::RootId(
        bellwether_package::digest::sha256(b"other"),
    ));
    let error = first.rotate(&sign_root(&next, &[1, 2])).unwrap_err();
    assert_eq!(error, RootError::OtherRoot);
}

#[test]
fn a_root_with_another_fingerprint_than_the_pinned_one_is_refused() {
    let mut other = root_document();
    other.expires = other.expires.plus_secs(1);
    let pinned = pin(&sign_root(&root_document(), &[1, 2]));
    let offered = sign_root(&other, &[1, 2]);
    let error = TrustRoot::pinned(&offered, &pinned).unwrap_err();
    assert_eq!(
        error,
        RootError::OtherFingerprint {
            found: pin(&offered)
        }
    );
}

#[test]
fn a_pinned_root_that_its_own_threshold_did_not_sign_is_refused() {
    let signed = sign_root(&root_document(), &[1]);
    let error = TrustRoot::pinned(&signed, &pin(&signed)).unwrap_err();
    assert_eq!(error, RootError::NewThreshold { version: 1 });
}

#[test]
fn a_stranger_cannot_sign_a_root_again() {
    let signed = sign_root(&root_document(), &[40, 41, 42]);
    let error = TrustRoot::pinned(&signed, &pin(&signed)).unwrap_err();
    assert_eq!(error, RootError::NewThreshold { version: 1 });
}

#[test]
fn a_chain_is_verified_from_the_pinned_version_on() {
    let one = sign_root(&root_document(), &[1, 2]);
    let two = sign_root(&second(), &[1, 2]);
    let file = join(&[&one, &two]).unwrap();
    let chain = RootChain::verify(&file, &pin(&one)).unwrap();
    assert_eq!((chain.first().version(), chain.latest().version()), (1, 2));
    assert_eq!(chain.version(1), Some(chain.first()));

    let later = RootChain::verify(&file, &pin(&two)).unwrap();
    assert_eq!(
        (later.first().version(), later.latest()),
        (2, chain.latest())
    );
    assert_eq!(later.id(), chain.id());
    assert_eq!(RootChain::verify_from_first(&file), Ok(chain));
}

#[test]
fn versions_before_the_pinned_one_may_be_damaged_or_forged() {
    let mut forged = root_document();
    forged.persons[0].keys = [public_key(&key(66))].into_iter().collect();
    let forged = sign_root(&forged, &[66, 2]);
    let two = sign_root(&second(), &[1, 2]);
    let file = join(&[&forged, &two]).unwrap();
    let chain = RootChain::verify(&file, &pin(&two)).unwrap();
    // The id is not taken from the forged version, but from the pinned one.
    assert_eq!(chain.id(), trust(&root_document()).id());
}

#[test]
fn a_chain_without_the_pinned_version_is_refused() {
    let file = join(&[sign_root(&second(), &[1, 2])]).unwrap();
    let error = RootChain::verify(&file, &pin(&sign_root(&root_document(), &[1, 2])));
    assert_eq!(error, Err(RootError::PinMissing));
}

#[test]
fn a_chain_with_a_broken_link_is_refused_whole() {
    let one = sign_root(&root_document(), &[1, 2]);
    let two = sign_root(&second(), &[2, 4]);
    let error = RootChain::verify(&join(&[&one, &two]).unwrap(), &pin(&one));
    assert_eq!(error, Err(RootError::OldThreshold { version: 2 }));
}

#[test]
fn chains_that_are_cut_off_or_too_long_are_refused() {
    let one = sign_root(&root_document(), &[1, 2]);
    let file = join(&[&one]).unwrap();
    for end in 0..file.len() {
        assert!(split(&file[..end]).is_err());
    }
    assert_eq!(
        split(&[file.as_slice(), &[0]].concat()),
        Err(RootError::NotAChain)
    );
    let many = vec![one; VERSIONS_MAX + 1];
    assert_eq!(
        join(&many),
        Err(RootError::TooManyVersions {
            versions_max: VERSIONS_MAX
        })
    );
    let mut claimed = file;
    claimed[4..6].copy_from_slice(&u16::MAX.to_le_bytes());
    assert_eq!(
        split(&claimed),
        Err(RootError::TooManyVersions {
            versions_max: VERSIONS_MAX
        })
    );
}

#[test]
fn documents_that_contradict_themselves_are_refused() {
    let role = |persons: &[u8], threshold| Role {
        persons: persons.iter().copied().collect(),
        threshold,
    };
    let weak = bellwether_package::PublicKey([0; 32]);
    type Spoil<'a> = &'a dyn Fn(&mut RootDocument);
    let faults: [(&str, Spoil<'_>); 12] = [
        ("version 0", &|root| root.version = 0),
        ("version 2 without id", &|root| root.version = 2),
        ("threshold 0", &|root| root.approvers.threshold = 0),
        ("threshold above persons", &|root| root.root.threshold = 4),
        ("no approver", &|root| root.approvers = role(&[], 0)),
        ("person twice in a role", &|root| {
            root.approvers = role(&[0, 0], 2)
        }),
        ("person not there", &|root| root.root = role(&[0, 3], 1)),
        ("key of two persons", &|root| {
            root.persons[1].keys = root.persons[0].keys.clone()
        }),
        ("director's key is a person's", &|root| {
            root.director = root.persons[1].keys.clone()
        }),
        ("person without key", &|root| root.persons[1].keys.clear()),
        ("key of small order", &|root| root.persons[1].keys[0] = weak),
        ("same name twice", &|root| {
            root.persons[1].name = root.persons[0].name.clone()
        }),
    ];
    for (fault, spoil) in faults {
        let mut root = root_document();
        spoil(&mut root);
        assert!(
            matches!(root.check(), Err(DocumentError::Invalid(_))),
            "{fault} passes"
        );
    }
}

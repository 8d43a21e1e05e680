//! Which approvals count on a device, and every way to make more of them than there are.

use bellwether_package::approval::{Approval, ApprovalError, Decision};
use bellwether_package::verify::{Shortfall, Standing, votes};
use bellwether_package::{
    DocumentType, ModelVersion, Purpose, Refusal, RevocationList, RootId, Selector, SignedBuf,
    UnixSecs, digest::sha256, revocations::Revoked,
};

mod common;

use common::{
    DAY, NOW, World, attributes, genesis, key, revocations, root_document, sign_root, signed, slot,
};

fn shortfall(refusal: Refusal) -> Shortfall {
    match refusal {
        Refusal::UnderApproved(shortfall) => shortfall,
        other => panic!("{other} is another refusal"),
    }
}

#[test]
fn two_of_three_persons_are_enough() {
    let world = World::new();
    let approval = world.approval();
    let verified = world
        .install(vec![signed(&approval, 1), signed(&approval, 3)])
        .unwrap();
    assert_eq!(verified.approved_by(), [0, 2]);
    assert_eq!(
        (verified.root_version(), verified.id()),
        (1, world.package.id())
    );
    assert_eq!(verified.slot(), &world.slot);
}

#[test]
fn one_envelope_with_two_signatures_counts_both_persons() {
    let world = World::new();
    let payload = world.approval().encode().unwrap();
    let keys = [&key(1), &key(2)];
    let both = SignedBuf::sign(DocumentType::Approval, payload, &keys)
        .encode()
        .unwrap();
    assert!(world.install(vec![both]).is_ok());
}

#[test]
fn an_under_approved_package_is_refused() {
    let world = World::new();
    let found = shortfall(
        world
            .install(vec![signed(&world.approval(), 1)])
            .unwrap_err(),
    );
    assert_eq!((found.needed, found.counted), (2, 1));
    assert_eq!(shortfall(world.install(vec![]).unwrap_err()).counted, 0);
}

#[test]
fn the_same_person_twice_is_one_person() {
    let world = World::new();
    let once = signed(&world.approval(), 1);
    let mut later = world.approval();
    later.at = NOW.plus_secs(1);
    let found = world
        .install(vec![once.clone(), once, signed(&later, 1)])
        .unwrap_err();
    assert_eq!(shortfall(found).counted, 1);
}

#[test]
fn two_keys_of_one_person_are_one_person() {
    let world = World::new();
    let approval = world.approval();
    let found = world
        .install(vec![signed(&approval, 1), signed(&approval, 11)])
        .unwrap_err();
    assert_eq!(shortfall(found).counted, 1);
}

#[test]
fn a_package_signed_again_by_strangers_is_refused() {
    let world = World::new();
    let approval = world.approval();
    // 9 is the director: a stolen server approves nothing.
    let strangers = [9, 40, 41].map(|seed| signed(&approval, seed)).to_vec();
    let found = shortfall(world.install(strangers).unwrap_err());
    assert_eq!((found.counted, found.invalid), (0, 3));
}

#[test]
fn a_signature_under_a_persons_key_by_somebody_else_counts_for_nobody() {
    let world = World::new();
    let approval = signed(&world.approval(), 1);
    let mut forged = signed(&world.approval(), 40);
    let key_at = forged.len() - 96;
    forged[key_at..key_at + 32].copy_from_slice(&root_document().persons[1].keys[0].0);
    let found = shortfall(world.install(vec![approval, forged]).unwrap_err());
    assert_eq!((found.counted, found.invalid), (1, 1));
}

#[test]
fn an_expired_approval_does_not_count() {
    let mut world = World::new();
    let good = signed(&world.approval(), 1);
    let mut expired = world.approval();
    expired.expires = NOW;
    let approvals = vec![good, signed(&expired, 2)];
    let found = shortfall(world.install(approvals.clone()).unwrap_err());
    assert_eq!((found.counted, found.out_of_time), (1, 1));
    world.now = Some(UnixSecs(NOW.0 - 1));
    assert!(world.install(approvals).is_ok());
}

#[test]
fn an_approval_that_is_not_yet_valid_does_not_count() {
    let mut world = World::new();
    let mut early = world.approval();
    early.not_before = NOW.plus_secs(DAY);
    let approvals = vec![signed(&world.approval(), 1), signed(&early, 2)];
    let found = shortfall(world.install(approvals.clone()).unwrap_err());
    assert_eq!((found.counted, found.out_of_time), (1, 1));
    world.now = Some(NOW.plus_secs(DAY));
    assert!(world.install(approvals).is_ok());
}

#[test]
fn an_approval_for_another_slot_does_not_count() {
    let mut world = World::new();
    let approvals = vec![signed(&world.approval(), 1), signed(&world.approval(), 2)];
    world.slot = slot("leak");
    let found = shortfall(world.install(approvals.clone()).unwrap_err());
    assert_eq!((found.counted, found.out_of_scope), (0, 2));
    assert!(world.boot(approvals).is_err());
}

#[test]
fn an_approval_for_other_devices_does_not_count() {
    let mut world = World::new();
    let mut narrow = world.approval();
    narrow.selectors = [Selector::new("class=pump,site=nantes").unwrap()]
        .into_iter()
        .collect();
    let approvals = vec![signed(&world.approval(), 1), signed(&narrow, 2)];
    let found = shortfall(world.install(approvals.clone()).unwrap_err());
    assert_eq!((found.counted, found.out_of_scope), (1, 1));
    world.attributes = attributes(&[("class", "pump"), ("site", "nantes")]);
    assert!(world.install(approvals).is_ok());
}

#[test]
fn scopes_of_two_approvals_do_not_add_up() {
    // One person approves the slot for other devices, the other these devices for another slot.
    let world = World::new();
    let (mut one, mut other) = (world.approval(), world.approval());
    one.selectors = [Selector::new("class=valve").unwrap()]
        .into_iter()
        .collect();
    other.slots = [slot("leak")].into_iter().collect();
    let approvals = vec![
        signed(&one, 1),
        signed(&other, 1),
        signed(&one, 2),
        signed(&other, 2),
    ];
    assert_eq!(shortfall(world.install(approvals).unwrap_err()).counted, 0);
}

#[test]
fn an_approval_for_another_trust_root_does_not_count() {
    let world = World::new();
    let mut other = world.approval();
    other.root = RootId(sha256(b"another root"));
    let bytes = signed(&other, 2);
    assert_eq!(
        Approval::verify(&bytes, &world.root),
        Err(ApprovalError::OtherRoot { of: other.root })
    );
    let found = shortfall(
        world
            .install(vec![signed(&world.approval(), 1), bytes])
            .unwrap_err(),
    );
    assert_eq!((found.counted, found.invalid), (1, 1));
}

#[test]
fn an_approval_for_another_package_does_not_count() {
    let world = World::new();
    let mut other = world.approval();
    other.package = bellwether_package::PackageId(sha256(b"another package"));
    let approvals = vec![signed(&world.approval(), 1), signed(&other, 2)];
    let found = shortfall(world.install(approvals).unwrap_err());
    assert_eq!((found.counted, found.invalid), (1, 1));
}

#[test]
fn a_rejection_voids_the_same_persons_approval_in_any_order_and_scope() {
    let world = World::new();
    let approval = world.approval();
    let mut reject = approval.clone();
    reject.decision = Decision::Reject;
    reject.slots.clear();
    reject.selectors.clear();
    reject.expires = UnixSecs(0);
    let (ann, ben) = (signed(&approval, 1), signed(&approval, 2));
    for rejection in [signed(&reject, 1), signed(&reject, 11)] {
        for approvals in [
            vec![rejection.clone(), ann.clone(), ben.clone()],
            vec![ann.clone(), ben.clone(), rejection.clone()],
        ] {
            let found = shortfall(world.install(approvals.clone()).unwrap_err());
            assert_eq!((found.counted, found.rejected), (1, 1));
            assert!(world.boot(approvals).is_err());
        }
    }
    // Cleo's voice makes up for it.
    let cleo = signed(&approval, 3);
    assert!(
        world
            .install(vec![ann, ben, signed(&reject, 1), cleo])
            .is_ok()
    );
}

#[test]
fn a_strangers_rejection_voids_nothing() {
    let world = World::new();
    let mut reject = world.approval();
    reject.decision = Decision::Reject;
    let approvals = vec![
        signed(&world.approval(), 1),
        signed(&world.approval(), 2),
        signed(&reject, 40),
    ];
    assert!(world.install(approvals).is_ok());
}

#[test]
fn an_expired_root_blocks_installs_and_never_a_boot() {
    let mut world = World::new();
    let mut forever = world.approval();
    forever.expires = UnixSecs(u64::MAX);
    let approvals = vec![signed(&forever, 1), signed(&forever, 2)];
    let expires = world.root.expires();
    world.now = Some(expires);
    let refusal = world.install(approvals.clone()).unwrap_err();
    assert_eq!(refusal, Refusal::RootExpired { at: expires });
    assert!(world.boot(approvals).is_ok());
}

#[test]
fn a_stale_revocation_list_blocks_installs_and_never_a_boot() {
    let mut world = World::new();
    let approvals = vec![signed(&world.approval(), 1), signed(&world.approval(), 2)];
    let expires = world.revocations.expires();
    world.now = Some(expires);
    let refusal = world.install(approvals.clone()).unwrap_err();
    assert_eq!(refusal, Refusal::RevocationsExpired { at: expires });
    assert!(world.boot(approvals).is_ok());
}

#[test]
fn expired_approvals_never_stop_a_boot() {
    let mut world = World::new();
    let approvals = vec![signed(&world.approval(), 1), signed(&world.approval(), 2)];
    world.now = Some(NOW.plus_secs(10_000 * DAY));
    assert!(world.boot(approvals).is_ok());
}

#[test]
fn a_device_without_a_clock_goes_by_documents_alone() {
    let mut world = World::new();
    world.now = None;
    let mut early = world.approval();
    early.not_before = NOW.plus_secs(DAY);
    assert!(
        world
            .install(vec![signed(&early, 1), signed(&early, 2)])
            .is_ok()
    );
    assert!(world.install(vec![signed(&early, 1)]).is_err());
}

#[test]
fn a_revoked_package_neither_installs_nor_boots() {
    let mut world = World::new();
    let approvals = vec![signed(&world.approval(), 1), signed(&world.approval(), 2)];
    let mut list = genesis(world.root.id());
    list.version = 2;
    list.packages.push(world.package.id()).unwrap();
    world.revocations = revocations(&list, &world.root);
    let refused = Err(Refusal::Revoked(Revoked::Package));
    assert_eq!(world.install(approvals.clone()), refused);
    assert_eq!(world.boot(approvals), refused);
}

#[test]
fn a_version_below_the_least_one_neither_installs_nor_boots() {
    let mut world = World::new();
    let approvals = vec![signed(&world.approval(), 1), signed(&world.approval(), 2)];
    let manifest = world.package.manifest().clone();
    let mut with_least = |least: ModelVersion| {
        let mut list: RevocationList = genesis(world.root.id());
        list.least.push((manifest.model.clone(), least)).unwrap();
        world.revocations = revocations(&list, &world.root);
        (
            world.install(approvals.clone()),
            world.boot(approvals.clone()),
        )
    };
    let (install, boot) = with_least(manifest.version);
    assert!(install.is_ok() && boot.is_ok());
    let least = ModelVersion {
        major: 1,
        minor: 4,
        patch: 1,
    };
    let refused = Err(Refusal::Revoked(Revoked::LeastVersion { least }));
    assert_eq!(with_least(least), (refused.clone(), refused));
}

#[test]
fn a_revocation_list_of_another_root_is_not_taken_for_this_one() {
    let mut world = World::new();
    let approvals = vec![signed(&world.approval(), 1), signed(&world.approval(), 2)];
    let mut other = root_document();
    other.expires = other.expires.plus_secs(1);
    let other = common::trust(&other);
    world.revocations = revocations(&genesis(other.id()), &other);
    assert_eq!(
        world.install(approvals.clone()),
        Err(Refusal::RevocationsOfOtherRoot)
    );
    assert_eq!(world.boot(approvals), Err(Refusal::RevocationsOfOtherRoot));
}

#[test]
fn after_a_rotation_the_old_root_version_boots_and_a_list_verified_anew_installs() {
    let mut world = World::new();
    let approvals = vec![signed(&world.approval(), 1), signed(&world.approval(), 2)];
    let list = genesis(world.root.id()).sign(&[&key(2), &key(3)]).unwrap();
    let mut next = root_document();
    next.version = 2;
    next.id = Some(world.root.id());
    // Ann approves no more.
    next.approvers.persons = [1, 2].into_iter().collect();
    let old = world.root.clone();
    world.root = old.rotate(&sign_root(&next, &[1, 2])).unwrap();
    assert_eq!(
        world.install(approvals.clone()),
        Err(Refusal::RevocationsNotVerified { root: 2, found: 1 })
    );
    world.revocations = world.revocations.replace(&list, &world.root).unwrap();
    assert_eq!(
        shortfall(world.install(approvals.clone()).unwrap_err()).counted,
        1
    );
    world.root = old;
    assert!(world.boot(approvals).is_ok());
}

#[test]
fn damaged_approvals_count_for_nobody_and_stop_nobody() {
    let world = World::new();
    let good = [signed(&world.approval(), 1), signed(&world.approval(), 2)];
    let mut approvals = good.to_vec();
    approvals.push(Vec::new());
    approvals.push(vec![0xff; 2048]);
    approvals.push(good[0][..50].to_vec());
    assert!(world.install(approvals).is_ok());
}

#[test]
fn the_heap_free_way_gives_the_same_answer() {
    let world = World::new();
    let bytes = world.package.header().manifest_bytes().to_vec();
    let approvals = [signed(&world.approval(), 1), signed(&world.approval(), 2)];
    let approve = |approvals: &[Vec<u8>]| {
        let approvals = approvals.iter().map(Vec::as_slice);
        world
            .verifier()
            .approve(Purpose::Install, &bytes, approvals)
    };
    let approved = approve(&approvals).unwrap();
    assert_eq!(
        (approved.id(), approved.approved_by()),
        (world.package.id(), [0, 1].as_slice())
    );
    assert!(approve(&approvals[..1]).is_err());
}

#[test]
fn votes_name_persons_scope_and_standing() {
    let world = World::new();
    let approval = world.approval();
    let mut reject = approval.clone();
    reject.decision = Decision::Reject;
    let mut expired = approval.clone();
    expired.expires = NOW;
    let bytes = [
        signed(&approval, 1),
        signed(&expired, 2),
        signed(&approval, 3),
        signed(&reject, 3),
        signed(&approval, 40),
    ];
    let votes = votes(
        &world.root,
        &world.package.id(),
        bytes.iter().map(Vec::as_slice),
        NOW,
    );
    let found: Vec<_> = votes
        .iter()
        .map(|vote| (vote.name.as_str(), vote.standing))
        .collect();
    assert_eq!(
        found,
        [
            ("ann", Standing::InForce),
            ("ben", Standing::Expired),
            ("cleo", Standing::Voided),
            ("cleo", Standing::Rejection),
        ]
    );
    assert_eq!(votes[0].approval, approval);
}

#[test]
fn an_approval_without_scope_or_of_no_time_cannot_be_signed() {
    let world = World::new();
    let spoils: [fn(&mut Approval); 3] = [
        |approval| approval.slots.clear(),
        |approval| approval.selectors.clear(),
        |approval| approval.expires = approval.not_before,
    ];
    for spoil in spoils {
        let mut approval = world.approval();
        spoil(&mut approval);
        assert!(approval.encode().is_err());
    }
}

//! Packages: what goes in comes out, whole and in ranges; documents only rise.

use bellwether_protocol::{Documents, Topic, decode};
use serde_json::json;

use crate::support::{Fleet, SLOT, approval, id_of, key, package};

#[test]
fn ranges_of_a_download_are_the_bytes_of_the_package() {
    let fleet = Fleet::start();
    let device = fleet.enrol("pump-1");
    let id = fleet.release(1, &[1, 2]);
    let http = fleet.http_of(&device);
    let path = format!("/v1/packages/{id}/content");
    let (status, whole, headers) = http.get_raw(&path, &[]);
    assert_eq!(status, 200);
    let tag = headers["etag"].to_str().expect("text").to_owned();
    let read = bellwether_package::read(&whole[..], bellwether_package::read::NoBlobs);
    let read = read.expect("an intact package");
    assert_eq!(read.id(), id);
    assert_eq!(
        read.header().approvals().count(),
        2,
        "the approvals travel with it"
    );
    let uploaded = package(1);
    assert!(whole.ends_with(&uploaded[read.header().manifest_bytes().len() + 10..]));

    let length = whole.len();
    for (first, last) in [
        (0, 0),
        (0, 99),
        (5, 4000),
        (3000, 300_000),
        (length - 7, length - 1),
    ] {
        let range = format!("bytes={first}-{last}");
        let (status, part, headers) = http.get_raw(&path, &[("range", &range), ("if-range", &tag)]);
        assert_eq!(status, 206, "{range}");
        assert_eq!(part, whole[first..=last], "{range}");
        assert_eq!(
            headers["content-range"],
            format!("bytes {first}-{last}/{length}")
        );
    }
    let (status, rest, _) = http.get_raw(&path, &[("range", "bytes=262144-")]);
    assert_eq!((status, rest.as_slice()), (206, &whole[262_144..]));
    let (status, _, _) = http.get_raw(&path, &[("range", &format!("bytes={length}-"))]);
    assert_eq!(status, 416);

    // Another approval changes the header: a range of the old bytes is not mixed with the new.
    let signed = approval(fleet.root(), id).sign(&key(3)).expect("signed");
    fleet
        .operator()
        .post_bytes(&format!("/v1/packages/{id}/approvals"), &signed);
    let asked = [("range", "bytes=100-199"), ("if-range", tag.as_str())];
    let (status, whole, _) = http.get_raw(&path, &asked);
    assert_eq!(status, 200, "the whole of the new bytes");
    assert!(whole.len() > length);

    let (status, _, _) = fleet.stranger().get_raw(&path, &[]);
    assert_eq!(status, 401);
}

#[test]
fn approvals_count_persons_of_the_trust_root_only() {
    let fleet = Fleet::start();
    assert_eq!(fleet.publish_revocations(1, &[]).0, 200);
    let id = fleet.release(1, &[1]);
    let path = format!("/v1/packages/{id}");
    let show = || fleet.operator().get(&path).1;
    assert_eq!(show()["approved_by"], json!(["ann"]));
    assert_eq!(show()["is_release"], false);
    let post = |bytes: &[u8]| {
        fleet
            .operator()
            .post_bytes(&format!("{path}/approvals"), bytes)
    };
    let signed = |seed: u8| approval(fleet.root(), id).sign(&key(seed)).expect("signed");
    let (status, answer) = post(&signed(77));
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("approval-refused")),
        "a stranger"
    );
    let (status, _) = post(b"rubbish");
    assert_eq!(status, 400);
    let mut other = approval(fleet.root(), id_of(&package(9)));
    other.package = id_of(&package(9));
    let (status, answer) = post(&other.sign(&key(2)).expect("signed"));
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("approval-other-package"))
    );
    assert_eq!(post(&signed(1)).0, 200, "the same person again");
    assert_eq!(show()["is_release"], false);
    assert_eq!(post(&signed(2)).0, 200);
    assert_eq!(show()["approved_by"], json!(["ann", "ben"]));
    assert_eq!(show()["is_release"], true);
    assert_eq!(fleet.publish_revocations(2, &[id]).0, 200);
    assert_eq!(show()["is_release"], false, "it is revoked");
}

#[test]
fn a_damaged_package_is_refused_and_leaves_no_file() {
    let fleet = Fleet::start();
    let good = package(1);
    let mut damaged = good.clone();
    let place = damaged.len() - 10;
    damaged[place] ^= 1;
    for (bytes, what) in [
        (damaged.as_slice(), "damaged"),
        (&good[..5000], "cut off"),
        (b"PK", "other"),
    ] {
        let (status, answer) = fleet.operator().post_bytes("/v1/packages", bytes);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!("package-refused")),
            "{what}"
        );
    }
    for folder in ["blobs", "incoming"] {
        let left = std::fs::read_dir(fleet.data().join(folder))
            .expect("a folder")
            .count();
        assert_eq!(left, 0, "{folder}");
    }
    let (status, _) = fleet.operator().post_bytes("/v1/packages", &good);
    assert_eq!(status, 201);
    let (status, _) = fleet.operator().post_bytes("/v1/packages", &good);
    assert_eq!(status, 200, "the same package again changes nothing");
}

#[test]
fn devices_are_told_of_newer_revocations_and_find_the_notice_when_they_connect() {
    let fleet = Fleet::start();
    let device = fleet.enrol("pump-1");
    let order = json!({ "slot": SLOT, "selector": "*", "reason": "a test" });
    assert_eq!(fleet.operator().post("/v1/disable", &order).0, 200);
    let mut mqtt = device.connect();
    let topic = Topic::Documents(device.id.clone());
    assert!(mqtt.subscribe(&topic.name()));
    let mut told = Vec::new();
    for version in [1, 2] {
        assert_eq!(fleet.publish_revocations(version, &[]).0, 200);
        let documents = loop {
            let notice: Documents = decode(&mqtt.next(&topic)).expect("a notice");
            // One that was retained before may come first.
            if notice.revocations_version >= Some(version) {
                break notice;
            }
        };
        assert_eq!(documents.root_version, 1);
        told.push(documents.revocations_version);
    }
    assert_eq!(told, [Some(1), Some(2)]);
    let mut later = device.connect();
    assert!(later.subscribe(&topic.name()));
    let retained: Documents = decode(&later.next(&topic)).expect("a notice");
    assert_eq!(retained.revocations_version, Some(2));
}

#[test]
fn revocations_only_rise_and_need_their_signatures() {
    let fleet = Fleet::start();
    assert_eq!(fleet.publish_revocations(2, &[]).0, 200);
    for version in [1, 2] {
        let (status, answer) = fleet.publish_revocations(version, &[]);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (409, &json!("version-not-newer"))
        );
    }
    let list = bellwether_package::RevocationList::genesis(
        fleet.root(),
        crate::support::now().plus_secs(60),
    );
    let list = bellwether_package::RevocationList { version: 3, ..list };
    let alone = list.sign(&[&key(1)]).expect("signed");
    let (status, answer) = fleet.operator().put_bytes("/v1/revocations", &alone);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("revocations-refused"))
    );
    let (status, _) = fleet.operator().post_bytes("/v1/trust-root", b"rubbish");
    assert_eq!(status, 400);
    let file = std::fs::read(fleet.folder().join("root.bwt")).expect("the chain");
    let (status, answer) = fleet.operator().post_bytes("/v1/trust-root", &file);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("version-not-newer"))
    );
}

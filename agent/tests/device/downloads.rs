//! Downloads that break off, resume, or bring something else.

use std::time::{Duration, Instant};

use bellwether_package::digest::CHUNK_BYTES;
use bellwether_protocol::{Desired, OutcomeKind, Refusal};

use crate::bench::{Bench, wait};
use crate::model;
use crate::package::Package;

/// A model of some size: its weights do not matter, its bytes do. 700 KB, so three chunks.
pub(crate) fn large(bench: &Bench) -> Package {
    filled(bench, 1, 2.0, 700_000)
}

/// A model with this factor at its beginning, and so many bytes that are always the same.
fn filled(bench: &Bench, minor: u32, factor: f32, length: usize) -> Package {
    let mut onnx = model::times(factor);
    // An unknown field of the model, which readers skip.
    onnx.extend([0xfa, 0x07]);
    let mut left = length;
    while left >= 0x80 {
        onnx.push(left as u8 | 0x80);
        left >>= 7;
    }
    onnx.push(left as u8);
    // No chunk like another.
    onnx.extend((0..length).map(|n| (n / 1_000) as u8 ^ n as u8));
    Package::approved(&bench.people, minor, &onnx, |x| factor * x)
}

#[test]
fn a_download_that_breaks_off_is_resumed_where_it_ended() {
    let mut bench = Bench::new();
    bench.server.world().cut_once = Some(400_000);
    let mut agent = bench.start();
    let package = large(&bench);
    bench.order(&package, 0, 0);
    wait("the first part", || {
        let part = bench.state.join(format!("packages/{}.part", package.id));
        (std::fs::metadata(part).ok()?.len() == 400_000).then_some(())
    });
    wait("the failed attempt", || {
        (bench.server.world().ranges.len() == 1).then_some(())
    });
    agent.kill();
    let _agent = bench.start();
    bench.wait_committed(package.id);
    let ranges = bench.server.world().ranges.clone();
    assert_eq!(ranges, [None, Some("bytes=400000-".to_owned())]);
    assert!(bench.packages(".part").is_empty());
}

#[test]
fn a_length_that_is_not_the_announced_one_is_refused_and_nothing_stays() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let package = large(&bench);
    bench
        .server
        .world()
        .files
        .insert(package.path(), package.bytes.clone());
    bench.order_desired(
        Desired::Serve {
            release: package.id,
            length: 10,
        },
        0,
        0,
    );
    assert_eq!(
        bench.wait_outcome(package.id),
        OutcomeKind::Refused(Refusal::Damaged)
    );
    bench.order_desired(
        Desired::Serve {
            release: package.id,
            length: u64::MAX,
        },
        0,
        0,
    );
    wait("the second refusal", || {
        matches!(
            bench.wait_outcome(package.id),
            OutcomeKind::Refused(Refusal::TooLarge { .. })
        )
        .then_some(())
    });
    assert!(bench.packages(".part").is_empty() && bench.packages(".bwp").is_empty());
}

#[test]
fn a_download_with_a_wrong_digest_is_refused_and_nothing_stays() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let good = large(&bench);
    let mut damaged = large(&bench);
    // In the middle of the model: a chunk whose digest the manifest has.
    let middle = damaged.bytes.len() / 2;
    damaged.bytes[middle] ^= 1;
    bench.order(&damaged, 0, 0);
    assert_eq!(
        bench.wait_outcome(damaged.id),
        OutcomeKind::Refused(Refusal::Damaged)
    );
    assert!(bench.packages(".part").is_empty() && bench.packages(".bwp").is_empty());

    // An intact package, and another one than was ordered.
    let wanted = Package::approved(&bench.people, 2, &model::times(3.0), |x| 3.0 * x);
    let ordered = wanted.desired();
    bench
        .server
        .world()
        .files
        .insert(wanted.path(), good.bytes.clone());
    bench.order_desired(ordered, 0, 0);
    let outcome = bench.wait_outcome(wanted.id);
    let expected = [Refusal::OtherPackage, Refusal::Damaged].map(OutcomeKind::Refused);
    assert!(expected.contains(&outcome), "{outcome:?}");
    assert!(bench.packages(".part").is_empty() && bench.packages(".bwp").is_empty());

    // The refusal was about those bytes, not about the release for ever.
    bench.install(&good);
}

#[test]
fn a_retrained_head_costs_only_its_changed_chunks() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let (first, second) = (
        filled(&bench, 1, 2.0, 3_000_000),
        filled(&bench, 2, 3.0, 3_000_000),
    );
    bench.install(&first);
    let all = bench.server.world().package_bytes_sent;
    assert_eq!(all, first.bytes.len());
    bench.install(&second);
    let world = bench.server.world();
    let (cost, requests) = (world.package_bytes_sent - all, world.ranges.len() - 1);
    println!(
        "retrained head: {cost} of {} bytes in {requests} requests",
        second.bytes.len()
    );
    // One chunk, and what stands before the blob.
    assert!(cost < CHUNK_BYTES + 32 * 1024, "{cost} bytes");
    drop(world);
    // What was put together is whole: it serves after a start without a server.
    bench.server.world().down = true;
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(3.0), Some(6.0)]);
}

#[test]
fn a_damaged_package_beside_it_spoils_no_download() {
    let mut bench = Bench::new();
    let mut agent = bench.start();
    let (first, second) = (
        filled(&bench, 1, 2.0, 2_000_000),
        filled(&bench, 2, 3.0, 2_000_000),
    );
    bench.install(&first);
    // The flash lost a bit in a chunk that both share.
    let path = bench.state.join(format!("packages/{}.bwp", first.id));
    let mut bytes = std::fs::read(&path).unwrap();
    let place = bytes.len() - 100_000;
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let sent = bench.server.world().package_bytes_sent;
    bench.install(&second);
    let sent = bench.server.world().package_bytes_sent - sent;
    assert!(sent > second.bytes.len(), "asked for anew: {sent} bytes");
    agent.kill();
    let _agent = bench.start();
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(3.0), Some(6.0)]);
}

#[test]
fn a_server_that_refuses_is_not_asked_again_and_one_in_trouble_is() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let package = large(&bench);
    bench.server.world().refuses_packages = Some("403 Forbidden");
    bench.order(&package, 0, 0);
    let refused = OutcomeKind::Refused(Refusal::NotOffered { status: 403 });
    assert_eq!(bench.wait_outcome(package.id), refused);
    assert_eq!(bench.server.world().ranges.len(), 1);
    bench.server.world().refuses_packages = Some("503 Service Unavailable");
    bench.order(&package, 0, 0);
    wait("the second attempt", || {
        (bench.server.world().ranges.len() == 2).then_some(())
    });
    bench.server.world().refuses_packages = None;
    bench.wait_committed(package.id);
}

#[test]
fn a_download_keeps_within_its_bandwidth_and_its_quota() {
    let mut bench = Bench::new();
    bench.configure_limits("download_bytes_per_sec = 200000\ndisk_bytes_max = 1000000");
    let _agent = bench.start();
    let (first, second) = (large(&bench), filled(&bench, 2, 3.0, 600_000));
    let begun = Instant::now();
    bench.install(&first);
    let took = begun.elapsed();
    println!("{} bytes in {took:?}", first.bytes.len());
    assert!(took >= Duration::from_millis(3_400), "{took:?}");
    // Both together are more than packages may take: it is not even asked for.
    bench.server.world().ranges.clear();
    bench.order(&second, 0, 0);
    let outcome = bench.wait_outcome(second.id);
    let no_space = matches!(outcome, OutcomeKind::Refused(Refusal::NoSpace { .. }));
    assert!(no_space, "{outcome:?}");
    assert_eq!(bench.server.world().ranges, []);
    assert_eq!(
        bench.slot().unwrap().phase,
        "fetching",
        "it waits for space"
    );
    assert_eq!(bench.scores([1.0, 2.0]).1, first.id.to_string());
}

//! Downloads that break off, resume, or bring something else.

use bellwether_protocol::{Desired, OutcomeKind, Refusal};

use crate::bench::{Bench, wait};
use crate::model;
use crate::package::Package;

/// A model of some size: its weights do not matter, its bytes do.
pub(crate) fn large(bench: &Bench) -> Package {
    let mut onnx = model::times(2.0);
    // An unknown field of the model, which readers skip: 700 KB, so three chunks.
    let filler = vec![7_u8; 700_000];
    onnx.extend([0xfa, 0x07]);
    let mut length = filler.len();
    while length >= 0x80 {
        onnx.push(length as u8 | 0x80);
        length >>= 7;
    }
    onnx.push(length as u8);
    onnx.extend(filler);
    Package::approved(&bench.people, 1, &onnx, |x| 2.0 * x)
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

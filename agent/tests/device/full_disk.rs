//! A disk that has no room: the device serves on, boots again, and says what is wrong.

use bellwether_agent::api::ENDPOINTS;
use bellwether_protocol::{OutcomeKind, Record, Refusal};
use bellwether_tests::small_disk;

use crate::bench::{Bench, wait};
use crate::downloads::large;
use crate::model;
use crate::package::Package;

#[test]
fn a_full_disk_stops_no_model_and_loses_no_state() {
    if !small_disk::inside("full_disk::a_full_disk_stops_no_model_and_loses_no_state") {
        return;
    }
    let mut bench = Bench::new();
    small_disk::put_under(&bench.state, 8);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    bench.listen_on(&address);
    let mut agent = bench.start();
    let first = Package::approved(&bench.people, 2, &model::times(3.0), |x| 3.0 * x);
    bench.install(&first);

    let ballast = [bench.state.join("ballast"), bench.state.join("more")];
    small_disk::fill(&ballast[0]);
    let second = large(&bench);
    bench.order(&second, 0, 0);
    // A report that leaves the outbox may make room for the state, and none for the package.
    wait("the trouble to be told", || {
        let world = bench.server.world();
        let refused = world.reports.iter().any(|report| {
            let Record::Outcome(outcome) = &report.record else {
                return false;
            };
            matches!(outcome.kind, OutcomeKind::Refused(Refusal::NoSpace { .. }))
        });
        drop(world);
        let trouble = bench.status()?.trouble;
        (refused || trouble.is_some_and(|told| told.contains("full"))).then_some(())
    });
    assert_eq!(bench.scores([1.0, 2.0]).1, first.id.to_string());
    assert!(bench.packages(".part").is_empty());

    agent.kill();
    small_disk::fill(&ballast[1]);
    let _agent = bench.spawn();
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(3.0), Some(6.0)]);
    assert!(!bench.state.join(ENDPOINTS).exists(), "it would mislead");

    for file in ballast {
        std::fs::remove_file(file).unwrap();
    }
    // The order was told to be refused, and is tried again by itself now that there is space.
    bench.wait_committed(second.id);
    assert_eq!(bench.status().unwrap().trouble, None);
}

//! What the device tells of itself.

use bellwether_protocol::{Health, OutcomeWord, Record};

use crate::bench::{Bench, wait};
use crate::model;
use crate::package::Package;

#[test]
fn health_has_what_was_measured_served_and_decided() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    bench.install(&Package::approved(
        &bench.people,
        0,
        &model::times(2.0),
        |x| 2.0 * x,
    ));
    let told = wait("a health record after answers", || {
        let world = bench.server.world();
        let health = world
            .reports
            .iter()
            .filter_map(|report| match &report.record {
                Record::Health(health) => Some(health.clone()),
                _ => None,
            });
        let mut after = health.filter(|it| it.served.is_some_and(|served| served.rows > 0));
        after.find(|it| it.last_outcome.is_some())
    });
    let served = told.served.unwrap();
    assert_eq!((served.rows_failed, served.worker_deaths), (0, 0));
    assert!(served.latency_us_p99.is_some_and(|us| us > 0));
    assert!(
        served.workers_kib.is_some_and(|kib| kib > 1_000),
        "{served:?}"
    );
    assert_eq!(told.last_outcome.unwrap().word, OutcomeWord::Committed);
    assert!(told.clock_offset_secs.is_some_and(|secs| secs.abs() <= 2));
    assert!(told.memory.is_some() && told.disk.is_some() && told.agent_kib.is_some());

    // People beside the device see it too, and a slot that nobody asks serves nothing anew.
    let quiet = wait("a health record of a quiet time", || {
        let health: Health = bench.status()?.health?;
        health.served.filter(|served| served.rows == 0)
    });
    assert!(quiet.workers_kib.is_some());
}

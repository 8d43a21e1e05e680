//! A device whose clock is a year off says so, and works.

use bellwether_package::{RevocationList, SlotName, UnixSecs};
use bellwether_protocol::{
    ClockState, Desired, OutcomeKind, Record, Refusal, Sequence, SlotAssignment,
};

use crate::bench::{Bench, DEVICE, wait};
use crate::model;
use crate::package::Package;
use crate::people::{SLOT, trial};
use crate::server::Server;

const YEAR_SECS: i64 = 365 * 24 * 3600;
const MONTH_SECS: u64 = 30 * 24 * 3600;

fn now(bench: &Bench) -> UnixSecs {
    let secs = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    UnixSecs(secs.saturating_add_signed(bench.server.world().ahead_secs))
}

/// Orders a package as a server with the right time would: everything is good for a month.
fn order(bench: &Bench, package: &Package, n: u64) {
    let expires = UnixSecs(now(bench).0 + MONTH_SECS);
    let people = &bench.people;
    let mut list = RevocationList::genesis(people.root(), expires);
    list.version = 2;
    let signed = list.sign(&[&people.anna, &people.ben]).unwrap();
    let slot = SlotAssignment {
        slot: SlotName::new(SLOT).unwrap(),
        desired: package.desired(),
        also_baseline: None,
        trial: trial(0, 0),
        rollout: None,
        ordered_back: false,
        treated: None,
    };
    let sequence = Sequence { epoch: 1, n };
    let order = people.assignment_dated(DEVICE, sequence, slot, now(bench), expires);
    let mut world = bench.server.world();
    world.files.insert("/v1/revocations".into(), signed);
    world.files.insert(package.path(), package.bytes.clone());
    drop(world);
    bench.server.assign(order);
}

fn wait_clock(bench: &Bench, state: ClockState) {
    wait("a health report with the clock's state", || {
        let world = bench.server.world();
        let mut reports = world.reports.iter().rev();
        reports
            .any(|report| match &report.record {
                Record::Health(health) => health.clock == state,
                _ => false,
            })
            .then_some(())
    });
}

#[test]
fn a_device_a_year_behind_says_so_and_installs_a_release() {
    let bench = Bench::with(Server::start_ahead(YEAR_SECS));
    let agent = bench.start();
    wait_clock(&bench, ClockState::Behind);
    let package = Package::approved(&bench.people, 1, &model::times(2.0), |x| 2.0 * x);
    order(&bench, &package, 1);
    bench.wait_committed(package.id);
    assert_eq!(bench.wait_outcome(package.id), OutcomeKind::Committed);
    assert!(matches!(package.desired(), Desired::Serve { .. }));

    // The floor is on disk: after a power cut, without a network, the clock is still known wrong.
    drop(agent);
    bench.server.world().down = true;
    let seen = bench.server.world().reports.len();
    let _agent = bench.start();
    bench.scores([1.0, 2.0]);
    bench.server.world().down = false;
    wait("later reports", || {
        let world = bench.server.world();
        let health = world.reports[seen..]
            .iter()
            .find_map(|it| match &it.record {
                Record::Health(health) => Some(health.clock),
                _ => None,
            });
        health.map(|clock| assert_eq!(clock, ClockState::Behind))
    });
}

#[test]
fn a_device_a_year_ahead_says_so_serves_and_refuses_what_it_cannot_judge() {
    let bench = Bench::with(Server::start_ahead(-YEAR_SECS));
    let _agent = bench.start();
    wait_clock(&bench, ClockState::Ahead);
    // By its clock the order and the revocation list ended eleven months ago.
    let package = Package::approved(&bench.people, 1, &model::times(2.0), |x| 2.0 * x);
    order(&bench, &package, 1);
    assert_eq!(
        bench.wait_outcome(package.id),
        OutcomeKind::Refused(Refusal::RevocationsStale)
    );
}

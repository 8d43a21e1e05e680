//! What the broker brings, and what it forgets.

use bellwether_protocol::{Ack, BootId, DeviceId, Record, Topic, to_vec};

use crate::bench::{Bench, DEVICE, wait};
use crate::model;
use crate::package::Package;

#[test]
fn garbage_oversized_and_foreign_acknowledgements_lose_no_report() {
    let bench = Bench::new();
    bench.server.world().acknowledges = false;
    let _agent = bench.start();
    let boot = wait("reports", || {
        let world = bench.server.world();
        (world.reports.len() > 2).then(|| world.reports[0].boot)
    });
    let waiting = || wait("the status", || bench.status()).reports_waiting;
    let before = waiting();
    let of = |device: &str| Topic::Ack(DeviceId::new(device).unwrap()).to_string();
    let ack = |boot| {
        let seqs = (1..=8).collect();
        to_vec(&Ack { boot, seqs }).unwrap()
    };
    let strays = [
        (of(DEVICE), b"garbage".to_vec()),
        (of(DEVICE), Vec::new()),
        (of(DEVICE), ack(BootId(boot.0 ^ 1))),
        (of("pump-2"), ack(boot)),
        ("another/topic".to_owned(), ack(boot)),
        (of(DEVICE), vec![0xff; 1 << 20]),
    ];
    let strays_sent = || bench.server.world().strays.is_empty();
    for stray in strays {
        // Until the server has answered, few reports are under way, so the device waits with more.
        bench.server.world().strays.push(stray);
        wait("the stray to be sent", || strays_sent().then_some(()));
    }
    wait("later records", || (waiting() > before).then_some(()));
    // What the strays named would have gone by now.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(waiting() > before, "a stray acknowledgement was believed");
    // The true one is, once and for all.
    bench.server.world().acknowledges = true;
    wait("an empty outbox", || {
        (bench.status()?.reports_waiting < 3).then_some(())
    });
}

#[test]
fn a_broker_that_forgot_its_sessions_gets_every_report() {
    let mut bench = Bench::new();
    let _agent = bench.start();
    let first = Package::approved(&bench.people, 1, &model::times(2.0), |x| 2.0 * x);
    bench.install(&first);
    bench.server.world().down = true;
    wait("the end of the connection", || {
        (!bench.status()?.connected).then_some(())
    });
    let waiting = bench.status().unwrap().reports_waiting;
    let answered = 20;
    for _ in 0..answered {
        bench.scores([1.0, 2.0]);
    }
    wait("windows in the outbox", || {
        (bench.status()?.reports_waiting > waiting + 6).then_some(())
    });
    let before = bench.server.world().reports.len();
    // Each connection of this broker starts with a session of nothing.
    bench.server.world().down = false;
    wait("an empty outbox", || {
        (bench.status()?.reports_waiting < 3).then_some(())
    });
    let world = bench.server.world();
    let rows: u32 = world.reports[before..]
        .iter()
        .filter_map(|report| match &report.record {
            Record::Window(window) if window.is_own() => Some(window.rows),
            _ => None,
        })
        .sum();
    assert!(rows >= answered, "{rows} of {answered} rows arrived");
    let mut seqs: Vec<u64> = world.reports.iter().map(|report| report.seq).collect();
    seqs.sort_unstable();
    let last = seqs.len() as u64;
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>(), "a report is missing");
}

//! Fleets in simulated time: each test runs many seeds, and a failure names its seed.

use std::cell::Cell;

use bellwether_protocol::{Outcome, OutcomeKind};
use bellwether_tests::simulator::{Temper, Weather, World};

const SEEDS: u64 = 60;
const DEVICES: usize = 8;
const ROUGH: Weather = Weather {
    power_cut: 12,
    loss: 3,
    echo: 4,
};
const HOUR: u64 = 3_600;

/// Runs one story under many seeds; the seed of one that fails is printed.
fn for_seeds(weather: Weather, story: impl Fn(&mut World)) {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, DEVICES, weather);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&mut world)));
        if let Err(cause) = told {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(cause);
        }
    }
}

#[test]
fn good_release_reaches_every_device_through_losses_and_power_cuts() {
    let cuts = Cell::new(0);
    for_seeds(ROUGH, |world| {
        world.order(Temper::Good);
        world.run(4 * HOUR);
        world.calm();
        // A device that lost power again and again blames the release; a second attempt succeeds.
        let second = world.order(Temper::Good);
        world.run(4 * HOUR);
        assert!(world.all_serve(second));
        assert!(world.all_told());
        let all = world.devices.iter().map(|device| device.power_cuts);
        cuts.set(cuts.get() + all.sum::<u64>());
    });
    println!("{} power cuts", cuts.get());
    assert!(
        cuts.get() > SEEDS * DEVICES as u64 / 2,
        "the weather was not rough"
    );
}

#[test]
fn bad_releases_never_commit_and_the_next_good_one_does() {
    for_seeds(ROUGH, |world| {
        world.order(Temper::Good);
        world.run(4 * HOUR);
        for bad in [
            Temper::Unapproved,
            Temper::FailsProof,
            Temper::FailsTrial,
            Temper::Disagrees,
        ] {
            world.order(bad);
            world.run(4 * HOUR);
        }
        world.calm();
        let good = world.order(Temper::Good);
        world.run(4 * HOUR);
        assert!(world.all_serve(good));
        assert!(world.all_told());
        for told in &world.told {
            let committed = |n| {
                move |told: &&Outcome| told.sequence.n == n && told.kind == OutcomeKind::Committed
            };
            for n in 2..=4 {
                assert_eq!(told.values().find(committed(n)), None);
            }
            // What disagrees is bad only beside a release that answers, which a device that lost
            // power again and again may lack.
            let compares = told.values().any(|told| committed(1)(&told));
            assert!(!compares || told.values().find(committed(5)).is_none());
        }
    });
}

#[test]
fn server_gone_for_an_hour_changes_nothing_on_devices_and_loses_no_outcome() {
    let calm = Weather {
        power_cut: u64::MAX,
        loss: u64::MAX,
        echo: u64::MAX,
    };
    for_seeds(calm, |world| {
        let first = world.order(Temper::Good);
        world.run(HOUR);
        assert!(world.all_serve(first));
        let second = world.order(Temper::Good);
        // Long enough to be on trial, too short to commit: the outcome falls into the gap.
        world.run(70);
        world.server_up = false;
        world.run(HOUR);
        assert!(world.all_serve(second));
        assert!(!world.all_told());
        world.server_up = true;
        world.run(60);
        assert!(world.all_told());
        for told in &world.told {
            let committed = told
                .values()
                .filter(|told| told.kind == OutcomeKind::Committed);
            assert_eq!(committed.count(), 2);
        }
    });
}

#[test]
fn late_and_repeated_orders_never_bring_an_old_release_back() {
    let echoing = Weather {
        power_cut: u64::MAX,
        loss: 5,
        echo: 2,
    };
    for_seeds(echoing, |world| {
        let mut newest = world.order(Temper::Good);
        for _ in 0..4 {
            world.run(HOUR);
            newest = world.order(Temper::Good);
        }
        world.run(2 * HOUR);
        for _ in 0..50 {
            world.run(60);
            assert!(world.all_serve(newest));
        }
    });
}

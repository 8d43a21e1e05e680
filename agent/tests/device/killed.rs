//! Power fails at any moment: real processes killed by SIGKILL at seeded moments.

use std::time::{Duration, Instant};

use crate::bench::{Bench, wait};
use crate::model;
use crate::package::Package;

/// Kills in an ordinary test run; more with `BELLWETHER_KILLS`.
const KILLS: u64 = 10;

#[test]
fn killed_at_any_moment_the_device_ends_on_a_working_model() {
    let kills = std::env::var("BELLWETHER_KILLS")
        .ok()
        .and_then(|n| n.parse().ok());
    let kills: u64 = kills.unwrap_or(KILLS);
    let seed = std::env::var("BELLWETHER_SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    println!("BELLWETHER_SEED={seed} BELLWETHER_KILLS={kills}");
    let mut bench = Bench::new();
    let mut agent = bench.start();
    let first = Package::approved(&bench.people, 0, &model::times(2.0), |x| 2.0 * x);
    bench.install(&first);
    agent.kill();
    bench.server.world().pause = Some(Duration::from_millis(5));
    let mut known = vec![first.id.to_string()];
    let mut random = seed;
    for kill in 0..kills {
        let factor = 3.0 + kill as f32;
        let minor = 1 + kill as u32;
        let next = Package::approved(&bench.people, minor, &model::times(factor), |x| factor * x);
        known.push(next.id.to_string());
        bench.order(&next, 0, 0);
        let mut agent = bench.spawn();
        // splitmix64: the moments of a seed are the same on every machine.
        random = u64::wrapping_add(random, 0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let moment = Instant::now() + Duration::from_millis((mixed ^ (mixed >> 27)) % 1500);
        while Instant::now() < moment {
            // A trial commits only on answers; there is an API only after a while.
            bench.ask([1.0, 2.0]);
            std::thread::sleep(Duration::from_millis(5));
        }
        agent.kill();
        bench.server.world().down = true;
        let mut agent = bench.start();
        let (scores, release) = bench.scores([1.0, 2.0]);
        assert!(
            known.contains(&release),
            "kill {kill} of seed {seed}: {release}"
        );
        assert_eq!(
            scores[0].unwrap() * 2.0,
            scores[1].unwrap(),
            "kill {kill} of seed {seed}"
        );
        bench.server.world().down = false;
        agent.kill();
    }
    let _agent = bench.start();
    let last = known.last().unwrap().clone();
    wait("the last release's commit", || {
        bench.ask([1.0, 2.0]);
        let slot = bench.slot()?;
        (slot.phase == "serving" && slot.serving.as_ref() == Some(&last)).then_some(())
    });
    assert!(
        bench.packages(".bwp").len() <= 2,
        "{:?}",
        bench.packages(".bwp")
    );
}

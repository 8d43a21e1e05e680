//! SIGKILL, and the power with it, at every persisted step and at seeded moments of an update.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellwether_tests::chance::Chance;

use super::device::Device;
use super::shim::{Fault, How};
use super::{Extent, on_lanes, tell};

/// Kills at seeded moments in an ordinary run.
const MOMENTS: u64 = 50;
/// The same in a full run.
const MOMENTS_FULL: u64 = 1000;
/// Few reports, so that nearly every step has the same number each time.
pub(super) const QUIET: &str = "window_secs = 3600\nhealth_secs = 3600\n";
/// Reports all the time.
const BUSY: &str = "window_secs = 1\nhealth_secs = 1\n";

#[test]
fn killed_at_every_persisted_step_the_device_ends_on_a_working_model_and_tells_it_once() {
    // What is renamed into place is persisted: the process dies before it does what follows.
    let counted = if Extent::asked().full { "owfmut" } else { "m" };
    let (mut cases, mut told) = (0, 0);
    // The machine's own states by their own numbers, which nothing else that goes on shifts.
    for (among, least) in [("/slots/", 12), ("", 1)] {
        let (killed, once, steps) = killed_at_every_step(counted, among);
        for (place, times) in &steps {
            println!("killed {times} times after {place}");
        }
        // Fetching, checking, proving, trial, serving and told: each twice, with its previous copy.
        let states = steps.iter().filter(|(place, _)| place.contains(" slots/"));
        let states: u64 = states.map(|(_, times)| times).sum();
        assert!(states >= least, "{steps:?}");
        (cases, told) = (cases + killed, told + once);
    }
    tell(
        "killed at every step",
        &[("kills", cases), ("recovered", cases), ("told_once", told)],
    );
}

/// Kills after the first of these operations, after the second, and so on until an update needs no
/// more. Returns how many kills that were, how many orders were told exactly once, and where.
fn killed_at_every_step(
    counted: &'static str,
    among: &'static str,
) -> (u64, u64, BTreeMap<String, u64>) {
    let steps: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let told = AtomicU64::new(0);
    let cases = on_lanes(
        || Device::new(QUIET),
        |device, n| {
            let fault = Fault {
                how: How::Killed,
                counted,
                among,
                first: n,
                last: n,
            };
            let next = device.order_next();
            let (mut agent, log) = device.spawn_with(&fault);
            let mut died = false;
            device.ask_until(|| {
                died = agent.exited().is_some();
                died || device.is_told(next.id)
            });
            // What follows the last report, such as its removal, has time to come.
            let until = Instant::now() + Duration::from_millis(500);
            while !died && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
                died = agent.exited().is_some();
            }
            agent.kill();
            let step = std::fs::read_to_string(&log).unwrap_or_default();
            let case = format!("killed after operation {}", step.trim());
            let mut agent = device.serves_alone(&case);
            device.complete(&next);
            agent.kill();
            *steps.lock().unwrap().entry(place(&step)).or_default() += 1;
            died
        },
        |device| {
            told.fetch_add(device.end(), Ordering::Relaxed);
        },
    );
    (cases, told.into_inner(), steps.into_inner().unwrap())
}

/// What was done to which kind of file: `m slots/anomaly`.
fn place(step: &str) -> String {
    let mut words = step.split_whitespace().skip(1);
    let letter = words.next().unwrap_or("nothing");
    let path = words.next().unwrap_or_default();
    let path = path.split_once("/state/").map_or("", |(_, inner)| inner);
    let path = match path.split_once('/') {
        Some(("outbox", _)) => "outbox/a report",
        Some(("packages", name)) if name.contains(".verified") => "packages/a verification",
        Some(("packages", _)) => "packages/a package",
        _ => path,
    };
    format!("{letter} {path}")
}

#[test]
fn killed_at_any_moment_the_device_ends_on_a_working_model_and_tells_it_once() {
    let Extent { full, seed } = Extent::asked();
    let moments = if full { MOMENTS_FULL } else { MOMENTS };
    println!("BELLWETHER_SEED={seed}");
    let told = AtomicU64::new(0);
    let cases = on_lanes(
        || Device::new(BUSY),
        |device, n| {
            if n > moments {
                return false;
            }
            // The share of an update that has passed is the seed's; its length is the machine's.
            let share = Chance::new(seed.wrapping_mul(1_000_003).wrapping_add(n)).below(1000);
            let next = device.order_next();
            let moment = Instant::now() + device.update.mul_f64(share as f64 / 1000.0);
            let mut agent = device.bench.spawn();
            device.ask_until(|| Instant::now() >= moment);
            agent.kill();
            let mut agent = device.serves_alone(&format!("kill {n} of seed {seed}"));
            device.complete(&next);
            agent.kill();
            true
        },
        |device| {
            told.fetch_add(device.end(), Ordering::Relaxed);
        },
    );
    assert_eq!(cases, moments);
    let told = told.into_inner();
    tell(
        "killed at seeded moments",
        &[("kills", cases), ("recovered", cases), ("told_once", told)],
    );
}

//! Whatever goes wrong with power, disk, clock, network, server or release: the device ends on a
//! working approved model, and the server has the truth about each order exactly once.
//!
//! | module | does |
//! |---|---|
//! | `shim` | what is preloaded into the agent: it kills, fails and lies at a chosen operation |
//! | `device` | a device that takes one release after another, and what must hold after each fault |
//! | `kills` | SIGKILL, and the power with it, at every persisted step and at seeded moments |
//! | `torn` | files of the state folder that are not what was written |
//! | `mosquitto` | the link against a broker that is not ours |
//!
//! The whole schedule takes minutes: `cargo xtask ci` runs a share of it, `cargo xtask ci --full`
//! all of it, and that run's counts are kept in `docs/faults.md`.

mod device;
mod kills;
mod mosquitto;
mod shim;
mod torn;

use std::sync::atomic::{AtomicU64, Ordering};

/// Devices that are tormented at the same time: most of a case is waiting.
const LANES: usize = 6;

/// How much is run.
struct Extent {
    full: bool,
    seed: u64,
}

impl Extent {
    /// `BELLWETHER_FAULTS=full` runs everything; `BELLWETHER_SEED` fixes what is left to chance.
    fn asked() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
        Self {
            full: std::env::var("BELLWETHER_FAULTS").is_ok_and(|asked| asked == "full"),
            seed: number("BELLWETHER_SEED").unwrap_or(1),
        }
    }
}

/// Tells what was counted: to whoever reads the test's output, and to `BELLWETHER_FAULTS_RESULT`,
/// a file to which each test adds a line.
fn tell(what: &str, counts: &[(&str, u64)]) {
    use std::io::Write as _;
    let seed = Extent::asked().seed;
    let counts: Vec<String> = counts
        .iter()
        .map(|(k, n)| format!("\"{k}\": {n}"))
        .collect();
    let line = format!(
        "{{\"what\": \"{what}\", \"seed\": {seed}, {}}}",
        counts.join(", ")
    );
    println!("{line}");
    if let Some(path) = std::env::var_os("BELLWETHER_FAULTS_RESULT") {
        let file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(path);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
}

/// Runs cases 1, 2, 3 … on several devices at once, each on one that `begin` made, until `case`
/// says that there are no more of them. Returns how many there were.
fn on_lanes<D>(
    begin: impl Fn() -> D + Sync,
    case: impl Fn(&mut D, u64) -> bool + Sync,
    end: impl Fn(D) + Sync,
) -> u64 {
    let (next, beyond) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let mut device = begin();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= beyond.load(Ordering::Relaxed) {
                        break;
                    }
                    if !case(&mut device, n) {
                        beyond.fetch_min(n, Ordering::Relaxed);
                        break;
                    }
                }
                end(device);
            });
        }
    });
    beyond.into_inner() - 1
}

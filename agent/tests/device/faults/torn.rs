//! Each file of the state folder cut, zeroed, with one bit turned, or gone, between two starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::device::Device;
use super::kills::QUIET;
use super::{Extent, on_lanes, tell};
use crate::bench::wait;

/// What happens to a file.
const DAMAGES: [&str; 6] = [
    "gone",
    "empty",
    "half",
    "zeroed",
    "a bit turned",
    "a byte short",
];
/// Of these, how many each file meets in an ordinary run, beginning with another one for each.
const DAMAGES_CI: usize = 2;

/// The file as it is after that.
fn damage(file: &Path, how: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let length = bytes.len();
    match how {
        "gone" => return std::fs::remove_file(file).unwrap(),
        "empty" => bytes.clear(),
        "half" => bytes.truncate(length / 2),
        "zeroed" => bytes.fill(0),
        "a bit turned" => bytes
            .get_mut(length / 2)
            .into_iter()
            .for_each(|it| *it ^= 4),
        "a byte short" => bytes.truncate(length.saturating_sub(1)),
        other => unreachable!("{other}"),
    }
    std::fs::write(file, bytes).unwrap();
}

/// Every file below the folder, but for the lock, in one order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()));
}

/// A device that serves its second release, and what it was before the damage.
struct Torn {
    device: Device,
    whole: PathBuf,
    cases: Vec<(PathBuf, &'static str)>,
}

impl Torn {
    fn new() -> Self {
        let device = Device::new(QUIET);
        let whole = device.bench.state.with_extension("whole");
        copy(&device.bench.state, &whole);
        let full = Extent::asked().full;
        let damages = if full { DAMAGES.len() } else { DAMAGES_CI };
        let mut cases = Vec::new();
        for (n, file) in files(&device.bench.state).into_iter().enumerate() {
            for d in 0..damages {
                cases.push((file.clone(), DAMAGES[(n + d) % DAMAGES.len()]));
            }
        }
        Self {
            device,
            whole,
            cases,
        }
    }

    fn case(&mut self, n: u64) -> bool {
        let Some((file, how)) = self.cases.get(n as usize - 1) else {
            return false;
        };
        let state = &self.device.bench.state;
        let case = format!("{} {how}", file.strip_prefix(state).unwrap().display());
        copy(&self.whole, state);
        damage(file, how);
        let mut agent = self.device.serves_alone(&case);
        agent.kill();
        // What was made good holds, and the server is reached again.
        let mut agent = self.device.bench.start();
        self.device.serves(&case);
        wait(&format!("the link after {case}"), || {
            self.device.bench.status()?.connected.then_some(())
        });
        agent.kill();
        assert!(!self.device.bench.log().contains("panicked"), "{case}");
        true
    }
}

#[test]
fn any_one_file_that_is_torn_costs_no_model() {
    let last = AtomicU64::new(0);
    let cases = on_lanes(Torn::new, Torn::case, |torn| {
        last.fetch_max(torn.cases.len() as u64, Ordering::Relaxed);
    });
    assert!(cases >= 20, "{cases} of {last:?}");
    tell(
        "one file of the state folder torn",
        &[("cases", cases), ("recovered", cases)],
    );
}

#[test]
fn a_slot_whose_state_is_lost_serves_what_it_served_and_takes_the_next_order() {
    let mut torn = Torn::new();
    let state = torn.device.bench.state.clone();
    for copy in ["slots/anomaly", "slots/anomaly.prev"] {
        damage(&state.join(copy), "half");
    }
    let served = || torn.device.bench.scores([1.0, 2.0]).1;
    let mut agent = torn.device.serves_alone("a lost state");
    let view = torn.device.bench.status().unwrap();
    assert_eq!(view.slots[0].serving, Some(served()));
    assert!(
        view.trouble
            .unwrap()
            .contains("the state of anomaly on disk is lost")
    );
    agent.kill();
    let next = torn.device.order_next();
    let _agent = torn.device.bench.start();
    torn.device.complete(&next);
}

#[test]
fn a_device_without_an_identity_serves_on_and_says_that_it_must_be_enrolled() {
    let torn = Torn::new();
    for copy in ["identity", "identity.prev"] {
        damage(&torn.device.bench.state.join(copy), "half");
    }
    let _agent = torn.device.serves_alone("a lost identity");
    let trouble = torn.device.bench.status().unwrap().trouble.unwrap();
    assert!(trouble.contains("enrol the device again"), "{trouble}");
}

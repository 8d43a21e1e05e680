//! How the device itself is: processor, memory, storage, warmth, network, battery.
//!
//! All of it comes from small files below `/proc` and `/sys`, read when a report is due and not
//! kept open. A sensor's driver may take its time, or never answer: measure on a thread that can be
//! spared.

mod battery;
mod files;
mod network;
mod processor;
mod warmth;

use std::path::{Path, PathBuf};

use bellwether_protocol::{Health, Room};

use processor::Ticks;

/// Reads the sensors. It lives as long as the agent: processor use is a difference of two readings.
#[derive(Debug)]
pub struct Sensors {
    /// `/`, but for tests.
    root: PathBuf,
    ticks: Option<Ticks>,
}

impl Default for Sensors {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Sensors {
    /// The sensors whose files lie below `root`.
    fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            ticks: Ticks::read(root),
        }
    }

    /// One reading. What cannot be measured is `None`; clock, what was served and the last outcome
    /// are for the caller to add. Blocking.
    pub fn measure(&mut self, state_dir: &Path) -> Health {
        let root = self.root.as_path();
        Health {
            agent_version: env!("CARGO_PKG_VERSION").parse().ok(),
            uptime_secs: processor::uptime_secs(root).unwrap_or(0),
            cpu_permille: processor::busy_permille(root, &mut self.ticks),
            load_centi: processor::load_centi(root),
            memory: memory(root),
            disk: storage(state_dir).map(|(free, all)| Room {
                kib: all / 1024,
                kib_free: free / 1024,
            }),
            temperature_centi_c: warmth::warmest_centi_c(root),
            network: network::read(root),
            battery: battery::read(root),
            agent_kib: kib(root, "proc/self/status", "VmRSS").and_then(|kib| kib.try_into().ok()),
            ..Health::default()
        }
    }
}

fn memory(root: &Path) -> Option<Room> {
    let figure = |name| kib(root, "proc/meminfo", name);
    Some(Room {
        kib: figure("MemTotal")?,
        kib_free: figure("MemAvailable")?,
    })
}

/// A line such as `MemTotal:  1926392 kB`.
fn kib(root: &Path, path: &str, name: &str) -> Option<u64> {
    let text = files::text(&root.join(path))?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Free and all bytes of the disk that holds `folder`.
pub fn storage(folder: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some((
        disk.f_bavail.saturating_mul(disk.f_frsize),
        disk.f_blocks.saturating_mul(disk.f_frsize),
    ))
}

#[cfg(test)]
mod tests;

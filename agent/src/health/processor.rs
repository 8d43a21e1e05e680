//! Processor use, load, and how long the device has been up.

use std::path::Path;

use super::files;

/// Ticks between two readings below which their difference says nothing: some tenths of a second.
const TICKS_MIN: u64 = 50;
/// Columns of `/proc/stat` that add up to all time: user, nice, system, idle, iowait, irq, softirq,
/// steal. Those after them are counted in user already.
const COLUMNS: usize = 8;
/// Those in which nothing was done: idle and iowait.
const IDLE: [usize; 2] = [3, 4];

/// Time that all processors have spent, in ticks since the device started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticks {
    all: u64,
    idle: u64,
}

impl Ticks {
    /// The first line of `/proc/stat`.
    pub(super) fn read(root: &Path) -> Option<Self> {
        let text = files::text(&root.join("proc/stat"))?;
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let columns = line.split_whitespace().take(COLUMNS);
        let columns: Vec<u64> = columns.map_while(|column| column.parse().ok()).collect();
        let idle = IDLE.iter().filter_map(|column| columns.get(*column));
        Some(Self {
            all: columns.iter().sum(),
            idle: idle.sum(),
        })
    }
}

/// Share of processor time in use since `before`, which becomes now; `None` if that was only just.
pub(super) fn busy_permille(root: &Path, before: &mut Option<Ticks>) -> Option<u16> {
    let now = Ticks::read(root)?;
    let all = now
        .all
        .saturating_sub(before.map_or(0, |before| before.all));
    let idle = now
        .idle
        .saturating_sub(before.map_or(0, |before| before.idle));
    if all < TICKS_MIN {
        return None;
    }
    *before = Some(now);
    // The kernel's count of idle time may fall back a little.
    u16::try_from(all.saturating_sub(idle) * 1000 / all).ok()
}

/// Load average over a minute, in hundredths.
pub(super) fn load_centi(root: &Path) -> Option<u32> {
    let text = files::text(&root.join("proc/loadavg"))?;
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    load.is_finite().then_some((load * 100.0).round() as u32)
}

pub(super) fn uptime_secs(root: &Path) -> Option<u64> {
    let text = files::text(&root.join("proc/uptime"))?;
    text.split(['.', ' ']).next()?.parse().ok()
}

//! How fast a download may go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Reads in a second at least, so that a limit is kept evenly.
const READS_PER_SEC: u64 = 10;
/// Longest sleep between two looks at whether the download was called off.
const NAP_MAX: Duration = Duration::from_millis(100);

/// Keeps a download within so many bytes a second, over its whole length.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_sec: Option<u64>,
    began: Instant,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(bytes_per_sec: Option<u64>) -> Self {
        Self {
            bytes_per_sec,
            began: Instant::now(),
            bytes: 0,
        }
    }

    /// Bytes that may be read at once.
    pub(super) fn room(&self) -> usize {
        self.bytes_per_sec.map_or(usize::MAX, |limit| {
            usize::try_from((limit / READS_PER_SEC).max(1)).unwrap_or(usize::MAX)
        })
    }

    /// Bytes came: sleeps until the next may.
    pub(super) fn came(&mut self, bytes: usize, cancelled: &AtomicBool) {
        let Some(limit) = self.bytes_per_sec else {
            return;
        };
        self.bytes += bytes as u64;
        let due = Duration::from_secs_f64(self.bytes as f64 / limit.max(1) as f64);
        while !cancelled.load(Ordering::Relaxed) {
            let left = due.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP_MAX));
        }
    }
}

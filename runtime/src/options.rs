//! How a session runs.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

/// Options of a session or a proof.
///
/// ```
/// use std::{num::NonZeroU32, time::Duration};
/// use bellwether_runtime::Options;
///
/// let options = Options {
///     deadline: Duration::from_millis(200),
///     threads: NonZeroU32::new(2).expect("two is not zero"),
///     ..Options::new("/usr/bin/bellwether-worker")
/// };
/// assert!(options.statistics, "counting is on unless switched off");
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the model runs.
    pub host: Host,
    /// Memory of the worker beyond the bare program, in bytes. In process nothing enforces it.
    pub memory_bytes_max: u64,
    /// The time for one run; a worker that passes it is killed. In process nothing enforces it.
    pub deadline: Duration,
    /// The time for loading the model, optimisation included. In process nothing enforces it.
    pub load_deadline: Duration,
    /// Threads that one run may use for large matrix products; 1 unless told otherwise. The
    /// results are the same bits with any number.
    pub threads: NonZeroU32,
    /// Whether inputs and outputs are counted by the baseline's bins.
    pub statistics: bool,
    /// Whether a run looks for the worker's answer when it is about due, for at most a quarter of a
    /// millisecond and an eighth of the model's time, rather than sleep until it is woken: quicker
    /// for that much processor time. Without a second core, or for a model that takes longer than
    /// 5 ms, it sleeps in any case.
    pub busy_wait: bool,
}

/// Where a model runs. Sessions of both kinds have the same types and the same results.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Host {
    /// In a confined process of its own: a model that panics, faults, hangs or eats memory ends
    /// as a typed error, and this process stays up.
    Worker(PathBuf),
    /// In this process, which a malformed model can then abort, stall or exhaust: for packages
    /// whose maker is trusted with the process, and where microseconds or megabytes count. A
    /// panic of the engine is caught, and ends as [`Death::Panicked`](crate::Death::Panicked), unless
    /// the program is built to abort on panics.
    #[cfg(feature = "engine")]
    InProcess,
}

impl Options {
    /// In the given worker (see [`find_worker`](crate::find_worker)): 512 MiB, 5 s for a run, 60 s
    /// for loading (a small board optimises slowly), one thread, statistics on.
    pub fn new(worker: impl Into<PathBuf>) -> Self {
        Self::on(Host::Worker(worker.into()))
    }

    /// In this process; see [`Host::InProcess`] for what that gives up.
    #[cfg(feature = "engine")]
    pub fn in_process() -> Self {
        Self::on(Host::InProcess)
    }

    fn on(host: Host) -> Self {
        Self {
            host,
            memory_bytes_max: 512 * 1024 * 1024,
            deadline: Duration::from_secs(5),
            load_deadline: Duration::from_secs(60),
            threads: NonZeroU32::MIN,
            statistics: true,
            busy_wait: true,
        }
    }

    /// Processor time for the longer of both, rounded up, on all threads: the parent's deadline
    /// comes first.
    pub(crate) fn cpu_secs(&self) -> u32 {
        let longest = self.deadline.max(self.load_deadline).as_secs();
        let secs = longest
            .saturating_add(1)
            .saturating_mul(self.threads.get().into());
        u32::try_from(secs).unwrap_or(u32::MAX)
    }
}

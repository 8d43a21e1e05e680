//! How a session runs.

use std::{path::PathBuf, time::Duration};

/// Options of a session or a proof.
#[derive(Debug, Clone)]
pub struct Options {
    /// The worker program; see [`find_worker`](crate::find_worker).
    pub worker: PathBuf,
    /// Memory of the worker beyond the bare program, in bytes.
    pub memory_bytes_max: u64,
    /// The time for one run; a worker that passes it is killed.
    pub deadline: Duration,
    /// The time for loading the model, optimisation included.
    pub load_deadline: Duration,
    /// Whether inputs and outputs are counted by the baseline's bins.
    pub statistics: bool,
}

impl Options {
    /// 512 MiB, 5 s for a run, 60 s for loading (a small board optimises slowly), statistics on.
    pub fn new(worker: impl Into<PathBuf>) -> Self {
        Self {
            worker: worker.into(),
            memory_bytes_max: 512 * 1024 * 1024,
            deadline: Duration::from_secs(5),
            load_deadline: Duration::from_secs(60),
            statistics: true,
        }
    }

    /// Processor time for the longer of both, rounded up: the parent's deadline comes first.
    pub(crate) fn cpu_secs(&self) -> u32 {
        let longest = self.deadline.max(self.load_deadline);
        u32::try_from(longest.as_secs().saturating_add(1)).unwrap_or(u32::MAX)
    }
}

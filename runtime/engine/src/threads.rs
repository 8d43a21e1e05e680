//! The threads that one run may use.
//!
//! tract splits large matrix products over them, and nothing else. They are made before a worker
//! locks the making of threads away, and inherit what was locked before.

use std::{io, num::NonZeroU32, sync::Arc};

use rayon::ThreadPoolBuilder;
use tract_linalg::multithread::{Executor, multithread_tract_scope};

/// Threads at most: beyond these a small device only loses by switching between them.
const THREADS_MAX: u32 = 64;

/// A pool of threads, or none.
#[derive(Debug)]
pub struct Threads(Executor);

impl Threads {
    /// The calling thread alone.
    pub fn single() -> Self {
        Self(Executor::SingleThread)
    }

    /// Starts `count` threads, at most 64; none for one, which is the calling thread itself. They
    /// all run when this returns.
    ///
    /// # Errors
    /// What the system says when it gives no more threads.
    pub fn start(count: NonZeroU32) -> io::Result<Self> {
        let count = count.get().min(THREADS_MAX) as usize;
        if count == 1 {
            return Ok(Self::single());
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("engine-{index}"))
            .build()
            .map_err(io::Error::other)?;
        // Each has passed its own beginning once it has answered: what it needs of the system for
        // that may be locked away afterwards.
        let threads = Self(Executor::MultiThread(Arc::new(pool)));
        threads.each(|| ());
        Ok(threads)
    }

    /// Has each of them, if there are any, do `work` once.
    pub fn each(&self, work: impl Fn() + Sync) {
        if let Executor::MultiThread(pool) = &self.0 {
            pool.broadcast(|_| work());
        }
    }

    /// Lets `work` use them.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        multithread_tract_scope(self.0.clone(), work)
    }
}

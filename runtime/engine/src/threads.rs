//! The threads that one run may use.
//!
//! tract splits large matrix products over them, and nothing else. They are made before a worker
//! locks the making of threads away, and inherit what was locked before. Without the feature `threads`
//! there is the calling thread alone.

use std::{io, num::NonZeroU32};

use tract_linalg::multithread::{Executor, multithread_tract_scope};

/// Threads at most: beyond these a small device only loses by switching between them.
#[cfg(feature = "threads")]
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
    /// What the system says when it gives no more threads, and when this build has none.
    pub fn start(count: NonZeroU32) -> io::Result<Self> {
        if count == NonZeroU32::MIN {
            return Ok(Self::single());
        }
        Self::pool(count)
    }

    #[cfg(feature = "threads")]
    fn pool(count: NonZeroU32) -> io::Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count.get().min(THREADS_MAX) as usize)
            .thread_name(|index| format!("engine-{index}"))
            .build()
            .map_err(io::Error::other)?;
        // Each has passed its own beginning once it has answered: what it needs of the system for
        // that may be locked away afterwards.
        let threads = Self(Executor::MultiThread(std::sync::Arc::new(pool)));
        threads.each(|| ());
        Ok(threads)
    }

    #[cfg(not(feature = "threads"))]
    fn pool(count: NonZeroU32) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "{count} threads were asked for, and this worker was built for one: ask for one, or \
                 build it with the feature `threads`"
            ),
        ))
    }

    /// Has each of them, if there are any, do `work` once.
    pub fn each(&self, work: impl Fn() + Sync) {
        #[cfg(feature = "threads")]
        if let Executor::MultiThread(pool) = &self.0 {
            pool.broadcast(|_| work());
        }
        #[cfg(not(feature = "threads"))]
        let _ = work;
    }

    /// Lets `work` use them.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        multithread_tract_scope(self.0.clone(), work)
    }
}

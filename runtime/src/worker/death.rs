//! How a worker came to its end.

use std::{
    io::{self, Read},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ChildStderr, ExitStatus},
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    limits::Limits,
    wire::{FrameError, MESSAGE_BYTES_MAX, bounded_message},
};

/// The worker program could not be started. The device, or its installation, is at fault.
#[derive(Debug, thiserror::Error)]
#[error(
    "the worker {} cannot be started; check that it is installed and that processes and memory \
     are left", program.display()
)]
pub struct StartError {
    /// The program.
    pub program: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Why a worker is no more. The package is at fault, or what it was fed, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Death {
    /// The engine met a state it had not foreseen.
    #[error("the engine panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// It gave itself up, as on a stack overflow.
    #[error("the worker aborted: {message}")]
    Aborted {
        /// The end of its standard error.
        message: String,
    },
    /// A signal such as SIGSEGV ended it.
    #[error("signal {signal} ended the worker")]
    Faulted {
        /// The signal's number.
        signal: i32,
    },
    /// Another process killed it: on a device that is short of memory, usually the kernel.
    #[error("the worker was killed from outside; the device may be short of memory")]
    Killed,
    /// No answer in time; it was killed.
    #[error("no answer within {} ms", deadline.as_millis())]
    Hung {
        /// The time it had.
        deadline: Duration,
    },
    /// It used up its processor time.
    #[error("the worker used up its {cpu_secs} s of processor time")]
    CpuExhausted {
        /// The limit.
        cpu_secs: u32,
    },
    /// It asked for more memory than it may have.
    #[error("the worker needed more than its {memory_bytes} bytes of memory: {message}")]
    OutOfMemory {
        /// The limit, beyond the bare program.
        memory_bytes: u64,
        /// What the allocator said.
        message: String,
    },
    /// It ended in another way: the installation is at fault if it says so.
    #[error("the worker ended with code {code}: {message}")]
    Exited {
        /// The exit code.
        code: i32,
        /// The end of its standard error.
        message: String,
    },
    /// Its answer is no answer; it was killed.
    #[error("the worker broke the protocol")]
    Protocol(#[source] FrameError),
    /// The system lost hold of it. The device is at fault.
    #[error("the worker could not be watched")]
    Lost(#[source] io::Error),
}

impl Death {
    /// A short name of the kind, stable for counters and reports.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Panicked { .. } => "panicked",
            Self::Aborted { .. } => "aborted",
            Self::Faulted { .. } => "faulted",
            Self::Killed => "killed",
            Self::Hung { .. } => "hung",
            Self::CpuExhausted { .. } => "cpu-exhausted",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::Exited { .. } => "exited",
            Self::Protocol(_) => "protocol",
            Self::Lost(_) => "lost",
        }
    }

    /// What an ended process's status and last words mean.
    pub(super) fn of(status: ExitStatus, message: String, limits: Limits) -> Self {
        /// Rust's exit code after a panic that unwinds.
        const PANICKED: i32 = 101;
        let signal = status.signal();
        let aborted = signal == Some(Signal::ABORT.as_raw());
        // A program built to abort on a panic tells it in its words alone.
        let panicked =
            status.code() == Some(PANICKED) || aborted && message.contains(" panicked at ");
        // The engine panics where its own allocator gets nothing; Rust's says so and aborts.
        let is_short = panicked && message.contains("failed to allocate")
            || aborted && message.contains("memory allocation of");
        match (status.code(), signal) {
            _ if is_short => Self::OutOfMemory {
                memory_bytes: limits.memory_bytes,
                message,
            },
            _ if panicked => Self::Panicked { message },
            _ if aborted => Self::Aborted { message },
            (Some(code), _) => Self::Exited { code, message },
            (None, Some(signal)) => match Signal::from_named_raw(signal) {
                Some(Signal::XCPU) => Self::CpuExhausted {
                    cpu_secs: limits.cpu_secs,
                },
                Some(Signal::KILL) => Self::Killed,
                _ => Self::Faulted { signal },
            },
            (None, None) => Self::Exited { code: -1, message },
        }
    }
}

/// What a worker wrote to standard error, from the start: a panic names its cause first.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    bytes: Vec<u8>,
    pub(super) closed: bool,
}

impl LastWords {
    /// Reads at a time, so that a worker that never stops talking does not keep its parent here.
    const READS_MAX: usize = 64;

    /// Reads what is there without waiting; keeps [`MESSAGE_BYTES_MAX`], drops the rest.
    pub(super) fn drain(&mut self, stderr: &mut ChildStderr) {
        let mut buffer = [0; 1024];
        for _ in 0..Self::READS_MAX {
            match stderr.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(n) => {
                    let room = MESSAGE_BYTES_MAX.saturating_sub(self.bytes.len());
                    self.bytes.extend_from_slice(&buffer[..n.min(room)]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.closed = true,
            }
            return;
        }
    }

    pub(super) fn message(&self) -> String {
        bounded_message(String::from_utf8_lossy(&self.bytes).trim())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_panic_and_a_lack_of_memory_are_told_apart_from_an_abort_however_the_program_ends() {
        const LIMITS: Limits = Limits {
            memory_bytes: 1,
            cpu_secs: 1,
            threads: NonZeroU32::MIN,
        };
        // As `wait` gives them: an exit code in the second byte, a signal in the first.
        let (exited, aborted) = (101 << 8, Signal::ABORT.as_raw());
        let panic = "thread 'main' panicked at src/lib.rs:1:1: no shape";
        let short = "thread 'main' panicked at src/lib.rs:1:1: failed to allocate";
        for (status, words, kind) in [
            (exited, panic, "panicked"),
            (aborted, panic, "panicked"),
            (exited, short, "out-of-memory"),
            (aborted, short, "out-of-memory"),
            (
                aborted,
                "memory allocation of 8 bytes failed",
                "out-of-memory",
            ),
            (aborted, "stack overflow", "aborted"),
        ] {
            let death = Death::of(ExitStatus::from_raw(status), words.to_owned(), LIMITS);
            assert_eq!(death.kind(), kind, "{status}: {words}");
        }
    }
}

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
        /// Rust's exit code after a panic.
        const PANICKED: i32 = 101;
        match (status.code(), status.signal()) {
            // The engine panics where its own allocator gets nothing.
            (Some(PANICKED), _) if message.contains("failed to allocate") => Self::OutOfMemory {
                memory_bytes: limits.memory_bytes,
                message,
            },
            (Some(PANICKED), _) => Self::Panicked { message },
            (Some(code), _) => Self::Exited { code, message },
            (None, Some(signal)) => match Signal::from_named_raw(signal) {
                // Rust's allocator says so and aborts.
                Some(Signal::ABORT) if message.contains("memory allocation of") => {
                    Self::OutOfMemory {
                        memory_bytes: limits.memory_bytes,
                        message,
                    }
                }
                Some(Signal::ABORT) => Self::Aborted { message },
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

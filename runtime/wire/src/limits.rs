//! The limits a worker sets for itself, as its command line carries them.
//!
//! On the command line, because a worker must be confined before it reads its first byte.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// Raised whenever framing, messages or arguments change: parent and worker are two binaries, and
/// an update may leave an old one behind.
pub const WORKER_PROTOCOL: u32 = 3;

/// What one worker may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Address space beyond what the bare program maps, in bytes.
    pub memory_bytes: u64,
    /// Processor time to load the model, and for every single run, in seconds. The parent's
    /// deadline comes first; this ends a worker whose parent has died.
    pub cpu_secs: u32,
    /// Threads that one run may use.
    pub threads: NonZeroU32,
}

/// The locks that a worker has put on itself beyond its limits, as far as its kernel has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Files, TCP and other processes: landlock.
    pub files: Lock,
    /// System calls: seccomp.
    pub calls: bool,
}

impl Confinement {
    /// Everything that a worker asks for.
    pub const WHOLE: Self = Self {
        files: Lock::Whole,
        calls: true,
    };
}

/// How far a lock closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// All that was asked.
    Whole,
    /// What the kernel's version knows of.
    Part,
    /// The kernel has none.
    Absent,
}

/// The command line is not that of this protocol. The installation is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// Not started by a parent, or by one of another version.
    #[error(
        "this worker speaks protocol {WORKER_PROTOCOL} and is started by bellwether, not by hand; \
         if it was, agent and worker come from different releases: install them together"
    )]
    Protocol,
    /// A number is missing or not a number.
    #[error("argument {0} is missing or not a number")]
    Argument(&'static str),
}

impl Limits {
    /// The worker's arguments.
    pub fn to_args(&self) -> [String; 4] {
        [
            WORKER_PROTOCOL.to_string(),
            self.memory_bytes.to_string(),
            self.cpu_secs.to_string(),
            self.threads.to_string(),
        ]
    }

    /// The limits in a worker's arguments, the program's name left out.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, LimitsError> {
        if number(args.next()) != Some(u64::from(WORKER_PROTOCOL)) {
            return Err(LimitsError::Protocol);
        }
        let memory_bytes = number(args.next()).ok_or(LimitsError::Argument("memory_bytes"))?;
        let cpu_secs = number(args.next())
            .and_then(|secs| secs.try_into().ok())
            .ok_or(LimitsError::Argument("cpu_secs"))?;
        let threads = number(args.next())
            .and_then(|threads| u32::try_from(threads).ok())
            .and_then(NonZeroU32::new)
            .ok_or(LimitsError::Argument("threads"))?;
        Ok(Self {
            memory_bytes,
            cpu_secs,
            threads,
        })
    }
}

fn number(arg: Option<String>) -> Option<u64> {
    arg?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back_as_they_went() {
        let limits = Limits {
            memory_bytes: u64::MAX,
            cpu_secs: 7,
            threads: NonZeroU32::MAX,
        };
        assert_eq!(Limits::from_args(limits.to_args().into_iter()), Ok(limits));
    }

    #[test]
    fn no_threads_is_no_number_of_threads() {
        let args = [WORKER_PROTOCOL, 1, 1, 0].map(|n| n.to_string());
        assert_eq!(
            Limits::from_args(args.into_iter()),
            Err(LimitsError::Argument("threads"))
        );
    }

    #[test]
    fn another_protocol_is_refused() {
        let args = ["1", "1", "1"].map(String::from);
        assert_eq!(
            Limits::from_args(args.into_iter()),
            Err(LimitsError::Protocol)
        );
        assert_eq!(
            Limits::from_args(std::iter::empty()),
            Err(LimitsError::Protocol)
        );
    }
}

//! The device's own programs: the agent and its worker, for each machine that they were built for.
//!
//! The blob holds, for each target in order, the worker and then the agent, back to back. The
//! worker stands first because it changes seldom: its chunks then begin where they began before,
//! and a device that has the release before need not fetch them.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::fit::{Checked, check_chunks, fits_blob, invalid};
use super::{CHUNKS_MAX, FitError};
use crate::bounded;
use crate::ids::Digest;
use crate::manifest::SectionEntry;

/// Most machines in one package: each device fetches all of them.
pub const TARGETS_MAX: usize = 8;
/// Longest name of a target in bytes; the longest that Rust has are about 40.
pub const TRIPLE_BYTES_MAX: usize = 64;

/// Description of the device's own programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramInfo {
    /// Length of the blob in bytes.
    pub length: u64,
    /// The machines that there are programs for, in the order of the blob.
    #[serde(deserialize_with = "bounded::list::<_, _, TARGETS_MAX>")]
    pub targets: Vec<Target>,
    /// SHA-256 of each 256 KiB chunk.
    #[serde(deserialize_with = "bounded::list::<_, _, CHUNKS_MAX>")]
    pub chunks: Vec<Digest>,
}

/// Programs for one kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What they were built for, as Rust names it: `aarch64-unknown-linux-musl`.
    #[serde(deserialize_with = "bounded::text::<_, TRIPLE_BYTES_MAX>")]
    pub triple: String,
    /// The confined worker.
    pub worker: Executable,
    /// The agent.
    pub agent: Executable,
}

/// One executable file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

impl ProgramInfo {
    /// The programs for this machine, and where in the blob its worker begins, in bytes; its agent
    /// follows.
    pub fn target(&self, triple: &str) -> Option<(&Target, u64)> {
        let mut begins = 0;
        for target in &self.targets {
            if target.triple == triple {
                return Some((target, begins));
            }
            begins += target.bytes();
        }
        None
    }

    /// Whether length and chunks are those of this section of the manifest.
    ///
    /// # Errors
    ///
    /// [`FitError::Blob`].
    pub fn fits(&self, blob: &SectionEntry) -> Result<(), FitError> {
        fits_blob(self.length, &self.chunks, blob)
    }

    pub(super) fn check(&self) -> Checked {
        check_chunks(self.length, &self.chunks)?;
        let mut left = self.length;
        for (place, target) in self.targets.iter().enumerate() {
            let lengths = [target.worker.length, target.agent.length];
            if lengths.contains(&0) || target.triple.is_empty() {
                return invalid("a program is empty, or for no machine");
            }
            let before = &self.targets[..place];
            if before.iter().any(|other| other.triple == target.triple) {
                return invalid("two programs are for the same machine");
            }
            for length in lengths {
                left = match left.checked_sub(length) {
                    Some(left) => left,
                    None => return invalid("the programs are longer than their blob"),
                };
            }
        }
        if left == 0 {
            Ok(())
        } else {
            invalid("the blob is longer than its programs")
        }
    }
}

impl Target {
    /// Bytes of both executables.
    pub fn bytes(&self) -> u64 {
        // Their sum was checked against the blob's length.
        self.worker.length + self.agent.length
    }
}

//! What a worker takes from itself before it reads a byte of the model.
//!
//! | what | means |
//! |---|---|
//! | no files, no TCP, no signals | landlock with no rule at all, where the kernel has it |
//! | system calls | seccomp: memory, clocks, and reading and writing what is open; all else fails |
//! | memory | `RLIMIT_AS`: the bare program's mappings plus the limit |
//! | processor | `RLIMIT_CPU`, renewed before each run |
//! | processes, files, core dumps | `RLIMIT_NPROC` and `RLIMIT_CORE` 0, `RLIMIT_FSIZE` the memory shared with the parent, few descriptors |
//! | privileges | `no_new_privs` |
//! | the parent's death | the kernel kills it |
//!
//! The threads that runs may use are made between the two locks: they inherit the first, are put
//! under the second, and no more can be made.
//!
//! Locks that the kernel does not offer are left out, and told to the parent: the process boundary
//! remains. A limit that it offers and refuses is an error.

mod calls;

use std::{fs, io};

use bellwether_wire::{
    ARENA_BYTES,
    limits::{Confinement, Limits, Lock},
};
use rustix::{
    process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit},
    thread::set_no_new_privs,
};

use crate::threads::Threads;

/// Standard streams, and a few for the run time.
const FILES_MAX: u64 = 16;
/// Assumed size of the bare program where `/proc` is not mounted.
const BARE_BYTES: u64 = 64 * 1024 * 1024;

/// Why a worker could not confine itself. The device is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A limit was refused.
    #[error("{what} was refused by the kernel")]
    Kernel {
        /// Which.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The threads that it should use were refused.
    #[error("the threads that runs may use cannot be started")]
    Threads(#[source] io::Error),
    /// Files could not be locked away.
    #[error("landlock failed")]
    Landlock(#[source] landlock::RulesetError),
    /// System calls could not be locked away.
    #[cfg(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ))]
    #[error("seccomp failed")]
    Seccomp(#[source] seccompiler::Error),
}

/// Confines this process, for good, and starts its threads; tells what the kernel had no lock for.
///
/// Call it while no other thread runs: files are locked away from the calling thread, and from
/// those that it starts.
pub fn confine(limits: Limits) -> Result<(Confinement, Threads), ConfineError> {
    kernel(
        "the parent's death signal",
        set_parent_process_death_signal(Some(Signal::KILL)),
    )?;
    kernel("no_new_privs", set_no_new_privs(true))?;
    let files = lock_files()?;
    let threads = Threads::start(limits.threads).map_err(ConfineError::Threads)?;
    let memory = bare_bytes().saturating_add(limits.memory_bytes);
    for (what, resource, most) in [
        ("RLIMIT_AS", Resource::As, memory),
        ("RLIMIT_CORE", Resource::Core, 0),
        ("RLIMIT_FSIZE", Resource::Fsize, ARENA_BYTES),
        ("RLIMIT_NOFILE", Resource::Nofile, FILES_MAX),
        ("RLIMIT_NPROC", Resource::Nproc, 0),
    ] {
        kernel(what, lower(resource, most))?;
    }
    allow_cpu(limits.cpu_secs)?;
    let calls = lock_calls()?;
    Ok((Confinement { files, calls }, threads))
}

/// Grants `secs` of processor time from now on: a worker lives for weeks, a run for moments.
pub fn allow_cpu(secs: u32) -> Result<(), ConfineError> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
    let until = u64::try_from(used).unwrap_or(0) + 1 + u64::from(secs);
    let cpu = Rlimit {
        current: Some(until),
        maximum: getrlimit(Resource::Cpu).maximum,
    };
    kernel("RLIMIT_CPU", setrlimit(Resource::Cpu, cpu))
}

/// Sets soft and hard limit, never above the hard limit that is there.
fn lower(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let most = getrlimit(resource)
        .maximum
        .map_or(most, |now| now.min(most));
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limit)
}

/// What the program maps before it has done anything.
fn bare_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').next()?.parse::<u64>().ok());
    pages.map_or(BARE_BYTES, |pages| {
        pages.saturating_mul(rustix::param::page_size() as u64)
    })
}

/// Locks files, TCP, abstract sockets and other processes away, as far as the kernel can.
pub fn lock_files() -> Result<Lock, ConfineError> {
    use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
    /// The newest that this was tried on; older kernels lock what they know of.
    const NEWEST: ABI = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self())
        .map_err(ConfineError::Landlock)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Lock::Whole,
        RulesetStatus::PartiallyEnforced => Lock::Part,
        RulesetStatus::NotEnforced => Lock::Absent,
    })
}

/// Locks away, from all threads, all system calls but those that computing needs; `false` if the
/// kernel cannot.
pub fn lock_calls() -> Result<bool, ConfineError> {
    calls::lock()
}

/// Lets the engine look at the processor and its caches, which it does in files that are out of
/// reach later: without, it would take the slowest of its kernels on ARM.
pub fn know_processor() {
    use tract_onnx::tract_hir::tract_core::tract_linalg;
    tract_linalg::isa::native();
    tract_linalg::has_fp16();
    tract_linalg::cache::cache_info();
    tract_linalg::cache::last_level_cache();
}

fn kernel<T>(what: &'static str, result: rustix::io::Result<T>) -> Result<T, ConfineError> {
    result.map_err(|errno| ConfineError::Kernel {
        what,
        source: errno.into(),
    })
}

//! What a worker takes from itself before it reads a byte of the model.
//!
//! | what | means |
//! |---|---|
//! | no files, no TCP | landlock with no rule at all, where the kernel has it |
//! | system calls | seccomp: memory, clocks, and reading and writing what is open; all else fails |
//! | memory | `RLIMIT_AS`: the bare program's mappings plus the limit |
//! | processor | `RLIMIT_CPU`, renewed before each run |
//! | processes, files, core dumps | `RLIMIT_NPROC`, `RLIMIT_FSIZE` and `RLIMIT_CORE` 0, few descriptors |
//! | privileges | `no_new_privs` |
//! | the parent's death | the kernel kills it |
//!
//! Limits that the kernel does not offer are left out: the process boundary remains. A limit that
//! it offers and refuses is an error.

use std::{fs, io};

use bellwether_wire::limits::Limits;
use rustix::{
    process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit},
    thread::set_no_new_privs,
};

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

/// Confines this process, for good.
pub fn confine(limits: Limits) -> Result<(), ConfineError> {
    kernel(
        "the parent's death signal",
        set_parent_process_death_signal(Some(Signal::KILL)),
    )?;
    kernel("no_new_privs", set_no_new_privs(true))?;
    let memory = bare_bytes().saturating_add(limits.memory_bytes);
    for (what, resource, most) in [
        ("RLIMIT_AS", Resource::As, memory),
        ("RLIMIT_CORE", Resource::Core, 0),
        ("RLIMIT_FSIZE", Resource::Fsize, 0),
        ("RLIMIT_NOFILE", Resource::Nofile, FILES_MAX),
        ("RLIMIT_NPROC", Resource::Nproc, 0),
    ] {
        kernel(what, lower(resource, most))?;
    }
    allow_cpu(limits.cpu_secs)?;
    lock_files()?;
    lock_calls()?;
    Ok(())
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

fn lock_files() -> Result<(), ConfineError> {
    use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr};
    // Best effort is the crate's default: older kernels lock what they know of.
    Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(|rules| rules.create())
        .and_then(|rules| rules.restrict_self())
        .map(|_| ())
        .map_err(ConfineError::Landlock)
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
fn lock_calls() -> Result<(), ConfineError> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
    let calls = [
        // What is open already.
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_lseek,
        libc::SYS_ppoll,
        // Memory.
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        // Waiting, time and chance.
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        // Renewing the processor's limit.
        libc::SYS_prlimit64,
        // Signals of its own, and its end.
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_tgkill,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let arch = if cfg!(target_arch = "x86_64") {
        TargetArch::x86_64
    } else if cfg!(target_arch = "aarch64") {
        TargetArch::aarch64
    } else {
        TargetArch::riscv64
    };
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let rules = calls.into_iter().map(|call| (call, vec![])).collect();
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| ConfineError::Seccomp(error.into()))?;
    seccompiler::apply_filter(&filter).map_err(ConfineError::Seccomp)
}

/// No filter can be made for this processor; the other limits stand.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
fn lock_calls() -> Result<(), ConfineError> {
    Ok(())
}

fn kernel<T>(what: &'static str, result: rustix::io::Result<T>) -> Result<T, ConfineError> {
    result.map_err(|errno| ConfineError::Kernel {
        what,
        source: errno.into(),
    })
}

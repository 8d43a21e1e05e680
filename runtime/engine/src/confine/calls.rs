//! System calls, by seccomp: what a worker needs, and nothing else.
//!
//! The names are those of both C libraries on all three processors: where one library or
//! processor has another call for the same thing (`tkill` in musl's `abort`, `ppoll` where there
//! is no `poll`), that one stands here too. Calls that take a path, make a descriptor, a process
//! or a thread, or look into another process are absent.

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
pub(super) use filtered::lock;

/// No filter can be made for this processor; the other limits stand.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
pub(super) fn lock() -> Result<bool, super::ConfineError> {
    Ok(false)
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod filtered {
    use std::{collections::BTreeMap, io};

    use seccompiler::{
        BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
        SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    };

    use crate::confine::ConfineError;

    /// Allowed with whatever arguments: they reach nothing but what is open, and this process.
    const CALLS: [i64; 29] = [
        // What is open already.
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwrite64,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_lseek,
        libc::SYS_ppoll,
        // Memory.
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        // Waiting, time and chance.
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_restart_syscall,
        // Signals of its own, and its end.
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    /// Locks all other calls away for good; `false` if the kernel has no such filters.
    pub(in crate::confine) fn lock() -> Result<bool, ConfineError> {
        let arch = if cfg!(target_arch = "x86_64") {
            TargetArch::x86_64
        } else if cfg!(target_arch = "aarch64") {
            TargetArch::aarch64
        } else {
            TargetArch::riscv64
        };
        let denied = SeccompAction::Errno(libc::EPERM as u32);
        let filter = rules()
            .and_then(|rules| SeccompFilter::new(rules, denied, SeccompAction::Allow, arch))
            .and_then(BpfProgram::try_from)
            .map_err(|error| ConfineError::Seccomp(error.into()))?;
        match seccompiler::apply_filter_all_threads(&filter) {
            Ok(()) => Ok(true),
            Err(Error::Seccomp(error) | Error::Prctl(error)) if is_absent(&error) => Ok(false),
            Err(error) => Err(ConfineError::Seccomp(error)),
        }
    }

    fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
        let mut rules: BTreeMap<_, _> = CALLS.into_iter().map(|call| (call, vec![])).collect();
        // Signals to itself, as in an abort: one library names the process, the other the thread.
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, vec![equal(&[(0, own)])?]);
        rules.insert(libc::SYS_tkill, vec![equal(&[(0, own)])?]);
        // The processor's limit, renewed; of this process alone.
        let cpu = libc::RLIMIT_CPU as u64;
        rules.insert(libc::SYS_prlimit64, vec![equal(&[(0, 0), (1, cpu)])?]);
        // Memory that holds data, never programs.
        let data = vec![no_programs()?];
        rules.insert(libc::SYS_mmap, data.clone());
        rules.insert(libc::SYS_mprotect, data);
        Ok(rules)
    }

    fn equal(arguments: &[(u8, u64)]) -> Result<SeccompRule, BackendError> {
        let conditions = arguments.iter().map(|(at, value)| {
            SeccompCondition::new(*at, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value)
        });
        SeccompRule::new(conditions.collect::<Result<_, _>>()?)
    }

    /// The third argument of both calls says what may be done with the memory.
    fn no_programs() -> Result<SeccompRule, BackendError> {
        let programs = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        let condition = SeccompCondition::new(2, SeccompCmpArgLen::Dword, programs, 0)?;
        SeccompRule::new(vec![condition])
    }

    /// What a kernel says that was built without filters.
    fn is_absent(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
    }
}

//! What a worker says of its locks, told once to whoever reads the log.

use std::sync::Once;

use crate::limits::{Confinement, Lock};

/// Warns, once in the life of this process, if the kernel lacks a lock: what is missing is a
/// property of the device, and the same for every worker.
pub(crate) fn tell(confinement: Confinement) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        for lack in lacks(confinement) {
            tracing::warn!("{lack}; its other limits stand");
        }
    });
}

/// A sentence on each lock that is missing.
fn lacks(confinement: Confinement) -> Vec<&'static str> {
    let files = match confinement.files {
        Lock::Whole => None,
        Lock::Part => Some("the kernel's landlock is old: it locks the worker away only in part"),
        Lock::Absent => {
            Some("the kernel has no landlock: files are not locked away from the worker")
        }
    };
    let calls = (!confinement.calls)
        .then_some("the kernel has no seccomp: system calls are not locked away from the worker");
    [files, calls].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lock_that_is_missing_has_its_sentence() {
        assert!(lacks(Confinement::WHOLE).is_empty());
        let none = Confinement {
            files: Lock::Absent,
            calls: false,
        };
        let told = lacks(none).join(" ");
        assert!(
            told.contains("no landlock") && told.contains("no seccomp"),
            "{told}"
        );
        let old = Confinement {
            files: Lock::Part,
            ..Confinement::WHOLE
        };
        assert_eq!(lacks(old).len(), 1);
    }
}

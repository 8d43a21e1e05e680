//! The preloaded library: how it is built, and how an agent is told what goes wrong.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What happens to the operations of a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// SIGKILL once the first of them is done, and the power with it.
    Killed,
}

impl How {
    fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
        }
    }
}

/// A fault: what happens, to which operations below the state folder.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) how: How,
    /// Letters of the operations that are counted, as `shim.c` has them.
    pub(super) counted: &'static str,
    /// Of these, only those on paths that hold this text.
    pub(super) among: &'static str,
    /// Number of the first that it happens to, from 1.
    pub(super) first: u64,
    /// Number of the last.
    pub(super) last: u64,
}

impl Fault {
    /// What the agent's process is started with.
    pub(super) fn environment(&self, state: &Path, log: &Path) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", library().into()),
            ("FAULT_FOLDER", state.into()),
            ("FAULT_COUNTED", self.counted.into()),
            ("FAULT_AMONG", self.among.into()),
            ("FAULT_HOW", self.how.word().into()),
            ("FAULT_FIRST", self.first.to_string().into()),
            ("FAULT_LAST", self.last.to_string().into()),
            ("FAULT_LOG", log.into()),
        ]
    }
}

/// The library, built once by the C compiler that the workspace needs anyway.
pub(super) fn library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/faults/shim.c");
            // Several test programs may run at once, so each has its own.
            let name = format!("faults-{}.so", std::process::id());
            let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            let mut compiler = Command::new("cc");
            compiler.args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
            ]);
            let status = compiler.arg(&library).arg(&source).arg("-ldl").status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "cc cannot build {}: install a C compiler",
                source.display()
            );
            library
        })
        .clone()
}

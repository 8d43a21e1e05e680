//! What a confined process cannot do, tried from inside.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, net::TcpListener, path::PathBuf, process::Command};

/// `EPERM`: a system call that the filter does not know.
const NOT_PERMITTED: i32 = 1;
/// `EACCES`: a file that landlock closes.
const NO_ACCESS: i32 = 13;

struct Probe {
    codes: BTreeMap<String, i32>,
    file: PathBuf,
}

/// Starts the probe under a lock, with a file and a listener that it could reach without.
fn probe(lock: &str) -> Probe {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().unwrap().parent().unwrap();
    let program = target.join("examples/confined-probe");
    assert!(
        program.is_file(),
        "build the examples first: cargo test builds them unless told to build one test alone"
    );
    let file = target.join(format!("confined-probe-{lock}-{}", std::process::id()));
    std::fs::write(&file, b"whole").unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut command = Command::new(program);
    let output = command.arg(lock).arg(port).arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{words}");
    let pairs = text.lines().map(|line| line.rsplit_once(": ").unwrap());
    Probe {
        codes: pairs
            .map(|(what, code)| (what.to_owned(), code.parse().unwrap()))
            .collect(),
        file,
    }
}

impl Probe {
    fn assert_denied(&self, attempts: &[&str], code: i32) {
        for attempt in attempts {
            assert_eq!(self.codes[*attempt], code, "{attempt}");
        }
    }

    fn assert_untouched(&self) {
        assert_eq!(std::fs::read(&self.file).unwrap(), b"whole");
        assert!(!self.file.with_extension("new").exists());
        std::fs::remove_file(&self.file).unwrap();
    }
}

const FILES: [&str; 6] = [
    "read a file",
    "write a file",
    "make a file",
    "remove a file",
    "list a folder",
    "look at a process",
];

#[test]
fn landlock_alone_closes_files_connections_and_other_processes() {
    let probe = probe("files");
    probe.assert_denied(&FILES, NO_ACCESS);
    probe.assert_denied(&["connect by TCP", "start a program"], NO_ACCESS);
    probe.assert_denied(&["trace the parent", "signal the parent"], NOT_PERMITTED);
    probe.assert_untouched();
}

#[test]
fn seccomp_alone_closes_every_call_that_reaches_out() {
    let probe = probe("calls");
    assert_eq!(probe.codes.len(), 16, "{:?}", probe.codes);
    let all: Vec<_> = probe.codes.keys().map(String::as_str).collect();
    probe.assert_denied(&all, NOT_PERMITTED);
    probe.assert_untouched();
}

#[test]
fn a_worker_s_confinement_closes_all_of_it() {
    let probe = probe("all");
    let all: Vec<_> = probe.codes.keys().map(String::as_str).collect();
    assert!(
        all.len() == 22 && all.iter().all(|what| probe.codes[*what] != 0),
        "{:?}",
        probe.codes
    );
    probe.assert_untouched();
}

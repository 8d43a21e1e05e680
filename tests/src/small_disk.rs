//! A real disk that can be filled: a few mebibytes in memory.
//!
//! Mounting needs rights. A test that wants such a disk asks [`inside`] first, which runs the test
//! anew in a namespace of its own where it may mount; the mount goes when the namespace does.

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Set in the namespace.
const INSIDE: &str = "BELLWETHER_TEST_NAMESPACE";
/// Ways to a namespace: as root, and as anybody where the system lets them.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];

/// Whether the caller, named as libtest names it, may mount now. If not, it has run elsewhere by
/// the time this returns.
///
/// # Panics
///
/// When the test failed there, or when nobody may mount on this machine: a check that cannot run
/// is no check that passed.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let way = WAYS.into_iter().find(|way| may_mount(way));
    let way = way.unwrap_or_else(|| {
        panic!(
            "{test} needs a small disk, and neither root nor a user namespace may mount one here: \
             run it as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)"
        )
    });
    let status = Command::new("unshare")
        .args(way)
        .arg(std::env::current_exe().expect("a running test has a program"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "yes")
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{test} failed on its small disk, as told above"
    );
    false
}

fn may_mount(way: &[&str]) -> bool {
    let probe = ["mount", "-t", "tmpfs", "tmpfs", "/tmp"];
    let tried = Command::new("unshare").args(way).args(probe).output();
    tried.is_ok_and(|it| it.status.success())
}

/// Puts a disk of so many mebibytes under a folder; what was in the folder is there again.
///
/// # Panics
///
/// When that cannot be done.
pub fn put_under(folder: &Path, mebibytes: u32) {
    let before = folder.with_extension("before");
    std::fs::rename(folder, &before).expect("a folder beside it");
    std::fs::create_dir(folder).expect("the folder anew");
    let options = format!("size={mebibytes}m,mode=700");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]);
    run(mount.arg(folder));
    run(Command::new("cp")
        .arg("-a")
        .arg(before.join("."))
        .arg(folder));
}

fn run(command: &mut Command) {
    let status = command.status();
    assert!(status.is_ok_and(|it| it.success()), "failed: {command:?}");
}

/// Writes a file until not one byte more fits on its disk. Removing it gives the room back.
///
/// # Panics
///
/// When the file cannot be made.
pub fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).expect("a file on the disk");
    for bytes in [1 << 20, 4096, 1] {
        while file.write_all(&vec![7; bytes]).is_ok() {}
    }
}

//! Small files that the kernel makes up.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest file that is read, in bytes: a routing table of some hundred lines.
const BYTES_MAX: u64 = 64 * 1024;
/// Entries of a folder that are looked at: a server board has dozens of sensors, a device a few.
const ENTRIES_MAX: usize = 64;

/// The file's text, as far as it is read; `None` if it cannot be.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

/// The one value in the file.
pub(super) fn value<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.trim().parse().ok()
}

/// What lies in the folder, in the order of the names, which must begin with `prefix`.
pub(super) fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).take(ENTRIES_MAX).collect();
    paths.sort();
    paths
}

//! File sizes: past 800 lines a file is split by noun.

use std::path::{Path, PathBuf};

const LINES_MAX: usize = 800;
/// The tree's depth and number of files are small; this only ends a walk that went astray.
const FILES_MAX: usize = 5_000;

/// Rust files that are too long.
pub(super) fn faults(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for file in rust_files(root)? {
        let lines = std::fs::read_to_string(&file)?.lines().count();
        if lines > LINES_MAX {
            let name = file.strip_prefix(root).unwrap_or(&file).display();
            faults.push(format!(
                "{name} has {lines} lines; past {LINES_MAX} split it by noun"
            ));
        }
    }
    Ok(faults)
}

/// Every Rust file of the tree, build output left out.
pub(super) fn rust_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders = vec![root.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let hidden = name.to_string_lossy().starts_with('.');
            if entry.file_type()?.is_dir() {
                if !hidden && name != "target" {
                    folders.push(entry.path());
                }
            } else if entry.path().extension().is_some_and(|kind| kind == "rs") {
                files.push(entry.path());
            }
        }
        anyhow::ensure!(
            files.len() <= FILES_MAX,
            "more than {FILES_MAX} Rust files below {}",
            root.display()
        );
    }
    Ok(files)
}

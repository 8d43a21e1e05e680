//! Files: bounded reading, and writing that is all or nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::TempPath;

use crate::failure::{Failure, Result};

/// Text that people write by hand (TOML, PEM, tokens) is far smaller than this.
pub(crate) const TEXT_BYTES_MAX: u64 = 1 << 20;

/// What may happen to a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Refuse: losing the old one would lose work or a key.
    Keep,
    /// Replace it in one step.
    Replace,
}

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Only its owner (0600).
    Owner,
    /// Whoever the umask allows, at most 0644.
    Everybody,
}

/// Reads a whole file of at most `bytes_max`.
///
/// # Errors
/// When it can't be read, or is larger.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("read", path, error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large(path, bytes_max));
    }
    Ok(bytes)
}

/// Reads a whole UTF-8 file of at most [`TEXT_BYTES_MAX`].
///
/// # Errors
/// When it can't be read, is larger, or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path, TEXT_BYTES_MAX)?).map_err(|error| {
        Failure::operator(format!("{} is not UTF-8 text", path.display()))
            .next("check that this is the file you meant")
            .because(error)
    })
}

/// Opens a regular file for reading.
///
/// # Errors
/// When it can't be opened, or is a folder.
pub(crate) fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|error| Failure::io("open", path, error))?;
    let metadata = file
        .metadata()
        .map_err(|error| Failure::io("look at", path, error))?;
    if metadata.is_dir() {
        return Err(Failure::operator(format!("{} is a folder", path.display()))
            .next("give the path of a file"));
    }
    Ok(file)
}

/// Writes `bytes` to `path`: a file without a name in the same folder, flushed to the disk, named. Either the
/// whole file is there afterwards or nothing changed.
///
/// # Errors
/// When the disk refuses, or the file exists and `existing` says to keep it.
pub(crate) fn write(path: &Path, bytes: &[u8], existing: Existing, readers: Readers) -> Result<()> {
    write_with(path, existing, readers, |sink| {
        sink.write_all(bytes)
            .map_err(|error| Failure::io("write", path, error))
    })
}

/// As [`write()`], with the bytes coming from `fill`, which may fail: then nothing changed.
///
/// # Errors
/// Those of `fill`, and when the disk refuses, or the file exists and is to be kept.
pub(crate) fn write_with(
    path: &Path,
    existing: Existing,
    readers: Readers,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    if existing == Existing::Keep {
        refuse_existing(path)?;
    }
    let folder = folder_of(path);
    let mut draft = Draft::new_in(&folder, readers)
        .map_err(|error| Failure::io("write into", &folder, error))?;
    fill(&mut draft.file)?;
    draft
        .file
        .sync_all()
        .map_err(|error| Failure::io("flush", path, error))?;
    draft
        .settle(&folder, path, existing)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(path),
            _ => Failure::io("write", path, error),
        })?;
    // The rename itself has to reach the disk too; some file systems can't sync a folder.
    if let Ok(folder) = File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Refuses early when `path` exists, before minutes of work are spent on it.
///
/// # Errors
/// When there is anything at `path`, even a dangling link.
pub(crate) fn refuse_existing(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(exists(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::io("look at", path, error)),
    }
}

/// Whether others than its owner may read `path`.
pub(crate) fn readable_by_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// A file that is being written.
struct Draft {
    file: File,
    /// Its name until it is whole; without one, whatever ends this process leaves nothing behind.
    name: Option<TempPath>,
}

impl Draft {
    fn new_in(folder: &Path, readers: Readers) -> io::Result<Self> {
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::Everybody => 0o644,
        };
        if let Some(file) = nameless_in(folder, mode) {
            return Ok(Self { file, name: None });
        }
        let (file, name) = draft_name()
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(folder)?
            .into_parts();
        Ok(Self {
            file,
            name: Some(name),
        })
    }

    /// Gives it its name in one step.
    fn settle(self, folder: &Path, path: &Path, existing: Existing) -> io::Result<()> {
        let name = match self.name {
            Some(name) => name,
            None => draft_name()
                .make_in(folder, |name| link(&self.file, name))?
                .into_temp_path(),
        };
        match existing {
            Existing::Keep => name.persist_noclobber(path),
            Existing::Replace => name.persist(path),
        }
        .map_err(|error| error.error)
    }
}

fn draft_name() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".bellwether-").suffix(".part");
    builder
}

/// A file with no name yet; `None` where the file system has no such thing.
fn nameless_in(folder: &Path, mode: u32) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(folder, flags, Mode::from_raw_mode(mode)).ok()?;
    let file = File::from(file);
    // Without /proc it could never be given a name.
    by_descriptor(&file).exists().then_some(file)
}

fn link(file: &File, name: &Path) -> io::Result<()> {
    let file = by_descriptor(file);
    Ok(rustix::fs::linkat(
        CWD,
        &file,
        CWD,
        name,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}

fn by_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::operator(format!(
        "{} exists already, and is not overwritten",
        path.display()
    ))
    .next("choose another name, or move the old file away yourself")
}

fn too_large(path: &Path, bytes_max: u64) -> Failure {
    Failure::operator(format!(
        "{} is larger than {}",
        path.display(),
        crate::output::human_bytes(bytes_max)
    ))
    .next("check that this is the file you meant")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_exists_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"first", Existing::Keep, Readers::Owner).unwrap();
        let refused = write(&path, b"second", Existing::Keep, Readers::Owner).unwrap_err();
        assert!(refused.to_string().contains("is not overwritten"));
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn a_failing_writer_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("package.bwp");
        let failed = write_with(&path, Existing::Keep, Readers::Everybody, |sink| {
            sink.write_all(b"half").unwrap();
            Err(Failure::operator("no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_writer_that_is_killed_halfway_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("package.bwp");
        write_with(&path, Existing::Replace, Readers::Everybody, |sink| {
            sink.write_all(b"half").unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
            sink.write_all(b", whole").unwrap();
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"half, whole");
        write(&path, b"other", Existing::Replace, Readers::Everybody).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"other");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_file_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"secret", Existing::Keep, Readers::Owner).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_file_over_its_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        fs::write(&path, [0; 11]).unwrap();
        assert!(
            read(&path, 10)
                .unwrap_err()
                .to_string()
                .contains("larger than")
        );
        assert_eq!(read(&path, 11).unwrap().len(), 11);
    }
}

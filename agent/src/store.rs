//! The state folder: small files that are whole or absent, whatever moment the power goes.
//!
//! A file is written beside its place, flushed, and renamed; the copy it replaces stays as
//! `NAME.prev`. Each carries its own digest, so a torn file is recognised and its previous copy
//! is read instead. Only this module creates files in the state folder, apart from the outbox's
//! records and the package downloads, which use [`Store::write_file`] and [`private_file`].

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bellwether_package::digest::sha256;

/// Longest file kept by [`Store::put`]: a trust root chain is the largest (64 roots of 8 KiB).
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// First bytes of every file: what it is, and its format.
const MAGIC: &[u8; 5] = b"BWST1";
/// How long a lock is waited for. A child that an agent was about to start when it was killed
/// holds the lock until it is a program of its own.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Attempts to read a file that the disk did not give: a cable, a controller that starts anew.
/// What cannot be read after them is taken for lost.
const READ_ATTEMPTS: u32 = 3;
/// Pause between two of them.
const READ_PAUSE: Duration = Duration::from_millis(100);
/// Magic and digest.
const HEADER_BYTES: usize = MAGIC.len() + 32;

/// Why something could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. What was there before is untouched.
    #[error("the disk that holds {} is full: free some space; the agent goes on serving", path.display())]
    DiskFull {
        /// The file that was to be written.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Any other failure of the file system.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Another agent uses the folder.
    #[error("{} is in use by another agent: stop it first", path.display())]
    Locked {
        /// The state folder.
        path: PathBuf,
    },
    /// Neither the file nor its previous copy is whole.
    #[error("{} and its previous copy are both damaged: enrol the device again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Longer than [`FILE_BYTES_MAX`].
    #[error("{} would be longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// Classifies a failure of the file system.
    pub fn io(verb: &'static str, path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            _ => Self::Io { verb, path, source },
        }
    }
}

/// The state folder, held by one process.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Held for its lock alone; `None` when opened for reading.
    _lock: Option<File>,
}

impl Store {
    /// Opens the folder, makes it when it is missing (mode 0700), and takes its lock.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when another agent runs on it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        make_private_folder(folder)?;
        for inner in ["packages", "outbox", "slots"] {
            make_private_folder(&folder.join(inner))?;
        }
        let path = folder.join("lock");
        let lock = private_file(&path)?;
        let until = Instant::now() + LOCK_WAIT;
        loop {
            let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            match rustix::fs::flock(&lock, operation) {
                Ok(()) => {
                    return Ok(Self {
                        folder: folder.to_owned(),
                        _lock: Some(lock),
                    });
                }
                Err(_) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
                Err(_) => {
                    return Err(StoreError::Locked {
                        path: folder.to_owned(),
                    });
                }
            }
        }
    }

    /// Opens the folder to read it beside a running agent.
    pub fn reader(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            _lock: None,
        }
    }

    /// The path of `name` in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Replaces `name` by `payload`; the copy before it stays as the fallback.
    ///
    /// # Errors
    ///
    /// After any error the former content of `name` is what [`Store::load`] returns; only when the
    /// folder alone could not be flushed may it be the new one.
    pub fn put(&self, name: &str, payload: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name);
        if payload.len() > FILE_BYTES_MAX {
            return Err(StoreError::TooLong { path });
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&sha256(payload).0);
        bytes.extend_from_slice(payload);
        // A torn file must not push the good previous copy out.
        if read_whole(&path).is_some() {
            let previous = with_suffix(&path, "prev");
            write_beside(&path, &bytes)?;
            rename(&path, &previous)?;
        } else {
            write_beside(&path, &bytes)?;
        }
        rename(&with_suffix(&path, "tmp"), &path)?;
        sync_folder_of(&path)
    }

    /// As [`Store::put`], for what is written rarely and cannot be done without: both copies are the
    /// new one.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    pub fn put_twice(&self, name: &str, payload: &[u8]) -> Result<(), StoreError> {
        self.put(name, payload)?;
        self.put(name, payload)
    }

    /// The payload kept under `name`, or that of its previous copy when the file is torn or
    /// missing; `None` when there is neither.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] when something is there and none of it is whole.
    pub fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name);
        if let Some(payload) = read_whole(&path) {
            return Ok(Some(payload));
        }
        let previous = with_suffix(&path, "prev");
        if let Some(payload) = read_whole(&previous) {
            tracing::warn!(file = %path.display(), "torn or missing; the previous copy is used");
            return Ok(Some(payload));
        }
        if path.exists() || previous.exists() {
            return Err(StoreError::Damaged { path });
        }
        Ok(None)
    }

    /// Removes `name` and its previous copy.
    ///
    /// # Errors
    ///
    /// When the file system refuses; a missing file is no error.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        remove_file(&with_suffix(&path, "prev"))?;
        remove_file(&path)?;
        sync_folder_of(&path)
    }

    /// Writes `bytes` to `name` as they are, by the same road but without digest and previous
    /// copy: for files that other programs read, such as certificates.
    ///
    /// # Errors
    ///
    /// After any error the former content is untouched.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        write_atomic(&self.path(name), bytes)
    }

    /// Reads a file written by [`Store::write_file`], at most [`FILE_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// When it is there but cannot be read.
    pub fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name);
        match read_bounded(&path, FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path, error)),
        }
    }
}

/// Creates or opens a file for reading and writing, mode 0600.
///
/// # Errors
///
/// [`StoreError`] from the file system.
pub fn private_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| StoreError::io("open", path, error))
}

/// Writes a whole file: beside its place, flushed, renamed, folder flushed.
///
/// # Errors
///
/// After any error the former content is untouched and nothing is left beside it.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_beside(path, bytes)?;
    rename(&with_suffix(path, "tmp"), path)?;
    sync_folder_of(path)
}

/// Removes a file; one that is missing is no error.
///
/// # Errors
///
/// [`StoreError`] from the file system.
pub fn remove_file(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Makes names that were created or removed in the folder of `path` durable.
///
/// # Errors
///
/// [`StoreError`] from the file system.
pub fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes names that were created or removed in `folder` durable.
///
/// # Errors
///
/// [`StoreError`] from the file system.
pub fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|error| StoreError::io("flush", folder, error))
}

fn make_private_folder(folder: &Path) -> Result<(), StoreError> {
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, Permissions::from_mode(0o700)))
        .map_err(|error| StoreError::io("make", folder, error))
}

fn write_beside(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let beside = with_suffix(path, "tmp");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        StoreError::io("write", &beside, error)
    })
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::rename(from, to).map_err(|error| StoreError::io("rename", from, error))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn read_bounded(path: &Path, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    patiently(|| read_once(path, bytes_max))
}

/// Tries again what the disk refused; that there is no such file is an answer.
///
/// # Errors
///
/// The last one.
pub fn patiently<T>(mut read: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    let mut attempt = 1;
    loop {
        match read() {
            Err(error) if attempt < READ_ATTEMPTS && !is_answer(&error) => {
                tracing::warn!(%error, "the disk did not give a file; once more");
                std::thread::sleep(READ_PAUSE * attempt);
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Whether trying again gives the same.
fn is_answer(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::FileTooLarge
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
    )
}

fn read_once(path: &Path, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

fn read_whole(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = read_bounded(path, HEADER_BYTES + FILE_BYTES_MAX).ok()?;
    let (header, payload) = bytes.split_at_checked(HEADER_BYTES)?;
    let whole = header.starts_with(MAGIC) && header[MAGIC.len()..] == sha256(payload).0;
    whole.then(|| bytes.split_off(HEADER_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn what_is_put_is_loaded_and_only_the_owner_reads_it() {
        let (folder, store) = store();
        assert_eq!(store.load("a").unwrap(), None);
        store.put("a", b"one").unwrap();
        store.put("a", b"two").unwrap();
        assert_eq!(store.load("a").unwrap().unwrap(), b"two");
        let mode = |name: &str| {
            std::fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode("a"), 0o600);
        assert_eq!(mode("."), 0o700);
    }

    #[test]
    fn a_file_torn_at_any_byte_falls_back_to_its_previous_copy() {
        let (folder, store) = store();
        store.put("a", b"the old state").unwrap();
        store.put("a", b"the new state").unwrap();
        let path = folder.path().join("a");
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(
                store.load("a").unwrap().unwrap(),
                b"the old state",
                "cut at {length}"
            );
        }
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(
                store.load("a").unwrap().unwrap(),
                b"the old state",
                "byte {byte}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(store.load("a").unwrap().unwrap(), b"the old state");
    }

    #[test]
    fn putting_over_a_torn_file_keeps_the_good_previous_copy() {
        let (folder, store) = store();
        store.put("a", b"old").unwrap();
        store.put("a", b"new").unwrap();
        std::fs::write(folder.path().join("a"), b"torn").unwrap();
        store.put("a", b"newer").unwrap();
        std::fs::write(folder.path().join("a"), b"torn again").unwrap();
        assert_eq!(store.load("a").unwrap().unwrap(), b"old");
    }

    #[test]
    fn a_file_that_was_put_twice_outlives_the_loss_of_either_copy() {
        let (folder, store) = store();
        store.put("a", b"old").unwrap();
        for lost in ["a", "a.prev"] {
            store.put_twice("a", b"new").unwrap();
            std::fs::remove_file(folder.path().join(lost)).unwrap();
            assert_eq!(store.load("a").unwrap().unwrap(), b"new", "without {lost}");
        }
    }

    #[test]
    fn what_the_disk_refuses_for_a_moment_is_read() {
        let mut refusals = READ_ATTEMPTS - 1;
        let read = patiently(|| match refusals {
            0 => Ok("there"),
            _ => {
                refusals -= 1;
                Err(std::io::Error::from_raw_os_error(5))
            }
        });
        assert_eq!(read.unwrap(), "there");
        assert!(patiently(|| Err::<(), _>(std::io::Error::from_raw_os_error(5))).is_err());
    }

    #[test]
    fn both_copies_damaged_is_an_error_and_not_an_empty_start() {
        let (folder, store) = store();
        store.put("a", b"old").unwrap();
        std::fs::write(folder.path().join("a"), b"torn").unwrap();
        assert!(matches!(store.load("a"), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_second_agent_on_the_same_folder_is_refused() {
        let (folder, _store) = store();
        assert!(matches!(
            Store::open(folder.path()),
            Err(StoreError::Locked { .. })
        ));
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        // /dev/full answers every write as a full disk does.
        let error = OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .and_then(|mut file| file.write_all(b"x"))
            .unwrap_err();
        let typed = StoreError::io("write", Path::new("/dev/full"), error);
        assert!(matches!(typed, StoreError::DiskFull { .. }));
    }

    #[test]
    fn a_failed_write_leaves_the_old_state_and_no_partial_file() {
        let (folder, store) = store();
        store.put("a", b"old").unwrap();
        // A folder in the way of the temporary file makes the write fail even for root.
        std::fs::create_dir(folder.path().join("a.tmp")).unwrap();
        assert!(store.put("a", b"new").is_err());
        assert_eq!(store.load("a").unwrap().unwrap(), b"old");
    }
}

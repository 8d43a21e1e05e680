//! Packages on disk: downloads that resume and verify as they come, and what is removed.
//!
//! The package reader hashes the same bytes that go to the disk, chunk by chunk, and stops at
//! the first that is wrong; a resumed download is read again from its first byte. So a file named
//! `.bwp` was whole when it was written, and a `.part` is only ever a beginning.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bellwether_package::PackageId;
use bellwether_package::approval::{APPROVALS_MAX, SIGNED_APPROVAL_BYTES_MAX};
use bellwether_package::read::NoBlobs;
use bellwether_package::std_io;
use bellwether_protocol::Refusal;

use crate::config::Limits;
use crate::health;
use crate::remote::{Remote, RemoteError};
use crate::store::{StoreError, private_file, remove_file, sync_folder_of};
use crate::trust::unreadable;

/// The folder of packages in the state folder.
pub const FOLDER: &str = "packages";
/// Approvals may be added to a package after it was assigned: its length may differ by so much.
const APPROVALS_BYTES_MAX: u64 = (APPROVALS_MAX * (SIGNED_APPROVAL_BYTES_MAX + 2)) as u64;

/// Why a package is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It was ordered away meanwhile. What came is removed by the next sweep.
    #[error("the download was called off")]
    Cancelled,
    /// The server cannot be reached, or the connection broke. What came stays, to be resumed.
    #[error("the download broke off")]
    Broken(#[source] std::io::Error),
    /// The server did not begin to answer.
    #[error("the download did not begin")]
    Remote(#[from] RemoteError),
    /// The file on the server changed while it was resumed; what came is removed.
    #[error("the resumed download does not fit what was there: it starts anew")]
    Changed,
    /// The disk.
    #[error("cannot write the download")]
    Store(#[from] StoreError),
    /// The package itself is refused. Nothing of it is left.
    #[error("the package is refused: {0}")]
    Refused(Refusal),
}

/// Where the whole package lies.
pub fn path(folder: &Path, release: PackageId) -> PathBuf {
    folder.join(format!("{release}.bwp"))
}

fn part(folder: &Path, release: PackageId) -> PathBuf {
    folder.join(format!("{release}.part"))
}

/// Downloads a package to `folder`, resuming what is there.
///
/// # Errors
///
/// [`FetchError`]; after [`FetchError::Refused`] nothing of the package is left on disk.
pub fn fetch(
    remote: &Remote,
    folder: &Path,
    release: PackageId,
    length: u64,
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<(), FetchError> {
    let whole = path(folder, release);
    if whole.exists() {
        return Ok(());
    }
    let bytes_max = limits.package_bytes_max;
    if length > bytes_max {
        return Err(FetchError::Refused(Refusal::TooLarge {
            bytes: length,
            bytes_max,
        }));
    }
    let part = part(folder, release);
    let result = download(remote, &part, folder, release, length, limits, cancelled);
    match &result {
        Ok(()) => {
            std::fs::rename(&part, &whole)
                .map_err(|error| StoreError::io("rename", &part, error))?;
            sync_folder_of(&whole)?;
        }
        Err(FetchError::Refused(_) | FetchError::Changed | FetchError::Store(_)) => {
            remove_file(&part)?;
        }
        Err(_) => {}
    }
    result
}

fn download(
    remote: &Remote,
    part: &Path,
    folder: &Path,
    release: PackageId,
    length: u64,
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<(), FetchError> {
    let mut file = private_file(part)?;
    let io = |error| FetchError::from(StoreError::io("read", part, error));
    let mut have = file.seek(SeekFrom::End(0)).map_err(io)?;
    if have >= length {
        // A part is shorter than the whole: this one is none.
        file.set_len(0).map_err(io)?;
        have = 0;
    }
    let bytes = length - have;
    if let Some((bytes_free, _)) = health::storage(folder)
        && bytes_free < bytes.saturating_add(limits.disk_bytes_free_min)
    {
        return Err(FetchError::Refused(Refusal::NoSpace { bytes, bytes_free }));
    }
    let content = match remote.content(&format!("/v1/packages/{release}/content"), have) {
        // The file on the server is shorter than what was resumed.
        Err(RemoteError::Refused { status: 416, .. }) => return Err(FetchError::Changed),
        other => other?,
    };
    if content.from < have {
        file.set_len(content.from).map_err(io)?;
        have = content.from;
    }
    if content
        .whole_bytes
        .is_some_and(|whole| whole.abs_diff(length) > APPROVALS_BYTES_MAX)
    {
        return Err(refused(have, Refusal::Damaged));
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut tee = Tee {
        kept: have,
        room: length.saturating_add(APPROVALS_BYTES_MAX) - have,
        missing: content.whole_bytes.map(|whole| whole.saturating_sub(have)),
        body: content.body,
        file,
        cancelled,
        failure: None,
    };
    let read = read_through(&mut tee, release);
    if let Some(failure) = tee.failure.take() {
        return Err(failure.into_error(part, length, folder, cancelled));
    }
    read.map_err(|why| refused(have, why))?;
    tee.file
        .sync_all()
        .map_err(|error| StoreError::io("write", part, error))?;
    Ok(())
}

/// Bytes that were there before may be of another time; then the whole is asked for anew.
fn refused(resumed_at: u64, why: Refusal) -> FetchError {
    if resumed_at > 0 {
        FetchError::Changed
    } else {
        FetchError::Refused(why)
    }
}

/// Gives first what the file holds, then the body, which it writes to the file.
struct Tee<'a> {
    /// Bytes of the file that were not given yet.
    kept: u64,
    /// Bytes of the body that may still be written.
    room: u64,
    /// Bytes of the body that are still to come, if the server told.
    missing: Option<u64>,
    body: Box<dyn Read + Send>,
    file: File,
    cancelled: &'a AtomicBool,
    failure: Option<Failure>,
}

#[derive(Debug)]
enum Failure {
    Body(std::io::Error),
    File(std::io::Error),
    TooLong,
}

impl Failure {
    fn into_error(
        self,
        part: &Path,
        length: u64,
        folder: &Path,
        cancelled: &AtomicBool,
    ) -> FetchError {
        match self {
            _ if cancelled.load(Ordering::Relaxed) => FetchError::Cancelled,
            Self::Body(error) => FetchError::Broken(error),
            Self::TooLong => FetchError::Refused(Refusal::Damaged),
            Self::File(error) => match StoreError::io("write", part, error) {
                StoreError::DiskFull { .. } => {
                    let bytes_free = health::storage(folder).map_or(0, |(free, _)| free);
                    FetchError::Refused(Refusal::NoSpace {
                        bytes: length,
                        bytes_free,
                    })
                }
                error => error.into(),
            },
        }
    }
}

impl Tee<'_> {
    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Failure::Body(std::io::ErrorKind::Interrupted.into()));
        }
        if self.kept > 0 {
            let room = buffer
                .len()
                .min(usize::try_from(self.kept).unwrap_or(usize::MAX));
            let n = self.file.read(&mut buffer[..room]).map_err(Failure::File)?;
            if n == 0 {
                return Err(Failure::File(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.kept -= n as u64;
            return Ok(n);
        }
        let n = self.body.read(buffer).map_err(Failure::Body)?;
        if n == 0 && self.missing.is_some_and(|missing| missing > 0) {
            return Err(Failure::Body(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.missing = self.missing.map(|missing| missing.saturating_sub(n as u64));
        // The disk is ours to spare, whatever lengths the manifest claims.
        self.room = self.room.checked_sub(n as u64).ok_or(Failure::TooLong)?;
        self.file.write_all(&buffer[..n]).map_err(Failure::File)?;
        Ok(n)
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(|failure| {
            self.failure = Some(failure);
            // Interrupted would be read again.
            std::io::ErrorKind::BrokenPipe.into()
        })
    }
}

/// Reads a package through the reader, which checks every byte and keeps none.
fn read_through(tee: &mut Tee<'_>, release: PackageId) -> Result<(), Refusal> {
    let refused = |error| unreadable(&error);
    let header = std_io::read_header(&mut *tee).map_err(refused)?;
    if header.id() != release {
        return Err(Refusal::OtherPackage);
    }
    std_io::read_sections(header, &mut *tee, NoBlobs).map_err(refused)?;
    Ok(())
}

/// Removes every file in `folder` that belongs to none of the `kept` releases.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn sweep(folder: &Path, kept: &[PackageId]) -> Result<(), StoreError> {
    let io = |error| StoreError::io("read", folder, error);
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let stem = name.split('.').next().unwrap_or_default();
        if !kept.iter().any(|release| release.to_string() == stem) {
            tracing::info!(file = %name, "package removed");
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

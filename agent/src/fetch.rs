//! Packages on disk: downloads that resume and verify as they come, and what is removed.
//!
//! The package reader hashes the same bytes that go to the disk, chunk by chunk, and stops at
//! the first that is wrong; a resumed download is read again from its first byte. So a file named
//! `.bwp` was whole when it was written, and a `.part` is only ever a beginning. Pieces that lie in
//! other packages on this disk are copied from there, and checked like all others.

mod pace;
mod shelf;
mod source;

use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

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

use pace::Pace;
use shelf::Shelf;
use source::{Failure, Source, Tally};

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
    /// What was resumed, or copied from other packages, does not fit the server's file; what came is
    /// removed.
    #[error("the download does not fit what was there: it starts anew")]
    Changed,
    /// The disk.
    #[error("cannot write the download")]
    Store(#[from] StoreError),
    /// There is too little room for it. Nothing of it is left.
    #[error("the package needs {bytes} bytes, and {bytes_free} are free for it")]
    NoSpace {
        /// Bytes needed.
        bytes: u64,
        /// Bytes that it may take.
        bytes_free: u64,
    },
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

/// Downloads a package to `folder`, resuming what is there, and copying what other packages have.
///
/// # Errors
///
/// [`FetchError`]; after [`FetchError::Refused`] and [`FetchError::NoSpace`] nothing of the package
/// is left on disk.
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
        // Its name may not have been made to last when it came.
        return Ok(sync_folder_of(&whole)?);
    }
    let bytes_max = limits.package_bytes_max;
    if length > bytes_max {
        return Err(FetchError::Refused(Refusal::TooLarge {
            bytes: length,
            bytes_max,
        }));
    }
    let download = Download {
        remote,
        folder,
        part: part(folder, release),
        release,
        length,
        limits,
        cancelled,
    };
    let mut result = download.run(&Shelf::of(folder, release));
    if matches!(result, Err(FetchError::Changed)) {
        // What was patched together does not fit. Once more, from the first byte and from one place.
        remove_file(&download.part)?;
        result = download.run(&Shelf::default());
    }
    match &result {
        Ok(tally) => {
            let Tally {
                bytes_fetched,
                bytes_copied,
                requests,
            } = tally;
            tracing::info!(
                release = %release.short(), bytes_fetched, bytes_copied, requests, "package fetched"
            );
            std::fs::rename(&download.part, &whole)
                .map_err(|error| StoreError::io("rename", &download.part, error))?;
            sync_folder_of(&whole)?;
        }
        Err(
            FetchError::Refused(_)
            | FetchError::NoSpace { .. }
            | FetchError::Changed
            | FetchError::Store(_),
        ) => {
            remove_file(&download.part)?;
        }
        Err(_) => {}
    }
    result.map(|_| ())
}

/// One package that is asked for.
struct Download<'a> {
    remote: &'a Remote,
    folder: &'a Path,
    part: PathBuf,
    release: PackageId,
    length: u64,
    limits: &'a Limits,
    cancelled: &'a AtomicBool,
}

impl Download<'_> {
    fn run(&self, shelf: &Shelf) -> Result<Tally, FetchError> {
        let mut file = private_file(&self.part)?;
        let io = |error| FetchError::from(StoreError::io("read", &self.part, error));
        let mut kept = file.seek(SeekFrom::End(0)).map_err(io)?;
        if kept >= self.length {
            // A part is shorter than the whole: this one is none.
            file.set_len(0).map_err(io)?;
            kept = 0;
        }
        self.has_space(self.length - kept)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut source = Source {
            remote: self.remote,
            path: format!("/v1/packages/{}/content", self.release),
            shelf,
            pace: Pace::new(self.limits.download_bytes_per_sec),
            cancelled: self.cancelled,
            file,
            length: self.length,
            kept,
            whole: None,
            at: 0,
            pieces: Vec::new(),
            infos: Vec::new(),
            header: None,
            body: None,
            copy: None,
            tally: Tally::default(),
            failure: None,
        };
        let read = read_through(&mut source, self.release);
        if let Some(failure) = source.failure.take() {
            return Err(self.error(failure, source.is_patched()));
        }
        read.map_err(|why| refused(source.is_patched(), why))?;
        source
            .file
            .sync_all()
            .map_err(|error| self.file_error(error))?;
        Ok(source.tally)
    }

    /// Asked before the first byte: on the disk, and within what packages may take of it.
    fn has_space(&self, bytes: u64) -> Result<(), FetchError> {
        let taken = taken(self.folder, &self.part)?;
        let quota = self.limits.disk_bytes_max;
        let within = quota.saturating_sub(taken);
        let on_disk = health::storage(self.folder)
            .map(|(free, _)| free.saturating_sub(self.limits.disk_bytes_free_min));
        let bytes_free = on_disk.map_or(within, |free| free.min(within));
        if bytes_free < bytes {
            return Err(FetchError::NoSpace { bytes, bytes_free });
        }
        Ok(())
    }

    fn error(&self, failure: Failure, patched: bool) -> FetchError {
        match failure {
            Failure::Cancelled => FetchError::Cancelled,
            Failure::Body(error) => FetchError::Broken(error),
            Failure::Remote(error) => match error {
                RemoteError::Refused { status, .. } if !error.is_temporary() => {
                    FetchError::Refused(Refusal::NotOffered { status })
                }
                error => error.into(),
            },
            Failure::Length => refused(patched, Refusal::Damaged),
            Failure::Changed => FetchError::Changed,
            Failure::File(error) => self.file_error(error),
        }
    }

    fn file_error(&self, error: std::io::Error) -> FetchError {
        match StoreError::io("write", &self.part, error) {
            StoreError::DiskFull { .. } => FetchError::NoSpace {
                bytes: self.length,
                bytes_free: health::storage(self.folder).map_or(0, |(free, _)| free),
            },
            error => error.into(),
        }
    }
}

/// Bytes that packages take, those of `part` apart.
fn taken(folder: &Path, part: &Path) -> Result<u64, StoreError> {
    let io = |error| StoreError::io("read", folder, error);
    let mut bytes = 0_u64;
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.path() != part {
            bytes = bytes.saturating_add(entry.metadata().map_or(0, |it| it.len()));
        }
    }
    Ok(bytes)
}

/// Bytes that were patched together may be wrong though the package is right.
fn refused(patched: bool, why: Refusal) -> FetchError {
    if patched {
        FetchError::Changed
    } else {
        FetchError::Refused(why)
    }
}

/// Reads a package through the reader, which checks every byte and keeps none.
fn read_through(source: &mut Source<'_>, release: PackageId) -> Result<(), Refusal> {
    let refused = |error| unreadable(&error);
    let header = std_io::read_header(&mut *source).map_err(refused)?;
    if header.id() != release {
        return Err(Refusal::OtherPackage);
    }
    source.expect(&header);
    std_io::read_sections(header, &mut *source, NoBlobs).map_err(refused)?;
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
        if kept.iter().any(|release| release.to_string() == stem) {
            continue;
        }
        match remove_file(&entry.path()) {
            Ok(()) => tracing::info!(file = %name, "package removed"),
            // The next sweep meets it again; the others may go.
            Err(error) => tracing::warn!(file = %name, %error, "a package stays"),
        }
    }
    Ok(())
}

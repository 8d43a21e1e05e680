//! Package files: read once, hashed and checked as they are read; approvals appended in one step.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::Path;

use bellwether_package::std_io::{self, FromStd, StdReadError};
use bellwether_package::write::replace_approvals;
use bellwether_package::{IntactPackage, PackageId};
use bellwether_runtime::{BlobSealer, SealedBlob};

use crate::failure::{Failure, Result, Who};
use crate::files::{self, Existing, Readers};

/// A package whose bytes were all checked, with its model in sealed memory.
pub(crate) struct Opened {
    pub(crate) package: IntactPackage,
    pub(crate) blob: SealedBlob,
    /// The very file that was read: what is appended to it goes to the same bytes.
    file: File,
}

/// Reads and checks a package; its ONNX model goes to sealed memory.
///
/// # Errors
/// When it can't be read, is damaged, or its sections don't belong together.
pub(crate) fn open(path: &Path) -> Result<Opened> {
    let file = files::open(path)?;
    let (package, blob) = read(path, &file)?;
    Ok(Opened {
        package,
        blob,
        file,
    })
}

/// Reads and checks a package from a file that is open already.
///
/// # Errors
/// As [`open`].
pub(crate) fn read(path: &Path, file: &File) -> Result<(IntactPackage, SealedBlob)> {
    let mut sealer = BlobSealer::new().map_err(no_memory)?;
    let package =
        std_io::read(BufReader::new(file), &mut sealer).map_err(|error| damaged(path, error))?;
    let blob = sealer.seal().map_err(no_memory)?;
    Ok((package, blob))
}

/// The id of the package at `path`, from its header alone.
///
/// # Errors
/// When it can't be read, or is no package.
pub(crate) fn id(path: &Path) -> Result<PackageId> {
    std_io::read_header(BufReader::new(files::open(path)?))
        .map(|header| header.id())
        .map_err(|error| damaged(path, error))
}

impl Opened {
    /// The same file's model once more, for a run that keeps the first for itself.
    ///
    /// # Errors
    /// When the file changed since it was read.
    pub(crate) fn blob_again(&self, path: &Path) -> Result<SealedBlob> {
        let mut file = &self.file;
        file.rewind()
            .map_err(|error| Failure::io("read", path, error))?;
        let (package, blob) = read(path, file)?;
        if package.id() == self.package.id() {
            Ok(blob)
        } else {
            Err(changed(path))
        }
    }

    /// Gives the file these approvals instead of those it has; nothing else changes.
    ///
    /// # Errors
    /// When the file changed since it was read, or the disk refuses: then nothing changed.
    pub(crate) fn replace_approvals(&self, path: &Path, approvals: Vec<Vec<u8>>) -> Result<()> {
        let mut source = &self.file;
        source
            .rewind()
            .map_err(|error| Failure::io("read", path, error))?;
        files::write_with(path, Existing::Replace, Readers::Everybody, |target| {
            let mut source = FromStd::new(BufReader::new(source));
            let mut target = FromStd::new(io::BufWriter::new(target));
            let copied = replace_approvals(&mut source, &mut target, approvals);
            let cause = source.take_failure().or_else(|| target.take_failure());
            let id = copied.map_err(|error| match cause {
                Some(cause) => Failure::io("write", path, cause),
                None => Failure::new(Who::Machine, format!("can't rewrite {}", path.display()))
                    .next("the package is unchanged; check the file and run it again")
                    .because(error),
            })?;
            if id != self.package.id() {
                return Err(changed(path));
            }
            Ok(())
        })
    }
}

fn damaged(path: &Path, error: StdReadError) -> Failure {
    match error {
        StdReadError::Source(error) => Failure::io("read", path, error),
        StdReadError::Package(error) => Failure::new(
            Who::Package,
            format!("{} is not an intact package", path.display()),
        )
        .next("get it again from where it was packed")
        .because(error),
    }
}

fn changed(path: &Path) -> Failure {
    Failure::new(
        Who::Machine,
        format!("{} changed while it was being read", path.display()),
    )
    .next("find out who writes to it; nothing was signed")
}

fn no_memory(error: io::Error) -> Failure {
    Failure::new(Who::Machine, "there is no memory for the model")
        .next("free some memory, then run it again")
        .because(error)
}

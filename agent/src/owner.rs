//! Whose the state folder is.
//!
//! A service runs as a user of its own, and a person enrols the device as root. What root writes
//! the service cannot read, so whoever is root hands over to the folder's owner first.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{geteuid, getuid};

use crate::enrol::STANDARD_INPUT;

/// The user to whom a state folder belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

/// Somebody else than the folder's owner is about to write there.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} belongs to user {}, who could not read what root writes there: start the agent as that user, \
     as its systemd unit does",
    folder.display(), owner.uid
)]
pub struct NotRoots {
    folder: PathBuf,
    owner: Owner,
}

impl Owner {
    /// The owner of `folder`, if it is another than this process, which is root.
    pub fn other_than_root(folder: &Path) -> Option<Self> {
        if !geteuid().is_root() || !getuid().is_root() {
            return None;
        }
        let metadata = std::fs::metadata(folder).ok()?;
        let owner = Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
        };
        (owner.uid != 0).then_some(owner)
    }

    /// This program, to be run as the owner with none of root's groups, and with what is in `claim`
    /// as its standard input: only root may be able to read that file.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or this program not be found.
    pub fn command(self, claim: &Path) -> std::io::Result<Command> {
        let claim = if claim == Path::new(STANDARD_INPUT) {
            Stdio::inherit()
        } else {
            std::fs::File::open(claim)?.into()
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.stdin(claim).uid(self.uid).gid(self.gid);
        Ok(command)
    }
}

/// Refuses to write as root to a folder that belongs to another.
///
/// # Errors
///
/// [`NotRoots`].
pub fn check(folder: &Path) -> Result<(), NotRoots> {
    match Owner::other_than_root(folder) {
        None => Ok(()),
        Some(owner) => Err(NotRoots {
            folder: folder.to_owned(),
            owner,
        }),
    }
}

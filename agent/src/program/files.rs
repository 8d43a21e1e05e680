//! Executables on disk: taken from a verified package, and compared with what was signed each time
//! before they run.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bellwether_package::digest::Hasher;
use bellwether_package::sections::Executable;
use bellwether_package::{Digest, PackageId, SectionKind, SlotName, VerifiedPackage, pieces};
use bellwether_protocol::Refusal;

use super::record::Program;
use crate::agent::with_a_good_disk;
use crate::config::Config;
use crate::fetch;
use crate::health;
use crate::store::{StoreError, remove_file, sync_folder_of};
use crate::trust::Trust;

/// The folder of programs in the state folder.
const FOLDER: &str = "programs";
/// The machine that this agent was built for, as Rust names it.
const TARGET: &str = env!("BELLWETHER_TARGET");
/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// Owner, group and others may run it; that only the owner may enter the folder is the folder's.
const MODE: u32 = 0o755;

/// Why a release's programs cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unready {
    /// The package is refused.
    Refused(Refusal),
    /// There is too little space for them.
    NoSpace { bytes: u64, bytes_free: u64 },
}

impl Program {
    /// Where the agent lies.
    pub(crate) fn agent_path(&self, state_dir: &Path) -> PathBuf {
        agent_path(state_dir, self.release)
    }

    /// Whether both files are those that were signed.
    pub(crate) fn is_intact(&self, state_dir: &Path) -> bool {
        let is = |path: &Path, signed| {
            let found = digest_of(path);
            found.is_ok_and(|found| found == signed)
        };
        is(&self.agent_path(state_dir), self.agent)
            && is(&worker_path(state_dir, self.release), self.worker)
    }
}

/// Where the agent of a release lies.
pub(super) fn agent_path(state_dir: &Path, release: PackageId) -> PathBuf {
    folder(state_dir, release).join("bellwether-agent")
}

/// Where the worker of a release lies.
pub(super) fn worker_path(state_dir: &Path, release: PackageId) -> PathBuf {
    folder(state_dir, release).join("bellwether-worker")
}

fn folder(state_dir: &Path, release: PackageId) -> PathBuf {
    state_dir.join(FOLDER).join(release.to_string())
}

/// Verifies a package of programs, for good the first time and later as what was installed, and
/// puts those for this machine on disk unless they are there already. Blocking.
///
/// # Errors
///
/// [`Unready`].
pub(crate) fn verified(
    slot: &SlotName,
    release: PackageId,
    trust: &Trust,
    config: &Config,
) -> Result<Program, Unready> {
    let path = fetch::path(&config.state_dir.join(fetch::FOLDER), release);
    let now = crate::clock::now();
    let attributes = config.attributes();
    let verified = with_a_good_disk(|| trust.verify_new(&path, release, slot, &attributes, now));
    let (verified, _) = verified.map_err(|unverified| match unverified.refusal() {
        Refusal::NoSpace { bytes, bytes_free } => Unready::NoSpace { bytes, bytes_free },
        why => Unready::Refused(why),
    })?;
    let program = described(&verified)?;
    if !program.is_intact(&config.state_dir) {
        unpack(&path, &verified, config)?;
    }
    Ok(program)
}

/// The programs for this machine.
fn described(verified: &VerifiedPackage) -> Result<Program, Unready> {
    let info = verified.package().program();
    let target = info.and_then(|info| info.target(TARGET));
    let (target, _) = target.ok_or(Unready::Refused(Refusal::NoVariant))?;
    Ok(Program {
        release: verified.id(),
        agent: target.agent.digest,
        worker: target.worker.digest,
    })
}

fn unpack(package: &Path, verified: &VerifiedPackage, config: &Config) -> Result<(), Unready> {
    let header = verified.package().header();
    let place = pieces::section_place(header, SectionKind::ProgramBlob);
    let info = verified.package().program();
    let target = info.and_then(|info| info.target(TARGET));
    let (Some((blob, _)), Some((target, begins))) = (place, target) else {
        return Err(Unready::Refused(Refusal::NoVariant));
    };
    has_space(target.bytes(), config)?;
    let (release, state_dir) = (verified.id(), &config.state_dir);
    let first = blob + begins;
    let second = first + target.worker.length;
    let unpacked = make_folders(state_dir, release)
        .and_then(|()| {
            extract(
                package,
                first,
                target.worker,
                &worker_path(state_dir, release),
            )
        })
        .and_then(|()| {
            extract(
                package,
                second,
                target.agent,
                &agent_path(state_dir, release),
            )
        });
    unpacked.map_err(|error| {
        tracing::error!(%error, "the new programs cannot be put on disk");
        match error {
            StoreError::DiskFull { .. } => Unready::NoSpace {
                bytes: target.bytes(),
                bytes_free: health::storage(state_dir).map_or(0, |(free, _)| free),
            },
            StoreError::Damaged { .. } => Unready::Refused(Refusal::Damaged),
            _ => Unready::Refused(Refusal::Other),
        }
    })
}

fn has_space(bytes: u64, config: &Config) -> Result<(), Unready> {
    let Some((free, _)) = health::storage(&config.state_dir) else {
        return Ok(());
    };
    let bytes_free = free.saturating_sub(config.limits.disk_bytes_free_min);
    if bytes_free < bytes {
        return Err(Unready::NoSpace { bytes, bytes_free });
    }
    Ok(())
}

fn make_folders(state_dir: &Path, release: PackageId) -> Result<(), StoreError> {
    let folder = folder(state_dir, release);
    std::fs::create_dir_all(&folder).map_err(|error| StoreError::io("make", &folder, error))?;
    sync_folder_of(&folder)?;
    sync_folder_of(&state_dir.join(FOLDER))
}

/// Copies one executable out of a package, beside its place first. What is written is what is
/// hashed.
fn extract(package: &Path, begins: u64, signed: Executable, path: &Path) -> Result<(), StoreError> {
    let part = path.with_extension("part");
    // One that runs, or that somebody holds open, is not written to.
    remove_file(&part)?;
    let io = |error| StoreError::io("write", &part, error);
    let mut source = File::open(package).map_err(|error| StoreError::io("open", package, error))?;
    source.seek(SeekFrom::Start(begins)).map_err(io)?;
    let mut source = BufReader::with_capacity(READ_BYTES, source).take(signed.length);
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&part)
        .map_err(io)?;
    let copied = hash(&mut source, |bytes| target.write_all(bytes));
    let copied = copied.and_then(|found| target.sync_all().map(|()| found));
    drop(target);
    let kept = match copied {
        Ok(found) if found == signed.digest => {
            std::fs::rename(&part, path).map_err(|error| StoreError::io("rename", &part, error))
        }
        Ok(_) => Err(StoreError::Damaged {
            path: path.to_owned(),
        }),
        Err(error) => Err(io(error)),
    };
    if kept.is_err() {
        remove_file(&part)?;
    }
    kept.and_then(|()| sync_folder_of(path))
}

fn digest_of(path: &Path) -> std::io::Result<Digest> {
    hash(&mut File::open(path)?, |_| Ok(()))
}

fn hash(
    source: &mut impl Read,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        each(&buffer[..count])?;
    }
}

/// Removes the programs of every release that is not among `kept`.
///
/// # Errors
///
/// [`StoreError`] from the file system.
pub(crate) fn sweep(state_dir: &Path, kept: &[PackageId]) -> Result<(), StoreError> {
    let folder = state_dir.join(FOLDER);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("read", &folder, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| StoreError::io("read", &folder, error))?;
        let name = entry.file_name();
        if !kept.iter().any(|release| *release.to_string() == *name) {
            tracing::info!(release = %name.to_string_lossy(), "programs removed");
            let path = entry.path();
            std::fs::remove_dir_all(&path)
                .map_err(|error| StoreError::io("remove", &path, error))?;
        }
    }
    Ok(())
}

//! Trust root and revocations on disk, their renewal, and the verification of package files.
//!
//! A device records under which version of the root, and when, it verified a release for a slot.
//! Later rotation or expiry blocks new installs, never what was installed; only the revocation
//! list takes that away.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use bellwether_package::chain::CHAIN_BYTES_MAX;
use bellwether_package::document::DocumentError;
use bellwether_package::revocations::{RevocationsError, SIGNED_REVOCATIONS_BYTES_MAX};
use bellwether_package::root::RootError;
use bellwether_package::std_io::{self, StdReadError};
use bellwether_package::{
    Attribute, Digest, IntactPackage, PackageId, PublicKey, ReadError, Revocations, RootChain,
    RootId, SlotName, TrustRoot, UnixSecs, VerifiedPackage, Verifier,
};
use bellwether_protocol::Refusal;
use bellwether_runtime::{BlobSealer, SealedBlob};
use serde::{Deserialize, Serialize};

use crate::causes::with_causes;
use crate::remote::Remote;
use crate::store::{Store, StoreError, patiently, write_atomic};

/// The file in the state folder.
const FILE: &str = "trust";
/// Bytes of a package that are read from disk at once.
const READ_BYTES: usize = 64 * 1024;

/// What the device trusts.
#[derive(Debug, Clone)]
pub struct Trust {
    pin: Digest,
    chain_file: Vec<u8>,
    chain: RootChain,
    revocations_file: Option<Vec<u8>>,
    revocations: Option<Revocations>,
}

/// Why there is no trust root to use.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The chain is refused. At enrolment the server, or the fingerprint, is wrong.
    #[error("the trust root is not the one whose fingerprint was given")]
    Root(#[from] RootError),
    /// The disk.
    #[error("cannot keep or read the trust root")]
    Store(#[from] StoreError),
    /// The device has none.
    #[error("the device has no trust root: enrol it first")]
    Missing,
    /// What is on disk cannot be read.
    #[error("the trust root on disk is damaged: enrol the device again")]
    Damaged,
}

/// Why a package on disk may not be run.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// It is at fault.
    #[error("{0}")]
    Refused(Refusal),
    /// The disk did not give it, or did not take what was found. It may be good all the same.
    #[error("the disk fails over a package")]
    Disk(#[source] std::io::Error),
}

impl From<Refusal> for Unverified {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Unverified {
    /// What is told of it when there is no more patience: what cannot be read is damaged.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => *refusal,
            Self::Disk(_) => Refusal::Damaged,
        }
    }
}

/// How the documents lie on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    pin: Digest,
    chain: Vec<u8>,
    revocations: Option<Vec<u8>>,
}

/// Under which version of the root a release was verified for a slot.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Installed {
    root_version: u32,
}

impl Trust {
    /// Verifies a chain from the pinned fingerprint on and keeps it.
    ///
    /// # Errors
    ///
    /// [`TrustError::Root`] when the chain does not hold the pinned root, or breaks after it.
    pub fn start(store: &Store, chain_file: &[u8], pin: Digest) -> Result<(), TrustError> {
        let chain = RootChain::verify(chain_file, &pin)?;
        let chain_file = chain_file.to_vec();
        let trust = Self {
            pin,
            chain_file,
            chain,
            revocations_file: None,
            revocations: None,
        };
        trust.save(store)?;
        Ok(())
    }

    /// Reads and verifies anew what was kept.
    ///
    /// # Errors
    ///
    /// [`TrustError`].
    pub fn load(store: &Store) -> Result<Self, TrustError> {
        let bytes = store.load(FILE)?.ok_or(TrustError::Missing)?;
        let kept: Kept = postcard::from_bytes(&bytes).map_err(|_| TrustError::Damaged)?;
        let chain = RootChain::verify(&kept.chain, &kept.pin)?;
        let revocations = kept
            .revocations
            .as_deref()
            .and_then(|file| under_any(file, &chain));
        Ok(Self {
            pin: kept.pin,
            chain_file: kept.chain,
            chain,
            revocations_file: kept.revocations,
            revocations,
        })
    }

    /// Keeps the documents.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what was kept before stays.
    pub fn save(&self, store: &Store) -> Result<(), StoreError> {
        let kept = Kept {
            pin: self.pin,
            chain: self.chain_file.clone(),
            revocations: self.revocations_file.clone(),
        };
        store.put_twice(FILE, &postcard::to_stdvec(&kept).expect("plain fields"))
    }

    /// The trust root's id, which stays through rotations.
    pub fn root_id(&self) -> RootId {
        self.chain.id()
    }

    /// Version of the root in force.
    pub fn root_version(&self) -> u32 {
        self.chain.latest().version()
    }

    /// Who may sign assignments.
    pub fn directors(&self) -> &[PublicKey] {
        self.chain.latest().director_keys()
    }

    /// When the root in force expires.
    pub fn expires(&self) -> UnixSecs {
        self.chain.latest().expires()
    }

    /// Version of the revocation list.
    pub fn revocations_version(&self) -> Option<u64> {
        self.revocations.as_ref().map(Revocations::version)
    }

    /// Asks the server for newer documents; `None` when it has none, or cannot be reached.
    /// Blocking.
    pub fn renewed(&self, remote: &Remote) -> Option<Self> {
        let mut next = self.clone();
        let mut newer = false;
        match remote.get("/v1/trust-root", CHAIN_BYTES_MAX as u64) {
            Ok(Some(file)) => match next.take_chain(file) {
                Ok(taken) => newer |= taken,
                Err(error) => tracing::warn!(%error, "the server's trust root is ignored"),
            },
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "no trust root from the server"),
        }
        match remote.get("/v1/revocations", SIGNED_REVOCATIONS_BYTES_MAX as u64) {
            Ok(Some(file)) => match next.take_revocations(file) {
                Ok(taken) => newer |= taken,
                Err(error) => tracing::warn!(%error, "the server's revocation list is ignored"),
            },
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "no revocation list from the server"),
        }
        newer.then_some(next)
    }

    /// Takes a chain that goes on from the root in force; says whether it is newer.
    fn take_chain(&mut self, file: Vec<u8>) -> Result<bool, RootError> {
        let chain = RootChain::verify(&file, &self.pin)?;
        let (held, found) = (self.chain.latest(), chain.latest());
        let goes_on = chain
            .version(held.version())
            .is_some_and(|it| it.fingerprint() == held.fingerprint());
        if !goes_on || found.version() <= held.version() {
            return Ok(false);
        }
        self.chain = chain;
        self.chain_file = file;
        if let Some(file) = &self.revocations_file {
            // Under the new root if it can be, else as it was verified before.
            self.revocations = under_any(file, &self.chain);
        }
        Ok(true)
    }

    /// Takes a revocation list that is not older than the one held; says whether it is newer.
    fn take_revocations(&mut self, file: Vec<u8>) -> Result<bool, RevocationsError> {
        let root = self.chain.latest();
        let next = match &self.revocations {
            Some(held) => held.replace(&file, root)?,
            None => Revocations::verify(&file, root)?,
        };
        let newer = self.revocations.as_ref() != Some(&next);
        self.revocations = Some(next);
        self.revocations_file = Some(file);
        Ok(newer)
    }

    /// Verifies a package on disk for a slot that does not have it yet, by what is in force now,
    /// and records that it was. A package that is recorded for the slot was installed before, and
    /// is only held against the revocation list.
    ///
    /// # Errors
    ///
    /// [`Unverified`].
    pub fn verify_new(
        &self,
        path: &Path,
        release: PackageId,
        slot: &SlotName,
        attributes: &[Attribute],
        now: UnixSecs,
    ) -> Result<(VerifiedPackage, SealedBlob), Unverified> {
        if installed(path, slot).is_some() {
            return self.verify_installed(path, release, slot, attributes);
        }
        let (package, blob) = read_intact(path, release)?;
        let verifier = self.verifier(self.chain.latest(), slot, attributes, Some(now))?;
        let verified = verifier.verify_for_install(package).map_err(refusal)?;
        let record = Installed {
            root_version: verified.root_version(),
        };
        let bytes = postcard::to_stdvec(&record).expect("one number");
        write_atomic(&record_path(path, slot), &bytes).map_err(|error| {
            tracing::error!(%error, "cannot record the verification");
            match error {
                StoreError::DiskFull { .. } => Unverified::from(Refusal::NoSpace {
                    bytes: 1,
                    bytes_free: 0,
                }),
                StoreError::Io { source, .. } => Unverified::Disk(source),
                _ => Refusal::Other.into(),
            }
        })?;
        Ok((verified, blob))
    }

    /// Verifies a package that was verified for this slot before: every byte, its approvals under
    /// the root of that time, and the revocation list in force.
    ///
    /// # Errors
    ///
    /// [`Unverified`].
    pub fn verify_installed(
        &self,
        path: &Path,
        release: PackageId,
        slot: &SlotName,
        attributes: &[Attribute],
    ) -> Result<(VerifiedPackage, SealedBlob), Unverified> {
        let (package, blob) = read_intact(path, release)?;
        let root = installed(path, slot)
            .and_then(|record| self.chain.version(record.root_version))
            .unwrap_or(self.chain.latest());
        let verifier = self.verifier(root, slot, attributes, None)?;
        let verified = verifier.verify_for_boot(package).map_err(refusal)?;
        Ok((verified, blob))
    }

    fn verifier<'a>(
        &'a self,
        root: &'a TrustRoot,
        slot: &'a SlotName,
        attributes: &'a [Attribute],
        now: Option<UnixSecs>,
    ) -> Result<Verifier<'a>, Refusal> {
        let revocations = self.revocations.as_ref().ok_or(Refusal::RevocationsStale)?;
        Ok(Verifier {
            root,
            revocations,
            slot,
            attributes,
            now,
        })
    }

    /// Whether the revocation list takes away the release in the file at `path`.
    pub fn revokes_file(&self, release: PackageId, path: &Path) -> bool {
        let Some(revocations) = &self.revocations else {
            return false;
        };
        if revocations.list().packages.contains(&release) {
            return true;
        }
        let Ok((package, _)) = read_intact(path, release) else {
            return false;
        };
        let manifest = package.manifest();
        revocations
            .allow(&release, &manifest.model, manifest.version)
            .is_err()
    }
}

/// The list under the latest version of the root that it holds under.
fn under_any(file: &[u8], chain: &RootChain) -> Option<Revocations> {
    let mut versions: Vec<&TrustRoot> = chain.versions().collect();
    versions.reverse();
    versions
        .into_iter()
        .find_map(|root| Revocations::verify(file, root).ok())
}

/// Where it is recorded that the package was verified for a slot.
pub(crate) fn record_path(package: &Path, slot: &SlotName) -> PathBuf {
    package.with_extension(format!("{slot}.verified"))
}

fn installed(package: &Path, slot: &SlotName) -> Option<Installed> {
    postcard::from_bytes(&std::fs::read(record_path(package, slot)).ok()?).ok()
}

/// Reads a package file whole: every digest checked, the model's bytes sealed in memory.
///
/// # Errors
///
/// [`Unverified`] when it cannot be read, is damaged, or is another package.
pub fn read_intact(
    path: &Path,
    release: PackageId,
) -> Result<(IntactPackage, SealedBlob), Unverified> {
    let read = patiently(|| match read_once(path, release) {
        Err(Unverified::Disk(error)) => Err(error),
        read => Ok(read),
    });
    read.unwrap_or_else(|error| {
        tracing::error!(file = %path.display(), %error, "cannot read a package");
        Err(match error.kind() {
            ErrorKind::NotFound => Refusal::Damaged.into(),
            _ => Unverified::Disk(error),
        })
    })
}

fn read_once(path: &Path, release: PackageId) -> Result<(IntactPackage, SealedBlob), Unverified> {
    let file = File::open(path).map_err(Unverified::Disk)?;
    let mut blob = BlobSealer::new().map_err(|error| no_memory(&error))?;
    let read = std_io::read(BufReader::with_capacity(READ_BYTES, file), &mut blob);
    let package = read.map_err(|error| match error {
        StdReadError::Source(error) => Unverified::Disk(error),
        error => unreadable(&error).into(),
    })?;
    if package.id() != release {
        return Err(Refusal::OtherPackage.into());
    }
    let blob = blob.seal().map_err(|error| no_memory(&error))?;
    Ok((package, blob))
}

fn no_memory(error: &std::io::Error) -> Refusal {
    tracing::error!(%error, "a model's bytes cannot be held in memory");
    Refusal::Other
}

/// Why bytes that should be a package are refused.
pub fn unreadable(error: &StdReadError) -> Refusal {
    tracing::warn!(error = %with_causes(error), "a package is refused");
    match error {
        StdReadError::Source(_) | StdReadError::Package(ReadError::Sink(_)) => Refusal::Other,
        StdReadError::Package(
            ReadError::Manifest(DocumentError::Version { .. })
            | ReadError::Section {
                source: DocumentError::Version { .. },
                ..
            },
        ) => Refusal::TooNew,
        StdReadError::Package(_) => Refusal::Damaged,
    }
}

/// Why an intact package is not for this device, as the wire says it.
fn refusal(refusal: bellwether_package::Refusal) -> Refusal {
    use bellwether_package::Refusal as Cause;
    tracing::warn!(cause = %with_causes(&refusal), "a package is refused");
    match refusal {
        Cause::RootExpired { .. } => Refusal::RootExpired,
        Cause::RevocationsOfOtherRoot => Refusal::RootForeign,
        Cause::RevocationsNotVerified { .. } | Cause::RevocationsExpired { .. } => {
            Refusal::RevocationsStale
        }
        Cause::Revoked(_) => Refusal::Revoked,
        Cause::OtherSlot => Refusal::ContractUnfit,
        Cause::UnderApproved(short) if short.rejected > 0 => Refusal::NotApproved {
            persons: short.counted,
            threshold: short.needed,
        },
        // Enough persons approved it, but for another slot, device or time.
        Cause::UnderApproved(short) if short.counted + short.out_of_scope >= short.needed => {
            Refusal::OutOfScope
        }
        Cause::UnderApproved(short)
            if short.counted + short.out_of_scope + short.out_of_time >= short.needed =>
        {
            Refusal::OutOfTime
        }
        Cause::UnderApproved(short) => Refusal::NotApproved {
            persons: short.counted,
            threshold: short.needed,
        },
    }
}

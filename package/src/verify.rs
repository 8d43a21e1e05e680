//! Counting approvals, and the only way to a `VerifiedPackage`.
//!
//! An approval counts for a device when an approver of the trust root signed it, it names this
//! trust root and this package, the slot is among its slots, one of its selectors matches the
//! device's attributes, and (for an install) `now` is within its time. A valid rejection by the
//! same person voids it, whatever the rejection's scope and time. Persons are counted, not
//! approvals and not keys.
//!
//! [`Tally`] counts without a heap while approvals stream by; [`Verifier`] does the whole.

use crate::approval::{Approval, Decision};
use crate::ids::{Attribute, PackageId, SlotName, UnixSecs};
use crate::manifest::Manifest;
use crate::revocations::{Revocations, Revoked};
use crate::root::{PERSONS_MAX, PersonIndex, TrustRoot};

/// What a device knows when it judges a package.
#[derive(Debug, Clone, Copy)]
pub struct Verifier<'a> {
    /// The trust root: the latest version for an install; for boot and fallback the version that
    /// was recorded at the install.
    pub root: &'a TrustRoot,
    /// The latest revocation list.
    pub revocations: &'a Revocations,
    /// The slot that the package is meant for.
    pub slot: &'a SlotName,
    /// The device's attributes.
    pub attributes: &'a [Attribute],
    /// The time; none on a device without a clock, where document versions alone count.
    pub now: Option<UnixSecs>,
}

/// What a verification is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Something new is to be installed: everything must be in time.
    Install,
    /// What serves already starts again, or is fallen back to: expiries of trust root, approvals
    /// and list are ignored. Revocations are not.
    Boot,
}

/// Why a package is not for this device. Nothing is damaged: people decided so, or did not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The trust root expired.
    #[error("the trust root expired at {at}: its holders must sign a new version")]
    RootExpired {
        /// When.
        at: UnixSecs,
    },
    /// The list belongs to another trust root.
    #[error("the revocation list belongs to another trust root")]
    RevocationsOfOtherRoot,
    /// The list was verified under another version of the trust root than the package is.
    #[error("the revocation list was verified under version {found} of the trust root, not {root}")]
    RevocationsNotVerified {
        /// The version of the trust root.
        root: u32,
        /// The version under which the list was verified.
        found: u32,
    },
    /// The list expired: with a stale one nothing new is installed.
    #[error("the revocation list expired at {at}: a fresh one must be signed and sent")]
    RevocationsExpired {
        /// When.
        at: UnixSecs,
    },
    /// The package was revoked.
    #[error("the package may not run any more")]
    Revoked(#[from] Revoked),
    /// Programs in the slot of a model, or the reverse.
    #[error(
        "slot `agent` takes the device's own programs and nothing else, and they go nowhere else"
    )]
    OtherSlot,
    /// Too few persons' approvals count.
    #[error("too few approvals count here: {0}")]
    UnderApproved(Shortfall),
}

/// How many persons approved, and why others do not count. A person is counted once, in the first
/// of these that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// How many must.
    pub needed: u8,
    /// Persons whose approval counts.
    pub counted: u8,
    /// Persons who rejected the package.
    pub rejected: u8,
    /// Persons whose approvals have other slots, or selectors that this device does not match.
    pub out_of_scope: u8,
    /// Persons whose approvals are expired or not valid yet.
    pub out_of_time: u8,
    /// Approvals that are damaged, a stranger's, or for another package or trust root.
    pub invalid: u8,
}

impl core::fmt::Display for Shortfall {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of {} persons", self.counted, self.needed)?;
        let others = [
            (self.rejected, "rejected it"),
            (self.out_of_scope, "approved it for other slots or devices"),
            (self.out_of_time, "approved it for another time"),
        ];
        for (persons, what) in others.into_iter().filter(|(persons, _)| *persons > 0) {
            write!(f, "; {persons} {what}")?;
        }
        if self.invalid > 0 {
            write!(f, "; {} approvals are not valid here", self.invalid)?;
        }
        Ok(())
    }
}

/// The persons whose approvals count.
pub type Persons = heapless::Vec<PersonIndex, PERSONS_MAX, u8>;

/// A manifest that enough persons approved for this slot and device, before any section was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovedManifest {
    manifest: Manifest,
    package: PackageId,
    root_version: u32,
    persons: Persons,
}

impl ApprovedManifest {
    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The package's id.
    pub fn id(&self) -> PackageId {
        self.package
    }

    /// The version of the trust root under which it was approved.
    pub fn root_version(&self) -> u32 {
        self.root_version
    }

    /// The persons whose approvals count.
    pub fn approved_by(&self) -> &[PersonIndex] {
        &self.persons
    }
}

impl<'a> Verifier<'a> {
    /// Whether these exact manifest bytes were approved for this slot and device: signatures,
    /// scope, revocations and, for an install, time. Needs no heap and no section.
    ///
    /// # Errors
    ///
    /// [`ManifestRefusal`] when the manifest is damaged or not approved here.
    pub fn approve<'b>(
        &self,
        purpose: Purpose,
        manifest_bytes: &[u8],
        approvals: impl IntoIterator<Item = &'b [u8]>,
    ) -> Result<ApprovedManifest, ManifestRefusal> {
        let manifest = Manifest::decode(manifest_bytes)?;
        let package = Manifest::id(manifest_bytes);
        let mut tally = self.tally(purpose, package);
        approvals
            .into_iter()
            .for_each(|approval| tally.count(approval));
        let persons = self.judge(purpose, package, &manifest, &tally)?;
        Ok(ApprovedManifest {
            manifest,
            package,
            root_version: self.root.version(),
            persons,
        })
    }

    /// Begins to count approvals of a package.
    pub fn tally(&self, purpose: Purpose, package: PackageId) -> Tally<'a> {
        let now = match purpose {
            Purpose::Install => self.now,
            Purpose::Boot => None,
        };
        Tally {
            root: self.root,
            slot: self.slot,
            attributes: self.attributes,
            now,
            package,
            approved: 0,
            rejected: 0,
            out_of_scope: 0,
            out_of_time: 0,
            invalid: 0,
        }
    }

    /// Everything but the signatures, which `tally` has counted.
    fn judge(
        &self,
        purpose: Purpose,
        package: PackageId,
        manifest: &Manifest,
        tally: &Tally<'_>,
    ) -> Result<Persons, Refusal> {
        if manifest.is_program() != self.slot.is_agent() {
            return Err(Refusal::OtherSlot);
        }
        if self.revocations.list().root != self.root.id() {
            return Err(Refusal::RevocationsOfOtherRoot);
        }
        if purpose == Purpose::Install {
            self.check_fresh()?;
        }
        self.revocations
            .allow(&package, &manifest.model, manifest.version)?;
        tally.finish()
    }

    fn check_fresh(&self) -> Result<(), Refusal> {
        let (root, found) = (self.root.version(), self.revocations.root_version());
        if root != found {
            return Err(Refusal::RevocationsNotVerified { root, found });
        }
        let Some(now) = self.now else {
            return Ok(());
        };
        if now >= self.root.expires() {
            return Err(Refusal::RootExpired {
                at: self.root.expires(),
            });
        }
        if now >= self.revocations.expires() {
            return Err(Refusal::RevocationsExpired {
                at: self.revocations.expires(),
            });
        }
        Ok(())
    }
}

/// Why a manifest is not approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestRefusal {
    /// The manifest is damaged.
    #[error("the manifest is damaged")]
    Manifest(#[from] crate::document::DocumentError),
    /// The manifest is not for this device.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Counts the persons who approved one package, while approvals stream by.
#[derive(Debug, Clone)]
pub struct Tally<'a> {
    root: &'a TrustRoot,
    slot: &'a SlotName,
    attributes: &'a [Attribute],
    now: Option<UnixSecs>,
    package: PackageId,
    // One bit for each person.
    approved: u16,
    rejected: u16,
    out_of_scope: u16,
    out_of_time: u16,
    invalid: u8,
}

impl Tally<'_> {
    /// Takes in one signed approval. One that is damaged, a stranger's, or about something else
    /// counts for nobody: whoever carries a package can add such bytes, and must not be able to
    /// make a device refuse it by that.
    pub fn count(&mut self, signed: &[u8]) {
        let (approval, persons) = match Approval::verify(signed, self.root) {
            Ok((approval, persons)) if approval.package == self.package => (approval, persons),
            Ok(_) | Err(_) => {
                self.invalid = self.invalid.saturating_add(1);
                return;
            }
        };
        let bits = persons.iter().fold(0, |bits, person| bits | 1 << person);
        let side = if approval.decision == Decision::Reject {
            &mut self.rejected
        } else if !approval.covers(self.slot, self.attributes) {
            &mut self.out_of_scope
        } else if self.now.is_some_and(|now| !approval.in_time(now)) {
            &mut self.out_of_time
        } else {
            &mut self.approved
        };
        *side |= bits;
    }

    /// The persons whose approvals count, if they are enough.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnderApproved`].
    pub fn finish(&self) -> Result<Persons, Refusal> {
        let role = &self.root.document().approvers;
        let counted = self.approved & !self.rejected;
        let persons: Persons = role
            .persons
            .iter()
            .copied()
            .filter(|person| counted >> person & 1 == 1)
            .collect();
        if persons.len() >= usize::from(role.threshold) {
            return Ok(persons);
        }
        let out_of_scope = self.out_of_scope & !(self.rejected | counted);
        let out_of_time = self.out_of_time & !(self.rejected | counted | out_of_scope);
        Err(Refusal::UnderApproved(Shortfall {
            needed: role.threshold,
            counted: persons.len() as u8,
            rejected: self.rejected.count_ones() as u8,
            out_of_scope: out_of_scope.count_ones() as u8,
            out_of_time: out_of_time.count_ones() as u8,
            invalid: self.invalid,
        }))
    }
}

#[cfg(feature = "alloc")]
pub use whole::{Standing, VerifiedPackage, Vote, votes};

#[cfg(feature = "alloc")]
mod whole;

//! Whole packages: from intact to verified, and who voted how.

use alloc::string::String;
use alloc::vec::Vec;

use super::{ApprovedManifest, Persons, Purpose, Refusal, Verifier};
use crate::approval::{Approval, Decision};
use crate::ids::{PackageId, SlotName, UnixSecs};
use crate::manifest::Manifest;
use crate::read::{Header, IntactPackage};
use crate::root::{PersonIndex, TrustRoot};

/// A package that enough persons approved for one slot of this device, and that nobody revoked.
/// The only thing that can serve.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedPackage {
    package: IntactPackage,
    slot: SlotName,
    root_version: u32,
    persons: Persons,
}

impl VerifiedPackage {
    /// The package.
    pub fn package(&self) -> &IntactPackage {
        &self.package
    }

    /// The package's id.
    pub fn id(&self) -> PackageId {
        self.package.id()
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        self.package.manifest()
    }

    /// The slot for which it was verified.
    pub fn slot(&self) -> &SlotName {
        &self.slot
    }

    /// The version of the trust root under which it was verified: record it at the install, and
    /// verify under it at boot.
    pub fn root_version(&self) -> u32 {
        self.root_version
    }

    /// The persons whose approvals count.
    pub fn approved_by(&self) -> &[PersonIndex] {
        &self.persons
    }
}

impl Verifier<'_> {
    /// Whether a package may be installed, by its header alone: before its sections are fetched.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn approve_for_install(&self, header: &Header) -> Result<ApprovedManifest, Refusal> {
        let persons = self.persons(Purpose::Install, header)?;
        Ok(ApprovedManifest {
            manifest: header.manifest().clone(),
            package: header.id(),
            root_version: self.root.version(),
            persons,
        })
    }

    /// Verifies a package that is to be installed, at `now` and under the latest trust root.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn verify_for_install(&self, package: IntactPackage) -> Result<VerifiedPackage, Refusal> {
        self.verify(Purpose::Install, package)
    }

    /// Verifies a package that was installed before, under the version of the trust root that was
    /// recorded then. Expiries are ignored, revocations are not.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn verify_for_boot(&self, package: IntactPackage) -> Result<VerifiedPackage, Refusal> {
        self.verify(Purpose::Boot, package)
    }

    fn verify(&self, purpose: Purpose, package: IntactPackage) -> Result<VerifiedPackage, Refusal> {
        let persons = self.persons(purpose, package.header())?;
        Ok(VerifiedPackage {
            package,
            slot: self.slot.clone(),
            root_version: self.root.version(),
            persons,
        })
    }

    fn persons(&self, purpose: Purpose, header: &Header) -> Result<Persons, Refusal> {
        let mut tally = self.tally(purpose, header.id());
        header
            .approvals()
            .for_each(|approval| tally.count(approval));
        self.judge(purpose, header.id(), header.manifest(), &tally)
    }
}

/// How a vote stands at a time, whatever the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// An approval within its time.
    InForce,
    /// An approval whose time has not come.
    NotYet,
    /// An approval whose time is over.
    Expired,
    /// An approval that the same person's rejection voids.
    Voided,
    /// A rejection.
    Rejection,
}

/// What one person validly signed about a package, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The person's place in the trust root.
    pub person: PersonIndex,
    /// The person's name.
    pub name: String,
    /// What was signed, with its scope.
    pub approval: Approval,
    /// How it stands.
    pub standing: Standing,
}

/// Every valid vote of an approver about `package`, in the order of `approvals`. Damaged ones,
/// strangers' and those about other packages are left out.
///
/// For display and for refusing early: what counts on a device is what its own [`Verifier`] says.
pub fn votes<'a>(
    root: &TrustRoot,
    package: &PackageId,
    approvals: impl IntoIterator<Item = &'a [u8]>,
    now: UnixSecs,
) -> Vec<Vote> {
    let mut votes = Vec::new();
    for signed in approvals {
        let Ok((approval, persons)) = Approval::verify(signed, root) else {
            continue;
        };
        if approval.package != *package {
            continue;
        }
        for person in persons {
            let name = root
                .person(person)
                .map(|person| person.name.as_str())
                .unwrap_or_default();
            let standing = standing(&approval, now);
            let approval = approval.clone();
            votes.push(Vote {
                person,
                name: name.into(),
                approval,
                standing,
            });
        }
    }
    let rejected = votes
        .iter()
        .filter(|vote| vote.standing == Standing::Rejection);
    let rejected: Vec<PersonIndex> = rejected.map(|vote| vote.person).collect();
    for vote in &mut votes {
        if vote.standing != Standing::Rejection && rejected.contains(&vote.person) {
            vote.standing = Standing::Voided;
        }
    }
    votes
}

fn standing(approval: &Approval, now: UnixSecs) -> Standing {
    match approval.decision {
        Decision::Reject => Standing::Rejection,
        Decision::Approve if now < approval.not_before => Standing::NotYet,
        Decision::Approve if now >= approval.expires => Standing::Expired,
        Decision::Approve => Standing::InForce,
    }
}

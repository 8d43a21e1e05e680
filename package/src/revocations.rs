//! Revocations: which packages nobody may run any more, and the least version per model.
//!
//! Signed by the approvers' threshold or the root's, never by the director: a stolen server can
//! hold a list back for a while, but neither make nor undo one.

use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};
use crate::ids::{ModelName, ModelVersion, PackageId, RootId, UnixSecs};
use crate::root::TrustRoot;
use crate::signed::{DocumentType, Signed, SignedError};

/// Format version of a list.
pub const FORMAT_VERSION: u8 = 1;
/// Most packages on a list; older ones are covered by the least version of their model.
pub const PACKAGES_MAX: usize = 64;
/// Most models with a least version.
pub const LEAST_MAX: usize = 16;
/// Longest signed list in bytes, envelope included: 64 digests, 16 names and 32 signatures come to
/// 6.1 KiB.
pub const SIGNED_REVOCATIONS_BYTES_MAX: usize = 8 * 1024;

/// What a list says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// The trust root in whose name it is signed.
    pub root: RootId,
    /// 1, 2, …; a device never goes back.
    pub version: u64,
    /// Nothing new is installed on the strength of this list from this time on.
    pub expires: UnixSecs,
    /// Packages that nobody may run.
    pub packages: heapless::Vec<PackageId, PACKAGES_MAX, u8>,
    /// Least versions that may run, one for a model.
    pub least: heapless::Vec<(ModelName, ModelVersion), LEAST_MAX, u8>,
}

impl RevocationList {
    /// The list that a trust root starts with: version 1, nothing revoked.
    pub fn genesis(root: RootId, expires: UnixSecs) -> Self {
        Self {
            root,
            version: 1,
            expires,
            packages: heapless::Vec::new(),
            least: heapless::Vec::new(),
        }
    }

    /// Decodes and checks the payload of a list.
    ///
    /// # Errors
    ///
    /// [`DocumentError`]; never panics, whatever the bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, DocumentError> {
        let list: Self = document::decode(FORMAT_VERSION, payload)?;
        list.check()?;
        Ok(list)
    }

    /// The payload that is to be signed.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] when the list contradicts itself.
    #[cfg(feature = "alloc")]
    pub fn encode(&self) -> Result<alloc::vec::Vec<u8>, DocumentError> {
        self.check()?;
        document::to_vec(FORMAT_VERSION, self, SIGNED_REVOCATIONS_BYTES_MAX)
    }

    /// Encodes and signs with these keys; gives the envelope's bytes.
    ///
    /// # Errors
    ///
    /// [`RevocationsError`] when the list contradicts itself or there are too many keys.
    #[cfg(feature = "alloc")]
    pub fn sign(
        &self,
        keys: &[&ed25519_dalek::SigningKey],
    ) -> Result<alloc::vec::Vec<u8>, RevocationsError> {
        let payload = self.encode()?;
        Ok(crate::SignedBuf::sign(DocumentType::Revocations, payload, keys).encode()?)
    }

    /// The least version of this model that may run, if the list says one.
    pub fn least(&self, model: &ModelName) -> Option<ModelVersion> {
        self.least
            .iter()
            .find(|(name, _)| name == model)
            .map(|(_, version)| *version)
    }

    fn check(&self) -> Result<(), DocumentError> {
        if self.version == 0 {
            return Err(DocumentError::Invalid("a list's version is 1 or more"));
        }
        let twice = |place: usize| {
            let (name, _) = &self.least[place];
            self.least[..place]
                .iter()
                .any(|(earlier, _)| earlier == name)
        };
        if (0..self.least.len()).any(twice) {
            return Err(DocumentError::Invalid("a model has two least versions"));
        }
        Ok(())
    }
}

/// A verified list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    list: RevocationList,
    root_version: u32,
}

impl Revocations {
    /// Verifies a signed list under `root`.
    ///
    /// # Errors
    ///
    /// [`RevocationsError`] when it is damaged, for another trust root, or when neither the
    /// approvers' threshold nor the root's signed it. Whether it expired is the caller's to judge,
    /// as [`Verifier`](crate::Verifier) does.
    pub fn verify(signed: &[u8], root: &TrustRoot) -> Result<Self, RevocationsError> {
        let signed = Signed::decode(signed, SIGNED_REVOCATIONS_BYTES_MAX)?;
        let list = RevocationList::decode(signed.payload())?;
        if list.root != root.id() {
            return Err(RevocationsError::OtherRoot { of: list.root });
        }
        let kind = DocumentType::Revocations;
        let document = root.document();
        if root.reaches_threshold(&document.approvers, kind, &signed)
            || root.reaches_threshold(&document.root, kind, &signed)
        {
            Ok(Self {
                list,
                root_version: root.version(),
            })
        } else {
            Err(RevocationsError::Threshold)
        }
    }

    /// Verifies a signed list that is to take the place of this one.
    ///
    /// # Errors
    ///
    /// As [`Revocations::verify`], and [`RevocationsError::Older`] when its version is lower than
    /// this one's. The same version is fine: after a rotation the same bytes are verified anew.
    pub fn replace(&self, signed: &[u8], root: &TrustRoot) -> Result<Self, RevocationsError> {
        let next = Self::verify(signed, root)?;
        if next.list.version < self.list.version {
            return Err(RevocationsError::Older {
                held: self.list.version,
                found: next.list.version,
            });
        }
        Ok(next)
    }

    /// What the list says.
    pub fn list(&self) -> &RevocationList {
        &self.list
    }

    /// The list's version.
    pub fn version(&self) -> u64 {
        self.list.version
    }

    /// Nothing new is installed from this time on.
    pub fn expires(&self) -> UnixSecs {
        self.list.expires
    }

    /// The version of the trust root under which the list was verified.
    pub fn root_version(&self) -> u32 {
        self.root_version
    }

    /// Whether this package of this model may still run.
    ///
    /// # Errors
    ///
    /// [`Revoked`] says why not.
    pub fn allow(
        &self,
        package: &PackageId,
        model: &ModelName,
        version: ModelVersion,
    ) -> Result<(), Revoked> {
        if self.list.packages.contains(package) {
            return Err(Revoked::Package);
        }
        match self.list.least(model) {
            Some(least) if version < least => Err(Revoked::LeastVersion { least }),
            _ => Ok(()),
        }
    }
}

/// How a package was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Revoked {
    /// By its id.
    #[error("the package was revoked")]
    Package,
    /// By a least version of its model.
    #[error("the model's least version is now {least}")]
    LeastVersion {
        /// The least version that may run.
        least: ModelVersion,
    },
}

/// Why a list of revocations is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationsError {
    /// The envelope is damaged.
    #[error("the revocation list's envelope is damaged")]
    Envelope(#[from] SignedError),
    /// The payload is damaged or contradicts itself.
    #[error("the revocation list is damaged or contradicts itself")]
    Document(#[from] DocumentError),
    /// Made for another trust root.
    #[error("the revocation list was made for trust root {of}, not for this one")]
    OtherRoot {
        /// The trust root it was made for.
        of: RootId,
    },
    /// Not enough approvers signed, nor enough of the root's persons.
    #[error("too few approvers signed the revocation list")]
    Threshold,
    /// A device never goes back to an older list.
    #[error("the revocation list has version {found}, version {held} is already held")]
    Older {
        /// The version held.
        held: u64,
        /// The version offered.
        found: u64,
    },
}

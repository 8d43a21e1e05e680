//! The trust root: who may approve and direct, how many must, and how it hands over to the next.
//!
//! A [`TrustRoot`] value was verified: it comes from a pinned fingerprint, or from another
//! `TrustRoot` by a rotation that the old threshold *and* the new one signed. [`RootDocument`] is
//! what it says, for those who write one.

use serde::{Deserialize, Serialize};

use crate::digest::sha256;
use crate::document::{self, DocumentError};
use crate::ids::{Digest, PublicKey, RootId, UnixSecs};
use crate::sign;
use crate::signed::{DocumentType, Signed, SignedError};

/// Format version of a trust root.
pub const FORMAT_VERSION: u8 = 1;
/// Most persons in a trust root: one bit each while approvals are counted, and few enough to know
/// one another.
pub const PERSONS_MAX: usize = 16;
/// Most keys of one person: a token, its spare, and their successors.
pub const KEYS_MAX: usize = 4;
/// Longest name of a person in bytes.
pub const PERSON_NAME_BYTES_MAX: usize = 32;
/// Longest signed trust root in bytes, envelope included: 16 persons with 4 keys each and 32
/// signatures come to 5.9 KiB.
pub const SIGNED_ROOT_BYTES_MAX: usize = 8 * 1024;

/// A person's place in [`RootDocument::persons`].
pub type PersonIndex = u8;

/// A person, who has one voice with any number of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The name that people read.
    pub name: heapless::String<PERSON_NAME_BYTES_MAX, u8>,
    /// The person's keys; at least one.
    pub keys: heapless::Vec<PublicKey, KEYS_MAX, u8>,
}

/// Some of the persons, and how many of them must agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// The persons, by their place; each once.
    pub persons: heapless::Vec<PersonIndex, PERSONS_MAX, u8>,
    /// How many of them must agree; at least one.
    pub threshold: u8,
}

/// What a version of the trust root says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDocument {
    /// 1, 2, … without gaps.
    pub version: u32,
    /// The trust root's id; none in version 1, whose digest it is.
    pub id: Option<RootId>,
    /// Nothing new is installed from this time on.
    pub expires: UnixSecs,
    /// Everybody who has a role.
    pub persons: heapless::Vec<Person, PERSONS_MAX, u8>,
    /// Who may change the trust root.
    pub root: Role,
    /// Who may approve and revoke packages.
    pub approvers: Role,
    /// Keys that sign assignments. They belong to the fleet server, not to a person.
    pub director: heapless::Vec<PublicKey, KEYS_MAX, u8>,
}

impl RootDocument {
    /// Decodes and checks the payload of a trust root.
    ///
    /// # Errors
    ///
    /// [`DocumentError`]; never panics, whatever the bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, DocumentError> {
        let root: Self = document::decode(FORMAT_VERSION, payload)?;
        root.check()?;
        Ok(root)
    }

    /// The payload that is to be signed.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] when the document contradicts itself.
    #[cfg(feature = "alloc")]
    pub fn encode(&self) -> Result<alloc::vec::Vec<u8>, DocumentError> {
        self.check()?;
        document::to_vec(FORMAT_VERSION, self, SIGNED_ROOT_BYTES_MAX)
    }

    /// Encodes and signs with these keys; gives the envelope's bytes.
    ///
    /// # Errors
    ///
    /// [`RootError`] when the document contradicts itself or there are too many keys.
    #[cfg(feature = "alloc")]
    pub fn sign(
        &self,
        keys: &[&ed25519_dalek::SigningKey],
    ) -> Result<alloc::vec::Vec<u8>, RootError> {
        let payload = self.encode()?;
        Ok(crate::SignedBuf::sign(DocumentType::TrustRoot, payload, keys).encode()?)
    }

    /// Whether persons, keys, roles and thresholds make sense.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Invalid`] says what is wrong.
    pub fn check(&self) -> Result<(), DocumentError> {
        let invalid = |what| Err(DocumentError::Invalid(what));
        if self.version == 0 || (self.version == 1) != self.id.is_none() {
            return invalid("version 1 and only version 1 is without the trust root's id");
        }
        for (index, person) in self.persons.iter().enumerate() {
            if person.name.is_empty() || person.name.chars().any(char::is_control) {
                return invalid("a person's name is empty or not printable");
            }
            if person.keys.is_empty() {
                return invalid("a person has no key");
            }
            if self.persons[..index]
                .iter()
                .any(|earlier| earlier.name == person.name)
            {
                return invalid("two persons have the same name");
            }
        }
        let keys = || {
            self.persons
                .iter()
                .flat_map(|person| &person.keys)
                .chain(&self.director)
        };
        for (index, key) in keys().enumerate() {
            if !sign::is_usable(key) {
                return invalid("a key is not a usable Ed25519 key");
            }
            // One key in two hands would be two voices.
            if keys().take(index).any(|earlier| earlier == key) {
                return invalid("a key stands twice");
            }
        }
        self.check_role(&self.root)?;
        self.check_role(&self.approvers)
    }

    fn check_role(&self, role: &Role) -> Result<(), DocumentError> {
        let invalid = |what| Err(DocumentError::Invalid(what));
        for (place, index) in role.persons.iter().enumerate() {
            if usize::from(*index) >= self.persons.len() {
                return invalid("a role names a person that is not there");
            }
            if role.persons[..place].contains(index) {
                return invalid("a role names a person twice");
            }
        }
        if role.threshold == 0 || usize::from(role.threshold) > role.persons.len() {
            return invalid("a threshold is zero or more than there are persons");
        }
        Ok(())
    }

    fn persons_who_signed(
        &self,
        role: &Role,
        kind: DocumentType,
        signed: &Signed<'_>,
    ) -> heapless::Vec<PersonIndex, PERSONS_MAX, u8> {
        let signers = role.persons.iter().filter(|index| {
            self.persons
                .get(usize::from(**index))
                .is_some_and(|person| signed.signer_among(kind, &person.keys).is_some())
        });
        signers.copied().collect()
    }

    fn reaches_threshold(&self, role: &Role, kind: DocumentType, signed: &Signed<'_>) -> bool {
        self.persons_who_signed(role, kind, signed).len() >= usize::from(role.threshold)
    }
}

/// A verified version of the trust root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRoot {
    document: RootDocument,
    id: RootId,
    fingerprint: Digest,
}

impl TrustRoot {
    /// Starts from the version whose payload has the pinned fingerprint.
    ///
    /// # Errors
    ///
    /// [`RootError`] when it has another fingerprint, is damaged, or when its own root threshold
    /// did not sign it.
    pub fn pinned(signed: &[u8], fingerprint: &Digest) -> Result<Self, RootError> {
        let signed = Signed::decode(signed, SIGNED_ROOT_BYTES_MAX)?;
        let found = sha256(signed.payload());
        if found != *fingerprint {
            return Err(RootError::OtherFingerprint { found });
        }
        let document = RootDocument::decode(signed.payload())?;
        if !document.reaches_threshold(&document.root, DocumentType::TrustRoot, &signed) {
            return Err(RootError::NewThreshold {
                version: document.version,
            });
        }
        let id = document.id.unwrap_or(RootId(found));
        Ok(Self {
            document,
            id,
            fingerprint: found,
        })
    }

    /// Hands over to the next version.
    ///
    /// # Errors
    ///
    /// [`RootError`] when it is damaged, is not exactly the next version of this trust root, or
    /// when the old threshold or the new one did not sign it.
    pub fn rotate(&self, signed: &[u8]) -> Result<Self, RootError> {
        let signed = Signed::decode(signed, SIGNED_ROOT_BYTES_MAX)?;
        let next = RootDocument::decode(signed.payload())?;
        let version = next.version;
        if self.document.version.checked_add(1) != Some(version) {
            return Err(RootError::Version {
                held: self.document.version,
                found: version,
            });
        }
        if next.id != Some(self.id) {
            return Err(RootError::OtherRoot);
        }
        if !self
            .document
            .reaches_threshold(&self.document.root, DocumentType::TrustRoot, &signed)
        {
            return Err(RootError::OldThreshold { version });
        }
        if !next.reaches_threshold(&next.root, DocumentType::TrustRoot, &signed) {
            return Err(RootError::NewThreshold { version });
        }
        Ok(Self {
            document: next,
            id: self.id,
            fingerprint: sha256(signed.payload()),
        })
    }

    /// What this version says.
    pub fn document(&self) -> &RootDocument {
        &self.document
    }

    /// The trust root's id, the same in all versions.
    pub fn id(&self) -> RootId {
        self.id
    }

    /// SHA-256 of this version's payload: what a device is given at enrolment.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// 1, 2, …
    pub fn version(&self) -> u32 {
        self.document.version
    }

    /// Nothing new is installed from this time on.
    pub fn expires(&self) -> UnixSecs {
        self.document.expires
    }

    /// The keys that may sign assignments.
    pub fn director_keys(&self) -> &[PublicKey] {
        &self.document.director
    }

    /// The person at this place.
    pub fn person(&self, index: PersonIndex) -> Option<&Person> {
        self.document.persons.get(usize::from(index))
    }

    /// The person who holds this key, whatever the role.
    pub fn holder(&self, key: &PublicKey) -> Option<PersonIndex> {
        let place = self
            .document
            .persons
            .iter()
            .position(|person| person.keys.contains(key))?;
        Some(place as PersonIndex)
    }

    /// The persons of `role` with at least one valid signature; each once.
    pub fn persons_who_signed(
        &self,
        role: &Role,
        kind: DocumentType,
        signed: &Signed<'_>,
    ) -> heapless::Vec<PersonIndex, PERSONS_MAX, u8> {
        self.document.persons_who_signed(role, kind, signed)
    }

    /// Whether the persons of `role` who validly signed are enough.
    pub fn reaches_threshold(&self, role: &Role, kind: DocumentType, signed: &Signed<'_>) -> bool {
        self.document.reaches_threshold(role, kind, signed)
    }
}

/// Why a trust root is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// The file is not a chain of trust roots.
    #[error("this is not a trust root file, or it is cut off")]
    NotAChain,
    /// More versions than a chain may have.
    #[error("the chain has more than {versions_max} versions: begin it at a later one")]
    TooManyVersions {
        /// The bound.
        versions_max: usize,
    },
    /// The envelope is damaged.
    #[error("the trust root's envelope is damaged")]
    Envelope(#[from] SignedError),
    /// The payload is damaged or contradicts itself.
    #[error("the trust root is damaged or contradicts itself")]
    Document(#[from] DocumentError),
    /// Not the trust root that this device was given.
    #[error("the trust root's fingerprint is {found}, which is not the pinned one")]
    OtherFingerprint {
        /// The fingerprint that was found.
        found: Digest,
    },
    /// The chain does not contain the version that was pinned.
    #[error("the chain does not contain the pinned version: check the fingerprint")]
    PinMissing,
    /// A later version names another trust root as its origin.
    #[error("the trust root belongs to another chain")]
    OtherRoot,
    /// Not the very next version.
    #[error("version {found} does not follow version {held}: send every version in between")]
    Version {
        /// The version held.
        held: u32,
        /// The version offered.
        found: u32,
    },
    /// Not enough persons of the version before signed.
    #[error("version {version} lacks signatures of the version before it")]
    OldThreshold {
        /// The version offered.
        version: u32,
    },
    /// Not enough persons of the version itself signed.
    #[error("version {version} lacks signatures of its own persons")]
    NewThreshold {
        /// The version offered.
        version: u32,
    },
}

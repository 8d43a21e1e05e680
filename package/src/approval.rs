//! An approval: what one person decided about one package, for which slots and devices.
//!
//! Detached and signed by its person: it names the trust root and the manifest's digest, so it
//! can be carried by anybody and moved nowhere else.

use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};
use crate::ids::{Attribute, PackageId, RootId, Selector, SlotName, UnixSecs};
use crate::root::{PersonIndex, TrustRoot};
use crate::signed::{DocumentType, Signed, SignedError};

/// Format version of an approval.
pub const FORMAT_VERSION: u8 = 1;
/// Most approvals that a package carries: as many as a trust root has persons.
pub const APPROVALS_MAX: usize = 16;
/// Longest signed approval in bytes, envelope included.
pub const SIGNED_APPROVAL_BYTES_MAX: usize = 2048;
/// Most slots in one approval.
pub const SLOTS_MAX: usize = 8;
/// Most selectors in one approval.
pub const SELECTORS_MAX: usize = 8;
/// Longest reason in bytes: a sentence or two.
pub const REASON_BYTES_MAX: usize = 256;

/// What the person decided. Wire enum: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The package may run within the scope.
    Approve,
    /// The person's approvals of this package count no more, whatever their scope and time.
    Reject,
}

/// What one person decided about one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The trust root in whose name the person decides.
    pub root: RootId,
    /// The package.
    pub package: PackageId,
    /// The decision.
    pub decision: Decision,
    /// The slots it is for; at least one for an approval.
    pub slots: heapless::Vec<SlotName, SLOTS_MAX, u8>,
    /// The devices it is for: those that one of these selects; at least one for an approval.
    pub selectors: heapless::Vec<Selector, SELECTORS_MAX, u8>,
    /// Not to be installed before this time.
    pub not_before: UnixSecs,
    /// Not to be installed from this time on.
    pub expires: UnixSecs,
    /// When the person decided.
    pub at: UnixSecs,
    /// Why, in the person's words.
    pub reason: heapless::String<REASON_BYTES_MAX>,
}

impl Approval {
    /// Decodes and checks the payload of an approval.
    ///
    /// # Errors
    ///
    /// [`DocumentError`]; never panics, whatever the bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, DocumentError> {
        let approval: Self = document::decode(FORMAT_VERSION, payload)?;
        approval.check()?;
        Ok(approval)
    }

    /// The payload that is to be signed.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] when the approval contradicts itself or is too long.
    #[cfg(feature = "alloc")]
    pub fn encode(&self) -> Result<alloc::vec::Vec<u8>, DocumentError> {
        self.check()?;
        let bytes_max = SIGNED_APPROVAL_BYTES_MAX - crate::signed::overhead_bytes(1);
        document::to_vec(FORMAT_VERSION, self, bytes_max)
    }

    /// Encodes and signs with one person's key; gives the envelope's bytes.
    ///
    /// # Errors
    ///
    /// As [`Approval::encode`].
    #[cfg(feature = "alloc")]
    pub fn sign(
        &self,
        key: &ed25519_dalek::SigningKey,
    ) -> Result<alloc::vec::Vec<u8>, ApprovalError> {
        let payload = self.encode()?;
        Ok(crate::SignedBuf::sign(DocumentType::Approval, payload, &[key]).encode()?)
    }

    /// Decodes a signed approval and finds the persons of `root` who validly signed it, whatever
    /// package it is for and whatever the time.
    ///
    /// # Errors
    ///
    /// [`ApprovalError`] when it is damaged, made for another trust root, or when none of its
    /// signatures is an approver's.
    pub fn verify(
        signed: &[u8],
        root: &TrustRoot,
    ) -> Result<
        (
            Self,
            heapless::Vec<PersonIndex, { crate::root::PERSONS_MAX }, u8>,
        ),
        ApprovalError,
    > {
        let signed = Signed::decode(signed, SIGNED_APPROVAL_BYTES_MAX)?;
        let approval = Self::decode(signed.payload())?;
        if approval.root != root.id() {
            return Err(ApprovalError::OtherRoot { of: approval.root });
        }
        let persons =
            root.persons_who_signed(&root.document().approvers, DocumentType::Approval, &signed);
        if persons.is_empty() {
            Err(ApprovalError::Stranger)
        } else {
            Ok((approval, persons))
        }
    }

    /// Whether this slot and a device with these attributes are within the scope.
    pub fn covers(&self, slot: &SlotName, attributes: &[Attribute]) -> bool {
        self.slots.contains(slot)
            && self
                .selectors
                .iter()
                .any(|selector| selector.matches(attributes))
    }

    /// Whether `now` is within the approval's time.
    pub fn in_time(&self, now: UnixSecs) -> bool {
        self.not_before <= now && now < self.expires
    }

    fn check(&self) -> Result<(), DocumentError> {
        if self.decision == Decision::Reject {
            return Ok(());
        }
        if self.slots.is_empty() || self.selectors.is_empty() {
            return Err(DocumentError::Invalid(
                "an approval needs a slot and a selector",
            ));
        }
        if self.expires <= self.not_before {
            return Err(DocumentError::Invalid("an approval ends before it begins"));
        }
        Ok(())
    }
}

/// Why bytes are not a valid approval by an approver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// The envelope is damaged.
    #[error("the approval's envelope is damaged")]
    Envelope(#[from] SignedError),
    /// The payload is damaged.
    #[error("the approval is damaged")]
    Document(#[from] DocumentError),
    /// Made for another trust root.
    #[error("the approval was made for trust root {of}, not for this one")]
    OtherRoot {
        /// The trust root it was made for.
        of: RootId,
    },
    /// Nobody who may approve signed it.
    #[error("no approver of this trust root signed the approval, or the signature is not valid")]
    Stranger,
}

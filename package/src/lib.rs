//! What is signed: manifest, approvals, trust root, verification.
//!
//! This crate owns the package format (`.bwp`), the documents that people sign (trust roots,
//! approvals, revocations) and the one road from bytes to a `VerifiedPackage`:
//!
//! ```text
//! bytes ──read──▶ IntactPackage ──Verifier──▶ VerifiedPackage
//!          structure, digests,      enough people approved it for this slot and this
//!          sections fit together    device; not revoked; in time
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`ids`] | digests, names, selectors, times, keys |
//! | [`civil`] | times as the calendar has them |
//! | [`digest`] | SHA-256, the root over a blob's chunks |
//! | [`document`] | version byte and postcard: every signed payload |
//! | [`sign`], [`signed`] | the message that Ed25519 covers, the envelope |
//! | [`root`], `chain` | who may approve and direct; rotation |
//! | [`manifest`], [`approval`], [`revocations`] | the documents about packages |
//! | `sections`, `read`, `write` | what a package holds, and its file (feature `alloc`) |
//! | `pieces` | what of a file another package may share (feature `alloc`) |
//! | [`verify`] | counting approvals; [`Verifier`] |
//!
//! It knows no clock, no file system, no network and no fleet: time, bytes and attributes come in
//! as arguments. Without features it needs no heap.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod approval;
#[cfg(feature = "alloc")]
mod bounded;
#[cfg(feature = "alloc")]
pub mod chain;
pub mod civil;
pub mod digest;
pub mod document;
pub mod ids;
pub mod manifest;
#[cfg(feature = "alloc")]
pub mod pieces;
#[cfg(feature = "alloc")]
pub mod read;
pub mod revocations;
pub mod root;
#[cfg(feature = "alloc")]
pub mod sections;
pub mod sign;
pub mod signed;
#[cfg(feature = "std")]
pub mod std_io;
pub mod verify;
#[cfg(feature = "alloc")]
pub mod write;

pub use approval::{Approval, Decision};
pub use ids::{
    Attribute, Digest, ModelName, ModelVersion, PackageId, PublicKey, RootId, Selector, Signature,
    SlotName, UnixSecs,
};
pub use manifest::{Manifest, SectionKind};
pub use revocations::{RevocationList, Revocations};
pub use root::{RootDocument, TrustRoot};
pub use signed::{DocumentType, Signed};
pub use verify::{ApprovedManifest, Purpose, Refusal, Verifier};

#[cfg(feature = "alloc")]
pub use chain::RootChain;
#[cfg(feature = "alloc")]
pub use read::{Header, IntactPackage, ReadError, read, read_header};
#[cfg(feature = "alloc")]
pub use signed::SignedBuf;
#[cfg(feature = "alloc")]
pub use verify::VerifiedPackage;

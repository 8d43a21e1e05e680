//! A chain of trust roots: the `.bwt` file.
//!
//! Layout: `"BWT1" | u16le count | count × (u32le length | bytes of a signed trust root)`, versions
//! ascending. Whoever reads it starts at the version whose fingerprint was pinned; earlier ones
//! are ignored, later ones must each follow by a valid rotation.

use alloc::vec::Vec;

use crate::digest::sha256;
use crate::ids::{Digest, RootId};
use crate::root::{RootDocument, RootError, SIGNED_ROOT_BYTES_MAX, TrustRoot};
use crate::signed::Signed;

/// Most versions in one chain: several a year for decades; then a chain begins later.
pub const VERSIONS_MAX: usize = 64;
/// Longest chain in bytes.
pub const CHAIN_BYTES_MAX: usize = 6 + VERSIONS_MAX * (4 + SIGNED_ROOT_BYTES_MAX);

const MAGIC: &[u8; 4] = b"BWT1";

/// The verified versions of a trust root, from the pinned one to the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootChain {
    first: TrustRoot,
    later: Vec<TrustRoot>,
}

impl RootChain {
    /// Verifies a `.bwt` file from the pinned fingerprint on.
    ///
    /// # Errors
    ///
    /// [`RootError`]; never panics, whatever the bytes.
    pub fn verify(file: &[u8], fingerprint: &Digest) -> Result<Self, RootError> {
        let versions = split(file)?;
        let pinned = versions
            .iter()
            .position(|bytes| {
                Signed::decode(bytes, SIGNED_ROOT_BYTES_MAX)
                    .is_ok_and(|signed| sha256(signed.payload()) == *fingerprint)
            })
            .ok_or(RootError::PinMissing)?;
        let mut chain = Self {
            first: TrustRoot::pinned(versions[pinned], fingerprint)?,
            later: Vec::new(),
        };
        for bytes in &versions[pinned + 1..] {
            let next = chain.latest().rotate(bytes)?;
            chain.later.push(next);
        }
        Ok(chain)
    }

    /// Verifies a `.bwt` file whose first version is trusted because the operator names the file:
    /// for tools that show or extend a chain, and for the server, which defends nobody.
    ///
    /// # Errors
    ///
    /// [`RootError`]; never panics, whatever the bytes.
    pub fn verify_from_first(file: &[u8]) -> Result<Self, RootError> {
        let versions = split(file)?;
        let first = Signed::decode(versions[0], SIGNED_ROOT_BYTES_MAX)?;
        Self::verify(file, &sha256(first.payload()))
    }

    /// The latest version.
    pub fn latest(&self) -> &TrustRoot {
        self.later.last().unwrap_or(&self.first)
    }

    /// The version that was pinned.
    pub fn first(&self) -> &TrustRoot {
        &self.first
    }

    /// A version of this chain.
    pub fn version(&self, version: u32) -> Option<&TrustRoot> {
        self.versions().find(|root| root.version() == version)
    }

    /// All versions, ascending.
    pub fn versions(&self) -> impl Iterator<Item = &TrustRoot> {
        core::iter::once(&self.first).chain(&self.later)
    }

    /// The trust root's id.
    pub fn id(&self) -> RootId {
        self.first.id()
    }
}

/// Takes a `.bwt` file apart into its signed versions, none of them checked.
///
/// # Errors
///
/// [`RootError`] when the file is not a chain, too long, or empty.
pub fn split(file: &[u8]) -> Result<Vec<&[u8]>, RootError> {
    let rest = file.strip_prefix(MAGIC).ok_or(RootError::NotAChain)?;
    let (count, mut rest) = rest.split_first_chunk::<2>().ok_or(RootError::NotAChain)?;
    let count = usize::from(u16::from_le_bytes(*count));
    if count == 0 {
        return Err(RootError::NotAChain);
    }
    if count > VERSIONS_MAX {
        return Err(RootError::TooManyVersions {
            versions_max: VERSIONS_MAX,
        });
    }
    let mut versions = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(RootError::NotAChain)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > SIGNED_ROOT_BYTES_MAX {
            return Err(RootError::NotAChain);
        }
        let (version, after) = after.split_at_checked(length).ok_or(RootError::NotAChain)?;
        versions.push(version);
        rest = after;
    }
    if rest.is_empty() {
        Ok(versions)
    } else {
        Err(RootError::NotAChain)
    }
}

/// Puts signed versions together into a `.bwt` file. Nothing is verified.
///
/// # Errors
///
/// [`RootError`] when there is none, there are too many, or one is too long.
pub fn join<B: AsRef<[u8]>>(versions: &[B]) -> Result<Vec<u8>, RootError> {
    if versions.is_empty() {
        return Err(RootError::NotAChain);
    }
    if versions.len() > VERSIONS_MAX {
        return Err(RootError::TooManyVersions {
            versions_max: VERSIONS_MAX,
        });
    }
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&(versions.len() as u16).to_le_bytes());
    for version in versions {
        let version = version.as_ref();
        if version.len() > SIGNED_ROOT_BYTES_MAX {
            return Err(RootError::NotAChain);
        }
        file.extend_from_slice(&(version.len() as u32).to_le_bytes());
        file.extend_from_slice(version);
    }
    Ok(file)
}

/// What a signed version says, without verifying who signed: for display only.
///
/// # Errors
///
/// [`RootError`] when it is damaged.
pub fn peek(signed: &[u8]) -> Result<RootDocument, RootError> {
    let signed = Signed::decode(signed, SIGNED_ROOT_BYTES_MAX)?;
    Ok(RootDocument::decode(signed.payload())?)
}

//! Signed documents on disk: trust roots (`.bwt`), revocation lists (`.bwr`), detached approvals
//! (`.bwa`), and the keys that sign them. Everything is verified as it is read.

use std::path::{Path, PathBuf};

use bellwether_package::approval::SIGNED_APPROVAL_BYTES_MAX;
use bellwether_package::chain::CHAIN_BYTES_MAX;
use bellwether_package::revocations::SIGNED_REVOCATIONS_BYTES_MAX;
use bellwether_package::{
    Approval, PackageId, PublicKey, Revocations, RootChain, Signed, TrustRoot, UnixSecs,
};

use crate::arguments::Signers;
use crate::failure::{Failure, Result, Who};
use crate::files;
use crate::keys::PrivateKey;
use crate::output::remark;
use crate::secret;

/// Reads a `.bwt` file. Its first version is trusted because the operator names the file.
///
/// # Errors
/// When it is damaged, or a version lacks signatures.
pub(crate) fn trust_root(path: &Path) -> Result<RootChain> {
    let bytes = files::read(path, CHAIN_BYTES_MAX as u64)?;
    RootChain::verify_from_first(&bytes).map_err(|error| {
        Failure::new(Who::Approvers, format!("{} is not a valid trust root", path.display()))
            .next(format!(
                "`bellwether trust show {0}` says what is missing; `bellwether trust sign {0}` adds a signature",
                path.display()
            ))
            .because(error)
    })
}

/// Remarks when the trust root has expired or soon will: nothing new is installed then.
pub(crate) fn remark_on_expiry(root: &TrustRoot, now: UnixSecs) {
    if root.expires() <= now {
        remark(
            "note: this trust root has expired; devices install nothing new until it is rotated",
        );
    }
}

/// The revocation list that belongs beside the trust root at `root`.
pub(crate) fn revocations_beside(root: &Path) -> PathBuf {
    root.with_extension("bwr")
}

/// Reads a `.bwr` file and verifies it under `root`.
///
/// # Errors
/// When it is damaged, made for another root, or lacks signatures.
pub(crate) fn revocations(path: &Path, root: &TrustRoot) -> Result<Revocations> {
    let bytes = read_revocations(path)?;
    Revocations::verify(&bytes, root).map_err(|error| {
        Failure::new(
            Who::Approvers,
            format!("{} is not a valid revocation list under this trust root", path.display()),
        )
        .next(format!(
            "have it signed: bellwether revoke --revocations {} --sign-only --trust-root ROOT.bwt --sign-with KEY",
            path.display()
        ))
        .because(error)
    })
}

/// The bytes of a `.bwr` file, unverified.
///
/// # Errors
/// When it can't be read.
pub(crate) fn read_revocations(path: &Path) -> Result<Vec<u8>> {
    files::read(path, SIGNED_REVOCATIONS_BYTES_MAX as u64)
}

/// The package that a detached approval is about, as it says itself.
///
/// # Errors
/// When it is no approval.
pub(crate) fn approval_subject(path: &Path) -> Result<PackageId> {
    let bytes = files::read(path, SIGNED_APPROVAL_BYTES_MAX as u64)?;
    let not_one = |cause: String| {
        Failure::operator(format!("{} is not an approval", path.display()))
            .next("give a file that `bellwether approve --detached` wrote")
            .because(cause)
    };
    let signed = Signed::decode(&bytes, SIGNED_APPROVAL_BYTES_MAX)
        .map_err(|error| not_one(error.to_string()))?;
    let approval =
        Approval::decode(signed.payload()).map_err(|error| not_one(error.to_string()))?;
    Ok(approval.package)
}

/// Opens the keys that sign now.
///
/// # Errors
/// When a key can't be opened, or the passphrase files don't fit the keys.
pub(crate) fn open_keys(signers: &Signers) -> Result<Vec<PrivateKey>> {
    let files = &signers.passphrase_files;
    if files.len() > 1 && files.len() != signers.keys.len() {
        return Err(Failure::operator(format!(
            "{} passphrase files for {} keys",
            files.len(),
            signers.keys.len()
        ))
        .next("give one --passphrase-file for all keys, or one for each in the same order"));
    }
    let mut keys = Vec::new();
    for (place, path) in signers.keys.iter().enumerate() {
        let file = files
            .get(place)
            .or_else(|| files.first().filter(|_| files.len() == 1));
        let passphrase = secret::passphrase(path, file.map(PathBuf::as_path))?;
        keys.push(PrivateKey::read(path, &passphrase)?);
    }
    Ok(keys)
}

/// The name of the person who holds `key`, whatever the role.
///
/// # Errors
/// When nobody in the trust root does.
pub(crate) fn holder(root: &TrustRoot, key: &PrivateKey) -> Result<String> {
    let public = PublicKey(key.public_bytes());
    root.holder(&public)
        .and_then(|index| root.person(index))
        .map(|person| person.name.to_string())
        .ok_or_else(|| {
            Failure::new(
                Who::Operator,
                format!("the key {public} belongs to no person of this trust root"),
            )
            .next("use a key that the trust root names; `bellwether trust show` lists them")
        })
}

/// The names of persons by their places.
pub(crate) fn names(root: &TrustRoot, persons: &[u8]) -> Vec<String> {
    persons
        .iter()
        .filter_map(|index| root.person(*index))
        .map(|person| person.name.to_string())
        .collect()
}

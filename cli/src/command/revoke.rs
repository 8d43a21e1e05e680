//! `bellwether revoke`: the next version of the revocation list, signed by one person after
//! another.

use std::path::Path;

use bellwether_package::revocations::SIGNED_REVOCATIONS_BYTES_MAX;
use bellwether_package::{
    DocumentType, PackageId, RevocationList, Revocations, RootChain, Signed, SignedBuf, UnixSecs,
};
use serde_json::{Value, json};

use crate::arguments::Revoke;
use crate::failure::{Failure, Result, Who};
use crate::files::{self, Existing, Readers};
use crate::keys::PrivateKey;
use crate::output::{Output, confirm, remark};
use crate::time::{self, DAY_SECS};
use crate::{documents, packages};

/// Makes the next version of a list, or signs one that somebody else made.
///
/// # Errors
/// When the list or the trust root is not valid, a key can't be opened, or the list is full.
pub(crate) fn revoke(request: &Revoke, now: UnixSecs, output: &mut Output) -> Result<()> {
    let (out, existing) = match &request.out {
        Some(out) => (out, Existing::Keep),
        None => (&request.revocations, Existing::Replace),
    };
    if existing == Existing::Keep {
        files::refuse_existing(out)?;
    }
    let chain = documents::trust_root(&request.trust_root)?;
    documents::remark_on_expiry(chain.latest(), now);
    let before = documents::read_revocations(&request.revocations)?;
    let mut signed = if request.sign_only {
        consent(&before, &chain, request)?
    } else {
        SignedBuf::unsigned(next(&before, &chain, request, now)?)
    };
    let keys = documents::open_keys(&request.signers)?;
    for key in &keys {
        documents::holder(chain.latest(), key)?;
        signed.add_signature(DocumentType::Revocations, PrivateKey::signing(key));
    }
    let bytes = signed
        .encode()
        .map_err(|error| Failure::operator("this list has too many signatures").because(error))?;
    if let (Existing::Replace, false, Err(error)) = (
        existing,
        request.sign_only,
        Revocations::verify(&bytes, chain.latest()),
    ) {
        // With a half-signed list nothing new could be installed meanwhile.
        return Err(Failure::new(Who::Approvers, "the new list needs more signatures than these")
            .next("name more keys with --sign-with, or collect signatures in another file: --out NEXT.bwr, then `bellwether revoke --revocations NEXT.bwr --sign-only`")
            .because(error));
    }
    files::write(out, &bytes, existing, Readers::Everybody)?;
    report(out, &bytes, &chain, output)
}

/// The payload of the next version: what is on the list stays on it.
fn next(before: &[u8], chain: &RootChain, request: &Revoke, now: UnixSecs) -> Result<Vec<u8>> {
    // After a rotation the old list may be signed by persons who left: any version of the chain
    // vouches for what was on it.
    let verified = chain
        .versions()
        .find_map(|root| Revocations::verify(before, root).ok());
    let verified = verified.ok_or_else(|| {
        Failure::new(
            Who::Approvers,
            format!(
                "{} is not validly signed under this trust root",
                request.revocations.display()
            ),
        )
        .next("finish its signatures with --sign-only before a next version is made")
    })?;
    let mut list = verified.list().clone();
    list.version = list.version.saturating_add(1);
    list.expires = now.plus_secs(u64::from(request.valid_days) * DAY_SECS);
    for given in &request.packages {
        let id = subject(given)?;
        if !list.packages.contains(&id) {
            list.packages.push(id).map_err(|_| {
                Failure::operator("the list holds no more packages")
                    .next("raise the least version of a model with --least instead")
            })?;
        }
    }
    for (model, least) in &request.least {
        match list.least.iter_mut().find(|(name, _)| name == model) {
            Some((_, held)) if *held > *least => {
                return Err(Failure::operator(format!(
                    "the least version of {model} is {held} already; {least} would lower it"
                ))
                .next("a least version only rises"));
            }
            Some((_, held)) => *held = *least,
            None => list.least.push((model.clone(), *least)).map_err(|_| {
                Failure::operator("the list holds no more models")
                    .next("revoke packages by their ids with --package instead")
            })?,
        }
    }
    list.encode()
        .map_err(|error| Failure::operator("this list can't be signed").because(error))
}

/// Shows the list that somebody else made, and asks whether to sign it.
fn consent(before: &[u8], chain: &RootChain, request: &Revoke) -> Result<SignedBuf> {
    let damaged = |cause: String| {
        Failure::operator(format!(
            "{} is not a revocation list",
            request.revocations.display()
        ))
        .next("give a .bwr file")
        .because(cause)
    };
    let signed = Signed::decode(before, SIGNED_REVOCATIONS_BYTES_MAX)
        .map_err(|error| damaged(error.to_string()))?;
    let list =
        RevocationList::decode(signed.payload()).map_err(|error| damaged(error.to_string()))?;
    if list.root != chain.id() {
        return Err(damaged("it was made for another trust root".to_owned()));
    }
    remark(text(&list).join("\n"));
    if !request.yes && !confirm("This is the whole list that you sign.", "--yes")? {
        return Err(Failure::operator("not signed: nobody said yes").next("nothing was changed"));
    }
    Ok(SignedBuf::from_signed(signed))
}

fn subject(given: &str) -> Result<PackageId> {
    match given.parse() {
        Ok(id) => Ok(id),
        Err(_) => packages::id(Path::new(given)),
    }
}

fn report(path: &Path, bytes: &[u8], chain: &RootChain, output: &mut Output) -> Result<()> {
    let verified = Revocations::verify(bytes, chain.latest());
    let signed = Signed::decode(bytes, SIGNED_REVOCATIONS_BYTES_MAX).map_err(ours)?;
    let list = RevocationList::decode(signed.payload()).map_err(ours)?;
    let root = chain.latest();
    let role = &root.document().approvers;
    let signers = root.persons_who_signed(role, DocumentType::Revocations, &signed);
    let names = documents::names(root, &signers);
    let shown = json!({
        "file": path.display().to_string(),
        "valid": verified.is_ok(),
        "version": list.version,
        "expires": list.expires,
        "packages": list.packages,
        "least": list.least.iter().map(|(model, version)| json!({
            "model": model, "version": version.to_string(),
        })).collect::<Vec<Value>>(),
        "signed_by": names,
        "threshold": role.threshold,
    });
    output.show(&shown, |output| {
        for line in text(&list) {
            output.line(line)?;
        }
        output.line(format!(
            "signed    by {} ({} needed)",
            names.join(", "),
            role.threshold
        ))?;
        if let Err(error) = &verified {
            output.line(format!("NOT VALID YET: {error}"))?;
            output.line(format!(
                "next: another approver runs `bellwether revoke --revocations {} --sign-only …`",
                path.display()
            ))?;
        }
        Ok(())
    })
}

fn text(list: &RevocationList) -> Vec<String> {
    let mut lines = vec![format!(
        "revocation list, version {}, expires {}",
        list.version,
        time::date(list.expires.0)
    )];
    lines.extend(
        list.packages
            .iter()
            .map(|package| format!("revoked   {package}")),
    );
    lines.extend(
        list.least
            .iter()
            .map(|(model, version)| format!("least     {model} {version}")),
    );
    if list.packages.is_empty() && list.least.is_empty() {
        lines.push("nothing is revoked".to_owned());
    }
    lines
}

fn ours(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(
        Who::Bellwether,
        "the list that was just written can't be read",
    )
    .because(error)
}

//! `bellwether trust`: who may approve and direct, and how many persons it takes.

use std::path::Path;

use bellwether_package::chain::{self, CHAIN_BYTES_MAX};
use bellwether_package::root::{Person, Role, SIGNED_ROOT_BYTES_MAX};
use bellwether_package::{
    DocumentType, PublicKey, RevocationList, Revocations, RootChain, RootDocument, Signed,
    SignedBuf, UnixSecs,
};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

use crate::arguments::{Signers, TrustInit, TrustRotate};
use crate::documents;
use crate::failure::{Failure, Result, Who};
use crate::files::{self, Existing, Readers};
use crate::keys;
use crate::output::{Output, remark};
use crate::time::{self, DAY_SECS};

/// Makes version 1 of a trust root, and version 1 of the revocation list beside it.
///
/// # Errors
/// When it would contradict itself, a key can't be opened, or a file exists.
pub(crate) fn init(request: &TrustInit, now: UnixSecs, output: &mut Output) -> Result<()> {
    let list_path = documents::revocations_beside(&request.out);
    files::refuse_existing(&request.out)?;
    files::refuse_existing(&list_path)?;
    let persons = persons(&request.persons)?;
    let document = RootDocument {
        version: 1,
        id: None,
        expires: now.plus_secs(u64::from(request.valid_days) * DAY_SECS),
        root: role(&persons, &request.root_persons, request.root_threshold)?,
        approvers: role(&persons, &request.approvers, request.approvers_threshold)?,
        director: directors(&request.directors)?,
        persons,
    };
    let keys = documents::open_keys(&request.signers)?;
    let signing: Vec<&SigningKey> = keys.iter().map(keys::PrivateKey::signing).collect();
    refuse_strangers(&[&document], &signing)?;
    let signed = document.sign(&signing).map_err(contradiction)?;
    let payload = document.encode().map_err(contradiction)?;
    let id = bellwether_package::RootId(bellwether_package::digest::sha256(&payload));
    let list_expires = now.plus_secs(u64::from(request.revocations_valid_days) * DAY_SECS);
    let list = RevocationList::genesis(id, list_expires)
        .sign(&signing)
        .map_err(contradiction)?;
    let file = chain::join(&[signed]).map_err(contradiction)?;
    files::write(&request.out, &file, Existing::Keep, Readers::Everybody)?;
    files::write(&list_path, &list, Existing::Keep, Readers::Everybody)?;
    after_writing(&request.out, &file, output)?;
    remark_on_list(&file, &list, &list_path);
    Ok(())
}

/// Makes the next version.
///
/// # Errors
/// When it would contradict itself, a key can't be opened, or the old chain is not valid.
pub(crate) fn rotate(request: &TrustRotate, now: UnixSecs, output: &mut Output) -> Result<()> {
    let (out, existing) = match &request.out {
        Some(out) => (out, Existing::Keep),
        None => (&request.root, Existing::Replace),
    };
    if existing == Existing::Keep {
        files::refuse_existing(out)?;
    }
    let chain = documents::trust_root(&request.root)?;
    let latest = chain.latest();
    let old = latest.document();
    let persons = if request.persons.is_empty() {
        old.persons.clone()
    } else {
        persons(&request.persons)?
    };
    let keep = |role: &Role| -> Vec<String> {
        let name = |index: &u8| Some(old.persons.get(usize::from(*index))?.name.to_string());
        let named: Vec<String> = role.persons.iter().filter_map(name).collect();
        // Whoever left has no role any more; a role that all had stays everybody's.
        if named.len() == old.persons.len() {
            return Vec::new();
        }
        named
            .into_iter()
            .filter(|name| persons.iter().any(|one| one.name.as_str() == name))
            .collect()
    };
    let names = |given: &Vec<String>, role| {
        if given.is_empty() {
            keep(role)
        } else {
            given.clone()
        }
    };
    let root_names = names(&request.root_persons, &old.root);
    let approver_names = names(&request.approvers, &old.approvers);
    let document = RootDocument {
        version: old.version.saturating_add(1),
        id: Some(latest.id()),
        expires: now.plus_secs(u64::from(request.valid_days) * DAY_SECS),
        root: role(
            &persons,
            &root_names,
            request.root_threshold.unwrap_or(old.root.threshold),
        )?,
        approvers: role(
            &persons,
            &approver_names,
            request
                .approvers_threshold
                .unwrap_or(old.approvers.threshold),
        )?,
        director: match &request.directors[..] {
            [] => old.director.clone(),
            given => directors(given)?,
        },
        persons,
    };
    let keys = documents::open_keys(&request.signers)?;
    let signing: Vec<&SigningKey> = keys.iter().map(keys::PrivateKey::signing).collect();
    refuse_strangers(&[old, &document], &signing)?;
    let signed = document.sign(&signing).map_err(contradiction)?;
    let before = read_chain(&request.root)?;
    let mut versions: Vec<Vec<u8>> = chain::split(&before)
        .map_err(contradiction)?
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
    versions.push(signed);
    let file = chain::join(&versions).map_err(contradiction)?;
    if let (Existing::Replace, Err(error)) = (existing, RootChain::verify_from_first(&file)) {
        // A chain with a half-signed end is worth nothing to those who use it meanwhile.
        return Err(Failure::new(Who::Approvers, "the new version needs more signatures than these")
            .next("name more keys with --sign-with, or collect signatures in another file: --out NEXT.bwt, then `bellwether trust sign NEXT.bwt`")
            .because(error));
    }
    files::write(out, &file, existing, Readers::Everybody)?;
    after_writing(out, &file, output)?;
    let list_path = documents::revocations_beside(&request.root);
    if let Ok(list) = documents::read_revocations(&list_path) {
        remark_on_list(&file, &list, &list_path);
    }
    Ok(())
}

/// Adds signatures to the last version of a chain.
///
/// # Errors
/// When a key can't be opened or belongs to nobody, or the file is damaged.
pub(crate) fn sign(path: &Path, signers: &Signers, output: &mut Output) -> Result<()> {
    let before = read_chain(path)?;
    let mut versions: Vec<Vec<u8>> = chain::split(&before)
        .map_err(contradiction)?
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
    let documents: Vec<RootDocument> = versions
        .iter()
        .map(|version| chain::peek(version))
        .collect::<std::result::Result<_, _>>()
        .map_err(contradiction)?;
    let Some(last) = versions.last_mut() else {
        return Err(Failure::operator(format!(
            "{} holds no version",
            path.display()
        )));
    };
    let keys = documents::open_keys(signers)?;
    let signing: Vec<&SigningKey> = keys.iter().map(keys::PrivateKey::signing).collect();
    // The last version needs its own persons and those of the version before.
    let around: Vec<&RootDocument> = documents.iter().rev().take(2).collect();
    refuse_strangers(&around, &signing)?;
    let mut signed =
        SignedBuf::from_signed(Signed::decode(last, SIGNED_ROOT_BYTES_MAX).map_err(contradiction)?);
    for key in signing {
        signed.add_signature(DocumentType::TrustRoot, key);
    }
    *last = signed.encode().map_err(contradiction)?;
    let file = chain::join(&versions).map_err(contradiction)?;
    files::write(path, &file, Existing::Replace, Readers::Everybody)?;
    after_writing(path, &file, output)
}

/// Shows who may do what.
///
/// # Errors
/// When the file is damaged; a version that lacks signatures is shown as such.
pub(crate) fn show(path: &Path, now: UnixSecs, output: &mut Output) -> Result<()> {
    let file = read_chain(path)?;
    describe(&file, Some(now), output)
}

fn after_writing(path: &Path, file: &[u8], output: &mut Output) -> Result<()> {
    remark(format!("wrote {}", path.display()));
    describe(file, None, output)
}

fn describe(file: &[u8], now: Option<UnixSecs>, output: &mut Output) -> Result<()> {
    let verified = RootChain::verify_from_first(file);
    let versions = chain::split(file).map_err(contradiction)?;
    let Some(document) = versions.last().map(|last| chain::peek(last)) else {
        return Err(Failure::operator("the file holds no version"));
    };
    let document = document.map_err(contradiction)?;
    let missing = verified.as_ref().err().map(ToString::to_string);
    let (id, fingerprint) = match &verified {
        Ok(chain) => (
            Some(chain.id().to_string()),
            Some(chain.latest().fingerprint().to_string()),
        ),
        Err(_) => (document.id.map(|id| id.to_string()), None),
    };
    let shown = json!({
        "valid": missing.is_none(),
        "missing": missing,
        "root": id,
        "fingerprint": fingerprint,
        "version": document.version,
        "expires": document.expires,
        "persons": document.persons.iter().map(|person| json!({
            "name": person.name.as_str(), "keys": person.keys,
        })).collect::<Vec<Value>>(),
        "root_role": role_json(&document, &document.root),
        "approvers": role_json(&document, &document.approvers),
        "director": document.director,
    });
    output.show(&shown, |output| {
        if let Some(missing) = &missing {
            output.line(format!("NOT VALID YET: {missing}"))?;
            output.line("next: another person runs `bellwether trust sign` on this file")?;
        }
        output.line(format!("root         {}", id.as_deref().unwrap_or("-")))?;
        output.line(format!(
            "fingerprint  {}",
            fingerprint.as_deref().unwrap_or("-")
        ))?;
        let expired = now.is_some_and(|now| document.expires <= now);
        output.line(format!(
            "version      {}, {} {}",
            document.version,
            if expired { "EXPIRED" } else { "expires" },
            time::date(document.expires.0)
        ))?;
        output.line(format!(
            "changed by   {}",
            role_text(&document, &document.root)
        ))?;
        output.line(format!(
            "approved by  {}",
            role_text(&document, &document.approvers)
        ))?;
        for person in &document.persons {
            let keys: Vec<_> = person.keys.iter().map(ToString::to_string).collect();
            output.line(format!("person       {}: {}", person.name, keys.join(" ")))?;
        }
        for key in &document.director {
            output.line(format!("director     {key}"))?;
        }
        Ok(())
    })
}

/// Says what the revocation list still lacks under the newest root.
fn remark_on_list(file: &[u8], list: &[u8], path: &Path) {
    let Ok(chain) = RootChain::verify_from_first(file) else {
        return;
    };
    if let Err(error) = Revocations::verify(list, chain.latest()) {
        remark(format!(
            "note: {} is not valid under this root yet ({error}); more persons sign it with \
             `bellwether revoke --revocations {} --sign-only …`",
            path.display(),
            path.display()
        ));
    }
}

fn persons(given: &[String]) -> Result<heapless::Vec<Person, 16, u8>> {
    let mut persons = heapless::Vec::new();
    for text in given {
        let (name, files) = text.split_once('=').ok_or_else(|| {
            Failure::operator(format!("`{text}` is not NAME=KEY"))
                .next("give --person alice=alice.pub")
        })?;
        let name = heapless::String::try_from(name)
            .map_err(|_| Failure::operator(format!("the name `{name}` is too long")))?;
        let mut keys = heapless::Vec::new();
        for file in files.split(',') {
            let key = PublicKey(keys::read_public(file)?);
            keys.push(key).map_err(|_| {
                Failure::operator(format!("{name} has too many keys"))
                    .next("a person has at most four keys")
            })?;
        }
        persons.push(Person { name, keys }).map_err(|_| {
            Failure::operator("too many persons").next("a trust root has at most 16 persons")
        })?;
    }
    Ok(persons)
}

fn role(persons: &[Person], names: &[String], threshold: u8) -> Result<Role> {
    let mut indices = heapless::Vec::new();
    for (place, person) in persons.iter().enumerate() {
        if names.is_empty() || names.iter().any(|name| person.name.as_str() == name) {
            // There are at most 16 persons.
            let _ = indices.push(place as u8);
        }
    }
    if let Some(stranger) = names.iter().find(|name| {
        !persons
            .iter()
            .any(|person| person.name.as_str() == name.as_str())
    }) {
        return Err(
            Failure::operator(format!("there is no person `{stranger}`"))
                .next("name every person with --person first"),
        );
    }
    if threshold == 0 || usize::from(threshold) > indices.len() {
        return Err(Failure::operator(format!(
            "a threshold of {threshold} can't be reached by {} persons",
            indices.len()
        ))
        .next("two keys of one person are one person: name more persons, or lower the threshold"));
    }
    Ok(Role {
        persons: indices,
        threshold,
    })
}

fn directors(given: &[String]) -> Result<heapless::Vec<PublicKey, 4, u8>> {
    let mut keys = heapless::Vec::new();
    for text in given {
        keys.push(PublicKey(keys::read_public(text)?))
            .map_err(|_| {
                Failure::operator("too many director keys").next("a trust root has at most four")
            })?;
    }
    Ok(keys)
}

/// A signature that nobody counts only looks like one: refuse to make it.
fn refuse_strangers(documents: &[&RootDocument], keys: &[&SigningKey]) -> Result<()> {
    for key in keys {
        let public = bellwether_package::sign::public_key(key);
        let known = documents.iter().any(|document| {
            document
                .root
                .persons
                .iter()
                .chain(&document.approvers.persons)
                .any(|index| {
                    let person = document.persons.get(usize::from(*index));
                    person.is_some_and(|person| person.keys.contains(&public))
                })
        });
        if !known {
            return Err(Failure::operator(format!(
                "the key {public} belongs to no person of this trust root"
            ))
            .next("sign with the keys of persons that it names"));
        }
    }
    Ok(())
}

fn role_json(document: &RootDocument, role: &Role) -> Value {
    json!({ "persons": role_names(document, role), "threshold": role.threshold })
}

fn role_text(document: &RootDocument, role: &Role) -> String {
    format!(
        "{} of {}",
        role.threshold,
        role_names(document, role).join(", ")
    )
}

fn role_names(document: &RootDocument, role: &Role) -> Vec<String> {
    role.persons
        .iter()
        .filter_map(|index| document.persons.get(usize::from(*index)))
        .map(|person| person.name.to_string())
        .collect()
}

fn read_chain(path: &Path) -> Result<Vec<u8>> {
    files::read(path, CHAIN_BYTES_MAX as u64)
}

fn contradiction(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Who::Operator, "this can't be a trust root")
        .next("correct what the cause names, and run it again")
        .because(error)
}

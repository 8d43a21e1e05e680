//! `bellwether approve`: a person looks at a package's very bytes, and signs what they decide.

use std::path::Path;

use bellwether_package::approval::{APPROVALS_MAX, SLOTS_MAX};
use bellwether_package::{Approval, Decision, PublicKey, TrustRoot, UnixSecs};
use bellwether_runtime::{Options, Proof, Shortfall, prove_intact};
use serde_json::json;

use super::inspect;
use crate::arguments::Approve;
use crate::command::difference;
use crate::failure::{Failure, Result, Who};
use crate::files::{self, Existing, Readers};
use crate::keys::PrivateKey;
use crate::output::{self, Output, human_bytes, remark};
use crate::packages::{self, Opened};
use crate::time::{self, DAY_SECS};
use crate::{documents, rehearsal, secret};

/// A device whose clock is this far behind the approver's still accepts at once.
const CLOCK_SLACK_SECS: u64 = 600;

/// Shows, asks, signs, and appends.
///
/// # Errors
/// When the package is damaged or does not do what it says, nobody consents, or the key is
/// nobody's.
pub(crate) fn approve(request: &Approve, now: UnixSecs, output: &mut Output) -> Result<()> {
    if let Some(detached) = &request.detached {
        files::refuse_existing(detached)?;
    }
    let chain = documents::trust_root(&request.trust_root)?;
    let root = chain.latest();
    documents::remark_on_expiry(root, now);
    let opened = packages::open(&request.package)?;
    let approval = approval(request, &opened, root, now)?;
    let champion = request
        .champion
        .as_deref()
        .map(packages::open)
        .transpose()?;
    show(output, inspect::lines(&opened.package))?;
    if let Some(champion) = &champion {
        show(
            output,
            difference::lines(&champion.package, &opened.package),
        )?;
    }
    show(output, scope_lines(request, &approval))?;
    // Programs have no golden vectors: a device tries them before they may run.
    if opened.package.program().is_none() {
        let proof = prove(request, &opened)?;
        show(output, proof_lines(&proof))?;
        refuse_untrue(&opened, &proof, approval.decision)?;
    }
    let question = match approval.decision {
        Decision::Approve => "You are about to APPROVE this package for the scope above.",
        Decision::Reject => "You are about to REJECT this package: your approvals of it are void.",
    };
    output.flush()?;
    if !request.yes && !output::confirm(question, "--yes")? {
        return Err(Failure::operator("not signed: nobody said yes").next("nothing was changed"));
    }
    let passphrase = secret::passphrase(&request.key, request.passphrase_file.as_deref())?;
    let key = PrivateKey::read(&request.key, &passphrase)?;
    let person = approver(root, &key)?;
    let signed = approval.sign(key.signing()).map_err(|error| {
        Failure::operator("this approval can't be signed")
            .next("correct what the cause names")
            .because(error)
    })?;
    let file = keep(request, &opened, root, signed)?;
    report(&opened, root, &person, &approval, &file, output)
}

fn approval(
    request: &Approve,
    opened: &Opened,
    root: &TrustRoot,
    now: UnixSecs,
) -> Result<Approval> {
    let too_many = |what: &str| {
        Failure::operator(format!("too many {what}")).next(format!(
            "an approval names at most {SLOTS_MAX}; sign a second one for the rest"
        ))
    };
    let mut approval = Approval {
        root: root.id(),
        package: opened.package.id(),
        decision: if request.reject {
            Decision::Reject
        } else {
            Decision::Approve
        },
        slots: heapless::Vec::new(),
        selectors: heapless::Vec::new(),
        not_before: UnixSecs(now.0.saturating_sub(CLOCK_SLACK_SECS)),
        expires: now.plus_secs(u64::from(request.valid_days) * DAY_SECS),
        at: now,
        reason: heapless::String::try_from(request.reason.as_str()).map_err(|_| {
            Failure::operator("the reason is longer than 256 bytes")
                .next("say it in a sentence or two")
        })?,
    };
    for slot in &request.slots {
        approval
            .slots
            .push(slot.clone())
            .map_err(|_| too_many("slots"))?;
    }
    for cohort in &request.cohorts {
        approval
            .selectors
            .push(cohort.clone())
            .map_err(|_| too_many("cohorts"))?;
    }
    Ok(approval)
}

fn prove(request: &Approve, opened: &Opened) -> Result<Proof> {
    // The proof takes the sealed bytes for itself; they are read once more from the same file.
    let blob = opened.blob_again(&request.package)?;
    let bar = output::progress(1, "running golden vectors");
    let options = Options::new(rehearsal::worker_program()?);
    let proof = prove_intact(&opened.package, blob, options);
    bar.finish_and_clear();
    proof.map_err(|error| {
        Failure::new(Who::Package, "the golden vectors could not be run")
            .next("don't approve it: a device could not run it either")
            .because(error)
    })
}

/// A package that does not do here what it says it does is not signed.
fn refuse_untrue(opened: &Opened, proof: &Proof, decision: Decision) -> Result<()> {
    let mismatch = proof
        .shortfalls()
        .into_iter()
        .find(|shortfall| matches!(shortfall, Shortfall::Mismatch { .. }));
    match mismatch {
        Some(_) if decision == Decision::Reject => Ok(()),
        Some(_) if opened.package.manifest().golden_mismatch_allowed() => {
            remark(inspect::MISMATCH_ALLOWED);
            Ok(())
        }
        Some(mismatch) => Err(Failure::new(
            Who::Package,
            "the package does not compute here what it says it computes",
        )
        .next("don't approve it; `--reject` puts that on record")
        .because(mismatch)),
        None => Ok(()),
    }
}

/// The approver who holds `key`.
fn approver(root: &TrustRoot, key: &PrivateKey) -> Result<String> {
    let person = documents::holder(root, key)?;
    let place = root.holder(&PublicKey(key.public_bytes()));
    let role = &root.document().approvers;
    if place.is_some_and(|place| role.persons.contains(&place)) {
        return Ok(person);
    }
    Err(
        Failure::operator(format!("{person} is no approver of this trust root"))
            .next("have an approver sign; `bellwether trust show` lists them"),
    )
}

/// Writes the approval into the package, or to a file of its own.
fn keep(request: &Approve, opened: &Opened, root: &TrustRoot, signed: Vec<u8>) -> Result<String> {
    if let Some(detached) = &request.detached {
        files::write(detached, &signed, Existing::Keep, Readers::Everybody)?;
        return Ok(detached.display().to_string());
    }
    let mut approvals: Vec<Vec<u8>> = opened
        .package
        .header()
        .approvals()
        .map(<[u8]>::to_vec)
        .collect();
    if approvals.len() >= APPROVALS_MAX {
        // Room is made only by dropping what counts for nobody.
        approvals.retain(|signed| Approval::verify(signed, root).is_ok());
    }
    approvals.push(signed);
    if approvals.len() > APPROVALS_MAX {
        return Err(Failure::operator(format!(
            "the package carries {APPROVALS_MAX} approvals already"
        ))
        .next("write this one to a file of its own with --detached, and publish that"));
    }
    opened.replace_approvals(&request.package, approvals)?;
    Ok(request.package.display().to_string())
}

fn report(
    opened: &Opened,
    root: &TrustRoot,
    person: &str,
    approval: &Approval,
    file: &str,
    output: &mut Output,
) -> Result<()> {
    let (counted, needed) = progress(Path::new(file), opened, root);
    let shown = json!({
        "id": opened.package.id(),
        "decision": inspect::decision_word(approval.decision),
        "person": person,
        "file": file,
        "approvers": counted,
        "approvers_needed": needed,
    });
    output.show(&shown, |output| {
        output.line(format!(
            "signed by {person}: {} {}, in {file}",
            inspect::decision_word(approval.decision),
            opened.package.id().short()
        ))?;
        match approval.decision {
            Decision::Reject => Ok(()),
            Decision::Approve => output.line(format!(
                "approved so far by {} ({needed} needed)",
                counted.join(", ")
            )),
        }
    })
}

/// The persons whose approvals the file carries now.
fn progress(file: &Path, opened: &Opened, root: &TrustRoot) -> (Vec<String>, u8) {
    let needed = root.document().approvers.threshold;
    let approvals: Vec<Vec<u8>> = match packages::open(file) {
        Ok(again) => again
            .package
            .header()
            .approvals()
            .map(<[u8]>::to_vec)
            .collect(),
        // A detached approval: it and those that the package carries.
        Err(_) => std::fs::read(file)
            .into_iter()
            .chain(opened.package.header().approvals().map(<[u8]>::to_vec))
            .collect(),
    };
    let mut persons: Vec<u8> = Vec::new();
    for signed in &approvals {
        let Ok((approval, signers)) = Approval::verify(signed, root) else {
            continue;
        };
        if approval.package == opened.package.id() && approval.decision == Decision::Approve {
            persons.extend(signers.iter().copied());
        }
    }
    persons.sort_unstable();
    persons.dedup();
    (documents::names(root, &persons), needed)
}

fn scope_lines(request: &Approve, approval: &Approval) -> Vec<String> {
    let texts = |texts: Vec<String>| texts.join(" ");
    vec![
        "scope of this approval".to_owned(),
        format!(
            "  slots         {}",
            texts(approval.slots.iter().map(ToString::to_string).collect())
        ),
        format!(
            "  cohorts       {}",
            texts(approval.selectors.iter().map(ToString::to_string).collect())
        ),
        format!(
            "  valid         {} to {} ({} days)",
            time::date(approval.not_before.0),
            time::date(approval.expires.0),
            request.valid_days
        ),
        format!("  reason        {}", approval.reason),
    ]
}

fn proof_lines(proof: &Proof) -> Vec<String> {
    let mut lines = vec![format!(
        "golden vectors run here: {} cases, {} elements, {} outside the tolerance; p99 {} µs, {}",
        proof.cases,
        proof.elements,
        proof.mismatches,
        proof.latency_us_p99,
        human_bytes(proof.memory_bytes)
    )];
    lines.extend(
        proof
            .shortfalls()
            .iter()
            .map(|shortfall| format!("  FALLS SHORT: {shortfall}")),
    );
    lines
}

/// For people on standard output; beside JSON on standard error.
fn show(output: &mut Output, lines: Vec<String>) -> Result<()> {
    for line in lines {
        if output.json() {
            remark(line);
        } else {
            output.line(line)?;
        }
    }
    Ok(())
}

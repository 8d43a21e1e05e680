//! `bellwether verify`: what a device would say about a package.

use bellwether_package::verify::{Standing, Vote, votes};
use bellwether_package::{
    IntactPackage, Refusal, Revocations, RootChain, UnixSecs, VerifiedPackage, Verifier,
};
use serde_json::{Value, json};

use super::inspect;
use crate::arguments::{Scope, Verify};
use crate::documents;
use crate::failure::{Failure, Result, Who};
use crate::output::Output;
use crate::packages;

/// What a package is judged by.
pub(crate) struct Judge {
    chain: RootChain,
    revocations: Revocations,
}

/// Says who approved a package for a device, or why it would be refused; `true` if approved.
///
/// # Errors
/// When package, trust root or revocation list are damaged.
pub(crate) fn verify(request: &Verify, now: UnixSecs, output: &mut Output) -> Result<bool> {
    let judge = Judge::read(&request.scope)?;
    let package = packages::open(&request.package)?.package;
    let verdict = judge.judge(package.clone(), &request.scope, now);
    let votes = judge.votes(&package, now);
    let root = judge.chain.latest();
    let names = match &verdict {
        Ok(verified) => documents::names(root, verified.approved_by()),
        Err(_) => Vec::new(),
    };
    let refused = verdict.as_ref().err().map(why);
    let inactive = package
        .activation()
        .and_then(|policy| policy.allows(&request.scope.attributes, Some(now)).err())
        .map(|inactive| inactive.to_string());
    let shown = json!({
        "id": package.id(),
        "model": package.manifest().model,
        "version": package.manifest().version.to_string(),
        "approved": verdict.is_ok(),
        "approved_by": names,
        "refused_because": refused,
        "slot": request.scope.slot,
        "active_now": inactive.is_none(),
        "inactive_because": inactive,
        "golden_mismatch_allowed": package.manifest().golden_mismatch_allowed(),
        "root_version": root.version(),
        "revocations_version": judge.revocations.version(),
        "votes": votes.iter().map(vote_json).collect::<Vec<_>>(),
    });
    output.show(&shown, |output| {
        let manifest = package.manifest();
        output.line(format!(
            "{} {}  {}",
            manifest.model,
            manifest.version,
            package.id()
        ))?;
        match &refused {
            None => output.line(format!(
                "APPROVED for slot {} by {}",
                request.scope.slot,
                names.join(", ")
            ))?,
            Some(reason) => output.line(format!("REFUSED: {reason}"))?,
        }
        for vote in &votes {
            output.line(format!(
                "  {:<10} {} ({})",
                vote.name,
                inspect::approval_line(&vote.approval),
                standing_word(vote.standing)
            ))?;
        }
        if manifest.golden_mismatch_allowed() {
            output.line(format!("  {}", inspect::MISMATCH_ALLOWED))?;
        }
        if let Some(why) = &inactive {
            output.line(format!("  it does not run here and now: {why}"))?;
        }
        Ok(())
    })?;
    Ok(verdict.is_ok())
}

impl Judge {
    /// Reads trust root and revocation list.
    ///
    /// # Errors
    /// When one of them is not valid.
    pub(crate) fn read(scope: &Scope) -> Result<Self> {
        let chain = documents::trust_root(&scope.trust_root)?;
        let path = scope
            .revocations
            .clone()
            .unwrap_or_else(|| documents::revocations_beside(&scope.trust_root));
        let revocations = documents::revocations(&path, chain.latest())?;
        Ok(Self { chain, revocations })
    }

    /// What a device with these attributes would say.
    pub(crate) fn judge(
        &self,
        package: IntactPackage,
        scope: &Scope,
        now: UnixSecs,
    ) -> std::result::Result<VerifiedPackage, Refusal> {
        let verifier = Verifier {
            root: self.chain.latest(),
            revocations: &self.revocations,
            slot: &scope.slot,
            attributes: &scope.attributes,
            now: Some(now),
        };
        verifier.verify_for_install(package)
    }

    /// Everybody's valid votes.
    pub(crate) fn votes(&self, package: &IntactPackage, now: UnixSecs) -> Vec<Vote> {
        votes(
            self.chain.latest(),
            &package.id(),
            package.header().approvals(),
            now,
        )
    }
}

/// A refusal as a failure, for commands that can't go on after it.
pub(crate) fn refusal(refusal: Refusal, scope: &Scope) -> Failure {
    Failure::new(
        Who::Approvers,
        format!(
            "the package is not approved for slot {} here: {}",
            scope.slot,
            why(&refusal)
        ),
    )
    .next("have it approved with `bellwether approve`, for this slot and these attributes (--attr)")
}

fn why(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Revoked(revoked) => format!("it is revoked: {revoked}"),
        other => other.to_string(),
    }
}

fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::InForce => "in force",
        Standing::NotYet => "not valid yet",
        Standing::Expired => "expired",
        Standing::Voided => "voided by the same person's rejection",
        Standing::Rejection => "rejection",
    }
}

fn vote_json(vote: &Vote) -> Value {
    json!({
        "person": vote.name,
        "decision": inspect::decision_word(vote.approval.decision),
        "standing": standing_word(vote.standing),
        "slots": vote.approval.slots,
        "selectors": vote.approval.selectors,
        "expires": vote.approval.expires,
        "reason": vote.approval.reason.as_str(),
    })
}

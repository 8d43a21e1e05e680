//! The golden proof of a package that was checked.

use std::path::Path;

use bellwether_package::{PackageId, SlotName};
use bellwether_protocol::ProofFailure;
use bellwether_runtime::{ProveError, RunError, Shortfall};

use crate::agent::with_a_good_disk;
use crate::causes::with_causes;
use crate::clock;
use crate::config::Config;
use crate::serving::{options, worker_death};
use crate::trust::Trust;

/// Runs the golden vectors of a package that was checked. Blocking.
///
/// # Errors
///
/// Where it falls short.
pub(crate) fn prove(
    path: &Path,
    release: PackageId,
    slot: &SlotName,
    trust: &Trust,
    config: &Config,
) -> Result<(), ProofFailure> {
    let attributes = config.attributes();
    let verify = || trust.verify_new(path, release, slot, &attributes, clock::now());
    let verified = with_a_good_disk(verify);
    let (package, blob) = verified.map_err(|why| {
        tracing::warn!(release = %release.short(), %why, "refused before its proof");
        ProofFailure::Other
    })?;
    let proof = bellwether_runtime::prove(&package, blob, options(config)).map_err(|error| {
        tracing::warn!(release = %release.short(), error = %with_causes(&error), "no proof");
        unproved(&error)
    })?;
    match proof.shortfalls().into_iter().next() {
        None => Ok(()),
        Some(Shortfall::Mismatch { worst, .. }) => {
            let case = u32::try_from(worst.case).unwrap_or(u32::MAX);
            if !worst.got.is_finite() && worst.expected.is_finite() {
                return Err(ProofFailure::Nonfinite { case });
            }
            let difference = (worst.got - worst.expected).abs() as f32;
            let tolerance = worst.tolerance as f32;
            Err(ProofFailure::GoldenMismatch {
                case,
                difference,
                tolerance,
            })
        }
        Some(Shortfall::Latency { found, budget }) => Err(ProofFailure::Latency {
            us_p99: found,
            us_p99_max: budget,
        }),
        Some(Shortfall::Memory { found, budget }) => Err(ProofFailure::Memory {
            bytes: found,
            bytes_max: budget,
        }),
    }
}

fn unproved(error: &ProveError) -> ProofFailure {
    use bellwether_runtime::OpenError as Open;
    match error {
        ProveError::Open(Open::Died(death))
        | ProveError::Run {
            source: RunError::Died(death),
            ..
        } => ProofFailure::WorkerDied(worker_death(death)),
        ProveError::Open(Open::Start(_) | Open::Blob(_)) => ProofFailure::Other,
        _ => ProofFailure::Unsupported,
    }
}

//! Counting: who has committed, failed, fallen silent, and since when.

use alloc::vec::Vec;

use bellwether_package::ids::UnixSecs;

use super::policy::Policy;
use super::snapshot::{DeviceView, Rollout, Snapshot};

/// Where the treated devices stand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standing<'a> {
    pub(super) treated: Vec<&'a DeviceView>,
    pub(super) failed: Vec<&'a DeviceView>,
    pub(super) succeeded: usize,
    /// Devices that must have committed: the policy's share, of which as many may be missing as
    /// may lie, so that a liar cannot hold a rollout by itself.
    pub(super) needed: usize,
    pub(super) silent: usize,
    /// When the needed number was reached, or the stage if that was later.
    pub(super) soaking_since: Option<UnixSecs>,
}

impl<'a> Standing<'a> {
    pub(super) fn of(
        policy: &Policy,
        rollout: &Rollout,
        snapshot: &'a Snapshot,
        now: UnixSecs,
    ) -> Self {
        let treated: Vec<&DeviceView> = snapshot
            .devices
            .iter()
            .filter(|view| view.arm.is_treated())
            .collect();
        let failed = treated
            .iter()
            .copied()
            .filter(|view| view.has_failed())
            .collect();
        let silence_secs = policy.gates.silence_secs;
        let silent = treated
            .iter()
            .filter(|view| is_silent(view, silence_secs, now))
            .count();
        let mut committed_at: Vec<UnixSecs> = treated
            .iter()
            .filter(|view| view.has_committed())
            .filter_map(|view| view.outcome.as_ref().map(|told| told.at))
            .collect();
        committed_at.sort_unstable();
        let share = u64::from(policy.gates.succeeded_share_min_ppm);
        let needed = (share * treated.len() as u64).div_ceil(1_000_000) as usize;
        let honest = treated
            .len()
            .saturating_sub(policy.certainty.liars as usize);
        let needed = needed.min(honest).max(1);
        Self {
            failed,
            succeeded: committed_at.len(),
            needed,
            silent,
            soaking_since: committed_at
                .get(needed - 1)
                .map(|at| (*at).max(rollout.stage_since)),
            treated,
        }
    }

    /// Whether more devices are silent than may be.
    pub(super) fn is_silent(&self, policy: &Policy) -> bool {
        self.silent as u64 * 1_000_000
            > u64::from(policy.gates.silent_share_max_ppm) * self.treated.len() as u64
    }
}

/// Unheard of for too long, or without an outcome for too long after its order.
fn is_silent(view: &DeviceView, silence_secs: u64, now: UnixSecs) -> bool {
    let long_since =
        |since: Option<UnixSecs>| since.is_none_or(|since| now.secs_since(since) >= silence_secs);
    long_since(view.last_seen.max(view.assigned_at))
        || (view.outcome.is_none() && long_since(view.assigned_at))
}

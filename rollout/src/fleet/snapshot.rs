//! What is known of a rollout and its devices, as the server has stored it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use bellwether_package::ids::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::{DeviceId, OutcomeKind, Phase, Refusal, RolloutId};

use super::score::Scores;

/// A release, and what people call it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The package.
    pub id: PackageId,
    /// Its version, for reasons: `2.0.0`.
    pub label: String,
}

/// The staged change of a cohort from one release to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Which one.
    pub id: RolloutId,
    /// The slot.
    pub slot: SlotName,
    /// The release that is rolled out.
    pub release: Release,
    /// The release that the control arm serves; `None` if the slot was empty.
    pub previous: Option<Release>,
    /// Whether it goes on.
    pub state: RolloutState,
    /// The stage reached, as an index into the policy's; `None` before the first.
    pub stage: Option<u8>,
    /// When that stage was reached, or the rollout started.
    pub stage_since: UnixSecs,
    /// Raised by every change of the rollout; a commit compares it.
    pub generation: u64,
}

/// Whether a rollout goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// Not started.
    Draft,
    /// Decided by [`plan`](super::plan).
    Running,
    /// Held by a person, or by a decision.
    Paused,
    /// Its devices were ordered back.
    RolledBack,
    /// Its devices were ordered to answer with nothing.
    Disabled,
    /// Done.
    Complete,
}

/// Everything that a decision is made from, apart from policy and rollout.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// The generation of the rollout that it was read with.
    pub generation: u64,
    /// The devices of the cohort, in any order.
    pub devices: Vec<DeviceView>,
    /// Names of the input fields, in the contract's order.
    pub inputs: Vec<String>,
    /// Names of the output fields, in the contract's order.
    pub outputs: Vec<String>,
}

/// What is known of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceView {
    /// Which one.
    pub device: DeviceId,
    /// Its arm.
    pub arm: Arm,
    /// When it was assigned the release that is rolled out; `None` in the control arm.
    pub assigned_at: Option<UnixSecs>,
    /// When the server last heard of it, by the server's clock.
    pub last_seen: Option<UnixSecs>,
    /// Where its update machine stood last.
    pub phase: Option<Phase>,
    /// What it served last.
    pub serving: Option<PackageId>,
    /// The last outcome of this rollout's order on it.
    pub outcome: Option<Told>,
    /// Its figures since the rollout started (control) or since it was assigned (treated).
    pub scores: Option<Scores>,
}

/// The arm of a device in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// Assigned the new release, from this stage on.
    Treated {
        /// Index of the stage that drew it.
        stage: u8,
    },
    /// On the older release until a stage draws it.
    Control,
    /// On the older release until the last soak ends.
    Holdout,
}

/// An outcome that the server was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// What happened.
    pub kind: OutcomeKind,
    /// When the server learned it, by the server's clock.
    pub at: UnixSecs,
}

impl Arm {
    /// Whether the device was assigned the new release.
    pub fn is_treated(self) -> bool {
        matches!(self, Self::Treated { .. })
    }
}

impl DeviceView {
    /// Whether it has committed the release that is rolled out, and nothing else since.
    pub fn has_committed(&self) -> bool {
        self.arm.is_treated()
            && matches!(&self.outcome, Some(told) if told.kind == OutcomeKind::Committed)
    }

    /// Whether the release failed on it. What lies at the device (no way to download, no space, a
    /// stale revocation list) is no failure of the release: the device has merely not committed.
    pub fn has_failed(&self) -> bool {
        self.arm.is_treated()
            && self.outcome.as_ref().is_some_and(|told| match told.kind {
                OutcomeKind::Refused(why) => !lies_at_device(why),
                OutcomeKind::FailedBeforeServing(_)
                | OutcomeKind::RolledBackItself(_)
                | OutcomeKind::UnableToRollBack(_)
                | OutcomeKind::Lost(_) => true,
                OutcomeKind::Committed
                | OutcomeKind::RolledBackByOrder
                | OutcomeKind::Disabled(_) => false,
            })
    }
}

fn lies_at_device(why: Refusal) -> bool {
    matches!(
        why,
        Refusal::Unreachable { .. }
            | Refusal::TooLarge { .. }
            | Refusal::NoSpace { .. }
            | Refusal::TooNew
            | Refusal::RevocationsStale
            | Refusal::RootExpired
            | Refusal::DeviceStopped
            | Refusal::Other
            | Refusal::NotOffered { .. }
    )
}

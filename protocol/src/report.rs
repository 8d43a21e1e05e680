//! What a device tells: windows of counts, health, outcomes, status.

use serde::{Deserialize, Serialize};

use bellwether_package::ids::{PackageId, SlotName, UnixSecs};

use crate::health::{BriefHealth, Health};
use crate::ids::{BootId, RolloutId, Sequence};
use crate::labels::Labels;
use crate::message::Message;
use crate::outcome::Outcome;
use crate::window::Window;

/// One record of a device's outbox. `(boot, seq)` names it: the server stores it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which start of the agent.
    pub boot: BootId,
    /// Counts up within the boot.
    pub seq: u64,
    /// When it was recorded, by the device's clock.
    pub at: UnixSecs,
    /// What is told.
    pub record: Record,
}

/// What a report tells. Append only: devices in the field keep these numbers.
// A window is much larger than the rest; boxing it needs a heap, which some devices lack.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// Counts of one slot over a stretch of time.
    Window(Window),
    /// How the device itself is, as agents told it before they had [`Record::Health`].
    BriefHealth(BriefHealth),
    /// What became of an order.
    Outcome(Outcome),
    /// What a slot does now.
    Status(Status),
    /// What late labels said of a slot's predictions.
    Labels(Labels),
    /// How the device itself is.
    Health(Health),
}

impl Message for Report {
    const VERSION: u8 = 1;
    /// A window of 256 exported fields under 16 bins; far below what brokers take by default.
    const BYTES_MAX: usize = 16 * 1024;
    const NAME: &'static str = "report";
}

/// What a slot does now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The slot.
    pub slot: SlotName,
    /// Where its update machine stands.
    pub phase: Phase,
    /// What answers the application; on trial that is the candidate.
    pub serving: Option<PackageId>,
    /// What it is about to serve, while it fetches, checks, proves or tries it.
    pub candidate: Option<PackageId>,
    /// What it could go back to.
    pub previous: Option<PackageId>,
    /// The highest sequence it has carried out.
    pub floor: Sequence,
    /// The rollout that it works for at the moment.
    pub rollout: Option<RolloutId>,
}

/// Where a slot's update machine stands. Append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing was ever served.
    Empty,
    /// Serving, and nothing else to do.
    Serving,
    /// Downloading.
    Fetching,
    /// Verifying signatures, digests and the contract.
    Checking,
    /// Running the golden vectors.
    Proving,
    /// The candidate answers, watched.
    Trial,
    /// On trial for longer than planned, with too few rows to commit.
    TrialHeld,
    /// Answering with nothing, as ordered.
    Disabled,
    /// The candidate runs on the same inputs as what serves, and answers nobody.
    Shadowing,
    /// On trial, and its outputs have moved while nothing tells whether the inputs or the release
    /// are the cause: it neither commits nor goes back.
    TrialHeldByDrift,
}

impl core::fmt::Display for Phase {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Empty => "empty",
            Self::Serving => "serving",
            Self::Fetching => "fetching",
            Self::Checking => "checking",
            Self::Proving => "proving",
            Self::Trial => "trial",
            Self::TrialHeld => "trial-held",
            Self::Disabled => "disabled",
            Self::Shadowing => "shadowing",
            Self::TrialHeldByDrift => "trial-held-by-drift",
        })
    }
}

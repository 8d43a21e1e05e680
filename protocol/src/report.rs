//! What a device tells: windows of counts, health, outcomes, status.

use serde::{Deserialize, Serialize, Serializer};

use bellwether_package::ids::{PackageId, SlotName, UnixSecs};

use crate::health::{BriefHealth, Health};
use crate::ids::{BootId, RolloutId, Sequence};
use crate::labels::Labels;
use crate::message::Message;
use crate::outcome::Outcome;
use crate::window::{Window, packed};

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

/// What a report tells.
// A window is much larger than the rest; boxing it needs a heap, which some devices lack.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Read")]
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

/// A record as it is read. Append only: devices in the field keep these numbers.
#[allow(clippy::large_enum_variant)]
#[derive(Deserialize)]
enum Read {
    /// As devices sent windows at first, and have them in their outboxes.
    Window(Window),
    BriefHealth(BriefHealth),
    Outcome(Outcome),
    Status(Status),
    Labels(Labels),
    Health(Health),
    PackedWindow(#[serde(with = "packed")] Window),
}

impl From<Read> for Record {
    fn from(read: Read) -> Self {
        match read {
            Read::Window(window) | Read::PackedWindow(window) => Self::Window(window),
            Read::BriefHealth(brief) => Self::BriefHealth(brief),
            Read::Health(health) => Self::Health(health),
            Read::Outcome(outcome) => Self::Outcome(outcome),
            Read::Status(status) => Self::Status(status),
            Read::Labels(labels) => Self::Labels(labels),
        }
    }
}

/// A record as it is written: as [`Read`], but windows in few bytes only.
#[derive(Serialize)]
enum Written<'a> {
    #[allow(dead_code)]
    Window(&'a Window),
    BriefHealth(&'a BriefHealth),
    Outcome(&'a Outcome),
    Status(&'a Status),
    Labels(&'a Labels),
    Health(&'a Health),
    PackedWindow(#[serde(serialize_with = "packed::serialize")] &'a Window),
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Window(window) => Written::PackedWindow(window),
            Self::BriefHealth(brief) => Written::BriefHealth(brief),
            Self::Health(health) => Written::Health(health),
            Self::Outcome(outcome) => Written::Outcome(outcome),
            Self::Status(status) => Written::Status(status),
            Self::Labels(labels) => Written::Labels(labels),
        }
        .serialize(serializer)
    }
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

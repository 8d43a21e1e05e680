//! What the agent shows of itself: `GET /status`, `STATE/status.json`, `bellwether-agent status`
//! and the page for people beside the device.

mod lines;
mod summary;
pub(crate) mod words;

use bellwether_package::UnixSecs;
use bellwether_package::ids::AGENT_SLOT;
use bellwether_protocol::{Health, Outcome, OutcomeKind, OutcomeWord};
use serde::{Deserialize, Serialize};

pub use summary::{Mood, Summary};

/// The device, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Its id.
    pub device: String,
    /// Version of the agent.
    pub agent_version: String,
    /// When this was told, in seconds since 1970 UTC.
    pub at: u64,
    /// Whether the link to the server is up.
    pub connected: bool,
    /// When the server was last heard; `None`: never.
    pub last_contact: Option<u64>,
    /// Version of the trust root.
    pub root_version: u32,
    /// Version of the revocation list.
    pub revocations_version: Option<u64>,
    /// Reports that the server has not stored yet.
    pub reports_waiting: usize,
    /// What keeps the agent from working as it should, if anything does.
    pub trouble: Option<String>,
    /// Its slots.
    pub slots: Vec<SlotView>,
    /// How the device itself was when that was last measured.
    #[serde(default)]
    pub health: Option<Health>,
    /// When that was.
    #[serde(default)]
    pub health_at: Option<u64>,
    /// Readings that come over a broker of the device's own.
    #[serde(default)]
    pub readings: Vec<ReadingsView>,
    /// What happened of late, newest first.
    #[serde(default)]
    pub events: Vec<EventView>,
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// When, in seconds since 1970 UTC; of the last time if it happened repeatedly.
    pub at: u64,
    /// The slot, if it concerns one.
    pub slot: Option<String>,
    /// What happened.
    pub text: String,
    /// How many times in a row.
    pub times: u32,
}

/// One topic that readings come from, with counts since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadingsView {
    /// The slot that answers them.
    pub slot: String,
    /// The broker, as `host:port`.
    pub broker: String,
    /// The topic.
    pub topic: String,
    /// Whether the broker is there and gives them.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: u64,
    /// Why it is not.
    pub trouble: Option<String>,
    /// Answered.
    pub answered: u64,
    /// Could not be read, or did not fit the release.
    pub refused: u64,
    /// The release or its worker failed.
    pub failed: u64,
    /// Came while the slot served nothing.
    pub silent: u64,
    /// Came faster than the model answers.
    pub left_out: u64,
}

/// One slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its name.
    pub slot: String,
    /// Where its update machine stands.
    pub phase: String,
    /// The release that answers.
    pub serving: Option<String>,
    /// Its model and version.
    pub model: Option<String>,
    /// The release that it is about to serve.
    pub candidate: Option<String>,
    /// The release that it could go back to.
    pub previous: Option<String>,
    /// Why it answers with nothing.
    pub reason: Option<String>,
    /// Since when it has served that release, or has answered with nothing for that reason.
    #[serde(default)]
    pub since: Option<u64>,
    /// The highest order carried out, `epoch.n`.
    pub floor: String,
    /// What became of the last order.
    pub outcome: Option<OutcomeView>,
}

/// What became of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutcomeView {
    /// When, in seconds since 1970 UTC.
    pub at: u64,
    /// The release ordered.
    pub release: Option<String>,
    /// Its model and version, if it was ever opened here.
    pub version: Option<String>,
    /// The order, `epoch.n`.
    pub sequence: String,
    /// What happened and why, as a sentence.
    pub text: String,
    /// What happened alone: `was rolled back`.
    pub what: String,
    /// Why, if there is more to say.
    pub why: Option<String>,
    /// What happened, as the server's API calls it.
    pub word: Option<OutcomeWord>,
    /// Whether the release ordered does not serve, though it should.
    pub failed: bool,
    /// Whether nothing serves because of it.
    pub silenced: bool,
}

impl OutcomeView {
    /// How `outcome` is shown; `version` is the release's model and version.
    pub fn of(outcome: &Outcome, version: Option<String>, at: u64) -> Self {
        use OutcomeKind as Kind;
        let (what, why) = match &outcome.kind {
            Kind::Refused(why) => ("was refused", Some(why.to_string())),
            Kind::FailedBeforeServing(why) => ("failed its proof", Some(why.to_string())),
            Kind::Committed => ("passed its trial", None),
            Kind::RolledBackItself(why) => ("was rolled back", Some(why.to_string())),
            Kind::RolledBackByOrder => ("was rolled back by order", None),
            Kind::Disabled(note) => ("was disabled by order", Some(note.to_string())),
            Kind::UnableToRollBack(why) => (
                "should be rolled back and there is nothing to go back to",
                Some(why.to_string()),
            ),
            Kind::Lost(why) => ("was taken off", Some(why.to_string())),
        };
        let fine = matches!(
            outcome.kind,
            Kind::Committed | Kind::RolledBackByOrder | Kind::Disabled(_)
        );
        Self {
            at,
            release: outcome.release.map(|release| release.to_string()),
            version,
            sequence: outcome.sequence.to_string(),
            text: outcome.kind.to_string(),
            what: what.to_owned(),
            why,
            word: Some(outcome.kind.word()),
            failed: !fine,
            silenced: !matches!(outcome.kind, Kind::Committed | Kind::RolledBackByOrder),
        }
    }
}

impl SlotView {
    /// Whether this is the slot of the agent's own programs.
    pub fn is_own(&self) -> bool {
        self.slot == AGENT_SLOT
    }

    /// What is there, a release or else a reason, and since when.
    pub fn standing(&self) -> Option<(String, UnixSecs)> {
        let what = self.serving.as_ref().or(self.reason.as_ref())?;
        Some((what.clone(), UnixSecs(self.since?)))
    }
}

//! What crosses the wire between a device and its fleet server.
//!
//! | module | owns |
//! |---|---|
//! | [`ids`] | device, boot, sequence, rollout |
//! | [`topic`] | every MQTT topic; the only place with topic strings |
//! | [`message`] | version byte, bounds, encoding and decoding of every message |
//! | [`assignment`] | down: the signed desired state of one device |
//! | [`documents`] | down: which trust documents there are |
//! | [`report`] | up: windows of counts, health, outcomes, status |
//! | [`bundle`] | up: several reports in one message |
//! | [`health`] | up: how the device itself is |
//! | [`window`] | one window of counts, and whether it can be true |
//! | [`labels`] | up: what late labels say of predictions, in counts |
//! | [`outcome`] | what became of an assignment, with the figures |
//! | [`ack`] | down: which reports the server has stored |
//!
//! It knows no broker, no socket and no clock, and decides nothing: `rollout` does. Without
//! features it needs no heap.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod ack;
pub mod assignment;
#[cfg(feature = "alloc")]
pub mod bundle;
pub mod documents;
pub mod health;
pub mod ids;
pub mod labels;
pub mod message;
pub mod note;
pub mod outcome;
pub mod report;
pub mod topic;
pub mod window;

pub use ack::Ack;
pub use assignment::{
    Assignment, AssignmentError, Desired, DriftLimits, ShadowLimits, SlotAssignment, TrialLimits,
    open_assignment,
};
#[cfg(feature = "alloc")]
pub use bundle::Bundle;
pub use documents::Documents;
pub use health::{
    Battery, BatteryState, BriefHealth, ClockState, Health, LastOutcome, LinkKind, Network, Room,
    Served,
};
pub use ids::{BootId, DeviceId, RolloutId, Sequence};
pub use labels::{Confusion, Errors, ImpossibleLabels, Labels, Tally};
pub use message::{Message, MessageError, decode, encode};
pub use note::Note;
pub use outcome::{
    Outcome, OutcomeKind, OutcomeWord, ProofFailure, Refusal, TrialFailure, WorkerDeath,
};
pub use report::{Phase, Record, Report, Status};
pub use topic::{Topic, TopicError};
pub use window::{Apart, ErrorCounts, Expected, Fields, Impossible, Latency, Window};

#[cfg(feature = "alloc")]
pub use message::to_vec;

//! The fleet's decisions: stages, arms, verdicts.
//!
//! Level-triggered: [`plan`] computes the next decision from stored state alone, so a crash or a
//! repeat is harmless. [`check`] is an independent look at whether a decision is legal; the server
//! asks it before it commits, and compares [`Rollout::generation`] when it does.
//!
//! | module | owns |
//! |---|---|
//! | [`policy`] | how a rollout may go, and whether its arms can reach its certainty at all |
//! | [`snapshot`] | what is known of a rollout and its devices |
//! | [`draw`] | who is in which arm, at random but repeatable |
//! | [`score`] | from windows of counts to one device's figures |
//! | [`arms`] | treated against control, over devices, some of which may lie |
//! | [`decision`] | what to do, with the reasons and figures |
//! | [`watch()`] | the same look at a slot when no rollout runs |

pub mod arms;
pub mod decision;
pub mod draw;
pub mod policy;
pub mod score;
pub mod snapshot;
pub mod watch;

mod attribute;
mod check;
mod cohort;
mod gates;
mod plan;
mod sentence;

pub use check::{Illegal, check};
pub use decision::{Action, Attribution, Comparison, Decision, Metric, Notice, Reason, Verdict};
pub use draw::draw_arms;
pub use plan::plan;
pub use policy::{
    Certainty, Gates, Inadmissible, Limits, Policy, Response, Responses, Stage, Treated,
};
pub use score::{Baselines, Divergence, FieldScore, Scores, Tally};
pub use snapshot::{Arm, DeviceView, Release, Rollout, RolloutState, Snapshot, Told};
pub use watch::{Finding, WatchPolicy, watch};

#[cfg(test)]
mod tests;

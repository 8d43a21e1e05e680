//! The same look at a slot when no rollout runs: has the world moved, is a sensor broken?

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use bellwether_package::ids::UnixSecs;

use super::cohort::{Measured, away, measure, moved_fields};
use super::decision::Notice;
use super::policy::Limits;
use super::snapshot::Snapshot;

/// What the standing watch looks for. Every number is stated; none has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchPolicy {
    /// What counts as moved.
    pub limits: Limits,
    /// Windows that a device must have sent before its figures count.
    pub windows_min: u32,
    /// Rows that these windows must hold.
    pub rows_min: u64,
    /// Devices that must be measured before anything is said.
    pub devices_min: u32,
    /// Devices that may lie.
    pub liars: u32,
    /// A device unheard of for that long is left out, in seconds.
    pub silence_secs: u64,
}

/// What the standing watch has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The world moved away from the release, or a sensor away from its cohort.
    Notice(Notice),
    /// Inputs of many devices moved, but not of the cohort.
    ManyMoved {
        /// Devices whose inputs moved.
        devices: usize,
        /// Devices measured.
        measured: usize,
    },
    /// Too few devices have sent enough for anything to be said.
    TooFewFigures {
        /// Devices measured.
        measured: usize,
        /// Devices that must be.
        devices_min: u32,
    },
}

/// Looks at the devices that serve one release in one slot; `release` is its label. Nothing found
/// means that nothing moved further than the policy allows.
///
/// Only [`Scores::inputs_reference`](super::Scores) is looked at, under the release's own baseline.
pub fn watch(
    policy: &WatchPolicy,
    release: &str,
    snapshot: &Snapshot,
    now: UnixSecs,
) -> Vec<Finding> {
    let measured: Vec<Measured<'_>> = snapshot
        .devices
        .iter()
        .filter(|view| {
            view.last_seen
                .is_some_and(|seen| now.secs_since(seen) < policy.silence_secs)
        })
        .filter_map(|view| measure(view, policy.windows_min, policy.rows_min))
        .collect();
    // With fewer devices the liars could be the majority.
    let devices_min = policy.devices_min.max(2 * policy.liars + 1);
    if measured.len() < devices_min as usize {
        return alloc::vec![Finding::TooFewFigures {
            measured: measured.len(),
            devices_min
        }];
    }
    let fields = moved_fields(&measured, &policy.limits, &snapshot.inputs);
    if !fields.is_empty() {
        let (release, devices) = (String::from(release), measured.len());
        return alloc::vec![Finding::Notice(Notice::Retrain {
            release,
            fields,
            devices
        })];
    }
    let away = away(
        &measured,
        &policy.limits,
        policy.liars as usize,
        &snapshot.inputs,
    );
    let measured = measured.len();
    let many = away
        .many
        .map(|devices| Finding::ManyMoved { devices, measured });
    away.notices
        .into_iter()
        .map(Finding::Notice)
        .chain(many)
        .collect()
}

//! The signed desired state of one device.
//!
//! On the wire an assignment is a [`Signed`] envelope around the encoding of [`Assignment`], signed
//! by a director of the device's trust root. [`open_assignment`] is the one road from those bytes
//! to an assignment that may be obeyed.

use serde::{Deserialize, Serialize};

use bellwether_package::TrustRoot;
use bellwether_package::ids::{PackageId, PublicKey, RootId, SlotName, UnixSecs};
use bellwether_package::signed::{DocumentType, Signed, SignedError};

use crate::ids::{DeviceId, RolloutId, Sequence};
use crate::message::{Message, MessageError, decode};
use crate::note::Note;

/// Slots of one device at most: what an assignment of 4 KiB holds with room to spare.
pub const SLOTS_MAX: usize = 4;
/// Longest signed assignment in bytes, envelope included: the largest packet that a device's
/// retained topic must take.
pub const SIGNED_ASSIGNMENT_BYTES_MAX: usize = 4096;

/// What one device shall serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The trust root that it is meant under.
    pub root: RootId,
    /// The only device that obeys it.
    pub device: DeviceId,
    /// Later assignments have higher ones.
    pub sequence: Sequence,
    /// When it was signed, by the server's clock.
    pub issued_at: UnixSecs,
    /// From then on it is no order any more. What serves goes on serving.
    pub expires_at: UnixSecs,
    /// Each slot at most once. A slot that is not named stays as it is.
    pub slots: heapless::Vec<SlotAssignment, SLOTS_MAX>,
}

/// What one slot shall serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotAssignment {
    /// The slot.
    pub slot: SlotName,
    /// The release, or none.
    pub desired: Desired,
    /// Count inputs under this older release's baseline as well, so that both arms of a rollout
    /// count into the same bins.
    pub also_baseline: Option<PackageId>,
    /// When the device ends a trial by itself, and when it may commit.
    pub trial: TrialLimits,
    /// The rollout that this belongs to.
    pub rollout: Option<RolloutId>,
    /// A rollback by order: a release that served before, so it is not tried again.
    pub ordered_back: bool,
    /// The arm of the rollout: treated, control, or neither.
    pub treated: Option<bool>,
}

/// What a slot shall do. Append only: devices in the field keep these numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// Answer with this release.
    Serve {
        /// The release.
        release: PackageId,
        /// Length of its `.bwp` in bytes, so that a device can refuse before it downloads.
        length: u64,
    },
    /// Answer with nothing, and say why.
    Disable {
        /// For the person beside the device.
        reason: Note,
    },
}

/// When the device ends a trial by itself, and when it may commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialLimits {
    /// A trial lasts at least that long.
    pub secs_min: u32,
    /// A trial answers at least that many rows. With fewer it is held, however long it lasts. For the
    /// device's own programs one report that the server has acknowledged is enough, and without any
    /// they go back after `secs_max`.
    pub rows_min: u32,
    /// After that long a trial with too few rows is reported as held.
    pub secs_max: u32,
    /// Greatest share of rows that may fail, in parts per million.
    pub error_share_max_ppm: u32,
    /// Greatest share of rows whose answers may hold NaN or infinity, in parts per million.
    pub nonfinite_share_max_ppm: u32,
    /// Times that the worker may die.
    pub worker_deaths_max: u32,
    /// Greatest 99th percentile of latency, in microseconds; `None`: the package's own budget only.
    pub latency_us_p99_max: Option<u32>,
    /// Before the trial and during it, run the candidate and the release before it on the same
    /// inputs and compare; `None`: not at all.
    pub shadow: Option<ShadowLimits>,
    /// Watch the candidate's outputs for drift; `None`: leave that to the server.
    pub drift: Option<DriftLimits>,
}

/// How the candidate is compared with the release before it on the same inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowLimits {
    /// The candidate runs beside the other that long at least, answering nobody.
    pub secs_min: u32,
    /// It sees at least that many rows, and so many must be compared before their share says
    /// anything good.
    pub rows_min: u32,
    /// Greatest share of rows whose answers may disagree, in parts per million.
    pub disagree_share_max_ppm: u32,
}

/// When the outputs of a release on trial have moved away from its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftLimits {
    /// Values of a field below which nothing is said.
    pub rows_min: u32,
    /// Greatest population stability index of a field, bias removed, in thousandths.
    pub psi_max_milli: u32,
    /// Greatest rise of the share of a field's values outside its baseline's bins, in parts per
    /// million.
    pub outside_rise_max_ppm: u32,
}

impl Message for Assignment {
    const VERSION: u8 = 2;
    /// Leaves room for the envelope with a handful of signatures within
    /// [`SIGNED_ASSIGNMENT_BYTES_MAX`].
    const BYTES_MAX: usize = 3072;
    const NAME: &'static str = "assignment";
}

/// Why a device does not take an assignment. It serves on as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// Not an envelope. Broker or server is at fault.
    #[error("the assignment's envelope is damaged")]
    Envelope(#[source] SignedError),
    /// No director of the trust root signed it: forged, or made under another root version.
    #[error("no director of this device's trust root signed the assignment")]
    NotSigned,
    /// A director signed something that is not an assignment that this device understands.
    #[error("the assignment cannot be read")]
    Payload(#[source] MessageError),
    /// Meant under another trust root.
    #[error("the assignment is meant under another trust root")]
    RootForeign,
    /// Meant for another device.
    #[error("the assignment is meant for another device")]
    DeviceForeign,
    /// Its epoch is not the trust root's version: fetch the newer root first, or ask the server
    /// to sign anew.
    #[error("the assignment's epoch is {found}, the trust root's version {expected}")]
    EpochDiffers {
        /// Epoch of the assignment.
        found: u32,
        /// Version of the device's trust root.
        expected: u32,
    },
    /// Past its expiry.
    #[error("the assignment expired at {expires_at}")]
    Expired {
        /// When it did.
        expires_at: UnixSecs,
    },
    /// The same slot twice.
    #[error("the assignment names a slot twice")]
    SlotTwice,
}

/// What a device knows when an assignment arrives.
#[derive(Debug, Clone, Copy)]
pub struct Addressee<'a> {
    /// Its own id.
    pub device: &'a DeviceId,
    /// Its trust root.
    pub root: RootId,
    /// The version of that root, the epoch of assignments made under it.
    pub root_version: u32,
    /// The directors that this root names.
    pub directors: &'a [PublicKey],
    /// Its clock; `None` on a device that has none, which then judges by sequence alone.
    pub now: Option<UnixSecs>,
}

impl<'a> Addressee<'a> {
    /// The device under its verified trust root.
    pub fn of(device: &'a DeviceId, root: &'a TrustRoot, now: Option<UnixSecs>) -> Self {
        Self {
            device,
            root: root.id(),
            root_version: root.version(),
            directors: root.director_keys(),
            now,
        }
    }
}

/// Checks a signed assignment and reads it: from `bytes` on the wire to one that may be obeyed if
/// its sequence is high enough.
///
/// # Errors
///
/// [`AssignmentError`]; never panics, whatever the bytes.
pub fn open_assignment(bytes: &[u8], to: &Addressee<'_>) -> Result<Assignment, AssignmentError> {
    let signed = Signed::decode(bytes, Assignment::BYTES_MAX).map_err(AssignmentError::Envelope)?;
    signed
        .signer_among(DocumentType::Assignment, to.directors)
        .ok_or(AssignmentError::NotSigned)?;
    let assignment: Assignment = decode(signed.payload()).map_err(AssignmentError::Payload)?;
    if assignment.root != to.root {
        return Err(AssignmentError::RootForeign);
    }
    if assignment.device != *to.device {
        return Err(AssignmentError::DeviceForeign);
    }
    if assignment.sequence.epoch != to.root_version {
        let (found, expected) = (assignment.sequence.epoch, to.root_version);
        return Err(AssignmentError::EpochDiffers { found, expected });
    }
    if to.now.is_some_and(|now| now >= assignment.expires_at) {
        return Err(AssignmentError::Expired {
            expires_at: assignment.expires_at,
        });
    }
    let slots = &assignment.slots;
    if (1..slots.len()).any(|i| {
        slots[..i]
            .iter()
            .any(|earlier| earlier.slot == slots[i].slot)
    }) {
        return Err(AssignmentError::SlotTwice);
    }
    Ok(assignment)
}

//! What became of an assignment of one slot, with the figures that decided it.

use core::fmt;

use serde::{Deserialize, Serialize};

use bellwether_package::ids::{PackageId, SlotName};
use bellwether_package::verify;

use crate::ids::{RolloutId, Sequence};
use crate::note::Note;

/// What became of one order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The slot.
    pub slot: SlotName,
    /// The release that was ordered; for a disable order the one that was taken off, if any.
    pub release: Option<PackageId>,
    /// The sequence of the order.
    pub sequence: Sequence,
    /// The rollout that the order belonged to.
    pub rollout: Option<RolloutId>,
    /// What happened.
    pub kind: OutcomeKind,
    /// What serves now.
    pub serving: Option<PackageId>,
}

/// What happened. Append only: devices in the field keep these numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum OutcomeKind {
    /// The package was never run.
    Refused(Refusal),
    /// It was run, but never answered the application.
    FailedBeforeServing(ProofFailure),
    /// It passed its trial and serves.
    Committed,
    /// The device itself went back to the release before.
    RolledBackItself(TrialFailure),
    /// The device went back because it was told to.
    RolledBackByOrder,
    /// The slot answers with nothing, as ordered.
    Disabled(Note),
    /// It should go back, and has nothing to go back to; it serves on.
    UnableToRollBack(TrialFailure),
    /// The release that served can no longer be run, and what serves now is named beside.
    Lost(Refusal),
}

/// What happened, in a word, without its figures. Append only, as [`OutcomeKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeWord {
    /// [`OutcomeKind::Refused`].
    Refused,
    /// [`OutcomeKind::FailedBeforeServing`].
    FailedBeforeServing,
    /// [`OutcomeKind::Committed`].
    Committed,
    /// [`OutcomeKind::RolledBackItself`].
    RolledBackItself,
    /// [`OutcomeKind::RolledBackByOrder`].
    RolledBackByOrder,
    /// [`OutcomeKind::Disabled`].
    Disabled,
    /// [`OutcomeKind::UnableToRollBack`].
    UnableToRollBack,
    /// [`OutcomeKind::Lost`].
    Lost,
}

impl OutcomeKind {
    /// Which of these it is.
    pub fn word(&self) -> OutcomeWord {
        match self {
            Self::Refused(_) => OutcomeWord::Refused,
            Self::FailedBeforeServing(_) => OutcomeWord::FailedBeforeServing,
            Self::Committed => OutcomeWord::Committed,
            Self::RolledBackItself(_) => OutcomeWord::RolledBackItself,
            Self::RolledBackByOrder => OutcomeWord::RolledBackByOrder,
            Self::Disabled(_) => OutcomeWord::Disabled,
            Self::UnableToRollBack(_) => OutcomeWord::UnableToRollBack,
            Self::Lost(_) => OutcomeWord::Lost,
        }
    }
}

impl fmt::Display for OutcomeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "refused",
            Self::FailedBeforeServing => "failed-before-serving",
            Self::Committed => "committed",
            Self::RolledBackItself => "rolled-back-itself",
            Self::RolledBackByOrder => "rolled-back-by-order",
            Self::Disabled => "disabled",
            Self::UnableToRollBack => "unable-to-roll-back",
            Self::Lost => "lost",
        })
    }
}

/// Why a package was never run. Append only: devices in the field keep these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It could not be downloaded in as many attempts as are allowed.
    Unreachable {
        /// Attempts made.
        attempts: u32,
    },
    /// It is larger than the device takes.
    TooLarge {
        /// Its length in bytes.
        bytes: u64,
        /// What the device takes, in bytes.
        bytes_max: u64,
    },
    /// Too little storage is free.
    NoSpace {
        /// Bytes needed.
        bytes: u64,
        /// Bytes free.
        bytes_free: u64,
    },
    /// Its bytes are not those that its manifest names.
    Damaged,
    /// Made for newer software than the device's.
    TooNew,
    /// Other package than the one ordered.
    OtherPackage,
    /// Meant under another trust root.
    RootForeign,
    /// Fewer persons approved it than must.
    NotApproved {
        /// Persons that approved it for this slot and device.
        persons: u8,
        /// Persons that must.
        threshold: u8,
    },
    /// Approved, but not for this slot or not for a device with these attributes.
    OutOfScope,
    /// Its approvals are not valid yet, or not any more.
    OutOfTime,
    /// The revocation list names it, or its version is below the least one.
    Revoked,
    /// The device's revocation list is missing or past its expiry, so nothing new is installed.
    RevocationsStale,
    /// The device's trust root is past its expiry, so nothing new is installed.
    RootExpired,
    /// The model's contract does not fit what this slot or device offers; also programs in the slot
    /// of a model, or the reverse.
    ContractUnfit,
    /// No variant that this device can run.
    NoVariant,
    /// The device stopped several times while it checked the package.
    DeviceStopped,
    /// Something else on the device; see its log.
    Other,
    /// The server does not hand it out to this device.
    NotOffered {
        /// Its HTTP status, 400 to 499.
        status: u16,
    },
}

/// Why a package that was run never answered. Append only.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum ProofFailure {
    /// Its answers to the golden inputs differ from the golden outputs.
    GoldenMismatch {
        /// The first golden case that failed, from 0.
        case: u32,
        /// Greatest difference of one element, in the output's unit.
        difference: f32,
        /// Difference allowed there.
        tolerance: f32,
    },
    /// Its answers to golden inputs hold NaN or infinity where the golden outputs do not.
    Nonfinite {
        /// The first golden case that failed, from 0.
        case: u32,
    },
    /// Slower than its budget.
    Latency {
        /// 99th percentile measured, in microseconds.
        us_p99: u32,
        /// Its budget.
        us_p99_max: u32,
    },
    /// Needs more memory than its budget.
    Memory {
        /// Peak measured.
        bytes: u64,
        /// Its budget.
        bytes_max: u64,
    },
    /// The worker died while proving.
    WorkerDied(WorkerDeath),
    /// The worker cannot load or run the model.
    Unsupported,
    /// The device stopped several times while it proved the package.
    DeviceStopped,
    /// Something else on the device; see its log.
    Other,
    /// It failed beside the release that served, on the same inputs.
    Shadowed(TrialFailure),
}

/// Why a release that answered was taken back. Append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrialFailure {
    /// Too many rows failed.
    Errors {
        /// Rows that failed.
        rows_failed: u32,
        /// Rows asked.
        rows: u32,
        /// Greatest share allowed, in parts per million.
        share_max_ppm: u32,
    },
    /// Too many answers hold NaN or infinity.
    Nonfinite {
        /// Rows with such answers.
        rows_nonfinite: u32,
        /// Rows asked.
        rows: u32,
        /// Greatest share allowed, in parts per million.
        share_max_ppm: u32,
    },
    /// The worker died too often.
    WorkerDeaths {
        /// Deaths counted.
        deaths: u32,
        /// Deaths allowed.
        deaths_max: u32,
        /// The last one.
        last: WorkerDeath,
    },
    /// Too slow.
    Latency {
        /// 99th percentile measured, in microseconds.
        us_p99: u32,
        /// Greatest allowed.
        us_p99_max: u32,
    },
    /// The device stopped several times while the release was on trial.
    DeviceStopped {
        /// Starts of the device during the trial.
        boots: u32,
    },
    /// The release can no longer be run: revoked, or damaged on disk.
    Unservable(Refusal),
    /// Its worker needs more memory than the package's budget.
    Memory {
        /// Peak measured.
        bytes: u64,
        /// The budget.
        bytes_max: u64,
    },
    /// Too many of its answers disagree with those of the release before it on the same inputs.
    Disagrees {
        /// Rows whose answers disagree.
        rows_disagreeing: u32,
        /// Rows compared.
        rows: u32,
        /// Greatest share allowed, in parts per million.
        share_max_ppm: u32,
    },
    /// Its outputs moved away from its baseline while its inputs did not.
    OutputDrift {
        /// The output field, counted over the contract's outputs from 0.
        field: u16,
        /// Population stability index, bias removed, in thousandths.
        psi_milli: u32,
        /// Rise of the share of values outside the baseline's bins, in parts per million.
        outside_rise_ppm: u32,
        /// Values counted.
        values: u32,
    },
    /// The device's new programs did not reach the server in time.
    ServerNotReached {
        /// Seconds that they had.
        secs: u32,
    },
    /// The device's new programs ended by themselves, or had to be ended.
    ProgramEnded {
        /// Times that they were started.
        starts: u32,
        /// How they ended last.
        last: WorkerDeath,
    },
    /// After it had committed, too many of its answers to finite inputs hold NaN or infinity.
    NonfiniteSince {
        /// Recent rows with such answers.
        rows_nonfinite: u32,
        /// Recent rows.
        rows: u32,
        /// Greatest share allowed, in parts per million.
        share_max_ppm: u32,
    },
}

/// How a worker process died. Append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerDeath {
    /// It panicked.
    Panicked,
    /// A signal ended it.
    Faulted {
        /// The signal's number.
        signal: u8,
    },
    /// It did not answer within the deadline and was ended.
    Hung,
    /// It reached its memory limit.
    OutOfMemory,
    /// It answered with something that is no answer, and was ended.
    Protocol,
    /// It ended for another reason.
    Other,
}

impl From<&verify::Refusal> for Refusal {
    /// What a device tells of a package that it may not run. Scope and time are named only if they
    /// are all that was missing.
    fn from(refusal: &verify::Refusal) -> Self {
        match refusal {
            verify::Refusal::RootExpired { .. } => Self::RootExpired,
            verify::Refusal::RevocationsOfOtherRoot => Self::RootForeign,
            verify::Refusal::RevocationsNotVerified { .. }
            | verify::Refusal::RevocationsExpired { .. } => Self::RevocationsStale,
            verify::Refusal::Revoked(_) => Self::Revoked,
            verify::Refusal::OtherSlot => Self::ContractUnfit,
            verify::Refusal::UnderApproved(shortfall) => {
                let (counted, needed) = (shortfall.counted, shortfall.needed);
                if counted.saturating_add(shortfall.out_of_scope) >= needed {
                    Self::OutOfScope
                } else if counted.saturating_add(shortfall.out_of_time) >= needed {
                    Self::OutOfTime
                } else {
                    Self::NotApproved {
                        persons: counted,
                        threshold: needed,
                    }
                }
            }
        }
    }
}

#[cfg(feature = "alloc")]
impl From<&bellwether_package::ReadError> for Refusal {
    /// What a device tells of a package that it cannot read. Bytes that could not be read or kept
    /// are the device's trouble.
    fn from(error: &bellwether_package::ReadError) -> Self {
        use bellwether_package::ReadError;
        use bellwether_package::document::DocumentError;
        match error {
            ReadError::Source(_) | ReadError::Sink(_) => Self::Other,
            ReadError::Manifest(DocumentError::Version { .. })
            | ReadError::Section {
                source: DocumentError::Version { .. },
                ..
            } => Self::TooNew,
            _ => Self::Damaged,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { attempts } => {
                write!(f, "it could not be downloaded in {attempts} attempts")
            }
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "it has {bytes} bytes, the device takes {bytes_max}")
            }
            Self::NoSpace { bytes, bytes_free } => {
                write!(
                    f,
                    "it needs {bytes} bytes of storage, {bytes_free} are free"
                )
            }
            Self::Damaged => f.write_str("its bytes are not those that its manifest names"),
            Self::TooNew => f.write_str("it is made for newer device software"),
            Self::OtherPackage => f.write_str("the download was another package than ordered"),
            Self::RootForeign => f.write_str("it is meant under another trust root"),
            Self::NotApproved { persons, threshold } => {
                write!(f, "{persons} of the {threshold} persons needed approved it")
            }
            Self::OutOfScope => f.write_str(
                "its approvals are not for this slot and a device with these attributes",
            ),
            Self::OutOfTime => f.write_str("its approvals are not valid at this time"),
            Self::Revoked => f.write_str("it is revoked"),
            Self::RevocationsStale => {
                f.write_str("the device has no fresh revocation list, so it installs nothing new")
            }
            Self::RootExpired => {
                f.write_str("the device's trust root has expired, so it installs nothing new")
            }
            Self::ContractUnfit => f.write_str("its contract does not fit this slot"),
            Self::NoVariant => f.write_str("it has no variant that this device can run"),
            Self::DeviceStopped => {
                f.write_str("the device stopped again and again while checking it")
            }
            Self::Other => f.write_str("of something that the device's log tells"),
            Self::NotOffered { status } => {
                write!(f, "the server refused to hand it out (HTTP {status})")
            }
        }
    }
}

impl fmt::Display for ProofFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GoldenMismatch {
                case,
                difference,
                tolerance,
            } => write!(
                f,
                "golden case {case} came out {difference} off where {tolerance} is allowed"
            ),
            Self::Nonfinite { case } => {
                write!(f, "golden case {case} came out as NaN or infinite")
            }
            Self::Latency { us_p99, us_p99_max } => {
                write!(
                    f,
                    "p99 latency is {us_p99} µs where {us_p99_max} µs is the budget"
                )
            }
            Self::Memory { bytes, bytes_max } => {
                write!(
                    f,
                    "it took {bytes} bytes of memory where {bytes_max} is the budget"
                )
            }
            Self::WorkerDied(death) => write!(f, "its worker {death}"),
            Self::Unsupported => f.write_str("the worker cannot run it"),
            Self::DeviceStopped => {
                f.write_str("the device stopped again and again while proving it")
            }
            Self::Other => f.write_str("of something that the device's log tells"),
            Self::Shadowed(why) => write!(f, "beside the release that served, {why}"),
        }
    }
}

impl fmt::Display for TrialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors {
                rows_failed,
                rows,
                share_max_ppm,
            } => write!(
                f,
                "{rows_failed} of {rows} rows failed where {share_max_ppm} ppm may"
            ),
            Self::Nonfinite {
                rows_nonfinite,
                rows,
                share_max_ppm,
            } => write!(
                f,
                "{rows_nonfinite} of {rows} rows gave NaN or infinity where {share_max_ppm} ppm may"
            ),
            Self::WorkerDeaths {
                deaths,
                deaths_max,
                last,
            } => {
                write!(
                    f,
                    "its worker died {deaths} times where {deaths_max} may be (last: {last})"
                )
            }
            Self::Latency { us_p99, us_p99_max } => {
                write!(
                    f,
                    "p99 latency is {us_p99} µs where {us_p99_max} µs is allowed"
                )
            }
            Self::DeviceStopped { boots } => {
                write!(f, "the device started {boots} times during the trial")
            }
            Self::Unservable(refusal) => refusal.fmt(f),
            Self::Memory { bytes, bytes_max } => {
                write!(
                    f,
                    "its worker held {bytes} bytes of memory where {bytes_max} is the budget"
                )
            }
            Self::Disagrees {
                rows_disagreeing,
                rows,
                share_max_ppm,
            } => write!(
                f,
                "{rows_disagreeing} of {rows} answers disagree with the release before it on the \
                 same inputs where {share_max_ppm} ppm may"
            ),
            Self::NonfiniteSince {
                rows_nonfinite,
                rows,
                share_max_ppm,
            } => write!(
                f,
                "{rows_nonfinite} of the last {rows} rows gave NaN or infinity from finite inputs, \
                 though it had committed, where {share_max_ppm} ppm may"
            ),
            Self::OutputDrift {
                field,
                psi_milli,
                outside_rise_ppm,
                values,
            } => {
                let (whole, thousandths) = (psi_milli / 1000, psi_milli % 1000);
                write!(
                    f,
                    "output field {field} moved (PSI {whole}.{thousandths:03}, {outside_rise_ppm} \
                     ppm more outside its bins, {values} values) while the inputs did not"
                )
            }
            Self::ServerNotReached { secs } => {
                write!(f, "it did not reach the server within {secs} s")
            }
            Self::ProgramEnded { starts, last } => {
                write!(f, "started {starts} times, it {last}")
            }
        }
    }
}

impl fmt::Display for WorkerDeath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked => f.write_str("panicked"),
            Self::Faulted { signal } => write!(f, "was ended by signal {signal}"),
            Self::Hung => f.write_str("did not answer in time"),
            Self::OutOfMemory => f.write_str("ran out of memory"),
            Self::Protocol => f.write_str("broke the framing"),
            Self::Other => f.write_str("ended"),
        }
    }
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "refused, because {why}"),
            Self::FailedBeforeServing(why) => write!(f, "failed before serving: {why}"),
            Self::Committed => f.write_str("committed"),
            Self::RolledBackItself(why) => write!(f, "rolled back by the device: {why}"),
            Self::RolledBackByOrder => f.write_str("rolled back by order"),
            Self::Disabled(note) => write!(f, "disabled by order: {note}"),
            Self::UnableToRollBack(why) => {
                write!(f, "should roll back and has nothing to go back to: {why}")
            }
            Self::Lost(why) => write!(f, "taken off, because {why}"),
        }
    }
}

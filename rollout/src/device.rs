//! The update machine of one slot.
//!
//! ```text
//!        Assigned      Fetched       Checked      Proved
//!   Idle ──────▶ Fetching ───▶ Checking ───▶ Proving ──▶ Shadowing ──▶ Trial ──▶ Idle
//!    ▲              │             │  ▲ on disk  │     └ without ┘ a policy │  committed
//!    └──────────────┴── refused ──┴──┼─ failed ─┴─────────────┴ rolled back┘
//!                                    └ a rollback to a release on disk starts here
//! ```
//!
//! The shell calls [`step`] with one event at a time and performs the actions in order. Rules:
//!
//! - [`Action::Persist`] comes first wherever it comes: the shell stores the state durably before
//!   it performs what follows. Every state has a resume rule, told at its type and applied on
//!   [`Event::Boot`]; so power may fail between any two actions.
//! - The last good release stays on disk until its successor has committed.
//! - The floor rises only when an order was carried out. A release that was refused under a
//!   sequence is remembered, so that the same order is not tried again.
//! - A newer order supersedes whatever is under way; one at or below the floor, or not newer than
//!   the one under way, is ignored.
//! - An order refused for lack of space is told and stays under way: it is tried again when there
//!   is space. Every other refusal is final for that order.
//! - Any failure ends in serving the last good release, with a typed [`Outcome`].
//!
//! The slot of the device's own programs runs through the same states. To serve a release means to
//! run it, to serve nothing means to run what was installed, and a row on trial is a report that the
//! server has acknowledged. Its candidate never runs beside another.
//!
//! It knows no file, no network and no worker, and never asks for the time.

pub mod drift;
pub mod trial;

mod order;
mod serving;

use serde::{Deserialize, Serialize};

use bellwether_package::ids::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::{
    Note, Outcome, OutcomeKind, Phase, ProofFailure, Refusal, RolloutId, Sequence, SlotAssignment,
    Status, TrialLimits, WorkerDeath,
};

pub use drift::{Drift, Moved, drift};
pub use trial::{Held, Look, Trial};

use serving::Recent;

/// Actions of one step at most: persist, serve or stop, fetch, two deletions, two reports.
pub const ACTIONS_MAX: usize = 8;
/// Download attempts of one order. With the longest wait between them that is about a day.
pub const FETCH_ATTEMPTS_MAX: u32 = 30;
/// First wait between two attempts, in seconds; it doubles each time. The shell adds jitter.
pub const FETCH_WAIT_SECS_MIN: u64 = 15;
/// Longest wait between two attempts, in seconds.
pub const FETCH_WAIT_SECS_MAX: u64 = 3600;
/// Wait before an order that found too little space looks again, in seconds: a look costs neither
/// network nor a write.
pub const SPACE_WAIT_SECS: u64 = 20;
/// Starts of the device while it checks or proves one package. More: the package is what stops it.
pub const WORK_BOOTS_MAX: u32 = 3;
/// Starts of the device during one trial, or while the candidate runs beside what serves. More:
/// the candidate is what stops it.
pub const TRIAL_BOOTS_MAX: u32 = 3;
/// Worker deaths after commit, within [`DEATHS_SECS`], that take a release back.
pub const DEATHS_MAX: usize = 3;
/// The stretch in which those deaths are counted, in seconds.
pub const DEATHS_SECS: u64 = 600;
/// The latest rows of a good release that are looked at together. By number and not by time: some
/// devices are asked once a minute.
pub const RECENT_ROWS_MAX: u32 = 1_000;
/// Of these, rows with spoiled answers before they are a share: one is a glitch.
pub const SPOILED_ROWS_MIN: u32 = 20;
/// Refused orders that are remembered. Older ones go first; the director makes few that fail.
pub const REFUSED_MAX: usize = 8;
/// Outcomes that are kept until the shell has them in its outbox; it takes them at once.
pub const UNTOLD_MAX: usize = 2;

/// What the shell has to do, in this order.
pub type Actions = heapless::Vec<Action, ACTIONS_MAX>;

/// One slot, as it is stored on the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    slot: SlotName,
    floor: Sequence,
    good: Option<Good>,
    previous: Option<Good>,
    disabled: Option<Note>,
    work: Work,
    refused: heapless::Vec<(Sequence, PackageId), REFUSED_MAX>,
    deaths: heapless::Vec<UnixSecs, DEATHS_MAX>,
    unable_at: Option<UnixSecs>,
    untold: heapless::Vec<Outcome, UNTOLD_MAX>,
    /// What the good release's order allowed of answers that are not finite; after it committed as
    /// on trial. `None`: it is not watched for them.
    nonfinite_share_max_ppm: Option<u32>,
    /// Its latest answers; a boot begins anew.
    #[serde(skip)]
    recent: Recent,
}

/// A release that committed, and what it was ordered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Good {
    /// The release.
    pub release: PackageId,
    /// The order that it committed under.
    pub sequence: Sequence,
    /// Count inputs under this release's baseline too.
    pub also_baseline: Option<PackageId>,
    /// The rollout of that order.
    pub rollout: Option<RolloutId>,
    /// The arm of that rollout.
    pub treated: Option<bool>,
}

/// An order to serve a release, under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its sequence.
    pub sequence: Sequence,
    /// The release.
    pub release: PackageId,
    /// Length of its `.bwp` in bytes.
    pub length: u64,
    /// Count inputs under this release's baseline too.
    pub also_baseline: Option<PackageId>,
    /// Limits of its trial.
    pub trial: TrialLimits,
    /// Its rollout.
    pub rollout: Option<RolloutId>,
    /// Whether it is a rollback by order.
    pub ordered_back: bool,
    /// The arm of its rollout.
    pub treated: Option<bool>,
}

/// What is under way. Append only: it is stored on devices in the field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Nothing. Resume: serve the good release, or stay disabled.
    Idle,
    /// The package is being downloaded. Resume: go on downloading from where the bytes end.
    Fetching {
        /// For this order.
        order: Order,
        /// Attempts that failed.
        attempts: u32,
        /// No attempt before then.
        retry_at: UnixSecs,
        /// Whether it was told that there is too little space.
        space_told: bool,
    },
    /// Signatures, digests and contract are being verified. Resume: verify anew, but not more
    /// than [`WORK_BOOTS_MAX`] times.
    Checking {
        /// For this order.
        order: Order,
        /// Starts of the device in this state.
        boots: u32,
    },
    /// The golden vectors run. Resume: prove anew, but not more than [`WORK_BOOTS_MAX`] times.
    Proving {
        /// For this order.
        order: Order,
        /// Starts of the device in this state.
        boots: u32,
    },
    /// The candidate answers, watched. Resume: the trial starts anew, but not more than
    /// [`TRIAL_BOOTS_MAX`] times.
    Trial {
        /// For this order.
        order: Order,
        /// What was seen.
        trial: Trial,
    },
    /// The candidate sees every input, answers nobody, and is compared with the good release.
    /// Resume: it starts anew, but not more than [`TRIAL_BOOTS_MAX`] times.
    Shadowing {
        /// For this order.
        order: Order,
        /// What was seen.
        trial: Trial,
    },
}

/// What happened. Events about a release that is not the one under way are ignored, so late ones
/// do no harm.
// An assignment is larger than the rest; boxing it needs a heap, which some devices lack.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The agent started and loaded this state.
    Boot,
    /// Time has passed. At least every [`trial::TICK_SECS_MAX`] while on trial.
    Tick,
    /// An assignment, opened and verified, names this slot.
    Assigned {
        /// Sequence of the assignment.
        sequence: Sequence,
        /// Its part for this slot.
        slot: SlotAssignment,
    },
    /// The whole package is on disk.
    Fetched {
        /// The release.
        release: PackageId,
    },
    /// A download attempt ended early; another may succeed.
    FetchFailed {
        /// The release.
        release: PackageId,
    },
    /// The device has too little space for the package; what came of it is removed.
    NoSpace {
        /// The release.
        release: PackageId,
        /// Bytes needed.
        bytes: u64,
        /// Bytes free.
        bytes_free: u64,
    },
    /// The package was refused while it came in or when it was verified.
    Refused {
        /// The release.
        release: PackageId,
        /// Why.
        why: Refusal,
    },
    /// The package on disk is verified for this slot and device.
    Checked {
        /// The release.
        release: PackageId,
    },
    /// The golden vectors came out right, within the budget.
    Proved {
        /// The release.
        release: PackageId,
    },
    /// They did not.
    ProofFailed {
        /// The release.
        release: PackageId,
        /// Why.
        why: ProofFailure,
    },
    /// The application asked.
    Traffic {
        /// Who ran: what answered, or the candidate beside it.
        release: PackageId,
        /// What was asked since the last such event.
        traffic: Traffic,
    },
    /// The counts since the trial began were looked at.
    Looked {
        /// The candidate.
        release: PackageId,
        /// What they say.
        look: Look,
    },
    /// The worker died, while serving or beside what serves.
    WorkerDied {
        /// Whom it ran.
        release: PackageId,
        /// How.
        how: WorkerDeath,
    },
    /// A release on this device can no longer be run: revoked, damaged on disk, or its session
    /// cannot be opened.
    Unservable {
        /// The release.
        release: PackageId,
        /// Why.
        why: Refusal,
    },
    /// The device's own programs ended by themselves, or had to be ended, as often as is borne.
    ProgramEnded {
        /// Which.
        release: PackageId,
        /// Times that they were started.
        starts: u32,
        /// How they ended last.
        last: WorkerDeath,
    },
    /// Every outcome reported so far is in the outbox.
    Told,
}

/// Rows that the application asked for since the last such event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Rows asked, those that failed included.
    pub rows: u32,
    /// Rows that failed for a reason that may be the release's.
    pub rows_failed: u32,
    /// Rows whose answers hold NaN or infinity.
    pub rows_nonfinite: u32,
    /// Of these, rows whose inputs were all finite: nothing that was asked excuses the answer.
    pub rows_spoiled: u32,
    /// 99th percentile of latency since the release began to answer, in microseconds.
    pub latency_us_p99: Option<u32>,
    /// The most memory that its worker has held, in bytes.
    pub memory_bytes_peak: Option<u64>,
    /// Rows whose answers were compared with the other release's.
    pub rows_compared: u32,
    /// Of these, rows whose answers disagree.
    pub rows_disagreeing: u32,
    /// What the package itself promises.
    pub budget: Budget,
}

/// What a package promises of itself; `None`: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Budget {
    /// 99th percentile of latency, in microseconds.
    pub latency_us_p99: Option<u32>,
    /// Memory of its worker, in bytes.
    pub memory_bytes: Option<u64>,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Store the state durably before anything else.
    Persist,
    /// Download, resuming what is there; answer with `Fetched`, `FetchFailed` or `Refused`.
    Fetch {
        /// The release.
        release: PackageId,
        /// Length of its `.bwp` in bytes.
        length: u64,
        /// Not before this time.
        not_before: UnixSecs,
    },
    /// Verify what is on disk; answer with `Checked` or `Refused`.
    Check {
        /// The release.
        release: PackageId,
    },
    /// Run the golden vectors in the confined worker; answer with `Proved` or `ProofFailed`.
    Prove {
        /// The release.
        release: PackageId,
    },
    /// Let this release answer the application; answer with `Unservable` if that is impossible.
    Serve {
        /// The release.
        release: PackageId,
        /// Count inputs under this release's baseline too.
        also_baseline: Option<PackageId>,
        /// On trial: keep the good release ready, and tell traffic and worker deaths at once.
        trial: bool,
        /// What runs beside it on the same inputs, uncounted, and is compared; tell its traffic and
        /// worker deaths too unless it is the good one. `None`: nothing does any more.
        shadow: Option<Shadow>,
    },
    /// Answer the application with this reason instead of a model.
    StopServing {
        /// Why.
        reason: Note,
    },
    /// Stop work for this release and remove what is on disk of it.
    Delete {
        /// The release.
        release: PackageId,
    },
    /// Put this outcome into the outbox, then answer with `Told`.
    Report(Outcome),
}

/// A release that runs beside what answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadow {
    /// The release.
    pub release: PackageId,
    /// The other baseline that inputs are counted under once it answers.
    pub also_baseline: Option<PackageId>,
}

/// One step of the machine: the next state, and what the shell has to do.
pub fn step(state: State, event: &Event, now: UnixSecs) -> (State, Actions) {
    let mut step = Step {
        state,
        actions: Actions::new(),
        now,
    };
    match event {
        Event::Boot => step.boot(),
        Event::Tick => step.tick(),
        Event::Assigned { sequence, slot } => step.assigned(*sequence, slot),
        Event::Fetched { release } => step.fetched(release),
        Event::FetchFailed { release } => step.fetch_failed(release),
        Event::NoSpace {
            release,
            bytes,
            bytes_free,
        } => step.no_space(release, *bytes, *bytes_free),
        Event::Refused { release, why } => step.refused(release, *why),
        Event::Checked { release } => step.checked(release),
        Event::Proved { release } => step.proved(release),
        Event::ProofFailed { release, why } => step.proof_failed(release, *why),
        Event::Traffic { release, traffic } => step.traffic(release, traffic),
        Event::Looked { release, look } => step.looked(release, *look),
        Event::WorkerDied { release, how } => step.worker_died(release, *how),
        Event::Unservable { release, why } => step.unservable(release, *why),
        Event::ProgramEnded {
            release,
            starts,
            last,
        } => step.program_ended(release, *starts, *last),
        Event::Told => step.told(),
    }
    (step.state, step.actions)
}

impl State {
    /// A slot that never served anything.
    pub fn new(slot: SlotName) -> Self {
        Self {
            slot,
            floor: Sequence::default(),
            good: None,
            previous: None,
            disabled: None,
            work: Work::Idle,
            refused: heapless::Vec::new(),
            deaths: heapless::Vec::new(),
            unable_at: None,
            untold: heapless::Vec::new(),
            nonfinite_share_max_ppm: None,
            recent: Recent::default(),
        }
    }

    /// A slot whose state was lost, and that serves what was found on disk. Nothing is known of its
    /// order, so any order is newer.
    pub fn found(slot: SlotName, release: PackageId) -> Self {
        Self {
            good: Some(Good {
                release,
                sequence: Sequence::default(),
                also_baseline: None,
                rollout: None,
                treated: None,
            }),
            ..Self::new(slot)
        }
    }

    /// The slot.
    pub fn slot(&self) -> &SlotName {
        &self.slot
    }

    /// The highest sequence that was carried out. Lower orders are ignored.
    pub fn floor(&self) -> Sequence {
        self.floor
    }

    /// The last release that committed. It serves, unless a candidate is on trial or the slot is
    /// disabled.
    pub fn good(&self) -> Option<&Good> {
        self.good.as_ref()
    }

    /// The good release before that one, still on disk.
    pub fn previous(&self) -> Option<&Good> {
        self.previous.as_ref()
    }

    /// What is under way.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Whether a rollout is trying a release here: what is under way or serves was ordered for its
    /// treated arm, and the rollout has not settled it.
    pub fn is_treated(&self) -> bool {
        let ordered = self.work.order().and_then(|order| order.treated);
        let serves = self.good.as_ref().and_then(|good| good.treated);
        ordered.or(serves) == Some(true)
    }

    /// Why the slot answers with nothing, if it was ordered so.
    pub fn disabled(&self) -> Option<&Note> {
        self.disabled.as_ref()
    }

    /// Which release answers the application.
    pub fn serving(&self) -> Option<&PackageId> {
        match &self.work {
            Work::Trial { order, .. } => Some(&order.release),
            _ if self.disabled.is_some() => None,
            _ => self.good.as_ref().map(|good| &good.release),
        }
    }

    /// Every release whose files must stay; all others on disk may go.
    pub fn kept(&self) -> impl Iterator<Item = &PackageId> {
        let goods = self.good.iter().chain(&self.previous);
        let counted = goods.clone().filter_map(|good| good.also_baseline.as_ref());
        let order = self.work.order();
        goods
            .map(|good| &good.release)
            .chain(counted)
            .chain(order.map(|order| &order.release))
            .chain(order.and_then(|order| order.also_baseline.as_ref()))
    }

    /// Where the machine stands.
    pub fn phase(&self) -> Phase {
        match &self.work {
            Work::Fetching { .. } => Phase::Fetching,
            Work::Checking { .. } => Phase::Checking,
            Work::Proving { .. } => Phase::Proving,
            Work::Shadowing { .. } => Phase::Shadowing,
            Work::Trial { trial, .. } => match trial.held {
                None => Phase::Trial,
                Some(Held::Rows) => Phase::TrialHeld,
                Some(Held::Drift) => Phase::TrialHeldByDrift,
            },
            Work::Idle if self.disabled.is_some() => Phase::Disabled,
            Work::Idle if self.good.is_some() => Phase::Serving,
            Work::Idle => Phase::Empty,
        }
    }

    /// What the device tells about this slot; worth a report whenever it changes.
    pub fn status(&self) -> Status {
        let order = self.work.order();
        Status {
            slot: self.slot.clone(),
            phase: self.phase(),
            serving: self.serving().copied(),
            candidate: order.map(|order| order.release),
            previous: self.previous.as_ref().map(|good| good.release),
            floor: self.floor,
            rollout: match order {
                Some(order) => order.rollout,
                None => self.good.as_ref().and_then(|good| good.rollout),
            },
        }
    }
}

impl Work {
    /// The order under way.
    pub fn order(&self) -> Option<&Order> {
        match self {
            Self::Idle => None,
            Self::Fetching { order, .. }
            | Self::Checking { order, .. }
            | Self::Proving { order, .. }
            | Self::Shadowing { order, .. }
            | Self::Trial { order, .. } => Some(order),
        }
    }

    /// Whether the candidate runs on the application's inputs.
    fn runs_candidate(&self) -> bool {
        matches!(self, Self::Shadowing { .. } | Self::Trial { .. })
    }
}

/// One step being taken.
struct Step {
    state: State,
    actions: Actions,
    now: UnixSecs,
}

impl Step {
    fn act(&mut self, action: Action) {
        self.actions
            .push(action)
            .expect("a step has at most ACTIONS_MAX actions");
    }

    fn persist(&mut self) {
        if !self.actions.contains(&Action::Persist) {
            self.actions
                .insert(0, Action::Persist)
                .expect("a step has at most ACTIONS_MAX actions");
        }
    }

    /// Reports what became of an order; call after the state has changed, before it is persisted.
    fn tell(&mut self, of: &Whose, kind: OutcomeKind) -> Action {
        let outcome = Outcome {
            slot: self.state.slot.clone(),
            release: of.release,
            sequence: of.sequence,
            rollout: of.rollout,
            kind,
            serving: self.state.serving().copied(),
        };
        if self.state.untold.is_full() {
            self.state.untold.remove(0);
        }
        // There is room now.
        let _ = self.state.untold.push(outcome.clone());
        Action::Report(outcome)
    }

    /// Outcomes are stored until the outbox has them, so that none is lost and none comes twice
    /// but for a power failure in between.
    fn told(&mut self) {
        if !self.state.untold.is_empty() {
            self.state.untold.clear();
            self.persist();
        }
    }

    /// Deletes a release unless it is one that must stay.
    fn delete(&mut self, release: PackageId) {
        if !self.state.kept().any(|kept| *kept == release) {
            self.act(Action::Delete { release });
        }
    }

    /// What answers while no candidate is on trial; a candidate that is compared runs beside it.
    fn serve_good(&mut self) {
        let shadow = match &self.state.work {
            Work::Shadowing { order, .. } => Some(Shadow {
                release: order.release,
                also_baseline: order.also_baseline,
            }),
            _ => None,
        };
        let action = match (&self.state.disabled, &self.state.good) {
            (Some(reason), _) => Action::StopServing {
                reason: reason.clone(),
            },
            (None, Some(good)) => Action::Serve {
                release: good.release,
                also_baseline: good.also_baseline,
                trial: false,
                shadow,
            },
            (None, None) => Action::StopServing {
                reason: Note::new("no release has passed its trial here"),
            },
        };
        self.act(action);
    }

    fn remember_refused(&mut self, sequence: Sequence, release: PackageId) {
        let refused = &mut self.state.refused;
        if refused.is_full() {
            refused.remove(0);
        }
        // There is room now.
        let _ = refused.push((sequence, release));
    }
}

/// Whose outcome is told.
struct Whose {
    release: Option<PackageId>,
    sequence: Sequence,
    rollout: Option<RolloutId>,
}

impl From<&Order> for Whose {
    fn from(order: &Order) -> Self {
        Self {
            release: Some(order.release),
            sequence: order.sequence,
            rollout: order.rollout,
        }
    }
}

impl From<&Good> for Whose {
    fn from(good: &Good) -> Self {
        Self {
            release: Some(good.release),
            sequence: good.sequence,
            rollout: good.rollout,
        }
    }
}

#[cfg(test)]
mod tests;

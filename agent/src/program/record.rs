//! What the launcher knows, and what it decides from that.
//!
//! Each start is counted on disk before it is made. So a program that ends at once, or takes the
//! whole device down with it, is given up after [`STARTS_MAX`] starts, whatever moment the power
//! goes. Programs of different versions read the record: fields are only ever added, and a reader
//! passes over those that it does not know.

use bellwether_package::{Digest, PackageId};
use bellwether_protocol::WorkerDeath;
use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError};

/// The file in the state folder.
const FILE: &str = "program";
/// Starts of a program until it is well. More: it is given up.
pub const STARTS_MAX: u32 = 3;
/// Endings that wait to be told; a trial's, and those of both copies.
const ENDED_MAX: usize = 3;

/// What the launcher knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The one that committed last; `None`: the installed program.
    pub good: Option<Started>,
    /// The one before it.
    pub previous: Option<Program>,
    /// The one on trial.
    pub candidate: Option<Started>,
    /// Programs that were given up, until the slot's machine has been told.
    pub ended: Vec<Ended>,
}

/// A release's programs for this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The release.
    pub release: PackageId,
    /// SHA-256 of the agent.
    pub agent: Digest,
    /// SHA-256 of the worker.
    pub worker: Digest,
}

/// A program, and its starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Which.
    pub program: Program,
    /// Starts since it was last well.
    #[serde(default)]
    pub starts: u32,
    /// How it ended last, as far as anybody saw.
    #[serde(default)]
    pub last: Option<WorkerDeath>,
    /// Whether it is not started again, however few starts it had.
    #[serde(default)]
    pub given_up: bool,
    /// On trial: how long that may take, in seconds.
    #[serde(default)]
    pub secs_max: u32,
}

/// A program that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its release.
    pub release: PackageId,
    /// Times that it was started.
    pub starts: u32,
    /// How it ended last; `None`: its file is not what was signed, so it was not started again.
    pub last: Option<WorkerDeath>,
}

/// What the launcher does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Be the agent.
    Run,
    /// Start this program, on trial, and watch over it.
    Try(Started),
    /// Become this program.
    Become(Program),
    /// Become the installed program.
    BecomeInstalled,
}

impl Started {
    /// A program that was not started yet.
    pub fn new(program: Program, secs_max: u32) -> Self {
        Self {
            program,
            starts: 0,
            last: None,
            given_up: false,
            secs_max,
        }
    }
}

impl Record {
    /// What is on disk. One that is damaged is as good as none: the installed program runs, and the
    /// slot's machine, which knows what should, hands over again.
    pub fn load(store: &Store) -> Self {
        let bytes = store.load(FILE).unwrap_or_else(|error| {
            tracing::error!(%error, "which program should run is not known; the installed one does");
            None
        });
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what was kept before stays.
    pub fn save(&self, store: &Store) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(self).expect("a record has plain fields");
        store.put(FILE, &bytes)
    }

    /// Decides. `me` is the release that this process was started as; `intact` says whether a
    /// program's files are those that were signed. The record has to be kept before the decision is
    /// carried out.
    pub fn next(&mut self, me: Option<PackageId>, intact: impl Fn(&Program) -> bool) -> Next {
        if let Some(mut candidate) = self.candidate.take() {
            if candidate.given_up || candidate.starts >= STARTS_MAX {
                self.give_up(
                    &candidate,
                    Some(candidate.last.unwrap_or(WorkerDeath::Other)),
                );
            } else if !intact(&candidate.program) {
                self.give_up(&candidate, None);
            } else {
                candidate.starts += 1;
                self.candidate = Some(candidate.clone());
                return Next::Try(candidate);
            }
        }
        // Both copies at most.
        while let Some(mut good) = self.good.take() {
            if me == Some(good.program.release) {
                // Whoever became this has counted the start.
                self.good = Some(good);
                return Next::Run;
            }
            if good.starts >= STARTS_MAX {
                self.give_up(&good, Some(good.last.unwrap_or(WorkerDeath::Other)));
            } else if !intact(&good.program) {
                self.give_up(&good, None);
            } else {
                good.starts += 1;
                let program = good.program.clone();
                self.good = Some(good);
                return Next::Become(program);
            }
            self.good = self
                .previous
                .take()
                .map(|previous| Started::new(previous, 0));
        }
        match me {
            None => Next::Run,
            Some(_) => Next::BecomeInstalled,
        }
    }

    /// A program on trial ended by itself, or had to be ended. One that hung gets no second start:
    /// while it hangs, nobody is answered.
    pub fn died(&mut self, release: PackageId, how: WorkerDeath) {
        let candidate = self.candidate.as_mut();
        if let Some(candidate) = candidate.filter(|it| it.program.release == release) {
            candidate.last = Some(how);
            candidate.given_up = how == WorkerDeath::Hung;
        }
    }

    /// The program that runs is well: its earlier starts are forgiven. Says whether that is news.
    pub fn well(&mut self, release: PackageId) -> bool {
        let good = self.good.as_mut();
        let good = good.filter(|good| good.program.release == release && good.starts > 0);
        good.map(|good| good.starts = 0).is_some()
    }

    /// `program` is the good one from now on. Says whether that is news.
    pub fn commit(&mut self, program: Program) -> bool {
        let before = self.clone();
        self.candidate = None;
        let known = self.good.as_ref().map(|good| &good.program) == Some(&program);
        if !known {
            let good = self.good.replace(Started::new(program, 0));
            self.previous = good.map(|good| good.program);
        }
        *self != before
    }

    /// The installed program is the good one from now on. Says whether that is news.
    pub fn commit_installed(&mut self) -> bool {
        let ended = std::mem::take(&mut self.ended);
        let next = Self {
            ended,
            ..Self::default()
        };
        let before = std::mem::replace(self, next);
        before.good.is_some() || before.previous.is_some() || before.candidate.is_some()
    }

    fn give_up(&mut self, started: &Started, last: Option<WorkerDeath>) {
        if self.ended.len() >= ENDED_MAX {
            self.ended.remove(0);
        }
        self.ended.push(Ended {
            release: started.program.release,
            starts: started.starts,
            last,
        });
    }
}

#[cfg(test)]
mod tests;

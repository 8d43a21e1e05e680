//! Reports that the server has not stored yet, one file a record.
//!
//! A record is on disk before it is sent, and leaves the disk when the server's own
//! acknowledgement names it; a broker's acknowledgement means nothing here.
//!
//! **What goes when the box is full.** Outcomes never: they are no part of the bound, since they
//! come a few a rollout, and the disk that holds them is bounded by what orders a person gives. Of
//! the rest, health and status records go first. Then old windows are *merged*: two that follow
//! each other, of the same boot, slot, release and baseline, become one that covers both, which
//! loses their place in time and no count. Only when none are left to merge, the oldest windows go.
//!
//! **Why no row is counted twice.** The server stores a record once by its (boot, sequence), and a
//! merged window has a new one, so its parts must be records that no server has. Only windows that
//! were never sent are merged. Before a window is sent the first time, its file's name says so, and
//! the folder is flushed; a window whose name cannot be changed waits. A merged file names what it
//! stands for: if the power goes before those files are gone, they are removed at the next start.
//! While a file cannot be removed, nothing is merged.
//!
//! **Why no outcome is told twice.** An outcome is held for as long as its slot's machine remembers it
//! as well, acknowledged or not. So wherever the power goes between the two, the next start finds
//! that it has it already, and the server gets it once.
//!
//! **What is sent.** At most [`UNDERWAY_MAX`] records at once, outcomes first, several in one
//! message: a device that was alone for days returns with no more than that, and sends the next
//! ones as the first are acknowledged.

mod files;
mod sending;
mod thin;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bellwether_package::{SlotName, UnixSecs};
use bellwether_protocol::{Ack, BootId, MessageError, Outcome, Record, Report, to_vec};

use crate::store::{StoreError, remove_file};
use files::{Entry, Kind};
use sending::Sent;

pub use sending::UNDERWAY_MAX;

/// Records kept at most, beside outcomes: three months of half-hour windows of one slot.
pub const RECORDS_MAX: usize = 4096;
/// Bytes kept at most, beside outcomes: what a small flash spares for reports.
pub const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Windows kept in memory while the disk takes none.
const UNSAVED_MAX: usize = 32;

/// Why a record could not be kept, on disk or in memory. The agent goes on without it.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The disk refused.
    #[error("cannot keep a report")]
    Store(#[from] StoreError),
    /// Our mistake: a record longer than a message may be.
    #[error("cannot encode a report")]
    Encode(#[from] MessageError),
    /// Nothing in the box may go for this record.
    #[error("the outbox is full of windows that no server has acknowledged")]
    Full,
}

/// The box.
#[derive(Debug)]
pub struct Outbox {
    folder: PathBuf,
    boot: BootId,
    seq: u64,
    order: u64,
    /// Bytes of all but outcomes.
    bytes: u64,
    outcomes: usize,
    entries: BTreeMap<u64, Entry>,
    sent: HashMap<u64, Sent>,
    /// Since when nothing but health waits to be sent.
    lingering: Option<Instant>,
    /// Whether a file's name says that it was sent, and the folder is not flushed yet.
    names_unflushed: bool,
    /// Files that should be gone, and could not be removed.
    leftovers: Vec<PathBuf>,
    records_max: usize,
}

impl Outbox {
    /// Opens the box with what earlier boots left in it. Files that are no records are removed,
    /// and so are windows that a merged one stands for.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read; no single file in it keeps the agent from starting.
    pub fn open(folder: &Path, boot: BootId) -> Result<Self, StoreError> {
        let mut outbox = Self {
            folder: folder.to_owned(),
            boot,
            seq: 0,
            order: 0,
            bytes: 0,
            outcomes: 0,
            entries: BTreeMap::new(),
            sent: HashMap::new(),
            lingering: None,
            names_unflushed: false,
            leftovers: Vec::new(),
            records_max: RECORDS_MAX,
        };
        let found = files::found(folder)?;
        outbox.leftovers = found.leftovers;
        for (order, entry) in found.entries {
            outbox.order = outbox.order.max(order);
            outbox.insert(order, entry);
        }
        Ok(outbox)
    }

    /// Which start of the agent its new records are of.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// How many records wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps a record until the server acknowledges it.
    ///
    /// # Errors
    ///
    /// [`OutboxError`]; a window that the disk refuses is kept in memory while there is room, and is
    /// no error.
    pub fn push(&mut self, record: Record, at: UnixSecs) -> Result<(), OutboxError> {
        self.keep(record, at, None)
    }

    /// Keeps an outcome, and holds it until [`Outbox::let_go`]. One that an earlier boot kept, and
    /// that its machine did not come to forget, is not kept twice.
    ///
    /// # Errors
    ///
    /// [`OutboxError::Encode`] alone: an outcome that the disk refuses is kept in memory.
    pub fn hold(&mut self, outcome: Outcome, at: UnixSecs) -> Result<(), OutboxError> {
        let slot = outcome.slot.clone();
        if let Some(order) = self.kept_before(&outcome)
            && let Some(entry) = self.entries.get_mut(&order)
        {
            entry.held_for = Some(slot);
            return Ok(());
        }
        self.keep(Record::Outcome(outcome), at, Some(slot))
    }

    /// Whether every outcome that is held for `slot` is on disk, so that its machine may forget
    /// them.
    pub fn is_safe(&self, slot: &SlotName) -> bool {
        let mut held = self.entries.values().filter(|it| it.is_held_for(slot));
        held.all(|entry| entry.unsaved.is_none())
    }

    /// The machine of `slot` has forgotten its outcomes: they go once the server has them.
    pub fn let_go(&mut self, slot: &SlotName) {
        let mut stored = Vec::new();
        for (order, entry) in &mut self.entries {
            if entry.is_held_for(slot) {
                entry.held_for = None;
                stored.extend(entry.stored.then_some(*order));
            }
        }
        stored.iter().for_each(|order| self.remove(*order));
    }

    fn kept_before(&mut self, outcome: &Outcome) -> Option<u64> {
        let earlier = |entry: &Entry| {
            entry.kind == Kind::Outcome && entry.boot != self.boot && entry.held_for.is_none()
        };
        let orders = self.entries.iter().filter(|(_, entry)| earlier(entry));
        let orders: Vec<u64> = orders.map(|(order, _)| *order).collect();
        orders.into_iter().find(|order| {
            let report = self.read(*order);
            report.is_some_and(|it| matches!(it.record, Record::Outcome(kept) if kept == *outcome))
        })
    }

    fn keep(
        &mut self,
        record: Record,
        at: UnixSecs,
        held_for: Option<SlotName>,
    ) -> Result<(), OutboxError> {
        let mut report = Report {
            boot: self.boot,
            seq: self.seq + 1,
            at,
            record,
        };
        self.make_room(to_vec(&report)?.len() as u64, Kind::of(&report.record))?;
        // Windows that were merged for it have taken numbers.
        report.seq = self.seq + 1;
        let encoded = to_vec(&report)?;
        let mut entry = Entry {
            held_for,
            ..Entry::of(&report, encoded.len() as u64)
        };
        self.seq = report.seq;
        self.order += 1;
        if let Err(error) = entry.write(&self.folder, self.order, &encoded) {
            if !self.may_stay_unsaved(entry.kind) {
                return Err(error.into());
            }
            tracing::warn!(%error, "a report is kept in memory alone");
            entry.unsaved = Some(encoded);
        }
        self.insert(self.order, entry);
        Ok(())
    }

    /// Removes what the server has stored. Returns how many records that were.
    pub fn acknowledge(&mut self, ack: &Ack) -> usize {
        let stored: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.boot == ack.boot && ack.seqs.contains(&entry.seq))
            .map(|(order, _)| *order)
            .collect();
        for order in &stored {
            match self.entries.get_mut(order) {
                Some(entry) if entry.held_for.is_some() => {
                    entry.stored = true;
                    self.sent.remove(order);
                }
                _ => self.remove(*order),
            }
        }
        stored.len()
    }

    /// Tries again what the disk refused. Returns the slots whose outcomes it took.
    pub fn save_unsaved(&mut self) -> Vec<SlotName> {
        self.leftovers_are_gone();
        let mut taken = Vec::new();
        for (order, entry) in &mut self.entries {
            let Some(bytes) = entry.unsaved.take() else {
                continue;
            };
            if entry.write(&self.folder, *order, &bytes).is_err() {
                entry.unsaved = Some(bytes);
                return taken;
            }
            taken.extend(entry.held_for.clone());
        }
        taken
    }

    /// Whether memory has room for a record that the disk refused. An outcome always has: without
    /// a disk no order goes on, so they do not pile up.
    fn may_stay_unsaved(&self, kind: Kind) -> bool {
        let unsaved = self.entries.values().filter(|it| it.unsaved.is_some());
        match kind {
            Kind::Outcome => true,
            Kind::Window => unsaved.count() < UNSAVED_MAX,
            Kind::Health | Kind::Status => false,
        }
    }

    fn make_room(&mut self, bytes: u64, kind: Kind) -> Result<(), OutboxError> {
        if kind == Kind::Outcome {
            return Ok(());
        }
        while self.entries.len() - self.outcomes >= self.records_max
            || self.bytes + bytes > BYTES_MAX
        {
            let small = [Kind::Health, Kind::Status]
                .into_iter()
                .filter(|victim| *victim <= kind)
                .find_map(|victim| self.oldest(victim));
            let victim = match small {
                Some(order) => order,
                None if kind < Kind::Window => return Err(OutboxError::Full),
                None if self.thin() > 0 => continue,
                None => self.oldest(Kind::Window).ok_or(OutboxError::Full)?,
            };
            self.remove(victim);
        }
        Ok(())
    }

    fn oldest(&self, kind: Kind) -> Option<u64> {
        let mut entries = self.entries.iter();
        entries
            .find(|(_, entry)| entry.kind == kind)
            .map(|(order, _)| *order)
    }

    /// A record that is none is removed: sending it would never end. One that cannot be read now
    /// stays.
    fn read(&mut self, order: u64) -> Option<Report> {
        let entry = self.entries.get(&order)?;
        match entry.read(&self.folder, order) {
            Ok(Some(report)) => return Some(report),
            Ok(None) => {
                tracing::warn!(order, "a damaged report is removed");
                self.remove(order);
            }
            Err(error) => tracing::warn!(order, %error, "a report cannot be read now"),
        }
        None
    }

    fn insert(&mut self, order: u64, entry: Entry) {
        match entry.kind {
            Kind::Outcome => self.outcomes += 1,
            _ => self.bytes += entry.bytes,
        }
        self.entries.insert(order, entry);
    }

    fn remove(&mut self, order: u64) {
        self.sent.remove(&order);
        let Some(entry) = self.entries.remove(&order) else {
            return;
        };
        match entry.kind {
            Kind::Outcome => self.outcomes -= 1,
            _ => self.bytes = self.bytes.saturating_sub(entry.bytes),
        }
        for path in entry.paths(&self.folder, order) {
            if let Err(error) = remove_file(&path) {
                tracing::warn!(%error, "a report that is done with stays on disk");
                self.leftovers.push(path);
            }
        }
    }

    /// Removes again what could not be removed, and says whether nothing of it is left.
    fn leftovers_are_gone(&mut self) -> bool {
        self.leftovers.retain(|path| remove_file(path).is_err());
        self.leftovers.is_empty()
    }
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;

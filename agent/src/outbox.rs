//! Reports that the server has not stored yet, one file a record.
//!
//! A record is on disk before it is sent, and leaves the disk when the server's own
//! acknowledgement names it; a broker's acknowledgement means nothing here. The box is bounded:
//! health and status records go first, then the oldest windows; outcomes are never given up.
//!
//! An outcome is held for as long as its slot's machine remembers it as well, acknowledged or not.
//! So wherever the power goes between the two, the next start finds that it has it already, and
//! the server gets it once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bellwether_package::{SlotName, UnixSecs};
use bellwether_protocol::{
    Ack, BootId, Message as _, MessageError, Outcome, Record, Report, decode, to_vec,
};

use crate::store::{StoreError, remove_file, write_atomic};

/// Records kept at most: two weeks of five-minute windows of one slot.
pub const RECORDS_MAX: usize = 4096;
/// Bytes kept at most, beside outcomes: what a small flash spares for reports.
pub const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Outcomes and windows kept in memory while the disk takes none. Outcomes come a few a rollout.
const UNSAVED_MAX: usize = 64;
/// Of these, room that windows leave to outcomes.
const UNSAVED_FOR_OUTCOMES: usize = UNSAVED_MAX / 2;
/// A record that the server has not acknowledged for so long is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(20);

/// Why a record could not be kept, on disk or in memory. The agent goes on without it.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The disk refused.
    #[error("cannot keep a report")]
    Store(#[from] StoreError),
    /// Our mistake: a record longer than a message may be.
    #[error("cannot encode a report")]
    Encode(#[from] MessageError),
    /// The box holds [`RECORDS_MAX`] outcomes.
    #[error("the outbox is full of outcomes that no server has acknowledged")]
    Full,
}

/// What is given up first when the box is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Health,
    Status,
    Window,
    Outcome,
}

impl Entry {
    fn is_held_for(&self, slot: &SlotName) -> bool {
        self.held_for.as_ref() == Some(slot)
    }
}

impl Kind {
    const ALL: [Self; 4] = [Self::Health, Self::Status, Self::Window, Self::Outcome];

    fn of(record: &Record) -> Self {
        match record {
            Record::Health(_) | Record::BriefHealth(_) => Self::Health,
            Record::Status(_) => Self::Status,
            Record::Window(_) | Record::Labels(_) => Self::Window,
            Record::Outcome(_) => Self::Outcome,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Health => 'h',
            Self::Status => 's',
            Self::Window => 'w',
            Self::Outcome => 'o',
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    boot: BootId,
    seq: u64,
    kind: Kind,
    bytes: u64,
    /// The record itself, when the disk would not take it.
    unsaved: Option<Vec<u8>>,
    /// An outcome that the machine of this slot remembers too.
    held_for: Option<SlotName>,
    /// Acknowledged while it was held.
    stored: bool,
}

/// The box.
#[derive(Debug)]
pub struct Outbox {
    folder: PathBuf,
    boot: BootId,
    seq: u64,
    order: u64,
    bytes: u64,
    entries: BTreeMap<u64, Entry>,
    sent: HashMap<u64, Instant>,
    records_max: usize,
}

impl Outbox {
    /// Opens the box with what earlier boots left in it. Files that are no records are removed.
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
            entries: BTreeMap::new(),
            sent: HashMap::new(),
            records_max: RECORDS_MAX,
        };
        let io = |error| StoreError::io("read", folder, error);
        for file in std::fs::read_dir(folder).map_err(io)? {
            let file = file.map_err(io)?;
            // One whose length cannot be told is looked at when it is read.
            let bytes = file.metadata().map_or(0, |it| it.len());
            match parse(&file.file_name().to_string_lossy()) {
                Some((order, entry)) if bytes <= Report::BYTES_MAX as u64 => {
                    outbox.order = outbox.order.max(order);
                    outbox.bytes += bytes;
                    outbox.entries.insert(order, Entry { bytes, ..entry });
                }
                // It does no harm where it lies.
                _ => drop(remove_file(&file.path()).inspect_err(
                    |error| tracing::warn!(%error, "what is no report stays in the outbox"),
                )),
            }
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
    /// [`OutboxError`]; an outcome or window that the disk refuses is kept in memory and is no error.
    pub fn push(&mut self, record: Record, at: UnixSecs) -> Result<(), OutboxError> {
        self.keep(record, at, None)
    }

    /// Keeps an outcome, and holds it until [`Outbox::let_go`]. One that an earlier boot kept, and
    /// that its machine did not come to forget, is not kept twice.
    ///
    /// # Errors
    ///
    /// [`OutboxError`]; an outcome that the disk refuses is kept in memory and is no error.
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
        let mut held = self
            .entries
            .values()
            .filter(|entry| entry.is_held_for(slot));
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
            let bytes = self.read(*order);
            let report = bytes.and_then(|bytes| decode::<Report>(&bytes).ok());
            report.is_some_and(|it| matches!(it.record, Record::Outcome(kept) if kept == *outcome))
        })
    }

    fn keep(
        &mut self,
        record: Record,
        at: UnixSecs,
        held_for: Option<SlotName>,
    ) -> Result<(), OutboxError> {
        let kind = Kind::of(&record);
        let report = Report {
            boot: self.boot,
            seq: self.seq + 1,
            at,
            record,
        };
        let encoded = to_vec(&report)?;
        self.make_room(encoded.len() as u64, kind)?;
        self.seq += 1;
        self.order += 1;
        let mut entry = Entry {
            boot: self.boot,
            seq: self.seq,
            kind,
            bytes: encoded.len() as u64,
            unsaved: None,
            held_for,
            stored: false,
        };
        if let Err(error) = self.write(self.order, &entry, &encoded) {
            if !self.may_stay_unsaved(kind) {
                return Err(error.into());
            }
            tracing::warn!(%error, "a report is kept in memory alone");
            entry.unsaved = Some(encoded);
        }
        self.bytes += entry.bytes;
        self.entries.insert(self.order, entry);
        Ok(())
    }

    /// Encoded records to send now, outcomes first, then the oldest; they count as sent at `now`.
    pub fn due(&mut self, now: Instant, records_max: usize) -> Vec<Vec<u8>> {
        let mut due: Vec<(bool, u64)> = self
            .entries
            .iter()
            .filter(|(order, entry)| {
                let sent = self.sent.get(order);
                !entry.stored && sent.is_none_or(|sent| now.duration_since(*sent) >= RESEND_AFTER)
            })
            .map(|(order, entry)| (entry.kind != Kind::Outcome, *order))
            .collect();
        due.sort_unstable();
        let mut records = Vec::new();
        for (_, order) in due.into_iter().take(records_max) {
            if let Some(bytes) = self.read(order) {
                self.sent.insert(order, now);
                records.push(bytes);
            }
        }
        records
    }

    /// Forgets what was sent: the connection that carried it is gone.
    pub fn link_lost(&mut self) {
        self.sent.clear();
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
                Some(entry) if entry.held_for.is_some() => entry.stored = true,
                _ => self.remove(*order),
            }
        }
        stored.len()
    }

    /// Tries again to write what the disk refused. Returns the slots whose outcomes it took.
    pub fn save_unsaved(&mut self) -> Vec<SlotName> {
        let mut taken = Vec::new();
        let unsaved: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, e)| e.unsaved.is_some())
            .map(|(o, _)| *o)
            .collect();
        for order in unsaved {
            let Some(entry) = self.entries.get(&order).cloned() else {
                continue;
            };
            let Some(bytes) = &entry.unsaved else {
                continue;
            };
            if self.write(order, &entry, bytes).is_err() {
                return taken;
            }
            if let Some(entry) = self.entries.get_mut(&order) {
                entry.unsaved = None;
                taken.extend(entry.held_for.clone());
            }
        }
        taken
    }

    /// Whether memory has room for a record that the disk refused.
    fn may_stay_unsaved(&self, kind: Kind) -> bool {
        let unsaved = self.entries.values().filter(|it| it.unsaved.is_some());
        let room = UNSAVED_MAX - unsaved.count().min(UNSAVED_MAX);
        match kind {
            Kind::Outcome => room > 0,
            Kind::Window => room > UNSAVED_FOR_OUTCOMES,
            Kind::Health | Kind::Status => false,
        }
    }

    fn make_room(&mut self, bytes: u64, kind: Kind) -> Result<(), OutboxError> {
        while self.entries.len() >= self.records_max || self.bytes + bytes > BYTES_MAX {
            let victim = Kind::ALL
                .into_iter()
                .filter(|victim| *victim != Kind::Outcome && *victim <= kind)
                .find_map(|victim| self.entries.iter().find(|(_, entry)| entry.kind == victim))
                .map(|(order, _)| *order);
            match victim {
                Some(order) => self.remove(order),
                None => return Err(OutboxError::Full),
            }
        }
        Ok(())
    }

    fn write(&self, order: u64, entry: &Entry, bytes: &[u8]) -> Result<(), StoreError> {
        write_atomic(&self.path(order, entry), bytes)
    }

    /// A record that cannot be read, or is none, is removed: sending it would never end.
    fn read(&mut self, order: u64) -> Option<Vec<u8>> {
        let entry = self.entries.get(&order)?;
        if let Some(bytes) = &entry.unsaved {
            return Some(bytes.clone());
        }
        let path = self.path(order, entry);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), %error, "a report cannot be read now");
                return None;
            }
            // Somebody took it away.
            Err(_) => Vec::new(),
        };
        let same = |report: &Report| report.boot == entry.boot && report.seq == entry.seq;
        if decode::<Report>(&bytes).is_ok_and(|report| same(&report)) {
            return Some(bytes);
        }
        tracing::warn!(file = %path.display(), "a damaged report is removed");
        self.remove(order);
        None
    }

    fn remove(&mut self, order: u64) {
        self.sent.remove(&order);
        if let Some(entry) = self.entries.remove(&order) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
            // A file that stays is sent once more after the next start; the server stores it once.
            if let Err(error) = remove_file(&self.path(order, &entry)) {
                tracing::warn!(%error, "an acknowledged report stays on disk");
            }
        }
    }

    fn path(&self, order: u64, entry: &Entry) -> PathBuf {
        let Entry {
            boot, seq, kind, ..
        } = entry;
        self.folder
            .join(format!("{order:016x}-{boot}-{seq:016x}-{}", kind.letter()))
    }
}

fn parse(name: &str) -> Option<(u64, Entry)> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut parts = name.split('-');
    let order = number(parts.next()?)?;
    let boot = BootId(number(parts.next()?)?);
    let seq = number(parts.next()?)?;
    let letter = parts.next()?;
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| letter == kind.letter().to_string())?;
    Some((
        order,
        Entry {
            boot,
            seq,
            kind,
            bytes: 0,
            unsaved: None,
            held_for: None,
            stored: false,
        },
    ))
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;

//! Reports that the server has not stored yet, one file a record.
//!
//! A record is on disk before it is sent, and leaves the disk when the server's own
//! acknowledgement names it; a broker's acknowledgement means nothing here. The box is bounded:
//! health and status records go first, then the oldest windows; outcomes are never given up.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bellwether_package::UnixSecs;
use bellwether_protocol::{
    Ack, BootId, Message as _, MessageError, Record, Report, decode, to_vec,
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
    /// When the folder cannot be read.
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
            let bytes = file.metadata().map_err(io)?.len();
            match parse(&file.file_name().to_string_lossy()) {
                Some((order, entry)) if bytes <= Report::BYTES_MAX as u64 => {
                    outbox.order = outbox.order.max(order);
                    outbox.bytes += bytes;
                    outbox.entries.insert(order, Entry { bytes, ..entry });
                }
                _ => remove_file(&file.path())?,
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
            .filter(|(order, _)| {
                self.sent
                    .get(order)
                    .is_none_or(|sent| now.duration_since(*sent) >= RESEND_AFTER)
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
        stored.iter().for_each(|order| self.remove(*order));
        stored.len()
    }

    /// Tries again to write what the disk refused.
    pub fn save_unsaved(&mut self) {
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
                return;
            }
            if let Some(entry) = self.entries.get_mut(&order) {
                entry.unsaved = None;
            }
        }
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
        let bytes = std::fs::read(&path).ok()?;
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
        },
    ))
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;

//! How records lie on disk: names, contents, and what a power cut may leave.
//!
//! `ORDER-BOOT-SEQ-KIND`, in hexadecimal but for the kind's letter, which is a capital once a
//! window was sent. A merged window ends in the order of the earlier one that it stands for, and
//! has the order of the later. The content is eight bytes of its digest, then the report. Outcomes
//! have a copy beside them: flash tears, and they come once.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bellwether_package::SlotName;
use bellwether_package::digest::sha256;
use bellwether_protocol::{BootId, Message as _, Record, Report, decode};

use crate::store::{StoreError, remove_file, write_atomic};

/// Bytes of the digest before a record.
const DIGEST_BYTES: usize = 8;
/// What a copy's name ends in.
const COPY: &str = ".copy";

/// What is given up first when the box is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Health,
    Status,
    Window,
    Outcome,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Health, Self::Status, Self::Window, Self::Outcome];

    pub(super) fn of(record: &Record) -> Self {
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

/// One record.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) boot: BootId,
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    /// A window that was sent, whenever: the server may have it.
    pub(super) ever_sent: bool,
    /// A merged window: the order of the earlier one that it stands for.
    pub(super) replaces: Option<u64>,
    /// A window that merges with none that follow it: it is not looked at again.
    pub(super) settled: bool,
    /// The record itself, when the disk would not take it.
    pub(super) unsaved: Option<Vec<u8>>,
    /// An outcome that the machine of this slot remembers too.
    pub(super) held_for: Option<SlotName>,
    /// Acknowledged while it was held.
    pub(super) stored: bool,
}

impl Entry {
    /// The entry of a report that was not sent yet.
    pub(super) fn of(report: &Report, bytes: u64) -> Self {
        Self {
            boot: report.boot,
            seq: report.seq,
            kind: Kind::of(&report.record),
            bytes,
            ever_sent: false,
            replaces: None,
            settled: false,
            unsaved: None,
            held_for: None,
            stored: false,
        }
    }

    pub(super) fn is_held_for(&self, slot: &SlotName) -> bool {
        self.held_for.as_ref() == Some(slot)
    }

    pub(super) fn path(&self, folder: &Path, order: u64) -> PathBuf {
        let letter = match self.ever_sent {
            true => self.kind.letter().to_ascii_uppercase(),
            false => self.kind.letter(),
        };
        let (boot, seq) = (self.boot, self.seq);
        let name = format!("{order:016x}-{boot}-{seq:016x}-{letter}");
        folder.join(match self.replaces {
            Some(earlier) => format!("{name}-{earlier:016x}"),
            None => name,
        })
    }

    /// Keeps the record's bytes.
    pub(super) fn write(&self, folder: &Path, order: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(folder, order);
        let mut content = Vec::with_capacity(DIGEST_BYTES + bytes.len());
        content.extend_from_slice(&sha256(bytes).0[..DIGEST_BYTES]);
        content.extend_from_slice(bytes);
        write_atomic(&path, &content)?;
        if self.kind == Kind::Outcome {
            // The record is kept already; without its copy it is as safe as any other.
            let _ = write_atomic(&copy_of(&path), &content);
        }
        Ok(())
    }

    /// The report, if its bytes are whole and this record's; `None` if they are gone or damaged.
    ///
    /// # Errors
    ///
    /// When the disk does not give what it has.
    pub(super) fn read(&self, folder: &Path, order: u64) -> io::Result<Option<Report>> {
        if let Some(bytes) = &self.unsaved {
            return Ok(self.own(bytes));
        }
        let path = self.path(folder, order);
        let mut refused = None;
        for path in [path.clone(), copy_of(&path)] {
            match std::fs::read(&path) {
                Ok(content) => match self.within(&content) {
                    Some(report) => return Ok(Some(report)),
                    None => continue,
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// The report behind its digest.
    fn within(&self, content: &[u8]) -> Option<Report> {
        let (digest, bytes) = content.split_at_checked(DIGEST_BYTES)?;
        if sha256(bytes).0.starts_with(digest) {
            return self.own(bytes);
        }
        // An earlier build kept no digests.
        self.own(content)
    }

    fn own(&self, bytes: &[u8]) -> Option<Report> {
        let report: Report = decode(bytes).ok()?;
        (report.boot == self.boot && report.seq == self.seq).then_some(report)
    }

    /// Renames the file of a window that is about to be sent. The name is durable once the folder
    /// is flushed.
    pub(super) fn mark_sent(&mut self, folder: &Path, order: u64) -> Result<(), StoreError> {
        let before = self.path(folder, order);
        self.ever_sent = true;
        if self.unsaved.is_none()
            && let Err(error) = std::fs::rename(&before, self.path(folder, order))
        {
            self.ever_sent = false;
            return Err(StoreError::io("rename", &before, error));
        }
        Ok(())
    }

    /// Its files, the copy first: what is left by a power cut in between is the record itself.
    pub(super) fn paths(&self, folder: &Path, order: u64) -> impl Iterator<Item = PathBuf> {
        let path = self.path(folder, order);
        let copy = (self.kind == Kind::Outcome).then(|| copy_of(&path));
        copy.into_iter().chain([path])
    }
}

fn copy_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(COPY);
    PathBuf::from(name)
}

/// What lies in the folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The records.
    pub(super) entries: BTreeMap<u64, Entry>,
    /// What should be gone and could not be removed.
    pub(super) leftovers: Vec<PathBuf>,
}

/// The records in the folder. What is none is removed, and what a merged window stands for.
///
/// # Errors
///
/// When the folder cannot be read.
pub(super) fn found(folder: &Path) -> Result<Found, StoreError> {
    let io = |error| StoreError::io("read", folder, error);
    let mut found = Found::default();
    let mut replaced = Vec::new();
    for file in std::fs::read_dir(folder).map_err(io)? {
        let file = file.map_err(io)?;
        // One whose length cannot be told is looked at when it is read.
        let bytes = file.metadata().map_or(0, |it| it.len());
        let name = file.file_name();
        let name = name.to_string_lossy();
        let parsed = parse(name.strip_suffix(COPY).unwrap_or(&name))
            .filter(|_| bytes <= (Report::BYTES_MAX + DIGEST_BYTES) as u64);
        let Some((order, entry)) = parsed else {
            found.remove(file.path());
            continue;
        };
        replaced.extend(entry.replaces);
        found.add(folder, order, Entry { bytes, ..entry });
    }
    for earlier in replaced {
        if let Some(entry) = found.entries.remove(&earlier) {
            entry
                .paths(folder, earlier)
                .for_each(|path| found.remove(path));
        }
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, folder: &Path, order: u64, entry: Entry) {
        let kept = match self.entries.remove(&order) {
            // A merged window and the later one that it stands for: the power went in between.
            Some(other) if other.replaces.is_some() != entry.replaces.is_some() => {
                let (merged, part) = match other.replaces {
                    Some(_) => (other, entry),
                    None => (entry, other),
                };
                part.paths(folder, order).for_each(|path| self.remove(path));
                merged
            }
            // A copy of the same record, or nothing.
            _ => entry,
        };
        self.entries.insert(order, kept);
    }

    fn remove(&mut self, path: PathBuf) {
        if let Err(error) = remove_file(&path) {
            tracing::warn!(%error, "what is done with stays in the outbox");
            self.leftovers.push(path);
        }
    }
}

fn parse(name: &str) -> Option<(u64, Entry)> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut parts = name.split('-');
    let order = number(parts.next()?)?;
    let boot = BootId(number(parts.next()?)?);
    let seq = number(parts.next()?)?;
    let mut letters = parts.next()?.chars();
    let letter = letters.next().filter(|_| letters.as_str().is_empty())?;
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.letter() == letter.to_ascii_lowercase())?;
    let replaces = match parts.next() {
        Some(text) if kind == Kind::Window => Some(number(text)?),
        Some(_) => return None,
        None => None,
    };
    let entry = Entry {
        boot,
        seq,
        kind,
        bytes: 0,
        ever_sent: letter.is_ascii_uppercase(),
        replaces,
        settled: false,
        unsaved: None,
        held_for: None,
        stored: false,
    };
    parts.next().is_none().then_some((order, entry))
}

//! Old windows become fewer: two become one, and no count is lost.

use std::collections::HashMap;

use bellwether_package::{PackageId, SlotName};
use bellwether_protocol::{BootId, Record, Report, Window, to_vec};

use super::Outbox;
use super::files::{Entry, Kind};

/// Pairs merged at once at most: each is a flushed write on the thread that serves the agent.
const MERGES_MAX: usize = 16;

/// Windows of one kind follow each other: same boot, slot, release and baseline.
type Stream = (BootId, SlotName, PackageId, PackageId);

struct Earlier {
    order: u64,
    report: Report,
}

impl Outbox {
    /// Merges the oldest windows two by two, those of each slot and release apart, and says how
    /// many there are fewer.
    pub(super) fn thin(&mut self) -> usize {
        // A file that should be gone could count what a merged one counts.
        if !self.leftovers_are_gone() {
            return 0;
        }
        let windows: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.may_merge())
            .map(|(order, _)| *order)
            .collect();
        let mut earlier: HashMap<Stream, Earlier> = HashMap::new();
        let mut merges = 0;
        for order in windows {
            if merges == MERGES_MAX {
                break;
            }
            let Some((stream, report)) = self.window(order) else {
                continue;
            };
            match earlier.remove(&stream) {
                Some(first) if self.merge(&first, order, &report) => merges += 1,
                first => {
                    // Whatever comes later is farther away still.
                    first.into_iter().for_each(|it| self.settle(it.order));
                    earlier.insert(stream, Earlier { order, report });
                }
            }
        }
        if merges > 0 {
            tracing::info!(merges, "the outbox is full; old windows were merged");
        }
        merges
    }

    fn window(&mut self, order: u64) -> Option<(Stream, Report)> {
        let report = self.read(order)?;
        let Record::Window(window) = &report.record else {
            self.settle(order);
            return None;
        };
        let stream = (
            report.boot,
            window.slot.clone(),
            window.release,
            window.baseline,
        );
        Some((stream, report))
    }

    fn settle(&mut self, order: u64) {
        if let Some(entry) = self.entries.get_mut(&order) {
            entry.settled = true;
        }
    }

    /// Puts one window in place of two. The merged file says which two it stands for, so that a
    /// power cut before they are removed counts nothing twice.
    fn merge(&mut self, first: &Earlier, order: u64, second: &Report) -> bool {
        let Some(window) = of_two(&first.report, second) else {
            return false;
        };
        let report = Report {
            boot: self.boot,
            seq: self.seq + 1,
            at: second.at,
            record: Record::Window(window),
        };
        let Ok(encoded) = to_vec(&report) else {
            return false;
        };
        let entry = Entry {
            replaces: Some(first.order),
            ..Entry::of(&report, encoded.len() as u64)
        };
        if entry.write(&self.folder, order, &encoded).is_err() {
            return false;
        }
        self.seq += 1;
        self.remove(first.order);
        self.remove(order);
        self.insert(order, entry);
        true
    }
}

impl Entry {
    /// Whether the window's counts may move into another record: they lie on disk, and no server
    /// can have them.
    fn may_merge(&self) -> bool {
        let fresh = !self.ever_sent && !self.settled && self.unsaved.is_none();
        self.kind == Kind::Window && fresh
    }
}

fn of_two(first: &Report, second: &Report) -> Option<Window> {
    match (&first.record, &second.record) {
        (Record::Window(first), Record::Window(second)) => first.merged(second).ok(),
        _ => None,
    }
}

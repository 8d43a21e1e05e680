//! A second release that runs on the inputs of the one that answers, and is compared with it.
//!
//! It sees every input in its order, on a thread of its own, after the application has its answer.
//! Two answers to one row disagree if any of their fields does: a category that differs, or a
//! number that falls more than one bin of the older release's baseline away, so that no unit and no
//! scale has to be known. Outputs without declared fields are not compared.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bellwether_drift::{Bins, FieldBaseline, Slot, Special};
use bellwether_package::PackageId;
use bellwether_package::sections::Port;
use bellwether_runtime::Tensor;

use super::Serving;

/// Requests that wait for the release beside: a burst of readings, not a backlog.
const WAITING_MAX: usize = 64;
/// Bytes of tensors that wait for it.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a request waits for room. Longer, and the release beside has missed it: nobody may
/// notice that there is one.
const ROOM_WAIT: Duration = Duration::from_millis(100);

/// Which of the two is the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// The one that answers: on trial.
    Answers,
    /// The one beside it.
    Beside,
}

/// A release beside another. It ends when this is dropped; what waits is dropped with it.
#[derive(Debug)]
pub(super) struct Beside {
    release: PackageId,
    queue: Arc<Queue>,
}

/// Rows of one request that were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) rows: u32,
    pub(super) rows_disagreeing: u32,
}

/// Requests between the two.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Told of rows that were missed, if it is the candidate that missed them.
    candidate_beside: Option<Arc<Serving>>,
}

#[derive(Debug, Default)]
struct Waiting {
    asked: VecDeque<Asked>,
    bytes: usize,
    ended: bool,
}

#[derive(Debug)]
struct Asked {
    inputs: Vec<Tensor>,
    rows: u32,
    answer: Option<Vec<Tensor>>,
    bytes: usize,
}

impl Beside {
    pub(super) fn start(
        answers: &Arc<Serving>,
        beside: &Arc<Serving>,
        candidate: Candidate,
    ) -> Self {
        let queue = Arc::new(Queue {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            candidate_beside: (candidate == Candidate::Beside).then(|| beside.clone()),
        });
        let release = beside.release();
        let (theirs, answers, beside) = (queue.clone(), answers.clone(), beside.clone());
        std::thread::spawn(move || {
            while let Some(asked) = theirs.next() {
                run(&asked, &answers, &beside, candidate);
            }
        });
        Self { release, queue }
    }

    pub(super) fn release(&self) -> PackageId {
        self.release
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        self.queue.clone()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        waiting.ended = true;
        waiting.asked.clear();
        drop(waiting);
        self.queue.changed.notify_all();
    }
}

impl Queue {
    /// Hands over a request that was answered with `answer`, or could not be.
    pub(super) fn offer(&self, inputs: &[Tensor], rows: u32, answer: Option<Vec<Tensor>>) {
        let tensors = inputs.iter().chain(answer.iter().flatten());
        let bytes = tensors.map(|tensor| tensor.bytes.len()).sum();
        let until = Instant::now() + ROOM_WAIT;
        let mut waiting = self.waiting();
        // One alone may be larger than the bound.
        while !waiting.asked.is_empty()
            && (waiting.asked.len() >= WAITING_MAX || waiting.bytes + bytes > WAITING_BYTES_MAX)
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(waiting);
                if let Some(candidate) = &self.candidate_beside {
                    candidate.missed(rows);
                }
                return;
            }
            waiting = self
                .changed
                .wait_timeout(waiting, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if waiting.ended {
            return;
        }
        waiting.bytes += bytes;
        waiting.asked.push_back(Asked {
            inputs: inputs.to_vec(),
            rows,
            answer,
            bytes,
        });
        drop(waiting);
        self.changed.notify_all();
    }

    /// The next request; `None` when it has ended.
    fn next(&self) -> Option<Asked> {
        let mut waiting = self.waiting();
        loop {
            if waiting.ended {
                return None;
            }
            if let Some(asked) = waiting.asked.pop_front() {
                waiting.bytes -= asked.bytes;
                drop(waiting);
                self.changed.notify_all();
                return Some(asked);
            }
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(asked: &Asked, answers: &Serving, beside: &Serving, candidate: Candidate) {
    let given = beside.ask_beside(&asked.inputs, asked.rows);
    let (Some(answer), Some(given)) = (&asked.answer, given) else {
        return;
    };
    let (older, newer) = match candidate {
        Candidate::Beside => ((answers, answer), (beside, &given)),
        Candidate::Answers => ((beside, &given), (answers, answer)),
    };
    let (ports, baseline) = (&older.0.contract().outputs, &older.0.baseline.outputs);
    if let Some(comparison) = compare(ports, baseline, older.1, newer.1, asked.rows) {
        newer.0.compared(&comparison);
    }
}

/// Compares two answers to the same rows by the older release's fields; `None` when there are
/// none, or the newer release does not give them.
fn compare(
    ports: &[Port],
    baseline: &[FieldBaseline],
    older: &[Tensor],
    newer: &[Tensor],
    rows: u32,
) -> Option<Comparison> {
    let rows = rows.max(1);
    let mut apart = vec![false; rows as usize];
    let mut first = 0;
    for port in ports.iter().filter(|port| !port.fields.is_empty()) {
        let of = |tensors: &[Tensor]| {
            let tensor = tensors.iter().find(|tensor| tensor.name == port.name)?;
            Some(tensor.values().collect::<Vec<f64>>())
        };
        let (older, newer) = (of(older)?, of(newer)?);
        if older.len() != newer.len() {
            return None;
        }
        let in_row = (older.len() / rows as usize).max(1);
        for (i, (a, b)) in older.into_iter().zip(newer).enumerate() {
            let field = baseline.get(first + i % port.fields.len())?;
            let row = (i / in_row).min(rows as usize - 1);
            apart[row] |= are_apart(field.bins(), a, b);
        }
        first += port.fields.len();
    }
    (first > 0).then(|| Comparison {
        rows,
        rows_disagreeing: apart.iter().filter(|apart| **apart).count() as u32,
    })
}

fn are_apart(bins: &Bins, a: f64, b: f64) -> bool {
    // The same number, or missing in both.
    if a == b || (a.is_nan() && b.is_nan()) {
        return false;
    }
    match (place(bins, a), place(bins, b)) {
        (Some(a), Some(b)) if !bins.is_categorical() => a.abs_diff(b) > 1,
        // Another category, or a number against none.
        _ => true,
    }
}

/// Where a number falls among the bins, what lies below and above them included.
fn place(bins: &Bins, value: f64) -> Option<usize> {
    match bins.slot(value as f32) {
        Slot::Special(Special::Below) => Some(0),
        Slot::Bin(bin) => Some(bin + 1),
        Slot::Special(Special::Above) => Some(bins.len() + 1),
        Slot::Special(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bellwether_package::sections::{DType, Dim, Field, FieldKind, MissingRule};

    use super::*;

    fn scores(fields: usize) -> Port {
        let field = |n| Field {
            name: format!("f{n}"),
            unit: String::new(),
            range: None,
            missing: MissingRule::Allow,
            export: true,
            kind: FieldKind::Numeric,
            source: String::new(),
        };
        Port {
            name: "scores".into(),
            dtype: DType::F32,
            shape: vec![Dim::Batch, Dim::Fixed(2)],
            fields: (0..fields).map(field).collect(),
        }
    }

    /// Eight bins of a hundred each.
    fn baseline() -> FieldBaseline {
        let sample: Vec<f32> = (0..800).map(|n| n as f32).collect();
        FieldBaseline::numeric("f", &sample, 8).unwrap()
    }

    fn compared(older: &[f32], newer: &[f32]) -> Option<Comparison> {
        let tensor = |values: &[f32]| {
            let rows = (values.len() / 2) as u32;
            [Tensor::from_f32("scores", &[rows, 2], values)]
        };
        let rows = (older.len() / 2) as u32;
        let fields = [baseline(), baseline()];
        compare(&[scores(2)], &fields, &tensor(older), &tensor(newer), rows)
    }

    #[test]
    fn a_row_disagrees_if_any_field_is_more_than_a_bin_away() {
        let nan = f32::NAN;
        let pairs = [
            ([10.0, 10.0], [190.0, 10.0], 0),
            ([10.0, 10.0], [210.0, 10.0], 1),
            ([10.0, 10.0], [10.0, 350.0], 1),
            ([-1.0, 10.0], [5.0, 10.0], 0),
            ([-1.0, 10.0], [900.0, 10.0], 1),
            ([nan, 10.0], [nan, 10.0], 0),
            ([nan, 10.0], [10.0, 10.0], 1),
            ([f32::INFINITY, 10.0], [790.0, 10.0], 1),
        ];
        for (older, newer, rows_disagreeing) in pairs {
            let expected = Comparison {
                rows: 1,
                rows_disagreeing,
            };
            assert_eq!(
                compared(&older, &newer),
                Some(expected),
                "{older:?} {newer:?}"
            );
        }
        let two = compared(&[10.0, 10.0, 10.0, 10.0], &[10.0, 10.0, 500.0, 500.0]);
        let expected = Comparison {
            rows: 2,
            rows_disagreeing: 1,
        };
        assert_eq!(two, Some(expected));
    }

    #[test]
    fn another_category_disagrees() {
        let field = FieldBaseline::categorical("class", &[0, 1, 2, 2], &[0, 1, 2]).unwrap();
        assert!(!are_apart(field.bins(), 1.0, 1.0));
        assert!(are_apart(field.bins(), 1.0, 2.0));
        assert!(are_apart(field.bins(), 7.0, 8.0), "both outside the domain");
    }

    #[test]
    fn answers_of_another_shape_or_without_fields_are_not_compared() {
        assert_eq!(compared(&[1.0, 2.0], &[1.0, 2.0, 3.0, 4.0]), None);
        let tensor = [Tensor::from_f32("scores", &[1, 2], &[1.0, 2.0])];
        assert_eq!(compare(&[scores(0)], &[], &tensor, &tensor, 1), None);
    }
}

//! What labels that came late say of one output field's predictions.
//!
//! The application learns the truth some time after it asked, and tells the agent by the
//! prediction's id. The agent compares the two and keeps counts and sums: neither a label nor a
//! prediction leaves the device.

use serde::{Deserialize, Serialize};

use bellwether_package::ids::{PackageId, SlotName, UnixSecs};

use crate::window::WINDOW_SECS_MAX;

/// Codes that a categorical field can have, as in a contract.
pub const CLASSES_MAX: usize = 16;
/// Cells of a confusion table: a row for each code, a column for each code and one for any other.
pub const CELLS_MAX: usize = CLASSES_MAX * (CLASSES_MAX + 1);

/// Labels of one output field of one release over a stretch of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    /// The slot.
    pub slot: SlotName,
    /// The release that predicted.
    pub release: PackageId,
    /// The field's place among all output fields of the contract, from 0.
    pub field: u16,
    /// When the first of them came, by the device's clock.
    pub started_at: UnixSecs,
    /// Over how many seconds they came.
    pub secs: u32,
    /// What they say.
    pub tally: Tally,
}

/// What labels say. Append only.
// Boxing the table needs a heap, which some devices lack.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Tally {
    /// Of a categorical field.
    Classes(Confusion),
    /// Of a number.
    Numbers(Errors),
}

/// How often each code was predicted where another, or the same, was true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Codes of the field, in the contract's order.
    pub classes: u8,
    /// A row for each true code; in it a column for each predicted code, and a last one for
    /// predictions that are none of the field's codes.
    pub cells: heapless::Vec<u32, CELLS_MAX>,
}

/// Sums over `prediction − label`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Labels.
    pub labels: u32,
    /// Sum: divided by `labels`, the bias.
    pub sum: f64,
    /// Sum of absolute values: divided by `labels`, the mean absolute error.
    pub sum_abs: f64,
    /// Sum of squares: divided by `labels`, the mean squared error; of a probability against 0 and
    /// 1, the Brier score.
    pub sum_sq: f64,
}

/// Why labels cannot be true. The device lies, or its software is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImpossibleLabels {
    /// Over a longer time than any window.
    #[error("labels of {secs} s, at most {WINDOW_SECS_MAX} s are possible")]
    TooLong {
        /// The time told.
        secs: u32,
    },
    /// A table of another size than its classes have, or than the field has.
    #[error("the confusion table does not fit the field")]
    Table,
    /// Sums that no labels have.
    #[error("the sums of errors contradict each other")]
    Sums,
    /// Counts of classes for a number, or sums for classes.
    #[error("the labels are of another kind than the field")]
    Kind,
}

impl Labels {
    /// Whether these labels can be true of a field with `classes` codes, or of a number.
    ///
    /// # Errors
    ///
    /// [`ImpossibleLabels`], the first thing found.
    pub fn check(&self, classes: Option<usize>) -> Result<(), ImpossibleLabels> {
        if self.secs > WINDOW_SECS_MAX {
            return Err(ImpossibleLabels::TooLong { secs: self.secs });
        }
        match (&self.tally, classes) {
            (Tally::Classes(confusion), Some(classes)) => confusion.check(classes),
            (Tally::Numbers(errors), None) => errors.check(),
            _ => Err(ImpossibleLabels::Kind),
        }
    }
}

impl Tally {
    /// Labels in all.
    pub fn labels(&self) -> u64 {
        match self {
            Self::Classes(confusion) => confusion.cells.iter().copied().map(u64::from).sum(),
            Self::Numbers(errors) => errors.labels.into(),
        }
    }
}

impl Confusion {
    /// An empty table for `classes` codes, at most [`CLASSES_MAX`].
    pub fn new(classes: usize) -> Self {
        let classes = classes.min(CLASSES_MAX);
        let mut cells = heapless::Vec::new();
        // The capacity is that of the most classes.
        let _ = cells.resize(classes * (classes + 1), 0);
        Self {
            classes: classes as u8,
            cells,
        }
    }

    /// Counts one label; `predicted` is `None` where the prediction is none of the codes. Both are
    /// places among the codes.
    pub fn count(&mut self, truth: usize, predicted: Option<usize>) {
        let classes = usize::from(self.classes);
        let column = predicted.unwrap_or(classes).min(classes);
        if let Some(cell) = self.cells.get_mut(truth * (classes + 1) + column) {
            *cell = cell.saturating_add(1);
        }
    }

    /// Labels that were predicted right.
    pub fn right(&self) -> u64 {
        let classes = usize::from(self.classes);
        // The diagonal: each row has one column more than there are rows.
        let diagonal = self.cells.iter().step_by(classes + 2);
        diagonal.copied().map(u64::from).sum()
    }

    fn check(&self, classes: usize) -> Result<(), ImpossibleLabels> {
        let fits = usize::from(self.classes) == classes && classes <= CLASSES_MAX;
        if fits && self.cells.len() == classes * (classes + 1) {
            Ok(())
        } else {
            Err(ImpossibleLabels::Table)
        }
    }
}

impl Errors {
    /// No labels.
    pub const NONE: Self = Self {
        labels: 0,
        sum: 0.0,
        sum_abs: 0.0,
        sum_sq: 0.0,
    };

    /// Counts one label.
    pub fn count(&mut self, prediction: f64, label: f64) {
        let error = prediction - label;
        self.labels = self.labels.saturating_add(1);
        self.sum += error;
        self.sum_abs += if error < 0.0 { -error } else { error };
        self.sum_sq += error * error;
    }

    fn check(&self) -> Result<(), ImpossibleLabels> {
        let sums = [self.sum, self.sum_abs, self.sum_sq];
        let finite = sums.iter().all(|sum| sum.is_finite());
        let labels = f64::from(self.labels);
        // Rounding may take the sums past each other by a hair.
        let slack = 1.0 + 1e-6;
        let within = self.sum <= self.sum_abs * slack
            && -self.sum <= self.sum_abs * slack
            && self.sum_abs >= 0.0
            && self.sum_abs * self.sum_abs <= labels * self.sum_sq * slack;
        if finite && within {
            Ok(())
        } else {
            Err(ImpossibleLabels::Sums)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(tally: Tally) -> Labels {
        Labels {
            slot: SlotName::new("pump").unwrap(),
            release: PackageId(bellwether_package::Digest([1; 32])),
            field: 0,
            started_at: UnixSecs(1),
            secs: 300,
            tally,
        }
    }

    #[test]
    fn a_confusion_table_counts_right_wrong_and_foreign_codes() {
        let mut confusion = Confusion::new(3);
        for (truth, predicted) in [(0, Some(0)), (2, Some(2)), (2, Some(1)), (1, None)] {
            confusion.count(truth, predicted);
        }
        assert_eq!(
            confusion.cells,
            [1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0],
            "rows are true codes"
        );
        assert_eq!(confusion.right(), 2);
        let told = labels(Tally::Classes(confusion));
        assert_eq!(told.tally.labels(), 4);
        assert_eq!(told.check(Some(3)), Ok(()));
        assert_eq!(told.check(Some(4)), Err(ImpossibleLabels::Table));
        assert_eq!(told.check(None), Err(ImpossibleLabels::Kind));
        assert_eq!(Confusion::new(16).cells.len(), CELLS_MAX);
        let mut full = Confusion::new(16);
        full.count(15, None);
        full.count(15, Some(15));
        full.count(16, Some(0));
        assert_eq!((full.right(), full.cells.iter().sum::<u32>()), (1, 2));
    }

    #[test]
    fn sums_of_errors_that_no_labels_have_are_told() {
        let mut errors = Errors::NONE;
        errors.count(1.5, 1.0);
        errors.count(0.0, 2.0);
        let told = |errors| labels(Tally::Numbers(errors)).check(None);
        assert_eq!(
            (errors.sum, errors.sum_abs, errors.sum_sq),
            (-1.5, 2.5, 4.25)
        );
        assert_eq!(told(errors), Ok(()));
        assert_eq!(told(Errors::NONE), Ok(()));
        let sums = Err(ImpossibleLabels::Sums);
        assert_eq!(
            told(Errors {
                sum: -3.0,
                ..errors
            }),
            sums
        );
        assert_eq!(
            told(Errors {
                sum_sq: 1.0,
                ..errors
            }),
            sums
        );
        assert_eq!(
            told(Errors {
                sum: f64::NAN,
                ..errors
            }),
            sums
        );
        let infinite = f64::INFINITY;
        assert_eq!(
            told(Errors {
                sum_sq: infinite,
                ..errors
            }),
            sums
        );
    }
}

//! Readings brought into the order in which trees look at them.

use super::{Scalar, walk::LANES};

/// Rows as they came: `rows` of `columns` each, of which trees look at the first `width`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub(super) x: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) width: usize,
}

impl<'a, T: Scalar> Rows<'a, T> {
    pub(super) fn row(&self, row: usize) -> &'a [T] {
        &self.x[row * self.columns..][..self.width]
    }

    /// Copies a row to the front of `to`; true if a reading is NaN.
    pub(super) fn copy(&self, row: usize, to: &mut [T]) -> bool {
        let from = self.row(row);
        to[..self.width].copy_from_slice(from);
        from.iter().any(|value| value.is_nan())
    }
}

/// Rows eight by eight: of each column, the readings of all eight together. After the last column
/// stands NaN, which is what leaves look at.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    readings: Vec<[T; LANES]>,
    stride: usize,
}

impl<T: Scalar> Blocks<T> {
    pub(super) fn new(rows: &Rows<'_, T>) -> Self {
        Self {
            readings: Vec::new(),
            stride: rows.width + 1,
        }
    }

    /// Takes `count` rows, a multiple of eight, from `first` on; true if a reading is NaN.
    pub(super) fn fill(&mut self, rows: &Rows<'_, T>, first: usize, count: usize) -> bool {
        let blocks = count / LANES;
        self.readings.clear();
        self.readings.resize(blocks * self.stride, [T::NAN; LANES]);
        let mut missing = false;
        for (i, block) in self.readings.chunks_exact_mut(self.stride).enumerate() {
            for lane in 0..LANES {
                let row = rows.row(first + i * LANES + lane);
                for (column, value) in block.iter_mut().zip(row) {
                    column[lane] = *value;
                    missing |= value.is_nan();
                }
            }
        }
        missing
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[[T; LANES]]> {
        self.readings.chunks_exact(self.stride)
    }
}

//! Walks through packed trees, [`LANES`] at a time.
//!
//! A single walk waits for memory and for comparisons most of the time. Eight that do not depend
//! on each other keep the processor busy, and none of them has a branch to be guessed wrong.

use super::{
    Scalar,
    layout::{Narrow, Packed, Root, Slot},
};

/// Walks in flight.
pub(super) const LANES: usize = 8;

/// No node has a mind about NaN: comparisons alone decide.
pub(super) const BARE: u8 = 0;
/// Some node has, and no reading is NaN: its mark is passed over.
pub(super) const MARKED: u8 = 1;
/// Some node has, and some reading is NaN.
pub(super) const MISSING: u8 = 2;

impl<T: Scalar, I: Narrow> Packed<T, I> {
    /// One tree for eight rows; `rows[feature]` holds the readings of all eight. The leaves'
    /// splits come back.
    #[inline(always)]
    pub(super) fn walk_rows<const MODE: u8>(&self, root: Root, rows: &[[T; LANES]]) -> [T; LANES] {
        let slots = &self.slots[root.at as usize..];
        let mut at = [0; LANES];
        for _ in 0..root.depth {
            let mut moved = 0;
            for lane in 0..LANES {
                let slot = &slots[at[lane]];
                let step = stride::<T, I, MODE>(slot, |feature| rows[feature][lane]);
                at[lane] += step;
                moved |= step;
            }
            if moved == 0 {
                break;
            }
        }
        at.map(|at| slots[at].split)
    }

    /// Eight trees for one row.
    #[inline(always)]
    pub(super) fn walk_trees<const MODE: u8>(
        &self,
        roots: &[Root; LANES],
        row: &[T],
    ) -> [T; LANES] {
        let slots = &self.slots[..];
        let mut at = roots.map(|root| root.at as usize);
        let depth = roots.iter().map(|root| root.depth).max().unwrap_or(0);
        for _ in 0..depth {
            let mut moved = 0;
            for at in &mut at {
                let step = stride::<T, I, MODE>(&slots[*at], |feature| row[feature]);
                *at += step;
                moved |= step;
            }
            if moved == 0 {
                break;
            }
        }
        at.map(|at| slots[at].split)
    }

    /// One tree for one row: what is left over.
    pub(super) fn walk_one<const MODE: u8>(&self, root: Root, row: &[T]) -> T {
        let mut at = root.at as usize;
        for _ in 0..root.depth {
            at += stride::<T, I, MODE>(&self.slots[at], |feature| row[feature]);
        }
        self.slots[at].split
    }
}

/// How far to go from a slot; 0 from a leaf.
#[inline(always)]
fn stride<T: Scalar, I: Narrow, const MODE: u8>(
    slot: &Slot<T, I>,
    reading: impl Fn(usize) -> T,
) -> usize {
    let feature = slot.feature.get();
    let second = match MODE {
        BARE => reading(feature) <= slot.split,
        MARKED => reading(feature & !I::MISSING) <= slot.split,
        _ => {
            let value = reading(feature & !I::MISSING);
            let missing_second = feature & I::MISSING != 0;
            (value <= slot.split) | (value.is_nan() & missing_second)
        }
    };
    slot.step.get() + usize::from(second)
}

//! Rows to scores: leaves found, and their weights put together.

use std::ops::Range;

use super::{
    Scalar, TreeError, Trees, Weight,
    layout::{Narrow, Packed},
    rows::{Blocks, Rows},
    walk::{BARE, LANES, MARKED, MISSING},
};

/// Rows that go through all trees before the next rows do: their readings and scores stay in the
/// nearest cache, and each tree is fetched once for all of them.
const ROWS_TOGETHER: usize = 128;

/// How the weights of all trees become one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Sum,
    /// The sum by the number of trees.
    Average,
    Min,
    Max,
}

/// An ensemble made ready.
#[derive(Debug)]
pub(crate) struct Ensemble<T> {
    layout: Layout<T>,
    leaves: Leaves<T>,
    aggregate: Aggregate,
    targets: usize,
    trees: usize,
    columns_min: usize,
}

#[derive(Debug)]
enum Layout<T> {
    Narrow(Packed<T, u16>),
    Wide(Packed<T, u32>),
    Plain(Trees<T>),
}

/// What a leaf's payload leads to.
#[derive(Debug)]
enum Leaves<T> {
    /// It is the weight of the only target.
    One,
    /// A weight for every target begins here.
    Dense(Vec<T>),
    /// The leaf's weights begin here; beside the first is where they end. [`NONE`] has none.
    Sparse(Vec<Weight<T>>, Vec<u32>),
}

/// The payload of a leaf without weights.
const NONE: u32 = u32::MAX;

/// Scores of some rows, row by row.
#[derive(Debug)]
pub(crate) struct Scores<T> {
    pub(crate) values: Vec<T>,
    /// Whether any leaf had a word in it; empty if one always has.
    pub(crate) given: Vec<bool>,
}

impl<T: Scalar> Ensemble<T> {
    /// Checks and lays out.
    pub(crate) fn new(trees: Trees<T>, aggregate: Aggregate) -> Result<Self, TreeError> {
        trees.check()?;
        let columns_min = trees.columns_min();
        let leaves = Leaves::of(&trees, aggregate);
        let payload = |range: &Range<usize>| leaves.payload(range, &trees.weights);
        let (targets, roots) = (trees.targets, trees.roots.len());
        let layout = if let Some(packed) = Packed::of(&trees, columns_min, payload) {
            Layout::Narrow(packed)
        } else if let Some(packed) = Packed::of(&trees, columns_min, payload) {
            Layout::Wide(packed)
        } else {
            Layout::Plain(trees)
        };
        Ok(Self {
            layout,
            leaves,
            aggregate,
            targets,
            trees: roots,
            columns_min,
        })
    }

    /// Scores `rows` rows of `columns` readings each, at least as many as trees look at.
    pub(crate) fn score(&self, x: &[T], rows: usize, columns: usize) -> Scores<T> {
        let mut scores = Scores {
            values: vec![T::default(); rows * self.targets],
            given: Vec::new(),
        };
        if matches!(self.leaves, Leaves::Sparse(..)) {
            scores.given = vec![false; rows * self.targets];
        }
        let rows = Rows {
            x,
            rows,
            columns,
            width: self.columns_min,
        };
        match &self.layout {
            Layout::Narrow(packed) => self.score_packed(packed, &rows, &mut scores),
            Layout::Wide(packed) => self.score_packed(packed, &rows, &mut scores),
            Layout::Plain(trees) => self.score_plain(trees, &rows, &mut scores),
        }
        if self.aggregate == Aggregate::Average {
            for value in &mut scores.values {
                *value = T::of(value.to_f64() / self.trees as f64);
            }
        }
        scores
    }

    fn score_packed<I: Narrow>(
        &self,
        packed: &Packed<T, I>,
        rows: &Rows<'_, T>,
        scores: &mut Scores<T>,
    ) {
        let mut row = 0;
        let mut blocks = Blocks::new(rows);
        while rows.rows - row >= LANES {
            let count = (rows.rows - row).min(ROWS_TOGETHER) / LANES * LANES;
            let missing = blocks.fill(rows, row, count);
            match mode(packed, missing) {
                BARE => self.score_blocks::<I, BARE>(packed, &blocks, row, scores),
                MARKED => self.score_blocks::<I, MARKED>(packed, &blocks, row, scores),
                _ => self.score_blocks::<I, MISSING>(packed, &blocks, row, scores),
            }
            row += count;
        }
        let mut readings = vec![T::NAN; rows.width + 1];
        for row in row..rows.rows {
            let missing = rows.copy(row, &mut readings);
            match mode(packed, missing) {
                BARE => self.score_row::<I, BARE>(packed, &readings, row, scores),
                MARKED => self.score_row::<I, MARKED>(packed, &readings, row, scores),
                _ => self.score_row::<I, MISSING>(packed, &readings, row, scores),
            }
        }
    }

    fn score_blocks<I: Narrow, const MODE: u8>(
        &self,
        packed: &Packed<T, I>,
        blocks: &Blocks<T>,
        row: usize,
        scores: &mut Scores<T>,
    ) {
        for root in &packed.roots {
            for (i, block) in blocks.iter().enumerate() {
                let payloads = packed.walk_rows::<MODE>(*root, block);
                self.add_rows(row + i * LANES, &payloads, scores);
            }
        }
    }

    fn score_row<I: Narrow, const MODE: u8>(
        &self,
        packed: &Packed<T, I>,
        readings: &[T],
        row: usize,
        scores: &mut Scores<T>,
    ) {
        let (groups, rest) = packed.roots.as_chunks::<LANES>();
        for roots in groups {
            for payload in packed.walk_trees::<MODE>(roots, readings) {
                self.add(row, payload, scores);
            }
        }
        for root in rest {
            let payload = packed.walk_one::<MODE>(*root, readings);
            self.add(row, payload, scores);
        }
    }

    fn score_plain(&self, trees: &Trees<T>, rows: &Rows<'_, T>, scores: &mut Scores<T>) {
        for row in 0..rows.rows {
            let readings = rows.row(row);
            for root in &trees.roots {
                let leaf = trees.leaf_of(*root, readings);
                let payload = self.leaves.payload(&leaf, &trees.weights);
                self.add(row, payload, scores);
            }
        }
    }

    /// Adds one tree's leaves to the scores of eight rows.
    #[inline(always)]
    fn add_rows(&self, row: usize, payloads: &[T; LANES], scores: &mut Scores<T>) {
        if let (Leaves::One, Aggregate::Sum | Aggregate::Average) = (&self.leaves, self.aggregate) {
            for (value, weight) in scores.values[row..row + LANES].iter_mut().zip(payloads) {
                *value += *weight;
            }
            return;
        }
        for (lane, payload) in payloads.iter().enumerate() {
            self.add(row + lane, *payload, scores);
        }
    }

    #[inline(always)]
    fn add(&self, row: usize, payload: T, scores: &mut Scores<T>) {
        let row = row * self.targets..(row + 1) * self.targets;
        match &self.leaves {
            Leaves::One => scores.values[row.start] += payload,
            Leaves::Dense(table) => {
                let weights = &table[payload.index()..][..self.targets];
                for (value, weight) in scores.values[row].iter_mut().zip(weights) {
                    *value += *weight;
                }
            }
            Leaves::Sparse(weights, ends) => {
                let first = payload.index();
                if first == NONE as usize {
                    return;
                }
                let values = &mut scores.values[row.clone()];
                let given = &mut scores.given[row];
                for weight in &weights[first..ends[first] as usize] {
                    let value = &mut values[weight.target];
                    let given = &mut given[weight.target];
                    *value = self.aggregate.merge(*value, *given, weight.value);
                    *given = true;
                }
            }
        }
    }
}

fn mode<T: Scalar, I: Narrow>(packed: &Packed<T, I>, missing: bool) -> u8 {
    match (packed.tracks_missing, missing) {
        (false, _) => BARE,
        (true, false) => MARKED,
        (true, true) => MISSING,
    }
}

impl Aggregate {
    fn merge<T: Scalar>(self, total: T, given: bool, value: T) -> T {
        let replaces = match self {
            Self::Sum | Self::Average => {
                let mut sum = total;
                sum += value;
                return sum;
            }
            Self::Min => value < total,
            Self::Max => value > total,
        };
        if replaces || !given { value } else { total }
    }
}

impl<T: Scalar> Leaves<T> {
    fn of(trees: &Trees<T>, aggregate: Aggregate) -> Self {
        let sums = matches!(aggregate, Aggregate::Sum | Aggregate::Average);
        if sums && trees.targets == 1 && trees.leaves().all(|leaf| leaf.len() == 1) {
            return Self::One;
        }
        if sums && let Some(table) = dense(trees) {
            return Self::Dense(table);
        }
        let mut ends = vec![0; trees.weights.len()];
        for leaf in trees.leaves().filter(|leaf| !leaf.is_empty()) {
            ends[leaf.start] = leaf.end as u32;
        }
        Self::Sparse(trees.weights.clone(), ends)
    }

    fn payload(&self, leaf: &Range<usize>, weights: &[Weight<T>]) -> T {
        match self {
            Self::One => weights[leaf.start].value,
            _ if leaf.is_empty() => T::of_index(NONE),
            _ => T::of_index(leaf.start as u32),
        }
    }
}

/// The weights' values, each leaf's in the order of targets, if every leaf has one for each.
fn dense<T: Scalar>(trees: &Trees<T>) -> Option<Vec<T>> {
    let mut table = vec![T::default(); trees.weights.len()];
    let mut seen = vec![usize::MAX; trees.targets];
    for (i, leaf) in trees.leaves().enumerate() {
        if leaf.len() != trees.targets {
            return None;
        }
        for weight in &trees.weights[leaf.clone()] {
            if std::mem::replace(&mut seen[weight.target], i) == i {
                return None;
            }
            table[leaf.start + weight.target] = weight.value;
        }
    }
    Some(table)
}

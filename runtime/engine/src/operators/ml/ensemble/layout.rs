//! Trees packed for walking.
//!
//! A [`Slot`] is a node: a split, a feature, and how far ahead its children lie, side by side. One
//! step is the same for every node: go `step` ahead, and one further if the reading is at most the
//! split. Other orders are brought into this form by exchanging the children and by moving the
//! split to the next number below.
//!
//! - NaN is at most nothing, and takes the first child. Where it should take the second, the
//!   feature's top bit says so.
//! - A leaf has a step of 0 and the feature one past the last, which is NaN in every row: it stays
//!   where it is however often it is stepped. So trees need no test for their end.
//! - A leaf's split is free: it holds the weight if there is one target, else the leaf's number.

use std::ops::Range;

use super::{Branch, Node, Scalar, Test, Trees};

/// The integer type of features and steps: 16 bits where all fit.
pub(super) trait Narrow: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// The bit that says that NaN takes the second child.
    const MISSING: usize;

    fn of(value: usize) -> Option<Self>;

    fn get(self) -> usize;
}

macro_rules! narrow {
    ($int:ident) => {
        impl Narrow for $int {
            const MISSING: usize = 1 << ($int::BITS - 1);

            fn of(value: usize) -> Option<Self> {
                $int::try_from(value).ok()
            }

            fn get(self) -> usize {
                self as usize
            }
        }
    };
}

narrow!(u16);
narrow!(u32);

/// A packed node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<T, I> {
    pub(super) split: T,
    pub(super) feature: I,
    pub(super) step: I,
}

/// A tree's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    pub(super) at: u32,
    /// Steps to its deepest leaf.
    pub(super) depth: u32,
}

/// All trees, packed.
#[derive(Debug)]
pub(super) struct Packed<T, I> {
    pub(super) slots: Vec<Slot<T, I>>,
    pub(super) roots: Vec<Root>,
    /// Some NaN takes a second child.
    pub(super) tracks_missing: bool,
}

impl<T: Scalar, I: Narrow> Packed<T, I> {
    /// Packs checked trees; `None` if a node asks for more than an order, or if they do not fit
    /// this width. `columns` is how many of a row's columns trees look at, and so the feature that
    /// leaves name. `payload` gives what a leaf holds.
    pub(super) fn of(
        trees: &Trees<T>,
        columns: usize,
        payload: impl Fn(&Range<usize>) -> T,
    ) -> Option<Self> {
        if columns >= I::MISSING {
            return None;
        }
        let mut packed = Self {
            slots: Vec::with_capacity(trees.nodes.len()),
            roots: Vec::with_capacity(trees.roots.len()),
            tracks_missing: false,
        };
        for root in &trees.roots {
            packed.add_tree(trees, *root, columns, &payload)?;
        }
        Some(packed)
    }

    /// Lays one tree out level by level: its upper nodes, which every row visits, lie together.
    fn add_tree(
        &mut self,
        trees: &Trees<T>,
        root: usize,
        columns: usize,
        payload: &impl Fn(&Range<usize>) -> T,
    ) -> Option<()> {
        let first = self.slots.len();
        let mut level = vec![root];
        let mut depth = 0;
        loop {
            let mut next = Vec::new();
            // Where the next level begins.
            let below = self.slots.len() + level.len();
            for node in &level {
                let step = below + next.len() - self.slots.len();
                let slot = match &trees.nodes[*node] {
                    Node::Leaf(range) => Slot {
                        split: payload(range),
                        feature: I::of(columns)?,
                        step: I::of(0)?,
                    },
                    Node::Branch(branch) => {
                        let form = Form::of(branch)?;
                        next.extend(form.children);
                        self.tracks_missing |= form.missing_second;
                        let missing = if form.missing_second { I::MISSING } else { 0 };
                        Slot {
                            split: form.split,
                            feature: I::of(branch.feature | missing)?,
                            step: I::of(step)?,
                        }
                    }
                };
                self.slots.push(slot);
            }
            if next.is_empty() {
                break;
            }
            level = next;
            depth += 1;
        }
        self.roots.push(Root {
            at: u32::try_from(first).ok()?,
            depth,
        });
        Some(())
    }
}

/// A branch in the one form that is walked: the second child if the reading is at most the split.
struct Form<T> {
    split: T,
    children: [usize; 2],
    missing_second: bool,
}

impl<T: Scalar> Form<T> {
    fn of(branch: &Branch<T>) -> Option<Self> {
        let (passed, failed) = (branch.passed, branch.failed);
        let at_most = |split| Self {
            split,
            children: [failed, passed],
            missing_second: branch.missing_passes,
        };
        let above = |split| Self {
            split,
            children: [passed, failed],
            missing_second: !branch.missing_passes,
        };
        match branch.test {
            Test::LessEqual(split) => Some(at_most(split)),
            Test::Less(split) => Some(at_most(split.below())),
            Test::Greater(split) => Some(above(split)),
            Test::GreaterEqual(split) => Some(above(split.below())),
            Test::Equal(_) | Test::NotEqual(_) | Test::Member(_) => None,
        }
    }
}

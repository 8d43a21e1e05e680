//! Trees walked as they are described: one row and one tree at a time, any test.

use std::ops::Range;

use super::{Branch, Node, Scalar, Test, Trees};

impl<T: Scalar> Trees<T> {
    /// The weights of the leaf in which `row` ends. The trees are checked and the row is wide
    /// enough.
    pub(super) fn leaf_of(&self, root: usize, row: &[T]) -> Range<usize> {
        let mut at = root;
        loop {
            at = match &self.nodes[at] {
                Node::Leaf(weights) => return weights.clone(),
                Node::Branch(branch) if passes(branch, row[branch.feature]) => branch.passed,
                Node::Branch(branch) => branch.failed,
            };
        }
    }
}

fn passes<T: Scalar>(branch: &Branch<T>, value: T) -> bool {
    let passed = match &branch.test {
        Test::LessEqual(split) => value <= *split,
        Test::Less(split) => value < *split,
        Test::GreaterEqual(split) => value >= *split,
        Test::Greater(split) => value > *split,
        Test::Equal(split) => value == *split,
        Test::NotEqual(split) => value != *split,
        Test::Member(set) => {
            let first = set.partition_point(|member| *member < value);
            set.get(first) == Some(&value)
        }
    };
    passed || (branch.missing_passes && value.is_nan())
}

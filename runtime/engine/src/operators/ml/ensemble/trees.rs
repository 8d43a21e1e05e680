//! Trees as an exporter describes them, and the check that they are trees.

use std::ops::Range;

use super::Scalar;

/// Outputs at most. Classes are listed one by one in the model; targets are just a number there,
/// and every row of an answer has room for each.
pub(crate) const TARGETS_MAX: usize = 1 << 16;
/// Nodes and weights at most: positions are 32 bits wide.
const NODES_MAX: usize = 1 << 31;
/// Columns at most: features are 31 bits wide where trees track missing readings.
const COLUMNS_MAX: usize = 1 << 30;

/// What a branch asks of its feature. NaN passes none of them but for [`Test::NotEqual`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test<T> {
    LessEqual(T),
    Less(T),
    GreaterEqual(T),
    Greater(T),
    Equal(T),
    NotEqual(T),
    /// Any of these, sorted.
    Member(Vec<T>),
}

/// A node that asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Branch<T> {
    pub(crate) feature: usize,
    pub(crate) test: Test<T>,
    /// A missing reading, NaN, passes the test.
    pub(crate) missing_passes: bool,
    /// The node to go to when the test is passed.
    pub(crate) passed: usize,
    /// The node to go to when it is not.
    pub(crate) failed: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node<T> {
    Branch(Branch<T>),
    /// Its weights: a range of [`Trees::weights`].
    Leaf(Range<usize>),
}

/// What a leaf adds to one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weight<T> {
    pub(crate) target: usize,
    pub(crate) value: T,
}

/// An ensemble as described.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trees<T> {
    pub(crate) nodes: Vec<Node<T>>,
    pub(crate) weights: Vec<Weight<T>>,
    /// The first node of each tree, in the order in which their leaves are added up.
    pub(crate) roots: Vec<usize>,
    pub(crate) targets: usize,
}

/// Why nodes are no ensemble. The model is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeError {
    #[error("{found} {what}; at most {most} are possible")]
    TooMany {
        what: &'static str,
        found: usize,
        most: usize,
    },
    #[error("an ensemble without a tree or without a target")]
    Empty,
    #[error("node {node} is reached twice: by a cycle, or from two parents")]
    ReachedTwice { node: usize },
    #[error("{what} {found} is named, and there are {count}")]
    Unknown {
        what: &'static str,
        found: usize,
        count: usize,
    },
    #[error("the split value of node {node} is not a number")]
    SplitNan { node: usize },
}

impl<T: Scalar> Trees<T> {
    /// Checks that every root begins a tree, that all that is named exists, and that there is not
    /// more of it than fits.
    pub(crate) fn check(&self) -> Result<(), TreeError> {
        within("nodes", self.nodes.len(), NODES_MAX)?;
        within("weights", self.weights.len(), NODES_MAX)?;
        within("targets", self.targets, TARGETS_MAX)?;
        if self.roots.is_empty() || self.targets == 0 {
            return Err(TreeError::Empty);
        }
        for weight in &self.weights {
            exists("target", weight.target, self.targets)?;
        }
        // Leaves of no tree as well: they are laid out without a look at who leads to them.
        for leaf in self.leaves() {
            exists("weight", leaf.end, self.weights.len() + 1)?;
            exists("weight", leaf.start, leaf.end + 1)?;
        }
        let mut reached = vec![false; self.nodes.len()];
        let mut open = Vec::new();
        for root in &self.roots {
            open.push(*root);
            // Ends, for no node is opened twice.
            while let Some(at) = open.pop() {
                exists("node", at, self.nodes.len())?;
                if std::mem::replace(&mut reached[at], true) {
                    return Err(TreeError::ReachedTwice { node: at });
                }
                if let Node::Branch(branch) = &self.nodes[at] {
                    check_branch(at, branch)?;
                    open.extend([branch.failed, branch.passed]);
                }
            }
        }
        Ok(())
    }

    /// Columns that a row must have.
    pub(crate) fn columns_min(&self) -> usize {
        let features = self.nodes.iter().map(|node| match node {
            Node::Branch(branch) => branch.feature + 1,
            Node::Leaf(_) => 0,
        });
        features.max().unwrap_or(0)
    }

    /// Each leaf's range of weights.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Range<usize>> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Leaf(range) => Some(range),
            Node::Branch(_) => None,
        })
    }

    /// The same in another number type.
    pub(crate) fn cast<U: Scalar>(self) -> Trees<U> {
        let to = |value: T| U::of(value.to_f64());
        let weight = |weight: Weight<T>| Weight {
            target: weight.target,
            value: to(weight.value),
        };
        let node = |node: Node<T>| match node {
            Node::Leaf(range) => Node::Leaf(range),
            Node::Branch(branch) => Node::Branch(Branch {
                feature: branch.feature,
                missing_passes: branch.missing_passes,
                passed: branch.passed,
                failed: branch.failed,
                test: match branch.test {
                    Test::LessEqual(split) => Test::LessEqual(to(split)),
                    Test::Less(split) => Test::Less(to(split)),
                    Test::GreaterEqual(split) => Test::GreaterEqual(to(split)),
                    Test::Greater(split) => Test::Greater(to(split)),
                    Test::Equal(split) => Test::Equal(to(split)),
                    Test::NotEqual(split) => Test::NotEqual(to(split)),
                    Test::Member(set) => Test::Member(set.into_iter().map(to).collect()),
                },
            }),
        };
        Trees {
            nodes: self.nodes.into_iter().map(node).collect(),
            weights: self.weights.into_iter().map(weight).collect(),
            roots: self.roots,
            targets: self.targets,
        }
    }
}

fn check_branch<T: Scalar>(at: usize, branch: &Branch<T>) -> Result<(), TreeError> {
    within("columns", branch.feature, COLUMNS_MAX)?;
    let nan = match &branch.test {
        Test::LessEqual(split)
        | Test::Less(split)
        | Test::GreaterEqual(split)
        | Test::Greater(split)
        | Test::Equal(split)
        | Test::NotEqual(split) => split.is_nan(),
        Test::Member(set) => set.iter().any(|member| member.is_nan()),
    };
    if nan {
        return Err(TreeError::SplitNan { node: at });
    }
    Ok(())
}

fn within(what: &'static str, found: usize, most: usize) -> Result<(), TreeError> {
    if found > most {
        return Err(TreeError::TooMany { what, found, most });
    }
    Ok(())
}

fn exists(what: &'static str, found: usize, count: usize) -> Result<(), TreeError> {
    if found >= count {
        return Err(TreeError::Unknown { what, found, count });
    }
    Ok(())
}

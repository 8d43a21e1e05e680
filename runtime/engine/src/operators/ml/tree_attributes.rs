//! The attributes of the three operators of trees, as [`Trees`].

use std::collections::HashMap;

use super::{
    attributes::{AttributeError, Attributes, Result, needed, of_length},
    ensemble::{Aggregate, Branch, Node, Test, Trees, Weight},
};

/// Missing readings pass the test of the node beside which a 1 stands.
const MISSING: &str = "nodes_missing_value_tracks_true";

/// Trees as versions 1 and 3 of the classifier and the regressor list them: nodes with ids within
/// trees with ids, weights that name the leaf they belong to.
pub(crate) fn listed(
    attributes: Attributes<'_>,
    names: &Names,
    targets: usize,
) -> Result<Trees<f64>> {
    let trees = needed("nodes_treeids", attributes.ints("nodes_treeids")?)?;
    let ids = list(attributes, "nodes_nodeids", trees.len())?;
    let mut places = HashMap::with_capacity(ids.len());
    let mut roots = Vec::new();
    for (place, key) in trees.iter().copied().zip(ids.iter().copied()).enumerate() {
        if places.insert(key, place).is_some() {
            return Err(AttributeError::Value {
                name: "nodes_nodeids",
                message: format!("node {} of tree {} stands twice", key.1, key.0),
            });
        }
        // A tree begins with its root.
        if place == 0 || trees[place - 1] != key.0 {
            roots.push(place);
        }
    }
    let (weights, leaves) = weights(attributes, names, &places)?;
    let modes = needed("nodes_modes", attributes.strings("nodes_modes")?)?;
    of_length("nodes_modes", modes.len(), ids.len())?;
    let features = list(attributes, "nodes_featureids", ids.len())?;
    let splits = numbers(attributes, "nodes_values", "nodes_values_as_tensor")?;
    let splits = needed("nodes_values", splits)?;
    of_length("nodes_values", splits.len(), ids.len())?;
    let passed = list(attributes, "nodes_truenodeids", ids.len())?;
    let failed = list(attributes, "nodes_falsenodeids", ids.len())?;
    let missing = missing(attributes, ids.len())?;
    let child = |name: &'static str, place: usize, id: i64| {
        let found = places.get(&(trees[place], id)).copied();
        found.ok_or_else(|| AttributeError::Value {
            name,
            message: format!("tree {} has no node {id}", trees[place]),
        })
    };
    let node = |place: usize| -> Result<Node<f64>> {
        if modes[place] == b"LEAF" {
            return Ok(Node::Leaf(leaves[place].clone()));
        }
        Ok(Node::Branch(Branch {
            feature: index("nodes_featureids", features[place])?,
            test: test(&modes[place], splits[place])?,
            missing_passes: missing[place],
            passed: child("nodes_truenodeids", place, passed[place])?,
            failed: child("nodes_falsenodeids", place, failed[place])?,
        }))
    };
    let nodes = (0..ids.len()).map(node).collect::<Result<_>>()?;
    let trees = Trees {
        nodes,
        weights,
        roots,
        targets,
    };
    trees.check()?;
    Ok(trees)
}

/// What the classifier and the regressor call the same things.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    trees: &'static str,
    nodes: &'static str,
    pub(crate) ids: &'static str,
    weights: &'static str,
    weights_tensor: &'static str,
}

pub(crate) const CLASS: Names = Names {
    trees: "class_treeids",
    nodes: "class_nodeids",
    ids: "class_ids",
    weights: "class_weights",
    weights_tensor: "class_weights_as_tensor",
};

pub(crate) const TARGET: Names = Names {
    trees: "target_treeids",
    nodes: "target_nodeids",
    ids: "target_ids",
    weights: "target_weights",
    weights_tensor: "target_weights_as_tensor",
};

type Leaves = Vec<std::ops::Range<usize>>;

/// Weights in the order of the nodes they belong to, and the range of each node.
fn weights(
    attributes: Attributes<'_>,
    names: &Names,
    places: &HashMap<(i64, i64), usize>,
) -> Result<(Vec<Weight<f64>>, Leaves)> {
    let ids = needed(names.ids, attributes.ints(names.ids)?)?;
    let trees = list(attributes, names.trees, ids.len())?;
    let nodes = list(attributes, names.nodes, ids.len())?;
    let values = numbers(attributes, names.weights, names.weights_tensor)?;
    let values = needed(names.weights, values)?;
    of_length(names.weights, values.len(), ids.len())?;
    let mut sorted = Vec::with_capacity(ids.len());
    for i in 0..ids.len() {
        let place = places.get(&(trees[i], nodes[i]));
        let place = place.ok_or_else(|| AttributeError::Value {
            name: names.nodes,
            message: format!("tree {} has no node {}", trees[i], nodes[i]),
        })?;
        let target = index(names.ids, ids[i])?;
        let value = values[i];
        sorted.push((*place, Weight { target, value }));
    }
    // Stable: weights of one leaf are added in the order in which they are listed.
    sorted.sort_by_key(|(place, _)| *place);
    let mut leaves = vec![0..0; places.len()];
    for (i, (place, _)) in sorted.iter().enumerate() {
        let leaf = &mut leaves[*place];
        if leaf.end == 0 {
            leaf.start = i;
        }
        leaf.end = i + 1;
    }
    Ok((sorted.into_iter().map(|(_, w)| w).collect(), leaves))
}

/// Trees as version 5 lists them: nodes and leaves apart, children by place.
pub(crate) fn placed(attributes: Attributes<'_>, targets: usize) -> Result<Trees<f64>> {
    let features = needed("nodes_featureids", attributes.ints("nodes_featureids")?)?;
    let count = features.len();
    let modes = needed("nodes_modes", attributes.tensor("nodes_modes")?)?;
    of_length("nodes_modes", modes.len(), count)?;
    let splits = needed("nodes_splits", attributes.tensor("nodes_splits")?)?;
    of_length("nodes_splits", splits.len(), count)?;
    let missing = missing(attributes, count)?;
    let sets = sets(attributes, &modes)?;
    let mut builder = Placed::new(attributes, count, targets)?;
    for place in 0..count {
        let test = match modes[place] as u8 {
            MEMBER => Test::Member(sets.get(&place).cloned().unwrap_or_default()),
            mode => numbered_test(mode, splits[place])?,
        };
        let branch = Branch {
            feature: index("nodes_featureids", features[place])?,
            test,
            missing_passes: missing[place],
            passed: builder.child(Side::Passed, place)?,
            failed: builder.child(Side::Failed, place)?,
        };
        builder.trees.nodes[place] = Node::Branch(branch);
    }
    let roots = needed("tree_roots", attributes.ints("tree_roots")?)?;
    // A tree of nothing but a leaf is written as a node whose sides are both that leaf.
    let roots = roots.iter().map(|root| index("tree_roots", *root));
    builder.trees.roots = roots.collect::<Result<_>>()?;
    builder.trees.check()?;
    Ok(builder.trees)
}

/// What is read of version 5, node by node.
struct Placed<'a> {
    trees: Trees<f64>,
    /// Children, and whether they are leaves, of each side.
    sides: [(&'a [i64], &'a [i64]); 2],
}

#[derive(Clone, Copy)]
enum Side {
    Passed,
    Failed,
}

impl<'a> Placed<'a> {
    fn new(attributes: Attributes<'a>, count: usize, targets: usize) -> Result<Self> {
        let ids = needed("leaf_targetids", attributes.ints("leaf_targetids")?)?;
        let values = needed("leaf_weights", attributes.tensor("leaf_weights")?)?;
        of_length("leaf_weights", values.len(), ids.len())?;
        let weight = |(id, value): (&i64, f64)| -> Result<Weight<f64>> {
            let target = index("leaf_targetids", *id)?;
            Ok(Weight { target, value })
        };
        Ok(Self {
            trees: Trees {
                nodes: vec![Node::Leaf(0..0); count],
                weights: ids.iter().zip(values).map(weight).collect::<Result<_>>()?,
                roots: vec![],
                targets,
            },
            sides: [
                (
                    list(attributes, "nodes_truenodeids", count)?,
                    list(attributes, "nodes_trueleafs", count)?,
                ),
                (
                    list(attributes, "nodes_falsenodeids", count)?,
                    list(attributes, "nodes_falseleafs", count)?,
                ),
            ],
        })
    }

    /// The node that a side leads to; of a leaf, a node of its own for every way that leads there.
    fn child(&mut self, side: Side, place: usize) -> Result<usize> {
        let (name, (children, leaves)) = match side {
            Side::Passed => ("nodes_truenodeids", self.sides[0]),
            Side::Failed => ("nodes_falsenodeids", self.sides[1]),
        };
        let child = index(name, children[place])?;
        if leaves[place] == 0 {
            return Ok(child);
        }
        self.leaf(name, child)
    }

    fn leaf(&mut self, name: &'static str, leaf: usize) -> Result<usize> {
        if leaf >= self.trees.weights.len() {
            let message = format!("there is no leaf {leaf}");
            return Err(AttributeError::Value { name, message });
        }
        self.trees.nodes.push(Node::Leaf(leaf..leaf + 1));
        Ok(self.trees.nodes.len() - 1)
    }
}

/// The mode that asks for a member of a set.
const MEMBER: u8 = 6;

/// Tests by number, as version 5 has them.
fn numbered_test(mode: u8, split: f64) -> Result<Test<f64>> {
    Ok(match mode {
        0 => Test::LessEqual(split),
        1 => Test::Less(split),
        2 => Test::GreaterEqual(split),
        3 => Test::Greater(split),
        4 => Test::Equal(split),
        5 => Test::NotEqual(split),
        _ => {
            return Err(AttributeError::Value {
                name: "nodes_modes",
                message: format!("{mode} is not a mode"),
            });
        }
    })
}

/// Tests by name, as versions 1 and 3 have them.
fn test(mode: &[u8], split: f64) -> Result<Test<f64>> {
    Ok(match mode {
        b"BRANCH_LEQ" => Test::LessEqual(split),
        b"BRANCH_LT" => Test::Less(split),
        b"BRANCH_GTE" => Test::GreaterEqual(split),
        b"BRANCH_GT" => Test::Greater(split),
        b"BRANCH_EQ" => Test::Equal(split),
        b"BRANCH_NEQ" => Test::NotEqual(split),
        other => {
            return Err(AttributeError::Value {
                name: "nodes_modes",
                message: format!("`{}` is not a mode", String::from_utf8_lossy(other)),
            });
        }
    })
}

/// The sets of the nodes that ask for members: one after the other, with NaN behind each.
fn sets(attributes: Attributes<'_>, modes: &[f64]) -> Result<HashMap<usize, Vec<f64>>> {
    let name = "membership_values";
    let values = attributes.tensor(name)?.unwrap_or_default();
    let mut sets = values.split(|value| value.is_nan());
    let mut of_node = HashMap::new();
    for (place, _) in modes
        .iter()
        .enumerate()
        .filter(|(_, m)| **m as u8 == MEMBER)
    {
        let mut set = needed(name, sets.next())?.to_vec();
        set.sort_by(f64::total_cmp);
        of_node.insert(place, set);
    }
    Ok(of_node)
}

/// How weights are put together, as version 3 says it.
pub(crate) fn aggregate(attributes: Attributes<'_>) -> Result<Aggregate> {
    let name = "aggregate_function";
    let word = attributes.word(name)?;
    Ok(match word {
        None | Some("SUM") => Aggregate::Sum,
        Some("AVERAGE") => Aggregate::Average,
        Some("MIN") => Aggregate::Min,
        Some("MAX") => Aggregate::Max,
        Some(other) => {
            let message = format!("`{other}` is not a function");
            return Err(AttributeError::Value { name, message });
        }
    })
}

fn missing(attributes: Attributes<'_>, count: usize) -> Result<Vec<bool>> {
    match attributes.ints(MISSING)? {
        None | Some([]) => Ok(vec![false; count]),
        Some(tracks) => {
            of_length(MISSING, tracks.len(), count)?;
            Ok(tracks.iter().map(|track| *track == 1).collect())
        }
    }
}

/// Numbers as floats, or as a tensor where they are doubles.
pub(crate) fn numbers(
    attributes: Attributes<'_>,
    floats: &'static str,
    tensor: &'static str,
) -> Result<Option<Vec<f64>>> {
    let listed = attributes.floats(floats)?.filter(|list| !list.is_empty());
    match listed {
        Some(list) => Ok(Some(list.iter().map(|v| f64::from(*v)).collect())),
        None => attributes.tensor(tensor),
    }
}

fn list<'a>(attributes: Attributes<'a>, name: &'static str, length: usize) -> Result<&'a [i64]> {
    let found = needed(name, attributes.ints(name)?)?;
    of_length(name, found.len(), length)?;
    Ok(found)
}

fn index(name: &'static str, value: i64) -> Result<usize> {
    usize::try_from(value).map_err(|_| AttributeError::Value {
        name,
        message: format!("{value} is not a place"),
    })
}

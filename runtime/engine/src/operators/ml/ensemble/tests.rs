use proptest::prelude::*;

use super::*;

/// The specification read aloud: one row, one tree, one node at a time, in `f64`.
fn reference(trees: &Trees<f64>, aggregate: Aggregate, row: &[f64]) -> Vec<f64> {
    let mut totals: Vec<Option<f64>> = vec![None; trees.targets];
    for root in &trees.roots {
        let mut at = *root;
        let weights = loop {
            match &trees.nodes[at] {
                Node::Leaf(range) => break range.clone(),
                Node::Branch(branch) => {
                    at = if asks(branch, row[branch.feature]) {
                        branch.passed
                    } else {
                        branch.failed
                    };
                }
            }
        };
        for weight in &trees.weights[weights] {
            let total = &mut totals[weight.target];
            *total = Some(match (aggregate, *total) {
                (_, None) => weight.value,
                (Aggregate::Sum | Aggregate::Average, Some(sum)) => sum + weight.value,
                (Aggregate::Min, Some(least)) => least.min(weight.value),
                (Aggregate::Max, Some(most)) => most.max(weight.value),
            });
        }
    }
    let totals = totals.into_iter().map(|total| total.unwrap_or(0.0));
    match aggregate {
        Aggregate::Average => totals.map(|t| t / trees.roots.len() as f64).collect(),
        _ => totals.collect(),
    }
}

fn asks(branch: &Branch<f64>, x: f64) -> bool {
    if x.is_nan() && branch.missing_passes {
        return true;
    }
    match &branch.test {
        Test::LessEqual(split) => x <= *split,
        Test::Less(split) => x < *split,
        Test::GreaterEqual(split) => x >= *split,
        Test::Greater(split) => x > *split,
        Test::Equal(split) => x == *split,
        Test::NotEqual(split) => x != *split,
        Test::Member(set) => set.contains(&x),
    }
}

const COLUMNS: usize = 5;

/// Values that meet often, with the ends and the odd ones among them.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (-4..=4_i32).prop_map(|v| f64::from(v) / 2.0),
        1 => Just(-0.0),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(f64::from(f32::MIN_POSITIVE) / 4.0),
        1 => (-1e3..1e3_f64).prop_map(|v| f64::from(v as f32)),
    ]
}

fn reading() -> impl Strategy<Value = f64> {
    prop_oneof![6 => value(), 1 => Just(f64::NAN)]
}

fn test(kinds: std::ops::Range<u8>) -> impl Strategy<Value = Test<f64>> {
    let set = prop::collection::vec(value(), 0..4);
    (kinds, value(), set).prop_map(|(kind, split, mut set)| match kind {
        0 => Test::LessEqual(split),
        1 => Test::Less(split),
        2 => Test::GreaterEqual(split),
        3 => Test::Greater(split),
        4 => Test::Equal(split),
        5 => Test::NotEqual(split),
        _ => {
            set.sort_by(f64::total_cmp);
            Test::Member(set)
        }
    })
}

/// What one node of a tree is to be; a tree is made of a list of them.
type Seed = (Test<f64>, usize, bool, bool, Vec<(usize, f64)>);

/// Trees of any shape: each seed makes a node a branch, or leaves it a leaf.
fn trees(
    kinds: std::ops::Range<u8>,
    targets: usize,
    dense: bool,
) -> impl Strategy<Value = Trees<f64>> {
    let weight = (0..targets, -8..8_i32).prop_map(|(target, value)| (target, f64::from(value)));
    let weights = prop::collection::vec(weight, 0..3);
    let seed = (
        test(kinds),
        0..COLUMNS,
        any::<bool>(),
        any::<bool>(),
        weights,
    );
    let seeds = prop::collection::vec(seed, 1..40);
    prop::collection::vec(seeds, 1..20).prop_map(move |seeds| {
        let mut trees = Trees {
            nodes: vec![],
            weights: vec![],
            roots: vec![],
            targets,
        };
        for seeds in seeds {
            grow(&mut trees, &seeds, dense);
        }
        trees
    })
}

fn grow(trees: &mut Trees<f64>, seeds: &[Seed], dense: bool) {
    let root = trees.nodes.len();
    trees.roots.push(root);
    trees.nodes.push(Node::Leaf(0..0));
    let mut open = std::collections::VecDeque::from([root]);
    for (test, feature, missing_passes, deep, _) in seeds {
        let Some(at) = (if *deep {
            open.pop_back()
        } else {
            open.pop_front()
        }) else {
            break;
        };
        let passed = trees.nodes.len();
        trees.nodes.extend([Node::Leaf(0..0), Node::Leaf(0..0)]);
        trees.nodes[at] = Node::Branch(Branch {
            feature: *feature,
            test: test.clone(),
            missing_passes: *missing_passes,
            passed,
            failed: passed + 1,
        });
        open.extend([passed, passed + 1]);
    }
    for (i, at) in open.into_iter().enumerate() {
        let start = trees.weights.len();
        let (.., weights) = &seeds[i % seeds.len()];
        if dense {
            let value = |target| weights.first().map_or(1.0, |w| w.1) + target as f64 + i as f64;
            let all = (0..trees.targets).rev();
            trees.weights.extend(all.map(|target| Weight {
                target,
                value: value(target),
            }));
        } else {
            let weights = weights.iter();
            trees.weights.extend(weights.map(|(target, value)| Weight {
                target: *target,
                value: *value,
            }));
        }
        trees.nodes[at] = Node::Leaf(start..trees.weights.len());
    }
}

fn aggregate() -> impl Strategy<Value = Aggregate> {
    prop_oneof![
        Just(Aggregate::Sum),
        Just(Aggregate::Average),
        Just(Aggregate::Min),
        Just(Aggregate::Max),
    ]
}

fn agrees(trees: &Trees<f64>, aggregate: Aggregate, rows: &[[f64; COLUMNS]]) {
    let expected: Vec<f64> = rows
        .iter()
        .flat_map(|row| reference(trees, aggregate, row))
        .collect();
    let double = Ensemble::new(trees.clone(), aggregate).unwrap();
    let scores = double.score(rows.as_flattened(), rows.len(), COLUMNS);
    assert_eq!(scores.values, expected);
    // Readings and splits are exact in f32, sums of small whole numbers as well.
    let single = Ensemble::<f32>::new(trees.clone().cast(), aggregate).unwrap();
    let narrow: Vec<f32> = rows.as_flattened().iter().map(|v| *v as f32).collect();
    let scores = single.score(&narrow, rows.len(), COLUMNS);
    let expected: Vec<f32> = expected.iter().map(|v| *v as f32).collect();
    assert_eq!(scores.values, expected);
}

fn rows() -> impl Strategy<Value = Vec<[f64; COLUMNS]>> {
    let row = prop_oneof![
        prop::array::uniform5(reading()),
        prop::array::uniform5(value()),
    ];
    prop::collection::vec(row, 1..40)
}

proptest! {
    #[test]
    fn packed_trees_answer_as_the_specification_reads(
        trees in trees(0..4, 1, true), rows in rows(), aggregate in aggregate(),
    ) {
        agrees(&trees, aggregate, &rows);
    }

    #[test]
    fn tables_of_weights_answer_as_the_specification_reads(
        trees in trees(0..1, 3, true), rows in rows(), aggregate in aggregate(),
    ) {
        agrees(&trees, aggregate, &rows);
    }

    #[test]
    fn any_leaf_may_have_any_weights(
        trees in trees(0..4, 3, false), rows in rows(), aggregate in aggregate(),
    ) {
        agrees(&trees, aggregate, &rows);
    }

    #[test]
    fn tests_that_are_no_order_answer_as_the_specification_reads(
        trees in trees(0..7, 2, false), rows in rows(), aggregate in aggregate(),
    ) {
        agrees(&trees, aggregate, &rows);
    }

    #[test]
    fn many_rows_answer_as_one_by_one(trees in trees(0..4, 2, true), rows in rows()) {
        let ensemble = Ensemble::new(trees, Aggregate::Sum).unwrap();
        let all = ensemble.score(rows.as_flattened(), rows.len(), COLUMNS).values;
        let each = rows.iter().flat_map(|row| ensemble.score(row, 1, COLUMNS).values);
        prop_assert_eq!(all, each.collect::<Vec<f64>>());
    }
}

fn branch(passed: usize, failed: usize) -> Node<f64> {
    Node::Branch(Branch {
        feature: 0,
        test: Test::LessEqual(0.0),
        missing_passes: false,
        passed,
        failed,
    })
}

fn made(nodes: Vec<Node<f64>>, roots: Vec<usize>) -> Trees<f64> {
    Trees {
        nodes,
        weights: vec![Weight {
            target: 0,
            value: 1.0,
        }],
        roots,
        targets: 1,
    }
}

#[test]
fn what_is_no_tree_is_refused() {
    let leaf = Node::Leaf(0..1);
    let refused = |trees: Trees<f64>| trees.check().unwrap_err();
    let cycle = made(vec![branch(1, 2), branch(0, 0), leaf.clone()], vec![0]);
    assert_eq!(refused(cycle), TreeError::ReachedTwice { node: 0 });
    let itself = made(vec![branch(0, 1), leaf.clone()], vec![0]);
    assert_eq!(refused(itself), TreeError::ReachedTwice { node: 0 });
    let two_parents = made(vec![branch(1, 1), leaf.clone()], vec![0]);
    assert_eq!(refused(two_parents), TreeError::ReachedTwice { node: 1 });
    let shared = made(vec![leaf.clone()], vec![0, 0]);
    assert_eq!(refused(shared), TreeError::ReachedTwice { node: 0 });
    assert!(matches!(
        refused(made(vec![branch(1, 7), leaf.clone()], vec![0])),
        TreeError::Unknown { found: 7, .. }
    ));
    assert!(matches!(
        refused(made(vec![Node::Leaf(0..2)], vec![0])),
        TreeError::Unknown { what: "weight", .. }
    ));
    assert_eq!(refused(made(vec![leaf.clone()], vec![])), TreeError::Empty);
    let mut huge = made(vec![leaf.clone()], vec![0]);
    huge.targets = usize::MAX;
    assert!(matches!(refused(huge), TreeError::TooMany { .. }));
    let mut split = made(vec![branch(1, 2), leaf.clone(), leaf], vec![0]);
    if let Node::Branch(branch) = &mut split.nodes[0] {
        branch.test = Test::Less(f64::NAN);
    }
    assert_eq!(refused(split), TreeError::SplitNan { node: 0 });
}

#[test]
fn a_tree_as_deep_as_it_has_nodes_is_walked_to_its_end() {
    const DEPTH: usize = 100_000;
    let mut nodes: Vec<Node<f64>> = (0..DEPTH)
        .flat_map(|level| [branch(2 * level + 2, 2 * level + 1), Node::Leaf(0..1)])
        .collect();
    nodes.push(Node::Leaf(1..2));
    let mut trees = made(nodes, vec![0]);
    trees.weights.push(Weight {
        target: 0,
        value: 5.0,
    });
    let ensemble = Ensemble::new(trees, Aggregate::Sum).unwrap();
    let rows = [-1.0, 1.0].repeat(8);
    let scores = ensemble.score(&rows, 16, 1).values;
    assert_eq!(scores, [5.0, 1.0].repeat(8));
}

#[test]
fn features_and_trees_beyond_sixteen_bits_are_walked_all_the_same() {
    let mut trees = made(
        vec![branch(1, 2), Node::Leaf(0..1), Node::Leaf(1..2)],
        vec![0],
    );
    trees.weights.push(Weight {
        target: 0,
        value: 5.0,
    });
    if let Node::Branch(branch) = &mut trees.nodes[0] {
        branch.feature = 70_000;
        branch.missing_passes = true;
    }
    let ensemble = Ensemble::new(trees, Aggregate::Sum).unwrap();
    let mut rows = vec![0.0; 3 * 70_001];
    rows[70_000] = f64::NAN;
    rows[140_001] = 1.0;
    assert_eq!(ensemble.score(&rows, 3, 70_001).values, [1.0, 5.0, 1.0]);
}

//! `LpPool`, which the engine lacks, by the pooling that it has.
//!
//! `(Σ |x|^p)^(1/p)` is `(mean |x|^p · k)^(1/p)` with `k` elements in a window, padding counted.
//! <https://onnx.ai/onnx/operators/onnx__LpPool.html>

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

use super::{attribute, float_constant, int_attribute, node};
use crate::inspect;

/// The operator that this pass takes away.
pub(super) const LP_POOL: &str = "LpPool";

/// Rewrites one graph.
pub(super) fn rewrite(graph: &mut GraphProto) {
    if graph.node.iter().any(is_meant) {
        let nodes = std::mem::take(&mut graph.node);
        for node in nodes {
            if is_meant(&node) {
                graph.node.extend(averages(&node));
            } else {
                graph.node.push(node);
            }
        }
    }
}

fn is_meant(node: &NodeProto) -> bool {
    node.op_type == LP_POOL && node.input.len() == 1 && node.output.len() == 1
}

fn averages(of: &NodeProto) -> Vec<NodeProto> {
    let name = |part: &str| format!("{}#{part}", inspect::node_name(of));
    let tensor = |part: &str| format!("{}#{part}", of.output[0]);
    let p = attribute(of, "p").map_or(2, |p| p.i) as f32;
    let window = attribute(of, "kernel_shape").map_or(1, |kernel| kernel.ints.iter().product());
    let made = |operator: &str, part: &str, inputs: &[&str], output: &str| {
        node(name(part), operator, inputs, output)
    };
    let (size, power, mean, sum) = (
        tensor("size"),
        tensor("power"),
        tensor("mean"),
        tensor("sum"),
    );
    let (p_name, root, count) = (tensor("p"), tensor("root"), tensor("count"));
    let mut pool = made("AveragePool", "mean", &[&power], &mean);
    pool.attribute = kept(of);
    let mut last = made("Pow", "norm", &[&sum, &root], &of.output[0]);
    last.name = inspect::node_name(of);
    vec![
        float_constant(name("p"), p, &p_name),
        float_constant(name("root"), p.recip(), &root),
        float_constant(name("count"), window as f32, &count),
        made("Abs", "size", &[&of.input[0]], &size),
        made("Pow", "power", &[&size, &p_name], &power),
        pool,
        made("Mul", "sum", &[&mean, &count], &sum),
        last,
    ]
}

fn kept(of: &NodeProto) -> Vec<AttributeProto> {
    let own = of
        .attribute
        .iter()
        .filter(|attribute| attribute.name != "p");
    own.cloned()
        .chain([int_attribute("count_include_pad", 1)])
        .collect()
}

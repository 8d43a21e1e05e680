//! Operators on quantised integers, as the same operators on f32 between rounding to the grid.
//!
//! `QLinearConv(x, w)` becomes `QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w)))`,
//! and so on. Weights are constants, and dequantised once; a `QuantizeLinear` and the
//! `DequantizeLinear` after it are one rounding in f32. An integer sum is exact where the f32 sum
//! is rounded, which moves an output by one step where it falls on a tie.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::{GraphProto, NodeProto, tensor_proto::DataType};

use super::{attribute, float_constant, int_attribute, node};
use crate::inspect;

/// Operators that this pass takes away, and the engine need not know.
/// <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>
pub(super) const REWRITTEN: [&str; 11] = [
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMatMul",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
];

/// Operators that a quantised model is known by, beside [`REWRITTEN`].
const QUANTISED: [&str; 5] = [
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QuantizeLinear",
];

/// Operators that only move elements of their first input, or take some of them: on integers the
/// same as on the numbers that the integers stand for.
const MOVERS: [&str; 12] = [
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Whether a node computes on quantised numbers.
pub(crate) fn is_quantised(node: &NodeProto) -> bool {
    let operator = node.op_type.as_str();
    QUANTISED.contains(&operator) || REWRITTEN.contains(&operator)
}

/// Rewrites one graph.
pub(super) fn rewrite(graph: &mut GraphProto) {
    if !graph.node.iter().any(is_quantised) {
        return;
    }
    let floats = cast_to_float_only(graph);
    let single = single_numbers(graph);
    let mut rewriter = Rewriter {
        nodes: Vec::with_capacity(graph.node.len() * 2),
        grids: BTreeMap::new(),
        single,
    };
    for node in std::mem::take(&mut graph.node) {
        rewriter.rewrite(node, &floats);
    }
    graph.node = rewriter.nodes;
}

/// What nothing but casts to f32 reads: sums of products that a dynamically quantised model scales.
fn cast_to_float_only(graph: &GraphProto) -> BTreeSet<String> {
    let is_cast = |node: &NodeProto| {
        node.op_type == "Cast"
            && attribute(node, "to").is_some_and(|to| to.i == DataType::Float as i64)
    };
    let mut cast: BTreeSet<String> = BTreeSet::new();
    let mut other: BTreeSet<&str> = graph.output.iter().map(|port| port.name.as_str()).collect();
    for node in &graph.node {
        // An inner graph may read anything.
        let has_inner = node
            .attribute
            .iter()
            .any(|a| a.g.is_some() || !a.graphs.is_empty());
        if has_inner {
            return BTreeSet::new();
        }
        if is_cast(node) {
            cast.extend(node.input.iter().cloned());
        } else {
            other.extend(node.input.iter().map(String::as_str));
        }
    }
    cast.retain(|name| !other.contains(name.as_str()));
    cast
}

/// Constants of one element.
fn single_numbers(graph: &GraphProto) -> BTreeSet<String> {
    let initialisers = graph
        .initializer
        .iter()
        .map(|tensor| (&tensor.name, tensor));
    let constants = graph.node.iter().filter(|node| node.op_type == "Constant");
    let constants = constants
        .filter_map(|node| Some((node.output.first()?, attribute(node, "value")?.t.as_ref()?)));
    initialisers
        .chain(constants)
        .filter(|(_, tensor)| tensor.dims.iter().all(|dim| *dim == 1))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Names of a scale and a zero point; the zero point may be empty.
type GridNames = (String, String);

struct Rewriter {
    nodes: Vec<NodeProto>,
    /// Quantised tensors, and the one scale and zero point that they have.
    grids: BTreeMap<String, GridNames>,
    single: BTreeSet<String>,
}

impl Rewriter {
    fn rewrite(&mut self, node: NodeProto, floats: &BTreeSet<String>) {
        let operator = node.op_type.as_str();
        let in_float = node
            .output
            .first()
            .is_some_and(|output| floats.contains(output));
        match operator {
            "QuantizeLinear" => {
                self.note(&node);
                self.nodes.push(node);
            }
            "DynamicQuantizeLinear" => {
                // Its zero point is one number, whatever it turns out to be.
                self.single.extend(node.output.get(2).cloned());
                self.nodes.push(node);
            }
            "QLinearConv" => self.conv(&node),
            "QLinearMatMul" => self.binary(&node, "MatMul"),
            "QLinearAdd" => self.binary(&node, "Add"),
            "QLinearMul" => self.binary(&node, "Mul"),
            "QGemm" => self.gemm(&node),
            "QLinearSigmoid" => self.unary(&node, "Sigmoid"),
            "QLinearLeakyRelu" => self.unary(&node, "LeakyRelu"),
            "QLinearSoftmax" => self.unary(&node, "Softmax"),
            "QLinearAveragePool" => self.unary(&node, "AveragePool"),
            "QLinearGlobalAveragePool" => self.unary(&node, "GlobalAveragePool"),
            "QLinearConcat" => self.concat(&node),
            "MatMulInteger" if in_float => self.integer(node, "MatMul"),
            "ConvInteger" if in_float => self.integer(node, "Conv"),
            _ if MOVERS.contains(&operator) => self.mover(node),
            _ => self.nodes.push(node),
        }
    }

    /// Remembers the grid of a `QuantizeLinear`, if it is one for the whole tensor.
    fn note(&mut self, node: &NodeProto) {
        let scale = input(node, 1);
        let zero = input(node, 2);
        let known = self.single.contains(scale) && (zero.is_empty() || self.single.contains(zero));
        // Without a zero point the type is an attribute's, which a mover would lose.
        if known && !zero.is_empty() {
            let grid = (scale.to_owned(), zero.to_owned());
            self.grids.insert(output(node).to_owned(), grid);
        }
    }

    /// The f32 tensor of the `at`th input, quantised by the two that follow.
    fn float(&mut self, of: &NodeProto, at: usize, axis: Option<i64>) -> String {
        let names = [input(of, at), input(of, at + 1), input(of, at + 2)];
        self.dequantise(of, at, names, axis)
    }

    fn dequantise(
        &mut self,
        of: &NodeProto,
        at: usize,
        names: [&str; 3],
        axis: Option<i64>,
    ) -> String {
        let float = format!("{}#float-{at}", output(of));
        let name = format!("{}#dequantise-{at}", inspect::node_name(of));
        let used = if names[2].is_empty() {
            &names[..2]
        } else {
            &names[..]
        };
        let mut made = node(name, "DequantizeLinear", used, &float);
        made.attribute
            .extend(axis.map(|axis| int_attribute("axis", axis)));
        self.nodes.push(made);
        float
    }

    /// The operator on f32, and the rounding after it.
    fn put(&mut self, of: &NodeProto, operator: &str, inputs: &[&str], grid: (&str, &str)) {
        let float = format!("{}#float", output(of));
        let mut made = node(of.name.clone(), operator, inputs, &float);
        made.name = inspect::node_name(of);
        made.attribute.clone_from(&of.attribute);
        self.nodes.push(made);
        let name = format!("{}#quantise", inspect::node_name(of));
        let used = [float.as_str(), grid.0, grid.1];
        let used = if grid.1.is_empty() {
            &used[..2]
        } else {
            &used[..]
        };
        let made = node(name, "QuantizeLinear", used, output(of));
        self.note(&made);
        self.nodes.push(made);
    }

    /// x, its grid; w, its grid, by output channel; the output's grid; a bias.
    fn conv(&mut self, of: &NodeProto) {
        let x = self.float(of, 0, None);
        let w = self.float(of, 3, Some(0));
        let bias = self.bias(of, 8);
        let inputs = [x.as_str(), w.as_str()];
        let inputs: Vec<&str> = inputs.into_iter().chain(bias.as_deref()).collect();
        self.put(of, "Conv", &inputs, (input(of, 6), input(of, 7)));
    }

    /// a, its grid; b, its grid, by column; a bias; the output's grid, or none: then it is f32.
    fn gemm(&mut self, of: &NodeProto) {
        let transposed = attribute(of, "transB").is_some_and(|t| t.i != 0);
        let a = self.float(of, 0, None);
        let b = self.float(of, 3, Some(i64::from(!transposed)));
        let bias = self.bias(of, 6);
        let inputs = [a.as_str(), b.as_str()];
        let inputs: Vec<&str> = inputs.into_iter().chain(bias.as_deref()).collect();
        if input(of, 7).is_empty() {
            let mut made = node(inspect::node_name(of), "Gemm", &inputs, output(of));
            made.attribute.clone_from(&of.attribute);
            self.nodes.push(made);
        } else {
            self.put(of, "Gemm", &inputs, (input(of, 7), input(of, 8)));
        }
    }

    /// The bias at `at`, in i32 on the grid of the products: `alpha · x_scale · w_scale`, zero 0.
    fn bias(&mut self, of: &NodeProto, at: usize) -> Option<String> {
        let bias = Some(input(of, at)).filter(|name| !name.is_empty())?;
        let name = |part: &str| format!("{}#bias-{part}", inspect::node_name(of));
        let tensor = |part: &str| format!("{}#bias-{part}", output(of));
        let (float, scale, scaled) = (tensor("float"), tensor("scale"), tensor("scaled"));
        let mut cast = node(name("float"), "Cast", &[bias], &float);
        cast.attribute = vec![int_attribute("to", DataType::Float as i64)];
        let scales = [input(of, 1), input(of, 4)];
        self.nodes.push(cast);
        self.nodes.push(node(name("scale"), "Mul", &scales, &scale));
        self.nodes
            .push(node(name("scaled"), "Mul", &[&float, &scale], &scaled));
        let alpha = attribute(of, "alpha").map_or(1.0, |alpha| alpha.f);
        if alpha == 1.0 {
            return Some(scaled);
        }
        let (constant, product) = (tensor("alpha"), tensor("product"));
        self.nodes
            .push(float_constant(name("alpha"), alpha, &constant));
        self.nodes.push(node(
            name("product"),
            "Mul",
            &[&scaled, &constant],
            &product,
        ));
        Some(product)
    }

    /// a, its grid; b, its grid; the output's. A matrix product's may go by row of a and column of b.
    fn binary(&mut self, of: &NodeProto, operator: &str) {
        let a = self.float(of, 0, Some(-2));
        let b = self.float(of, 3, Some(-1));
        self.put(of, operator, &[&a, &b], (input(of, 6), input(of, 7)));
    }

    /// x, its grid; the output's.
    fn unary(&mut self, of: &NodeProto, operator: &str) {
        let x = self.float(of, 0, None);
        self.put(of, operator, &[&x], (input(of, 3), input(of, 4)));
    }

    /// The output's grid; then each x and its grid.
    fn concat(&mut self, of: &NodeProto) {
        let parts = (2..of.input.len()).step_by(3);
        let floats: Vec<String> = parts.map(|at| self.float(of, at, None)).collect();
        let floats: Vec<&str> = floats.iter().map(String::as_str).collect();
        self.put(of, "Concat", &floats, (input(of, 0), input(of, 1)));
    }

    /// Moves the numbers that the integers stand for; they stay on their grid.
    fn mover(&mut self, of: NodeProto) {
        let grid = self.grids.get(input(&of, 0)).cloned();
        let Some((scale, zero)) = grid.filter(|_| of.output.len() == 1) else {
            self.nodes.push(of);
            return;
        };
        let float = self.dequantise(&of, 0, [input(&of, 0), &scale, &zero], None);
        let others = of.input.iter().skip(1).map(String::as_str);
        let inputs: Vec<&str> = [float.as_str()].into_iter().chain(others).collect();
        self.put(&of, &of.op_type, &inputs, (&scale, &zero));
    }

    /// Integers less their zero points, multiplied and summed in f32: the sum is at once scaled in
    /// f32 by the cast that follows.
    fn integer(&mut self, of: NodeProto, operator: &str) {
        let by_number = |name: &str| name.is_empty() || self.single.contains(name);
        if !by_number(input(&of, 2)) || !by_number(input(&of, 3)) {
            self.nodes.push(of);
            return;
        }
        let a = self.centred(&of, 0, input(&of, 2));
        let b = self.centred(&of, 1, input(&of, 3));
        let mut made = node(inspect::node_name(&of), operator, &[&a, &b], output(&of));
        made.attribute = of.attribute;
        self.nodes.push(made);
    }

    fn centred(&mut self, of: &NodeProto, at: usize, zero: &str) -> String {
        let mut float = |part: &str, from: &str| {
            let to = format!("{}#{part}-{at}", output(of));
            let name = format!("{}#{part}-{at}", inspect::node_name(of));
            let mut cast = node(name, "Cast", &[from], &to);
            cast.attribute = vec![int_attribute("to", DataType::Float as i64)];
            self.nodes.push(cast);
            to
        };
        let x = float("float", input(of, at));
        if zero.is_empty() {
            return x;
        }
        let zero = float("zero", zero);
        let centred = format!("{}#centred-{at}", output(of));
        let name = format!("{}#centred-{at}", inspect::node_name(of));
        self.nodes.push(node(name, "Sub", &[&x, &zero], &centred));
        centred
    }
}

fn input(node: &NodeProto, at: usize) -> &str {
    node.input.get(at).map_or("", String::as_str)
}

fn output(node: &NodeProto) -> &str {
    node.output.first().map_or("", String::as_str)
}

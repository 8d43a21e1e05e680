//! `RNN`, `GRU` and `LSTM` with the activations that a model asks for; the engine's reader takes
//! the usual ones whatever stands there.

mod cell;

use tract_onnx::{
    Onnx,
    model::ParsingContext,
    ops::rec::{
        common::{CommonRec, WireBody},
        gru::GRU,
        lstm::LSTM,
        rnn::RNN,
    },
    pb::{AttributeProto, NodeProto},
    tract_core::{
        internal::*,
        ops::{math::tanh, nn::sigmoid},
    },
    tract_hir::internal::*,
};

use super::activation::Activation;
use cell::Body;
pub(super) use cell::LstmCell;

const USUAL_RNN: [&str; 1] = ["Tanh"];
const USUAL_GRU: [&str; 2] = ["Sigmoid", "Tanh"];
const USUAL_LSTM: [&str; 3] = ["Sigmoid", "Tanh", "Tanh"];
/// Inputs that each of them has: numbers, and weights of two kinds.
const INPUTS: usize = 3;

pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert("GRU", gru);
    onnx.op_register.insert("LSTM", lstm);
    onnx.op_register.insert("RNN", rnn);
}

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

fn rnn(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let [fore] = activations(node, USUAL_RNN)?;
    let back = fore.clone();
    built(node, RNN { fore, back })
}

fn gru(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let [f, g] = activations(node, USUAL_GRU)?;
    let linear_before_reset = node.get_attr_opt("linear_before_reset")?.unwrap_or(false);
    let body = GRU {
        f,
        g,
        linear_before_reset,
    };
    built(node, body)
}

fn lstm(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let [f, g, h] = activations(node, USUAL_LSTM)?;
    let is_usual =
        [&f, &g, &h].map(|op| op.name()) == [sigmoid().name(), tanh().name(), tanh().name()];
    match is_usual {
        true => built(node, LSTM { f, g, h }),
        false => built(node, Body(LSTM { f, g, h })),
    }
}

fn built(node: &NodeProto, body: impl WireBody + 'static) -> Built {
    let common = CommonRec::from_node_and_options(node, INPUTS, 0, Box::new(body))?;
    Ok((expand(common), vec![]))
}

/// Whether such a node asks for what is not computed here: bounds of gates, coupled gates, rare
/// activations, or other ones backwards than forwards.
pub(crate) fn is_beyond(node: &NodeProto) -> bool {
    let attribute = |name: &str| node.attribute.iter().find(|found| found.name == name);
    let unknown = match node.op_type.as_str() {
        "RNN" => activations(node, USUAL_RNN).is_err(),
        "GRU" => activations(node, USUAL_GRU).is_err(),
        _ => activations(node, USUAL_LSTM).is_err(),
    };
    unknown
        || attribute("clip").is_some_and(|clip| clip.f > 0.0)
        || attribute("input_forget").is_some_and(|coupled| coupled.i != 0)
}

/// The activations of a cell, one set for both directions.
fn activations<const N: usize>(
    node: &NodeProto,
    usual: [&str; N],
) -> TractResult<[Box<dyn TypedOp>; N]> {
    let attribute = |name: &str| node.attribute.iter().find(|found| found.name == name);
    let asked = attribute("activations").map_or(&[][..], |names| &names.strings);
    let names: Vec<_> = asked
        .iter()
        .map(|name| String::from_utf8_lossy(name))
        .collect();
    let mut alphas = Parameters::of(attribute("activation_alpha"));
    let mut betas = Parameters::of(attribute("activation_beta"));
    let (one, other) = names.split_at(N.min(names.len()));
    ensure!(
        names.is_empty() || one.len() == N && (other.is_empty() || one == other),
        "activations {names:?}, not {N} of them for both directions"
    );
    let mut found = Vec::new();
    for (at, usual) in usual.iter().enumerate() {
        let name = one.get(at).map_or(*usual, |name| name);
        found.push(activation(name, &mut alphas, &mut betas)?);
    }
    ensure!(
        alphas.are_taken() && betas.are_taken(),
        "parameters of no activation"
    );
    found.try_into().map_err(|_| format_err!("{N} activations"))
}

/// Parameters of activations, which take theirs one after the other.
struct Parameters<'a> {
    all: &'a [f32],
    taken: usize,
}

impl<'a> Parameters<'a> {
    fn of(attribute: Option<&'a AttributeProto>) -> Self {
        Self {
            all: attribute.map_or(&[], |attribute| &attribute.floats),
            taken: 0,
        }
    }

    fn next(&mut self, usual: f32) -> f32 {
        let next = self.all.get(self.taken).copied();
        self.taken += usize::from(next.is_some());
        next.unwrap_or(usual)
    }

    /// All but those of the other direction, which must be the same.
    fn are_taken(&self) -> bool {
        let (taken, left) = self.all.split_at(self.taken);
        left.is_empty() || left == taken
    }
}

fn activation(
    name: &str,
    alphas: &mut Parameters<'_>,
    betas: &mut Parameters<'_>,
) -> TractResult<Box<dyn TypedOp>> {
    let op = match name.to_ascii_lowercase().as_str() {
        "tanh" => tanh(),
        "sigmoid" => sigmoid(),
        "relu" => Activation::Relu.op(),
        "leakyrelu" => Activation::LeakyRelu(alphas.next(0.01)).op(),
        "thresholdedrelu" => Activation::thresholded_relu(alphas.next(1.0)).op(),
        "elu" => Activation::Elu(alphas.next(1.0)).op(),
        "hardsigmoid" => Activation::HardSigmoid(alphas.next(0.2), betas.next(0.5)).op(),
        "softplus" => Activation::Softplus.op(),
        "softsign" => Activation::Softsign.op(),
        other => bail!("activation `{other}` is not supported"),
    };
    Ok(Box::new(op))
}

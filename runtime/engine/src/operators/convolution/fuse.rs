//! Finds convolutions in a graph, with what directly follows them, and has them done flat.

use tract_onnx::tract_core::{
    internal::*,
    ops::{
        binary::TypedBinOp,
        cnn::{Conv, KernelFormat},
        element_wise::ElementWiseOp,
        nn::{DataFormat, LeakyRelu},
    },
};

use super::{FlatConvolution, Geometry, Step};

/// Steps that one convolution takes in; exporters write two or three.
const STEPS_MAX: usize = 8;

/// Replaces all convolutions that are better done flat. Shapes must be concrete.
pub(crate) fn flatten(model: &mut TypedModel) -> TractResult<()> {
    let is_convolution = |node: &TypedNode| node.op_is::<Conv>();
    if !model.nodes().iter().any(is_convolution) {
        return Ok(());
    }
    model.prop_consts()?;
    for node in 0..model.nodes().len() {
        if let Some(patch) = flattened(model, node)? {
            patch.apply(model)?;
        }
    }
    Ok(())
}

fn flattened(model: &TypedModel, node: usize) -> TractResult<Option<TypedModelPatch>> {
    let Some(mut found) = Found::read(model, model.node(node))? else {
        return Ok(None);
    };
    let mut end = node;
    while let Some(next) = only_reader(model, end) {
        if !found.absorb(model, end, next)? {
            break;
        }
        end = next;
    }
    if let Some((last, step)) = gate(model, end)? {
        found.steps.push(step);
        end = last;
    }
    let input = model.node(node).inputs[0];
    let Some(op) = FlatConvolution::new(
        found.geometry,
        found.shape,
        &found.kernel,
        &found.bias,
        found.steps,
    ) else {
        return Ok(None);
    };
    let mut patch = TypedModelPatch::new("flat convolution");
    let input = patch.tap_model(model, input)?;
    let output = patch.wire_node(model.node(end).name.clone(), op, &[input])?[0];
    patch.shunt_outside(model, end.into(), output)?;
    Ok(Some(patch))
}

struct Found {
    geometry: Geometry,
    shape: TVec<usize>,
    channel_axis: usize,
    kernel: Vec<f32>,
    bias: Vec<f32>,
    steps: Vec<Step>,
}

impl Found {
    fn read(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Self>> {
        let Some(conv) = node.op_as::<Conv>().filter(|conv| is_plain(conv)) else {
            return Ok(None);
        };
        let fact = model.outlet_fact(node.inputs[0])?;
        let kernel = floats(model.outlet_fact(node.inputs[1])?);
        let bias = floats(model.outlet_fact(node.inputs[2])?);
        let (Some(shape), Some(kernel), Some(bias)) = (fact.shape.as_concrete(), kernel, bias)
        else {
            return Ok(None);
        };
        let is_f32 = fact.datum_type == f32::datum_type();
        if !is_f32 || conv.group == 0 || kernel.is_empty() {
            return Ok(None);
        }
        let result = conv.pool_spec.output_shape(shape)?;
        let bias = match bias[..] {
            [value] => vec![value; conv.output_channels()],
            _ => bias,
        };
        Ok(Some(Self {
            geometry: geometry(conv, shape)?,
            channel_axis: result.c_axis(),
            shape: result.shape.iter().copied().collect(),
            kernel,
            bias,
            steps: Vec::new(),
        }))
    }

    /// Takes a node into the convolution before it, if it can be.
    fn absorb(&mut self, model: &TypedModel, end: usize, next: usize) -> TractResult<bool> {
        if self.steps.len() >= STEPS_MAX {
            return Ok(false);
        }
        if let Some(op) = model.node(next).op_as::<ElementWiseOp>() {
            let leaky = op.0.downcast_ref::<LeakyRelu>();
            self.steps
                .extend(leaky.map(|leaky| Step::Leaky(leaky.alpha)));
            return Ok(leaky.is_some());
        }
        let Some((op, fact, is_left)) = with_constant(model, end, next)? else {
            return Ok(false);
        };
        if let Some(step) = bound(op, &fact) {
            self.steps.push(step);
            return Ok(true);
        }
        let Some(values) = self.by_channel(&fact).filter(|_| self.steps.is_empty()) else {
            return Ok(false);
        };
        let taps = self.kernel.len() / self.bias.len();
        let weights = self.kernel.chunks_exact_mut(taps);
        for ((weights, bias), value) in weights.zip(&mut self.bias).zip(values) {
            let (scale, shift) = match (op, is_left) {
                ("Mul", _) => (value, 0.0),
                ("Add", _) => (1.0, value),
                ("Sub", false) => (1.0, -value),
                ("Div", false) => (1.0 / value, 0.0),
                _ => return Ok(false),
            };
            *bias = *bias * scale + shift;
            weights.iter_mut().for_each(|weight| *weight *= scale);
        }
        Ok(true)
    }

    /// One value for each channel of the result.
    fn by_channel(&self, fact: &TypedFact) -> Option<Vec<f32>> {
        let values = floats(fact)?;
        if let [value] = values[..] {
            return Some(vec![value; self.bias.len()]);
        }
        let dims = fact.shape.as_concrete()?;
        let mut wanted = vec![1; self.shape.len()];
        wanted[self.channel_axis] = self.bias.len();
        (dims == wanted).then_some(values)
    }
}

fn is_plain(conv: &Conv) -> bool {
    let spec = &conv.pool_spec;
    conv.q_params.is_none()
        && conv.kernel_fmt == KernelFormat::OIHW
        && matches!(spec.data_format, DataFormat::NCHW | DataFormat::CHW)
        && (1..=2).contains(&spec.rank())
}

fn geometry(conv: &Conv, shape: &[usize]) -> TractResult<Geometry> {
    let spec = &conv.pool_spec;
    let data = spec.data_format.shape(shape)?;
    let padding = spec.computed_padding(data.hw_dims());
    let both = |size: &dyn Fn(usize) -> usize, missing: usize| match spec.rank() {
        1 => [missing, size(0)],
        _ => [size(0), size(1)],
    };
    Ok(Geometry {
        batch: data.n().copied().unwrap_or(1),
        groups: conv.group,
        inputs: conv.input_channels() / conv.group,
        outputs: conv.output_channels() / conv.group,
        image: both(&|axis| data.hw_dims()[axis], 1),
        result: both(&|axis| padding[axis].convoluted, 1),
        kernel: both(&|axis| spec.kernel_shape[axis], 1),
        strides: both(&|axis| spec.stride(axis), 1),
        dilations: both(&|axis| spec.dilation(axis), 1),
        before: both(&|axis| padding[axis].pad_before, 0),
    })
}

fn floats(fact: &TypedFact) -> Option<Vec<f32>> {
    let constant = fact.konst.as_ref()?.try_as_plain_ram().ok()?;
    Some(constant.as_slice::<f32>().ok()?.to_vec())
}

fn scalar(fact: &TypedFact) -> Option<f32> {
    match floats(fact)?[..] {
        [value] => Some(value),
        _ => None,
    }
}

fn bound(op: &str, fact: &TypedFact) -> Option<Step> {
    match op {
        "Max" => scalar(fact).map(Step::Max),
        "Min" => scalar(fact).map(Step::Min),
        _ => None,
    }
}

fn only_reader(model: &TypedModel, node: usize) -> Option<usize> {
    match model.node(node).outputs[0].successors[..] {
        [inlet] if !model.outputs.contains(&node.into()) => Some(inlet.node),
        _ => None,
    }
}

/// What a node does to another's output with a constant: the operator, the constant, and whether
/// that stands on the left. The shape must stay.
fn with_constant(
    model: &TypedModel,
    from: usize,
    node: usize,
) -> TractResult<Option<(&'static str, TypedFact, bool)>> {
    let node = model.node(node);
    let Some(op) = node.op_as::<TypedBinOp>() else {
        return Ok(None);
    };
    let is_left = node.inputs[1] == from.into();
    let constant = model.outlet_fact(node.inputs[usize::from(!is_left)])?;
    let from = model.outlet_fact(from.into())?;
    let output = &node.outputs[0].fact;
    let stays = output.shape == from.shape && output.datum_type == from.datum_type;
    let fits = constant.konst.is_some() && stays && node.inputs[0] != node.inputs[1];
    Ok(fits.then(|| (op.0.name(), constant.clone(), is_left)))
}

/// Finds [`Step::Gate`] where two nodes read an output: the last node of it.
fn gate(model: &TypedModel, end: usize) -> TractResult<Option<(usize, Step)>> {
    let [one, other] = model.node(end).outputs[0].successors[..] else {
        return Ok(None);
    };
    if model.outputs.contains(&end.into()) {
        return Ok(None);
    }
    for (first, product) in [(one.node, other.node), (other.node, one.node)] {
        let Some(("Add", fact, _)) = with_constant(model, end, first)? else {
            continue;
        };
        let Some(add) = scalar(&fact) else { continue };
        let (clamped, low, high) = clamp(model, first)?;
        let op = model.node(product).op_as::<TypedBinOp>();
        let is_product = op.is_some_and(|op| op.0.name() == "Mul");
        if is_product && only_reader(model, clamped) == Some(product) {
            let (last, scale) = scaled(model, product)?;
            let gate = Step::Gate {
                add,
                low,
                high,
                scale,
            };
            return Ok(Some((last, gate)));
        }
    }
    Ok(None)
}

/// Follows a lower and then an upper bound: the last node, and the bounds.
fn clamp(model: &TypedModel, from: usize) -> TractResult<(usize, f32, f32)> {
    let (mut at, mut low, mut high) = (from, f32::NEG_INFINITY, f32::INFINITY);
    for wanted in ["Max", "Min"] {
        let Some(next) = only_reader(model, at) else {
            break;
        };
        let found = with_constant(model, at, next)?;
        let found = found.and_then(|(op, fact, _)| bound(op, &fact).filter(|_| op == wanted));
        match found {
            Some(Step::Max(value)) => low = value,
            Some(Step::Min(value)) => high = value,
            _ => continue,
        }
        at = next;
    }
    Ok((at, low, high))
}

/// Follows a product or quotient with one number: the last node, and the factor.
fn scaled(model: &TypedModel, product: usize) -> TractResult<(usize, f32)> {
    let unscaled = Ok((product, 1.0));
    let Some(next) = only_reader(model, product) else {
        return unscaled;
    };
    let Some((op, fact, is_left)) = with_constant(model, product, next)? else {
        return unscaled;
    };
    match (op, scalar(&fact), is_left) {
        ("Mul", Some(value), _) => Ok((next, value)),
        ("Div", Some(value), false) => Ok((next, 1.0 / value)),
        _ => unscaled,
    }
}

//! Scales and zero points along an axis, in blocks, or computed by the model itself.

use tract_onnx::{
    pb::NodeProto,
    tract_core::ops::{
        cast::cast,
        math::{add, max, min, mul, round_half_to_even, sub},
    },
    tract_hir::internal::*,
};

use super::{super::division::Division, grid::bounds};

/// How scales lie along the tensor they scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    /// The axis of a vector of scales; from the end if negative.
    axis: i64,
    /// Elements of the axis that share a scale; 0 for none.
    block: usize,
}

impl Layout {
    pub(super) fn of(node: &NodeProto) -> TractResult<Self> {
        let block: i64 = node.get_attr_opt("block_size")?.unwrap_or(0);
        Ok(Self {
            axis: node.get_attr_opt("axis")?.unwrap_or(1),
            block: usize::try_from(block).context("block_size is negative")?,
        })
    }

    fn axis(self, rank: usize) -> TractResult<usize> {
        let axis = if self.axis < 0 {
            self.axis + rank as i64
        } else {
            self.axis
        };
        let axis = usize::try_from(axis).ok().filter(|axis| *axis < rank);
        axis.with_context(|| format!("axis {} of a tensor of rank {rank}", self.axis))
    }

    /// Scales or zero points, shaped so that they broadcast over a tensor of this shape.
    fn spread(self, values: &Tensor, shape: &[usize]) -> TractResult<Tensor> {
        let rank = shape.len();
        if self.block > 0 && values.rank() == rank {
            let axis = self.axis(rank)?;
            let at = |i: usize| values.slice(axis, i / self.block, i / self.block + 1);
            let slices = (0..shape[axis]).map(at).collect::<TractResult<Vec<_>>>()?;
            return Tensor::stack_tensors(axis, &slices);
        }
        if values.rank() == rank && values.len() > 1 {
            return Ok(values.clone());
        }
        ensure!(
            values.len() == 1 || values.rank() == 1,
            "scales of rank {}",
            values.rank()
        );
        let mut spread: TVec<usize> = tvec![1; rank];
        if values.len() > 1 {
            let axis = self.axis(rank)?;
            ensure!(
                values.len() == shape[axis],
                "{} scales or zero points for {} elements",
                values.len(),
                shape[axis]
            );
            spread[axis] = values.len();
        }
        values.clone().into_shape(&spread)
    }
}

/// `DequantizeLinear` of constants, which weights are: computed here, so that the engine sees the
/// weights of an ordinary model, whatever their size.
pub(super) fn dequantised_constant(
    model: &TypedModel,
    inputs: &[OutletId],
    layout: Layout,
) -> TractResult<Option<Tensor>> {
    let mut constants = tvec![];
    for input in inputs {
        match &model.outlet_fact(*input)?.konst {
            Some(tensor) => constants.push(Arc::clone(tensor)),
            None => return Ok(None),
        }
    }
    let [x, scale, zero @ ..] = constants.as_slice() else {
        bail!("no scale");
    };
    let spread = |values: &Tensor| -> TractResult<Tensor> {
        let values = values.cast_to::<f32>()?;
        layout.spread(&values, x.shape())
    };
    let mut y = x.cast_to::<f32>()?.into_owned().into_plain_array::<f32>()?;
    if let Some(zero) = zero.first() {
        y -= &spread(zero)?.to_plain_array_view::<f32>()?;
    }
    y *= &spread(scale)?.to_plain_array_view::<f32>()?;
    let y = y.into_tensor();
    Ok(Some(y.cast_to_dt(scale.datum_type())?.into_owned()))
}

/// `saturate(round(x / scale) + zero)`.
pub(super) fn wire_quantise(
    prefix: &str,
    model: &mut TypedModel,
    inputs: &[OutletId],
    dtype: DatumType,
    layout: Layout,
) -> TractResult<TVec<OutletId>> {
    let (least, greatest) =
        bounds(dtype).with_context(|| format!("nothing is quantised to {dtype:?}"))?;
    let wires = wire_inputs(prefix, model, inputs, layout)?;
    let name = |part: &str| format!("{prefix}.{part}");
    let rank = model.outlet_fact(inputs[0])?.rank();
    let bound = |value: f32| tensor0(value).broadcast_into_rank(rank);
    let steps = model.wire_node(name("steps"), Division, &wires[..2])?;
    let mut y = model.wire_node(name("round"), round_half_to_even(), &steps)?;
    if let Some(zero) = wires.get(2) {
        y = model.wire_node(name("add"), add(), &[y[0], *zero])?;
    }
    let least = model.add_const(name("least"), bound(least)?)?;
    let greatest = model.add_const(name("greatest"), bound(greatest)?)?;
    y = model.wire_node(name("max"), max(), &[y[0], least])?;
    y = model.wire_node(name("min"), min(), &[y[0], greatest])?;
    model.wire_node(prefix, cast(dtype), &y)
}

/// `(x − zero) · scale`.
pub(super) fn wire_dequantise(
    prefix: &str,
    model: &mut TypedModel,
    inputs: &[OutletId],
    layout: Layout,
) -> TractResult<TVec<OutletId>> {
    let dtype = model.outlet_fact(inputs[1])?.datum_type;
    let wires = wire_inputs(prefix, model, inputs, layout)?;
    let mut y = tvec![wires[0]];
    if let Some(zero) = wires.get(2) {
        y = model.wire_node(format!("{prefix}.centred"), sub(), &[y[0], *zero])?;
    }
    y = model.wire_node(format!("{prefix}.scaled"), mul(), &[y[0], wires[1]])?;
    model.wire_node(prefix, cast(dtype), &y)
}

/// The inputs as f32, scale and zero point so that they broadcast.
fn wire_inputs(
    prefix: &str,
    model: &mut TypedModel,
    inputs: &[OutletId],
    layout: Layout,
) -> TractResult<TVec<OutletId>> {
    let shape = model.outlet_fact(inputs[0])?.shape.clone();
    let mut wires = tvec![];
    for (i, input) in inputs.iter().enumerate() {
        let name = format!("{prefix}.input-{i}");
        let constant = model.outlet_fact(*input)?.konst.clone();
        wires.push(match constant {
            Some(values) if i > 0 => {
                let sizes = shape.as_concrete().context("a shape that is not known")?;
                let values = values.cast_to::<f32>()?;
                model.add_const(name, layout.spread(&values, sizes)?)?
            }
            _ => {
                let wire = model.wire_node(&name, cast(DatumType::F32), &[*input])?[0];
                if i == 0 {
                    wire
                } else {
                    wire_spread(&name, model, wire, layout, shape.rank())?
                }
            }
        });
    }
    Ok(wires)
}

/// As [`Layout::spread`], for what the model computes.
fn wire_spread(
    prefix: &str,
    model: &mut TypedModel,
    mut wire: OutletId,
    layout: Layout,
    rank: usize,
) -> TractResult<OutletId> {
    let found = model.outlet_fact(wire)?.rank();
    ensure!(
        found <= 1 && layout.block == 0,
        "a computed scale is a number or a vector"
    );
    // Axes before the vector's, then those after it; all of them for a single number.
    let before = if found == 1 && rank > 1 {
        layout.axis(rank)?
    } else {
        0
    };
    for at in found..rank {
        let axis = if at - found < before { 0 } else { at };
        wire = model.wire_node(format!("{prefix}.axis-{at}"), AxisOp::Add(axis), &[wire])?[0];
    }
    Ok(wire)
}

//! An operator of the engine whose kernels may lose NaN, and where NaN belongs in what it gives.

use tract_onnx::{
    tract_core::internal::*,
    tract_hir::internal::tract_ndarray::{ArrayD, Axis, IxDyn},
};

use super::{
    cells,
    number::{Number, by_float, holds_nan},
};

/// How NaN spreads from what goes in to what comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spread {
    /// To the same place.
    Same,
    /// All along the axes.
    Along(TVec<usize>),
    /// As a sum would take it: the operator that adds up where this one compares.
    Sum(Box<dyn TypedOp>),
    /// To the front of a list sorted along an axis.
    First { axis: usize, greatest: bool },
    /// One step of an LSTM, of so many units.
    LstmCell(usize),
    /// One step of a GRU.
    GruCell(usize),
    /// All steps of a GRU.
    Gru {
        hidden: usize,
        /// The inputs are multiplied with their weights already.
        projected: bool,
        backward: bool,
    },
}

/// The operator, as it is where it is fed no NaN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    op: Box<dyn TypedOp>,
    spread: Spread,
    /// The inputs that may bring a NaN: constants that hold none are not looked at again.
    watched: TVec<usize>,
}

impl Kept {
    pub(super) fn new(op: Box<dyn TypedOp>, spread: Spread, facts: &[&TypedFact]) -> Self {
        let is_clean = |fact: &TypedFact| {
            let constant = fact.konst.as_ref();
            constant.is_some_and(|constant| matches!(holds_nan(constant), Ok(false)))
        };
        let watched = (0..facts.len()).filter(|at| !is_clean(facts[*at]));
        let watched = watched.collect();
        Self {
            op,
            spread,
            watched,
        }
    }

    fn run(
        &self,
        mut inputs: TVec<TValue>,
        mut engine: impl FnMut(TVec<TValue>) -> TractResult<TVec<TValue>>,
    ) -> TractResult<TVec<TValue>> {
        let mut spoilt = false;
        for at in &self.watched {
            spoilt = spoilt || holds_nan(&inputs[*at])?;
        }
        if !spoilt {
            return engine(inputs);
        }
        if let Spread::First { axis, greatest } = self.spread {
            return sorted(&mut inputs, axis, greatest, engine);
        }
        let places = self.places(&inputs)?;
        let outputs = engine(inputs)?.into_iter().zip(places);
        outputs
            .map(|(output, places)| Ok(marked(output, &places)?.into_tvalue()))
            .collect()
    }

    /// Where each output is NaN.
    fn places(&self, inputs: &[TValue]) -> TractResult<TVec<ArrayD<bool>>> {
        Ok(match &self.spread {
            Spread::Same => tvec!(nan(&inputs[0])?),
            Spread::Along(axes) => tvec!(along(&nan(&inputs[0])?, axes)),
            Spread::Sum(sum) => {
                let shares = inputs.iter().map(nan_alone).collect::<TractResult<_>>()?;
                tvec!(nan(&sum.eval(&EvalContext::out_of_plan(), shares)?[0])?)
            }
            Spread::LstmCell(hidden) => cells::lstm_cell(inputs, *hidden)?,
            Spread::GruCell(hidden) => cells::gru_cell(inputs, *hidden)?,
            Spread::Gru {
                hidden,
                projected,
                backward,
            } => cells::gru(inputs, *hidden, *projected, *backward)?,
            Spread::First { .. } => tvec!(),
        })
    }
}

/// Where a tensor is NaN.
pub(super) fn nan(tensor: &TValue) -> TractResult<ArrayD<bool>> {
    fn places<T: Number>(tensor: &Tensor) -> TractResult<ArrayD<bool>> {
        Ok(tensor.to_plain_array_view::<T>()?.mapv(T::is_nan))
    }
    by_float!(tensor.datum_type(), places(tensor))
}

fn marked(output: TValue, places: &ArrayD<bool>) -> TractResult<Tensor> {
    fn mark<T: Number>(output: &mut Tensor, places: &ArrayD<bool>) -> TractResult<()> {
        let mut plain = output.try_as_plain_ram_mut()?;
        let values = plain.as_slice_mut::<T>()?;
        ensure!(values.len() == places.len(), "NaN was looked for elsewhere");
        for (value, is_nan) in values.iter_mut().zip(places) {
            *value = if *is_nan { T::nan() } else { *value };
        }
        Ok(())
    }
    let mut output = output.into_tensor();
    by_float!(output.datum_type(), mark(&mut output, places))?;
    Ok(output)
}

fn along(places: &ArrayD<bool>, axes: &[usize]) -> ArrayD<bool> {
    let mut found = places.clone();
    for axis in axes {
        let any = found.map_axis(Axis(*axis), |line| line.iter().any(|nan| *nan));
        found = any.insert_axis(Axis(*axis));
    }
    let shape = IxDyn(places.shape());
    found
        .broadcast(shape)
        .map_or(found.clone(), |wide| wide.to_owned())
}

/// NaN, and 0 for each number; other types as they are.
fn nan_alone(tensor: &TValue) -> TractResult<TValue> {
    fn alone<T: Number>(tensor: &Tensor) -> TractResult<TValue> {
        let view = tensor.to_plain_array_view::<T>()?;
        let alone = view.mapv(|x| if x.is_nan() { x } else { T::zero() });
        Ok(alone.into_tensor().into_tvalue())
    }
    match tensor.datum_type().is_float() {
        true => by_float!(tensor.datum_type(), alone(tensor)),
        false => Ok(tensor.clone()),
    }
}

/// The first of a sorted list: places as if NaN were beyond infinity, and what stands there.
fn sorted(
    inputs: &mut TVec<TValue>,
    axis: usize,
    greatest: bool,
    mut engine: impl FnMut(TVec<TValue>) -> TractResult<TVec<TValue>>,
) -> TractResult<TVec<TValue>> {
    fn without_nan<T: Number>(tensor: &Tensor, greatest: bool) -> TractResult<TValue> {
        let instead = if greatest {
            T::infinity()
        } else {
            T::neg_infinity()
        };
        let view = tensor.to_plain_array_view::<T>()?;
        let without = view.mapv(|x| if x.is_nan() { instead } else { x });
        Ok(without.into_tensor().into_tvalue())
    }
    fn at<T: Number>(tensor: &Tensor, places: &Tensor, axis: usize) -> TractResult<TValue> {
        let values = tensor.to_plain_array_view::<T>()?;
        let places = places.to_plain_array_view::<i64>()?;
        let found = ArrayD::from_shape_fn(places.raw_dim(), |mut at| {
            let place = places[&at] as usize;
            at[axis] = place;
            values[at]
        });
        Ok(found.into_tensor().into_tvalue())
    }
    let values = inputs[0].clone();
    let dtype = values.datum_type();
    inputs[0] = by_float!(dtype, without_nan(&values, greatest))?;
    let mut outputs = engine(std::mem::take(inputs))?;
    outputs[0] = by_float!(dtype, at(&values, &outputs[1], axis))?;
    Ok(outputs)
}

impl Op for Kept {
    fn name(&self) -> StaticName {
        format!("{}KeepingNan", self.op.name()).into()
    }

    op_as_typed_op!();
}

impl EvalOp for Kept {
    fn eval(&self, ctx: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.run(inputs, |inputs| self.op.eval(ctx, inputs))
    }

    // The engine folds nothing any more when this is put in.
    not_out_of_plan!();

    fn state(&self, ctx: &EvalContext<'_>) -> TractResult<Option<Box<dyn OpState>>> {
        let state = self.op.state(ctx)?;
        Ok(state.map(|state| Box::new(KeptState(state)) as _))
    }
}

impl TypedOp for Kept {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.op.output_facts(inputs)
    }

    as_op!();
}

/// State of an operator that has one.
#[derive(Debug, Clone)]
struct KeptState(Box<dyn OpState>);

impl OpState for KeptState {
    fn eval(
        &mut self,
        ctx: &EvalContext<'_>,
        op: &dyn Op,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let kept = op
            .downcast_ref::<Kept>()
            .context("another operator's state")?;
        kept.run(inputs, |inputs| self.0.eval(ctx, kept.op.as_op(), inputs))
    }

    fn reset_lanes(&mut self, lanes: &[LaneId]) -> TractResult<()> {
        self.0.reset_lanes(lanes)
    }
}

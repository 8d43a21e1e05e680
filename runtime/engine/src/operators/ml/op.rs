//! Where operators of ONNX-ML meet the engine.
//!
//! An operator is a [`Kernel`]: attributes already checked, facts of its outputs from facts of its
//! inputs, and evaluation. This module gives every kernel the engine's faces.

use std::{
    borrow::Cow,
    fmt::Debug,
    hash::{Hash, Hasher},
};

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

/// An element type and dimensions.
pub(crate) type Fact = (DatumType, TVec<TDim>);

/// An operator with its attributes checked.
pub(crate) trait Kernel: Debug + Send + Sync + 'static {
    /// The operator's name.
    fn name(&self) -> &'static str;

    /// How many inputs it takes.
    fn inputs(&self) -> usize {
        1
    }

    /// Type and dimensions of each output; an error says what is wrong with the inputs.
    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>>;

    /// Its outputs. Inputs are of the types and dimensions that [`Self::facts`] has accepted.
    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>>;
}

/// The operator for the engine's reader. Outputs that the node leaves unnamed are left out.
pub(crate) fn operator(node: &NodeProto, kernel: impl Kernel) -> Box<dyn InferenceOp> {
    let named = node.output.iter().enumerate();
    expand(MlOp {
        kernel: Arc::new(kernel),
        outputs: named
            .filter(|(_, name)| !name.is_empty())
            .map(|(i, _)| i)
            .collect(),
    })
}

/// A kernel with the engine's faces.
#[derive(Debug, Clone)]
struct MlOp {
    kernel: Arc<dyn Kernel>,
    /// The outputs that somebody named.
    outputs: TVec<usize>,
}

// Two operators are equal if they are the same one: the engine asks to merge what it has doubled.
impl PartialEq for MlOp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel) && self.outputs == other.outputs
    }
}

impl Eq for MlOp {}

impl Hash for MlOp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.kernel).hash(state);
    }
}

impl MlOp {
    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let all = self.kernel.facts(inputs)?;
        self.select(&all)
    }

    fn select<T: Clone>(&self, all: &[T]) -> TractResult<TVec<T>> {
        let outputs = self.outputs.iter();
        outputs
            .map(|i| all.get(*i).cloned())
            .collect::<Option<_>>()
            .with_context(|| format!("{} has {} outputs", self.kernel.name(), all.len()))
    }
}

impl Expansion for MlOp {
    fn name(&self) -> StaticName {
        self.kernel.name().into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.kernel.inputs())?;
        check_output_arity(outputs, self.outputs.len())?;
        let types = inputs.iter().map(|input| &input.datum_type);
        solver.given_all(types, move |solver, types: Vec<DatumType>| {
            let shapes = inputs.iter().map(|input| &input.shape);
            solver.given_all(shapes, move |solver, shapes: Vec<TVec<TDim>>| {
                let types = types.iter().copied();
                let facts: Vec<Fact> = types.zip(shapes).collect();
                for (output, (dtype, shape)) in outputs.iter().zip(self.facts(&facts)?) {
                    solver.equals(&output.datum_type, dtype)?;
                    solver.equals(&output.shape, shape)?;
                }
                Ok(())
            })
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for MlOp {
    fn name(&self) -> StaticName {
        self.kernel.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for MlOp {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.select(&self.kernel.eval(&inputs)?)
    }
}

impl TypedOp for MlOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let inputs: Vec<Fact> = inputs
            .iter()
            .map(|fact| (fact.datum_type, fact.shape.to_tvec()))
            .collect();
        let facts = self.facts(&inputs)?;
        Ok(facts
            .into_iter()
            .map(|(dtype, shape)| dtype.fact(shape))
            .collect())
    }

    as_op!();
}

/// Rows and columns of an input of one or two dimensions; one dimension is one row.
pub(crate) fn matrix(shape: &[TDim]) -> TractResult<(TDim, TDim)> {
    match shape {
        [columns] => Ok((1.to_dim(), columns.clone())),
        [rows, columns] => Ok((rows.clone(), columns.clone())),
        _ => bail!("an input of {} dimensions, not of 1 or 2", shape.len()),
    }
}

/// The same of a tensor.
pub(crate) fn rows_columns(tensor: &Tensor) -> TractResult<(usize, usize)> {
    match *tensor.shape() {
        [columns] => Ok((1, columns)),
        [rows, columns] => Ok((rows, columns)),
        ref shape => bail!("an input of {} dimensions, not of 1 or 2", shape.len()),
    }
}

/// The columns must be these, where they are known already.
pub(crate) fn expect_columns(found: &TDim, expected: usize) -> TractResult<()> {
    let columns = found.to_usize().ok();
    ensure!(
        columns.is_none_or(|columns| columns == expected),
        "an input of {found} columns; the model was made for {expected}"
    );
    Ok(())
}

/// Refuses types that are not numbers.
pub(crate) fn expect_number(dtype: DatumType) -> TractResult<()> {
    let number = matches!(
        dtype,
        DatumType::F32 | DatumType::F64 | DatumType::I64 | DatumType::I32 | DatumType::TDim
    );
    ensure!(
        number,
        "an input of {dtype:?}, not of float, double, int64 or int32"
    );
    Ok(())
}

/// The elements as `f32`, cast where they are not.
pub(crate) fn floats(value: &TValue) -> TractResult<Cow<'_, Tensor>> {
    value.cast_to::<f32>()
}

/// A tensor of these elements.
pub(crate) fn tensor<T: Datum + Copy>(shape: &[usize], values: &[T]) -> TractResult<TValue> {
    Ok(Tensor::from_shape(shape, values)?.into_tvalue())
}

//! One step of an LSTM with other activations than the usual; the engine has it with those alone.

use tract_onnx::{
    ops::rec::{common::WireBody, lstm::LSTM},
    tract_core::{internal::*, ops::lstm_cell::LstmEpilogue},
    tract_hir::internal::tract_ndarray::ArrayD,
};

/// The engine's body, but for what it does with the gates.
#[derive(Debug, Clone)]
pub(super) struct Body(pub(super) LSTM);

impl WireBody for Body {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn wire_body(&self, prefix: &str, body: &mut TypedModel) -> TractResult<()> {
        self.0.wire_body(prefix, body)?;
        let LSTM { f, g, h } = &self.0;
        for node in body.nodes_mut() {
            if let Some(LstmEpilogue { hidden }) = node.op_as() {
                node.op = Box::new(LstmCell {
                    hidden: *hidden,
                    activations: [f.clone(), g.clone(), h.clone()],
                });
            }
        }
        Ok(())
    }

    fn w_b_multipliers(&self) -> (usize, usize) {
        self.0.w_b_multipliers()
    }

    fn have_extra_c_state(&self) -> bool {
        self.0.have_extra_c_state()
    }
}

/// State and cell of each row, of its gates i, o, f and c and its cell before:
/// `C = f(f) · C + f(i) · g(c)`, `H = f(o) · h(C)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LstmCell {
    pub(crate) hidden: usize,
    /// f, g and h.
    activations: [Box<dyn TypedOp>; 3],
}

impl LstmCell {
    /// An activation of the gates from one on, one row after the other.
    fn gates(&self, activation: usize, gates: &Tensor, from: usize) -> TractResult<TValue> {
        let columns = gates.slice(
            gates.rank() - 1,
            from * self.hidden,
            (from + 1) * self.hidden,
        )?;
        self.activated(activation, columns)
    }

    fn activated(&self, activation: usize, values: Tensor) -> TractResult<TValue> {
        let op = &self.activations[activation];
        let mut outputs = op.eval(&EvalContext::out_of_plan(), tvec!(values.into_tvalue()))?;
        outputs.pop().context("an activation's output")
    }
}

impl Op for LstmCell {
    fn name(&self) -> StaticName {
        "LstmCell".into()
    }

    op_as_typed_op!();
}

impl EvalOp for LstmCell {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (gates, before) = args_2!(inputs);
        let gate = |activation: usize, from: usize| self.gates(activation, &gates, from);
        let (input, output, forget, candidate) =
            (gate(0, 0)?, gate(0, 1)?, gate(0, 2)?, gate(1, 3)?);
        let (kept, added) = (product(&forget, &before)?, product(&input, &candidate)?);
        let cells = (kept + added).into_tensor();
        let states = self.activated(2, cells.clone())?;
        let states = product(&output, &states)?.into_tensor();
        Ok(tvec!(states.into_tvalue(), cells.into_tvalue()))
    }
}

fn product(a: &Tensor, b: &Tensor) -> TractResult<ArrayD<f32>> {
    let (a, b) = (
        a.to_plain_array_view::<f32>()?,
        b.to_plain_array_view::<f32>()?,
    );
    Ok(&a * &b)
}

impl TypedOp for LstmCell {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let fact = inputs[1].datum_type.fact(inputs[1].shape.clone());
        Ok(tvec!(fact.clone(), fact))
    }

    as_op!();
}

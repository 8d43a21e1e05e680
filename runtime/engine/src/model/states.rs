//! What one run leaves for the next.

use bellwether_wire::{PortShape, Refusal, StateShape};
use tract_onnx::{
    prelude::{IntoTValue, IntoTensor, TValue, TVec},
    tract_hir::internal::Tensor as TractTensor,
};

use super::{convert::datum_type, refuse::port_refusal, resolved};

/// The states of a model, in the order in which its graph takes and gives them.
pub(super) struct States {
    shapes: Vec<StateShape>,
    kept: Option<Kept>,
}

struct Kept {
    batch: u32,
    values: Vec<TValue>,
}

impl States {
    pub(super) fn new(shapes: Vec<StateShape>) -> Self {
        Self { shapes, kept: None }
    }

    pub(super) fn len(&self) -> usize {
        self.shapes.len()
    }

    /// What the next run is fed: what the last one left, or zeros.
    pub(super) fn fed(&self, batch: u32, fresh: bool) -> Result<Vec<TValue>, Refusal> {
        let kept = self.kept.as_ref().filter(|_| !fresh);
        let Some(kept) = kept else {
            let zeros = self.shapes.iter().map(|state| zeros(&state.input, batch));
            return zeros.collect();
        };
        match self.shapes.first() {
            Some(first) if kept.batch != batch => Err(port_refusal(
                &first.input.name,
                &format!(
                    "its state is that of {} rows, and {batch} came; begin anew to change that",
                    kept.batch
                ),
            )),
            _ => Ok(kept.values.clone()),
        }
    }

    /// Keeps what a run gave, if it can be fed again.
    pub(super) fn keep(&mut self, batch: u32, values: Vec<TValue>) -> Result<(), Refusal> {
        for (state, value) in self.shapes.iter().zip(&values) {
            let shape = shape(&state.input, batch);
            let dtype = datum_type(state.input.dtype);
            if value.shape() != &shape[..] || value.datum_type() != dtype {
                let message = format!(
                    "the model gives {:?} {:?}, and is to be fed {dtype:?} {shape:?}",
                    value.datum_type(),
                    value.shape()
                );
                return Err(port_refusal(&state.output, &message));
            }
        }
        // An engine may give a value that shares memory with others of its run.
        let values = values
            .into_iter()
            .map(|value| value.into_tensor().into_tvalue());
        self.kept = Some(Kept {
            batch,
            values: values.collect(),
        });
        Ok(())
    }
}

fn zeros(port: &PortShape, batch: u32) -> Result<TValue, Refusal> {
    TractTensor::zero_dt(datum_type(port.dtype), &shape(port, batch))
        .map(IntoTValue::into_tvalue)
        .map_err(|error| port_refusal(&port.name, &error.to_string()))
}

fn shape(port: &PortShape, batch: u32) -> TVec<usize> {
    let dims = port.shape.iter();
    dims.map(|dim| resolved(*dim, batch) as usize).collect()
}

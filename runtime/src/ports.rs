//! A contract's ports, as this crate checks and feeds them.

use bellwether_features::{FillRule, Step, apply_row};
use bellwether_package::sections::{
    Constant, Contract, DType, Dim, Field, FieldKind, MissingRule, Port, State,
};

use crate::{
    error::{InputError, OpenError, OutputError, RunError},
    wire::{HEADER_BYTES_MAX, ModelPorts, PortShape, StateShape, Tensor},
};

/// Rows in one run at most. More are run as several, so that a deadline stays meaningful.
pub const BATCH_MAX: u32 = 4096;

/// The contract, made ready for running.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    pub(crate) inputs: Vec<InputPort>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) model: ModelPorts,
}

/// One input, and the steps that its rows take.
#[derive(Debug, Clone)]
pub(crate) struct InputPort {
    pub(crate) port: Port,
    steps: Vec<Step>,
}

impl Ports {
    pub(crate) fn of(contract: &Contract) -> Result<Self, OpenError> {
        let mut first = 0;
        let mut inputs = Vec::with_capacity(contract.inputs.len());
        for port in &contract.inputs {
            let end = first + port.fields.len();
            inputs.push(InputPort::of(port, &contract.steps, first..end)?);
            first = end;
        }
        Ok(Self {
            inputs,
            outputs: contract.outputs.clone(),
            model: model_ports(contract),
        })
    }

    /// True if one run leaves something for the next.
    pub(crate) fn has_states(&self) -> bool {
        !self.model.states.is_empty()
    }

    /// Puts tensors into the contract's order and checks name, type, shape and batch. The batch
    /// is 1 where no port has one.
    pub(crate) fn order<'a>(
        &self,
        tensors: &'a [Tensor],
    ) -> Result<(Vec<&'a Tensor>, u32), InputError> {
        for (i, tensor) in tensors.iter().enumerate() {
            let known = self
                .inputs
                .iter()
                .any(|input| input.port.name == *tensor.name);
            if !known {
                return Err(InputError::Unknown {
                    port: crate::wire::bounded_message(&tensor.name),
                });
            }
            if tensors[..i].iter().any(|other| other.name == tensor.name) {
                return Err(InputError::Twice {
                    port: tensor.name.clone(),
                });
            }
        }
        let mut batch = None;
        let mut ordered = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let port = &input.port;
            let tensor = tensors.iter().find(|tensor| *tensor.name == *port.name);
            let tensor = tensor.ok_or_else(|| InputError::Absent {
                port: port.name.to_string(),
            })?;
            check_tensor(port, tensor, &mut batch).map_err(|message| InputError::Shape {
                port: port.name.to_string(),
                message,
            })?;
            ordered.push(tensor);
        }
        Ok((ordered, batch.unwrap_or(1)))
    }

    /// Checks what the model gave against the contract.
    pub(crate) fn check_outputs(&self, tensors: &[Tensor], batch: u32) -> Result<(), OutputError> {
        if tensors.len() != self.outputs.len() {
            return Err(OutputError::Count {
                found: tensors.len(),
                expected: self.outputs.len(),
            });
        }
        for (port, tensor) in self.outputs.iter().zip(tensors) {
            let mut batch = Some(batch);
            let checked = if *port.name == *tensor.name {
                check_tensor(port, tensor, &mut batch)
            } else {
                Err(format!("`{}` came in its place", tensor.name))
            };
            checked.map_err(|message| OutputError::Shape {
                port: port.name.to_string(),
                message,
            })?;
        }
        Ok(())
    }

    /// Bytes of the longest honest answer to a batch.
    pub(crate) fn reply_bytes_max(&self, batch: u32) -> usize {
        let tensors = self.outputs.iter().map(|port| {
            let shape: Vec<u32> = port.shape.iter().map(|dim| resolved(*dim, batch)).collect();
            crate::wire::byte_length(port.dtype, &shape).unwrap_or(usize::MAX)
        });
        tensors.fold(HEADER_BYTES_MAX, usize::saturating_add)
    }
}

/// What the engine is to make a model of this contract ready for: also for models that are no
/// package yet.
pub fn model_ports(contract: &Contract) -> ModelPorts {
    ModelPorts {
        inputs: contract.inputs.iter().map(port_shape).collect(),
        outputs: contract.outputs.iter().map(port_shape).collect(),
        states: contract.states.iter().map(state_shape).collect(),
        constants: contract.constants.iter().map(constant).collect(),
    }
}

fn port_shape(port: &Port) -> PortShape {
    PortShape {
        name: port.name.clone(),
        dtype: port.dtype,
        shape: port.shape.clone(),
    }
}

fn state_shape(state: &State) -> StateShape {
    StateShape {
        input: PortShape {
            name: state.input.clone(),
            dtype: state.dtype,
            shape: state.shape.clone(),
        },
        output: state.output.clone(),
    }
}

fn constant(constant: &Constant) -> Tensor {
    Tensor {
        name: constant.name.clone(),
        dtype: constant.dtype,
        shape: constant.shape.clone(),
        bytes: constant.bytes.clone(),
    }
}

impl InputPort {
    /// `fields` are the port's places among all fields of the contract.
    fn of(port: &Port, all: &[Step], fields: std::ops::Range<usize>) -> Result<Self, OpenError> {
        let mut steps = Vec::new();
        for (i, step) in all.iter().enumerate() {
            let mut step = *step;
            let field = match &mut step {
                Step::Unit { field, .. }
                | Step::Fill { field, .. }
                | Step::Scale { field, .. }
                | Step::Range { field, .. }
                | Step::Clip { field, .. } => field,
                // Tensors arrive as windows: the shape already says so.
                Step::Window { .. } => continue,
                Step::Resample { .. } => return Err(OpenError::StepNeedsStream { step: i }),
            };
            if !fields.contains(&usize::from(*field)) {
                continue;
            }
            *field -= fields.start as u16;
            if let Step::Fill {
                rule: FillRule::Last { .. },
                ..
            } = step
            {
                return Err(OpenError::StepNeedsStream { step: i });
            }
            if port.dtype != DType::F32 {
                return Err(OpenError::StepNeedsF32 { step: i });
            }
            steps.push(step);
        }
        Ok(Self {
            port: port.clone(),
            steps,
        })
    }

    /// Checks every value by its field's rules.
    pub(crate) fn check_values(&self, tensor: &Tensor) -> Result<(), InputError> {
        let fields = &self.port.fields;
        // A spectrum or an image: nothing is asked of each element but to be a number.
        if fields.is_empty() && tensor.nonfinite() == 0 {
            return Ok(());
        }
        for (i, value) in tensor.values().enumerate() {
            let (row, field) = match fields.len() {
                0 => (i, None),
                width => (i / width, fields.get(i % width)),
            };
            if let Some(fault) = fault(field, value) {
                return Err(InputError::Value {
                    port: self.port.name.to_string(),
                    field: field.map_or_else(String::new, |field| field.name.to_string()),
                    row,
                    value,
                    fault,
                });
            }
        }
        Ok(())
    }

    /// The tensor that the model is fed: the raw one, its rows taken through the steps.
    pub(crate) fn stepped(&self, raw: &Tensor) -> Result<Tensor, RunError> {
        let mut tensor = raw.clone();
        let width = self.port.fields.len();
        if self.steps.is_empty() || width == 0 {
            return Ok(tensor);
        }
        let mut values = raw.to_f32().unwrap_or_default();
        for row in values.chunks_exact_mut(width) {
            apply_row(&self.steps, row).map_err(RunError::Step)?;
        }
        tensor.bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Ok(tensor)
    }
}

/// What a value is refused for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Not a number, where the contract does not allow a reading to be missing.
    Missing,
    /// Infinite.
    Infinite,
    /// Outside the contract's range.
    Outside {
        /// Least allowed.
        lo: f32,
        /// Greatest allowed.
        hi: f32,
    },
}

fn fault(field: Option<&Field>, value: f64) -> Option<Fault> {
    if value.is_infinite() {
        return Some(Fault::Infinite);
    }
    if value.is_nan() {
        let allowed = field.is_some_and(|field| matches!(field.missing, MissingRule::Allow));
        return (!allowed).then_some(Fault::Missing);
    }
    let field = field.filter(|field| matches!(field.kind, FieldKind::Numeric))?;
    let (lo, hi) = field.range?;
    (value < f64::from(lo) || value > f64::from(hi)).then_some(Fault::Outside { lo, hi })
}

/// Compares type and shape; sets `batch` at the first batch dimension and holds others to it.
fn check_tensor(port: &Port, tensor: &Tensor, batch: &mut Option<u32>) -> Result<(), String> {
    if tensor.dtype != port.dtype {
        return Err(format!("it is {:?}, not {:?}", tensor.dtype, port.dtype));
    }
    if tensor.shape.len() != port.shape.len() {
        return Err(format!(
            "it has {} dimensions, not {}",
            tensor.shape.len(),
            port.shape.len()
        ));
    }
    for (axis, (found, dim)) in tensor.shape.iter().zip(&port.shape).enumerate() {
        let expected = match dim {
            Dim::Fixed(size) => *size,
            Dim::Batch => *batch.get_or_insert(*found),
        };
        if *found != expected {
            return Err(format!("dimension {axis} is {found}, not {expected}"));
        }
    }
    if let Some(rows) = batch.filter(|rows| !(1..=BATCH_MAX).contains(rows)) {
        return Err(format!("a batch of {rows}; 1 to {BATCH_MAX} are possible"));
    }
    if !tensor.fills_shape() {
        return Err(format!(
            "{} bytes do not fill its shape",
            tensor.bytes.len()
        ));
    }
    Ok(())
}

fn resolved(dim: Dim, batch: u32) -> u32 {
    match dim {
        Dim::Batch => batch,
        Dim::Fixed(size) => size,
    }
}

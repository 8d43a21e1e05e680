//! Runs a model that is no package yet, so that `pack` can see what it answers on its sample: the
//! same confined worker, the same steps and the same frames as on a device, but no session, which
//! only approval gives.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bellwether_features::{Step, apply_row};
use bellwether_package::sections::{Contract, Dim, Port};
use bellwether_runtime::limits::Limits;
use bellwether_runtime::wire::{self, FrameError, PortShape, Refusal, Request, Response};
use bellwether_runtime::worker::Worker;
use bellwether_runtime::{SealedBlob, Tensor, find_worker, model_ports};

use crate::failure::{Failure, Result, Who};

/// Building a large graph takes a while on a laptop.
const LOAD_DEADLINE: Duration = Duration::from_secs(300);
/// One batch of sample rows.
const RUN_DEADLINE: Duration = Duration::from_secs(120);
/// Processor time that the worker allows itself for any one of these.
const CPU_SECS: u32 = 600;
/// Memory of the worker beyond the bare program: the packer's machine is a large one.
const MEMORY_BYTES: u64 = 4 << 30;
/// Frames hold outputs of a batch; larger answers are refused by the worker already.
const REPLY_BYTES_MAX: usize = 1 << 30;

/// A model in a worker.
pub(crate) struct Rehearsal {
    worker: Worker,
    inputs: Vec<Fed>,
    batch_axes: Vec<Option<usize>>,
    outputs: Vec<PortShape>,
    /// True if the model's states begin at zero with the next run.
    fresh: bool,
    request: Vec<u8>,
    memory_bytes_peak: u64,
}

/// One input, with the steps of its own fields.
struct Fed {
    width: usize,
    steps: Vec<Step>,
}

impl Rehearsal {
    /// Starts a worker and has it load the model for this contract.
    ///
    /// # Errors
    /// When there is no worker, or the engine refuses the model: names the node.
    pub(crate) fn open(contract: &Contract, blob: &SealedBlob) -> Result<Self> {
        let limits = Limits {
            memory_bytes: MEMORY_BYTES,
            cpu_secs: CPU_SECS,
            threads: NonZeroU32::MIN,
        };
        let busy_wait = true;
        let worker =
            Worker::start(&worker_program()?, blob, limits, busy_wait).map_err(|error| {
                Failure::new(Who::Machine, "the worker could not be started")
                    .next("install bellwether-worker beside bellwether, or set BELLWETHER_WORKER")
                    .because(error)
            })?;
        let batch_axis = |port: &Port| port.shape.iter().position(|dim| *dim == Dim::Batch);
        let ports = model_ports(contract);
        let mut rehearsal = Self {
            worker,
            inputs: fed(contract),
            batch_axes: contract.inputs.iter().map(batch_axis).collect(),
            outputs: ports.outputs.clone(),
            fresh: true,
            request: Vec::new(),
            memory_bytes_peak: 0,
        };
        wire::encode(
            &Request::load(&ports),
            &ports.constants,
            &mut rehearsal.request,
        )
        .map_err(too_large)?;
        let refusal = rehearsal
            .worker
            .exchange(
                &rehearsal.request,
                wire::HEADER_BYTES_MAX,
                LOAD_DEADLINE,
                |frame| match wire::decode(frame)? {
                    (Response::Loaded { .. }, []) => Ok(None),
                    (Response::Refused(refusal), []) => Ok(Some(refusal)),
                    _ => Err(FrameError::Unexpected),
                },
            )
            .map_err(|death| died("while it loaded the model", death))?;
        rehearsal.note_memory();
        match refusal {
            None => Ok(rehearsal),
            Some(refusal) => Err(refused(refusal)),
        }
    }

    /// Lets the model's states begin at zero with the next run.
    pub(crate) fn begin_anew(&mut self) {
        self.fresh = true;
    }

    /// Runs raw inputs, in the contract's order, through the steps and the model.
    ///
    /// # Errors
    /// When a step fails, the engine refuses the inputs, or the worker dies.
    pub(crate) fn run(&mut self, raw: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut tensors = Vec::with_capacity(raw.len());
        for (input, tensor) in self.inputs.iter().zip(raw) {
            tensors.push(input.stepped(tensor)?);
        }
        let run = Request::Run {
            fresh: std::mem::replace(&mut self.fresh, false),
            tensors: wire::heads(&tensors),
        };
        wire::encode(&run, &tensors, &mut self.request).map_err(too_large)?;
        let answer = self
            .worker
            .exchange(
                &self.request,
                REPLY_BYTES_MAX,
                RUN_DEADLINE,
                |frame| match wire::decode(frame)? {
                    (Response::Ran { tensors }, body) => Ok(Ok(wire::join(tensors, body)?)),
                    (Response::Refused(refusal), []) => Ok(Err(refusal)),
                    _ => Err(FrameError::Unexpected),
                },
            )
            .map_err(|death| died("over the sample", death))?;
        self.note_memory();
        let outputs = answer.map_err(refused)?;
        self.check(&outputs, raw)?;
        Ok(outputs)
    }

    /// Whether the model answers in the shapes that the contract promises.
    fn check(&self, outputs: &[Tensor], raw: &[Tensor]) -> Result<()> {
        let batch = raw
            .iter()
            .zip(&self.batch_axes)
            .find_map(|(tensor, axis)| axis.and_then(|axis| tensor.shape.get(axis).copied()));
        for (port, got) in self.outputs.iter().zip(outputs) {
            let expected: Vec<u32> = port
                .shape
                .iter()
                .map(|dim| match dim {
                    Dim::Batch => batch.unwrap_or(1),
                    Dim::Fixed(size) => *size,
                })
                .collect();
            if got.name != port.name || got.dtype != port.dtype || got.shape != expected {
                return Err(Failure::new(
                    Who::Package,
                    format!(
                        "output `{}` came as {:?} {:?}, the contract has {:?} {expected:?}",
                        port.name, got.dtype, got.shape, port.dtype
                    ),
                )
                .next("say its shape in the configuration: shape = [0, …] in its [[outputs]]"));
            }
        }
        Ok(())
    }

    /// The most memory that the worker has held at once, in bytes.
    pub(crate) fn memory_bytes_peak(&self) -> u64 {
        self.memory_bytes_peak
    }

    fn note_memory(&mut self) {
        let peak = self.worker.memory_bytes_peak().unwrap_or(0);
        self.memory_bytes_peak = self.memory_bytes_peak.max(peak);
    }
}

/// The worker beside this program, or where `BELLWETHER_WORKER` says.
///
/// # Errors
/// When there is none.
pub(crate) fn worker_program() -> Result<PathBuf> {
    find_worker().ok_or_else(|| {
        Failure::new(
            Who::Machine,
            "there is no bellwether-worker to run models in",
        )
        .next("install it beside bellwether, or set BELLWETHER_WORKER to its path")
    })
}

impl Fed {
    fn stepped(&self, raw: &Tensor) -> Result<Tensor> {
        let mut tensor = raw.clone();
        if self.steps.is_empty() || self.width == 0 {
            return Ok(tensor);
        }
        let mut values = raw.to_f32().ok_or_else(|| {
            Failure::new(
                Who::Package,
                format!("`{}` has steps and is not f32", raw.name),
            )
            .next("steps work on f32 inputs: take them out, or export the model with f32")
        })?;
        for row in values.chunks_exact_mut(self.width) {
            apply_row(&self.steps, row).map_err(|error| {
                Failure::new(Who::Package, "a feature step failed")
                    .next("correct [[steps]]")
                    .because(error)
            })?;
        }
        tensor.bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Ok(tensor)
    }
}

/// The steps of each input, their fields counted from that input's first.
fn fed(contract: &Contract) -> Vec<Fed> {
    let mut first = 0;
    let mut inputs = Vec::with_capacity(contract.inputs.len());
    for port in &contract.inputs {
        let width = port.fields.len();
        let own = |step: &Step| {
            let mut step = *step;
            let field = match &mut step {
                Step::Unit { field, .. }
                | Step::Fill { field, .. }
                | Step::Scale { field, .. }
                | Step::Range { field, .. }
                | Step::Clip { field, .. } => field,
                Step::Window { .. } | Step::Resample { .. } => return None,
            };
            let place = usize::from(*field)
                .checked_sub(first)
                .filter(|place| *place < width)?;
            *field = u16::try_from(place).ok()?;
            Some(step)
        };
        inputs.push(Fed {
            width,
            steps: contract.steps.iter().filter_map(own).collect(),
        });
        first += width;
    }
    inputs
}

fn refused(refusal: Refusal) -> Failure {
    Failure::new(Who::Package, "the engine refuses the model")
        .next("change the model or its export as the cause says, then pack again")
        .because(refusal)
}

fn died(when: &str, death: bellwether_runtime::Death) -> Failure {
    Failure::new(Who::Package, format!("the worker died {when}"))
        .next("the model would do the same on a device: look at what it was given, or export it again")
        .because(death)
}

fn too_large(error: FrameError) -> Failure {
    Failure::new(Who::Package, "the tensors do not fit a frame")
        .next("give a smaller sample row: one row of inputs must stay below the worker's bound")
        .because(error)
}

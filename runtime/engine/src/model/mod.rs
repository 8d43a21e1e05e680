//! A model made ready for the ports of a contract, and run.

mod constants;
mod convert;
mod ports;
pub(crate) mod prepare;
mod refuse;
mod states;
mod volume;

use bellwether_package::sections::Dim;
use bellwether_wire::{ModelPorts, PortShape, Refusal, Tensor};
use tract_onnx::{
    prelude::{
        Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, TValue, TVec,
        TractResult, TypedModel, TypedSimpleState,
    },
    tract_hir::internal::SimpleState,
};

use crate::{inspect, operators};
use convert::{datum_type, from_tract, to_tract};
use ports::{check_inputs, select_outputs};
use refuse::{Stage, node_names, port_refusal};
use states::States;

/// Batch sizes kept built at once. A serving application uses one or two; each costs another copy
/// of the packed weights.
pub const PLANS_MAX: usize = 4;

/// A model that runs.
///
/// Shapes are concrete when the engine builds a graph, which is what it does best: each batch size
/// is built on its first use, and the [`PLANS_MAX`] used last are kept.
pub struct Model {
    /// What is fed: the contract's inputs, then those of the states.
    inputs: Vec<PortShape>,
    /// What is told; the graph gives the states' outputs behind them.
    outputs: Vec<PortShape>,
    states: States,
    /// What other batch sizes are built from; gone where there are none.
    graph: Option<InferenceModel>,
    nodes: Vec<(String, String)>,
    /// The most recently used last.
    plans: Vec<Plan>,
}

struct Plan {
    batch: u32,
    state: TypedSimpleState,
}

impl Plan {
    /// Forgets a run that failed half way.
    fn renew(&mut self) -> TractResult<()> {
        self.state = SimpleState::new(self.state.plan())?;
        Ok(())
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Reads a model, checks it against the ports, and builds it for a batch of one. Bytes that are
    /// given away are dropped before it is built.
    pub fn load(onnx: impl AsRef<[u8]>, ports: ModelPorts) -> Result<Self, Refusal> {
        let ModelPorts {
            mut inputs,
            outputs,
            states,
            constants,
        } = ports;
        let mut proto = inspect::parse(onnx.as_ref())?;
        drop(onnx);
        inspect::check(&proto)?;
        constants::fold(&mut proto, &constants)?;
        let (declared_inputs, declared_outputs) = inspect::ports(&proto)?;
        inputs.extend(states.iter().map(|state| state.input.clone()));
        check_inputs(&inputs, &declared_inputs)?;
        let kept = states.iter().map(|state| state.output.as_str());
        let told = outputs.iter().map(|port| port.name.as_str());
        let computed: Vec<&str> = told.chain(kept).collect();
        select_outputs(&mut proto, &computed, &declared_outputs)?;
        let nodes = node_names(&proto);
        let is_empty = |port: &PortShape| port.shape.contains(&Dim::Fixed(0));
        if inputs.iter().any(is_empty) {
            prepare::refuse::check_empty(&proto)?;
        }
        prepare::prepare(&mut proto)?;
        let stage = Stage {
            nodes: &nodes,
            name: "load",
        };
        // Shapes that an exporter wrote beside the graph are hints, and often wrong ones.
        let graph = operators::onnx()
            .with_ignore_value_info(true)
            .with_ignore_output_shapes(true)
            .with_ignore_output_types(true)
            .model_for_proto_model(&proto)
            .map_err(|error| stage.refuse(&error))?;
        drop(proto);
        let mut model = Self {
            inputs,
            outputs,
            states: States::new(states),
            graph: None,
            nodes,
            plans: Vec::new(),
        };
        let has_batch = |port: &PortShape| port.shape.contains(&Dim::Batch);
        // Weights are shared between graph and plan only until the plan packs them.
        model.graph = model.inputs.iter().any(has_batch).then(|| graph.clone());
        let plan = model.build(graph, 1)?;
        model.plans.push(plan);
        Ok(model)
    }

    /// Runs once. `tensors` are in the order of the inputs; `fresh` lets the states begin at zero
    /// again. A run that fails leaves the states as they were.
    pub fn run(&mut self, tensors: &[Tensor], fresh: bool) -> Result<Vec<Tensor>, Refusal> {
        let batch = self.batch_of(tensors)?;
        let mut fed = tensors
            .iter()
            .map(to_tract)
            .collect::<Result<TVec<TValue>, _>>()?;
        fed.extend(self.states.fed(batch, fresh)?);
        let mut plan = self.plan(batch)?;
        let ran = plan.state.run(fed);
        let renewed = match &ran {
            Ok(_) => Ok(()),
            Err(_) => plan.renew(),
        };
        if self.plans.len() >= PLANS_MAX {
            self.plans.remove(0);
        }
        self.plans.push(plan);
        let stage = self.stage("run");
        renewed.map_err(|error| stage.refuse(&error))?;
        let mut outputs = ran.map_err(|error| stage.refuse(&error))?;
        let kept = outputs.drain(self.outputs.len()..).collect();
        self.states.keep(batch, kept)?;
        let pairs = self.outputs.iter().zip(&outputs);
        pairs.map(|(port, value)| from_tract(port, value)).collect()
    }

    /// Takes the plan for a batch out of those that are kept, or builds it.
    fn plan(&mut self, batch: u32) -> Result<Plan, Refusal> {
        if let Some(at) = self.plans.iter().position(|plan| plan.batch == batch) {
            return Ok(self.plans.remove(at));
        }
        // A graph without rows has one plan, which was found above.
        let graph = self.graph.clone();
        let graph = graph.ok_or_else(|| port_refusal("*", "the model has no rows"))?;
        self.build(graph, batch)
    }

    fn build(&self, mut graph: InferenceModel, batch: u32) -> Result<Plan, Refusal> {
        let shape_stage = self.stage("shape");
        for port in &self.inputs {
            let at = input_index(&graph, &port.name);
            let at = at.ok_or_else(|| port_refusal(&port.name, "the graph has no such input"))?;
            let shape: TVec<usize> = port
                .shape
                .iter()
                .map(|dim| resolved(*dim, batch) as usize)
                .collect();
            graph
                .set_input_fact(at, InferenceFact::dt_shape(datum_type(port.dtype), shape))
                .map_err(|error| shape_stage.refuse(&error))?;
        }
        let order: Option<Vec<_>> = self
            .inputs
            .iter()
            .map(|port| {
                let at = input_index(&graph, &port.name)?;
                graph.inputs.get(at).copied()
            })
            .collect();
        graph.inputs = order.unwrap_or_default();
        let mut typed = graph
            .into_typed()
            .map_err(|error| shape_stage.refuse(&error))?;
        volume::check(&typed)?;
        operators::begin_anew(&mut typed);
        let plan = optimised(typed)
            .and_then(IntoRunnable::into_runnable)
            .map_err(|error| self.stage("optimise").refuse(&error))?;
        let state = SimpleState::new(&plan).map_err(|error| self.stage("run").refuse(&error))?;
        Ok(Plan { batch, state })
    }

    /// The batch that the tensors agree on; checked here again, for the engine trusts its shapes.
    fn batch_of(&self, tensors: &[Tensor]) -> Result<u32, Refusal> {
        if tensors.len() + self.states.len() != self.inputs.len() {
            return Err(port_refusal(
                "*",
                "another number of inputs than was agreed",
            ));
        }
        let mut batch = None;
        for (port, tensor) in self.inputs.iter().zip(tensors) {
            let fits = tensor.name == port.name
                && tensor.dtype == port.dtype
                && tensor.fills_shape()
                && tensor.shape.len() == port.shape.len()
                && tensor.shape.iter().zip(&port.shape).all(|(found, dim)| {
                    *found
                        == match dim {
                            Dim::Batch => *batch.get_or_insert(*found),
                            Dim::Fixed(size) => *size,
                        }
                });
            if !fits {
                return Err(port_refusal(&port.name, "not the tensor that was agreed"));
            }
        }
        Ok(batch.unwrap_or(1))
    }

    fn stage(&self, name: &'static str) -> Stage<'_> {
        Stage {
            nodes: &self.nodes,
            name,
        }
    }
}

/// Made fast, and no NaN lost. Operators go before the engine merges them, and after.
fn optimised(mut model: TypedModel) -> TractResult<TypedModel> {
    operators::nan::keep_from_simplifying(&mut model)?;
    operators::flatten(&mut model)?;
    model.declutter()?;
    operators::nan::keep(&mut model)?;
    model.optimize()?;
    Ok(model)
}

fn input_index(graph: &InferenceModel, name: &str) -> Option<usize> {
    graph
        .inputs
        .iter()
        .position(|outlet| graph.node(outlet.node).name == name)
}

fn resolved(dim: Dim, batch: u32) -> u32 {
    match dim {
        Dim::Batch => batch,
        Dim::Fixed(size) => size,
    }
}

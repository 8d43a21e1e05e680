//! A model made ready for the ports of a contract, and run.

use bellwether_package::sections::{DType, Dim};
use bellwether_runtime::{
    Tensor,
    wire::{PortShape, Refusal, bounded_message},
};
use tract_onnx::{
    pb::{ModelProto, NodeProto},
    prelude::{
        DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable,
        IntoTValue, TValue, TVec, TractError, TypedSimpleState,
    },
    tract_hir::internal::{SimpleState, Tensor as TractTensor},
};

use crate::{
    inspect::{self, PortFacts},
    operators,
};

/// Batch sizes kept built at once. A serving application uses one or two; each costs another copy
/// of the packed weights.
pub const PLANS_MAX: usize = 4;

/// A model that runs.
///
/// Shapes are concrete when the engine builds a graph, which is what it does best: each batch size
/// is built on its first use, and the [`PLANS_MAX`] used last are kept.
pub struct Model {
    /// Inputs as the contract has them; outputs after them are in the graph's selected order.
    inputs: Vec<PortShape>,
    outputs: Vec<PortShape>,
    graph: InferenceModel,
    nodes: Vec<(String, String)>,
    /// The most recently used last.
    plans: Vec<Plan>,
}

struct Plan {
    batch: u32,
    state: TypedSimpleState,
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
    /// Reads a model, checks it against the ports, and builds it for a batch of one.
    pub fn load(
        onnx: &[u8],
        inputs: Vec<PortShape>,
        outputs: Vec<PortShape>,
    ) -> Result<Self, Refusal> {
        let mut proto = inspect::parse(onnx)?;
        inspect::check(&proto)?;
        let (declared_inputs, declared_outputs) = inspect::ports(&proto)?;
        check_inputs(&inputs, &declared_inputs)?;
        select_outputs(&mut proto, &outputs, &declared_outputs)?;
        let nodes = node_names(&proto);
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
            graph,
            nodes,
            plans: Vec::new(),
        };
        let plan = model.build(1)?;
        model.plans.push(plan);
        Ok(model)
    }

    /// Runs once. `tensors` are in the order of the inputs.
    pub fn run(&mut self, tensors: &[Tensor]) -> Result<Vec<Tensor>, Refusal> {
        let batch = self.batch_of(tensors)?;
        let fed = tensors
            .iter()
            .map(to_tract)
            .collect::<Result<TVec<TValue>, _>>()?;
        let mut plan = match self.plans.iter().position(|plan| plan.batch == batch) {
            Some(at) => self.plans.remove(at),
            None => self.build(batch)?,
        };
        let stage = Stage {
            nodes: &self.nodes,
            name: "run",
        };
        // A state that failed half way is not used again: on an error it is dropped here.
        let outputs = plan.state.run(fed).map_err(|error| stage.refuse(&error))?;
        let outputs = self
            .outputs
            .iter()
            .zip(&outputs)
            .map(|(port, value)| from_tract(port, value))
            .collect();
        if self.plans.len() >= PLANS_MAX {
            self.plans.remove(0);
        }
        self.plans.push(plan);
        outputs
    }

    fn build(&self, batch: u32) -> Result<Plan, Refusal> {
        let mut graph = self.graph.clone();
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
        let typed = graph
            .into_typed()
            .map_err(|error| shape_stage.refuse(&error))?;
        let plan = typed
            .into_optimized()
            .and_then(IntoRunnable::into_runnable)
            .map_err(|error| self.stage("optimise").refuse(&error))?;
        let state = SimpleState::new(&plan).map_err(|error| self.stage("run").refuse(&error))?;
        Ok(Plan { batch, state })
    }

    /// The batch that the tensors agree on; checked here again, for the engine trusts its shapes.
    fn batch_of(&self, tensors: &[Tensor]) -> Result<u32, Refusal> {
        if tensors.len() != self.inputs.len() {
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

/// Turns the engine's errors into refusals that name a node, where the error does.
struct Stage<'a> {
    nodes: &'a [(String, String)],
    name: &'static str,
}

impl Stage<'_> {
    fn refuse(&self, error: &TractError) -> Refusal {
        // The engine tells the node only in words, in one of the error's layers.
        let text = format!("{error:#}");
        let named = self
            .nodes
            .iter()
            .filter(|(name, _)| !name.is_empty() && mentions(&text, name))
            .max_by_key(|(name, _)| name.len());
        Refusal::Unsupported {
            node: named.map(|(name, _)| name.clone()),
            operator: named.map(|(_, operator)| operator.clone()),
            stage: self.name.to_owned(),
            message: bounded_message(&text),
        }
    }
}

/// True if `name` stands in `text` as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '.');
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn check_inputs(ports: &[PortShape], declared: &[PortFacts]) -> Result<(), Refusal> {
    for port in ports {
        let found = declared.iter().find(|facts| facts.name == port.name);
        let found = found.ok_or_else(|| {
            let names: Vec<_> = declared.iter().map(|facts| facts.name.as_str()).collect();
            let message = format!("the graph has no such input; it has {}", names.join(", "));
            port_refusal(&port.name, &message)
        })?;
        check_port(port, found)?;
    }
    match declared
        .iter()
        .find(|facts| ports.iter().all(|port| port.name != facts.name))
    {
        Some(facts) => Err(port_refusal(
            &facts.name,
            "the graph needs this input, the contract has none",
        )),
        None => Ok(()),
    }
}

fn check_port(port: &PortShape, facts: &PortFacts) -> Result<(), Refusal> {
    if facts.dtype != Some(port.dtype) {
        let message = format!(
            "the graph's type is {:?}, the contract's {:?}",
            facts.dtype, port.dtype
        );
        return Err(port_refusal(&port.name, &message));
    }
    let Some(shape) = &facts.shape else {
        return Ok(());
    };
    let fits = shape.len() == port.shape.len()
        && shape
            .iter()
            .zip(&port.shape)
            .all(|(declared, dim)| match (declared, dim) {
                (inspect::DimFacts::Fixed(declared), Dim::Fixed(size)) => declared == size,
                // A graph that fixes its batch takes one row at a time.
                (inspect::DimFacts::Fixed(_), Dim::Batch) => false,
                _ => true,
            });
    if fits {
        return Ok(());
    }
    let message = format!(
        "the graph's shape is {shape:?}, the contract's {:?}",
        port.shape
    );
    Err(port_refusal(&port.name, &message))
}

/// Leaves the graph the outputs of the contract alone, in its order: what nobody reads is not
/// computed.
fn select_outputs(
    proto: &mut ModelProto,
    ports: &[PortShape],
    declared: &[PortFacts],
) -> Result<(), Refusal> {
    let Some(graph) = proto.graph.as_mut() else {
        return Err(inspect::malformed("it holds no graph"));
    };
    let mut selected = Vec::with_capacity(ports.len());
    for port in ports {
        let at = declared.iter().position(|facts| facts.name == port.name);
        let output = at.and_then(|at| graph.output.get(at)).ok_or_else(|| {
            let names: Vec<_> = declared.iter().map(|facts| facts.name.as_str()).collect();
            let message = format!("the graph has no such output; it has {}", names.join(", "));
            port_refusal(&port.name, &message)
        })?;
        // The reader takes it for granted that somebody computes what is named.
        let computed = graph
            .node
            .iter()
            .any(|node| node.output.contains(&port.name))
            || graph.input.iter().any(|input| input.name == port.name)
            || graph
                .initializer
                .iter()
                .any(|tensor| tensor.name == port.name);
        if !computed {
            return Err(port_refusal(&port.name, "no node computes this output"));
        }
        selected.push(output.clone());
    }
    graph.output = selected;
    Ok(())
}

fn node_names(proto: &ModelProto) -> Vec<(String, String)> {
    let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
    let names = |node: &NodeProto| (inspect::node_name(node), inspect::operator(node));
    nodes.map(names).collect()
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

fn port_refusal(port: &str, message: &str) -> Refusal {
    Refusal::Port {
        port: bounded_message(port),
        message: bounded_message(message),
    }
}

/// Little-endian bytes are the engine's own on every target we build for.
#[cfg(target_endian = "big")]
compile_error!("tensor bytes are little-endian");

fn to_tract(tensor: &Tensor) -> Result<TValue, Refusal> {
    if tensor.dtype == DType::Bool && tensor.bytes.iter().any(|byte| *byte > 1) {
        return Err(port_refusal(&tensor.name, "a bool is 0 or 1"));
    }
    let shape: TVec<usize> = tensor.shape.iter().map(|dim| *dim as usize).collect();
    let refuse = |error: TractError| port_refusal(&tensor.name, &error.to_string());
    let mut fed = TractTensor::zero_dt(datum_type(tensor.dtype), &shape).map_err(refuse)?;
    let mut plain = fed.try_as_plain_ram_mut().map_err(refuse)?;
    let bytes = plain.as_bytes_mut();
    if bytes.len() != tensor.bytes.len() {
        return Err(port_refusal(
            &tensor.name,
            "its bytes do not fill its shape",
        ));
    }
    bytes.copy_from_slice(&tensor.bytes);
    Ok(fed.into_tvalue())
}

fn from_tract(port: &PortShape, value: &TValue) -> Result<Tensor, Refusal> {
    let refuse = |message: &str| port_refusal(&port.name, message);
    let wanted = datum_type(port.dtype);
    let found = value.datum_type();
    // The engine's own type for sizes stands where ONNX has i64; other types are not converted.
    let converted = if found == wanted {
        None
    } else if found == DatumType::TDim && wanted == DatumType::I64 {
        let sizes = value.cast_to_dt(DatumType::I64);
        Some(
            sizes
                .map_err(|error| refuse(&error.to_string()))?
                .into_owned(),
        )
    } else {
        return Err(refuse(&format!(
            "the model gives {found:?}, the contract has {wanted:?}"
        )));
    };
    let tensor = converted.as_ref().unwrap_or(value);
    let plain = tensor
        .try_as_plain_ram()
        .map_err(|error| refuse(&error.to_string()))?;
    let shape: Result<Vec<u32>, _> = tensor
        .shape()
        .iter()
        .map(|dim| u32::try_from(*dim))
        .collect();
    Ok(Tensor {
        name: port.name.clone(),
        dtype: port.dtype,
        shape: shape.map_err(|_| refuse("a dimension beyond u32"))?,
        bytes: plain.as_bytes().to_vec(),
    })
}

fn datum_type(dtype: DType) -> DatumType {
    match dtype {
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::I64 => DatumType::I64,
        DType::I32 => DatumType::I32,
        DType::I16 => DatumType::I16,
        DType::I8 => DatumType::I8,
        DType::U16 => DatumType::U16,
        DType::U8 => DatumType::U8,
        DType::Bool => DatumType::Bool,
    }
}

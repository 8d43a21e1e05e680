//! What parent and worker say to each other.

use bellwether_package::sections::{DType, Dim};

use crate::{frame::TensorHead, limits::Confinement, tensor::Tensor};

/// Bytes of a refusal's message at most: a sentence or two, not a dump of a graph.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// A port of the model as the contract has it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortShape {
    /// The name in the model's graph.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The dimensions.
    pub shape: Vec<Dim>,
}

/// An output of the model that the engine feeds back as an input of the next run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StateShape {
    /// The input: its name, and type and shape of both.
    pub input: PortShape,
    /// The output's name.
    pub output: String,
}

/// What a model is to be made ready for. Every input of the graph is named in it, once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelPorts {
    /// What each run is fed.
    pub inputs: Vec<PortShape>,
    /// What each run gives.
    pub outputs: Vec<PortShape>,
    /// What the engine keeps from one run to the next.
    pub states: Vec<StateShape>,
    /// Inputs that are always the same.
    pub constants: Vec<Tensor>,
}

impl ModelPorts {
    /// Ports of a model without states and constants.
    pub fn of(inputs: Vec<PortShape>, outputs: Vec<PortShape>) -> Self {
        Self {
            inputs,
            outputs,
            ..Self::default()
        }
    }
}

/// From the parent. Parent and worker are installed together, yet the order is kept.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Request {
    /// Read the model from standard input and make it ready for these ports. Always the first.
    Load {
        /// What will be fed.
        inputs: Vec<PortShape>,
        /// What is to come out.
        outputs: Vec<PortShape>,
        /// What is fed back.
        states: Vec<StateShape>,
        /// Descriptions of the constant inputs, whose bytes follow.
        constants: Vec<TensorHead>,
    },
    /// Run once on the tensors that follow, in the order of `Load::inputs`.
    Run {
        /// True if the states begin at zero again.
        fresh: bool,
        /// Their descriptions.
        tensors: Vec<TensorHead>,
    },
}

impl Request {
    /// The request to load a model for `ports`; the bytes of its constants follow it.
    pub fn load(ports: &ModelPorts) -> Self {
        Self::Load {
            inputs: ports.inputs.clone(),
            outputs: ports.outputs.clone(),
            states: ports.states.clone(),
            constants: crate::frame::heads(&ports.constants),
        }
    }
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Response {
    /// The model is loaded and proved to build for a batch of one.
    Loaded {
        /// What the worker is locked away by.
        confinement: Confinement,
    },
    /// The outputs follow, in the order of `Load::outputs`.
    Ran {
        /// Their descriptions.
        tensors: Vec<TensorHead>,
    },
    /// It will not load this model, or could not run these inputs. The worker is well.
    Refused(Refusal),
}

/// Why the engine refuses a model. The package is at fault; the message says what to change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Larger than the engine reads.
    #[error("the model has {bytes} bytes, at most {bytes_max} are read; prune or quantise it")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// Not an ONNX file.
    #[error("not a readable ONNX model ({message}); export it again and check the file")]
    Malformed {
        /// What the decoder said.
        message: String,
    },
    /// An operator that the engine lacks.
    #[error(
        "node `{node}` uses operator {operator}, which the engine does not have; \
         export the model without it, from plain ai.onnx operators"
    )]
    OperatorUnknown {
        /// The node's name, or that of its first output.
        node: String,
        /// `domain.Operator`, or just the operator for ai.onnx.
        operator: String,
    },
    /// Weights outside the file.
    #[error("tensor `{tensor}` keeps its data in another file; save the model with data embedded")]
    ExternalData {
        /// The initialiser's name.
        tensor: String,
    },
    /// A port of the contract that the graph does not have, or has and the contract lacks.
    #[error("port `{port}`: {message}; correct the contract or the export")]
    Port {
        /// The port's name.
        port: String,
        /// What differs.
        message: String,
    },
    /// The graph cannot be built or run by the engine.
    #[error("{}the engine cannot {stage} the model: {message}", Location(.node, .operator))]
    Unsupported {
        /// The node, where the engine tells it.
        node: Option<String>,
        /// Its operator, where the engine tells it.
        operator: Option<String>,
        /// "load", "shape", "optimise" or "run".
        stage: String,
        /// What the engine said, and what helps where that is known.
        message: String,
    },
    /// Beyond a bound that is checked before anything is parsed: no device runs such a model.
    #[error("{place} has {found} {what}, at most {most} are taken; split the model or prune it")]
    Excess {
        /// The node, tensor or value, or the model as a whole.
        place: String,
        /// What there is too much of.
        what: String,
        /// How much.
        found: u64,
        /// The bound.
        most: u64,
    },
}

struct Location<'a>(&'a Option<String>, &'a Option<String>);

impl std::fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0, self.1) {
            (Some(node), Some(operator)) => write!(f, "node `{node}` ({operator}): "),
            (Some(node), None) => write!(f, "node `{node}`: "),
            _ => Ok(()),
        }
    }
}

/// `message` cut to [`MESSAGE_BYTES_MAX`] at a character, control characters left out.
pub fn bounded_message(message: &str) -> String {
    let clean = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let mut out = String::new();
    for c in clean {
        if out.len() + c.len_utf8() > MESSAGE_BYTES_MAX {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

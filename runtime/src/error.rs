//! Everything that can go wrong, by who is at fault.

use std::{io, time::Duration};

use bellwether_features::StepError;
use bellwether_package::Digest;

use crate::{
    ports::Fault,
    wire::{FrameError, Refusal},
    worker::{Death, StartError},
};

/// Why a package cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The package has no ONNX variant; the package is for other devices.
    #[error("the package holds no ONNX model; it is meant for microcontrollers")]
    NoOnnx,
    /// The model's bytes are not those of the manifest. Whoever handed them over is at fault.
    #[error("the model's bytes have digest {found}, the manifest says {expected}")]
    OtherModel {
        /// Of the bytes.
        found: Digest,
        /// Of the manifest.
        expected: Digest,
    },
    /// A step needs earlier rows, and a session runs tensors. The package is at fault.
    #[error(
        "step {step} needs a stream of readings; resample or carry over before the readings are \
         handed over, and take the step out of the contract"
    )]
    StepNeedsStream {
        /// Place of the step.
        step: usize,
    },
    /// A step on a port whose type it cannot compute with. The package is at fault.
    #[error("step {step} works on numbers of type f32, and its port has another type")]
    StepNeedsF32 {
        /// Place of the step.
        step: usize,
    },
    /// The engine does not take the model. The package is at fault.
    #[error("the engine refuses the model")]
    Refused(#[source] Refusal),
    /// The worker died over loading the model. The package is at fault.
    #[error("the worker died while it loaded the model")]
    Died(#[source] Death),
    /// No worker. The device is at fault.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The request does not fit a frame: a mistake of ours, or a contract beyond all bounds.
    #[error("the contract does not fit a frame")]
    Frame(#[source] FrameError),
    /// The system gives no more threads. The device is at fault, or the options ask for too many.
    #[error("the threads that the options ask for cannot be started")]
    Threads(#[source] io::Error),
    /// The model's bytes cannot be held in memory. The device is at fault.
    #[error("the model's bytes cannot be sealed in memory")]
    Blob(#[source] io::Error),
}

/// Why a run gave no outputs. The session lives on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The input does not keep the contract. Whoever feeds it is at fault: sensor or application.
    #[error("the input is refused: {0}")]
    Input(InputError),
    /// A feature step failed. The package is at fault.
    #[error("a feature step failed")]
    Step(#[source] StepError),
    /// The inputs do not fit a frame. The application is at fault: use a smaller batch.
    #[error("the inputs are too large; use a smaller batch")]
    Frame(#[source] FrameError),
    /// The engine could not run these inputs. The package is at fault.
    #[error("the engine could not run these inputs")]
    Refused(#[source] Refusal),
    /// The model's outputs do not keep the contract. The package is at fault.
    #[error("the outputs do not keep the contract: {0}")]
    Output(OutputError),
    /// The worker died over these inputs; the next run starts another.
    #[error("the worker died")]
    Died(#[source] Death),
    /// Too many workers died of late; nothing is started yet.
    #[error("the worker is replaced in {} ms, after {deaths} deaths", retry_after.as_millis())]
    Recovering {
        /// When to try again.
        retry_after: Duration,
        /// Deaths without a healthy spell between them.
        deaths: u32,
    },
    /// The worker's replacement did not come up.
    #[error("the worker could not be replaced")]
    Replace(#[source] Box<OpenError>),
}

impl RunError {
    /// A short name of the kind, stable for counters and reports.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Step(_) => "step",
            Self::Frame(_) => "frame",
            Self::Refused(_) => "refused",
            Self::Output(_) => "output",
            Self::Died(death) => death.kind(),
            Self::Recovering { .. } => "recovering",
            Self::Replace(_) => "replace",
        }
    }

    /// True if whoever fed the input is at fault, and not the release.
    pub fn is_input_fault(&self) -> bool {
        matches!(self, Self::Input(_) | Self::Frame(_))
    }
}

/// How an input breaks the contract.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InputError {
    /// A tensor that no port of the contract takes.
    #[error("the contract has no input `{port}`")]
    Unknown {
        /// Its name.
        port: String,
    },
    /// The same port twice.
    #[error("input `{port}` is given twice")]
    Twice {
        /// Its name.
        port: String,
    },
    /// A port without a tensor.
    #[error("input `{port}` is missing")]
    Absent {
        /// Its name.
        port: String,
    },
    /// Another type, shape, batch or length than the contract's.
    #[error("input `{port}`: {message}")]
    Shape {
        /// Its name.
        port: String,
        /// What differs.
        message: String,
    },
    /// Another number of rows than the states of the last run belong to.
    #[error(
        "{found} rows, and the model's state is that of {expected}; begin a new stream to change \
         the number of rows"
    )]
    Stream {
        /// Rows that came.
        found: u32,
        /// Rows of the runs before.
        expected: u32,
    },
    /// A value that its field does not allow.
    #[error("input `{port}`, field `{field}`, row {row}: {value} is refused ({fault})")]
    Value {
        /// The port's name.
        port: String,
        /// The field's name; empty where the contract names none.
        field: String,
        /// Counted from 0 over all outer dimensions.
        row: usize,
        /// The value.
        value: f64,
        /// Why.
        fault: Fault,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("a reading must not be missing here"),
            Self::Infinite => f.write_str("infinite"),
            Self::Outside { lo, hi } => write!(f, "the contract allows {lo} to {hi}"),
        }
    }
}

/// How outputs break the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// More or fewer outputs.
    #[error("{found} outputs instead of {expected}")]
    Count {
        /// Found.
        found: usize,
        /// The contract's.
        expected: usize,
    },
    /// Another name, type or shape.
    #[error("output `{port}`: {message}")]
    Shape {
        /// The port's name.
        port: String,
        /// What differs.
        message: String,
    },
}

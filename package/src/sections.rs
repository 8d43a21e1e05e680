//! What a package holds beside its manifest: contract, baseline, golden vectors, budget, card,
//! provenance, activation policy and the descriptions of its variants, or of the programs that it
//! holds instead.
//!
//! Each is one document of its own (version byte, postcard), checked against the manifest's digest
//! and parsed by itself. [`Contract::fits_baseline`] and [`Golden::fits`] say whether sections
//! belong together; the reader refuses a package in which they do not.

use alloc::string::String;
use alloc::vec::Vec;

use bellwether_drift::FieldBaseline;
use bellwether_features::Step;
use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::document::{self, DocumentError};
use crate::ids::{Digest, PackageId};
use crate::manifest::SectionKind;

mod activation;
mod fit;
mod program;

pub use activation::{Activation, Hours, Inactive};
pub use fit::FitError;
pub use program::{Executable, ProgramInfo, TARGETS_MAX, TRIPLE_BYTES_MAX, Target};

/// Format version of every section.
pub const FORMAT_VERSION: u8 = 2;
/// Most inputs, and most outputs, of a model.
pub const PORTS_MAX: usize = 32;
/// Most dimensions of a tensor.
pub const DIMS_MAX: usize = 8;
/// Most pairs of a state's input and output.
pub const STATES_MAX: usize = 32;
/// Most inputs whose value the contract gives.
pub const CONSTANTS_MAX: usize = 16;
/// Longest such value in bytes: sampling rates, flags and thresholds, not weights.
pub const CONSTANT_BYTES_MAX: usize = 4096;
/// Most fields over all inputs, and over all outputs.
pub const FIELDS_MAX: usize = 1024;
/// Most codes of a categorical field; as many as a baseline has bins.
pub const DOMAIN_MAX: usize = 16;
/// Longest name of a port, field, operator or metric in bytes; as a baseline's name.
pub const NAME_BYTES_MAX: usize = 48;
/// Longest name of a port in bytes: exporters make long ones.
pub const PORT_NAME_BYTES_MAX: usize = 128;
/// Longest unit in bytes.
pub const UNIT_BYTES_MAX: usize = 24;
/// Longest description of a field's source in bytes.
pub const SOURCE_BYTES_MAX: usize = 96;
/// Most feature steps.
pub const STEPS_MAX: usize = 256;
/// Most golden cases: all of them run at every install.
pub const CASES_MAX: usize = 1024;
/// Most operators named by a variant.
pub const OPERATORS_MAX: usize = 256;
/// Most chunks of a blob: 512 MiB in chunks of 256 KiB.
pub const CHUNKS_MAX: usize = 2048;
/// Longest paragraph of a card or of the provenance in bytes.
pub const PARAGRAPH_BYTES_MAX: usize = 4096;
/// Most entries in a list of a card or of the provenance.
pub const ENTRIES_MAX: usize = 64;
/// Longest text of such an entry in bytes.
pub const ENTRY_BYTES_MAX: usize = 256;
/// Most regions, and most hours, of an activation policy.
pub const ACTIVATION_RULES_MAX: usize = 16;

/// Type of a tensor's elements. Wire enum: append only, reordering breaks devices in the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 16 bits.
    U16,
    /// IEEE 754 half precision.
    F16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::Bool | Self::U8 | Self::I8 => 1,
        }
    }
}

/// One dimension of a tensor. Wire enum: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dim {
    /// The number of rows in a call: any.
    Batch,
    /// Always this.
    Fixed(u32),
}

/// What happens to a NaN in a field. Wire enum: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingRule {
    /// The call is refused.
    Refuse,
    /// The model takes NaN, or a step fills it.
    Allow,
}

/// What a field's values are. Wire enum: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldKind {
    /// A number.
    Numeric,
    /// One of a few codes.
    Categorical {
        /// The codes; 1 to 16, all different.
        #[serde(deserialize_with = "bounded::list::<_, _, DOMAIN_MAX>")]
        domain: Vec<i64>,
    },
}

/// One element of a port's last axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Its name, unique among the inputs or among the outputs; the baseline's name for it.
    #[serde(deserialize_with = "bounded::text::<_, NAME_BYTES_MAX>")]
    pub name: String,
    /// Its unit; empty if it has none.
    #[serde(deserialize_with = "bounded::text::<_, UNIT_BYTES_MAX>")]
    pub unit: String,
    /// Least and greatest value that can be true, in its unit.
    pub range: Option<(f32, f32)>,
    /// What happens to a NaN.
    pub missing: MissingRule,
    /// Whether its counts may leave the device, with the least and greatest value of each window.
    /// A field that stays is not watched for drift.
    pub export: bool,
    /// What its values are.
    pub kind: FieldKind,
    /// The sensor or computation that it comes from; empty if nobody said.
    #[serde(deserialize_with = "bounded::text::<_, SOURCE_BYTES_MAX>")]
    pub source: String,
}

/// One input or output tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Its name in the model.
    #[serde(deserialize_with = "bounded::text::<_, PORT_NAME_BYTES_MAX>")]
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its shape.
    #[serde(deserialize_with = "bounded::list::<_, _, DIMS_MAX>")]
    pub shape: Vec<Dim>,
    /// The elements of its last axis, one field where that axis is the batch or there is none.
    /// Empty for a port that nobody watches.
    #[serde(deserialize_with = "bounded::list::<_, _, FIELDS_MAX>")]
    pub fields: Vec<Field>,
}

/// What a run leaves for the next: an output that is fed back as an input. It is zero at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The input's name in the model.
    #[serde(deserialize_with = "bounded::text::<_, PORT_NAME_BYTES_MAX>")]
    pub input: String,
    /// The output's name in the model.
    #[serde(deserialize_with = "bounded::text::<_, PORT_NAME_BYTES_MAX>")]
    pub output: String,
    /// Type of the elements of both.
    pub dtype: DType,
    /// The shape of both.
    #[serde(deserialize_with = "bounded::list::<_, _, DIMS_MAX>")]
    pub shape: Vec<Dim>,
}

/// An input of the model that is always the same: nobody feeds it, the engine folds it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constant {
    /// The input's name in the model.
    #[serde(deserialize_with = "bounded::text::<_, PORT_NAME_BYTES_MAX>")]
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its shape; empty for a single number.
    #[serde(deserialize_with = "bounded::list::<_, _, DIMS_MAX>")]
    pub shape: Vec<u32>,
    /// Its elements, little-endian, the last axis fastest.
    #[serde(
        deserialize_with = "bounded::bytes::<_, CONSTANT_BYTES_MAX>",
        serialize_with = "bounded::write_bytes"
    )]
    pub bytes: Vec<u8>,
}

/// What goes in, what comes out, and the steps from sensor to tensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Contract {
    /// Input tensors, in the order of the model.
    #[serde(deserialize_with = "bounded::list::<_, _, PORTS_MAX>")]
    pub inputs: Vec<Port>,
    /// Output tensors, in the order of the model.
    #[serde(deserialize_with = "bounded::list::<_, _, PORTS_MAX>")]
    pub outputs: Vec<Port>,
    /// Feature steps; a step's channel is the place of its field among all input fields.
    #[serde(deserialize_with = "bounded::list::<_, _, STEPS_MAX>")]
    pub steps: Vec<Step>,
    /// What one run leaves for the next; neither fed by an application nor seen by it.
    #[serde(deserialize_with = "bounded::list::<_, _, STATES_MAX>")]
    pub states: Vec<State>,
    /// Inputs of the model that are always the same.
    #[serde(deserialize_with = "bounded::list::<_, _, CONSTANTS_MAX>")]
    pub constants: Vec<Constant>,
}

/// What the training data looked like: one entry for each field of the contract, in its order,
/// inputs flattened over the ports, likewise outputs. Inputs are raw: before any step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Of the inputs' fields.
    #[serde(deserialize_with = "bounded::list::<_, _, FIELDS_MAX>")]
    pub inputs: Vec<FieldBaseline>,
    /// Of the outputs' fields.
    #[serde(deserialize_with = "bounded::list::<_, _, FIELDS_MAX>")]
    pub outputs: Vec<FieldBaseline>,
}

/// One tensor of a golden case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldenTensor {
    /// The port.
    #[serde(deserialize_with = "bounded::text::<_, PORT_NAME_BYTES_MAX>")]
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its shape.
    #[serde(deserialize_with = "bounded::list::<_, _, DIMS_MAX>")]
    pub shape: Vec<u32>,
    /// Its elements, little-endian, the last axis fastest.
    #[serde(
        deserialize_with = "bounded::bytes::<_, GOLDEN_TENSOR_BYTES_MAX>",
        serialize_with = "bounded::write_bytes"
    )]
    pub bytes: Vec<u8>,
}

/// Longest golden tensor in bytes: the whole section.
pub const GOLDEN_TENSOR_BYTES_MAX: usize = crate::manifest::GOLDEN_BYTES_MAX as usize;

/// Inputs with the outputs that they must give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldenCase {
    /// One tensor for each input, in the contract's order; raw, before any step.
    #[serde(deserialize_with = "bounded::list::<_, _, PORTS_MAX>")]
    pub inputs: Vec<GoldenTensor>,
    /// One tensor for each output, in the contract's order.
    #[serde(deserialize_with = "bounded::list::<_, _, PORTS_MAX>")]
    pub outputs: Vec<GoldenTensor>,
}

/// Where golden outputs come from. Wire enum: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GoldenOrigin {
    /// From the framework that trained the model: proves the export.
    Framework,
    /// From the packed model itself: proves only that it runs alike elsewhere.
    SelfComputed,
}

/// Golden vectors: `|got − expected| ≤ tolerance_abs + tolerance_rel · |expected|`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// The cases; at least one.
    #[serde(deserialize_with = "bounded::list::<_, _, CASES_MAX>")]
    pub cases: Vec<GoldenCase>,
    /// Absolute tolerance, in the output's unit.
    pub tolerance_abs: f32,
    /// Relative tolerance, a share.
    pub tolerance_rel: f32,
    /// Where the outputs come from.
    pub origin: GoldenOrigin,
}

impl Golden {
    /// Where there is no model.
    pub(crate) const NONE: Self = Self {
        cases: Vec::new(),
        tolerance_abs: 0.0,
        tolerance_rel: 0.0,
        origin: GoldenOrigin::SelfComputed,
    };
}

/// What the model may use of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Latency of one call that 99 of 100 calls keep, in microseconds.
    pub latency_us_p99: u32,
    /// Peak memory of the worker, in bytes.
    pub memory_bytes: u64,
    /// Share of calls that may fail, in millionths.
    pub error_share_max_ppm: u32,
}

impl Budget {
    /// Where there is no model.
    pub(crate) const NONE: Self = Self {
        latency_us_p99: 0,
        memory_bytes: 0,
        error_share_max_ppm: 0,
    };
}

/// One figure of a card with its confidence interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What was measured, and on which data.
    #[serde(deserialize_with = "bounded::text::<_, ENTRY_BYTES_MAX>")]
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its interval: least, greatest, and the confidence as a share, such as 0.95.
    pub interval: Option<(f64, f64, f64)>,
}

/// What the model is for: read by those who approve it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// What it is meant for.
    #[serde(deserialize_with = "bounded::text::<_, PARAGRAPH_BYTES_MAX>")]
    pub intended_use: String,
    /// Where it fails, and what it must not be used for.
    #[serde(deserialize_with = "bounded::text::<_, PARAGRAPH_BYTES_MAX>")]
    pub limits: String,
    /// The data it depends on.
    #[serde(deserialize_with = "bounded::text::<_, PARAGRAPH_BYTES_MAX>")]
    pub data: String,
    /// Whom to ask.
    #[serde(deserialize_with = "bounded::text::<_, ENTRY_BYTES_MAX>")]
    pub owner: String,
    /// How good it is.
    #[serde(deserialize_with = "bounded::list::<_, _, ENTRIES_MAX>")]
    pub accuracy: Vec<Metric>,
    /// Features that it must not use.
    #[serde(deserialize_with = "bounded::texts::<_, ENTRIES_MAX, ENTRY_BYTES_MAX>")]
    pub prohibited_features: Vec<String>,
    /// How it treats groups of people, if it concerns people.
    #[serde(deserialize_with = "bounded::text::<_, PARAGRAPH_BYTES_MAX>")]
    pub fairness: String,
}

/// Where the model comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// SHA-256 of the training data, if known.
    pub data: Option<Digest>,
    /// Commit of the code that trained it.
    #[serde(deserialize_with = "bounded::text::<_, ENTRY_BYTES_MAX>")]
    pub code_commit: String,
    /// Framework and its version.
    #[serde(deserialize_with = "bounded::text::<_, ENTRY_BYTES_MAX>")]
    pub framework: String,
    /// Parameters of the training.
    #[serde(deserialize_with = "bounded::pairs::<_, ENTRIES_MAX, ENTRY_BYTES_MAX>")]
    pub parameters: Vec<(String, String)>,
    /// Releases that it was made from.
    #[serde(deserialize_with = "bounded::list::<_, _, ENTRIES_MAX>")]
    pub parents: Vec<PackageId>,
}

/// Description of the ONNX variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnnxInfo {
    /// Length of the blob in bytes.
    pub length: u64,
    /// Version of the operator set.
    pub opset: u32,
    /// Peak memory that it needs, in bytes, as the packer measured it.
    pub memory_bytes: u64,
    /// Operators that it uses, as `domain:name` or `name`.
    #[serde(deserialize_with = "bounded::texts::<_, OPERATORS_MAX, ENTRY_BYTES_MAX>")]
    pub operators: Vec<String>,
    /// SHA-256 of each 256 KiB chunk.
    #[serde(deserialize_with = "bounded::list::<_, _, CHUNKS_MAX>")]
    pub chunks: Vec<Digest>,
}

/// Description of the variant for microcontrollers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MicroInfo {
    /// Length of the blob in bytes.
    pub length: u64,
    /// Version of the plan format.
    pub plan_version: u32,
    /// Working memory that it needs, in bytes.
    pub memory_bytes: u64,
    /// SHA-256 of each 256 KiB chunk.
    #[serde(deserialize_with = "bounded::list::<_, _, CHUNKS_MAX>")]
    pub chunks: Vec<Digest>,
}

macro_rules! section {
    ($($name:ident => $kind:ident),+ $(,)?) => {$(
        impl $name {
            /// Decodes and checks the section of exactly `bytes`.
            ///
            /// # Errors
            ///
            /// [`DocumentError`]; never panics, whatever the bytes.
            pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
                let bytes_max = SectionKind::$kind.bytes_max() as usize;
                if bytes.len() > bytes_max {
                    return Err(DocumentError::TooLong { bytes_max });
                }
                let section: Self = document::decode(FORMAT_VERSION, bytes)?;
                section.check()?;
                Ok(section)
            }

            /// Encodes and checks the section.
            ///
            /// # Errors
            ///
            /// [`DocumentError`] when it contradicts itself or is out of bounds.
            pub fn encode(&self) -> Result<Vec<u8>, DocumentError> {
                let bytes_max = SectionKind::$kind.bytes_max() as usize;
                let bytes = document::to_vec(FORMAT_VERSION, self, bytes_max)?;
                // Bounds are stated once, where bytes are read.
                Self::decode(&bytes)?;
                Ok(bytes)
            }
        }
    )+};
}

section! {
    Contract => Contract,
    Baseline => Baseline,
    Golden => Golden,
    Budget => Budget,
    Card => Card,
    Provenance => Provenance,
    Activation => Activation,
    OnnxInfo => OnnxInfo,
    MicroInfo => MicroInfo,
    ProgramInfo => ProgramInfo,
}

//! The manifest: the small header whose digest is the package's id and which approvals sign.
//!
//! It names every section by kind, length and digest, in the order of the file, so that a streaming
//! reader knows what comes before it comes, and how long it may be.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::sha256;
use crate::document::{self, DocumentError};
use crate::ids::{Digest, ModelName, ModelVersion, PackageId, UnixSecs};

/// Format version of the manifest.
pub const FORMAT_VERSION: u8 = 1;
/// Longest manifest in bytes: sixteen sections of 43 bytes each and the longest name fit.
pub const MANIFEST_BYTES_MAX: usize = 1024;
/// Most sections in one package: more than there are kinds.
pub const SECTIONS_MAX: usize = 16;
/// Longest contract in bytes: hundreds of fields with their steps.
pub const CONTRACT_BYTES_MAX: u64 = 64 * 1024;
/// Longest baseline in bytes: about 250 bytes for each of a thousand fields.
pub const BASELINE_BYTES_MAX: u64 = 256 * 1024;
/// Longest golden vectors in bytes: they are run at every install, so a few are meant.
pub const GOLDEN_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest budget in bytes: three numbers.
pub const BUDGET_BYTES_MAX: u64 = 64;
/// Longest card in bytes: some pages of text.
pub const CARD_BYTES_MAX: u64 = 64 * 1024;
/// Longest provenance in bytes: some pages of text.
pub const PROVENANCE_BYTES_MAX: u64 = 64 * 1024;
/// Longest activation policy in bytes.
pub const ACTIVATION_BYTES_MAX: u64 = 16 * 1024;
/// Longest description of a blob in bytes: 2048 chunk digests and the operators.
pub const INFO_BYTES_MAX: u64 = 128 * 1024;
/// Longest ONNX blob in bytes: what a device with some GB of memory can hold twice.
pub const BLOB_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Longest blob for a microcontroller in bytes: more than any on-chip flash.
pub const MICRO_BLOB_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Longest blob of programs in bytes: agent and worker, each with its symbols, for a few targets.
pub const PROGRAM_BLOB_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bit of [`Manifest::flags`]: the packer saw golden vectors fail and packed all the same.
pub const FLAG_GOLDEN_MISMATCH_ALLOWED: u32 = 1;
const FLAGS_KNOWN: u32 = FLAG_GOLDEN_MISMATCH_ALLOWED;

/// What a section holds. The numbers stand in files: append only, never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SectionKind {
    /// Inputs, outputs and feature steps.
    Contract = 1,
    /// What the training data looked like, field by field.
    Baseline = 2,
    /// Inputs with the outputs that they must give.
    Golden = 3,
    /// Latency, memory and errors that are allowed.
    Budget = 4,
    /// What the model is for, for people.
    Card = 5,
    /// Where the model comes from.
    Provenance = 6,
    /// Where and when the model may run.
    Activation = 7,
    /// Description of the ONNX variant.
    OnnxInfo = 16,
    /// The ONNX variant.
    OnnxBlob = 17,
    /// Description of the variant for microcontrollers.
    MicroInfo = 18,
    /// The variant for microcontrollers.
    MicroBlob = 19,
    /// Description of the device's own programs.
    ProgramInfo = 20,
    /// The device's own programs.
    ProgramBlob = 21,
}

impl SectionKind {
    /// Every kind, in the order in which sections stand in a file.
    pub const ALL: [Self; 13] = [
        Self::Contract,
        Self::Baseline,
        Self::Golden,
        Self::Budget,
        Self::Card,
        Self::Provenance,
        Self::Activation,
        Self::OnnxInfo,
        Self::OnnxBlob,
        Self::MicroInfo,
        Self::MicroBlob,
        Self::ProgramInfo,
        Self::ProgramBlob,
    ];

    /// Longest section of this kind, in bytes.
    pub const fn bytes_max(self) -> u64 {
        match self {
            Self::Contract => CONTRACT_BYTES_MAX,
            Self::Baseline => BASELINE_BYTES_MAX,
            Self::Golden => GOLDEN_BYTES_MAX,
            Self::Budget => BUDGET_BYTES_MAX,
            Self::Card => CARD_BYTES_MAX,
            Self::Provenance => PROVENANCE_BYTES_MAX,
            Self::Activation => ACTIVATION_BYTES_MAX,
            Self::OnnxInfo | Self::MicroInfo | Self::ProgramInfo => INFO_BYTES_MAX,
            Self::OnnxBlob => BLOB_BYTES_MAX,
            Self::MicroBlob => MICRO_BLOB_BYTES_MAX,
            Self::ProgramBlob => PROGRAM_BLOB_BYTES_MAX,
        }
    }

    /// Whether the section is a blob: its digest is the root over its chunks.
    pub const fn is_blob(self) -> bool {
        matches!(self, Self::OnnxBlob | Self::MicroBlob | Self::ProgramBlob)
    }

    /// The name that people read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::Baseline => "baseline",
            Self::Golden => "golden",
            Self::Budget => "budget",
            Self::Card => "card",
            Self::Provenance => "provenance",
            Self::Activation => "activation",
            Self::OnnxInfo => "onnx info",
            Self::OnnxBlob => "onnx blob",
            Self::MicroInfo => "micro info",
            Self::MicroBlob => "micro blob",
            Self::ProgramInfo => "program info",
            Self::ProgramBlob => "program blob",
        }
    }
}

impl core::fmt::Display for SectionKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SectionKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for SectionKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Self::ALL
            .into_iter()
            .find(|kind| *kind as u8 == number)
            .ok_or_else(|| de::Error::custom("unknown kind of section"))
    }
}

/// One section, as the manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionEntry {
    /// What it holds.
    pub kind: SectionKind,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes; of a blob, the [root over its chunks](crate::digest::ChunkRoot).
    pub digest: Digest,
}

/// The manifest. Its fields are checked by [`Manifest::decode`] and [`Manifest::check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The model's name.
    pub model: ModelName,
    /// The model's version.
    pub version: ModelVersion,
    /// When it was packed.
    pub created: UnixSecs,
    /// `FLAG_…` bits.
    pub flags: u32,
    /// The sections in the order of the file, which is the order of their kinds.
    pub sections: heapless::Vec<SectionEntry, SECTIONS_MAX, u8>,
}

impl Manifest {
    /// Decodes and checks a manifest of exactly `bytes`.
    ///
    /// # Errors
    ///
    /// [`DocumentError`]; never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(DocumentError::TooLong {
                bytes_max: MANIFEST_BYTES_MAX,
            });
        }
        let manifest: Self = document::decode(FORMAT_VERSION, bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks and encodes the manifest into `buffer`.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] when the manifest contradicts itself or the buffer is too short.
    pub fn encode<'a>(
        &self,
        buffer: &'a mut [u8; MANIFEST_BYTES_MAX],
    ) -> Result<&'a [u8], DocumentError> {
        self.check()?;
        document::encode(FORMAT_VERSION, self, buffer)
    }

    /// The id of a package with these manifest bytes.
    pub fn id(bytes: &[u8]) -> PackageId {
        PackageId(sha256(bytes))
    }

    /// The section of this kind, if there is one.
    pub fn section(&self, kind: SectionKind) -> Option<&SectionEntry> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// Bytes of all sections together.
    pub fn sections_bytes(&self) -> u64 {
        self.sections.iter().map(|section| section.length).sum()
    }

    /// Whether the packer saw golden vectors fail and packed all the same.
    pub fn golden_mismatch_allowed(&self) -> bool {
        self.flags & FLAG_GOLDEN_MISMATCH_ALLOWED != 0
    }

    /// Whether the sections are in order, within bounds and complete.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Invalid`] says what is wrong.
    pub fn check(&self) -> Result<(), DocumentError> {
        if self.flags & !FLAGS_KNOWN != 0 {
            return Err(DocumentError::Invalid("an unknown flag is set"));
        }
        if !self.sections.is_sorted_by(|one, next| one.kind < next.kind) {
            return Err(DocumentError::Invalid(
                "sections are out of order or stand twice",
            ));
        }
        for section in &self.sections {
            if section.length == 0 || section.length > section.kind.bytes_max() {
                return Err(DocumentError::Invalid(
                    "a section's length is out of bounds",
                ));
            }
        }
        if self.is_program() {
            return self.check_program();
        }
        let has = |kind| self.section(kind).is_some();
        use SectionKind::{
            Baseline, Budget, Contract, Golden, MicroBlob, MicroInfo, OnnxBlob, OnnxInfo,
        };
        if ![Contract, Baseline, Golden, Budget].into_iter().all(has) {
            return Err(DocumentError::Invalid("a mandatory section is missing"));
        }
        if has(OnnxInfo) != has(OnnxBlob) || has(MicroInfo) != has(MicroBlob) {
            return Err(DocumentError::Invalid(
                "a blob lacks its description, or the reverse",
            ));
        }
        if !has(OnnxBlob) && !has(MicroBlob) {
            return Err(DocumentError::Invalid("there is no variant to run"));
        }
        Ok(())
    }

    /// Whether it holds the device's own programs instead of a model.
    pub fn is_program(&self) -> bool {
        let program = |kind| matches!(kind, SectionKind::ProgramInfo | SectionKind::ProgramBlob);
        self.sections.iter().any(|section| program(section.kind))
    }

    /// Nothing of a model may stand beside programs: what runs as one is never read as the other.
    fn check_program(&self) -> Result<(), DocumentError> {
        use SectionKind::{Card, ProgramBlob, ProgramInfo, Provenance};
        let may_stand = [Card, Provenance, ProgramInfo, ProgramBlob];
        if self
            .sections
            .iter()
            .any(|section| !may_stand.contains(&section.kind))
        {
            return Err(DocumentError::Invalid(
                "a model's section stands beside programs",
            ));
        }
        if self.section(ProgramInfo).is_none() || self.section(ProgramBlob).is_none() {
            return Err(DocumentError::Invalid(
                "a blob lacks its description, or the reverse",
            ));
        }
        Ok(())
    }
}

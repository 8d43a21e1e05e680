//! Writing a package, and giving one other approvals.
//!
//! Whoever replaces a file does so atomically (write beside it, flush, rename): that is the
//! caller's, this module knows no files.

use alloc::string::String;
use alloc::vec::Vec;

use embedded_io::{Error as _, ErrorKind, Read, Write};

use crate::digest::{CHUNK_BYTES, sha256};
use crate::document::DocumentError;
use crate::ids::{Digest, ModelName, ModelVersion, PackageId, UnixSecs};
use crate::manifest::{
    FLAG_GOLDEN_MISMATCH_ALLOWED, MANIFEST_BYTES_MAX, Manifest, SectionEntry, SectionKind,
};
use crate::read::{Header, ReadError, read_header};
use crate::sections::{
    Activation, Baseline, Budget, Card, Contract, FitError, Golden, MicroInfo, OnnxInfo, Provenance,
};

mod program;

pub use program::{ProgramDraft, TargetDraft};

/// Bytes that are copied at once when approvals are replaced.
const COPY_BYTES: usize = 8 * 1024;

/// An ONNX model and what the packer found out about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxDraft<'a> {
    /// The model's bytes.
    pub bytes: &'a [u8],
    /// Version of the operator set.
    pub opset: u32,
    /// Peak memory that it needs, in bytes.
    pub memory_bytes: u64,
    /// Operators that it uses.
    pub operators: Vec<String>,
}

/// A lowered model for microcontrollers and what the packer found out about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroDraft<'a> {
    /// The plan's bytes.
    pub bytes: &'a [u8],
    /// Version of the plan format.
    pub plan_version: u32,
    /// Working memory that it needs, in bytes.
    pub memory_bytes: u64,
}

/// Everything that a package is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft<'a> {
    /// The model's name.
    pub model: ModelName,
    /// The model's version.
    pub version: ModelVersion,
    /// When it is packed.
    pub created: UnixSecs,
    /// Whether golden vectors failed and it is packed all the same.
    pub golden_mismatch_allowed: bool,
    /// Inputs, outputs and feature steps.
    pub contract: Contract,
    /// What the training data looked like.
    pub baseline: Baseline,
    /// Inputs with the outputs that they must give.
    pub golden: Golden,
    /// Latency, memory and errors that are allowed.
    pub budget: Budget,
    /// What the model is for.
    pub card: Option<Card>,
    /// Where the model comes from.
    pub provenance: Option<Provenance>,
    /// Where and when the model may run.
    pub activation: Option<Activation>,
    /// The ONNX variant.
    pub onnx: Option<OnnxDraft<'a>>,
    /// The variant for microcontrollers.
    pub micro: Option<MicroDraft<'a>>,
}

/// Why a package cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A section contradicts itself or is out of bounds. The packer's input is at fault.
    #[error("the {kind} contradicts itself or is out of bounds")]
    Section {
        /// The section.
        kind: SectionKind,
        /// Why.
        source: DocumentError,
    },
    /// Sections do not belong together. The packer's input is at fault.
    #[error("the sections do not belong together")]
    Fit(#[from] FitError),
    /// The manifest does not come out right, for example without any variant.
    #[error("the package is not complete")]
    Manifest(#[source] DocumentError),
    /// The approvals are too many or too long, or the package that they are for is not one.
    #[error("the package could not be read")]
    Read(#[from] ReadError),
    /// The bytes could not be written.
    #[error("the package could not be written: {0:?}")]
    Target(ErrorKind),
}

impl Draft<'_> {
    /// Checks everything and writes the package, without approvals, to `target`.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; nothing is written unless everything fits.
    pub fn write(&self, target: impl Write) -> Result<PackageId, WriteError> {
        let (header, sections) = self.encode()?;
        put_all(&header, &sections, target)
    }

    /// The package's bytes, without approvals.
    ///
    /// # Errors
    ///
    /// As [`Draft::write`].
    pub fn to_vec(&self) -> Result<Vec<u8>, WriteError> {
        let (header, sections) = self.encode()?;
        let mut bytes = header.encode();
        sections
            .iter()
            .for_each(|section| bytes.extend_from_slice(section.bytes()));
        Ok(bytes)
    }

    fn encode(&self) -> Result<(Header, Vec<Encoded<'_>>), WriteError> {
        self.contract.fits_baseline(&self.baseline)?;
        self.golden.fits(&self.contract)?;
        let sections = self.encode_sections()?;
        let manifest = Manifest {
            model: self.model.clone(),
            version: self.version,
            created: self.created,
            flags: if self.golden_mismatch_allowed {
                FLAG_GOLDEN_MISMATCH_ALLOWED
            } else {
                0
            },
            sections: heapless::Vec::new(),
        };
        Ok((header_over(manifest, &sections)?, sections))
    }

    /// In the order of their kinds, which is the order of the file.
    fn encode_sections(&self) -> Result<Vec<Encoded<'_>>, WriteError> {
        use SectionKind as Kind;
        let mut sections = alloc::vec![
            small(Kind::Contract, self.contract.encode())?,
            small(Kind::Baseline, self.baseline.encode())?,
            small(Kind::Golden, self.golden.encode())?,
            small(Kind::Budget, self.budget.encode())?,
        ];
        if let Some(card) = &self.card {
            sections.push(small(Kind::Card, card.encode())?);
        }
        if let Some(provenance) = &self.provenance {
            sections.push(small(Kind::Provenance, provenance.encode())?);
        }
        if let Some(activation) = &self.activation {
            sections.push(small(Kind::Activation, activation.encode())?);
        }
        if let Some(onnx) = &self.onnx {
            let info = OnnxInfo {
                length: onnx.bytes.len() as u64,
                opset: onnx.opset,
                memory_bytes: onnx.memory_bytes,
                operators: onnx.operators.clone(),
                chunks: chunk_digests(onnx.bytes),
            };
            sections.push(small(Kind::OnnxInfo, info.encode())?);
            let chunks = info.chunks;
            sections.push(Encoded::Blob {
                kind: Kind::OnnxBlob,
                bytes: onnx.bytes,
                chunks,
            });
        }
        if let Some(micro) = &self.micro {
            let info = MicroInfo {
                length: micro.bytes.len() as u64,
                plan_version: micro.plan_version,
                memory_bytes: micro.memory_bytes,
                chunks: chunk_digests(micro.bytes),
            };
            sections.push(small(Kind::MicroInfo, info.encode())?);
            let chunks = info.chunks;
            sections.push(Encoded::Blob {
                kind: Kind::MicroBlob,
                bytes: micro.bytes,
                chunks,
            });
        }
        Ok(sections)
    }
}

/// The header of a package with this manifest over these sections, in the order of their kinds.
fn header_over(mut manifest: Manifest, sections: &[Encoded<'_>]) -> Result<Header, WriteError> {
    for section in sections {
        let full = WriteError::Manifest(DocumentError::Invalid("there are too many sections"));
        manifest.sections.push(section.entry()).map_err(|_| full)?;
    }
    let mut buffer = [0; MANIFEST_BYTES_MAX];
    let manifest = manifest.encode(&mut buffer).map_err(WriteError::Manifest)?;
    Ok(Header::from_parts(manifest.to_vec(), Vec::new())?)
}

fn put_all(
    header: &Header,
    sections: &[Encoded<'_>],
    mut target: impl Write,
) -> Result<PackageId, WriteError> {
    let mut put = |bytes: &[u8]| {
        target
            .write_all(bytes)
            .map_err(|error| WriteError::Target(error.kind()))
    };
    put(&header.encode())?;
    for section in sections {
        put(section.bytes())?;
    }
    target
        .flush()
        .map_err(|error| WriteError::Target(error.kind()))?;
    Ok(header.id())
}

/// Copies a package and gives it these approvals instead of those it has. The package's id stays.
///
/// # Errors
///
/// [`WriteError`] when `source` is not a package, is shorter or longer than its manifest says, or
/// cannot be read; when there are too many approvals; when `target` cannot be written. Sections
/// are copied, not checked: [`read`](crate::read::read) does that.
pub fn replace_approvals(
    mut source: impl Read,
    mut target: impl Write,
    approvals: Vec<Vec<u8>>,
) -> Result<PackageId, WriteError> {
    let mut header = read_header(&mut source)?;
    header.set_approvals(approvals)?;
    let mut put = |bytes: &[u8]| {
        target
            .write_all(bytes)
            .map_err(|error| WriteError::Target(error.kind()))
    };
    put(&header.encode())?;
    let mut left = header.manifest().sections_bytes();
    let mut buffer = [0; COPY_BYTES];
    loop {
        let count = source
            .read(&mut buffer)
            .map_err(|error| ReadError::Source(error.kind()))? as u64;
        if count > left {
            return Err(ReadError::TrailingBytes.into());
        }
        if count == 0 {
            break;
        }
        put(&buffer[..count as usize])?;
        left -= count;
    }
    if left > 0 {
        return Err(ReadError::Truncated.into());
    }
    target
        .flush()
        .map_err(|error| WriteError::Target(error.kind()))?;
    Ok(header.id())
}

/// SHA-256 of each 256 KiB chunk.
pub fn chunk_digests(blob: &[u8]) -> Vec<Digest> {
    blob.chunks(CHUNK_BYTES).map(sha256).collect()
}

enum Encoded<'a> {
    Small {
        kind: SectionKind,
        bytes: Vec<u8>,
    },
    Blob {
        kind: SectionKind,
        bytes: &'a [u8],
        chunks: Vec<Digest>,
    },
}

impl Encoded<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Small { bytes, .. } => bytes,
            Self::Blob { bytes, .. } => bytes,
        }
    }

    fn entry(&self) -> SectionEntry {
        let (kind, digest) = match self {
            Self::Small { kind, bytes } => (*kind, sha256(bytes)),
            Self::Blob { kind, chunks, .. } => (*kind, crate::digest::ChunkRoot::of_chunks(chunks)),
        };
        SectionEntry {
            kind,
            length: self.bytes().len() as u64,
            digest,
        }
    }
}

fn small<'a>(
    kind: SectionKind,
    bytes: Result<Vec<u8>, DocumentError>,
) -> Result<Encoded<'a>, WriteError> {
    match bytes {
        Ok(bytes) => Ok(Encoded::Small { kind, bytes }),
        Err(source) => Err(WriteError::Section { kind, source }),
    }
}

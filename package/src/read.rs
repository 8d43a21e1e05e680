//! Reading a package: the only way from bytes to an [`IntactPackage`].
//!
//! Layout of a `.bwp` file: `"BWP1" | u32le length of manifest | manifest | u16le number of
//! approvals | each: u16le length, bytes of a signed approval | sections back to back, in the
//! manifest's order`.
//!
//! Bytes are read once: hashed, checked and parsed from the same buffer. Every length is compared
//! with its bound before anything is read, and memory grows with the bytes that arrived, not with
//! those that were promised. A blob goes to a [`BlobSink`] chunk by chunk, each chunk checked
//! first; no file is ever held whole.

use alloc::vec;
use alloc::vec::Vec;

use embedded_io::{Error as _, ErrorKind, Read, ReadExactError};

use crate::approval::{APPROVALS_MAX, SIGNED_APPROVAL_BYTES_MAX};
use crate::digest::{CHUNK_BYTES, sha256};
use crate::document::DocumentError;
use crate::ids::{Digest, PackageId};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest, SectionEntry, SectionKind};
use crate::sections::{
    Activation, Baseline, Budget, Card, Contract, FitError, Golden, MicroInfo, OnnxInfo,
    ProgramInfo, Provenance,
};

/// The first bytes of a package.
pub const MAGIC: &[u8; 4] = b"BWP1";

/// Memory that is reserved at once for a section, in bytes; more only as bytes arrive.
const PIECE_BYTES: usize = 16 * 1024;

/// Takes the bytes of blobs, already checked: memory, a sealed file descriptor, flash.
///
/// A blob counts only once the reader returned an [`IntactPackage`]: until then the sink must keep
/// what it was given apart.
pub trait BlobSink {
    /// What can go wrong.
    type Error: embedded_io::Error;

    /// A blob of this kind and length in bytes begins.
    ///
    /// # Errors
    ///
    /// When there is no room for it.
    fn begin(&mut self, kind: SectionKind, length: u64) -> Result<(), Self::Error>;

    /// Its next bytes: a whole chunk, checked against its digest.
    ///
    /// # Errors
    ///
    /// When they cannot be kept.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}

impl<S: BlobSink + ?Sized> BlobSink for &mut S {
    type Error = S::Error;

    fn begin(&mut self, kind: SectionKind, length: u64) -> Result<(), S::Error> {
        (**self).begin(kind, length)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), S::Error> {
        (**self).append(bytes)
    }
}

/// Drops blobs: for those who only want to know what a package says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoBlobs;

impl BlobSink for NoBlobs {
    type Error = core::convert::Infallible;

    fn begin(&mut self, _: SectionKind, _: u64) -> Result<(), Self::Error> {
        Ok(())
    }

    fn append(&mut self, _: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Keeps a model's blobs in memory: for small models and for packers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryBlobs {
    /// The ONNX variant; empty if there is none.
    pub onnx: Vec<u8>,
    /// The variant for microcontrollers; empty if there is none.
    pub micro: Vec<u8>,
    into: Option<SectionKind>,
}

impl BlobSink for MemoryBlobs {
    type Error = core::convert::Infallible;

    fn begin(&mut self, kind: SectionKind, _: u64) -> Result<(), Self::Error> {
        self.into = Some(kind);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        match self.into {
            Some(SectionKind::OnnxBlob) => self.onnx.extend_from_slice(bytes),
            Some(SectionKind::MicroBlob) => self.micro.extend_from_slice(bytes),
            _ => {}
        }
        Ok(())
    }
}

/// Why a package is refused before anybody asks who approved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes could not be read. Disk or network is at fault.
    #[error("the package could not be read: {0:?}")]
    Source(ErrorKind),
    /// The blob could not be kept. The device is at fault, perhaps full.
    #[error("the model's bytes could not be kept: {0:?}")]
    Sink(ErrorKind),
    /// The bytes end before the package does.
    #[error("the package is cut off")]
    Truncated,
    /// Not a package at all.
    #[error("this is not a Bellwether package")]
    NotAPackage,
    /// A manifest longer than its bound.
    #[error("the manifest claims {found} bytes, at most {MANIFEST_BYTES_MAX} are possible")]
    ManifestLength {
        /// The length that it claims.
        found: u32,
    },
    /// More approvals than there can be.
    #[error("the package claims {found} approvals, at most {APPROVALS_MAX} are possible")]
    TooManyApprovals {
        /// The number that it claims.
        found: u16,
    },
    /// An approval longer than its bound.
    #[error("an approval claims {found} bytes, at most {SIGNED_APPROVAL_BYTES_MAX} are possible")]
    ApprovalLength {
        /// The length that it claims.
        found: u16,
    },
    /// The manifest is damaged or contradicts itself.
    #[error("the package's manifest is damaged or contradicts itself")]
    Manifest(#[source] DocumentError),
    /// A section's bytes are not those that the manifest names.
    #[error("the package's {kind} is not what the manifest names")]
    Digest {
        /// The section.
        kind: SectionKind,
    },
    /// A section is damaged or contradicts itself.
    #[error("the package's {kind} is damaged or contradicts itself")]
    Section {
        /// The section.
        kind: SectionKind,
        /// Why.
        source: DocumentError,
    },
    /// Sections do not belong together.
    #[error("the package's sections do not belong together")]
    Fit(#[from] FitError),
    /// Bytes are left after the last section.
    #[error("bytes follow the package's last section")]
    TrailingBytes,
}

/// The part of a package before its sections. Nobody checked the approvals yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    id: PackageId,
    approvals: Vec<Vec<u8>>,
}

impl Header {
    /// A header from its parts: the manifest's exact bytes and signed approvals.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the manifest is damaged, or approvals are too many or too long.
    pub fn from_parts(manifest_bytes: Vec<u8>, approvals: Vec<Vec<u8>>) -> Result<Self, ReadError> {
        let manifest = Manifest::decode(&manifest_bytes).map_err(ReadError::Manifest)?;
        let id = Manifest::id(&manifest_bytes);
        let mut header = Self {
            manifest,
            manifest_bytes,
            id,
            approvals: Vec::new(),
        };
        header.set_approvals(approvals)?;
        Ok(header)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's exact bytes.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// The package's id.
    pub fn id(&self) -> PackageId {
        self.id
    }

    /// The signed approvals, unchecked.
    pub fn approvals(&self) -> impl Iterator<Item = &[u8]> {
        self.approvals.iter().map(Vec::as_slice)
    }

    /// Carries these approvals instead.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when they are too many or one is too long.
    pub fn set_approvals(&mut self, approvals: Vec<Vec<u8>>) -> Result<(), ReadError> {
        if approvals.len() > APPROVALS_MAX {
            let found = u16::try_from(approvals.len()).unwrap_or(u16::MAX);
            return Err(ReadError::TooManyApprovals { found });
        }
        for approval in &approvals {
            if approval.len() > SIGNED_APPROVAL_BYTES_MAX {
                let found = u16::try_from(approval.len()).unwrap_or(u16::MAX);
                return Err(ReadError::ApprovalLength { found });
            }
        }
        self.approvals = approvals;
        Ok(())
    }

    /// Bytes from the beginning of the file to the first section.
    pub fn header_bytes(&self) -> u64 {
        let approvals: usize = self
            .approvals
            .iter()
            .map(|approval| 2 + approval.len())
            .sum();
        (MAGIC.len() + 4 + self.manifest_bytes.len() + 2 + approvals) as u64
    }

    /// Bytes of the whole file.
    pub fn package_bytes(&self) -> u64 {
        self.header_bytes() + self.manifest.sections_bytes()
    }

    /// The header as it stands in a file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header_bytes() as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(self.manifest_bytes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.manifest_bytes);
        bytes.extend_from_slice(&(self.approvals.len() as u16).to_le_bytes());
        for approval in &self.approvals {
            bytes.extend_from_slice(&(approval.len() as u16).to_le_bytes());
            bytes.extend_from_slice(approval);
        }
        bytes
    }

    /// Reads and checks the sections that follow this header, to the end of `source`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read_sections(
        self,
        mut source: impl Read,
        mut sink: impl BlobSink,
    ) -> Result<IntactPackage, ReadError> {
        let mut found = Found::default();
        for section in &self.manifest.sections {
            found.read(section, &mut source, &mut sink)?;
        }
        let mut probe = [0; 1];
        if read_some(&mut source, &mut probe)? != 0 {
            return Err(ReadError::TrailingBytes);
        }
        found.into_package(self)
    }
}

/// Reads the part of a package before its sections, so that it can be refused before they come.
///
/// # Errors
///
/// [`ReadError`]; never panics, whatever the bytes.
pub fn read_header(mut source: impl Read) -> Result<Header, ReadError> {
    if read_array(&mut source)? != *MAGIC {
        return Err(ReadError::NotAPackage);
    }
    let length = u32::from_le_bytes(read_array(&mut source)?);
    if length as usize > MANIFEST_BYTES_MAX {
        return Err(ReadError::ManifestLength { found: length });
    }
    let manifest_bytes = read_bytes(&mut source, length as usize)?;
    let count = u16::from_le_bytes(read_array(&mut source)?);
    if usize::from(count) > APPROVALS_MAX {
        return Err(ReadError::TooManyApprovals { found: count });
    }
    let mut approvals = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let length = u16::from_le_bytes(read_array(&mut source)?);
        if usize::from(length) > SIGNED_APPROVAL_BYTES_MAX {
            return Err(ReadError::ApprovalLength { found: length });
        }
        approvals.push(read_bytes(&mut source, usize::from(length))?);
    }
    Header::from_parts(manifest_bytes, approvals)
}

/// Reads and checks a whole package; its blobs go to `sink`.
///
/// # Errors
///
/// [`ReadError`]; never panics, whatever the bytes.
pub fn read(mut source: impl Read, sink: impl BlobSink) -> Result<IntactPackage, ReadError> {
    read_header(&mut source)?.read_sections(source, sink)
}

/// A package whose structure and digests were checked and whose sections belong together. Nobody
/// approved it yet, as far as this type says: only its golden vectors may be run.
///
/// The blob is not in here: it went to the sink. Whoever runs it compares the
/// [root](crate::digest::ChunkRoot) of the bytes that he runs with the manifest's.
#[derive(Debug, Clone, PartialEq)]
pub struct IntactPackage {
    header: Header,
    contract: Contract,
    baseline: Baseline,
    golden: Golden,
    budget: Budget,
    card: Option<Card>,
    provenance: Option<Provenance>,
    activation: Option<Activation>,
    onnx: Option<OnnxInfo>,
    micro: Option<MicroInfo>,
    program: Option<ProgramInfo>,
}

impl IntactPackage {
    /// The package's id.
    pub fn id(&self) -> PackageId {
        self.header.id
    }

    /// Manifest and approvals.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.header.manifest
    }

    /// Carries these approvals instead.
    ///
    /// # Errors
    ///
    /// As [`Header::set_approvals`].
    pub fn set_approvals(&mut self, approvals: Vec<Vec<u8>>) -> Result<(), ReadError> {
        self.header.set_approvals(approvals)
    }

    /// Inputs, outputs and feature steps; empty where there are programs instead of a model, as are
    /// baseline and golden vectors.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// What the training data looked like.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Inputs with the outputs that they must give.
    pub fn golden(&self) -> &Golden {
        &self.golden
    }

    /// Latency, memory and errors that are allowed.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What the model is for.
    pub fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// Where the model comes from.
    pub fn provenance(&self) -> Option<&Provenance> {
        self.provenance.as_ref()
    }

    /// Where and when the model may run; everywhere and always if there is no policy.
    pub fn activation(&self) -> Option<&Activation> {
        self.activation.as_ref()
    }

    /// Description of the ONNX variant.
    pub fn onnx(&self) -> Option<&OnnxInfo> {
        self.onnx.as_ref()
    }

    /// Description of the variant for microcontrollers.
    pub fn micro(&self) -> Option<&MicroInfo> {
        self.micro.as_ref()
    }

    /// Description of the device's own programs, if it holds those instead of a model.
    pub fn program(&self) -> Option<&ProgramInfo> {
        self.program.as_ref()
    }
}

/// Sections read so far.
#[derive(Default)]
struct Found {
    contract: Option<Contract>,
    baseline: Option<Baseline>,
    golden: Option<Golden>,
    budget: Option<Budget>,
    card: Option<Card>,
    provenance: Option<Provenance>,
    activation: Option<Activation>,
    onnx: Option<OnnxInfo>,
    micro: Option<MicroInfo>,
    program: Option<ProgramInfo>,
}

impl Found {
    fn read(
        &mut self,
        section: &SectionEntry,
        source: &mut impl Read,
        sink: &mut impl BlobSink,
    ) -> Result<(), ReadError> {
        let kind = section.kind;
        // A blob's description comes just before it: the manifest's order and pairs were checked.
        match kind {
            SectionKind::OnnxBlob => {
                let info = self.onnx.as_ref().ok_or(ReadError::Fit(FitError::Blob))?;
                info.fits(section)?;
                return read_blob(section, &info.chunks, source, sink);
            }
            SectionKind::MicroBlob => {
                let info = self.micro.as_ref().ok_or(ReadError::Fit(FitError::Blob))?;
                info.fits(section)?;
                return read_blob(section, &info.chunks, source, sink);
            }
            SectionKind::ProgramBlob => {
                let info = self.program.as_ref();
                let info = info.ok_or(ReadError::Fit(FitError::Blob))?;
                info.fits(section)?;
                return read_blob(section, &info.chunks, source, sink);
            }
            _ => {}
        }
        let bytes = read_bytes(source, section.length as usize)?;
        if sha256(&bytes) != section.digest {
            return Err(ReadError::Digest { kind });
        }
        self.parse(kind, &bytes)
            .map_err(|source| ReadError::Section { kind, source })
    }

    fn parse(&mut self, kind: SectionKind, bytes: &[u8]) -> Result<(), DocumentError> {
        match kind {
            SectionKind::Contract => self.contract = Some(Contract::decode(bytes)?),
            SectionKind::Baseline => self.baseline = Some(Baseline::decode(bytes)?),
            SectionKind::Golden => self.golden = Some(Golden::decode(bytes)?),
            SectionKind::Budget => self.budget = Some(Budget::decode(bytes)?),
            SectionKind::Card => self.card = Some(Card::decode(bytes)?),
            SectionKind::Provenance => self.provenance = Some(Provenance::decode(bytes)?),
            SectionKind::Activation => self.activation = Some(Activation::decode(bytes)?),
            SectionKind::OnnxInfo => self.onnx = Some(OnnxInfo::decode(bytes)?),
            SectionKind::MicroInfo => self.micro = Some(MicroInfo::decode(bytes)?),
            SectionKind::ProgramInfo => self.program = Some(ProgramInfo::decode(bytes)?),
            SectionKind::OnnxBlob | SectionKind::MicroBlob | SectionKind::ProgramBlob => {}
        }
        Ok(())
    }

    fn into_package(mut self, header: Header) -> Result<IntactPackage, ReadError> {
        if self.program.is_some() {
            // The manifest says that nothing of a model is there. Without a variant none can run.
            self.contract = Some(Contract::default());
            self.baseline = Some(Baseline::default());
            self.golden = Some(Golden::NONE);
            self.budget = Some(Budget::NONE);
        }
        let missing = ReadError::Manifest(DocumentError::Invalid("a mandatory section is missing"));
        let package = IntactPackage {
            header,
            contract: self.contract.ok_or(missing)?,
            baseline: self.baseline.ok_or(missing)?,
            golden: self.golden.ok_or(missing)?,
            budget: self.budget.ok_or(missing)?,
            card: self.card,
            provenance: self.provenance,
            activation: self.activation,
            onnx: self.onnx,
            micro: self.micro,
            program: self.program,
        };
        package.contract.fits_baseline(&package.baseline)?;
        package.golden.fits(&package.contract)?;
        Ok(package)
    }
}

fn read_blob(
    section: &SectionEntry,
    chunks: &[Digest],
    source: &mut impl Read,
    sink: &mut impl BlobSink,
) -> Result<(), ReadError> {
    let sink_error = |error: ErrorKind| ReadError::Sink(error);
    sink.begin(section.kind, section.length)
        .map_err(|error| sink_error(error.kind()))?;
    let mut left = section.length;
    for digest in chunks {
        let length = left.min(CHUNK_BYTES as u64);
        let chunk = read_bytes(source, length as usize)?;
        if sha256(&chunk) != *digest {
            return Err(ReadError::Digest { kind: section.kind });
        }
        sink.append(&chunk)
            .map_err(|error| sink_error(error.kind()))?;
        left -= length;
    }
    Ok(())
}

/// Reads exactly `length` bytes, which was compared with its bound before.
fn read_bytes(source: &mut impl Read, length: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; length.min(PIECE_BYTES)];
    let mut filled = 0;
    while filled < length {
        if filled == bytes.len() {
            // Twice as much as arrived so far, never more than is due.
            bytes.resize(length.min(2 * filled), 0);
        }
        match read_some(source, &mut bytes[filled..])? {
            0 => return Err(ReadError::Truncated),
            count => filled += count,
        }
    }
    Ok(bytes)
}

fn read_array<const N: usize>(source: &mut impl Read) -> Result<[u8; N], ReadError> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).map_err(|error| match error {
        ReadExactError::UnexpectedEof => ReadError::Truncated,
        ReadExactError::Other(error) => ReadError::Source(error.kind()),
    })?;
    Ok(bytes)
}

fn read_some(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ReadError> {
    source
        .read(buffer)
        .map_err(|error| ReadError::Source(error.kind()))
}

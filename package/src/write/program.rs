//! Writing a package of the device's own programs.

use alloc::string::String;
use alloc::vec::Vec;

use embedded_io::Write;

use super::{Encoded, WriteError, chunk_digests, header_over, put_all, small};
use crate::digest::sha256;
use crate::document::DocumentError;
use crate::ids::{ModelName, ModelVersion, PackageId, UnixSecs};
use crate::manifest::{Manifest, PROGRAM_BLOB_BYTES_MAX, SectionKind};
use crate::sections::{Card, Executable, ProgramInfo, Provenance, Target};

/// The programs for one kind of machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDraft<'a> {
    /// What they were built for, as Rust names it.
    pub triple: String,
    /// The confined worker.
    pub worker: &'a [u8],
    /// The agent.
    pub agent: &'a [u8],
}

/// Everything that a package of programs is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramDraft<'a> {
    /// The program's name, by which revocations name a least version.
    pub name: ModelName,
    /// The program's version.
    pub version: ModelVersion,
    /// When it is packed.
    pub created: UnixSecs,
    /// What it is for.
    pub card: Option<Card>,
    /// Where it comes from.
    pub provenance: Option<Provenance>,
    /// One entry for each kind of machine.
    pub targets: Vec<TargetDraft<'a>>,
}

impl ProgramDraft<'_> {
    /// Checks everything and writes the package, without approvals, to `target`.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; nothing is written unless everything fits.
    pub fn write(&self, target: impl Write) -> Result<PackageId, WriteError> {
        let blob = self.blob()?;
        let chunks = chunk_digests(&blob);
        let info = ProgramInfo {
            length: blob.len() as u64,
            targets: self.targets.iter().map(described).collect(),
            chunks: chunks.clone(),
        };
        let mut sections = Vec::new();
        if let Some(card) = &self.card {
            sections.push(small(SectionKind::Card, card.encode())?);
        }
        if let Some(provenance) = &self.provenance {
            sections.push(small(SectionKind::Provenance, provenance.encode())?);
        }
        sections.push(small(SectionKind::ProgramInfo, info.encode())?);
        sections.push(Encoded::Blob {
            kind: SectionKind::ProgramBlob,
            bytes: &blob,
            chunks,
        });
        let manifest = Manifest {
            model: self.name.clone(),
            version: self.version,
            created: self.created,
            flags: 0,
            sections: heapless::Vec::new(),
        };
        put_all(&header_over(manifest, &sections)?, &sections, target)
    }

    fn blob(&self) -> Result<Vec<u8>, WriteError> {
        let programs = self.targets.iter().flat_map(|one| [one.worker, one.agent]);
        let programs: Vec<&[u8]> = programs.collect();
        let length: u64 = programs.iter().map(|program| program.len() as u64).sum();
        if length <= PROGRAM_BLOB_BYTES_MAX {
            return Ok(programs.concat());
        }
        Err(WriteError::Section {
            kind: SectionKind::ProgramBlob,
            source: DocumentError::TooLong {
                bytes_max: PROGRAM_BLOB_BYTES_MAX as usize,
            },
        })
    }
}

fn described(target: &TargetDraft<'_>) -> Target {
    let executable = |bytes: &[u8]| Executable {
        length: bytes.len() as u64,
        digest: sha256(bytes),
    };
    Target {
        triple: target.triple.clone(),
        worker: executable(target.worker),
        agent: executable(target.agent),
    }
}

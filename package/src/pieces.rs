//! The pieces of a package that another package may share: whole sections, and chunks of blobs.
//!
//! A device that has a package already fetches only the pieces that differ. Approvals are no
//! pieces: they stand before the sections and differ from download to download.

use alloc::vec::Vec;

use crate::digest::CHUNK_BYTES;
use crate::ids::Digest;
use crate::manifest::SectionKind;
use crate::read::{Header, IntactPackage};

/// A stretch of a package's file, with the digest of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

impl Piece {
    /// Where it ends in the file, in bytes.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Where a section of this kind begins in the file and how long it is, in bytes.
pub fn section_place(header: &Header, kind: SectionKind) -> Option<(u64, u64)> {
    places(header)
        .find(|(found, ..)| *found == kind)
        .map(|(_, offset, length)| (offset, length))
}

/// The sections that are hashed whole, in the order of the file.
pub fn sections(header: &Header) -> Vec<Piece> {
    let digests = header.manifest().sections.iter();
    let whole = digests
        .zip(places(header))
        .filter(|(section, _)| !section.kind.is_blob());
    whole
        .map(|(section, (_, offset, length))| Piece {
            offset,
            length,
            digest: section.digest,
        })
        .collect()
}

/// The chunks of the blob of this kind, in the order of the file; none if the package lacks it or
/// has another number of chunks.
pub fn chunks(header: &Header, kind: SectionKind, digests: &[Digest]) -> Vec<Piece> {
    let Some((first, length)) = section_place(header, kind) else {
        return Vec::new();
    };
    let chunk_bytes = CHUNK_BYTES as u64;
    if length.div_ceil(chunk_bytes) != digests.len() as u64 {
        return Vec::new();
    }
    let before = (0..).step_by(CHUNK_BYTES);
    before
        .zip(digests)
        .map(|(before, digest)| Piece {
            offset: first + before,
            length: chunk_bytes.min(length - before),
            digest: *digest,
        })
        .collect()
}

/// All pieces of a package, in the order of the file.
pub fn pieces(package: &IntactPackage) -> Vec<Piece> {
    let header = package.header();
    let mut pieces = sections(header);
    if let Some(onnx) = package.onnx() {
        pieces.extend(chunks(header, SectionKind::OnnxBlob, &onnx.chunks));
    }
    if let Some(micro) = package.micro() {
        pieces.extend(chunks(header, SectionKind::MicroBlob, &micro.chunks));
    }
    if let Some(program) = package.program() {
        pieces.extend(chunks(header, SectionKind::ProgramBlob, &program.chunks));
    }
    pieces.sort_unstable_by_key(|piece| piece.offset);
    pieces
}

/// What one package shares with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// Bytes of the package's file.
    pub bytes: u64,
    /// Of these, bytes of pieces that the other has too.
    pub bytes_shared: u64,
    /// Pieces of the package.
    pub pieces: usize,
    /// Of these, pieces that the other has too.
    pub pieces_shared: usize,
}

/// What `package` shares with `other`: what a device that has `other` need not fetch.
pub fn shared(package: &IntactPackage, other: &IntactPackage) -> Shared {
    let mut known: Vec<Digest> = pieces(other).iter().map(|piece| piece.digest).collect();
    known.sort_unstable();
    let all = pieces(package);
    let both = all
        .iter()
        .filter(|piece| known.binary_search(&piece.digest).is_ok());
    let (mut bytes_shared, mut pieces_shared) = (0, 0);
    for piece in both {
        bytes_shared += piece.length;
        pieces_shared += 1;
    }
    Shared {
        bytes: package.header().package_bytes(),
        bytes_shared,
        pieces: all.len(),
        pieces_shared,
    }
}

/// Kind, offset and length of each section.
fn places(header: &Header) -> impl Iterator<Item = (SectionKind, u64, u64)> + '_ {
    let mut offset = header.header_bytes();
    header.manifest().sections.iter().map(move |section| {
        let begins = offset;
        offset += section.length;
        (section.kind, begins, section.length)
    })
}

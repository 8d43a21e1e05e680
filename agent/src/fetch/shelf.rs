//! Pieces of the packages that are on disk already, which need not come over the network again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use bellwether_package::digest::sha256;
use bellwether_package::pieces::{Piece, chunks, section_place, sections};
use bellwether_package::sections::{MicroInfo, OnnxInfo, ProgramInfo};
use bellwether_package::{Digest, Header, PackageId, SectionKind, std_io};

/// Pieces shorter than this come over the network: asking for what follows costs as much.
pub(super) const PIECE_BYTES_MIN: u64 = 4 * 1024;
/// Packages that are looked at: two for each slot and some on their way out.
const PACKAGES_MAX: usize = 16;

/// What lies where.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    files: Vec<PathBuf>,
    pieces: HashMap<(Digest, u64), (usize, u64)>,
}

impl Shelf {
    /// Looks through the packages in `folder`, that of `release` apart. Their bytes were checked
    /// when they came and are checked again when they are copied, so nothing is hashed here; a file
    /// that cannot be read has no pieces.
    pub(super) fn of(folder: &Path, release: PackageId) -> Self {
        let mut shelf = Self::default();
        let own = super::path(folder, release);
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let packages = files
            .map(|file| file.path())
            .filter(|path| *path != own && path.extension().is_some_and(|it| it == "bwp"));
        for path in packages.take(PACKAGES_MAX) {
            if let Some(pieces) = pieces_of(&path) {
                let file = shelf.files.len();
                shelf.files.push(path);
                for piece in pieces {
                    let place = (file, piece.offset);
                    shelf.pieces.insert((piece.digest, piece.length), place);
                }
            }
        }
        shelf
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn has(&self, piece: &Piece) -> bool {
        piece.length >= PIECE_BYTES_MIN && self.pieces.contains_key(&(piece.digest, piece.length))
    }

    /// The piece's bytes, from where they begin; `None` when they cannot be had.
    pub(super) fn open(&self, piece: &Piece) -> Option<File> {
        let (file, offset) = self.pieces.get(&(piece.digest, piece.length))?;
        let mut file = File::open(self.files.get(*file)?).ok()?;
        file.seek(SeekFrom::Start(*offset)).ok()?;
        Some(file)
    }
}

fn pieces_of(path: &Path) -> Option<Vec<Piece>> {
    let mut file = BufReader::new(File::open(path).ok()?);
    let header = std_io::read_header(&mut file).ok()?;
    let mut pieces = sections(&header);
    for info in INFOS {
        let Some((offset, length)) = section_place(&header, info) else {
            continue;
        };
        file.seek(SeekFrom::Start(offset)).ok()?;
        // The manifest's bounds were checked when it was read.
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        std::io::Read::read_exact(&mut file, &mut bytes).ok()?;
        pieces.extend(chunks_of(&header, info, &bytes));
    }
    Some(pieces)
}

/// Sections that name the chunks of a blob.
pub(super) const INFOS: [SectionKind; 3] = [
    SectionKind::OnnxInfo,
    SectionKind::MicroInfo,
    SectionKind::ProgramInfo,
];

/// The chunks that a blob's description names; none if its bytes are not the manifest's.
pub(super) fn chunks_of(header: &Header, info: SectionKind, bytes: &[u8]) -> Vec<Piece> {
    let named = header
        .manifest()
        .section(info)
        .map(|section| section.digest);
    if named != Some(sha256(bytes)) {
        return Vec::new();
    }
    match info {
        SectionKind::OnnxInfo => {
            OnnxInfo::decode(bytes).map(|onnx| chunks(header, SectionKind::OnnxBlob, &onnx.chunks))
        }
        SectionKind::ProgramInfo => ProgramInfo::decode(bytes)
            .map(|program| chunks(header, SectionKind::ProgramBlob, &program.chunks)),
        _ => MicroInfo::decode(bytes)
            .map(|micro| chunks(header, SectionKind::MicroBlob, &micro.chunks)),
    }
    .unwrap_or_default()
}

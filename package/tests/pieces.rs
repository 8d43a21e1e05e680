//! What packages share.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot build its fixture fails"
)]

use bellwether_package::digest::{CHUNK_BYTES, sha256};
use bellwether_package::pieces::{pieces, shared};
use bellwether_package::read::{NoBlobs, read};
use bellwether_package::write::OnnxDraft;
use bellwether_package::{IntactPackage, SectionKind};

mod common;

/// A package around this model, and its bytes.
fn package(onnx: &[u8]) -> (IntactPackage, Vec<u8>) {
    let mut draft = common::draft();
    draft.onnx = Some(OnnxDraft {
        bytes: onnx,
        opset: 13,
        memory_bytes: 1 << 20,
        operators: vec!["Gemm".into()],
    });
    let bytes = draft.to_vec().unwrap();
    (read(bytes.as_slice(), NoBlobs).unwrap(), bytes)
}

/// Four chunks and a bit, none like another.
fn model() -> Vec<u8> {
    (0..4 * CHUNK_BYTES + 1_000)
        .map(|n| (n / 1_000) as u8 ^ n as u8)
        .collect()
}

#[test]
fn each_piece_is_the_stretch_of_the_file_that_has_its_digest() {
    let (package, bytes) = package(&model());
    let pieces = pieces(&package);
    for piece in &pieces {
        let stretch = &bytes[piece.offset as usize..piece.end() as usize];
        assert_eq!(sha256(stretch), piece.digest);
    }
    // Back to back, from the end of the header to the end of the file.
    assert_eq!(pieces[0].offset, package.header().header_bytes());
    assert!(
        pieces
            .windows(2)
            .all(|pair| pair[0].end() == pair[1].offset)
    );
    assert_eq!(pieces.last().unwrap().end(), bytes.len() as u64);
    let blobs = package.manifest().sections.iter();
    let small = blobs.filter(|section| !section.kind.is_blob()).count();
    assert_eq!(pieces.len(), small + 5);
}

#[test]
fn a_changed_chunk_and_its_list_are_all_that_differs() {
    let (old, _) = package(&model());
    let mut retrained = model();
    retrained[2 * CHUNK_BYTES + 5] ^= 1;
    let (new, _) = package(&retrained);
    let found = shared(&new, &old);
    let list = new
        .manifest()
        .section(SectionKind::OnnxInfo)
        .unwrap()
        .length;
    let header = new.header().header_bytes();
    assert_eq!(found.pieces - found.pieces_shared, 2);
    let differs = found.bytes - found.bytes_shared;
    assert_eq!(differs, header + list + CHUNK_BYTES as u64);
    let same = shared(&old, &old);
    assert_eq!(same.pieces, same.pieces_shared);
}

#[test]
fn a_byte_more_at_the_beginning_moves_every_chunk() {
    let (old, _) = package(&model());
    let mut longer = model();
    longer.insert(0, 7);
    let (new, _) = package(&longer);
    let found = shared(&new, &old);
    assert_eq!(
        found.pieces - found.pieces_shared,
        6,
        "five chunks and their list"
    );
}

//! SHA-256, and the root over the chunks of a blob.

use sha2::{Digest as _, Sha256};

use crate::ids::Digest;

/// Size of a blob's chunks in bytes. A download resumes at a chunk and fetches only chunks that
/// differ; smaller chunks would make the list of digests longer than it saves.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// SHA-256 of bytes that arrive piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The root over a blob's chunks: SHA-256 over the concatenated SHA-256 digests of its 256 KiB
/// chunks, the last of which may be shorter. Takes bytes piece by piece and needs no heap.
#[derive(Debug, Clone, Default)]
pub struct ChunkRoot {
    root: Sha256,
    chunk: Sha256,
    chunk_bytes: usize,
}

impl ChunkRoot {
    /// The root of a blob whose chunks have these digests.
    pub fn of_chunks(chunks: &[Digest]) -> Digest {
        let mut root = Sha256::new();
        chunks.iter().for_each(|chunk| root.update(chunk.0));
        Digest(root.finalize().into())
    }

    /// Takes in the next bytes of the blob.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk_bytes));
            self.chunk.update(now);
            self.chunk_bytes += now.len();
            bytes = later;
            if self.chunk_bytes == CHUNK_BYTES {
                self.end_chunk();
            }
        }
    }

    /// The root over all bytes taken in.
    pub fn finish(mut self) -> Digest {
        if self.chunk_bytes > 0 {
            self.end_chunk();
        }
        Digest(self.root.finalize().into())
    }

    fn end_chunk(&mut self) {
        self.root.update(self.chunk.finalize_reset());
        self.chunk_bytes = 0;
    }
}

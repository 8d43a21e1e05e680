//! Model bytes in sealed memory.
//!
//! The bytes are hashed as they are copied into a `memfd`, which is then sealed: nobody, the
//! parent included, can change them between the check and the run, and no file name exists that
//! could be replaced.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
};

use bellwether_package::{
    Digest, SectionKind, digest::ChunkRoot, manifest::BLOB_BYTES_MAX, read::BlobSink,
};
use embedded_io::ErrorKind;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

const COPY_BYTES: usize = 64 * 1024;

/// Takes in a model's bytes, hashes them, and seals them.
///
/// As a [`BlobSink`] it takes the ONNX model straight from the reader of a package and passes over
/// the variant for microcontrollers.
#[derive(Debug)]
pub struct BlobSealer {
    file: File,
    root: ChunkRoot,
    length: u64,
    wanted: bool,
}

/// A model's bytes that can no longer change.
#[derive(Debug)]
pub struct SealedBlob {
    file: File,
    root: Digest,
    length: u64,
}

impl BlobSealer {
    /// Makes an empty one. Fails if the kernel has no `memfd_create`, or no memory.
    pub fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        Ok(Self {
            file: File::from(memfd_create(c"bellwether-model", flags)?),
            root: ChunkRoot::default(),
            length: 0,
            wanted: true,
        })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        if self.length > BLOB_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("a model has at most {BLOB_BYTES_MAX} bytes"),
            ));
        }
        self.root.update(bytes);
        self.file.write_all(bytes)
    }

    /// Seals what was written.
    pub fn seal(self) -> io::Result<SealedBlob> {
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&self.file, seals)?;
        Ok(SealedBlob {
            file: self.file,
            root: self.root.finish(),
            length: self.length,
        })
    }
}

impl BlobSink for BlobSealer {
    type Error = ErrorKind;

    fn begin(&mut self, kind: SectionKind, _length: u64) -> Result<(), ErrorKind> {
        self.wanted = kind == SectionKind::OnnxBlob;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        if !self.wanted {
            return Ok(());
        }
        self.write(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull => ErrorKind::OutOfMemory,
            _ => ErrorKind::Other,
        })
    }
}

impl SealedBlob {
    /// Copies, hashes and seals everything `source` gives, at most [`BLOB_BYTES_MAX`].
    pub fn copy_from(mut source: impl Read) -> io::Result<Self> {
        let mut sealer = BlobSealer::new()?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return sealer.seal(),
                Ok(n) => sealer.write(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The root over the bytes' chunks, as a manifest carries it.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// A read-only descriptor of its own, positioned at the start.
    pub fn reopen(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn sealed_bytes_cannot_be_written_or_cut() {
        let blob = SealedBlob::copy_from(&b"model"[..]).unwrap();
        assert_eq!(blob.length(), 5);
        assert_eq!(blob.root(), {
            let mut root = ChunkRoot::default();
            root.update(b"model");
            root.finish()
        });
        assert!(blob.file.write_at(b"x", 0).is_err());
        assert!(blob.file.set_len(0).is_err());
        assert!(blob.reopen().unwrap().write_at(b"x", 0).is_err());
        let mut bytes = Vec::new();
        blob.reopen().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"model");
    }
}

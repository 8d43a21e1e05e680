//! Where each byte of a package comes from: the part on disk, another package, or the server.
//!
//! The package reader takes them in order and checks every one, wherever it came from. What is not
//! in the part yet is written there as it passes.

use std::fs::File;
use std::io::{Read, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use bellwether_package::Header;
use bellwether_package::pieces::{Piece, section_place, sections};

use super::APPROVALS_BYTES_MAX;
use super::pace::Pace;
use super::shelf::{INFOS, Shelf, chunks_of};
use crate::remote::{Remote, RemoteError};

/// Bytes that are asked for first where other packages are on disk: manifest, approvals and small
/// sections, after which it is known what is there already.
const HEAD_BYTES: u64 = 16 * 1024;

/// A package that comes in.
pub(super) struct Source<'a> {
    pub(super) remote: &'a Remote,
    pub(super) path: String,
    pub(super) shelf: &'a Shelf,
    pub(super) pace: Pace,
    pub(super) cancelled: &'a AtomicBool,
    /// The part, read up to `kept` and then written.
    pub(super) file: File,
    /// Length that was announced; approvals may have been added since.
    pub(super) length: u64,
    /// Bytes of the part that were there before.
    pub(super) kept: u64,
    /// Length of the server's file, once it told.
    pub(super) whole: Option<u64>,
    /// Where the reader stands.
    pub(super) at: u64,
    /// Pieces known so far, in the order of the file.
    pub(super) pieces: Vec<Piece>,
    /// Descriptions of blobs, collected as they pass.
    pub(super) infos: Vec<Info>,
    pub(super) header: Option<Header>,
    pub(super) body: Option<Body>,
    /// A piece of another package, and where it ends in this one.
    pub(super) copy: Option<(File, u64)>,
    pub(super) tally: Tally,
    pub(super) failure: Option<Failure>,
}

/// A description of a blob that passes.
pub(super) struct Info {
    pub(super) kind: bellwether_package::SectionKind,
    pub(super) begins: u64,
    pub(super) length: u64,
    pub(super) bytes: Vec<u8>,
}

/// An answer of the server that is being read.
pub(super) struct Body {
    bytes: Box<dyn Read + Send>,
    /// Where it ends in the package, if the server told.
    ends: Option<u64>,
}

/// Where the bytes came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Bytes that the server sent.
    pub(super) bytes_fetched: u64,
    /// Bytes that lay in other packages.
    pub(super) bytes_copied: u64,
    /// Requests to the server.
    pub(super) requests: u32,
}

#[derive(Debug)]
pub(super) enum Failure {
    Cancelled,
    Body(std::io::Error),
    File(std::io::Error),
    Remote(RemoteError),
    /// Longer than announced, or of another length altogether.
    Length,
    /// The server's file is not the one that the part is of.
    Changed,
}

impl Source<'_> {
    /// Learns from the header what comes.
    pub(super) fn expect(&mut self, header: &Header) {
        if self.shelf.is_empty() {
            return;
        }
        self.pieces = sections(header);
        let infos = INFOS.into_iter().filter_map(|kind| {
            let (begins, length) = section_place(header, kind)?;
            Some(Info {
                kind,
                begins,
                length,
                bytes: Vec::new(),
            })
        });
        self.infos = infos.collect();
        self.header = Some(header.clone());
    }

    /// Whether the bytes were not all of one answer of the server: then a wrong one may be of
    /// another time, or of a damaged package beside it.
    pub(super) fn is_patched(&self) -> bool {
        self.kept > 0 || self.tally.bytes_copied > 0 || self.tally.requests > 1
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Failure::Cancelled);
        }
        let count = if self.at < self.kept {
            self.read_part(buffer)?
        } else if let Some(count) = self.copy_piece(buffer)? {
            count
        } else {
            self.read_body(buffer)?
        };
        self.collect(&buffer[..count]);
        self.at += count as u64;
        Ok(count)
    }

    fn read_part(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let room = bounded(buffer.len(), self.kept - self.at);
        let count = self.file.read(&mut buffer[..room]).map_err(Failure::File)?;
        if count == 0 {
            return Err(Failure::File(std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(count)
    }

    /// Bytes of the piece that begins here, or began before, in another package; `None` when there
    /// is none.
    fn copy_piece(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Failure> {
        if self.copy.is_none() {
            let here = self.pieces.iter().find(|piece| piece.offset == self.at);
            let here = here.filter(|piece| self.shelf.has(piece));
            self.copy = here.and_then(|piece| Some((self.shelf.open(piece)?, piece.end())));
        }
        let Some((file, ends)) = &mut self.copy else {
            return Ok(None);
        };
        // What the server may still be sending is not needed.
        self.body = None;
        let (room, ends) = (bounded(buffer.len(), *ends - self.at), *ends);
        let count = file.read(&mut buffer[..room]).unwrap_or(0);
        if count == 0 {
            // Gone or damaged since it was looked at. The next attempt does without.
            return Err(Failure::Changed);
        }
        if self.at + count as u64 == ends {
            self.copy = None;
        }
        self.tally.bytes_copied += count as u64;
        self.file
            .write_all(&buffer[..count])
            .map_err(Failure::File)?;
        Ok(Some(count))
    }

    fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let over = |body: &Body| body.ends == Some(self.at);
        if self.body.as_ref().is_none_or(over) {
            match self.ask()? {
                Some(body) => self.body = Some(body),
                None => return Ok(0),
            }
        }
        let Some(body) = &mut self.body else {
            return Ok(0);
        };
        let left = body.ends.map_or(u64::MAX, |ends| ends - self.at);
        let room = bounded(buffer.len(), left).min(self.pace.room());
        let count = body
            .bytes
            .read(&mut buffer[..room])
            .map_err(Failure::Body)?;
        if count == 0 && body.ends.is_some() {
            return Err(Failure::Body(std::io::ErrorKind::UnexpectedEof.into()));
        }
        // The disk is ours to spare, whatever lengths the manifest claims.
        if self.at + count as u64 > self.length.saturating_add(APPROVALS_BYTES_MAX) {
            return Err(Failure::Length);
        }
        self.tally.bytes_fetched += count as u64;
        self.file
            .write_all(&buffer[..count])
            .map_err(Failure::File)?;
        self.pace.came(count, self.cancelled);
        Ok(count)
    }

    /// Asks for what comes next, up to the next piece that is here already; `None` at the end.
    fn ask(&mut self) -> Result<Option<Body>, Failure> {
        if self.whole.is_some_and(|whole| self.at >= whole) {
            return Ok(None);
        }
        let until = self.until();
        self.tally.requests += 1;
        let content = match self.remote.content(&self.path, self.at, until) {
            // The file on the server is shorter than what was resumed.
            Err(RemoteError::Refused { status: 416, .. }) => return Err(Failure::Changed),
            other => other.map_err(Failure::Remote)?,
        };
        if content.from != self.at {
            return Err(Failure::Changed);
        }
        let whole = content.whole_bytes;
        if whole.is_some_and(|whole| whole.abs_diff(self.length) > APPROVALS_BYTES_MAX) {
            return Err(Failure::Length);
        }
        self.whole = whole;
        let ends = match (whole, until) {
            (Some(whole), Some(until)) => Some(whole.min(until)),
            (whole, until) => whole.or(until),
        };
        Ok(Some(Body {
            bytes: content.body,
            ends,
        }))
    }

    /// Where to stop asking: at the next piece that is here already, or where it becomes known
    /// which are; `None`: at the end.
    fn until(&self) -> Option<u64> {
        if self.shelf.is_empty() {
            return None;
        }
        if self.header.is_none() {
            return Some(self.at + HEAD_BYTES);
        }
        let here = self.pieces.iter().filter(|piece| piece.offset > self.at);
        let here = here.filter(|piece| self.shelf.has(piece));
        let known = self
            .infos
            .iter()
            .filter(|info| (info.bytes.len() as u64) < info.length)
            .map(|info| info.begins + info.length);
        here.map(|piece| piece.offset).chain(known).min()
    }

    /// Takes the descriptions of blobs out of what passes.
    fn collect(&mut self, passing: &[u8]) {
        let Some(header) = &self.header else { return };
        for info in &mut self.infos {
            let due = info.begins + info.bytes.len() as u64;
            let left = info.length - info.bytes.len() as u64;
            if left == 0 || due < self.at || due >= self.at + passing.len() as u64 {
                continue;
            }
            let theirs = &passing[(due - self.at) as usize..];
            info.bytes
                .extend_from_slice(&theirs[..bounded(theirs.len(), left)]);
            if info.bytes.len() as u64 == info.length {
                let chunks = chunks_of(header, info.kind, &info.bytes);
                self.pieces.extend(chunks);
            }
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(|failure| {
            self.failure = Some(failure);
            // Interrupted would be read again.
            std::io::ErrorKind::BrokenPipe.into()
        })
    }
}

fn bounded(length: usize, most: u64) -> usize {
    length.min(usize::try_from(most).unwrap_or(usize::MAX))
}

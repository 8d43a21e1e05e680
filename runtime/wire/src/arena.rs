//! Memory that parent and worker share, for frames too large for the socket.
//!
//! A `memfd` of fixed size, sealed against shrinking and growing, without a page until something is
//! written. Neither side maps it: each copies out of it once and checks its copy, so that what the
//! other side changes meanwhile is a wrong number and never a fault. It holds one frame at a time,
//! request or answer, from the start.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
    },
    io::{Errno, pread, pwrite},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

use crate::frame::FRAME_BYTES_MAX;

/// The size: the largest frame.
pub const ARENA_BYTES: u64 = FRAME_BYTES_MAX as u64;
/// Pages beyond this are given back after use, so that one large batch does not stay.
pub(crate) const ARENA_KEEP_BYTES: u64 = 8 * 1024 * 1024;

/// One side's hold of the memory.
#[derive(Debug)]
pub struct Arena {
    memory: OwnedFd,
}

impl Arena {
    /// Makes one. Fails if the kernel has no `memfd_create`, or no descriptors are left.
    pub fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create(c"bellwether-arena", flags)?;
        ftruncate(&memory, ARENA_BYTES)?;
        fcntl_add_seals(
            &memory,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW,
        )?;
        Ok(Self { memory })
    }

    /// Gives the other end of `socket` a hold of it too, beside one byte.
    pub fn hand_over(&self, socket: &UnixStream) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let memory = [self.memory.as_fd()];
        if !rights.push(SendAncillaryMessage::ScmRights(&memory)) {
            return Err(Errno::NOBUFS.into());
        }
        sendmsg(
            socket,
            &[IoSlice::new(&[0])],
            &mut rights,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Takes what [`Arena::hand_over`] gave, with its byte.
    pub fn receive(socket: impl AsFd) -> io::Result<Self> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        recvmsg(socket, &mut bytes, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
        let memory = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut memory) => memory.next(),
            _ => None,
        });
        memory
            .map(|memory| Self { memory })
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Writes a frame at the start.
    pub fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while !bytes.is_empty() {
            let written = match pwrite(&self.memory, bytes, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            bytes = &bytes[written..];
            at += written as u64;
        }
        Ok(())
    }

    /// Copies the start into `out`, whole.
    pub fn read(&self, mut out: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while !out.is_empty() {
            let read = match pread(&self.memory, &mut *out, at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            out = &mut out[read..];
            at += read as u64;
        }
        Ok(())
    }

    /// Gives back the pages beyond `ARENA_KEEP_BYTES`, of which `used` bytes were written.
    pub fn trim(&self, used: usize) -> io::Result<()> {
        if used as u64 <= ARENA_KEEP_BYTES {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let length = ARENA_BYTES - ARENA_KEEP_BYTES;
        Ok(fallocate(&self.memory, hole, ARENA_KEEP_BYTES, length)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed_over() -> (Arena, Arena) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let arena = Arena::new().unwrap();
        arena.hand_over(&ours).unwrap();
        (arena, Arena::receive(&theirs).unwrap())
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let (ours, theirs) = handed_over();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| i as u8).collect();
        ours.write(&bytes).unwrap();
        let mut out = vec![0; bytes.len()];
        theirs.read(&mut out).unwrap();
        assert_eq!(out, bytes);
    }

    #[test]
    fn no_side_can_shrink_it_under_the_other_or_let_it_grow() {
        let (_ours, theirs) = handed_over();
        assert!(ftruncate(&theirs.memory, 0).is_err());
        assert!(ftruncate(&theirs.memory, ARENA_BYTES + 1).is_err());
        assert!(pwrite(&theirs.memory, &[0], ARENA_BYTES).is_err());
    }

    #[test]
    fn pages_of_a_large_frame_are_given_back() {
        let (ours, theirs) = handed_over();
        let pages = || rustix::fs::fstat(&ours.memory).unwrap().st_blocks * 512;
        let large = vec![1; 2 * ARENA_KEEP_BYTES as usize];
        theirs.write(&large).unwrap();
        assert!(pages() >= large.len() as i64);
        ours.trim(large.len()).unwrap();
        assert!(pages() <= ARENA_KEEP_BYTES as i64);
    }

    #[test]
    fn a_socket_without_an_arena_is_an_error_and_no_wait() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(Arena::receive(&theirs).is_err());
    }
}

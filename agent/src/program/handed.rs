//! What one program hands to the next: the sockets on which applications ask, through a socket on
//! standard input. Whoever connects meanwhile waits in their queue instead of being refused.
//!
//! The same socket carries the sign of life of a program that is watched: a line with how the device
//! is.

use std::io::{IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Sockets at most: the API's two and the page's.
const SOCKETS_MAX: usize = 3;

/// Longest line of a program that is watched, in bytes: what is longer is no line of ours.
const LINE_BYTES_MAX: usize = 4096;

/// Listening sockets.
#[derive(Debug, Default)]
pub struct Handed {
    /// Of the local API.
    pub tcp: Option<TcpListener>,
    /// Of the local API, on a Unix socket.
    pub unix: Option<UnixListener>,
    /// Of the page.
    pub page: Option<TcpListener>,
}

/// Shows whoever watches that this process is alive.
#[derive(Debug)]
pub struct Beat(UnixStream);

impl Beat {
    /// Over the socket on standard input.
    ///
    /// # Errors
    ///
    /// When standard input cannot be used.
    pub fn over_stdin() -> std::io::Result<Self> {
        let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// One sign of life, with how the device is. When nobody reads them, there is nothing to do
    /// about it.
    pub(crate) fn beat(&self, sentence: &str) {
        let line = format!("{}\n", sentence.replace('\n', " "));
        let _ = (&self.0).write(line.as_bytes());
    }
}

/// The lines of a [`Beat`], as whoever watches reads them.
#[derive(Debug, Default)]
pub(super) struct Heard(Vec<u8>);

impl Heard {
    /// The last whole line in what has come so far, if there is a new one.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<String> {
        self.0.extend_from_slice(bytes);
        if let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.0.split_off(end + 1);
            let lines = std::mem::replace(&mut self.0, rest);
            let last = lines[..end].rsplit(|byte| *byte == b'\n').next()?;
            return Some(String::from_utf8_lossy(last).into_owned());
        }
        if self.0.len() > LINE_BYTES_MAX {
            self.0.clear();
        }
        None
    }
}

impl Handed {
    /// Puts copies of them into `socket`.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub(super) fn send(&self, socket: &UnixStream) -> std::io::Result<()> {
        let mut kinds = Vec::new();
        kinds.extend(self.tcp.is_some().then_some(b't'));
        kinds.extend(self.unix.is_some().then_some(b'u'));
        kinds.extend(self.page.is_some().then_some(b'p'));
        let mut sockets: Vec<BorrowedFd<'_>> = Vec::new();
        sockets.extend(self.tcp.iter().map(AsFd::as_fd));
        sockets.extend(self.unix.iter().map(AsFd::as_fd));
        sockets.extend(self.page.iter().map(AsFd::as_fd));
        // A message needs a byte.
        kinds.push(b'.');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() {
            // There is room for `SOCKETS_MAX`.
            let _ = control.push(SendAncillaryMessage::ScmRights(&sockets));
        }
        let iov = [IoSlice::new(&kinds)];
        rustix::net::sendmsg(socket, &iov, &mut control, SendFlags::empty())?;
        Ok(())
    }

    /// Takes them from the socket on standard input, into which they were put before this process
    /// started.
    ///
    /// # Errors
    ///
    /// When standard input is no such socket.
    pub(super) fn from_stdin() -> std::io::Result<Self> {
        Self::receive(std::io::stdin().as_fd())
    }

    fn receive(socket: BorrowedFd<'_>) -> std::io::Result<Self> {
        let mut kinds = [0; SOCKETS_MAX + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut iov = [IoSliceMut::new(&mut kinds)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = rustix::net::recvmsg(socket, &mut iov, &mut control, flags)?;
        let sockets = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        });
        let sockets: Vec<OwnedFd> = sockets.flatten().collect();
        let mut handed = Self::default();
        for (kind, socket) in kinds[..received.bytes].iter().zip(sockets) {
            match kind {
                b't' => handed.tcp = Some(socket.into()),
                b'u' => handed.unix = Some(socket.into()),
                b'p' => handed.page = Some(socket.into()),
                _ => {}
            }
        }
        Ok(handed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_through_a_socket_and_still_listen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let handed = Handed {
            tcp: Some(tcp),
            unix: Some(UnixListener::bind(&path).unwrap()),
            page: None,
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        handed.send(&ours).unwrap();
        // Somebody connects while nobody accepts.
        let waiting = std::net::TcpStream::connect(address).unwrap();
        drop(handed);
        let got = Handed::receive(theirs.as_fd()).unwrap();
        let (_, from) = got.tcp.as_ref().unwrap().accept().unwrap();
        assert_eq!(from, waiting.local_addr().unwrap());
        let _asks = UnixStream::connect(&path).unwrap();
        assert!(got.unix.as_ref().unwrap().accept().is_ok());
        assert!(got.page.is_none());
        Handed::default().send(&ours).unwrap();
        let none = Handed::receive(theirs.as_fd()).unwrap();
        assert!(none.tcp.is_none() && none.unix.is_none() && none.page.is_none());
        assert!(Handed::receive(theirs.as_fd()).is_err(), "nothing was sent");
    }

    #[test]
    fn the_last_whole_line_is_heard_however_it_comes() {
        let mut heard = Heard::default();
        assert_eq!(heard.take(b"Wel"), None);
        assert_eq!(heard.take(b"l.\nNot ser").as_deref(), Some("Well."));
        assert_eq!(heard.take(b"ving a.\nWell.\n").as_deref(), Some("Well."));
        // What an earlier release shows, or nonsense, is a sign of life and no more.
        assert_eq!(heard.take(&[b'.'; LINE_BYTES_MAX]), None);
        assert_eq!(heard.take(&[0xff; 2]), None);
        assert!(heard.0.is_empty(), "what waits for its end is bounded");
    }
}

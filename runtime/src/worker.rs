//! One worker process: started, asked, watched, and reaped.
//!
//! The parent never blocks without a deadline, never holds more of an answer than the contract
//! allows for, and never leaves a process or a descriptor behind: dropping a [`Worker`] kills and
//! reaps it.

mod confinement;
mod death;
mod patience;
mod spawner;

use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio},
};

pub(crate) use confinement::tell;
pub use death::{Death, StartError};

use crate::{
    blob::SealedBlob,
    limits::Limits,
    memory,
    wire::{self, Arena, FrameDecoder, FrameError},
};
use death::LastWords;
use patience::Patience;

/// How long a worker that closed its socket may take to end by itself, so that its exit status
/// tells why, before it is killed.
const ENDING: Duration = Duration::from_millis(500);

/// Bytes read from a worker at a time.
const READ_BYTES: usize = 64 * 1024;

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    socket: UnixStream,
    stderr: ChildStderr,
    words: LastWords,
    decoder: FrameDecoder,
    buffer: Box<[u8]>,
    arena: Arena,
    limits: Limits,
    patience: Patience,
}

impl Worker {
    /// Starts `program` on the sealed model. Nothing has been asked of it yet.
    pub fn start(
        program: &Path,
        blob: &SealedBlob,
        limits: Limits,
        busy_wait: bool,
    ) -> Result<Self, StartError> {
        let failed = |source| StartError {
            program: program.to_owned(),
            source,
        };
        let (socket, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(limits.to_args())
            // Nothing of the parent's surroundings is the worker's business.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(blob.reopen().map_err(failed)?))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::piped());
        let arena = Arena::new().map_err(failed)?;
        let mut child = spawner::spawn(command).map_err(failed)?;
        // A worker that ended at once, as one of another release does, is found dead when it is
        // asked; its last words tell more than this would.
        let _ = arena.hand_over(&socket);
        let stderr = child.stderr.take();
        let mut worker = Self {
            stderr: stderr.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?,
            child,
            socket,
            words: LastWords::default(),
            decoder: FrameDecoder::default(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            arena,
            limits,
            patience: Patience::new(busy_wait),
        };
        worker.set_nonblocking().map_err(failed)?;
        Ok(worker)
    }

    /// Sends one encoded frame and gives the answer, of at most `reply_bytes_max`, to `read`.
    ///
    /// An error is final: the worker has been killed and reaped.
    pub fn exchange<T>(
        &mut self,
        request: &[u8],
        reply_bytes_max: usize,
        deadline: Duration,
        read: impl FnOnce(&[u8]) -> Result<T, FrameError>,
    ) -> Result<T, Death> {
        let until = Instant::now() + deadline;
        self.decoder.clear();
        let talked = self.talk(request, reply_bytes_max, until);
        let used = self
            .decoder
            .frame()
            .map_or(0, <[u8]>::len)
            .max(request.len());
        if let Err(error) = self.arena.trim(used) {
            tracing::warn!(%error, "memory shared with the worker could not be given back");
        }
        let answer = match talked {
            Ok(()) => read(self.decoder.frame().unwrap_or_default()).map_err(Failure::Frame),
            Err(failure) => Err(failure),
        };
        answer.map_err(|failure| self.end(failure, deadline))
    }

    /// The most memory the process has held at once, in bytes, as the kernel counts it; `None`
    /// once it is gone.
    pub fn memory_bytes_peak(&self) -> Option<u64> {
        memory::bytes(self.id(), "VmHWM")
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn set_nonblocking(&mut self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        Ok(ioctl_fionbio(&self.stderr, true)?)
    }

    fn talk(&mut self, request: &[u8], bytes_max: usize, until: Instant) -> Result<(), Failure> {
        let mut length = [0; 4];
        let request = wire::announce(request, &self.arena, &mut length).map_err(Failure::Io)?;
        let asked = Instant::now();
        let mut unsent = self.send(request)?;
        if unsent.is_empty() {
            self.look(asked, bytes_max, until)?;
        }
        while self.decoder.frame().is_none() {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, !unsent.is_empty());
            self.wait(wanted, until)?;
            if !unsent.is_empty() {
                unsent = self.send(unsent)?;
            }
            self.receive(bytes_max)?;
        }
        if unsent.is_empty() {
            self.patience.answered(asked.elapsed());
            Ok(())
        } else {
            // It answered before it had heard the question.
            Err(Failure::Frame(FrameError::Unexpected))
        }
    }

    /// Looks for the answer around the time at which it is expected, rather than to be woken.
    fn look(&mut self, asked: Instant, bytes_max: usize, until: Instant) -> Result<(), Failure> {
        let Some(look) = self.patience.look() else {
            return Ok(());
        };
        let until = until.min(asked + look.until);
        let early = look.from.saturating_sub(asked.elapsed());
        if !early.is_zero() {
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: early.subsec_nanos().into(),
            };
            // Whatever ends the pause, what follows looks at the socket itself.
            let _ = poll(
                &mut [PollFd::new(&self.socket, PollFlags::IN)],
                Some(&timeout),
            );
        }
        while self.decoder.frame().is_none() && Instant::now() < until {
            self.receive(bytes_max)?;
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Waits for the socket; what arrives on standard error meanwhile is kept, so that a worker
    /// that complains at length does not stall.
    fn wait(&mut self, wanted: PollFlags, until: Instant) -> Result<(), Failure> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Late);
            }
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [
                PollFd::new(&self.socket, wanted),
                PollFd::new(&self.stderr, PollFlags::IN),
            ];
            let watched = if self.words.closed { 1 } else { 2 };
            match poll(&mut fds[..watched], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::Io(errno.into())),
            }
            let [socket, stderr] = fds.map(|fd| fd.revents());
            if watched == 2 && !stderr.is_empty() {
                self.words.drain(&mut self.stderr);
            }
            if !socket.is_empty() {
                return Ok(());
            }
        }
    }

    fn send<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Failure> {
        match self.socket.write(bytes) {
            Ok(n) => Ok(&bytes[n..]),
            Err(error) if is_momentary(&error) => Ok(bytes),
            Err(_) => Err(Failure::Closed),
        }
    }

    fn receive(&mut self, bytes_max: usize) -> Result<(), Failure> {
        while self.decoder.frame().is_none() {
            // One request, one answer: whatever lies beyond it breaks the protocol.
            match self.socket.read(&mut self.buffer) {
                Ok(0) => return Err(Failure::Closed),
                Ok(n) => {
                    let bytes = &self.buffer[..n];
                    self.decoder
                        .feed(bytes, bytes_max)
                        .map_err(Failure::Frame)?;
                    self.decoder.fetch(&self.arena).map_err(Failure::Io)?;
                }
                Err(error) if is_momentary(&error) => return Ok(()),
                Err(_) => return Err(Failure::Closed),
            }
        }
        Ok(())
    }

    /// Ends the process after a failure and says what became of it.
    fn end(&mut self, failure: Failure, deadline: Duration) -> Death {
        if matches!(failure, Failure::Closed) {
            self.await_end();
        }
        let ended_itself = self.child.try_wait().ok().flatten();
        let status = match ended_itself {
            Some(status) => Ok(status),
            None => self.kill(),
        };
        self.words.drain(&mut self.stderr);
        let message = self.words.message();
        match (failure, ended_itself, status) {
            (Failure::Late, None, _) => Death::Hung { deadline },
            (Failure::Frame(error), None, _) => Death::Protocol(error),
            (Failure::Io(error), None, _) => Death::Lost(error),
            (_, _, Ok(status)) => Death::of(status, message, self.limits),
            (_, _, Err(error)) => Death::Lost(error),
        }
    }

    /// Standard error closes when the process has ended.
    fn await_end(&mut self) {
        let until = Instant::now() + ENDING;
        while !self.words.closed {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(0),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::from_borrowed_fd(self.stderr.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return,
                Ok(_) => self.words.drain(&mut self.stderr),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
        // The descriptors close just before the status can be collected, and only a process that
        // is ending closes this one without being asked: nothing but the kernel is waited for.
        let _ = self.child.wait();
    }

    fn kill(&mut self) -> io::Result<std::process::ExitStatus> {
        // It may have ended by itself meanwhile; then there is nothing to kill.
        let _ = self.child.kill();
        self.child.wait()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, pid = self.id(), "worker could not be reaped");
        }
    }
}

/// What went wrong on this side, before anyone looked at how the process ended.
#[derive(Debug)]
enum Failure {
    Late,
    Closed,
    Frame(FrameError),
    Io(io::Error),
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The worker program: beside the running executable, else where `BELLWETHER_WORKER` says.
/// `None` if there is neither.
pub fn find_worker() -> Option<PathBuf> {
    const NAME: &str = "bellwether-worker";
    let beside = std::env::current_exe().ok()?.parent()?.join(NAME);
    let named = std::env::var_os("BELLWETHER_WORKER").map(PathBuf::from);
    [Some(beside), named]
        .into_iter()
        .flatten()
        .find(|path| path.is_file())
}

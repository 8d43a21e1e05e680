//! Sources and sinks of `std::io`, with the system's own error kept.

use std::io;

use embedded_io::{ErrorKind, ErrorType};

use crate::manifest::SectionKind;
use crate::read::{BlobSink, Header, IntactPackage, ReadError};

/// Why a package could not be read from a file or a connection.
#[derive(Debug, thiserror::Error)]
pub enum StdReadError {
    /// The package is at fault.
    #[error(transparent)]
    Package(#[from] ReadError),
    /// Disk or network is at fault.
    #[error("the package could not be read")]
    Source(#[source] io::Error),
}

/// A `std::io` reader or writer as an `embedded_io` one. Keeps the last error of the system.
#[derive(Debug)]
pub struct FromStd<T> {
    inner: T,
    failure: Option<io::Error>,
}

impl<T> FromStd<T> {
    /// Wraps it.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            failure: None,
        }
    }

    /// The last error of the system, once.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Unwraps it.
    pub fn into_inner(self) -> T {
        self.inner
    }

    fn note<R>(&mut self, outcome: io::Result<R>) -> Result<R, ErrorKind> {
        outcome.map_err(|error| {
            let kind = kind_of(&error);
            self.failure = Some(error);
            kind
        })
    }
}

impl<T> ErrorType for FromStd<T> {
    type Error = ErrorKind;
}

impl<T: io::Read> embedded_io::Read for FromStd<T> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let outcome = loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.note(outcome)
    }
}

impl<T: io::Write> embedded_io::Write for FromStd<T> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        // All of it: embedded_io takes a zero for our mistake, std for a full target.
        let outcome = self.inner.write_all(bytes);
        self.note(outcome).map(|()| bytes.len())
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        let outcome = self.inner.flush();
        self.note(outcome)
    }
}

/// Writes the blob of one kind, and drops those of others.
#[derive(Debug)]
pub struct BlobWriter<W> {
    target: FromStd<W>,
    kind: SectionKind,
    wanted: bool,
}

impl<W: io::Write> BlobWriter<W> {
    /// Writes the blob of this kind to `target`.
    pub fn new(kind: SectionKind, target: W) -> Self {
        Self {
            target: FromStd::new(target),
            kind,
            wanted: false,
        }
    }

    /// The last error of the system, once.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.target.take_failure()
    }

    /// The target.
    pub fn into_inner(self) -> W {
        self.target.into_inner()
    }
}

impl<W: io::Write> BlobSink for BlobWriter<W> {
    type Error = ErrorKind;

    fn begin(&mut self, kind: SectionKind, _: u64) -> Result<(), ErrorKind> {
        self.wanted = kind == self.kind;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        if self.wanted {
            embedded_io::Write::write_all(&mut self.target, bytes)?;
        }
        Ok(())
    }
}

/// [`read`](crate::read::read) from a `std::io` reader.
///
/// # Errors
///
/// [`StdReadError`].
pub fn read(source: impl io::Read, sink: impl BlobSink) -> Result<IntactPackage, StdReadError> {
    let mut source = FromStd::new(source);
    crate::read::read(&mut source, sink).map_err(|error| with_cause(error, &mut source))
}

/// [`read_header`](crate::read::read_header) from a `std::io` reader, which then stands at the
/// first section.
///
/// # Errors
///
/// [`StdReadError`].
pub fn read_header(source: impl io::Read) -> Result<Header, StdReadError> {
    let mut source = FromStd::new(source);
    crate::read::read_header(&mut source).map_err(|error| with_cause(error, &mut source))
}

/// [`Header::read_sections`] from a `std::io` reader.
///
/// # Errors
///
/// [`StdReadError`].
pub fn read_sections(
    header: Header,
    source: impl io::Read,
    sink: impl BlobSink,
) -> Result<IntactPackage, StdReadError> {
    let mut source = FromStd::new(source);
    header
        .read_sections(&mut source, sink)
        .map_err(|error| with_cause(error, &mut source))
}

fn with_cause<T>(error: ReadError, source: &mut FromStd<T>) -> StdReadError {
    match source.take_failure() {
        Some(failure) if matches!(error, ReadError::Source(_)) => StdReadError::Source(failure),
        _ => StdReadError::Package(error),
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::ConnectionReset => ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted => ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe => ErrorKind::BrokenPipe,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ErrorKind::TimedOut,
        io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
        _ => ErrorKind::Other,
    }
}

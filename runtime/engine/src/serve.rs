//! The worker's side of the conversation: load once, then run after run, until the parent ends it.

use std::{
    fs::File,
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use bellwether_wire::{
    self as wire, Arena, FRAME_BYTES_MAX, FrameDecoder, FrameError, ModelPorts, Refusal, Request,
    Response, Tensor,
    limits::{Confinement, Limits},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    confine::{ConfineError, allow_cpu},
    inspect::MODEL_BYTES_MAX,
    model::Model,
    threads::Threads,
};

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// How long a worker looks for the next request before it sleeps, if the last one came as soon: to be
/// woken on an idle core takes 5 to 70 µs, longer than a small model runs.
const ALERT: Duration = Duration::from_micros(100);

/// Why a worker ends. The parent reads the sentence from standard error.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Socket or model cannot be read or written.
    #[error("reading or writing failed")]
    Io(#[from] io::Error),
    /// What came is no frame: parent and worker are of different releases.
    #[error("the parent's request cannot be read")]
    Frame(#[from] FrameError),
    /// A run before a load, or a second load.
    #[error("the parent asked out of order")]
    Order,
    /// The processor's limit could not be renewed.
    #[error("confinement failed")]
    Confine(#[from] ConfineError),
}

/// Answers requests on `socket` until it closes; large frames lie in `arena`. `model` gives the
/// model's bytes, runs use `threads`, `confinement` is told to the parent, and with a `spare_core`
/// it looks for the next request rather than sleep at once.
pub fn serve(
    mut socket: File,
    arena: &Arena,
    model: impl Read,
    limits: Limits,
    confinement: Confinement,
    threads: &Threads,
    spare_core: bool,
) -> Result<(), ServeError> {
    let mut decoder = FrameDecoder::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut reply = Vec::new();
    let mut source = Some(model);
    let mut loaded = None;
    let mut caller = Caller::default();
    loop {
        caller.await_request(&socket, spare_core);
        if !next_frame(&mut socket, arena, &mut decoder, &mut buffer)? {
            return Ok(());
        }
        caller.asked();
        allow_cpu(limits.cpu_secs)?;
        let (request, body) = wire::decode(decoder.frame().unwrap_or_default())?;
        match request {
            Request::Load {
                inputs,
                outputs,
                states,
                constants,
            } => {
                let onnx = read_model(source.take().ok_or(ServeError::Order)?)?;
                let ports = ModelPorts {
                    inputs,
                    outputs,
                    states,
                    constants: wire::join(constants, body)?,
                };
                let response = match Model::load(onnx, ports) {
                    Ok(model) => {
                        loaded = Some(model);
                        Response::Loaded { confinement }
                    }
                    Err(refusal) => Response::Refused(refusal),
                };
                wire::encode(&response, &[], &mut reply)?;
            }
            Request::Run { fresh, tensors } => {
                let model = loaded.as_mut().ok_or(ServeError::Order)?;
                let tensors = wire::join(tensors, body)?;
                answer(threads.within(|| model.run(&tensors, fresh)), &mut reply)?;
            }
        }
        socket.write_all(wire::announce(&reply, arena, &mut [0; 4])?)?;
        decoder.clear();
        caller.answered();
    }
}

/// How soon whoever asks comes back.
#[derive(Debug, Default)]
struct Caller {
    answered: Option<Instant>,
    at_once: bool,
}

impl Caller {
    /// Looks for the next request for a moment, if the caller came back at once the last time.
    fn await_request(&self, socket: &File, spare_core: bool) {
        let Some(answered) = self.answered.filter(|_| spare_core && self.at_once) else {
            return;
        };
        while answered.elapsed() < ALERT {
            let mut sockets = [PollFd::new(socket, PollFlags::IN)];
            // Whatever else it says, reading finds out.
            if poll(&mut sockets, Some(&Timespec::default())) != Ok(0) {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// A request has come. One that woke this process took up to as long again to get here.
    fn asked(&mut self) {
        let since = self.answered.map(|answered| answered.elapsed());
        self.at_once = since.is_some_and(|since| since < 2 * ALERT);
    }

    fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }
}

fn answer(outputs: Result<Vec<Tensor>, Refusal>, reply: &mut Vec<u8>) -> Result<(), FrameError> {
    match outputs {
        Ok(outputs) => {
            let tensors = wire::heads(&outputs);
            wire::encode(&Response::Ran { tensors }, &outputs, reply)
        }
        Err(refusal) => wire::encode(&Response::Refused(refusal), &[], reply),
    }
}

/// Reads one frame; `false` if the parent has closed the socket.
fn next_frame(
    socket: &mut File,
    arena: &Arena,
    decoder: &mut FrameDecoder,
    buffer: &mut [u8],
) -> Result<bool, ServeError> {
    while decoder.frame().is_none() {
        match socket.read(buffer) {
            Ok(0) if decoder.is_empty() => return Ok(false),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => {
                decoder.feed(&buffer[..n], FRAME_BYTES_MAX)?;
                decoder.fetch(arena)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn read_model(source: impl Read) -> io::Result<Vec<u8>> {
    let mut onnx = Vec::new();
    // One byte more, so that a model beyond the bound is refused and not cut.
    source.take(MODEL_BYTES_MAX + 1).read_to_end(&mut onnx)?;
    Ok(onnx)
}

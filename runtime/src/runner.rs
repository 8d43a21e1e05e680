//! A model in a worker that is replaced when it dies.

use std::time::{Duration, Instant};

use crate::{
    backoff::Backoff,
    blob::SealedBlob,
    error::{OpenError, RunError},
    limits::Limits,
    options::Options,
    ports::Ports,
    wire::{self, FrameError, HEADER_BYTES_MAX, Refusal, Request, Response, Tensor},
    worker::{self, Death, Worker},
};

/// Runs between two looks at the worker's memory: the kernel keeps its peak, a look costs as much
/// as a small run, and only a worker that dies in between takes its last peak along.
const MEMORY_EVERY: u64 = 64;

/// Serves runs; owns the worker, its model and its replacement.
#[derive(Debug)]
pub(crate) struct Runner {
    ports: Ports,
    blob: SealedBlob,
    options: Options,
    worker: Option<Worker>,
    backoff: Backoff,
    request: Vec<u8>,
    memory_bytes_peak: u64,
    runs: u64,
    deaths: u64,
    /// The rows that the worker's states belong to; `None` while they are zero.
    stream: Option<u32>,
}

/// One answer of the model.
pub(crate) struct Answer {
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) latency: Duration,
    /// True if the model's states were zero before it.
    pub(crate) fresh: bool,
}

enum Reply {
    Outputs(Vec<Tensor>),
    Refused(Refusal),
}

impl Runner {
    /// Starts a worker and has it load the model.
    pub(crate) fn open(
        ports: Ports,
        blob: SealedBlob,
        options: Options,
    ) -> Result<Self, OpenError> {
        let mut runner = Self {
            ports,
            blob,
            options,
            worker: None,
            backoff: Backoff::default(),
            request: Vec::new(),
            memory_bytes_peak: 0,
            runs: 0,
            deaths: 0,
            stream: None,
        };
        runner.worker = Some(runner.start()?);
        Ok(runner)
    }

    pub(crate) fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Lets the next run begin with states of zero.
    pub(crate) fn begin_anew(&mut self) {
        self.stream = None;
    }

    /// The rows that the states belong to, which the next run must have too.
    pub(crate) fn stream(&self) -> Option<u32> {
        self.stream
    }

    /// Runs tensors that are in the contract's order and were checked.
    pub(crate) fn run(&mut self, tensors: &[Tensor], batch: u32) -> Result<Answer, RunError> {
        let mut worker = self.ready()?;
        let fresh = self.stream.is_none();
        let header = Request::Run {
            fresh,
            tensors: wire::heads(tensors),
        };
        if let Err(error) = wire::encode(&header, tensors, &mut self.request) {
            self.worker = Some(worker);
            return Err(RunError::Frame(error));
        }
        let reply_bytes_max = self.ports.reply_bytes_max(batch);
        let began = Instant::now();
        let reply = worker.exchange(&self.request, reply_bytes_max, self.options.deadline, read);
        let latency = began.elapsed();
        self.runs = self.runs.wrapping_add(1);
        if self.runs.is_multiple_of(MEMORY_EVERY) {
            self.note_memory(&worker);
        }
        let reply = match reply {
            Ok(reply) => reply,
            Err(death) => {
                self.died(&death);
                return Err(RunError::Died(death));
            }
        };
        self.worker = Some(worker);
        match reply {
            Reply::Refused(refusal) => Err(RunError::Refused(refusal)),
            Reply::Outputs(outputs) => {
                self.ports
                    .check_outputs(&outputs, batch)
                    .map_err(RunError::Output)?;
                self.backoff.succeeded();
                self.stream = self.ports.has_states().then_some(batch);
                Ok(Answer {
                    outputs,
                    latency,
                    fresh,
                })
            }
        }
    }

    /// The most memory that any worker so far has held at once.
    pub(crate) fn memory_bytes_peak(&mut self) -> u64 {
        if let Some(worker) = self.worker.take() {
            self.note_memory(&worker);
            self.worker = Some(worker);
        }
        self.memory_bytes_peak
    }

    pub(crate) fn deaths(&self) -> u64 {
        self.deaths
    }

    pub(crate) fn worker_id(&self) -> Option<u32> {
        self.worker.as_ref().map(Worker::id)
    }

    fn ready(&mut self) -> Result<Worker, RunError> {
        if let Some(worker) = self.worker.take() {
            return Ok(worker);
        }
        if let Some(retry_after) = self.backoff.wait(Instant::now()) {
            return Err(RunError::Recovering {
                retry_after,
                deaths: self.backoff.deaths(),
            });
        }
        self.start().map_err(|error| {
            self.backoff.died(Instant::now());
            RunError::Replace(Box::new(error))
        })
    }

    fn start(&mut self) -> Result<Worker, OpenError> {
        let limits = Limits {
            memory_bytes: self.options.memory_bytes_max,
            cpu_secs: self.options.cpu_secs(),
        };
        let mut worker = Worker::start(&self.options.worker, &self.blob, limits)?;
        let model = &self.ports.model;
        wire::encode(&Request::load(model), &model.constants, &mut self.request)
            .map_err(OpenError::Frame)?;
        let loaded = worker.exchange(
            &self.request,
            HEADER_BYTES_MAX,
            self.options.load_deadline,
            |frame| match wire::decode(frame)? {
                (Response::Loaded { confinement }, []) => Ok(Ok(confinement)),
                (Response::Refused(refusal), []) => Ok(Err(refusal)),
                _ => Err(FrameError::Unexpected),
            },
        );
        self.note_memory(&worker);
        match loaded {
            Ok(Ok(confinement)) => {
                worker::tell(confinement);
                Ok(worker)
            }
            Ok(Err(refusal)) => Err(OpenError::Refused(refusal)),
            Err(death) => Err(OpenError::Died(death)),
        }
    }

    fn died(&mut self, death: &Death) {
        self.deaths += 1;
        self.stream = None;
        self.backoff.died(Instant::now());
        tracing::warn!(kind = death.kind(), %death, "worker died");
    }

    fn note_memory(&mut self, worker: &Worker) {
        let peak = worker.memory_bytes_peak().unwrap_or(0);
        self.memory_bytes_peak = self.memory_bytes_peak.max(peak);
    }
}

fn read(frame: &[u8]) -> Result<Reply, FrameError> {
    match wire::decode(frame)? {
        (Response::Ran { tensors }, body) => Ok(Reply::Outputs(wire::join(tensors, body)?)),
        (Response::Refused(refusal), []) => Ok(Reply::Refused(refusal)),
        _ => Err(FrameError::Unexpected),
    }
}

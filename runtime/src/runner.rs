//! A model on a host that is replaced when it dies.

use std::time::{Duration, Instant};

use crate::{
    backoff::Backoff,
    blob::SealedBlob,
    error::{OpenError, RunError},
    host::{Failure, Host, Reply},
    options::Options,
    ports::Ports,
    wire::Tensor,
    worker::Death,
};

/// Runs between two looks at the host's memory: the kernel keeps its peak, a look costs as much
/// as a small run, and only a host that dies in between takes its last peak along.
const MEMORY_EVERY: u64 = 64;

/// Serves runs; owns the host, its model and its replacement.
#[derive(Debug)]
pub(crate) struct Runner {
    ports: Ports,
    blob: SealedBlob,
    options: Options,
    host: Option<Host>,
    backoff: Backoff,
    memory_bytes_peak: u64,
    runs: u64,
    deaths: u64,
    /// The rows that the host's states belong to; `None` while they are zero.
    stream: Option<u32>,
}

/// One answer of the model.
pub(crate) struct Answer {
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) latency: Duration,
    /// True if the model's states were zero before it.
    pub(crate) fresh: bool,
}

impl Runner {
    /// Starts a host and has it load the model.
    pub(crate) fn open(
        ports: Ports,
        blob: SealedBlob,
        options: Options,
    ) -> Result<Self, OpenError> {
        let mut runner = Self {
            ports,
            blob,
            options,
            host: None,
            backoff: Backoff::default(),
            memory_bytes_peak: 0,
            runs: 0,
            deaths: 0,
            stream: None,
        };
        runner.host = Some(runner.start()?);
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
        let mut host = self.ready()?;
        let fresh = self.stream.is_none();
        let reply_bytes_max = self.ports.reply_bytes_max(batch);
        let began = Instant::now();
        let reply = host.run(tensors, fresh, reply_bytes_max);
        let latency = began.elapsed();
        self.runs = self.runs.wrapping_add(1);
        if self.runs.is_multiple_of(MEMORY_EVERY) {
            self.note_memory(&host);
        }
        let reply = match reply {
            Ok(reply) => reply,
            Err(Failure::Frame(error)) => {
                self.host = Some(host);
                return Err(RunError::Frame(error));
            }
            Err(Failure::Died(death)) => {
                self.died(&death);
                return Err(RunError::Died(death));
            }
        };
        self.host = Some(host);
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

    /// The most memory that any host so far has held at once.
    pub(crate) fn memory_bytes_peak(&mut self) -> u64 {
        if let Some(host) = self.host.take() {
            self.note_memory(&host);
            self.host = Some(host);
        }
        self.memory_bytes_peak
    }

    /// The same, as far as it was looked at.
    pub(crate) fn memory_bytes_peak_seen(&self) -> u64 {
        self.memory_bytes_peak
    }

    pub(crate) fn deaths(&self) -> u64 {
        self.deaths
    }

    pub(crate) fn worker_id(&self) -> Option<u32> {
        self.host.as_ref().and_then(Host::worker_id)
    }

    fn ready(&mut self) -> Result<Host, RunError> {
        if let Some(host) = self.host.take() {
            return Ok(host);
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

    fn start(&mut self) -> Result<Host, OpenError> {
        let host = Host::start(&self.ports, &self.blob, &self.options)?;
        self.note_memory(&host);
        Ok(host)
    }

    fn died(&mut self, death: &Death) {
        self.deaths += 1;
        self.stream = None;
        self.backoff.died(Instant::now());
        tracing::warn!(kind = death.kind(), %death, "worker died");
    }

    fn note_memory(&mut self, host: &Host) {
        self.memory_bytes_peak = self.memory_bytes_peak.max(host.memory_bytes_peak());
    }
}

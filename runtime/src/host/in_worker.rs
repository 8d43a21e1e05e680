//! A model in a worker: each run is a frame there and a frame back.

use std::{path::Path, time::Duration};

use super::{Failure, Reply};
use crate::{
    blob::SealedBlob,
    error::OpenError,
    limits::Limits,
    options::Options,
    ports::Ports,
    wire::{self, FrameError, HEADER_BYTES_MAX, Request, Response, Tensor},
    worker::{self, Worker},
};

/// A worker that has loaded its model.
#[derive(Debug)]
pub(crate) struct InWorker {
    worker: Worker,
    deadline: Duration,
    request: Vec<u8>,
}

impl InWorker {
    pub(super) fn start(
        program: &Path,
        ports: &Ports,
        blob: &SealedBlob,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let limits = Limits {
            memory_bytes: options.memory_bytes_max,
            cpu_secs: options.cpu_secs(),
            threads: options.threads,
        };
        let mut worker = Worker::start(program, blob, limits, options.busy_wait)?;
        let model = &ports.model;
        let mut request = Vec::new();
        wire::encode(&Request::load(model), &model.constants, &mut request)
            .map_err(OpenError::Frame)?;
        let loaded = worker.exchange(&request, HEADER_BYTES_MAX, options.load_deadline, |frame| {
            match wire::decode(frame)? {
                (Response::Loaded { confinement }, []) => Ok(Ok(confinement)),
                (Response::Refused(refusal), []) => Ok(Err(refusal)),
                _ => Err(FrameError::Unexpected),
            }
        });
        let confinement = loaded
            .map_err(OpenError::Died)?
            .map_err(OpenError::Refused)?;
        worker::tell(confinement);
        Ok(Self {
            worker,
            deadline: options.deadline,
            request,
        })
    }

    pub(super) fn run(
        &mut self,
        tensors: &[Tensor],
        fresh: bool,
        reply_bytes_max: usize,
    ) -> Result<Reply, Failure> {
        let header = Request::Run {
            fresh,
            tensors: wire::heads(tensors),
        };
        wire::encode(&header, tensors, &mut self.request).map_err(Failure::Frame)?;
        self.worker
            .exchange(&self.request, reply_bytes_max, self.deadline, read)
            .map_err(Failure::Died)
    }

    /// 0 once the process is gone.
    pub(super) fn memory_bytes_peak(&self) -> u64 {
        self.worker.memory_bytes_peak().unwrap_or(0)
    }

    pub(super) fn id(&self) -> u32 {
        self.worker.id()
    }
}

fn read(frame: &[u8]) -> Result<Reply, FrameError> {
    match wire::decode(frame)? {
        (Response::Ran { tensors }, body) => Ok(Reply::Outputs(wire::join(tensors, body)?)),
        (Response::Refused(refusal), []) => Ok(Reply::Refused(refusal)),
        _ => Err(FrameError::Unexpected),
    }
}

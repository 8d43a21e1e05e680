//! A model in this process.

use std::io::Read;

use bellwether_engine::{caught, model::Model, threads::Threads};

use super::{Failure, Reply};
use crate::{
    blob::SealedBlob, error::OpenError, memory, options::Options, ports::Ports, wire::Tensor,
    worker::Death,
};

/// A model, and the memory that was there before it.
#[derive(Debug)]
pub(crate) struct InProcess {
    model: Model,
    threads: Threads,
    memory_bytes_before: u64,
}

impl InProcess {
    pub(super) fn start(
        ports: &Ports,
        blob: &SealedBlob,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let memory_bytes_before = own_memory_bytes("VmRSS");
        let threads = Threads::start(options.threads).map_err(OpenError::Threads)?;
        let mut onnx = Vec::new();
        blob.reopen()
            .and_then(|mut file| file.read_to_end(&mut onnx))
            .map_err(OpenError::Blob)?;
        let model = survived(|| Model::load(onnx, ports.model.clone()))
            .map_err(OpenError::Died)?
            .map_err(OpenError::Refused)?;
        Ok(Self {
            model,
            threads,
            memory_bytes_before,
        })
    }

    pub(super) fn run(&mut self, tensors: &[Tensor], fresh: bool) -> Result<Reply, Failure> {
        let Self { model, threads, .. } = self;
        let outputs = survived(|| threads.within(|| model.run(tensors, fresh)));
        Ok(match outputs.map_err(Failure::Died)? {
            Ok(outputs) => Reply::Outputs(outputs),
            Err(refusal) => Reply::Refused(refusal),
        })
    }

    /// What this process has grown by at its largest, whatever else it does: an upper bound.
    pub(super) fn memory_bytes_peak(&self) -> u64 {
        own_memory_bytes("VmHWM").saturating_sub(self.memory_bytes_before)
    }
}

/// What a panic ends in a worker, it ends here.
fn survived<T>(work: impl FnOnce() -> T) -> Result<T, Death> {
    caught(work).map_err(|message| Death::Panicked { message })
}

fn own_memory_bytes(figure: &str) -> u64 {
    memory::bytes(std::process::id(), figure).unwrap_or(0)
}

//! A model in this process.

use std::{fs, io::Read};

use bellwether_engine::{caught, model::Model, threads::Threads};

use super::{Failure, Reply};
use crate::{
    blob::SealedBlob, error::OpenError, options::Options, ports::Ports, wire::Tensor, worker::Death,
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
        let memory_bytes_before = memory_bytes("VmRSS:");
        let threads = Threads::start(options.threads).map_err(OpenError::Threads)?;
        let mut onnx = Vec::new();
        blob.reopen()
            .and_then(|mut file| file.read_to_end(&mut onnx))
            .map_err(OpenError::Blob)?;
        let model = caught(|| Model::load(onnx, ports.model.clone()))
            .map_err(|message| OpenError::Died(Death::Panicked { message }))?
            .map_err(OpenError::Refused)?;
        Ok(Self {
            model,
            threads,
            memory_bytes_before,
        })
    }

    pub(super) fn run(&mut self, tensors: &[Tensor], fresh: bool) -> Result<Reply, Failure> {
        let Self { model, threads, .. } = self;
        let outputs = caught(|| threads.within(|| model.run(tensors, fresh)));
        Ok(
            match outputs.map_err(|message| Failure::Died(Death::Panicked { message }))? {
                Ok(outputs) => Reply::Outputs(outputs),
                Err(refusal) => Reply::Refused(refusal),
            },
        )
    }

    /// What this process has grown by at its largest, whatever else it does: an upper bound.
    pub(super) fn memory_bytes_peak(&self) -> u64 {
        memory_bytes("VmHWM:").saturating_sub(self.memory_bytes_before)
    }
}

/// A line of `/proc/self/status`, in bytes; 0 where there is none.
fn memory_bytes(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|l| l.strip_prefix(line));
    let kib = found.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

//! Where a model runs, behind one face: in a worker, or in this process.

mod in_worker;

#[cfg(feature = "engine")]
mod in_process;

use crate::{
    blob::SealedBlob,
    error::OpenError,
    options::{self, Options},
    ports::Ports,
    wire::{FrameError, Refusal, Tensor},
    worker::Death,
};
#[cfg(feature = "engine")]
use in_process::InProcess;
use in_worker::InWorker;

/// A model that is loaded.
#[derive(Debug)]
pub(crate) enum Host {
    Worker(Box<InWorker>),
    #[cfg(feature = "engine")]
    InProcess(Box<InProcess>),
}

/// What a host says to a run.
pub(crate) enum Reply {
    Outputs(Vec<Tensor>),
    Refused(Refusal),
}

/// Why a host gave no reply.
pub(crate) enum Failure {
    /// The inputs do not fit a frame; the host lives on.
    Frame(FrameError),
    /// The host is no more.
    Died(Death),
}

impl Host {
    /// Has the model loaded where the options say.
    pub(crate) fn start(
        ports: &Ports,
        blob: &SealedBlob,
        options: &Options,
    ) -> Result<Self, OpenError> {
        Ok(match &options.host {
            options::Host::Worker(program) => {
                Self::Worker(Box::new(InWorker::start(program, ports, blob, options)?))
            }
            #[cfg(feature = "engine")]
            options::Host::InProcess => {
                Self::InProcess(Box::new(InProcess::start(ports, blob, options)?))
            }
        })
    }

    /// Runs tensors that are in the contract's order and were checked. After a death the host is
    /// of no more use.
    pub(crate) fn run(
        &mut self,
        tensors: &[Tensor],
        fresh: bool,
        reply_bytes_max: usize,
    ) -> Result<Reply, Failure> {
        match self {
            Self::Worker(host) => host.run(tensors, fresh, reply_bytes_max),
            #[cfg(feature = "engine")]
            Self::InProcess(host) => host.run(tensors, fresh),
        }
    }

    /// The most memory it has held at once, in bytes.
    pub(crate) fn memory_bytes_peak(&self) -> u64 {
        match self {
            Self::Worker(host) => host.memory_bytes_peak(),
            #[cfg(feature = "engine")]
            Self::InProcess(host) => host.memory_bytes_peak(),
        }
    }

    /// The worker's process id, if there is one.
    pub(crate) fn worker_id(&self) -> Option<u32> {
        match self {
            Self::Worker(host) => Some(host.id()),
            #[cfg(feature = "engine")]
            Self::InProcess(_) => None,
        }
    }
}

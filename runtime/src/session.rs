//! The session: what an application, or the agent in its name, calls.

use std::time::Duration;

use bellwether_package::{
    VerifiedPackage,
    sections::{Baseline, Port},
};

use crate::{
    blob::SealedBlob,
    error::{InputError, OpenError, RunError},
    options::Options,
    ports::Ports,
    runner::Runner,
    subject::Subject,
    window::{self, Window},
    wire::Tensor,
};

/// One approved package, serving.
///
/// It blocks while it runs; hold it in a thread or behind a mutex.
#[derive(Debug)]
pub struct Session {
    package: VerifiedPackage,
    runner: Runner,
    window: Window,
    also: Option<Baseline>,
    statistics: bool,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub struct Run {
    /// The outputs, in the contract's order.
    pub outputs: Vec<Tensor>,
    /// From the moment the inputs were checked to the last byte of the answer.
    pub latency: Duration,
    /// Output elements that are NaN or infinite: never an answer to act on.
    pub outputs_nonfinite: u64,
    /// True if the contract's states were zero before this run: the first one, the first after
    /// [`Session::begin_anew`], and the first of a worker that replaced another.
    pub fresh: bool,
}

impl Run {
    /// The output of the contract's port `name`; `None` if the contract has no such output.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|tensor| tensor.name == name)
    }
}

impl Session {
    /// Starts a worker, or the engine in this process, on the package's ONNX model.
    ///
    /// `blob` holds the model's bytes, as [`BlobSealer`](crate::BlobSealer) sealed them while the
    /// package was read; other bytes than the manifest's are refused.
    pub fn open(
        package: VerifiedPackage,
        blob: SealedBlob,
        options: Options,
    ) -> Result<Self, OpenError> {
        let subject = Subject::of_verified(&package);
        subject.check_blob(&blob)?;
        let ports = Ports::of(subject.contract)?;
        let window = Window::new(subject.baseline, None);
        let statistics = options.statistics;
        Ok(Self {
            runner: Runner::open(ports, blob, options)?,
            package,
            window,
            also: None,
            statistics,
        })
    }

    /// Runs once. `inputs` name the contract's ports, in any order, and hold raw readings: the
    /// feature steps are taken here.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Run, RunError> {
        let deaths = self.runner.deaths();
        let result = self.checked_run(inputs, true);
        self.window.deaths += self.runner.deaths() - deaths;
        match &result {
            Ok(run) => {
                self.window.runs += 1;
                self.window.outputs_nonfinite += run.outputs_nonfinite;
                let latency_us = u32::try_from(run.latency.as_micros()).unwrap_or(u32::MAX);
                self.window.latency.record(latency_us);
            }
            Err(error) if error.is_input_fault() => self.window.refused += 1,
            Err(_) => self.window.failed += 1,
        }
        result
    }

    /// Runs once and counts nothing of it: for a release that runs beside another on the same
    /// inputs and answers nobody.
    pub fn run_uncounted(&mut self, inputs: &[Tensor]) -> Result<Run, RunError> {
        self.checked_run(inputs, false)
    }

    /// Forgets what earlier runs left: the contract's states are zero at the next run, which may
    /// have another number of rows. For a new stream of readings. Without states it does nothing.
    pub fn begin_anew(&mut self) {
        self.runner.begin_anew();
    }

    /// The counts since the last [`Session::take_window`].
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Takes the counts and starts new ones.
    pub fn take_window(&mut self) -> Window {
        let next = Window::new(self.baseline(), self.also.as_ref());
        let mut taken = std::mem::replace(&mut self.window, next);
        taken.memory_bytes_peak = self.runner.memory_bytes_peak();
        taken
    }

    /// Counts raw inputs by a second baseline too, that of the release this one replaces: only so
    /// can a device that runs the new release be compared with one that runs the old. `None` ends
    /// it. Counting starts anew with this call.
    ///
    /// The baseline must have a field for each input field of this contract.
    pub fn also_count(&mut self, baseline: Option<&Baseline>) -> Result<(), AlsoCountError> {
        let expected = self.baseline().inputs.len();
        if let Some(found) = baseline.map(|b| b.inputs.len()).filter(|n| *n != expected) {
            return Err(AlsoCountError { found, expected });
        }
        self.window.inputs_also = baseline.map(|baseline| window::empty(&baseline.inputs));
        self.also = baseline.cloned();
        Ok(())
    }

    /// The most memory that the worker was seen to hold at once, in bytes. It is looked at when the
    /// model is loaded and now and then between runs.
    pub fn memory_bytes_peak(&self) -> u64 {
        self.runner.memory_bytes_peak_seen()
    }

    /// The package that serves.
    pub fn package(&self) -> &VerifiedPackage {
        &self.package
    }

    /// The worker's process id; `None` while it is being replaced.
    pub fn worker_id(&self) -> Option<u32> {
        self.runner.worker_id()
    }

    fn baseline(&self) -> &Baseline {
        Subject::of_verified(&self.package).baseline
    }

    fn checked_run(&mut self, inputs: &[Tensor], counted: bool) -> Result<Run, RunError> {
        let statistics = self.statistics && counted;
        let ports = self.runner.ports();
        let (ordered, batch) = ports.order(inputs).map_err(RunError::Input)?;
        if let Some(expected) = self.runner.stream().filter(|rows| *rows != batch) {
            let found = batch;
            return Err(RunError::Input(InputError::Stream { found, expected }));
        }
        if statistics {
            self.count_inputs(&ordered);
        }
        let fed = feed(self.runner.ports(), &ordered)?;
        let answer = self.runner.run(&fed, batch)?;
        if counted {
            self.window.rows += u64::from(batch);
        }
        if statistics {
            self.count_outputs(&answer.outputs);
        }
        Ok(Run {
            outputs_nonfinite: window::nonfinite(&answer.outputs),
            outputs: answer.outputs,
            latency: answer.latency,
            fresh: answer.fresh,
        })
    }

    fn count_inputs(&mut self, tensors: &[&Tensor]) {
        let baseline = &Subject::of_verified(&self.package).baseline.inputs;
        let ports = &self.runner.ports().inputs;
        let pairs = || {
            let ports = ports.iter().map(|input| &input.port);
            ports.zip(tensors.iter().copied())
        };
        self.window.uncounted += window::observe(pairs(), baseline, &mut self.window.inputs);
        if let (Some(also), Some(counts)) = (&self.also, &mut self.window.inputs_also) {
            self.window.uncounted += window::observe(pairs(), &also.inputs, counts);
        }
    }

    fn count_outputs(&mut self, tensors: &[Tensor]) {
        let baseline = &Subject::of_verified(&self.package).baseline.outputs;
        let ports: &[Port] = &self.runner.ports().outputs;
        let pairs = ports.iter().zip(tensors);
        self.window.uncounted += window::observe(pairs, baseline, &mut self.window.outputs);
    }
}

/// Checks raw values and takes them through the steps.
pub(crate) fn feed(ports: &Ports, ordered: &[&Tensor]) -> Result<Vec<Tensor>, RunError> {
    let pairs = || ports.inputs.iter().zip(ordered);
    pairs()
        .try_for_each(|(input, tensor)| input.check_values(tensor))
        .map_err(|error: InputError| RunError::Input(error))?;
    pairs()
        .map(|(input, tensor)| input.stepped(tensor))
        .collect()
}

/// The second baseline is of another contract. The operator is at fault: such releases cannot be
/// compared field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other baseline has {found} input fields, this contract {expected}")]
pub struct AlsoCountError {
    /// Of the other baseline.
    pub found: usize,
    /// Of this contract.
    pub expected: usize,
}

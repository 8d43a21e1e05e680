//! Which session answers in which slot, and what its requests have shown.
//!
//! A slot's session is swapped whole: requests under way end on the session they began on, new
//! ones go to the next, and none is refused in between.

mod slots;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_drift::Counts;
use bellwether_package::sections::{Activation, Contract, Port};
use bellwether_package::{Attribute, PackageId, SlotName, UnixSecs};
use bellwether_protocol::{
    ErrorCounts, Fields, Latency, ProofFailure, Refusal, Window, WorkerDeath,
};
use bellwether_rollout::device::Traffic;
use bellwether_runtime::{
    Death, LatencyHistogram, Options, ProveError, RunError, Session, Shortfall, Tensor,
};
use tokio::sync::Notify;

use crate::causes::with_causes;
use crate::clock;
use crate::config::Config;
use crate::fetch;
use crate::trust::Trust;

/// Deaths that wait to be told; the machine takes a release back at far fewer.
const DEATHS_WAITING_MAX: usize = 16;
/// How long loading may take at least: a small board optimises slowly.
const LOAD_DEADLINE: Duration = Duration::from_secs(60);

pub use slots::{Answering, Silence, Slots};

/// A release that answers, and its counts.
#[derive(Debug)]
pub struct Serving {
    release: PackageId,
    model: String,
    version: String,
    contract: Contract,
    activation: Option<Activation>,
    attributes: Vec<Attribute>,
    also_baseline: Option<PackageId>,
    inner: Mutex<Inner>,
    watched: Mutex<Watched>,
    poke: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    session: Session,
    since: UnixSecs,
    rows: u32,
    rows_nonfinite: u32,
    errors: ErrorCounts,
}

/// What the machine has not been told yet, and latency since the release began to answer.
#[derive(Debug, Default)]
struct Watched {
    traffic: Traffic,
    deaths: Vec<WorkerDeath>,
    latency: LatencyHistogram,
}

/// Why a session cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The package is at fault; it will not work later either.
    Refused(Refusal),
    /// The worker died over loading the model; too often, and the release gives way.
    Died(WorkerDeath),
    /// The device is at fault; it may work later.
    Device(String),
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum AskError {
    /// The application's tensors do not fit the contract.
    Input(String),
    /// The release failed.
    Model(String),
    /// Its worker is being replaced.
    Unavailable(String),
}

impl Serving {
    /// Opens a session on a package that is on disk and was verified when it was installed.
    /// Blocking.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says whether trying again may help.
    pub fn open(
        folder: &Path,
        release: PackageId,
        also_baseline: Option<PackageId>,
        slot: &SlotName,
        trust: &Trust,
        config: &Config,
        poke: Arc<Notify>,
    ) -> Result<Self, OpenError> {
        let path = fetch::path(folder, release);
        let (package, blob) = trust
            .verify_installed(&path, release, slot, &config.attributes())
            .map_err(OpenError::Refused)?;
        let manifest = package.manifest();
        let (model, version) = (manifest.model.to_string(), manifest.version.to_string());
        let contract = package.package().contract().clone();
        let activation = package.package().activation().cloned();
        let mut session = Session::open(package, blob, options(config)).map_err(open_error)?;
        if let Some(also) = also_baseline.filter(|also| *also != release) {
            count_also(&mut session, &fetch::path(folder, also), also);
        }
        Ok(Self {
            release,
            model,
            version,
            contract,
            activation,
            attributes: config.attributes(),
            also_baseline,
            inner: Mutex::new(Inner {
                session,
                since: clock::now(),
                rows: 0,
                rows_nonfinite: 0,
                errors: ErrorCounts::default(),
            }),
            watched: Mutex::default(),
            poke,
        })
    }

    /// The release.
    pub fn release(&self) -> PackageId {
        self.release
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The model's version.
    pub fn version(&self) -> String {
        self.version.clone()
    }

    /// What it takes and gives.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Runs once. Blocking; one request at a time.
    ///
    /// # Errors
    ///
    /// [`AskError`], with a sentence for the application.
    pub fn ask(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, AskError> {
        let allowed =
            |activation: &Activation| activation.allows(&self.attributes, Some(clock::now()));
        if !self.activation.as_ref().is_none_or(allowed) {
            let why = "the release's activation policy does not allow it here and now";
            return Err(AskError::Unavailable(why.into()));
        }
        let rows = inputs
            .first()
            .and_then(|input| input.shape.first().copied())
            .unwrap_or(1);
        let result = {
            let mut inner = self.inner();
            let result = inner.session.run(inputs);
            inner.count(rows, &result);
            result
        };
        self.watch(rows, &result);
        result.map(|run| run.outputs).map_err(|error| {
            let text = with_causes(&error);
            match error {
                error if error.is_input_fault() => AskError::Input(text),
                RunError::Recovering { .. } | RunError::Replace(_) => AskError::Unavailable(text),
                _ => AskError::Model(text),
            }
        })
    }

    /// What requests have shown since the last call.
    pub fn take_watched(&self) -> (Traffic, Vec<WorkerDeath>) {
        let mut watched = self.watched();
        let mut traffic = std::mem::take(&mut watched.traffic);
        traffic.latency_us_p99 = watched.latency.p99_us();
        (traffic, std::mem::take(&mut watched.deaths))
    }

    /// The counts since the last call as windows to report: one under the release's own baseline,
    /// and one of the inputs under the other baseline if there is one. None if nothing was asked.
    /// Blocking: waits for the request under way.
    pub fn take_windows(&self, slot: &SlotName, now: UnixSecs) -> Vec<Window> {
        let mut inner = self.inner();
        if inner.rows == 0 {
            inner.since = now;
            return Vec::new();
        }
        let counts = inner.session.take_window();
        let latency = &counts.latency;
        let window = |baseline, inputs: &[Counts], outputs: &[Counts]| {
            Some(Window {
                slot: slot.clone(),
                release: self.release,
                baseline,
                started_at: inner.since,
                secs: u32::try_from(now.secs_since(inner.since)).unwrap_or(u32::MAX),
                rows: inner.rows,
                inputs: exported(&self.contract.inputs, inputs)?,
                outputs: exported(&self.contract.outputs, outputs)?,
                errors: inner.errors,
                rows_nonfinite: inner.rows_nonfinite,
                latency: latency.p99_us().map(|us_p99| Latency {
                    answers: u32::try_from(latency.count()).unwrap_or(u32::MAX),
                    us_p50: latency.quantile_us(500_000).unwrap_or(0),
                    us_p99,
                    us_max: latency.max_us(),
                }),
            })
        };
        let own = window(self.release, &counts.inputs, &counts.outputs);
        let also = self.also_baseline.zip(counts.inputs_also.as_ref());
        let also = also.and_then(|(also, inputs)| {
            let window = window(also, inputs, &[])?;
            Some(Window {
                outputs: Fields::new(),
                ..window
            })
        });
        inner.since = now;
        inner.rows = 0;
        inner.rows_nonfinite = 0;
        inner.errors = ErrorCounts::default();
        own.into_iter().chain(also).collect()
    }

    fn watch(&self, rows: u32, result: &Result<bellwether_runtime::Run, RunError>) {
        let mut watched = self.watched();
        let traffic = &mut watched.traffic;
        traffic.rows = traffic.rows.saturating_add(rows);
        let mut urgent = false;
        match result {
            Ok(run) => {
                let bad = rows_nonfinite(&run.outputs, rows);
                traffic.rows_nonfinite = traffic.rows_nonfinite.saturating_add(bad);
                urgent = bad > 0;
                let us = u32::try_from(run.latency.as_micros()).unwrap_or(u32::MAX);
                watched.latency.record(us);
            }
            Err(error) if error.is_input_fault() => {}
            Err(error) => {
                traffic.rows_failed = traffic.rows_failed.saturating_add(rows);
                urgent = true;
                if let RunError::Died(death) = error
                    && watched.deaths.len() < DEATHS_WAITING_MAX
                {
                    watched.deaths.push(worker_death(death));
                }
            }
        }
        drop(watched);
        if urgent {
            self.poke.notify_one();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count(&mut self, rows: u32, result: &Result<bellwether_runtime::Run, RunError>) {
        self.rows = self.rows.saturating_add(rows);
        let kind = match result {
            Ok(run) => {
                let bad = rows_nonfinite(&run.outputs, rows);
                self.rows_nonfinite = self.rows_nonfinite.saturating_add(bad);
                return;
            }
            Err(error) if error.is_input_fault() => &mut self.errors.input_refused,
            Err(RunError::Died(Death::Hung { .. } | Death::CpuExhausted { .. })) => {
                &mut self.errors.deadline
            }
            Err(RunError::Died(_) | RunError::Recovering { .. } | RunError::Replace(_)) => {
                &mut self.errors.worker_died
            }
            Err(RunError::Step(_) | RunError::Refused(_) | RunError::Output(_)) => {
                &mut self.errors.model
            }
            Err(_) => &mut self.errors.other,
        };
        *kind = kind.saturating_add(rows);
    }
}

/// Runs the golden vectors of a package that was checked. Blocking.
///
/// # Errors
///
/// Where it falls short.
pub fn prove(
    path: &Path,
    release: PackageId,
    slot: &SlotName,
    trust: &Trust,
    config: &Config,
) -> Result<(), ProofFailure> {
    let verified = trust.verify_new(path, release, slot, &config.attributes(), clock::now());
    let (package, blob) = verified.map_err(|why| {
        tracing::warn!(release = %release.short(), %why, "refused before its proof");
        ProofFailure::Other
    })?;
    let proof = bellwether_runtime::prove(&package, blob, options(config)).map_err(|error| {
        tracing::warn!(release = %release.short(), error = %with_causes(&error), "no proof");
        unproved(&error)
    })?;
    match proof.shortfalls().into_iter().next() {
        None => Ok(()),
        Some(Shortfall::Mismatch { worst, .. }) => {
            let case = u32::try_from(worst.case).unwrap_or(u32::MAX);
            if !worst.got.is_finite() && worst.expected.is_finite() {
                return Err(ProofFailure::Nonfinite { case });
            }
            let difference = (worst.got - worst.expected).abs() as f32;
            let tolerance = worst.tolerance as f32;
            Err(ProofFailure::GoldenMismatch {
                case,
                difference,
                tolerance,
            })
        }
        Some(Shortfall::Latency { found, budget }) => Err(ProofFailure::Latency {
            us_p99: found,
            us_p99_max: budget,
        }),
        Some(Shortfall::Memory { found, budget }) => Err(ProofFailure::Memory {
            bytes: found,
            bytes_max: budget,
        }),
    }
}

fn unproved(error: &ProveError) -> ProofFailure {
    use bellwether_runtime::OpenError as Open;
    match error {
        ProveError::Open(Open::Died(death))
        | ProveError::Run {
            source: RunError::Died(death),
            ..
        } => ProofFailure::WorkerDied(worker_death(death)),
        ProveError::Open(Open::Start(_) | Open::Blob(_)) => ProofFailure::Other,
        _ => ProofFailure::Unsupported,
    }
}

fn open_error(error: bellwether_runtime::OpenError) -> OpenError {
    use bellwether_runtime::OpenError as Open;
    match error {
        Open::NoOnnx => OpenError::Refused(Refusal::NoVariant),
        Open::OtherModel { .. } => OpenError::Refused(Refusal::Damaged),
        Open::Died(death) => OpenError::Died(worker_death(&death)),
        Open::Start(_) | Open::Blob(_) => OpenError::Device(with_causes(&error)),
        _ => OpenError::Refused(Refusal::ContractUnfit),
    }
}

/// Counts inputs under another release's baseline as well, if that package is still here.
fn count_also(session: &mut Session, path: &Path, also: PackageId) {
    let counted = match crate::trust::read_intact(path, also) {
        Ok((other, _)) => session
            .also_count(Some(other.baseline()))
            .map_err(|e| e.to_string()),
        Err(why) => Err(why.to_string()),
    };
    if let Err(why) = counted {
        tracing::info!(baseline = %also.short(), %why, "inputs are counted under one baseline only");
    }
}

fn options(config: &Config) -> Options {
    let deadline = Duration::from_millis(config.limits.deadline_ms);
    Options {
        memory_bytes_max: config.limits.worker_memory_bytes_max,
        deadline,
        load_deadline: deadline.max(LOAD_DEADLINE),
        ..Options::new(&config.worker)
    }
}

/// Counts of the fields that may leave the device; `None` in place of the others.
fn exported(ports: &[Port], counts: &[Counts]) -> Option<Fields> {
    let fields = ports.iter().flat_map(|port| port.fields.iter());
    let pairs = fields
        .zip(counts)
        .map(|(field, counts)| field.export.then(|| counts.clone()));
    Fields::of(pairs).ok()
}

fn rows_nonfinite(outputs: &[Tensor], rows: u32) -> u32 {
    let rows = rows.max(1) as usize;
    let mut bad = vec![false; rows];
    for output in outputs {
        let width = (output.len() / rows).max(1);
        for (i, value) in output.values().enumerate() {
            if !value.is_finite() {
                bad[(i / width).min(rows - 1)] = true;
            }
        }
    }
    bad.iter().filter(|bad| **bad).count() as u32
}

fn worker_death(death: &Death) -> WorkerDeath {
    const SIGABRT: u8 = 6;
    const SIGKILL: u8 = 9;
    match death {
        Death::Panicked { .. } => WorkerDeath::Panicked,
        Death::Aborted { .. } => WorkerDeath::Faulted { signal: SIGABRT },
        Death::Faulted { signal } => WorkerDeath::Faulted {
            signal: u8::try_from(*signal).unwrap_or(u8::MAX),
        },
        Death::Killed => WorkerDeath::Faulted { signal: SIGKILL },
        Death::Hung { .. } | Death::CpuExhausted { .. } => WorkerDeath::Hung,
        Death::OutOfMemory { .. } => WorkerDeath::OutOfMemory,
        Death::Protocol(_) => WorkerDeath::Protocol,
        _ => WorkerDeath::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_one_bad_element_is_one_bad_row() {
        let nan = f32::NAN;
        let two = Tensor::from_f32("p", &[3, 2], &[1.0, nan, 1.0, 2.0, nan, nan]);
        let one = Tensor::from_f32("q", &[3], &[1.0, f32::INFINITY, 3.0]);
        assert_eq!(rows_nonfinite(std::slice::from_ref(&two), 3), 2);
        assert_eq!(rows_nonfinite(&[two, one], 3), 3);
        assert_eq!(rows_nonfinite(&[], 0), 0);
    }
}

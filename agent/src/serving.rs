//! Which session answers in which slot, and what its requests have shown.
//!
//! A slot's session is swapped whole: requests under way end on the session they began on, new
//! ones go to the next, and none is refused in between.

mod beside;
mod slots;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_drift::{Counts, FieldBaseline};
use bellwether_package::sections::{Activation, Baseline, Contract, Inactive, Port};
use bellwether_package::{Attribute, PackageId, SlotName, UnixSecs};
use bellwether_protocol::{
    DriftLimits, ErrorCounts, Fields, Latency, Refusal, Window, WorkerDeath,
};
use bellwether_rollout::device::{Budget, Look, Traffic, drift};
use bellwether_runtime::{Death, LatencyHistogram, Options, Run, RunError, Session, Tensor};
use tokio::sync::Notify;

use crate::causes::with_causes;
use crate::clock;
use crate::config::Config;
use crate::fetch;
use crate::trust::{Trust, Unverified};

use beside::{Beside, Comparison};

pub use beside::Candidate;
pub use slots::{Answering, Silence, Slots};

/// Deaths that wait to be told; the machine takes a release back at far fewer.
const DEATHS_WAITING_MAX: usize = 16;
/// How long loading may take at least: a small board optimises slowly.
const LOAD_DEADLINE: Duration = Duration::from_secs(60);

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
    baseline: Baseline,
    budget: Budget,
    inner: Mutex<Inner>,
    /// On trial: the counts of its earlier windows.
    tried: Mutex<Option<Tried>>,
    watched: Mutex<Watched>,
    /// What runs on the same inputs.
    beside: Mutex<Option<Beside>>,
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

/// Counts since the trial began, those of the window under way apart.
#[derive(Debug)]
struct Tried {
    inputs: Vec<Counts>,
    outputs: Vec<Counts>,
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
    /// The disk does not give the package; it may later.
    Unread(String),
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
            .map_err(|unverified| match unverified {
                Unverified::Refused(why) => OpenError::Refused(why),
                Unverified::Disk(error) => OpenError::Unread(error.to_string()),
            })?;
        let manifest = package.manifest();
        let (model, version) = (manifest.model.to_string(), manifest.version.to_string());
        let contract = package.package().contract().clone();
        let activation = package.package().activation().cloned();
        let baseline = package.package().baseline().clone();
        let promised = package.package().budget();
        let budget = Budget {
            latency_us_p99: Some(promised.latency_us_p99),
            memory_bytes: Some(promised.memory_bytes),
        };
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
            baseline,
            budget,
            beside: Mutex::default(),
            inner: Mutex::new(Inner {
                session,
                since: clock::now(),
                rows: 0,
                rows_nonfinite: 0,
                errors: ErrorCounts::default(),
            }),
            tried: Mutex::default(),
            watched: Mutex::default(),
            poke,
        })
    }

    /// The release.
    pub fn release(&self) -> PackageId {
        self.release
    }

    /// The other baseline that inputs are counted under.
    pub fn also_baseline(&self) -> Option<PackageId> {
        self.also_baseline
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

    /// Why its activation policy does not let it run here and now; without a clock that can be
    /// trusted, `now` is `None`.
    pub fn inactive(&self, now: Option<UnixSecs>) -> Option<Inactive> {
        let policy = self.activation.as_ref()?;
        policy.allows(&self.attributes, now).err()
    }

    /// Runs once. Blocking; one request at a time.
    ///
    /// # Errors
    ///
    /// [`AskError`], with a sentence for the application.
    pub fn ask(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, AskError> {
        let rows = inputs
            .first()
            .and_then(|input| input.shape.first().copied())
            .unwrap_or(1);
        let result = {
            let mut inner = self.inner();
            let result = inner.session.run(inputs);
            inner.count(rows, &result);
            self.note_memory(&inner);
            result
        };
        self.watch(inputs, rows, &result);
        self.offer(inputs, rows, &result);
        result.map(|run| run.outputs).map_err(|error| {
            let text = with_causes(&error);
            match error {
                error if error.is_input_fault() => AskError::Input(text),
                RunError::Recovering { .. } | RunError::Replace(_) => AskError::Unavailable(text),
                _ => AskError::Model(text),
            }
        })
    }

    /// Runs `other` beside this one from now on, on the same inputs: it answers nobody, and its
    /// answers are compared. What either shows goes to the candidate.
    pub fn run_beside(self: &Arc<Self>, other: &Arc<Self>, candidate: Candidate) {
        let beside = Beside::start(self, other, candidate);
        *self.beside() = Some(beside);
    }

    /// Ends that.
    pub fn run_alone(&self) {
        *self.beside() = None;
    }

    /// What runs beside this one, if anything does.
    pub fn runs_beside(&self) -> Option<PackageId> {
        self.beside().as_ref().map(Beside::release)
    }

    /// Keeps counts over windows from now on, to see whether they move; or ends that.
    pub fn keep_tried(&self, keep: bool) {
        let none = |fields: &[FieldBaseline]| {
            let counts = fields.iter().map(|field| Counts::new(field.bins()));
            counts.collect::<Vec<_>>()
        };
        let mut tried = self.tried();
        if keep != tried.is_some() {
            *tried = keep.then(|| Tried {
                inputs: none(&self.baseline.inputs),
                outputs: none(&self.baseline.outputs),
            });
        }
    }

    /// What the counts since the trial began say; `None` while a request is under way, or when
    /// they are not kept.
    pub fn look(&self, limits: &DriftLimits) -> Option<Look> {
        let inner = self.inner.try_lock().ok()?;
        let tried = self.tried();
        let tried = tried.as_ref()?;
        let window = inner.session.window();
        let of = |fields: &[FieldBaseline], before: &[Counts], now: &[Counts]| {
            let merged: Vec<Counts> = before.iter().zip(now).map(merged).collect();
            drift(fields.iter().zip(&merged), limits)
        };
        Some(Look {
            inputs: of(&self.baseline.inputs, &tried.inputs, &window.inputs),
            outputs: of(&self.baseline.outputs, &tried.outputs, &window.outputs),
        })
    }

    /// What requests have shown since the last call.
    pub fn take_watched(&self) -> (Traffic, Vec<WorkerDeath>) {
        let mut watched = self.watched();
        let mut traffic = std::mem::take(&mut watched.traffic);
        traffic.latency_us_p99 = watched.latency.p99_us();
        traffic.budget = self.budget;
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
        if let Some(tried) = self.tried().as_mut() {
            tried.add(&counts.inputs, &counts.outputs);
        }
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

    /// Runs in another's shadow: what it shows is watched, and nothing is counted.
    fn ask_beside(&self, inputs: &[Tensor], rows: u32) -> Option<Vec<Tensor>> {
        let result = {
            let mut inner = self.inner();
            let result = inner.session.run_uncounted(inputs);
            self.note_memory(&inner);
            result
        };
        self.watch(inputs, rows, &result);
        result.ok().map(|run| run.outputs)
    }

    /// Gives what runs beside the same inputs. Inputs that break the contract reach no model.
    fn offer(&self, inputs: &[Tensor], rows: u32, result: &Result<Run, RunError>) {
        if matches!(result, Err(error) if error.is_input_fault()) {
            return;
        }
        let queue = self.beside().as_ref().map(Beside::queue);
        if let Some(queue) = queue {
            let answer = result.as_ref().ok().map(|run| run.outputs.clone());
            queue.offer(inputs, rows, answer);
        }
    }

    /// Rows that the candidate could not be asked, because it is too slow.
    fn missed(&self, rows: u32) {
        let mut watched = self.watched();
        let traffic = &mut watched.traffic;
        traffic.rows = traffic.rows.saturating_add(rows);
        traffic.rows_failed = traffic.rows_failed.saturating_add(rows);
        drop(watched);
        self.poke.notify_one();
    }

    fn compared(&self, comparison: &Comparison) {
        let mut watched = self.watched();
        let traffic = &mut watched.traffic;
        traffic.rows_compared = traffic.rows_compared.saturating_add(comparison.rows);
        let disagreeing = traffic.rows_disagreeing;
        traffic.rows_disagreeing = disagreeing.saturating_add(comparison.rows_disagreeing);
    }

    /// The most memory that its worker has held at once; `None` while a request is under way.
    pub fn worker_bytes(&self) -> Option<u64> {
        let inner = self.inner.try_lock().ok()?;
        Some(inner.session.memory_bytes_peak()).filter(|bytes| *bytes > 0)
    }

    fn note_memory(&self, inner: &Inner) {
        let peak = inner.session.memory_bytes_peak();
        self.watched().traffic.memory_bytes_peak = (peak > 0).then_some(peak);
    }

    fn beside(&self) -> MutexGuard<'_, Option<Beside>> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, inputs: &[Tensor], rows: u32, result: &Result<Run, RunError>) {
        let mut watched = self.watched();
        let traffic = &mut watched.traffic;
        traffic.rows = traffic.rows.saturating_add(rows);
        let mut urgent = false;
        match result {
            Ok(run) => {
                let bad = nonfinite(&run.outputs, rows);
                let rows_nonfinite = count(&bad);
                traffic.rows_nonfinite = traffic.rows_nonfinite.saturating_add(rows_nonfinite);
                urgent = rows_nonfinite > 0;
                if urgent {
                    let spoiled = count(&spoiled(inputs, &bad));
                    traffic.rows_spoiled = traffic.rows_spoiled.saturating_add(spoiled);
                }
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

    fn tried(&self) -> MutexGuard<'_, Option<Tried>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count(&mut self, rows: u32, result: &Result<Run, RunError>) {
        self.rows = self.rows.saturating_add(rows);
        let kind = match result {
            Ok(run) => {
                let bad = count(&nonfinite(&run.outputs, rows));
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

impl Tried {
    fn add(&mut self, inputs: &[Counts], outputs: &[Counts]) {
        for (all, counts) in [(&mut self.inputs, inputs), (&mut self.outputs, outputs)] {
            let sums: Vec<Counts> = all.iter().zip(counts).map(merged).collect();
            *all = sums;
        }
    }
}

/// Both counts; the first alone when there is no room for more.
fn merged((before, now): (&Counts, &Counts)) -> Counts {
    let mut sum = before.clone();
    match sum.merge(now) {
        Ok(()) => sum,
        Err(_) => before.clone(),
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

pub(crate) fn options(config: &Config) -> Options {
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

/// Which rows hold NaN or infinity.
fn nonfinite(tensors: &[Tensor], rows: u32) -> Vec<bool> {
    let rows = rows.max(1) as usize;
    let mut bad = vec![false; rows];
    for tensor in tensors {
        let width = (tensor.len() / rows).max(1);
        for (i, value) in tensor.values().enumerate() {
            if !value.is_finite() {
                bad[(i / width).min(rows - 1)] = true;
            }
        }
    }
    bad
}

/// Of the rows with `bad` answers, those whose inputs do not excuse it.
fn spoiled(inputs: &[Tensor], bad: &[bool]) -> Vec<bool> {
    let rows = u32::try_from(bad.len()).unwrap_or(u32::MAX);
    let excused = nonfinite(inputs, rows);
    let rows = bad.iter().zip(excused);
    rows.map(|(bad, excused)| *bad && !excused).collect()
}

fn count(rows: &[bool]) -> u32 {
    u32::try_from(rows.iter().filter(|bad| **bad).count()).unwrap_or(u32::MAX)
}

pub(crate) fn worker_death(death: &Death) -> WorkerDeath {
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
        let bad = |tensors: &[Tensor], rows| count(&nonfinite(tensors, rows));
        assert_eq!(bad(std::slice::from_ref(&two), 3), 2);
        assert_eq!(bad(&[two, one], 3), 3);
        assert_eq!(bad(&[], 0), 0);
    }

    #[test]
    fn an_answer_to_a_missing_reading_is_not_spoiled() {
        let nan = f32::NAN;
        let asked = Tensor::from_f32("x", &[3, 2], &[1.0, nan, 1.0, 2.0, 1.0, 2.0]);
        let answered = Tensor::from_f32("y", &[3], &[nan, nan, 1.0]);
        let bad = nonfinite(&[answered], 3);
        assert_eq!(spoiled(&[asked], &bad), [false, true, false]);
    }
}

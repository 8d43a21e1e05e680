//! The golden proof: does this package compute here what it computed where it was made, within
//! its budget?

use std::time::Duration;

use bellwether_package::{
    IntactPackage, VerifiedPackage,
    sections::{Golden, GoldenTensor},
};

use crate::{
    blob::SealedBlob,
    error::{OpenError, RunError},
    latency::LatencyHistogram,
    options::Options,
    ports::Ports,
    runner::Runner,
    session::feed,
    subject::Subject,
    window::nonfinite,
    wire::Tensor,
};

/// Timed runs at least, so that a 99th percentile means something.
const TIMED_RUNS_MIN: usize = 200;
/// Timed runs end here, once every case was compared: slow models on small boards.
const TIMED_FOR: Duration = Duration::from_secs(10);

/// What a proof found. It exists whether the package passed or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// Golden cases compared.
    pub cases: usize,
    /// Output elements compared.
    pub elements: u64,
    /// Elements outside the tolerance.
    pub mismatches: u64,
    /// The element farthest from its golden value, measured in tolerances; within them if there
    /// are no mismatches. `None` if nothing was compared.
    pub worst: Option<Mismatch>,
    /// Output elements that are NaN or infinite.
    pub outputs_nonfinite: u64,
    /// The 99th percentile of latency, in microseconds; each case's first run is left out.
    pub latency_us_p99: u32,
    /// Timed runs.
    pub timed_runs: u64,
    /// The most memory the worker held at once, in bytes.
    pub memory_bytes: u64,
    /// The package's budget for the 99th percentile, in microseconds.
    pub budget_latency_us_p99: u32,
    /// The package's budget of memory, in bytes.
    pub budget_memory_bytes: u64,
}

/// One output element beside its golden value.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// The golden case, from 0.
    pub case: usize,
    /// The output port.
    pub port: String,
    /// The element's place in the tensor, row-major, from 0.
    pub element: usize,
    /// The golden value.
    pub expected: f64,
    /// What came out.
    pub got: f64,
    /// Allowed distance: absolute + relative · |expected|.
    pub tolerance: f64,
    /// Distance in tolerances; infinite where one of both is not finite.
    pub ratio: f64,
}

/// Why a package failed its proof.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Shortfall {
    /// An output differs from its golden value.
    #[error(
        "case {case}, output `{port}`, element {element}: expected {expected}, got {got}, \
         {ratio:.1} tolerances apart; {mismatches} elements differ",
        case = worst.case, port = worst.port, element = worst.element,
        expected = worst.expected, got = worst.got, ratio = worst.ratio
    )]
    Mismatch {
        /// The worst.
        worst: Mismatch,
        /// How many.
        mismatches: u64,
    },
    /// Too slow here.
    #[error("p99 latency is {found} µs, the budget {budget} µs")]
    Latency {
        /// Measured.
        found: u32,
        /// Allowed.
        budget: u32,
    },
    /// Too large here.
    #[error("the worker held {found} bytes, the budget is {budget}")]
    Memory {
        /// Measured.
        found: u64,
        /// Allowed.
        budget: u64,
    },
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A golden case could not be run.
    #[error("golden case {case} could not be run")]
    Run {
        /// From 0.
        case: usize,
        /// Why.
        #[source]
        source: RunError,
    },
    /// A golden case does not fit the contract. The package is at fault.
    #[error("golden case {case} has no output `{port}` of the contract's size")]
    Case {
        /// From 0.
        case: usize,
        /// The output.
        port: String,
    },
}

impl Proof {
    /// Everything in which the package falls short; empty if it passed.
    pub fn shortfalls(&self) -> Vec<Shortfall> {
        let mismatch = self.worst.clone().filter(|_| self.mismatches > 0);
        let mismatches = self.mismatches;
        let mismatch = mismatch.map(|worst| Shortfall::Mismatch { worst, mismatches });
        let latency =
            (self.latency_us_p99 > self.budget_latency_us_p99).then_some(Shortfall::Latency {
                found: self.latency_us_p99,
                budget: self.budget_latency_us_p99,
            });
        let memory = (self.memory_bytes > self.budget_memory_bytes).then_some(Shortfall::Memory {
            found: self.memory_bytes,
            budget: self.budget_memory_bytes,
        });
        [mismatch, latency, memory].into_iter().flatten().collect()
    }

    /// True if outputs, latency and memory are all within bounds.
    pub fn passed(&self) -> bool {
        self.shortfalls().is_empty()
    }
}

/// Proves an approved package, before it serves.
pub fn prove(
    package: &VerifiedPackage,
    blob: SealedBlob,
    options: Options,
) -> Result<Proof, ProveError> {
    prove_subject(Subject::of_verified(package), blob, options)
}

/// Proves a package that is intact and not approved: before it is packed or approved.
pub fn prove_intact(
    package: &IntactPackage,
    blob: SealedBlob,
    options: Options,
) -> Result<Proof, ProveError> {
    prove_subject(Subject::of_intact(package), blob, options)
}

fn prove_subject(
    subject: Subject<'_>,
    blob: SealedBlob,
    options: Options,
) -> Result<Proof, ProveError> {
    subject.check_blob(&blob)?;
    let ports = Ports::of(subject.contract)?;
    let mut runner = Runner::open(ports, blob, options)?;
    let mut proof = Proof {
        cases: subject.golden.cases.len(),
        elements: 0,
        mismatches: 0,
        worst: None,
        outputs_nonfinite: 0,
        latency_us_p99: 0,
        timed_runs: 0,
        memory_bytes: 0,
        budget_latency_us_p99: subject.budget.latency_us_p99,
        budget_memory_bytes: subject.budget.memory_bytes,
    };
    let mut fed = Vec::with_capacity(subject.golden.cases.len());
    for case in 0..subject.golden.cases.len() {
        fed.push(compare_case(&mut runner, subject.golden, case, &mut proof)?);
    }
    let latency = time(&mut runner, &fed)?;
    proof.latency_us_p99 = latency.p99_us().unwrap_or(0);
    proof.timed_runs = latency.count();
    proof.memory_bytes = runner.memory_bytes_peak();
    Ok(proof)
}

/// Runs one case, compares it, and gives back what was fed, for timing.
fn compare_case(
    runner: &mut Runner,
    golden: &Golden,
    case: usize,
    proof: &mut Proof,
) -> Result<(Vec<Tensor>, u32), ProveError> {
    let failed = |source| ProveError::Run { case, source };
    let inputs: Vec<Tensor> = golden.cases[case].inputs.iter().map(tensor).collect();
    let ports = runner.ports();
    let (ordered, batch) = ports
        .order(&inputs)
        .map_err(|error| failed(RunError::Input(error)))?;
    let fed = feed(ports, &ordered).map_err(failed)?;
    // Each case stands for itself.
    runner.begin_anew();
    let answer = runner.run(&fed, batch).map_err(failed)?;
    proof.outputs_nonfinite += nonfinite(&answer.outputs);
    for got in &answer.outputs {
        let expected = golden.cases[case].outputs.iter().map(tensor);
        let expected = expected
            .filter(|expected| expected.name == got.name)
            .find(|expected| expected.shape == got.shape && expected.dtype == got.dtype)
            .ok_or_else(|| ProveError::Case {
                case,
                port: got.name.clone(),
            })?;
        compare(golden, case, &expected, got, proof);
    }
    Ok((fed, batch))
}

fn compare(golden: &Golden, case: usize, expected: &Tensor, got: &Tensor, proof: &mut Proof) {
    for (element, (expected, value)) in expected.values().zip(got.values()).enumerate() {
        let tolerance =
            f64::from(golden.tolerance_abs) + f64::from(golden.tolerance_rel) * expected.abs();
        let ratio = ratio(expected, value, tolerance);
        proof.elements += 1;
        proof.mismatches += u64::from(ratio > 1.0);
        if proof.worst.as_ref().is_none_or(|worst| ratio > worst.ratio) {
            proof.worst = Some(Mismatch {
                case,
                port: got.name.clone(),
                element,
                expected,
                got: value,
                tolerance,
                ratio,
            });
        }
    }
}

/// Distance in tolerances. The same non-finite value on both sides is no distance.
fn ratio(expected: f64, got: f64, tolerance: f64) -> f64 {
    if expected == got || (expected.is_nan() && got.is_nan()) {
        0.0
    } else if expected.is_finite() && got.is_finite() && tolerance > 0.0 {
        (expected - got).abs() / tolerance
    } else {
        f64::INFINITY
    }
}

/// Runs the cases in turn and times them; every batch size has been run once before.
fn time(runner: &mut Runner, fed: &[(Vec<Tensor>, u32)]) -> Result<LatencyHistogram, ProveError> {
    let mut latency = LatencyHistogram::new();
    let mut spent = Duration::ZERO;
    for (case, (tensors, batch)) in fed.iter().enumerate().cycle().take(TIMED_RUNS_MIN) {
        if spent >= TIMED_FOR {
            break;
        }
        runner.begin_anew();
        let answer = runner
            .run(tensors, *batch)
            .map_err(|source| ProveError::Run { case, source })?;
        spent += answer.latency;
        latency.record(u32::try_from(answer.latency.as_micros()).unwrap_or(u32::MAX));
    }
    Ok(latency)
}

fn tensor(golden: &GoldenTensor) -> Tensor {
    Tensor {
        name: golden.name.to_string(),
        dtype: golden.dtype,
        shape: golden.shape.to_vec(),
        bytes: golden.bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_where_a_number_is_golden_is_infinitely_far() {
        assert_eq!(ratio(1.0, f64::NAN, 1.0), f64::INFINITY);
        assert_eq!(ratio(f64::NAN, 1.0, 1.0), f64::INFINITY);
        assert_eq!(ratio(f64::NAN, f64::NAN, 1.0), 0.0);
        assert_eq!(ratio(f64::INFINITY, f64::INFINITY, 0.0), 0.0);
        assert_eq!(ratio(f64::INFINITY, f64::NEG_INFINITY, 1.0), f64::INFINITY);
        assert_eq!(ratio(1.0, 1.5, 0.25), 2.0);
        assert_eq!(ratio(1.0, 1.5, 0.0), f64::INFINITY);
    }
}

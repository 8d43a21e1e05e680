//! Runs models in process, in a worker, and by tract alone, on command: what
//! `cargo xtask bench runtime` measures.
//!
//! Reads one command a line, words apart by tabs, and answers each with one line of JSON.
//!
//! ```text
//! package  NAME PATH               reads and approves a package: {bytes}, inputs and outputs
//! load     NAME HOST WORKER        HOST is in-process, worker or tract: {cpu_ns, memory_bytes}
//! compare  NAME                    golden cases: the largest difference by the largest output
//! trees    NAME ONNX NPZ BATCH     a bare model on the archive's first rows, by the engine
//! run      NAME HOST COUNT         of one run: {cpu_ns, wall_ns_p50}
//! ```

// A measuring program fails as tests do; printing is its purpose.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod tract_alone;
mod trees;

use std::{
    collections::HashMap,
    fs::File,
    io::BufRead,
    time::{Duration, Instant},
};

use bellwether_package::{VerifiedPackage, sections::GoldenTensor, std_io};
use bellwether_runtime::{BlobSealer, Options, SealedBlob, Session, Tensor, model_ports};
use bellwether_tests::packages::approved;
use rustix::time::{ClockId, clock_gettime};

/// A run that waits for its turn on a busy machine is no failure of the model.
const DEADLINE: Duration = Duration::from_secs(60);

/// What can run a case.
enum Runnable {
    Session(Box<Session>, Vec<Tensor>),
    Tract(tract_alone::Alone),
    Trees(trees::Trees),
}

impl Runnable {
    fn run(&mut self) {
        match self {
            Self::Session(session, inputs) => drop(session.run(inputs).unwrap()),
            Self::Tract(alone) => alone.run(),
            Self::Trees(trees) => trees.run(),
        }
    }
}

#[derive(Default)]
struct Bench {
    packages: HashMap<String, String>,
    loaded: HashMap<(String, String), Runnable>,
}

fn main() {
    let mut bench = Bench::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split('\t').collect();
        println!("{}", bench.answer(&words));
    }
}

impl Bench {
    fn answer(&mut self, words: &[&str]) -> String {
        match *words {
            ["package", name, path] => self.package(name, path),
            ["load", name, host, worker] => self.load(name, host, worker),
            ["compare", name] => {
                let worst = worst_difference(&self.packages[name]);
                format!("{{\"worst\": {worst:e}}}")
            }
            ["trees", name, onnx, npz, batch] => {
                let trees = trees::Trees::load(onnx, npz, batch.parse().unwrap());
                self.keep(name, "engine", Runnable::Trees(trees));
                "{}".to_owned()
            }
            ["run", name, host, count] => self.run(name, host, count.parse().unwrap()),
            _ => panic!("no such command: {words:?}"),
        }
    }

    fn keep(&mut self, name: &str, host: &str, runnable: Runnable) {
        let key = (name.to_owned(), host.to_owned());
        self.loaded.insert(key, runnable);
    }

    fn package(&mut self, name: &str, path: &str) -> String {
        let (package, _) = open(path);
        self.packages.insert(name.to_owned(), path.to_owned());
        let case = &package.package().golden().cases[0];
        let tensors = case.inputs.iter().chain(&case.outputs);
        let bytes: usize = tensors.map(|tensor| tensor.bytes.len()).sum();
        format!("{{\"bytes\": {bytes}}}")
    }

    /// Loads once more; what was loaded before goes first, so that loads are comparable.
    fn load(&mut self, name: &str, host: &str, worker: &str) -> String {
        self.loaded.remove(&(name.to_owned(), host.to_owned()));
        let (package, blob) = open(&self.packages[name]);
        let inputs = first_case(&package);
        let ports = model_ports(package.package().contract());
        let options = match host {
            "in-process" => Some(Options::in_process()),
            "worker" => Some(Options::new(worker)),
            _ => None,
        };
        let began = cpu_time();
        let runnable = match options {
            Some(options) => {
                let options = Options {
                    deadline: DEADLINE,
                    load_deadline: DEADLINE,
                    ..options
                };
                let session = Session::open(package, blob, options).unwrap();
                Runnable::Session(Box::new(session), inputs)
            }
            None => match tract_alone::Alone::load(&blob, &ports, &inputs) {
                Ok(alone) => Runnable::Tract(alone),
                Err(error) => return format!("{{\"refused\": {:?}}}", format!("{error:#}")),
            },
        };
        let cpu_ns = (cpu_time() - began).as_nanos();
        let memory = match &runnable {
            Runnable::Session(session, _) => session.worker_id().map_or(0, memory_bytes),
            _ => 0,
        };
        self.keep(name, host, runnable);
        format!("{{\"cpu_ns\": {cpu_ns}, \"memory_bytes\": {memory}}}")
    }

    fn run(&mut self, name: &str, host: &str, count: usize) -> String {
        let key = (name.to_owned(), host.to_owned());
        let runnable = self.loaded.get_mut(&key).unwrap();
        // Caches and branch predictors are those of this model again.
        runnable.run();
        let mut walls = Vec::with_capacity(count);
        let began = cpu_time();
        for _ in 0..count {
            let at = Instant::now();
            runnable.run();
            walls.push(at.elapsed());
        }
        let cpu_ns = (cpu_time() - began).as_nanos() as f64 / count as f64;
        walls.sort_unstable();
        let p50 = walls[count / 2].as_nanos();
        format!("{{\"cpu_ns\": {cpu_ns}, \"wall_ns_p50\": {p50}}}")
    }
}

fn open(path: &str) -> (VerifiedPackage, SealedBlob) {
    let mut sealer = BlobSealer::new().unwrap();
    let package = std_io::read(File::open(path).unwrap(), &mut sealer).unwrap();
    (approved(package), sealer.seal().unwrap())
}

fn first_case(package: &VerifiedPackage) -> Vec<Tensor> {
    let case = &package.package().golden().cases[0];
    case.inputs.iter().map(tensor).collect()
}

fn tensor(golden: &GoldenTensor) -> Tensor {
    Tensor {
        name: golden.name.clone(),
        dtype: golden.dtype,
        shape: golden.shape.clone(),
        bytes: golden.bytes.clone(),
    }
}

/// Of each output over all golden cases: the greatest |answer − golden| by the greatest |golden|.
/// The greatest of these.
fn worst_difference(path: &str) -> f64 {
    let (package, blob) = open(path);
    let golden = package.package().golden().clone();
    let mut session = Session::open(package, blob, Options::in_process()).unwrap();
    let mut outputs: HashMap<String, (f64, f64)> = HashMap::new();
    for case in &golden.cases {
        session.begin_anew();
        let inputs: Vec<Tensor> = case.inputs.iter().map(tensor).collect();
        let run = session.run(&inputs).unwrap();
        for expected in case.outputs.iter().map(tensor) {
            let answer = run.output(&expected.name).unwrap();
            let (apart, greatest) = outputs.entry(expected.name.clone()).or_default();
            for (a, b) in expected.values().zip(answer.values()) {
                *apart = apart.max((a - b).abs());
                *greatest = greatest.max(a.abs());
            }
        }
    }
    let shares = outputs.values();
    shares
        .map(|(apart, greatest)| apart / greatest.max(f64::MIN_POSITIVE))
        .fold(0.0, f64::max)
}

/// Of this process, all threads.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Resident memory of a process.
fn memory_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

//! A device that takes one release after another, and what must hold after each fault.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bellwether_package::PackageId;
use bellwether_protocol::{OutcomeKind, Record};

use super::shim::Fault;
use crate::bench::{Agent, Bench, wait};
use crate::model;
use crate::package::Package;

/// What every case asks the model.
const ROW: [f32; 2] = [1.0, 2.0];
/// Pause between two questions of the application.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// An update takes two seconds; one that takes so long has stopped.
const UPDATE_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Device {
    pub(super) bench: Bench,
    /// The factor of each release that was approved for this device.
    factors: HashMap<String, f32>,
    minor: u32,
    /// How long an update takes when nothing goes wrong.
    pub(super) update: Duration,
}

impl Device {
    /// One that serves a first release, and is switched off. `lines` are put in place of the
    /// bench's usual intervals.
    pub(super) fn new(report: &str) -> Self {
        let bench = Bench::new();
        let text = std::fs::read_to_string(&bench.config).unwrap();
        let text = text.replace("window_secs = 1\nhealth_secs = 1\n", report);
        std::fs::write(&bench.config, text).unwrap();
        let mut device = Self {
            bench,
            factors: HashMap::new(),
            minor: 0,
            update: Duration::ZERO,
        };
        let first = device.order_next();
        let mut agent = device.bench.start();
        device.complete(&first);
        agent.kill();
        let second = device.order_next();
        let begun = Instant::now();
        let mut agent = device.bench.start();
        device.complete(&second);
        device.update = begun.elapsed();
        agent.kill();
        device
    }

    /// Orders a release that was not there before.
    pub(super) fn order_next(&mut self) -> Package {
        self.minor += 1;
        let factor = 1.0 + self.minor as f32;
        let onnx = model::times(factor);
        let next = Package::approved(&self.bench.people, self.minor, &onnx, |x| factor * x);
        self.factors.insert(next.id.to_string(), factor);
        self.bench.order(&next, 0, 0);
        next
    }

    /// Starts the agent with a fault; also where it says what the fault met.
    pub(super) fn spawn_with(&self, fault: &Fault) -> (Agent, PathBuf) {
        let log = self.bench.config.with_extension("faults");
        let _ = std::fs::remove_file(&log);
        let environment: Vec<(&str, OsString)> = fault.environment(&self.bench.state, &log);
        (self.bench.spawn_under(&environment), log)
    }

    /// The application asks, until `done`.
    pub(super) fn ask_until(&self, mut done: impl FnMut() -> bool) {
        let late = Instant::now() + UPDATE_WITHIN;
        while !done() {
            assert!(Instant::now() < late, "no end of it: {}", self.bench.log());
            self.bench.ask(ROW);
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// What came of the orders for `release`, as the server knows it.
    pub(super) fn outcomes(&self, release: PackageId) -> Vec<OutcomeKind> {
        let world = self.bench.server.world();
        let of = |record: &Record| match record {
            Record::Outcome(outcome) if outcome.release == Some(release) => {
                Some(outcome.kind.clone())
            }
            _ => None,
        };
        let records = world.reports.iter().map(|report| &report.record);
        records.filter_map(of).collect()
    }

    /// Whether the server knows that `release` has committed.
    pub(super) fn is_told(&self, release: PackageId) -> bool {
        !self.outcomes(release).is_empty()
    }

    /// After a fault, with no server to ask: the device serves an approved release, and answers
    /// are that release's.
    pub(super) fn serves_alone(&self, case: &str) -> Agent {
        self.bench.server.world().down = true;
        let agent = self.bench.start();
        self.serves(case);
        self.bench.server.world().down = false;
        agent
    }

    /// The device serves an approved release, and answers are that release's.
    pub(super) fn serves(&self, case: &str) {
        let (scores, release) = self.bench.scores(ROW);
        let Some(factor) = self.factors.get(&release) else {
            panic!("{case}: {release} was never approved");
        };
        let right = ROW.map(|x| Some(f64::from(x * factor)));
        assert_eq!(scores, right, "{case}: answers of {release}");
    }

    /// The second attempt: the order is carried out, and the server knows.
    pub(super) fn complete(&self, next: &Package) {
        self.ask_until(|| self.is_told(next.id));
        assert_eq!(self.outcomes(next.id), [OutcomeKind::Committed]);
        let slot = wait("the slot", || self.bench.slot());
        assert_eq!(slot.serving, Some(next.id.to_string()));
    }

    /// At the end: once more without any fault, and each release committed once, told once.
    pub(super) fn end(mut self) -> u64 {
        let last = self.order_next();
        let _agent = self.bench.start();
        self.complete(&last);
        wait("an empty outbox", || {
            (self.bench.status()?.reports_waiting < 3).then_some(())
        });
        for release in self.factors.keys() {
            let told = self.outcomes(release.parse().unwrap());
            assert_eq!(told, [OutcomeKind::Committed], "of {release}");
        }
        assert!(self.bench.packages(".bwp").len() <= 2);
        assert!(
            !self.bench.log().contains("panicked"),
            "{}",
            self.bench.log()
        );
        self.factors.len() as u64
    }
}

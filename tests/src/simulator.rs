//! A fleet in simulated time. The decisions are the real ones; only the shells are simulated.
//!
//! The shell of a device here does what the agent does: it stores the state before it performs
//! what follows, keeps outcomes until the server has acknowledged them, and starts from what was
//! stored after a power cut. Power may fail between any two actions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bellwether_package::ids::{Digest, PackageId, SlotName, UnixSecs};
use bellwether_protocol::{
    Desired, Outcome, ProofFailure, Refusal, Sequence, ShadowLimits, SlotAssignment, TrialLimits,
};
use bellwether_rollout::device::{Action, Event, State, Traffic, step};

use crate::chance::Chance;

/// Simulated seconds between two looks at each device.
pub const TICK_SECS: u64 = 5;

/// What becomes of a release when it meets a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Temper {
    /// Serves.
    Good,
    /// Too few approvals: refused when it is checked.
    Unapproved,
    /// Its golden vectors come out wrong.
    FailsProof,
    /// Answers NaN once it is on trial.
    FailsTrial,
    /// Answers otherwise than the release before it.
    Disagrees,
}

/// How rough the world is: each event happens once in so many ticks, devices or messages.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Power cuts, per action.
    pub power_cut: u64,
    /// Lost messages and failed downloads.
    pub loss: u64,
    /// Messages that come twice, or old ones that come late.
    pub echo: u64,
}

/// A server, its devices, and the link between them.
#[derive(Debug)]
pub struct World {
    /// Simulated time.
    pub now: UnixSecs,
    /// False: neither assignments, downloads nor reports get through.
    pub server_up: bool,
    /// The devices.
    pub devices: Vec<Device>,
    /// Distinct outcomes that the server stored, per device, with the order that they are about.
    pub told: Vec<BTreeMap<(u64, u64), Outcome>>,
    orders: Vec<(Sequence, PackageId)>,
    tempers: BTreeMap<PackageId, Temper>,
    chance: Chance,
    weather: Weather,
}

/// One device: what is on its disk, and what is in its memory.
#[derive(Debug)]
pub struct Device {
    stored: State,
    state: State,
    packages: BTreeSet<PackageId>,
    outbox: BTreeMap<(u64, u64), Outcome>,
    boot: u64,
    reports: u64,
    answering: Option<PackageId>,
    beside: Option<PackageId>,
    events: VecDeque<Event>,
    downloading: Option<(PackageId, UnixSecs)>,
    served_once: bool,
    /// Power cuts so far.
    pub power_cuts: u64,
}

impl World {
    /// `devices` empty devices.
    pub fn new(seed: u64, devices: usize, weather: Weather) -> Self {
        Self {
            now: UnixSecs(1_764_000_000),
            server_up: true,
            devices: (0..devices).map(|_| Device::new()).collect(),
            told: vec![BTreeMap::new(); devices],
            orders: Vec::new(),
            tempers: BTreeMap::new(),
            chance: Chance::new(seed),
            weather,
        }
    }

    /// Orders a new release for every device, with the next sequence.
    pub fn order(&mut self, temper: Temper) -> PackageId {
        let n = self.orders.len() as u64 + 1;
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        let release = PackageId(Digest(digest));
        self.tempers.insert(release, temper);
        self.orders.push((Sequence { epoch: 1, n }, release));
        release
    }

    /// Lets so many simulated seconds pass, and checks every invariant all the time.
    pub fn run(&mut self, secs: u64) {
        for _ in 0..secs.div_ceil(TICK_SECS) {
            self.now = self.now.plus_secs(TICK_SECS);
            for index in 0..self.devices.len() {
                self.tick(index);
            }
        }
    }

    /// Calms the weather: nothing is lost and no power fails any more.
    pub fn calm(&mut self) {
        let never = u64::MAX;
        self.weather = Weather {
            power_cut: never,
            loss: never,
            echo: never,
        };
    }

    /// Whether every device answers with this release.
    pub fn all_serve(&self, release: PackageId) -> bool {
        self.devices
            .iter()
            .all(|device| device.answering == Some(release))
    }

    /// Whether every outbox is empty.
    pub fn all_told(&self) -> bool {
        self.devices.iter().all(|device| device.outbox.is_empty())
    }

    fn tick(&mut self, index: usize) {
        self.deliver_assignment(index);
        self.download(index);
        self.traffic(index);
        self.devices[index].events.push_back(Event::Tick);
        self.handle_events(index);
        self.deliver_reports(index);
    }

    fn deliver_assignment(&mut self, index: usize) {
        if !self.server_up || self.chance.once_in(self.weather.loss) {
            return;
        }
        let Some(last) = self.orders.len().checked_sub(1) else {
            return;
        };
        let late = self.chance.once_in(self.weather.echo);
        let which = if late {
            self.chance.below(last as u64 + 1) as usize
        } else {
            last
        };
        let (sequence, release) = self.orders[which];
        let slot = assignment(release);
        self.devices[index]
            .events
            .push_back(Event::Assigned { sequence, slot });
    }

    fn download(&mut self, index: usize) {
        let device = &mut self.devices[index];
        let Some((release, not_before)) = device.downloading else {
            return;
        };
        if self.now < not_before {
            return;
        }
        device.downloading = None;
        let failed = !self.server_up || self.chance.once_in(self.weather.loss);
        device.events.push_back(if failed {
            Event::FetchFailed { release }
        } else {
            device.packages.insert(release);
            Event::Fetched { release }
        });
    }

    fn traffic(&mut self, index: usize) {
        let device = &mut self.devices[index];
        let Some(release) = device.answering else {
            return;
        };
        // What is compared counts for the candidate: it answers on trial, and runs beside before.
        let on_trial = device.state.work().order().map(|order| order.release);
        let pair = [Some(release), device.beside];
        for release in pair.into_iter().flatten() {
            let rows_nonfinite = u32::from(self.tempers[&release] == Temper::FailsTrial);
            let disagrees = self.tempers[&release] == Temper::Disagrees;
            let compared = device.beside.is_some() && on_trial == Some(release);
            let traffic = Traffic {
                rows: 50,
                rows_nonfinite,
                rows_compared: if compared { 50 } else { 0 },
                rows_disagreeing: if compared && disagrees { 50 } else { 0 },
                ..Traffic::default()
            };
            device.events.push_back(Event::Traffic { release, traffic });
        }
    }

    fn handle_events(&mut self, index: usize) {
        // A step makes few events and each is about a state further on; more is a loop.
        for _ in 0..10_000 {
            let Some(event) = self.devices[index].events.pop_front() else {
                return;
            };
            let floor = self.devices[index].state.floor();
            let (state, actions) = step(self.devices[index].state.clone(), &event, self.now);
            assert!(state.floor() >= floor, "the floor fell on {event:?}");
            self.devices[index].state = state;
            for action in actions {
                if self.chance.once_in(self.weather.power_cut) {
                    self.devices[index].lose_power();
                    break;
                }
                self.perform(index, action);
            }
            self.devices[index].check();
        }
        panic!("one device's machine goes round and round");
    }

    fn perform(&mut self, index: usize, action: Action) {
        let device = &mut self.devices[index];
        let temper = |release: &PackageId| self.tempers[release];
        match action {
            Action::Persist => device.stored = device.state.clone(),
            Action::Fetch {
                release,
                not_before,
                ..
            } => {
                device.downloading = Some((release, not_before));
            }
            Action::Check { release } => {
                assert!(
                    device.packages.contains(&release),
                    "checks what is not on disk"
                );
                device.events.push_back(match temper(&release) {
                    Temper::Unapproved => {
                        let why = Refusal::NotApproved {
                            persons: 1,
                            threshold: 2,
                        };
                        Event::Refused { release, why }
                    }
                    _ => Event::Checked { release },
                });
            }
            Action::Prove { release } => device.events.push_back(match temper(&release) {
                Temper::FailsProof => {
                    let why = ProofFailure::Memory {
                        bytes: 2,
                        bytes_max: 1,
                    };
                    Event::ProofFailed { release, why }
                }
                _ => Event::Proved { release },
            }),
            Action::Serve {
                release, shadow, ..
            } => {
                let shadow = shadow.map(|shadow| shadow.release);
                for release in [Some(release), shadow].into_iter().flatten() {
                    let temper = temper(&release);
                    let proved = !matches!(temper, Temper::Unapproved | Temper::FailsProof);
                    assert!(proved, "runs a release that is {temper:?}");
                    assert!(
                        device.packages.contains(&release),
                        "runs what is not on disk"
                    );
                }
                device.answering = Some(release);
                device.beside = shadow;
            }
            Action::StopServing { .. } => {
                device.answering = None;
                device.beside = None;
            }
            Action::Delete { release } => {
                device.packages.remove(&release);
                if device
                    .downloading
                    .is_some_and(|(coming, _)| coming == release)
                {
                    device.downloading = None;
                }
            }
            Action::Report(outcome) => {
                device.reports += 1;
                device.outbox.insert((device.boot, device.reports), outcome);
                device.events.push_back(Event::Told);
            }
        }
    }

    fn deliver_reports(&mut self, index: usize) {
        if !self.server_up {
            return;
        }
        let waiting: Vec<_> = self.devices[index].outbox.clone().into_iter().collect();
        for (key, outcome) in waiting {
            if self.chance.once_in(self.weather.loss) {
                continue;
            }
            let stored = self.told[index]
                .entry(key)
                .or_insert_with(|| outcome.clone());
            assert_eq!(*stored, outcome, "one key, two outcomes");
            // The acknowledgement goes the same way, and may be lost like the report.
            if !self.chance.once_in(self.weather.loss) {
                self.devices[index].outbox.remove(&key);
            }
        }
    }
}

impl Device {
    fn new() -> Self {
        let slot = SlotName::new("pump").expect("is a slot's name");
        Self {
            stored: State::new(slot.clone()),
            state: State::new(slot),
            packages: BTreeSet::new(),
            outbox: BTreeMap::new(),
            boot: 1,
            reports: 0,
            answering: None,
            beside: None,
            events: VecDeque::new(),
            downloading: None,
            served_once: false,
            power_cuts: 0,
        }
    }

    /// Everything that was not stored is gone; the outbox and the packages are files.
    fn lose_power(&mut self) {
        self.power_cuts += 1;
        self.state = self.stored.clone();
        self.answering = None;
        self.beside = None;
        self.downloading = None;
        self.boot += 1;
        self.reports = 0;
        self.events.clear();
        self.events.push_back(Event::Boot);
    }

    /// Holds at all times once the events are handled; while some wait, the shell is at work.
    fn check(&mut self) {
        if let Some(good) = self.stored.good() {
            self.served_once = true;
            assert!(
                self.packages.contains(&good.release),
                "the last good release is gone"
            );
        }
        assert!(
            !self.served_once || self.stored.good().is_some(),
            "a device that served forgot its good release"
        );
        if self.served_once && self.events.is_empty() {
            assert!(
                self.answering.is_some(),
                "a device that served answers with nothing"
            );
        }
    }
}

fn assignment(release: PackageId) -> SlotAssignment {
    SlotAssignment {
        slot: SlotName::new("pump").expect("is a slot's name"),
        desired: Desired::Serve {
            release,
            length: 1_000,
        },
        also_baseline: None,
        trial: TrialLimits {
            secs_min: 60,
            rows_min: 100,
            secs_max: 600,
            error_share_max_ppm: 10_000,
            nonfinite_share_max_ppm: 0,
            worker_deaths_max: 1,
            latency_us_p99_max: None,
            shadow: Some(ShadowLimits {
                secs_min: 30,
                rows_min: 100,
                disagree_share_max_ppm: 20_000,
            }),
            drift: None,
        },
        rollout: None,
        ordered_back: false,
        treated: None,
    }
}

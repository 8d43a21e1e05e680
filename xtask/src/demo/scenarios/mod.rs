//! The eight scenarios, and what each has to show.
//!
//! | module | scenarios |
//! |---|---|
//! | `releases` | a good release, one trained on the wrong slice, one that lost its scaling, one that fails in the field |
//! | `attacks` | packages that devices refuse although the server offers them |
//! | `readings` | one sensor that jumps, a world that moves |
//! | `crash` | a server that is killed in mid-rollout |
//! | `rollout` | following one rollout, and reading it |

mod attacks;
mod crash;
mod readings;
mod releases;
mod rollout;

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{
    example::{self, Package, RELEASES},
    feed::{Feed, Source},
    fleet::{DEVICES, Fleet, SLOT},
    stream,
    view::View,
};

/// Between two looks at something that is waited for.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// Slots other than the demo's, for a package that was approved for it.
const OTHER_SLOT: &str = "vibration";

/// One scenario, played.
pub(crate) struct Act {
    /// Its letter.
    pub(crate) letter: char,
    /// What it shows.
    pub(crate) title: &'static str,
    /// Each outcome that has to be there, and whether it was.
    pub(crate) checks: Vec<(String, bool)>,
    /// The figures that decided it.
    pub(crate) figures: String,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Act {
    /// Whether something was checked, and all of it was there.
    pub(crate) fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|(_, passed)| *passed)
    }

    /// Notes an outcome, and shows it.
    fn check(&mut self, view: &View, passed: bool, what: impl Into<String>) {
        let what = what.into();
        view.checked(passed, &what);
        self.checks.push((what, passed));
    }
}

/// Everything that the scenarios play with.
pub(crate) struct Play<'a> {
    /// The applications. They end before the agents that they ask.
    pub(crate) feed: Feed,
    /// The programs.
    pub(crate) fleet: Fleet,
    view: &'a View,
    releases: Vec<Package>,
    attacks: Attacks,
}

/// Packages that no device may run.
struct Attacks {
    one_approval: Package,
    other_slot: Package,
    revoked: Package,
}

impl<'a> Play<'a> {
    /// Packs, approves and publishes the releases, and starts the applications.
    pub(crate) fn prepare(view: &'a View, fleet: Fleet) -> anyhow::Result<Self> {
        view.progress(0, RELEASES + 3, "packages are packed and approved");
        view.say(
            "operator",
            "packs five releases and three packages that nobody should run; alice and bob read cards and golden \
             results, and sign",
        );
        let (releases, attacks) = pack_all(&fleet)?;
        view.progress(
            RELEASES + 3,
            RELEASES + 3,
            "packages are packed and approved",
        );
        for package in &releases {
            fleet.cli(["publish".as_ref(), package.path.as_os_str()])?;
        }
        let shares = stream::deal(&example::folder(), DEVICES)?;
        let sources = fleet
            .agents()
            .iter()
            .zip(shares)
            .map(|(agent, rows)| Source {
                device: agent.name().to_owned(),
                api: agent.api().to_owned(),
                slot: SLOT.to_owned(),
                rows,
            });
        let feed = Feed::start(sources.collect());
        view.say(
            "field",
            "each device gets its own share of the stream, 100 readings a second",
        );
        Ok(Self {
            feed,
            fleet,
            view,
            releases,
            attacks,
        })
    }

    /// Release by the number that `train.py` gave it.
    fn release(&self, number: usize) -> &Package {
        &self.releases[number - 1]
    }

    /// The number of the release with this id, for people.
    fn name_of(&self, id: &str) -> String {
        match self.releases.iter().position(|package| package.id == id) {
            Some(place) => format!("release {}", place + 1),
            None if id.is_empty() => "nothing".to_owned(),
            None => id.chars().take(12).collect(),
        }
    }

    /// The example's policy.
    fn policy(&self) -> PathBuf {
        example::folder().join("policy.toml")
    }

    /// Looks again and again until something is found, for so long at most. `None`: it was not.
    fn wait<T>(
        &self,
        secs_max: u64,
        mut look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        let deadline = Instant::now() + Duration::from_secs(secs_max);
        loop {
            if self.view.interrupted() {
                bail!("interrupted");
            }
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(LOOK_PERIOD);
        }
    }

    /// Waits until each agent itself says that it serves this release.
    fn all_serve(&self, package: &Package, secs_max: u64) -> anyhow::Result<bool> {
        let name = self.name_of(&package.id);
        let found = self.wait(secs_max, || {
            let serving = self.fleet.serving();
            let there = serving.values().filter(|id| **id == package.id).count();
            self.view
                .progress(there, DEVICES, &format!("devices serve {name}"));
            Ok((there == DEVICES).then_some(()))
        })?;
        Ok(found.is_some())
    }

    /// Waits until the server, too, knows that each device serves this release.
    fn server_knows(&self, package: &Package, secs_max: u64) -> anyhow::Result<bool> {
        let found = self.wait(secs_max, || {
            let devices = self.fleet.cli(["device", "list"])?;
            let serves = |device: &Value| {
                let slots = device["slots"].as_array().map_or(&[][..], Vec::as_slice);
                slots
                    .iter()
                    .any(|slot| slot["slot"] == SLOT && slot["serving"] == package.id)
            };
            let there = devices
                .as_array()
                .into_iter()
                .flatten()
                .filter(|it| serves(it))
                .count();
            self.view
                .progress(there, DEVICES, "devices, as the server knows them");
            Ok((there == DEVICES).then_some(()))
        })?;
        Ok(found.is_some())
    }
}

type Scenario = (
    char,
    &'static str,
    &'static str,
    fn(&mut Play<'_>, &mut Act) -> anyhow::Result<()>,
);

const SCENARIOS: [Scenario; 8] = [
    (
        'a',
        "A good release goes out in stages",
        "Two persons approved release 1. It goes to 3 devices, to 6, to all but a holdout of 2, then to all; each \
         device checks the approvals itself, proves the model on golden vectors, and tries it before it commits.",
        releases::good,
    ),
    (
        'b',
        "A release trained on the wrong slice comes back by itself",
        "Release 2 looks excellent on its own held-out rows, but these and its training rows are one quarter of what \
         the field sees. Only a comparison with devices that still run release 1 at the same moment tells.",
        releases::wrong_slice,
    ),
    (
        'c',
        "An export that lost its scaling never answers",
        "Release 3 was exported without its scaling, and packed all the same. Its golden vectors were answered by \
         scikit-learn, so every device finds out before the application is answered by it.",
        releases::lost_scaling,
    ),
    (
        'd',
        "A release that fails in the field is taken back by the devices",
        "Release 4 passes its golden vectors, but takes the logarithm of a reading that goes lower in the field than \
         in its training extract: 2 rows in 100 become NaN. Devices on trial do not wait for the server.",
        releases::fails_in_the_field,
    ),
    (
        'e',
        "One sensor jumps: that device is flagged, nothing is rolled back",
        "On one device channels V7 to V9 jump to ten times their value, as after an exchange of a sensor with other units.",
        readings::one_sensor,
    ),
    (
        'f',
        "Devices defend themselves against a server that misbehaves",
        "The server is started again and told to offer what it would refuse: a package with one approval, one that was \
         approved for another slot, and a revoked one.",
        attacks::refused_by_devices,
    ),
    (
        'g',
        "The world moves: retraining is asked for, no release is blamed",
        "Release 5 is on 3 devices when the inputs of the whole fleet move. Devices with the new release and devices \
         with the old one see it alike.",
        readings::the_world,
    ),
    (
        'h',
        "The server is killed in mid-rollout, and the rollout goes on",
        "The inputs are as they were. Release 5 goes out again, and the server gets SIGKILL half-way.",
        crash::server_killed,
    ),
];

/// Plays all of them in order. What goes wrong in one is a missing outcome of that one.
pub(crate) fn all(play: &mut Play<'_>) -> anyhow::Result<Vec<Act>> {
    let mut acts = Vec::new();
    for (letter, title, story, scenario) in SCENARIOS {
        let begun = Instant::now();
        let mut act = Act {
            letter,
            title,
            checks: Vec::new(),
            figures: String::new(),
            took: Duration::ZERO,
        };
        play.view.title(letter, title, story);
        let result = scenario(play, &mut act);
        if play.view.interrupted() {
            bail!("interrupted");
        }
        if let Err(error) = result {
            act.check(play.view, false, format!("{error:#}"));
            play.put_right();
        }
        act.took = begun.elapsed();
        acts.push(act);
    }
    Ok(acts)
}

impl Play<'_> {
    /// After a scenario that broke off: sensors as they should be, the server up, no rollout under way.
    fn put_right(&mut self) {
        self.feed.disturb(None, super::feed::Disturbance::NONE);
        if self.fleet.get("/healthz").is_err() {
            let _ = self.fleet.kill_server();
            let _ = self.fleet.start_server(&[]);
        }
        let rollouts = self.fleet.get("/v1/rollouts").unwrap_or_default();
        for rollout in rollouts.as_array().into_iter().flatten() {
            if matches!(
                rollout["state"].as_str(),
                Some("draft" | "running" | "paused")
            ) {
                let id = rollout["id"].to_string();
                let _ = self.fleet.cli([
                    "rollout",
                    "rollback",
                    &id,
                    "--reason",
                    "the scenario broke off",
                ]);
            }
        }
    }
}

fn pack_all(fleet: &Fleet) -> anyhow::Result<(Vec<Package>, Attacks)> {
    let workshop = fleet.workshop();
    let both = ["alice", "bob"];
    // Stretching a passphrase takes a processor half a second, so both processors of a small machine work.
    let (releases, attacks) = thread::scope(|scope| {
        let releases = scope.spawn(|| {
            (1..=RELEASES)
                .map(|number| {
                    let package = workshop.pack(number)?;
                    workshop.approve(&package, &both, SLOT)?;
                    Ok(package)
                })
                .collect::<anyhow::Result<Vec<_>>>()
        });
        let attacks = scope.spawn(|| {
            let one_approval = workshop.pack_as(5, "2.0.0", "one-approval")?;
            workshop.approve(&one_approval, &both[..1], SLOT)?;
            let other_slot = workshop.pack_as(5, "2.1.0", "other-slot")?;
            workshop.approve(&other_slot, &both, OTHER_SLOT)?;
            let revoked = workshop.pack_as(5, "2.2.0", "revoked")?;
            workshop.approve(&revoked, &both, SLOT)?;
            anyhow::Ok(Attacks {
                one_approval,
                other_slot,
                revoked,
            })
        });
        (releases.join(), attacks.join())
    });
    let releases = releases.ok().context("packing panicked")??;
    Ok((releases, attacks.ok().context("packing panicked")??))
}

/// A text field, empty if it is not there.
fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

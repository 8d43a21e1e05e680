//! Following one rollout: its decisions as the server wrote them, its devices as they tell, and its end.

use std::{cell::RefCell, collections::BTreeSet, path::Path};

use serde_json::Value;

use super::{Package, Play, text};
use crate::demo::fleet::SLOT;

/// Devices tell within a second or two; a laden machine takes longer.
const TOLD_SECS_MAX: u64 = 15;

/// One rollout that was started here.
pub(super) struct Rollout {
    /// Its id.
    pub(super) id: u64,
    /// What of it was shown already.
    shown: RefCell<BTreeSet<String>>,
}

/// A rollout at one moment, as the REST API tells.
pub(super) struct Standing {
    /// `running`, `complete`, `rolled_back`, …
    pub(super) state: String,
    /// Each device of the cohort.
    pub(super) devices: Vec<Value>,
    /// Every decision so far, oldest first.
    pub(super) decisions: Vec<Value>,
}

impl Standing {
    /// Whether nothing more will come of it.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.state.as_str(), "draft" | "running")
    }

    /// The devices in the treated arm.
    pub(super) fn treated(&self) -> Vec<&Value> {
        self.devices
            .iter()
            .filter(|device| device["arm"] == "treated")
            .collect()
    }

    /// Decisions of this name, oldest first.
    pub(super) fn decided<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Value> {
        self.decisions
            .iter()
            .filter(move |decision| decision["decision"] == name)
    }
}

impl Play<'_> {
    /// Makes a rollout and starts it, with the operator's command.
    pub(super) fn roll_out(&self, package: &Package, policy: &Path) -> anyhow::Result<Rollout> {
        let arguments = [
            "rollout",
            "new",
            "--release",
            &package.id,
            "--slot",
            SLOT,
            "--cohort",
            "class=pump",
        ];
        let arguments = arguments
            .iter()
            .map(AsRef::as_ref)
            .chain(["--policy".as_ref(), policy.as_os_str()]);
        let made = self.fleet.cli(arguments)?;
        let id = made["id"]
            .as_u64()
            .ok_or_else(|| anyhow::anyhow!("`rollout new` names no id"))?;
        self.fleet
            .cli(["rollout", "start", &id.to_string(), "--reason", "the demo"])?;
        let name = self.name_of(&package.id);
        self.view.say(
            "operator",
            &format!("starts rollout {id} of {name} to all pumps"),
        );
        Ok(Rollout {
            id,
            shown: RefCell::default(),
        })
    }

    /// Takes a rollout back, with the operator's command.
    pub(super) fn take_back(&self, rollout: &Rollout, reason: &str) -> anyhow::Result<()> {
        self.fleet.cli([
            "rollout",
            "rollback",
            &rollout.id.to_string(),
            "--reason",
            reason,
        ])?;
        self.view.say(
            "operator",
            &format!("takes rollout {} back: {reason}", rollout.id),
        );
        Ok(())
    }

    /// Follows a rollout until something is so, for so long at most; gives how it stands then. Whether it is so is
    /// for the caller to check.
    pub(super) fn follow(
        &self,
        rollout: &Rollout,
        secs_max: u64,
        mut until: impl FnMut(&Standing) -> bool,
    ) -> anyhow::Result<Standing> {
        let mut last = None;
        self.wait(secs_max, || {
            let standing = self.standing(rollout)?;
            self.show(rollout, &standing);
            let there = until(&standing);
            last = Some(standing);
            Ok(there.then_some(()))
        })?;
        last.ok_or_else(|| anyhow::anyhow!("rollout {} was never read", rollout.id))
    }

    /// How a rollout stands now.
    pub(super) fn standing(&self, rollout: &Rollout) -> anyhow::Result<Standing> {
        let status = self.fleet.get(&format!("/v1/rollouts/{}", rollout.id))?;
        let decisions = self
            .fleet
            .get(&format!("/v1/rollouts/{}/decisions", rollout.id))?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut decisions = list(&decisions);
        // The API gives the latest first.
        decisions.reverse();
        Ok(Standing {
            state: text(&status, "state").to_owned(),
            devices: list(&status["device_states"]),
            decisions,
        })
    }

    /// What treated devices told of a release, as `bellwether why` has it: sentences with the device's name, of
    /// those outcomes that have these words. Waits until `devices` have told it.
    pub(super) fn told(
        &self,
        rollout: &Rollout,
        package: &Package,
        words: &str,
        devices: usize,
    ) -> anyhow::Result<Vec<String>> {
        let wanted = format!("shuttle {}", package.version);
        let mut found = Vec::new();
        self.wait(TOLD_SECS_MAX, || {
            found.clear();
            for device in self.standing(rollout)?.treated() {
                let name = text(device, "device");
                let why = self.fleet.cli(["why", name, "--slot", SLOT])?;
                let steps = why["chain"].as_array().map_or(&[][..], Vec::as_slice);
                let step = steps.iter().rev().find(|step| {
                    let told = text(step, "text");
                    step["kind"] == "outcome" && told.starts_with(&wanted) && told.contains(words)
                });
                found.extend(step.map(|step| format!("{name}: {}", text(step, "text"))));
            }
            self.view
                .progress(found.len(), devices, "devices have told why");
            Ok((found.len() >= devices).then_some(()))
        })?;
        for sentence in &found {
            self.say_once(rollout, "device", sentence);
        }
        Ok(found)
    }

    fn say_once(&self, rollout: &Rollout, who: &str, what: &str) {
        if rollout.shown.borrow_mut().insert(what.to_owned()) {
            self.view.say(who, what);
        }
    }

    fn show(&self, rollout: &Rollout, standing: &Standing) {
        let treated = standing.treated();
        let committed = treated
            .iter()
            .filter(|device| device["outcome"]["kind"] == "committed")
            .count();
        let mut waiting = String::new();
        for decision in &standing.decisions {
            let words = text(decision, "text");
            if is_patience(decision) {
                waiting = words.to_owned();
            } else if !is_by_a_person(decision)
                && rollout
                    .shown
                    .borrow_mut()
                    .insert(format!("{} {words}", decision["at"]))
            {
                self.view
                    .say("server", &format!("{}: {words}", does(decision)));
            }
        }
        let words = format!("of the treated devices have committed; {waiting}");
        self.view.progress(committed, treated.len(), &words);
    }
}

/// Waiting with nothing to tell: the bar says it.
fn is_patience(decision: &Value) -> bool {
    decision["decision"] == "hold" && decision["figures"]["attribution"].is_null()
}

/// The operator's own orders, which were shown when they were given.
fn is_by_a_person(decision: &Value) -> bool {
    decision["figures"].is_null()
}

/// What a decision does, in words.
fn does(decision: &Value) -> String {
    match text(decision, "decision") {
        "advance" => {
            let devices = &decision["figures"]["action"]["advance"]["devices"];
            let mut names: Vec<&str> = devices
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            names.sort_unstable();
            format!("gives it to {}", names.join(", "))
        }
        "roll_back" => "takes it back".to_owned(),
        "complete" => "is done".to_owned(),
        "notify" => "holds, and tells people".to_owned(),
        "hold" => "holds".to_owned(),
        "pause" => "pauses, and waits for a person".to_owned(),
        other => other.to_owned(),
    }
}

//! From what is on disk to a device that serves: every slot resumed, and what was lost made good as
//! far as it can be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bellwether_package::{PackageId, SlotName};
use bellwether_protocol::{BootId, Phase};
use bellwether_rollout::device::{Event, State};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::slot::{self, Slot};
use super::{Agent, AgentError};
use crate::causes::with_causes;
use crate::clock;
use crate::events::Events;
use crate::fetch;
use crate::identity::Identity;
use crate::link::{self, LinkError, LinkEvent, LinkOptions, Sending};
use crate::renewal::Renewal;
use crate::status::STATUS;
use crate::store::Store;
use crate::trust;
use crate::view::DeviceView;

/// The device's identity. One that is lost does not keep a device from serving that has served:
/// then there is none, and a sentence about it.
pub(super) fn identity(
    store: &Store,
) -> Result<(Option<Arc<Identity>>, Option<String>), AgentError> {
    let usable = |identity: Identity| identity.tls().map(|_| identity);
    match Identity::load(store).and_then(usable) {
        Ok(identity) => Ok((Some(Arc::new(identity)), None)),
        Err(error) if !slot::stored(store)?.is_empty() => {
            let lost = format!("no link to the server: {}", with_causes(&error));
            tracing::error!("{lost}");
            Ok((None, Some(lost)))
        }
        Err(error) => Err(error.into()),
    }
}

impl Agent {
    /// Starts the link, and the renewal of what it shows.
    pub(super) fn connect(
        &self,
        identity: Arc<Identity>,
        boot: BootId,
        events: mpsc::Sender<LinkEvent>,
        reports: mpsc::Receiver<Sending>,
    ) -> JoinHandle<Result<(), LinkError>> {
        let (identity, identity_now) = watch::channel(identity);
        let options = LinkOptions {
            device: self.config.device.clone(),
            boot,
            identity: identity_now,
            config: self.config.link.clone(),
        };
        if let Some(remote) = &self.remote {
            let renewal = Renewal {
                device: self.config.device.clone(),
                store: self.store.clone(),
                remote: remote.clone(),
                identity,
            };
            tokio::spawn(renewal.run());
        }
        tokio::spawn(link::run(options, events, reports))
    }

    /// Loads every slot and resumes it by its rule. What served last is opened first of all, and
    /// no network is needed for it.
    pub(super) fn boot(&mut self) -> Result<(), AgentError> {
        let mut standing = BTreeMap::new();
        let mut served = BTreeMap::new();
        for view in self.left_behind().slots {
            let Ok(name) = SlotName::new(&view.slot) else {
                continue;
            };
            standing.extend(view.standing().map(|standing| (name.clone(), standing)));
            if view.phase == Phase::Serving.to_string()
                && let Some(Ok(release)) = view.serving.as_ref().map(|it| it.parse())
            {
                served.insert(name.clone(), release);
            }
            let state = State::new(name.clone());
            self.slots.insert(name, Slot::new(state, view.outcome));
        }
        let mut all_known = true;
        for name in slot::stored(&self.store)? {
            let state = slot::load(&self.store, &name).unwrap_or_else(|| {
                all_known = false;
                self.state_lost(&name, served.get(&name).copied())
            });
            let outcome = self.slots.remove(&name).and_then(|slot| slot.outcome);
            self.slots.insert(name, Slot::new(state, outcome));
        }
        self.tell_ended();
        let names: Vec<SlotName> = self.slots.keys().cloned().collect();
        for name in names {
            if !name.is_agent() {
                self.answering.resume(&name, standing.remove(&name));
            }
            self.drive(&name, Event::Boot);
        }
        // Packages of a slot whose state is lost stay: the next order finds them on disk.
        if all_known {
            self.sweep();
        }
        Ok(())
    }

    /// What an earlier run told. Without it the device serves all the same.
    fn left_behind(&mut self) -> DeviceView {
        let text = self.store.read_file(STATUS);
        let text = text.inspect_err(|error| tracing::warn!(%error, "the last status is lost"));
        let view = text.ok().flatten().and_then(|text| {
            let view: Result<DeviceView, _> = serde_json::from_slice(&text);
            view.inspect_err(|error| tracing::warn!(%error, "the last status is damaged"))
                .ok()
        });
        let mut view = view.unwrap_or_default();
        self.last_contact = view.last_contact;
        self.events = Events::of(std::mem::take(&mut view.events));
        view
    }

    /// Makes good for a slot's state that cannot be read. What served last, by what people were
    /// told, serves again. If that is not known either, it is whatever was verified for this slot
    /// first: that one has committed, or nothing ever did. It is verified anew before it serves.
    fn state_lost(&mut self, name: &SlotName, served: Option<PackageId>) -> State {
        let mut on_disk = verified(&self.store.path(fetch::FOLDER), name);
        if name.is_agent() {
            // Which of its programs runs is told elsewhere.
            on_disk.clear();
        }
        let served = served.filter(|served| on_disk.contains(served));
        let release = served.or(on_disk.first().copied());
        let text = match release {
            Some(release) => format!(
                "the state of {name} on disk is lost: it serves {} until the next order",
                release.short()
            ),
            None => format!("the state of {name} on disk is lost: it waits for the next order"),
        };
        tracing::error!("{text}");
        self.events
            .note(clock::now().0, Some(name.as_str()), text.clone());
        self.lost.get_or_insert(text);
        match release {
            Some(release) => State::found(name.clone(), release),
            None => State::new(name.clone()),
        }
    }
}

/// Releases on disk that were verified for this slot, in the order in which they were.
fn verified(folder: &Path, slot: &SlotName) -> Vec<PackageId> {
    let mut found: Vec<(SystemTime, PackageId)> = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let stem = name.split('.').next().unwrap_or_default();
        let Ok(release) = stem.parse() else { continue };
        let package = fetch::path(folder, release);
        let since = entry.metadata().and_then(|about| about.modified());
        if let Ok(since) = since
            && trust::record_path(&package, slot) == entry.path()
            && package.exists()
        {
            found.push((since, release));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, release)| release).collect()
}

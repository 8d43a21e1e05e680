//! The one task that owns the device's state.
//!
//! Everything else sends it messages through bounded channels. It asks `rollout::device::step`
//! what follows, stores the next state, and performs the actions. Whatever takes long (network,
//! hashing, proving, opening a session) is a job on another thread that ends in a message.

mod boot;
mod health;
mod jobs;
mod own;
mod perform;
mod reports;
mod sessions;
mod slot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_package::{SlotName, UnixSecs};
use bellwether_protocol::assignment::{Addressee, SLOTS_MAX};
use bellwether_protocol::{
    Ack, AssignmentError, BootId, ClockState, Documents, Health, Served, Window, decode,
    open_assignment,
};
use bellwether_rollout::device::{Action, Event, State, step};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::{self, ApiError};
use crate::causes::with_causes;
use crate::clock;
use crate::config::Config;
use crate::events::Events;
use crate::health::Sensors;
use crate::identity::IdentityError;
use crate::labels::Labels;
use crate::link::{LinkError, LinkEvent, Sending};
use crate::notify::Manager;
use crate::outbox::Outbox;
use crate::page;
use crate::program::{Handed, Own};
use crate::readings::Topics;
use crate::remote::Remote;
use crate::serving::Slots;
use crate::store::{Store, StoreError};
use crate::trust::{Trust, TrustError};
use crate::view::DeviceView;

pub(crate) use jobs::with_a_good_disk;
use jobs::{Done, Jobs};
use slot::Slot;

pub(crate) use slot::{UnreadableSlot, stored_states};

/// Blocking threads that the agent needs beside its API's: one for the job at hand, one a slot
/// that opens a session, one to look up the broker's name, one that renews the certificate, and one
/// that waits for sensors.
pub const JOBS_MAX: usize = SLOTS_MAX + 4;
/// Messages that wait for the owner; whoever sends more waits.
const MESSAGES_MAX: usize = 64;
/// Reports handed to the link at once; the rest stays in the outbox.
const REPORTS_MAX: usize = 16;
/// How often the owner looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Pause between two looks for trust documents that the server announces: they may never come.
const REFRESH_PAUSE: Duration = Duration::from_secs(10);
/// Pause before an event is tried again whose state the disk did not take.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Longest wait of a program that took over until its slots answer again, and until then no request
/// is taken from the queue.
const OPENED_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for requests under way, beyond what one of them may take, before handing over.
const DRAINED_WITHIN: Duration = Duration::from_secs(1);

/// A program that has run for so long is well: what ended it before is forgiven.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// How the agent ended.
#[derive(Debug)]
pub enum Ending {
    /// As it was told.
    Stopped,
    /// Another of the agent's programs has to run; the sockets go to it.
    HandOver(Handed),
}

/// The agent cannot start. What was served by an earlier run is untouched.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The state folder.
    #[error("cannot use the state folder")]
    Store(#[from] StoreError),
    /// The device's identity.
    #[error("cannot use the device's identity")]
    Identity(#[from] IdentityError),
    /// The trust root.
    #[error("cannot use the device's trust root")]
    Trust(#[from] TrustError),
    /// The local API.
    #[error("cannot offer the local API")]
    Api(#[from] ApiError),
    /// What the server gave for the link.
    #[error("cannot set up the link to the server")]
    Link(#[from] LinkError),
    /// No random numbers, which boot ids and back-off need.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// Tasks of the agent ended; a fault of ours.
    #[error("a part of the agent ended by itself; start it again and report this")]
    Ended,
}

/// What the owner is told.
#[derive(Debug)]
enum Message {
    Link(LinkEvent),
    Done(Box<Done>),
    Opened(Box<slot::Opened>),
    Windows(Vec<Window>),
    Measured(Box<health::Measured>),
}

/// The owner.
struct Agent {
    config: Arc<Config>,
    /// Which program this is.
    own: Own,
    /// Whether another one has to run.
    hands_over: bool,
    /// When its earlier starts are forgiven.
    well_at: Option<Instant>,
    store: Arc<Store>,
    /// None while the device has no identity to show.
    remote: Option<Remote>,
    trust: Arc<Trust>,
    outbox: Outbox,
    answering: Arc<Slots>,
    labels: Arc<Labels>,
    slots: BTreeMap<SlotName, Slot>,
    jobs: Jobs,
    /// Away while they are being read.
    sensors: Option<Sensors>,
    /// Since the last health record.
    served: Served,
    messages: mpsc::Sender<Message>,
    reports: mpsc::Sender<Sending>,
    view: watch::Sender<DeviceView>,
    poke: Arc<Notify>,
    connected: bool,
    last_contact: Option<u64>,
    trouble: Option<String>,
    /// What this start found to be lost; told until the next one.
    lost: Option<String>,
    trust_unsaved: bool,
    events: Events,
    topics: Topics,
    manager: Manager,
    health: Option<(Health, UnixSecs)>,
    /// An assignment that waits for a newer trust root.
    unopened: Option<Vec<u8>>,
    /// An assignment that has expired by a clock that may be wrong.
    expired: Option<Vec<u8>>,
    // A clock that is set must not hold these back, so they do not look at it.
    windows_at: Instant,
    health_at: Instant,
    refresh_at: Instant,
    refreshed_at: Option<Instant>,
    outbox_full: bool,
}

/// Runs the agent until `stopped` ends, or another of its programs has to run, and tells `manager`
/// how that goes. `handed` are the sockets of the program before.
///
/// # Errors
///
/// [`AgentError`] when it cannot start. Once it serves, only a fault of ours ends it.
pub async fn run(
    config: Config,
    own: Own,
    handed: Handed,
    manager: Manager,
    stopped: impl Future<Output = ()>,
) -> Result<Ending, AgentError> {
    let store = Arc::new(Store::open(&config.state_dir)?);
    clock::load(&store);
    let (identity, lost) = boot::identity(&store)?;
    let trust = Arc::new(Trust::load(&store)?);
    let boot = BootId(getrandom::u64().map_err(AgentError::Random)?);
    let outbox = Outbox::open(&store.path("outbox"), boot)?;
    let taken_over = handed.tcp.is_some();
    let listeners = api::bind(&config, &store, handed).await?;
    let handed = listeners.copies();
    let remote = identity.as_ref().map(|identity| {
        let tls = identity.tls()?;
        Ok::<_, IdentityError>(Remote::new(&identity.server.https, tls))
    });
    let remote = remote.transpose()?;
    let (messages, mut inbox) = mpsc::channel(MESSAGES_MAX);
    let (link_events, mut from_link) = mpsc::channel(MESSAGES_MAX);
    let (reports, to_link) = mpsc::channel(REPORTS_MAX);
    let (view, seen) = watch::channel(DeviceView::default());
    let now = Instant::now();
    tracing::info!(device = %config.device, %boot, "agent starts");
    let mut agent = Agent {
        windows_at: now + secs(config.report.window_secs),
        // The first health record tells the server that the device is there.
        health_at: now,
        refresh_at: now,
        refreshed_at: None,
        config: Arc::new(config),
        own,
        hands_over: false,
        well_at: Some(now + WELL_AFTER),
        store,
        remote,
        trust,
        outbox,
        answering: Arc::new(Slots::default()),
        labels: Arc::new(Labels::new(boot.0)),
        slots: BTreeMap::new(),
        jobs: Jobs::default(),
        sensors: Some(Sensors::default()),
        served: Served::default(),
        messages,
        reports,
        view,
        poke: Arc::new(Notify::new()),
        connected: false,
        last_contact: None,
        trouble: None,
        lost,
        trust_unsaved: false,
        events: Events::default(),
        topics: Topics::default(),
        manager,
        health: None,
        unopened: None,
        expired: None,
        outbox_full: false,
    };
    let link = match identity {
        Some(identity) => agent.connect(identity, boot, link_events, to_link),
        None => tokio::spawn(std::future::pending()),
    };
    agent.boot()?;
    agent.topics = agent.listen_to_topics();
    agent.settle();
    let router = api::router(
        &agent.config.api,
        agent.answering.clone(),
        agent.labels.clone(),
        seen.clone(),
    );
    let (stop, stop_serving) = watch::channel(false);
    let mut listeners = Some(listeners);
    let mut api = None;
    let opened_until = Instant::now() + OPENED_WITHIN;
    let poke = agent.poke.clone();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stopped = std::pin::pin!(stopped);
    loop {
        if !taken_over || agent.has_opened() || Instant::now() >= opened_until {
            let ready = listeners.take();
            api = api.or(ready.map(|listeners| {
                let page = page::router(seen.clone());
                let serving = api::serve(listeners, router.clone(), page, stop_serving.clone());
                tokio::spawn(serving)
            }));
        }
        if agent.hands_over {
            break;
        }
        tokio::select! {
            () = &mut stopped => break,
            Some(message) = inbox.recv() => agent.take(message),
            Some(event) = from_link.recv() => agent.take(Message::Link(event)),
            () = poke.notified() => agent.watch(),
            _ = tick.tick() => {
                agent.tick();
                agent.tell_manager();
            }
        }
        if api.as_ref().is_some_and(JoinHandle::is_finished) {
            return Err(AgentError::Ended);
        }
        if agent.topics.any_ended() {
            return Err(AgentError::Ended);
        }
        if link.is_finished() {
            return match link.await {
                Ok(Err(error)) => Err(error.into()),
                _ => Err(AgentError::Ended),
            };
        }
        agent.settle();
    }
    let mut handing_over = agent.hands_over;
    tracing::info!(handing_over, "agent stops");
    if let Some(api) = api.filter(|_| handing_over) {
        let longest = Duration::from_millis(agent.config.limits.deadline_ms) + DRAINED_WITHIN;
        let _ = stop.send(true);
        tokio::select! {
            drained = tokio::time::timeout(longest, api) => if drained.is_err() {
                tracing::warn!("a request is cut off");
            },
            () = &mut stopped => handing_over = false,
        }
    }
    if !handing_over {
        agent.manager.stopping();
    }
    agent.topics.stop().await;
    agent.close_windows();
    agent.show(true);
    Ok(if handing_over {
        Ending::HandOver(handed)
    } else {
        Ending::Stopped
    })
}

impl Agent {
    fn take(&mut self, message: Message) {
        match message {
            Message::Link(event) => self.linked(event),
            Message::Done(done) => self.done(*done),
            Message::Opened(opened) => self.opened(*opened),
            Message::Windows(windows) => self.keep_windows(windows),
            Message::Measured(measured) => self.measured(*measured),
        }
    }

    fn linked(&mut self, event: LinkEvent) {
        if !matches!(event, LinkEvent::Down) {
            self.last_contact = Some(clock::now().0);
        }
        match event {
            LinkEvent::Up => {
                tracing::info!("link up");
                self.connected = true;
                self.outbox.link_lost();
                self.refresh_at = Instant::now();
                self.tell_statuses();
            }
            LinkEvent::Down => {
                self.connected = false;
                self.outbox.link_lost();
            }
            LinkEvent::Ack(bytes) => match decode::<Ack>(&bytes) {
                Ok(ack) => {
                    let own = ack.boot == self.outbox.boot();
                    let stored = self.outbox.acknowledge(&ack);
                    // What an earlier program has sent says nothing of this one.
                    self.heard_by_server(if own { stored } else { 0 });
                }
                Err(error) => tracing::warn!(%error, "an acknowledgement is ignored"),
            },
            LinkEvent::Assignment(bytes) => self.assigned(bytes),
            LinkEvent::Documents(bytes) => match decode::<Documents>(&bytes) {
                Ok(documents) => self.noticed(documents),
                Err(error) => tracing::warn!(%error, "a notice of documents is ignored"),
            },
        }
    }

    /// Looks for the trust documents that the server has and this device lacks: soon, and not again
    /// and again if they cannot be had or are none.
    fn noticed(&mut self, documents: Documents) {
        let newer_root = documents.root_version > self.trust.root_version();
        let newer_list = documents.revocations_version > self.trust.revocations_version();
        if newer_root || newer_list {
            let soonest = self.refreshed_at.map(|at| at + REFRESH_PAUSE);
            let now = Instant::now();
            self.refresh_at = self.refresh_at.min(soonest.unwrap_or(now).max(now));
        }
    }

    /// Opens an assignment and gives each slot its part. One that cannot be opened changes
    /// nothing.
    fn assigned(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            // The retained assignment was taken back; what serves goes on serving.
            return;
        }
        let now = clock::now();
        let to = Addressee {
            device: &self.config.device,
            root: self.trust.root_id(),
            root_version: self.trust.root_version(),
            directors: self.trust.directors(),
            // A clock that is wrong cannot tell what has expired; the sequence still can tell what
            // is old.
            now: (clock::state(self.trust.expires()) == ClockState::Plausible).then_some(now),
        };
        let assignment = match open_assignment(&bytes, &to) {
            Ok(assignment) => assignment,
            Err(error) => {
                tracing::warn!(%error, "an assignment is ignored");
                let newer_root = matches!(error, AssignmentError::EpochDiffers { found, expected }
                    if found > expected);
                if matches!(error, AssignmentError::Expired { .. }) {
                    // The server's answer tells whether it is the clock that is wrong.
                    self.expired = Some(bytes);
                    self.refresh_at = Instant::now();
                    return;
                }
                // A newer root may name another director, so either may cure it.
                if newer_root || matches!(error, AssignmentError::NotSigned) {
                    self.unopened = Some(bytes);
                    self.refresh_at = Instant::now();
                }
                return;
            }
        };
        tracing::info!(sequence = %assignment.sequence, "assignment");
        let (version, expires) = (self.trust.root_version(), self.trust.expires());
        if let Err(error) = clock::raise(&self.store, assignment.issued_at, version, expires) {
            tracing::warn!(error = %with_causes(&error), "the time floor is not kept");
        }
        for part in assignment.slots {
            let name = part.slot.clone();
            if !self.slots.contains_key(&name) {
                if self.slots.len() >= SLOTS_MAX {
                    tracing::warn!(slot = %name, "more slots than a device has; ignored");
                    continue;
                }
                self.slots
                    .insert(name.clone(), Slot::new(State::new(name.clone()), None));
            }
            let sequence = assignment.sequence;
            self.drive(
                &name,
                Event::Assigned {
                    sequence,
                    slot: part,
                },
            );
        }
    }

    /// One step of a slot's machine: store, then perform.
    fn drive(&mut self, name: &SlotName, event: Event) {
        let now = clock::now();
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        let (next, actions) = step(slot.state.clone(), &event, now);
        let told = matches!(event, Event::Told);
        if told || actions.contains(&Action::Persist) {
            if let Err(error) = slot::save(&self.store, &next) {
                self.persist_failed(name, event, &actions, &error);
                return;
            }
            self.trouble = None;
        }
        if told {
            self.outbox.let_go(name);
        }
        if let Some(slot) = self.slots.get_mut(name) {
            slot.state = next;
        }
        for action in actions {
            self.perform(name, action, now);
        }
        self.tell_status(name);
    }

    /// The disk did not take the next state, so the old one holds, and the event comes again.
    /// Only what makes the device safer is done without it: a boot would decide the same anew.
    fn persist_failed(
        &mut self,
        name: &SlotName,
        event: Event,
        actions: &[Action],
        error: &StoreError,
    ) {
        tracing::error!(slot = %name, error = %with_causes(error), "cannot keep the slot's state");
        self.trouble = Some(error.to_string());
        for action in actions {
            if !name.is_agent()
                && matches!(
                    action,
                    Action::Serve { trial: false, .. } | Action::StopServing { .. }
                )
            {
                self.perform(name, action.clone(), clock::now());
            }
        }
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        // A candidate may not answer before that is on disk; what is good may.
        let resumes = event == Event::Boot && slot.wanted.is_none();
        let good = slot
            .state
            .good()
            .filter(|_| resumes && slot.state.disabled().is_none());
        let good = good.map(|good| Action::Serve {
            release: good.release,
            also_baseline: good.also_baseline,
            trial: false,
            shadow: None,
        });
        // The clock is looked at every second anyway.
        if event != Event::Tick {
            slot.retry_later(event);
        }
        slot.retry_at = Some(Instant::now() + RETRY_AFTER);
        if let Some(serve) = good {
            self.perform(name, serve, clock::now());
        }
    }

    /// Tells the machines what the application's requests have shown.
    fn watch(&mut self) {
        let names: Vec<SlotName> = self.slots.keys().cloned().collect();
        for name in names {
            let watched = self.slots.get(&name).map(Slot::watched);
            for (release, traffic, deaths) in watched.into_iter().flatten() {
                for how in deaths {
                    self.served.worker_deaths = self.served.worker_deaths.saturating_add(1);
                    tracing::warn!(slot = %name, release = %release.short(), %how, "worker died");
                    let text = format!("its worker {how}");
                    self.events.note(clock::now().0, Some(name.as_str()), text);
                    self.drive(&name, Event::WorkerDied { release, how });
                }
                if traffic.rows > 0 || traffic.rows_compared > 0 {
                    self.drive(&name, Event::Traffic { release, traffic });
                }
            }
        }
    }

    /// Tells the machine whether a candidate on trial sees or answers otherwise than it promised.
    fn look(&mut self, name: &SlotName) {
        if let Some((release, look)) = self.slots.get(name).and_then(Slot::look) {
            self.drive(name, Event::Looked { release, look });
        }
    }

    fn tick(&mut self) {
        let now = clock::now();
        let clock = clock::state(self.trust.expires());
        self.answering.clock_is_wrong(clock == ClockState::Behind);
        self.watch();
        let names: Vec<SlotName> = self.slots.keys().cloned().collect();
        for name in &names {
            self.drive(name, Event::Tick);
            self.look(name);
            self.retry(name);
            self.reopen(name);
        }
        self.take_retired_windows(now);
        let monotonic = Instant::now();
        if monotonic >= self.windows_at {
            self.windows_at = monotonic + secs(self.window_secs());
            self.take_windows(now);
        }
        // A rollout that has begun does not wait for the end of a long window.
        self.windows_at = self.windows_at.min(monotonic + secs(self.window_secs()));
        if monotonic >= self.health_at {
            self.health_at = monotonic + secs(self.config.report.health_secs);
            self.take_health();
        }
        if monotonic >= self.refresh_at {
            let every = self.config.report.trust_secs;
            let jitter = Duration::from_secs(jitter_secs(u64::from(every) / 4));
            self.refresh_at = monotonic + secs(every) + jitter;
            self.refreshed_at = Some(monotonic);
            self.jobs.refresh();
        }
        self.save_unsaved();
        self.save_trust();
        self.show_life();
    }

    /// How long a window is: shorter while a rollout tries something on this device.
    fn window_secs(&self) -> u32 {
        let report = &self.config.report;
        if self.slots.values().any(|slot| slot.state.is_treated()) {
            report.window_secs.min(report.rollout_window_secs)
        } else {
            report.window_secs
        }
    }

    fn retry(&mut self, name: &SlotName) {
        let Some(slot) = self.slots.get_mut(name) else {
            return;
        };
        if slot.retry_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        slot.retry_at = None;
        let mut events = std::mem::take(&mut slot.retries);
        while let Some(event) = events.pop_front() {
            self.drive(name, event);
            let Some(slot) = self.slots.get_mut(name) else {
                return;
            };
            if slot.retry_at.is_some() {
                // The disk still refuses: the rest follows in its order.
                slot.retries.append(&mut events);
            }
        }
    }

    fn listen_to_topics(&self) -> Topics {
        let Config {
            device, readings, ..
        } = &*self.config;
        Topics::start(device, readings, &self.answering, &self.labels)
    }

    /// After every message: start the next job, send what is due, show what changed.
    fn settle(&mut self) {
        self.start_job();
        self.send_due();
        self.show(false);
    }
}

fn secs(secs: u32) -> Duration {
    Duration::from_secs(secs.into())
}

/// A random number of seconds up to `secs_max`.
fn jitter_secs(secs_max: u64) -> u64 {
    getrandom::u64().unwrap_or(0) % (secs_max + 1)
}

//! Work that takes long, one piece at a time, off the owner's thread.
//!
//! One at a time, because a device has one network and little memory to spare; each slot has at
//! most one piece waiting, since its machine is in one state.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellwether_package::{PackageId, SlotName};
use bellwether_protocol::Refusal;
use bellwether_rollout::device::Event;

use crate::causes::with_causes;
use crate::clock;
use crate::config::Config;
use crate::fetch::{self, FetchError};
use crate::program::{self, Unready};
use crate::proving;
use crate::remote::Remote;
use crate::trust::{Trust, Unverified};

/// Attempts to verify a package that the disk does not give, or whose verification it does not
/// take.
const DISK_ATTEMPTS: u32 = 4;
/// Pause between two of them.
const DISK_PAUSE: Duration = Duration::from_secs(3);

/// A piece of work.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Whose machine asked for it; none for the agent's own.
    pub(super) slot: Option<SlotName>,
    pub(super) release: Option<PackageId>,
    pub(super) work: Work,
    pub(super) not_before: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Download a package of `length` bytes.
    Fetch { length: u64 },
    /// Renew the trust documents, then verify the package on disk.
    Check,
    /// Run the golden vectors.
    Prove,
    /// Renew the trust documents.
    Refresh,
}

/// What the owner gets back.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) job: Job,
    /// Trust documents, if the server had newer ones.
    pub(super) newer: Option<Trust>,
    /// What the slot's machine is told, if anything.
    pub(super) event: Option<Event>,
}

/// What a job may use.
pub(super) struct World {
    pub(super) trust: Arc<Trust>,
    pub(super) config: Arc<Config>,
    /// None while the device has no identity to show.
    pub(super) remote: Option<Remote>,
    pub(super) folder: PathBuf,
    pub(super) config_path: PathBuf,
}

/// What waits and what is under way.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: Vec<Job>,
    running: Option<(Job, Arc<AtomicBool>)>,
}

impl Jobs {
    /// Queues a job in place of any that the slot has waiting, and ends the one that is under
    /// way for it: its machine has moved on.
    pub(super) fn queue(&mut self, job: Job) {
        if let Some((running, cancelled)) = &self.running
            && running.slot == job.slot
        {
            cancelled.store(true, Ordering::Relaxed);
        }
        self.waiting.retain(|waiting| waiting.slot != job.slot);
        self.waiting.push(job);
    }

    /// Queues a renewal of the trust documents, unless one waits.
    pub(super) fn refresh(&mut self) {
        if !self.waiting.iter().any(|job| job.work == Work::Refresh) {
            let not_before = Instant::now();
            let job = Job {
                slot: None,
                release: None,
                work: Work::Refresh,
                not_before,
            };
            self.waiting.insert(0, job);
        }
    }

    /// Ends and forgets the slot's work for `release`.
    pub(super) fn cancel(&mut self, slot: &SlotName, release: PackageId) {
        let theirs = |job: &Job| job.slot.as_ref() == Some(slot) && job.release == Some(release);
        self.waiting.retain(|job| !theirs(job));
        if let Some((running, cancelled)) = &self.running
            && theirs(running)
        {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// The next job that is due, if none is under way.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Job, Arc<AtomicBool>)> {
        if self.running.is_some() {
            return None;
        }
        let due = self.waiting.iter().position(|job| job.not_before <= now)?;
        let job = self.waiting.remove(due);
        let cancelled = Arc::new(AtomicBool::new(false));
        self.running = Some((job.clone(), cancelled.clone()));
        Some((job, cancelled))
    }

    pub(super) fn ended(&mut self) {
        self.running = None;
    }

    /// The release whose file the job under way reads or writes.
    pub(super) fn release(&self) -> Option<PackageId> {
        self.running.as_ref().and_then(|(job, _)| job.release)
    }
}

/// Does the work. Blocking.
pub(super) fn work(job: Job, world: &World, cancelled: &AtomicBool) -> Done {
    let (newer, event) = match (&job.slot, job.release, job.work) {
        (Some(_), Some(release), Work::Fetch { length }) => {
            (None, fetch(release, length, world, cancelled))
        }
        (Some(slot), Some(release), Work::Check) => {
            let newer = refresh(world);
            let trust = newer.as_ref().unwrap_or(&world.trust);
            let checked = check(slot, release, trust, world);
            (newer, Some(checked))
        }
        (Some(slot), Some(release), Work::Prove) => (None, Some(prove(slot, release, world))),
        _ => (refresh(world), None),
    };
    Done { job, newer, event }
}

fn fetch(release: PackageId, length: u64, world: &World, cancelled: &AtomicBool) -> Option<Event> {
    let limits = &world.config.limits;
    let Some(remote) = &world.remote else {
        return Some(Event::FetchFailed { release });
    };
    match fetch::fetch(remote, &world.folder, release, length, limits, cancelled) {
        Ok(()) => Some(Event::Fetched { release }),
        Err(FetchError::Cancelled) => None,
        Err(FetchError::NoSpace { bytes, bytes_free }) => {
            tracing::warn!(release = %release.short(), bytes, bytes_free, "no space; tried again");
            Some(Event::NoSpace {
                release,
                bytes,
                bytes_free,
            })
        }
        Err(FetchError::Refused(why)) => {
            tracing::warn!(release = %release.short(), %why, "download refused");
            Some(Event::Refused { release, why })
        }
        Err(error) => {
            let release_short = release.short();
            tracing::warn!(release = %release_short, error = %with_causes(&error), "download");
            Some(Event::FetchFailed { release })
        }
    }
}

fn check(slot: &SlotName, release: PackageId, trust: &Trust, world: &World) -> Event {
    if slot.is_agent() {
        return match program::verified(slot, release, trust, &world.config) {
            Ok(_) => Event::Checked { release },
            Err(Unready::Refused(why)) => Event::Refused { release, why },
            Err(Unready::NoSpace { bytes, bytes_free }) => Event::NoSpace {
                release,
                bytes,
                bytes_free,
            },
        };
    }
    let attributes = world.config.attributes();
    let path = fetch::path(&world.folder, release);
    let verify = || trust.verify_new(&path, release, slot, &attributes, clock::now());
    match with_a_good_disk(verify).map_err(|unverified| unverified.refusal()) {
        Ok(_) => Event::Checked { release },
        Err(Refusal::NoSpace { bytes, bytes_free }) => Event::NoSpace {
            release,
            bytes,
            bytes_free,
        },
        Err(why) => Event::Refused { release, why },
    }
}

/// An order is not given up because the disk errs for a while. Blocking.
///
/// # Errors
///
/// What it still says after [`DISK_ATTEMPTS`].
pub(crate) fn with_a_good_disk<T>(
    mut verify: impl FnMut() -> Result<T, Unverified>,
) -> Result<T, Unverified> {
    for _ in 1..DISK_ATTEMPTS {
        match verify() {
            Err(Unverified::Disk(error)) => {
                tracing::warn!(%error, "the disk fails over a package; once more");
                std::thread::sleep(DISK_PAUSE);
            }
            result => return result,
        }
    }
    verify()
}

fn prove(slot: &SlotName, release: PackageId, world: &World) -> Event {
    let path = fetch::path(&world.folder, release);
    let proved = if slot.is_agent() {
        program::prove(&world.config.state_dir, release, &world.config_path)
    } else {
        proving::prove(&path, release, slot, &world.trust, &world.config)
    };
    match proved {
        Ok(()) => Event::Proved { release },
        Err(why) => Event::ProofFailed { release, why },
    }
}

/// Newer trust documents, if the server has any. An unreachable server is no fault: what the
/// device has is judged by its own expiry.
fn refresh(world: &World) -> Option<Trust> {
    world.trust.renewed(world.remote.as_ref()?)
}

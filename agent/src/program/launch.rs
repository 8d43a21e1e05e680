//! Starting the program that should run, and watching over one on trial from outside.
//!
//! ```text
//!  installed ─ run ─▶ launcher ─ reads the record ─┬─ be the agent
//!                        ▲                         ├─ become the good program (exec)
//!                        │ ended, or killed        └─ start the candidate, watch it, as its parent
//!                        └─────────────────────────────────┘
//! ```
//!
//! An agent that hands over becomes a launcher again: the process stays, so no service manager has
//! to know. The launcher holds the sockets on which applications ask for as long as it watches.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bellwether_package::PackageId;
use bellwether_protocol::WorkerDeath;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::files::worker_path;
use super::handed::Heard;
use super::record::{Next, Record, Started};
use super::self_test::death;
use super::{AS_RELEASE, Beat, HANDED, Handed, INSTALLED, Own, WATCHED_BY};
use crate::agent::{self, AgentError, Ending};
use crate::config::{Config, ConfigError};
use crate::notify::{self, Manager, Surroundings};
use crate::owner::{self, NotRoots};
use crate::store::Store;

/// What a watched program exits with when another one has to be started.
pub const HAND_OVER: u8 = 86;
/// Longest wait in seconds for a sign of life of a program on trial, which gives one each second;
/// no longer than the trial itself.
const SILENCE_SECS_MAX: u32 = 60;
/// A trial that its own program does not end is ended from outside so long after its time.
const OVERTIME_SECS: u64 = 120;
/// Longest wait for a program that was asked to end; service managers wait a little longer.
const GOODBYE_WITHIN: Duration = Duration::from_secs(20);
/// Longest wait for work under way when the agent ends: a download is resumed.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);
/// What the service manager is told of a program that is watched, until that one says how it is.
const SENTENCE: &str = "Watches over an agent that took over.";
/// Decisions of one launcher at most: a trial's starts, and those that cannot be carried out.
const DECISIONS_MAX: usize = 16;

/// Nothing can be run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The configuration.
    #[error("cannot use the configuration")]
    Config(#[from] ConfigError),
    /// The state folder is another user's.
    #[error(transparent)]
    Owner(#[from] NotRoots),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The agent's threads.
    #[error("cannot start the agent's threads")]
    Threads(#[source] std::io::Error),
    /// Another program.
    #[error("cannot start {}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Our mistake.
    #[error("no program to run was found in {DECISIONS_MAX} attempts; report this")]
    Undecided,
}

/// Reads the configuration; a release's agent runs the worker that came with it.
///
/// # Errors
///
/// [`ConfigError`].
pub fn configured(path: &Path) -> Result<Config, ConfigError> {
    let mut config = Config::read(path)?;
    if let Some(release) = as_release() {
        config.worker = worker_path(&config.state_dir, release);
    }
    Ok(config)
}

fn as_release() -> Option<PackageId> {
    std::env::var(AS_RELEASE).ok()?.parse().ok()
}

/// Runs the agent, or whichever program should. Says what to exit with.
///
/// # Errors
///
/// [`LaunchError`] when there is nothing to run.
pub fn run(config_path: &Path) -> Result<u8, LaunchError> {
    let config = configured(config_path)?;
    owner::check(&config.state_dir)?;
    let launcher = Launcher {
        config,
        config_path: config_path.to_owned(),
        me: as_release(),
        installed: std::env::var_os(INSTALLED)
            .map(PathBuf::from)
            .or_else(|| std::env::current_exe().ok()),
        watched_by: std::env::var(WATCHED_BY)
            .ok()
            .and_then(|pid| pid.parse().ok()),
    };
    let handed = match std::env::var_os(HANDED) {
        Some(_) => Handed::from_stdin().unwrap_or_else(|error| {
            tracing::warn!(%error, "no sockets were handed over; new ones are made");
            Handed::default()
        }),
        None => Handed::default(),
    };
    launcher.run(handed)
}

struct Launcher {
    config_path: PathBuf,
    config: Config,
    /// The release that this process was started as.
    me: Option<PackageId>,
    installed: Option<PathBuf>,
    /// The process that watches over this one.
    watched_by: Option<i32>,
}

/// How watching ended.
enum Watched {
    /// By an order to end, which was passed on.
    Stopped(ExitStatus),
    /// The program wants another one to be started, or it ended by itself; then how.
    Ended(Option<WorkerDeath>),
}

impl Launcher {
    fn run(&self, handed: Handed) -> Result<u8, LaunchError> {
        if let Some(parent) = self.watched_by {
            if !outlived_by(parent) {
                return Ok(HAND_OVER);
            }
            return self.run_agent(handed);
        }
        let store = Store::reader(&self.config.state_dir);
        let mut has_watched = false;
        for _ in 0..DECISIONS_MAX {
            match self.decide(&store) {
                // Signals that were listened for while watching would be lost until the agent does.
                Next::Run if has_watched => return Err(self.become_anew(&handed)),
                Next::Run => return self.run_agent(handed),
                Next::Try(candidate) => match self.watch(&store, &candidate, &handed) {
                    Ok(Watched::Stopped(status)) => {
                        return Ok(u8::from(!status.success()));
                    }
                    Ok(Watched::Ended(how)) => {
                        has_watched = true;
                        note(&store, &candidate, how);
                    }
                    Err(error) => {
                        tracing::error!(%error, "the new program cannot be started");
                        note(&store, &candidate, Some(WorkerDeath::Other));
                    }
                },
                Next::Become(program) => {
                    let path = program.agent_path(&self.config.state_dir);
                    let error = self.become_it(&path, Some(program.release), &handed);
                    // Its start was counted: it is given up after a few.
                    tracing::error!(%error, program = %path.display(), "cannot be started");
                }
                Next::BecomeInstalled => {
                    let path = self.installed.clone().unwrap_or_default();
                    let source = self.become_it(&path, None, &handed);
                    return Err(LaunchError::Start { path, source });
                }
            }
        }
        Err(LaunchError::Undecided)
    }

    /// The decision, which is on disk before it is carried out. When the disk does not take it, no
    /// program is tried whose starts cannot be counted.
    fn decide(&self, store: &Store) -> Next {
        let mut record = Record::load(store);
        let before = record.clone();
        let intact = |program: &super::record::Program| program.is_intact(&self.config.state_dir);
        let next = record.next(self.me, intact);
        if record == before {
            return next;
        }
        match record.save(store) {
            Ok(()) => next,
            Err(error) => {
                tracing::error!(%error, "the start of a program cannot be counted");
                let mut untried = Record {
                    candidate: None,
                    ..before
                };
                untried.next(self.me, intact)
            }
        }
    }

    /// Is the agent, until it is told to end or hands over.
    fn run_agent(&self, handed: Handed) -> Result<u8, LaunchError> {
        let config = self.config.clone();
        let beat = self.watched_by.and_then(|_| Beat::over_stdin().ok());
        let own = Own {
            release: self.me,
            config: self.config_path.clone(),
            beat: beat.map(Arc::new),
        };
        let threads = config.api.requests_max + config.readings.len() + agent::JOBS_MAX;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(threads)
            .enable_all()
            .build()
            .map_err(LaunchError::Threads)?;
        let ending = runtime.block_on(agent::run(config, own, handed, manager(), stopped()))?;
        // A blocking download must not delay the end: what it wrote is resumed.
        runtime.shutdown_timeout(SHUTDOWN_WITHIN);
        match ending {
            Ending::Stopped => Ok(0),
            // The sockets that were handed to this process are held by whoever watches it too.
            Ending::HandOver(_) if self.watched_by.is_some() => Ok(HAND_OVER),
            Ending::HandOver(handed) => Err(self.become_anew(&handed)),
        }
    }

    /// Becomes the same program once more, with nothing left of this run but the sockets. Returns
    /// only when that fails.
    fn become_anew(&self, handed: &Handed) -> LaunchError {
        let path = own_file();
        let source = self.become_it(&path, self.me, handed);
        LaunchError::Start { path, source }
    }

    fn command(&self, program: &Path, release: Option<PackageId>) -> Command {
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--config")
            .arg(&self.config_path)
            .env_remove(AS_RELEASE)
            .env_remove(WATCHED_BY)
            .env_remove(HANDED);
        if let Some(release) = release {
            command.env(AS_RELEASE, release.to_string());
        }
        if let Some(installed) = &self.installed {
            command.env(INSTALLED, installed);
        }
        command
    }

    /// Returns only when that fails.
    fn become_it(
        &self,
        program: &Path,
        release: Option<PackageId>,
        handed: &Handed,
    ) -> std::io::Error {
        let mut command = self.command(program, release);
        // What is sent before the other side reads stays in the socket.
        match hand(&mut command, handed) {
            Ok(_ours) => command.exec(),
            Err(error) => error,
        }
    }

    /// Starts a program on trial and stays until it ends.
    fn watch(
        &self,
        store: &Store,
        candidate: &Started,
        handed: &Handed,
    ) -> std::io::Result<Watched> {
        let path = candidate.program.agent_path(&self.config.state_dir);
        tracing::info!(program = %path.display(), "starts a program on trial");
        let mut command = self.command(&path, Some(candidate.program.release));
        command.env(WATCHED_BY, OsString::from(std::process::id().to_string()));
        // The service manager hears this process alone.
        notify::VARIABLES.iter().for_each(|name| {
            command.env_remove(name);
        });
        let ours = hand(&mut command, handed)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut command = tokio::process::Command::from(command);
            let child = command.kill_on_drop(true).spawn()?;
            // The child has its own copy.
            drop(command);
            ours.set_nonblocking(true)?;
            let watch = Watch {
                child,
                life: tokio::net::UnixStream::from_std(ours)?,
                store,
                candidate,
                manager: manager(),
            };
            watch.run(&mut terminate, &mut interrupt).await
        })
    }
}

/// The file of this program; when it was replaced meanwhile, what runs is still to be had.
fn own_file() -> PathBuf {
    let named = std::env::current_exe().ok().filter(|path| path.exists());
    named.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Gives the command a socket as standard input, with `handed` in it; returns the other end.
fn hand(command: &mut Command, handed: &Handed) -> std::io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    handed.send(&ours)?;
    command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .env(HANDED, "1");
    Ok(ours)
}

/// Puts down how a program on trial ended; one that handed over has said so itself.
fn note(store: &Store, candidate: &Started, how: Option<WorkerDeath>) {
    let Some(how) = how else { return };
    let release = candidate.program.release;
    tracing::error!(release = %release.short(), %how, "a program on trial ended");
    let mut record = Record::load(store);
    record.died(release, how);
    if let Err(error) = record.save(store) {
        tracing::error!(%error, "how it ended is not kept");
    }
}

/// A program on trial, and the end of its socket.
struct Watch<'a> {
    child: tokio::process::Child,
    life: tokio::net::UnixStream,
    store: &'a Store,
    candidate: &'a Started,
    manager: Manager,
}

impl Watch<'_> {
    async fn run(
        mut self,
        terminate: &mut Signal,
        interrupt: &mut Signal,
    ) -> std::io::Result<Watched> {
        let trial = u64::from(self.candidate.secs_max) + OVERTIME_SECS;
        let trial_until = Instant::now() + Duration::from_secs(trial);
        let silence_max = self.candidate.secs_max.clamp(1, SILENCE_SECS_MAX);
        let silence_max = Duration::from_secs(silence_max.into());
        let mut silent_until = Some(Instant::now() + silence_max);
        let mut signs = [0; 1024];
        let mut heard = Heard::default();
        let mut sentence = SENTENCE.to_owned();
        let mut closed = false;
        loop {
            let until = silent_until.map(|silent| silent.min(trial_until));
            tokio::select! {
                status = self.child.wait() => return status.map(ended),
                _ = terminate.recv() => return self.stop().await.map(Watched::Stopped),
                _ = interrupt.recv() => return self.stop().await.map(Watched::Stopped),
                read = self.life.read(&mut signs), if !closed => match read {
                    Ok(length @ 1..) => {
                        sentence = heard.take(&signs[..length]).unwrap_or(sentence);
                        silent_until = silent_until.map(|_| Instant::now() + silence_max);
                        // As long as the program shows that it is alive, this process does too.
                        self.manager.alive(Instant::now().into_std(), || sentence.clone());
                    }
                    // It closed its end: its own end follows, or silence.
                    _ => closed = true,
                },
                () = sleep_until(until) => {
                    if !self.is_on_trial() {
                        // It has committed: the service manager's watchdog goes on, if there is one.
                        silent_until = None;
                        continue;
                    }
                    self.child.kill().await?;
                    return Ok(Watched::Ended(Some(WorkerDeath::Hung)));
                }
            }
        }
    }

    fn is_on_trial(&self) -> bool {
        let record = Record::load(self.store);
        let candidate = record.candidate.map(|it| it.program);
        candidate.as_ref() == Some(&self.candidate.program)
    }

    /// Passes an order to end on.
    async fn stop(&mut self) -> std::io::Result<ExitStatus> {
        self.manager.stopping();
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // One that has just ended cannot be told.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        match tokio::time::timeout(GOODBYE_WITHIN, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.child.kill().await?;
                self.child.wait().await
            }
        }
    }
}

fn manager() -> Manager {
    Manager::of(&Surroundings::of_process())
}

fn ended(status: ExitStatus) -> Watched {
    match status.code() {
        Some(code) if code == i32::from(HAND_OVER) => Watched::Ended(None),
        _ => Watched::Ended(Some(death(status))),
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Has this process end with the one that watches it: nobody would end it when it hangs. `false` if
/// that one is gone already.
fn outlived_by(parent: i32) -> bool {
    let killed = Some(rustix::process::Signal::KILL);
    if let Err(error) = rustix::process::set_parent_process_death_signal(killed) {
        tracing::warn!(%error, "this program would outlive the one that watches it");
    }
    let found = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    found == Some(parent)
}

/// Ends when the service manager or a person asks for it.
async fn stopped() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

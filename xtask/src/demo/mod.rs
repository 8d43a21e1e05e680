//! `cargo xtask demo`: the main job on real data, with real programs.
//!
//! It starts a fleet server and twelve agents from the workspace's own binaries, feeds each agent its share
//! of the Shuttle stream as an application would, and plays eight scenarios. Operators' actions go through the
//! `bellwether` command; outcomes are read back from the server's REST API, from the agents, and from what the
//! applications were answered. Whatever way it ends, its processes and its folder go with it.
//!
//! | module | owns |
//! |---|---|
//! | `programs` | building and finding the four binaries |
//! | `example` | the Shuttle example: keys, trust root, packages (`cargo xtask shuttle`) |
//! | `fleet` | the server, the agents, and the operator's command line |
//! | `rest` | reading the server's REST API |
//! | `feed` | applications that ask the agents, and what they were answered |
//! | `stream` | the rows of the Shuttle stream that stand for the field |
//! | `scenarios` | the eight scenarios, and what each has to show |
//! | `view` | what is seen of it on the terminal |

pub(crate) mod example;

mod feed;
mod fleet;
mod programs;
mod rest;
mod scenarios;
mod stream;
mod view;

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;

use fleet::Fleet;
use scenarios::Play;
use view::View;

/// How the demo is run.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Options {
    /// Leave everything up at the end, and print what to open and try next
    #[arg(long)]
    pub(crate) stay: bool,
    /// Keep the folder with logs, keys and packages
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print each event as a line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Builds, plays, checks, cleans up. An error means that an outcome is missing.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let programs = programs::build()?;
    let interrupted = watch_for_interrupts()?;
    let view = View::new(options.json, interrupted);
    let begun = Instant::now();

    let folder = tempfile::Builder::new()
        .prefix("bellwether-demo-")
        .disable_cleanup(options.keep)
        .tempdir_in(programs.folder())
        .context("no temporary folder")?;
    let result = play(options, &view, &programs, folder.path(), begun);
    if options.keep {
        view.note(&format!(
            "logs, keys and packages are kept in {}",
            folder.path().display()
        ));
    }
    let left = fleet::processes_of(folder.path());
    if !left.is_empty() {
        bail!("processes are left running: {left:?}");
    }
    result
}

fn play(
    options: &Options,
    view: &View,
    programs: &programs::Programs,
    folder: &std::path::Path,
    begun: Instant,
) -> anyhow::Result<()> {
    let mut play = Play::prepare(view, Fleet::start(view, programs, folder)?)?;
    let acts = scenarios::all(&mut play)?;
    view.summary(&acts, play.feed.totals(), begun.elapsed());
    let missing: Vec<_> = acts
        .iter()
        .filter(|act| !act.passed())
        .map(|act| act.letter)
        .collect();
    if options.stay && !view.interrupted() {
        view.stay(&play.fleet);
        while !view.interrupted() {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    if !missing.is_empty() {
        play.fleet.show_logs(view);
        bail!("outcomes are missing in scenario {missing:?}");
    }
    Ok(())
}

/// A flag that rises when the person, or the system, asks the demo to end. `ci` may run the demo in a
/// process that did so before, so the handler is installed once.
fn watch_for_interrupts() -> anyhow::Result<&'static AtomicBool> {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    static INSTALLED: OnceLock<()> = OnceLock::new();
    if INSTALLED.set(()).is_ok() {
        ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))
            .context("cannot listen for Ctrl-C")?;
    }
    Ok(&INTERRUPTED)
}

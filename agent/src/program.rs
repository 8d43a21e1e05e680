//! The agent's own programs: which of them runs, and how one hands over to the next.
//!
//! The installed program is the first, and the last resort. Others come as packages for the slot
//! `agent`, whose machine is `rollout::device` like every other slot's; this module holds what is
//! different about running them:
//!
//! | module | owns |
//! |---|---|
//! | `record` | what the launcher knows, on disk, and what it decides from that |
//! | `launch` | starting what was decided; watching over a program on trial from outside |
//! | `files` | executables on disk, checked against what was signed |
//! | `handed` | listening sockets that one program hands to the next, and its sign of life |
//! | `self_test` | what a new program does before it may run |
//!
//! Until a program has committed, the one before must be able to start again. So a program on trial
//! reads what is in the state folder and writes nothing there in another format.

mod files;
mod handed;
pub mod launch;
pub mod record;
pub mod self_test;

use std::path::PathBuf;
use std::sync::Arc;

use bellwether_package::PackageId;

pub(crate) use files::{Unready, sweep, verified};
pub use handed::{Beat, Handed};
pub(crate) use self_test::prove;

/// Names the release that a process was started as; without it, it is the installed program.
pub(crate) const AS_RELEASE: &str = "BELLWETHER_PROGRAM";
/// Names the installed program.
pub(crate) const INSTALLED: &str = "BELLWETHER_INSTALLED";
/// Names the process that watches over this one.
pub(crate) const WATCHED_BY: &str = "BELLWETHER_WATCHED_BY";
/// Says that standard input is a socket with what another program handed over.
pub(crate) const HANDED: &str = "BELLWETHER_HANDED";

/// Which program this process runs.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// Its release; `None`: the installed program.
    pub release: Option<PackageId>,
    /// The agent's configuration, for those that it starts.
    pub config: PathBuf,
    /// What shows whoever watches over this process that it is alive.
    pub beat: Option<Arc<Beat>>,
}

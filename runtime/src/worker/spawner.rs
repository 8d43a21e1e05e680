//! Starts all worker processes from one thread that never ends.
//!
//! A worker asks the kernel to be killed when its parent dies, and the kernel takes the *thread*
//! that started it for the parent. Started from a pooled thread, a worker would die whenever the
//! pool shrinks.

use std::{
    io,
    process::{Child, Command},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Starts waiting at once; more callers wait their turn.
const QUEUE: usize = 8;

struct Start {
    command: Command,
    answer: SyncSender<io::Result<Child>>,
}

static SPAWNER: Mutex<Option<SyncSender<Start>>> = Mutex::new(None);

/// Starts `command` from the spawner's thread.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    let (answer, answered) = sync_channel(1);
    spawner()?
        .send(Start { command, answer })
        .map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

fn spawner() -> io::Result<SyncSender<Start>> {
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = &*spawner {
        return Ok(sender.clone());
    }
    let (sender, starts) = sync_channel(QUEUE);
    thread::Builder::new()
        .name("bellwether-spawn".to_owned())
        .spawn(move || serve(&starts))?;
    Ok(spawner.insert(sender).clone())
}

fn serve(starts: &Receiver<Start>) {
    for Start {
        mut command,
        answer,
    } in starts
    {
        let child = command.spawn();
        // The command still holds the child's ends of socket and model: closed before anyone
        // waits for the child to close its own.
        drop(command);
        if let Err(unheard) = answer.send(child) {
            reap(unheard.0);
        }
    }
}

fn reap(child: io::Result<Child>) {
    if let Ok(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts workers has ended")
}

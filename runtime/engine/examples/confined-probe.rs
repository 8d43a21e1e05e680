//! Confines itself as a worker does, then tries what a hostile model would try, and prints what
//! came of it: a line `attempt: error number` each, 0 for success. For tests alone.
//!
//! Its argument is the lock to try: `files`, `calls`, or `all`, which is what a worker does.

// A probe that cannot get ready fails as tests do; printing is its purpose.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    fs::{self, File},
    io,
    net::TcpStream,
    num::NonZeroU32,
    os::unix::net::{UnixDatagram, UnixStream},
    process::Command,
    thread,
};

use bellwether_engine::confine::{confine, lock_calls, lock_files};
use bellwether_wire::limits::{Limits, Lock};
use nix::sys::ptrace;
use rustix::{
    process::{Pid, Signal, getppid, kill_process, set_dumpable_behavior},
    thread::set_no_new_privs,
};

const LIMITS: Limits = Limits {
    memory_bytes: 1 << 30,
    cpu_secs: 10,
    threads: NonZeroU32::new(2).unwrap(),
};

fn main() {
    let mut args = std::env::args().skip(1);
    let lock = args.next().unwrap();
    let port = args.next().unwrap().parse().unwrap();
    let file = args.next().unwrap();
    let parent = getppid().unwrap();
    set_no_new_privs(true).unwrap();
    match lock.as_str() {
        "files" => assert_ne!(lock_files().unwrap(), Lock::Absent),
        "calls" => assert!(lock_calls().unwrap()),
        "all" => {
            let (_, threads) = confine(LIMITS).unwrap();
            threads.each(|| reach_from_a_thread(&file, port));
        }
        other => panic!("no such lock: {other}"),
    }
    reach(&file, port);
    break_out(parent);
}

/// The same, from a thread that was there before the locks were whole.
fn reach_from_a_thread(file: &str, port: u16) {
    let current = thread::current();
    let name = current.name().unwrap();
    tell(&format!("{name}: read a file"), File::open(file));
    let connected = TcpStream::connect(("127.0.0.1", port));
    tell(&format!("{name}: connect by TCP"), connected);
    let started = thread::Builder::new().spawn(|| ());
    tell(&format!("{name}: start a thread"), started);
}

/// Files and sockets.
fn reach(file: &str, port: u16) {
    tell("read a file", File::open(file));
    tell("write a file", fs::write(file, b"broken out"));
    tell(
        "make a file",
        fs::write(format!("{file}.new"), b"broken out"),
    );
    tell("remove a file", fs::remove_file(file));
    tell("list a folder", fs::read_dir("/"));
    tell("look at a process", fs::read("/proc/1/status"));
    tell("connect by TCP", TcpStream::connect(("127.0.0.1", port)));
    tell("make a socket", UnixDatagram::unbound());
    tell("connect by a socket's path", UnixStream::connect(file));
}

/// Processes, privileges and the parent.
fn break_out(parent: Pid) {
    let status = Command::new("/bin/true").status();
    tell("start a program", status);
    let started = thread::Builder::new().spawn(|| ());
    tell("start a thread", started.map(|thread| thread.join()));
    tell(
        "signal the parent",
        kill_process(parent, Signal::CONT).map_err(Into::into),
    );
    let traced = nix::unistd::Pid::from_raw(parent.as_raw_nonzero().get());
    tell(
        "trace the parent",
        ptrace::attach(traced).map_err(Into::into),
    );
    let dumpable = rustix::process::DumpableBehavior::Dumpable;
    tell(
        "become dumpable",
        set_dumpable_behavior(dumpable).map_err(Into::into),
    );
    tell(
        "gain privileges",
        set_no_new_privs(true).map_err(Into::into),
    );
    let limit = rustix::process::Resource::Nofile;
    let few = rustix::process::Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    let raised = rustix::process::setrlimit(limit, few);
    tell("set another limit", raised.map_err(Into::into));
}

fn tell<T>(attempt: &str, result: io::Result<T>) {
    let code = match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    };
    println!("{attempt}: {code}");
}

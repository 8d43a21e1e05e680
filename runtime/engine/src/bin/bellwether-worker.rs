//! The worker: confines itself, then serves one model over the socket that is its standard output.
//!
//! Started by `bellwether_runtime`, never by hand. Standard input is the sealed model, standard
//! output a socket, standard error a pipe that the parent reads to tell why a worker died.

use std::{fs::File, io, os::fd::AsFd, process::ExitCode};

use bellwether_engine::{
    confine::{confine, know_processor},
    serve::serve,
};
use bellwether_wire::{Arena, limits::Limits};

/// Unusable arguments, as `sysexits.h` has it.
const USAGE: u8 = 64;
/// The system refused something.
const SYSTEM: u8 = 71;

fn main() -> ExitCode {
    let limits = match Limits::from_args(std::env::args().skip(1)) {
        Ok(limits) => limits,
        Err(error) => return fail(&error, USAGE),
    };
    // Taken before the confinement, which forbids even this; nothing is read yet.
    let (socket, model) = match streams() {
        Ok(streams) => streams,
        Err(error) => return fail(&error, SYSTEM),
    };
    // The parent's first word; sent before this process began.
    let arena = match Arena::receive(&socket) {
        Ok(arena) => arena,
        Err(error) => return fail(&error, SYSTEM),
    };
    know_processor();
    let spare_core = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let (confinement, threads) = match confine(limits) {
        Ok(confined) => confined,
        Err(error) => return fail(&error, SYSTEM),
    };
    match serve(
        socket,
        &arena,
        model,
        limits,
        confinement,
        &threads,
        spare_core,
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, SYSTEM),
    }
}

/// The socket and the model, free of the buffering that the standard streams have.
fn streams() -> io::Result<(File, File)> {
    let socket = io::stdout().as_fd().try_clone_to_owned()?;
    let model = io::stdin().as_fd().try_clone_to_owned()?;
    Ok((socket.into(), model.into()))
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let mut causes = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        source = cause.source();
    }
    eprintln!("bellwether-worker: {causes}");
    ExitCode::from(code)
}

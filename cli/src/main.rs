//! The `bellwether` command for operators, engineers and field staff.
//!
//! | module | owns |
//! |---|---|
//! | `arguments` | the command tree |
//! | `command` | what each command does on this machine |
//! | `fleet` | what each command asks of a fleet server, over its REST API only |
//! | `config`, `pack` | the short TOML, and the sections that come of it |
//! | `rehearsal` | running a model that is no package yet |
//! | `packages`, `documents` | packages and signed documents on disk, verified as they are read |
//! | `data` | columns and arrays from CSV, Parquet and NPZ |
//! | `keys`, `secret` | key files and passphrases |
//! | `files` | bounded reading, all-or-nothing writing |
//! | `output`, `failure`, `time` | what is printed, and what is said when it can't be done |
//!
//! It knows no database, no MQTT and no server internals; a server is an address and a pinned
//! certificate authority.

mod arguments;
mod command;
mod config;
mod data;
mod documents;
mod failure;
mod files;
mod fleet;
mod keys;
mod output;
mod pack;
mod packages;
mod rehearsal;
mod secret;
mod time;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use miette::{MietteHandlerOpts, Report};

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut output = Output::new(arguments.json);
    let outcome = command::perform(arguments.command, &mut output);
    // What was printed before a failure is still meant to be read.
    let flushed = output.flush();
    match outcome.and_then(|answer| flushed.map(|()| answer)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            report(failure, arguments.json);
            ExitCode::FAILURE
        }
    }
}

/// Says on standard error who failed, what happened and what to do next.
fn report(failure: Failure, json: bool) {
    if json {
        return output::remark(failure.to_json());
    }
    let terminal = std::io::stderr().is_terminal();
    // Setting it twice is the only way to fail, and the default handler says the same.
    let _ = miette::set_hook(Box::new(move |_| {
        let options = MietteHandlerOpts::new()
            .force_graphical(true)
            .unicode(terminal);
        // Logs are searched by line: wrapping is for terminals.
        Box::new(options.wrap_lines(terminal).color(terminal).build())
    }));
    let text = format!("{:?}", Report::new(failure));
    output::remark_styled(&text);
}

//! A program that is told what to run, line by line, and answers with its figures.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::scratch;
use crate::shell;

/// A program that runs until this is dropped.
pub(super) struct Peer {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?} could not be started"))?;
        Ok(Self {
            commands: child.stdin.take().context("no standard input")?,
            answers: BufReader::new(child.stdout.take().context("no standard output")?),
            child,
        })
    }

    /// Sends one command and waits for its answer, an object.
    pub(super) fn ask(&mut self, words: &[&str]) -> anyhow::Result<Value> {
        writeln!(self.commands, "{}", words.join("\t"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            bail!("{words:?}: the measuring program ended; see what it wrote above");
        }
        serde_json::from_str(&line).with_context(|| format!("{words:?} was answered with {line}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A figure of an answer.
pub(super) fn figure(answer: &Value, name: &str) -> anyhow::Result<f64> {
    let figure = answer.get(name).and_then(Value::as_f64);
    figure.with_context(|| format!("no `{name}` in {answer}"))
}

/// A Python with the packages of `requirements.txt`, made once under `target/`.
pub(super) fn python() -> anyhow::Result<PathBuf> {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let folder = scratch()?.join("python");
    let python = folder.join("bin/python");
    let made = folder.join("made-of.txt");
    if std::fs::read_to_string(&made).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    shell::need("python3", "python3")?;
    println!("making a Python environment for the peers, once");
    let venv = ["-m", "venv", "--clear"];
    shell::run(Command::new("python3").args(venv).arg(&folder))
        .context("on Debian: `apt-get install -y python3-venv`")?;
    let pip = ["-m", "pip", "install", "--quiet", "-r"];
    shell::run(Command::new(&python).args(pip).arg(&requirements))?;
    std::fs::write(made, wanted)?;
    Ok(python)
}

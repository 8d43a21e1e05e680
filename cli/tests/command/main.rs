//! The real binary, on real files: exit codes, messages, and what is left on the disk.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod keys_and_trust;
mod packing;
mod real;
mod release;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder with what a test makes, and the command to make it with.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

/// What a command did.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        world.write("passphrase", "correct horse battery\n");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs `bellwether` with these words, split at spaces, in the folder.
    pub(crate) fn run(&self, words: &str) -> Done {
        self.run_words(&words.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn run_words(&self, words: &[&str]) -> Done {
        let output = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            .args(words)
            .current_dir(self.folder.path())
            .env("BELLWETHER_WORKER", worker())
            .env_remove("BELLWETHER_SERVER")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Done::of(&output)
    }

    /// Runs and expects success.
    pub(crate) fn ok(&self, words: &str) -> Done {
        let done = self.run(words);
        assert_eq!(done.code, 0, "{words}\n{}\n{}", done.stdout, done.stderr);
        done
    }

    /// Runs and expects exit code 1 and all of these words on standard error.
    pub(crate) fn refused(&self, words: &str, said: &[&str]) -> Done {
        let done = self.run(words);
        assert_eq!(done.code, 1, "{words}\n{}\n{}", done.stdout, done.stderr);
        for text in said {
            assert!(
                done.stderr.contains(text),
                "`{text}` is not in:\n{}",
                done.stderr
            );
        }
        done
    }

    /// Keys of these persons.
    pub(crate) fn keys(&self, persons: &[&str]) {
        for person in persons {
            self.ok(&format!(
                "key new --out {person}.key --passphrase-file passphrase"
            ));
        }
    }

    /// A trust root of alice and bob, both needed.
    pub(crate) fn trust(&self) {
        self.keys(&["alice", "bob", "director"]);
        self.ok(
            "trust init --person alice=alice.pub --person bob=bob.pub --root-threshold 2 \
             --approvers-threshold 2 --director director.pub --sign-with alice.key \
             --sign-with bob.key --passphrase-file passphrase --out root.bwt",
        );
    }

    /// A small package of the model `linear.onnx`: f32[batch,3] → f32[batch,2].
    pub(crate) fn package(&self, name: &str) {
        self.write("model.toml", &config("linear.onnx"));
        self.write("sample.csv", &sample(64));
        self.ok(&format!("pack model.toml --out {name}"));
    }
}

impl Done {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Rows of three columns.
pub(crate) fn sample(rows: usize) -> String {
    let mut text = "a,b,c\n".to_owned();
    for row in 0..rows {
        text.push_str(&format!("{row},{},{}\n", row * 2, row % 7));
    }
    text
}

/// A configuration for `linear.onnx`, whose ports are asked of the engine's fixture.
pub(crate) fn config(model: &str) -> String {
    let model = fixture(model);
    format!(
        r#"[model]
name = "linear"
version = "1.0.0"
onnx = "{}"

[sample]
path = "sample.csv"

[[inputs]]
name = "{INPUT}"
columns = ["a", "b", "c"]

[[outputs]]
name = "{OUTPUT}"
columns = ["p", "q"]

[golden]
rows = 8
tolerance_abs = 1e-4
tolerance_rel = 1e-4

[budget]
latency_us_p99 = 1000000
memory_bytes = 1073741824
error_share_max = 0.01

[card]
intended_use = "tests"
owner = "the tests"

[provenance]
framework = "none"
"#,
        model.display()
    )
}

/// The port names of `linear.onnx`.
pub(crate) const INPUT: &str = "readings";
/// The port names of `linear.onnx`.
pub(crate) const OUTPUT: &str = "scores";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/models")
        .join(name)
}

/// The worker, which `cargo build -p bellwether-engine` puts beside the command.
fn worker() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_bellwether")).with_file_name("bellwether-worker");
    assert!(
        beside.exists(),
        "build it first: cargo build -p bellwether-engine"
    );
    beside
}

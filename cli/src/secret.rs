//! Secrets: asked for without echo, or read from a file; never an argument, where every user of
//! the machine could read them, and never an environment variable.

use std::path::Path;

use zeroize::Zeroizing;

use crate::failure::{Failure, Result};
use crate::files;

/// Short passphrases are guessed offline whatever the key stretching.
const PASSPHRASE_CHARS_MIN: usize = 8;
/// Passphrase and token files hold one short line.
const SECRET_BYTES_MAX: u64 = 4096;

/// What opens a key; wiped when dropped.
pub(crate) struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// The bytes that go into key stretching.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    #[cfg(test)]
    pub(crate) fn from_text(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

/// Asks twice for the passphrase of a new key, or reads it from `file`.
///
/// # Errors
/// When the two differ, it is too short, or nobody can be asked.
pub(crate) fn new_passphrase(key: &Path, file: Option<&Path>) -> Result<Passphrase> {
    let passphrase = match file {
        Some(file) => Passphrase(one_line(file)?),
        None => {
            let first = ask(&format!("Passphrase for {}: ", key.display()))?;
            let second = ask("The same again: ")?;
            if first != second {
                return Err(Failure::operator("the two passphrases differ")
                    .next("run it again; nothing was written"));
            }
            Passphrase(first)
        }
    };
    if passphrase.0.chars().count() < PASSPHRASE_CHARS_MIN {
        return Err(Failure::operator(format!(
            "a passphrase needs at least {PASSPHRASE_CHARS_MIN} characters"
        ))
        .next("four or five words are easy to remember and hard to guess"));
    }
    Ok(passphrase)
}

/// Asks for the passphrase of an existing key, or reads it from `file`.
///
/// # Errors
/// When the file can't be read, or nobody can be asked.
pub(crate) fn passphrase(key: &Path, file: Option<&Path>) -> Result<Passphrase> {
    match file {
        Some(file) => Ok(Passphrase(one_line(file)?)),
        None => Ok(Passphrase(ask(&format!(
            "Passphrase for {}: ",
            key.display()
        ))?)),
    }
}

/// The one line of a secret file, without its line end.
///
/// # Errors
/// When it can't be read, is empty, or holds more than one line.
pub(crate) fn one_line(path: &Path) -> Result<Zeroizing<String>> {
    let text = String::from_utf8(files::read(path, SECRET_BYTES_MAX)?).map_err(|_| {
        Failure::operator(format!("{} is not UTF-8 text", path.display()))
            .next("put the secret alone on one line")
    })?;
    let text = Zeroizing::new(text);
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains('\n') {
        return Err(
            Failure::operator(format!("{} must hold one line", path.display()))
                .next("put the secret alone on one line"),
        );
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn ask(prompt: &str) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| {
            Failure::operator("there is no terminal to ask for a passphrase")
                .next("run it in a terminal, or give --passphrase-file FILE")
                .because(error)
        })
}

//! Everything the command prints. Standard output carries results only, as text or as JSON;
//! remarks, questions and progress go to standard error.
//!
//! Text that came from a package, a server or a device is shown with its control and
//! direction-changing characters made visible, so that nobody's card can repaint an approver's
//! terminal. A closed pipe silences the output and leaves the exit code alone.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::{Failure, Result, Who};

/// How wide a text table's column may get before it is cut: a terminal stays readable.
const CELL_CHARS_MAX: usize = 64;

/// Where results go.
pub(crate) struct Output {
    json: bool,
    stdout: io::BufWriter<io::Stdout>,
    closed: bool,
}

impl Output {
    /// Results as JSON when `json`, otherwise as text.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            stdout: io::BufWriter::new(io::stdout()),
            closed: false,
        }
    }

    /// Whether the caller asked for JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Prints `value` as JSON if JSON was asked for, otherwise whatever `text` prints.
    ///
    /// # Errors
    /// When the output can't be written; a closed pipe is no error.
    pub(crate) fn show<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        if !self.json {
            return text(self);
        }
        let rendered = serde_json::to_string_pretty(value).map_err(|error| {
            Failure::new(Who::Bellwether, "can't render the result as JSON").because(error)
        })?;
        self.raw(rendered.as_bytes())?;
        self.raw(b"\n")
    }

    /// Prints one or more lines of text, made harmless.
    ///
    /// # Errors
    /// When the output can't be written; a closed pipe is no error.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<()> {
        let harmless = harmless(&text.to_string());
        self.raw(harmless.as_bytes())?;
        self.raw(b"\n")
    }

    /// Prints `rows` under `head`, columns aligned; numbers are the caller's to format.
    ///
    /// # Errors
    /// When the output can't be written; a closed pipe is no error.
    pub(crate) fn table<const N: usize>(
        &mut self,
        head: [&str; N],
        rows: &[[String; N]],
    ) -> Result<()> {
        let cut = |cell: &str| -> String {
            let one_line = cell.replace(['\n', '\t'], " ");
            if one_line.chars().count() <= CELL_CHARS_MAX {
                return one_line;
            }
            one_line
                .chars()
                .take(CELL_CHARS_MAX - 1)
                .chain(['…'])
                .collect()
        };
        let mut widths = head.map(|cell| cell.chars().count());
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cut(cell).chars().count());
            }
        }
        self.row(&head.map(str::to_owned), &widths)?;
        for row in rows {
            self.row(&row.each_ref().map(|cell| cut(cell)), &widths)?;
        }
        Ok(())
    }

    /// Prints raw bytes (completions, JSON).
    ///
    /// # Errors
    /// When the output can't be written; a closed pipe is no error.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let written = self.stdout.write_all(bytes);
        self.settle(written)
    }

    /// Flushes what was printed.
    ///
    /// # Errors
    /// When the output can't be written; a closed pipe is no error.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.stdout.flush();
        self.settle(flushed)
    }

    fn row(&mut self, cells: &[String], widths: &[usize]) -> Result<()> {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            if index > 0 {
                line.push_str("  ");
            }
            line.push_str(cell);
            line.extend(std::iter::repeat_n(
                ' ',
                width - cell.chars().count().min(*width),
            ));
        }
        self.line(line.trim_end())
    }

    fn settle(&mut self, written: io::Result<()>) -> Result<()> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::new(Who::Machine, "can't write to standard output")
                .next("check where the output goes: a full disk?")
                .because(error)),
        }
    }
}

/// A remark on standard error; nobody listening is no failure.
pub(crate) fn remark(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless(&text.to_string()));
}

/// A report on standard error whose colours are our own; its texts were made harmless before.
pub(crate) fn remark_styled(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A question on standard error, answered with `yes` on standard input.
///
/// # Errors
/// When standard input is no terminal: nobody could have read what is being agreed to.
pub(crate) fn confirm(question: &str, switch: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(
            Failure::operator("this asks for a person's consent, and nobody is there").next(
                format!("run it in a terminal, or give {switch} after reading what it prints"),
            ),
        );
    }
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{} Type yes: ", harmless(question));
    let _ = stderr.flush();
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Who::Machine, "can't read the answer").because(error))?;
    Ok(answer.trim() == "yes")
}

/// A progress bar over `length` steps; hidden when standard error is no terminal.
pub(crate) fn progress(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg:<28} [{bar:32}] {pos}/{len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(what);
    bar
}

/// A progress bar over bytes; hidden when standard error is no terminal.
pub(crate) fn progress_bytes(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(
        "{msg:<28} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(what);
    bar
}

/// `text` with everything that could move a cursor, change a colour or reverse the reading
/// direction replaced by its escaped form. Newlines and tabs stay.
pub(crate) fn harmless(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        let hidden = matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if matches!(character, '\n' | '\t') || !(character.is_control() || hidden) {
            clean.push(character);
        } else {
            clean.extend(character.escape_unicode());
        }
    }
    clean
}

/// Bytes as a person reads them.
pub(crate) fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_shown_not_obeyed() {
        let card = "fine\u{1b}[2J\u{1b}[Happroved by everybody";
        assert_eq!(
            harmless(card),
            "fine\\u{1b}[2J\\u{1b}[Happroved by everybody"
        );
    }

    #[test]
    fn direction_overrides_are_shown_not_obeyed() {
        assert_eq!(harmless("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        assert_eq!(harmless("Größe\t5 µm\n温度"), "Größe\t5 µm\n温度");
    }
}

//! What is seen of the demo: a timeline of who did what and why, a bar for what is waited for, a table at the end.
//! Plain lines where there is no terminal; JSON lines on request.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{
    feed::Totals,
    fleet::{Fleet, SLOT},
    scenarios::Act,
};

/// Sentences are broken here, so that they stay readable in an ordinary terminal.
const LINE_CHARS: usize = 100;
/// Columns before the text: time and actor.
const INDENT_CHARS: usize = 21;

enum Mode {
    Terminal,
    Plain,
    Json,
}

/// The person's view.
pub(crate) struct View {
    mode: Mode,
    bar: ProgressBar,
    begun: Instant,
    interrupted: &'static AtomicBool,
}

impl View {
    /// A bar if standard error is a terminal, plain lines otherwise.
    pub(crate) fn new(json: bool, interrupted: &'static AtomicBool) -> Self {
        let mode = match (
            json,
            std::io::stderr().is_terminal() && std::io::stdout().is_terminal(),
        ) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Terminal,
            (false, false) => Mode::Plain,
        };
        let bar = match mode {
            Mode::Terminal => ProgressBar::new(0),
            Mode::Plain | Mode::Json => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template(
            "{elapsed:>7.dim} {spinner} {bar:24.cyan} {pos}/{len} {msg}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─");
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            mode,
            bar,
            begun: Instant::now(),
            interrupted,
        }
    }

    /// Whether the person asked for the end.
    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// A scenario begins: what happens in the story, and what has to come of it.
    pub(crate) fn title(&self, letter: char, title: &str, story: &str) {
        match self.mode {
            Mode::Json => {
                self.line(&json!({"scenario": letter.to_string(), "title": title}).to_string())
            }
            Mode::Terminal | Mode::Plain => {
                self.line("");
                self.line(&format!("── {letter}. {title}"));
                for line in wrapped(story, LINE_CHARS - 3) {
                    self.line(&format!("   {line}"));
                }
            }
        }
    }

    /// Somebody did or found something.
    pub(crate) fn say(&self, who: &str, what: &str) {
        let secs = self.begun.elapsed().as_secs_f64();
        if let Mode::Json = self.mode {
            let event = json!({"secs": (secs * 10.0).round() / 10.0, "who": who, "what": what});
            return self.line(&event.to_string());
        }
        for (place, line) in wrapped(what, LINE_CHARS - INDENT_CHARS)
            .into_iter()
            .enumerate()
        {
            if place == 0 {
                self.line(&format!("{secs:>6.1} s  {who:<11}{line}"));
            } else {
                self.line(&format!("{:INDENT_CHARS$}{line}", ""));
            }
        }
    }

    /// What was asked for is there, or is missing.
    pub(crate) fn checked(&self, passed: bool, what: &str) {
        self.say(if passed { "✓" } else { "✗ MISSING" }, what);
    }

    /// A remark outside the timeline.
    pub(crate) fn note(&self, text: &str) {
        match self.mode {
            Mode::Json => self.line(&json!({ "note": text }).to_string()),
            Mode::Terminal | Mode::Plain => self.line(text),
        }
    }

    /// Something is waited for; `done` of `all` is there.
    pub(crate) fn progress(&self, done: usize, all: usize, what: &str) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        let room = LINE_CHARS.saturating_sub(48);
        let short: String = what.chars().take(room).collect();
        self.bar.set_message(short);
    }

    /// The table at the end.
    pub(crate) fn summary(&self, acts: &[Act], totals: Totals, took: Duration) {
        self.bar.finish_and_clear();
        if let Mode::Json = self.mode {
            let rows: Vec<_> = acts
                .iter()
                .map(|act| json!({
                    "scenario": act.letter.to_string(), "passed": act.passed(), "secs": act.took.as_secs(),
                    "figures": act.figures,
                    "checks": act.checks.iter().map(|(what, passed)| json!({"what": what, "passed": passed})).collect::<Vec<_>>(),
                }))
                .collect();
            let line = json!({
                "summary": rows, "secs": took.as_secs(), "rows_asked": totals.asked,
                "rows_answered": totals.answered, "rows_nonfinite": totals.nonfinite,
            });
            return self.line(&line.to_string());
        }
        self.line("");
        self.line("── What was shown");
        for act in acts {
            let passed = act.checks.iter().filter(|(_, passed)| *passed).count();
            let mark = if act.passed() { "✓" } else { "✗" };
            self.line(&format!(
                " {mark} {}. {:<66} {passed:>2}/{:<2} checks  {:>3} s",
                act.letter,
                act.title,
                act.checks.len(),
                act.took.as_secs()
            ));
            for line in wrapped(&act.figures, LINE_CHARS - 6) {
                self.line(&format!("      {line}"));
            }
        }
        self.line("");
        self.line(&format!(
            "   The applications asked for {} rows and got {} ({:.2} %), {} of them not finite.",
            totals.asked,
            totals.answered,
            100.0 * totals.answered as f64 / totals.asked.max(1) as f64,
            totals.nonfinite
        ));
        self.line(&format!("   It took {} s.", took.as_secs()));
    }

    /// What to open and try while everything stays up.
    pub(crate) fn stay(&self, fleet: &Fleet) {
        let device = &fleet.agents()[0];
        let data = fleet.data();
        for line in [
            String::new(),
            "── Everything stays up until Ctrl-C. In another terminal:".to_owned(),
            format!(
                "export PATH=\"{}:$PATH\"",
                fleet.programs().folder().display()
            ),
            format!("export BELLWETHER_SERVER={}", fleet.server_url()),
            format!("export BELLWETHER_CA={}", data.join("ca.pem").display()),
            format!(
                "export BELLWETHER_TOKEN_FILE={}",
                data.join("api-token").display()
            ),
            "bellwether device list".to_owned(),
            "bellwether rollout status".to_owned(),
            format!("bellwether why {} --slot {SLOT}", device.name()),
            format!(
                "bellwether-agent status --config {}",
                device.config().display()
            ),
            format!("curl -s http://{}/v2/models/{SLOT}", device.api()),
            format!(
                "curl -s --cacert $BELLWETHER_CA {}/openapi.json",
                fleet.server_url()
            ),
            format!("# keys, packages and logs: {}", fleet.folder().display()),
        ] {
            self.note(&line);
        }
    }

    /// Lines of a log that explain a failure.
    pub(crate) fn log(&self, name: &str, lines: &[String]) {
        self.note(&format!("last lines of {name}:"));
        for line in lines {
            self.note(&format!("   {line}"));
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("begins with one line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn a_sentence_is_broken_between_words_only() {
        let lines = wrapped("one two three-and-more four", 8);
        assert_eq!(lines, ["one two", "three-and-more", "four"]);
        assert_eq!(wrapped("", 8), [""]);
    }
}

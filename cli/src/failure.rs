//! What the command says when it can't do what was asked: who failed, what happened, what to do
//! next. Every error of every crate beneath ends here; causes stay in `source()`.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

/// The party that has to act before a second try can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// The person at the keyboard: an argument, a file, a configuration, a passphrase.
    Operator,
    /// The package, the model inside it, or the data it was made from.
    Package,
    /// The release process: too few approvals, wrong scope, revoked, expired.
    Approvers,
    /// The fleet server, or the way to it.
    Server,
    /// This machine: its disk, its clock, its memory.
    Machine,
    /// This program.
    Bellwether,
}

impl Who {
    /// The stable word used in `--json` and in the report's first line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Package => "package",
            Self::Approvers => "approvers",
            Self::Server => "server",
            Self::Machine => "machine",
            Self::Bellwether => "bellwether",
        }
    }
}

/// A cause that may cross threads.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// A failed command.
pub(crate) struct Failure(Box<Parts>);

struct Parts {
    who: Who,
    what: String,
    next: Option<String>,
    source: Option<Cause>,
    snippet: Option<Snippet>,
}

struct Snippet {
    text: NamedSource<String>,
    span: SourceSpan,
    label: String,
}

/// The result of everything in this crate that can fail.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// `who` failed, and `what` happened: one sentence without its full stop.
    pub(crate) fn new(who: Who, what: impl Into<String>) -> Self {
        // A package's or a server's words may be quoted in it: they reach a terminal.
        let what = crate::output::harmless(&what.into());
        Self(Box::new(Parts {
            who,
            what,
            next: None,
            source: None,
            snippet: None,
        }))
    }

    /// The operator gave something that can't be used.
    pub(crate) fn operator(what: impl Into<String>) -> Self {
        Self::new(Who::Operator, what)
    }

    /// What to do next: a sentence, or a command line.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.0.next = Some(crate::output::harmless(&next.into()));
        self
    }

    /// The error beneath.
    pub(crate) fn because(mut self, source: impl Into<Cause>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Points at the bytes `span` of the file `name`, whose text is `text`.
    pub(crate) fn pointing_at(
        mut self,
        name: &Path,
        text: &str,
        span: std::ops::Range<usize>,
        label: impl Into<String>,
    ) -> Self {
        self.0.snippet = Some(Snippet {
            text: NamedSource::new(name.display().to_string(), text.to_owned()),
            span: (span.start, span.end.saturating_sub(span.start).max(1)).into(),
            label: label.into(),
        });
        self
    }

    /// The disk or the file system refused.
    pub(crate) fn io(doing: impl fmt::Display, path: &Path, error: io::Error) -> Self {
        let (who, next) = match error.kind() {
            io::ErrorKind::NotFound => (Who::Operator, "check the path"),
            io::ErrorKind::PermissionDenied => {
                (Who::Operator, "check who owns the file and its permissions")
            }
            io::ErrorKind::StorageFull => (Who::Machine, "free some space, then run it again"),
            _ => (Who::Machine, "check the disk, then run it again"),
        };
        Self::new(who, format!("can't {doing} {}", path.display()))
            .next(next)
            .because(error)
    }

    /// Who failed.
    pub(crate) fn who(&self) -> Who {
        self.0.who
    }

    /// The failure as `--json` prints it, on standard error.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut causes = Vec::new();
        let mut cause = self.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        serde_json::json!({
            "error": {
                "who": self.who().word(),
                "message": self.0.what,
                "next": self.0.next,
                "causes": causes,
            }
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.who.word(), self.0.what)?;
        if let Some(next) = &self.0.next {
            write!(f, " (next: {next})")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, " (because: {source:?})")?;
        }
        Ok(())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

impl Diagnostic for Failure {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("bellwether::{}", self.0.who.word())))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0
            .next
            .as_ref()
            .map(|next| Box::new(next) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0
            .snippet
            .as_ref()
            .map(|snippet| &snippet.text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let snippet = self.0.snippet.as_ref()?;
        let label = LabeledSpan::new_with_span(Some(snippet.label.clone()), snippet.span);
        Some(Box::new(std::iter::once(label)))
    }
}

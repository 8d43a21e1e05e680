//! What the service manager is told: ready, alive, how the device is, stopping.
//!
//! It is one datagram of text to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) has it.
//! Whoever is started without that variable tells nobody. Nothing here waits: a manager that does
//! not listen at the moment is told the same a second later.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Variables by which the service manager says where it listens and when.
pub(crate) const VARIABLES: [&str; 3] = [SOCKET, WATCHDOG_USEC, WATCHDOG_PID];
const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// Pings in one period of the watchdog: two may get lost.
const PINGS_PER_PERIOD: u32 = 3;
/// Longest sentence in bytes. The manager drops datagrams of more than 4096, pings included.
const SENTENCE_BYTES_MAX: usize = 1024;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Manager {
    to: Option<(UnixDatagram, SocketAddr)>,
    ping_every: Option<Duration>,
    pinged_at: Option<Instant>,
    /// Once it knows that the agent is up.
    ready: bool,
    /// The sentence that it knows.
    told: Option<String>,
}

/// What the environment says of the manager.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `NOTIFY_SOCKET`: a path, or `@` and the name of an abstract socket.
    pub socket: Option<OsString>,
    /// `WATCHDOG_USEC`: microseconds without a ping after which the agent is started anew.
    pub watchdog_usec: Option<OsString>,
    /// `WATCHDOG_PID`: the process that these pings are expected of, if not of any.
    pub watchdog_pid: Option<OsString>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self {
            socket: std::env::var_os(SOCKET),
            watchdog_usec: std::env::var_os(WATCHDOG_USEC),
            watchdog_pid: std::env::var_os(WATCHDOG_PID),
        }
    }
}

impl Manager {
    /// The manager that `surroundings` name. One that cannot be reached is logged and left out: a
    /// device serves without its manager too.
    pub fn of(surroundings: &Surroundings) -> Self {
        let to = surroundings.socket.as_deref().and_then(|name| {
            let opened = open(name);
            let warn = |error: &std::io::Error| {
                tracing::warn!(socket = ?name, %error, "the service manager cannot be told anything");
            };
            opened.inspect_err(warn).ok()
        });
        let ping_every = watchdog(surroundings).filter(|_| to.is_some());
        if let Some(every) = ping_every {
            tracing::info!(?every, "the service manager watches this agent");
        }
        Self {
            to,
            ping_every,
            pinged_at: None,
            ready: false,
            told: None,
        }
    }

    /// Tells that the agent is up and alive, and `sentence` if that is news. The loop that does
    /// the work calls this, so that a loop that hangs is found out.
    pub fn alive(&mut self, now: Instant, sentence: impl FnOnce() -> String) {
        if self.to.is_none() {
            return;
        }
        let sentence = one_line(&sentence());
        let ping = self.ping_every.is_some_and(|every| {
            let since = self.pinged_at.map(|at| now.saturating_duration_since(at));
            since.is_none_or(|since| since >= every)
        });
        let mut text = String::new();
        if !self.ready {
            text.push_str("READY=1\n");
        }
        if self.told.as_ref() != Some(&sentence) {
            text.push_str(&format!("STATUS={sentence}\n"));
        }
        if ping {
            text.push_str("WATCHDOG=1\n");
        }
        if text.is_empty() || !self.send(&text) {
            return;
        }
        self.ready = true;
        self.told = Some(sentence);
        if ping {
            self.pinged_at = Some(now);
        }
    }

    /// Tells that the agent is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Stopping.\n");
    }

    fn send(&self, text: &str) -> bool {
        let Some((socket, to)) = &self.to else {
            return false;
        };
        let sent = socket.send_to_addr(text.as_bytes(), to);
        if let Err(error) = &sent {
            tracing::debug!(%error, "the service manager was not told");
        }
        sent.is_ok()
    }
}

fn open(name: &OsStr) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let what = "neither a path nor an abstract socket";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

/// How often a ping is due.
fn watchdog(surroundings: &Surroundings) -> Option<Duration> {
    let number = |text: &Option<OsString>| text.as_ref()?.to_str()?.parse::<u64>().ok();
    if surroundings.watchdog_pid.is_some() {
        let own = u64::from(std::process::id());
        number(&surroundings.watchdog_pid).filter(|pid| *pid == own)?;
    }
    let period = number(&surroundings.watchdog_usec).filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(period) / PINGS_PER_PERIOD)
}

/// A line break would begin another assignment.
fn one_line(sentence: &str) -> String {
    let mut line = sentence.replace(char::is_control, " ");
    let end = line.floor_char_boundary(SENTENCE_BYTES_MAX);
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Listening {
        socket: UnixDatagram,
        surroundings: Surroundings,
        _folder: tempfile::TempDir,
    }

    fn listening() -> Listening {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let surroundings = Surroundings {
            socket: Some(path.into()),
            watchdog_usec: Some("3000000".into()),
            watchdog_pid: None,
        };
        Listening {
            socket,
            surroundings,
            _folder: folder,
        }
    }

    impl Listening {
        fn heard(&self) -> Option<String> {
            let mut bytes = [0; 4096];
            let length = self.socket.recv(&mut bytes).ok()?;
            Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
        }
    }

    fn well() -> String {
        "Well.".to_owned()
    }

    #[test]
    fn ready_comes_once_the_sentence_when_it_changed_and_pings_in_time() {
        let listening = listening();
        let mut manager = Manager::of(&listening.surroundings);
        let begun = Instant::now();
        let mut at = |secs: u64, sentence: &str| {
            manager.alive(begun + Duration::from_secs(secs), || sentence.to_owned());
            listening.heard()
        };
        let first = at(0, "Waiting.").unwrap();
        assert_eq!(first, "READY=1\nSTATUS=Waiting.\nWATCHDOG=1\n");
        assert_eq!(at(0, "Waiting."), None);
        assert_eq!(at(1, "Waiting.").unwrap(), "WATCHDOG=1\n");
        assert_eq!(at(1, "Well.").unwrap(), "STATUS=Well.\n");
        assert_eq!(at(2, "Well.").unwrap(), "WATCHDOG=1\n");
    }

    #[test]
    fn what_a_manager_did_not_take_is_told_again() {
        let listening = listening();
        let mut manager = Manager::of(&listening.surroundings);
        let Listening { socket, .. } = &listening;
        // Nobody reads until the socket takes no more.
        let path = listening.surroundings.socket.clone().unwrap();
        let stuffing = UnixDatagram::unbound().unwrap();
        stuffing.set_nonblocking(true).unwrap();
        while stuffing.send_to(b"x", &path).is_ok() {}
        manager.alive(Instant::now(), well);
        let mut byte = [0; 64];
        while let Ok(length) = socket.recv(&mut byte) {
            assert_eq!(&byte[..length], b"x");
        }
        manager.alive(Instant::now(), well);
        assert!(listening.heard().unwrap().starts_with("READY=1\n"));
    }

    #[test]
    fn no_text_begins_another_line_or_makes_a_datagram_too_long() {
        let listening = listening();
        let mut manager = Manager::of(&listening.surroundings);
        manager.alive(Instant::now(), || {
            format!("a\nSTOPPING=1\r{}", "ü".repeat(4000))
        });
        let heard = listening.heard().unwrap();
        assert!(heard.len() < 2048, "{}", heard.len());
        assert!(heard.contains("STATUS=a STOPPING=1 ü"), "{heard}");
        assert!(heard.ends_with("ü\nWATCHDOG=1\n"), "{heard}");
    }

    #[test]
    fn pings_that_another_process_owes_are_left_to_it() {
        let mut listening = listening();
        listening.surroundings.watchdog_pid = Some("1".into());
        let mut manager = Manager::of(&listening.surroundings);
        manager.alive(Instant::now(), well);
        assert_eq!(listening.heard().unwrap(), "READY=1\nSTATUS=Well.\n");
        listening.surroundings.watchdog_pid = Some(std::process::id().to_string().into());
        let mut manager = Manager::of(&listening.surroundings);
        manager.alive(Instant::now(), well);
        assert!(listening.heard().unwrap().contains("WATCHDOG=1"));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        for socket in [None, Some("vsock:2:1".into()), Some("".into())] {
            let surroundings = Surroundings {
                socket,
                watchdog_usec: Some("1000".into()),
                watchdog_pid: None,
            };
            let mut manager = Manager::of(&surroundings);
            manager.alive(Instant::now(), || panic!("nobody asked for a sentence"));
            manager.stopping();
        }
    }
}

//! A device's state as lines for a terminal: what the page shows, in the same order.

use bellwether_protocol::{ClockState, Health, Network, Served};

use super::words::{ago, bytes, short, span};
use super::{DeviceView, EventView, OutcomeView, ReadingsView, SlotView};

/// Events that a terminal shows; the page and `--json` have all.
const EVENTS_SHOWN: usize = 8;

impl DeviceView {
    /// For people, as lines: the one sentence, slots, last contact, health, recent events.
    pub fn lines(&self, now: u64) -> Vec<String> {
        let mut lines = vec![self.summary(now).sentence, String::new()];
        for slot in &self.slots {
            slot.push_lines(now, &mut lines);
        }
        lines.push(format!("device    {}", self.device));
        for (label, text) in self.contact(now).into_iter().chain(self.measured(now)) {
            lines.push(format!("{label:<9} {text}"));
        }
        if !self.events.is_empty() {
            lines.push(String::new());
        }
        for event in self.events.iter().take(EVENTS_SHOWN) {
            lines.push(format!("{:<16} {}", ago(now, event.at), event.told()));
        }
        lines
    }

    /// Server, reports and trust, as label and text.
    pub(crate) fn contact(&self, now: u64) -> Vec<(&'static str, String)> {
        let server = match (self.connected, self.last_contact) {
            (true, _) => "connected".to_owned(),
            (false, Some(at)) => format!("not connected; last heard {}", ago(now, at)),
            (false, None) => "never heard".to_owned(),
        };
        let waiting = match self.reports_waiting {
            0 => "none wait".to_owned(),
            1 => "1 waits to be sent".to_owned(),
            n => format!("{n} wait to be sent"),
        };
        let list = self.revocations_version;
        let list = list.map_or("missing".to_owned(), |version| format!("version {version}"));
        let trust = format!("root version {}, revocation list {list}", self.root_version);
        let mut contact = vec![("server", server), ("reports", waiting), ("trust", trust)];
        let readings = self.readings.iter().map(|it| ("readings", it.told(now)));
        contact.extend(readings);
        let trouble = self.trouble.iter().cloned();
        contact.extend(trouble.map(|trouble| ("trouble", trouble)));
        contact
    }

    /// The device itself, as label and text; nothing before it was measured.
    pub(crate) fn measured(&self, now: u64) -> Vec<(&'static str, String)> {
        let Some(health) = &self.health else {
            return Vec::new();
        };
        let mut measured = figures(health);
        let at = self.health_at.map(|at| ago(now, at));
        measured.extend(at.map(|at| ("measured", at)));
        measured
    }
}

fn figures(health: &Health) -> Vec<(&'static str, String)> {
    let mut figures = Vec::new();
    if let Some(permille) = health.cpu_permille {
        figures.push(("processor", format!("{} % busy", permille / 10)));
    }
    if let Some(centi) = health.load_centi {
        figures.push(("load", format!("{:.2}", f64::from(centi) / 100.0)));
    }
    if let Some(memory) = health.memory {
        let (used, all) = (kib(memory.kib_used()), kib(memory.kib));
        figures.push(("memory", format!("{used} of {all} in use")));
    }
    if let Some(disk) = health.disk {
        let (free, all) = (kib(disk.kib_free), kib(disk.kib));
        figures.push(("storage", format!("{free} of {all} free")));
    }
    if let Some(centi) = health.temperature_centi_c {
        let celsius = f64::from(centi) / 100.0;
        figures.push(("warmest", format!("{celsius:.1} °C")));
    }
    let network = health.network.map_or("none".to_owned(), network);
    figures.push(("network", network));
    if let Some(battery) = health.battery {
        figures.push((
            "battery",
            format!("{} %, {}", battery.percent, battery.state),
        ));
    }
    if let Some(served) = &health.served {
        figures.push(("answers", answers(served)));
    }
    figures.push(("running", span(health.uptime_secs)));
    figures.push(("clock", clock(health)));
    let version = health
        .agent_version
        .map(|version| format!("version {version}"));
    let memory = health
        .agent_kib
        .map(|held| format!("{} of memory", kib(held.into())));
    let agent: Vec<String> = version.into_iter().chain(memory).collect();
    figures.push(("agent", agent.join(", ")));
    figures
}

fn network(network: Network) -> String {
    let (received, sent) = (kib(network.received_kib), kib(network.sent_kib));
    let mut words = match network.signal_dbm {
        Some(dbm) => format!("{} at {dbm} dBm", network.link),
        None => network.link.to_string(),
    };
    words += &format!(", {received} received and {sent} sent");
    if network.errors > 0 {
        words += &format!(", {} errors", network.errors);
    }
    words
}

/// What the models did since the record before.
fn answers(served: &Served) -> String {
    let mut words = format!("{} rows, {} failed", served.rows, served.rows_failed);
    if served.rows_nonfinite > 0 {
        words += &format!(", {} not finite", served.rows_nonfinite);
    }
    if let Some(us) = served.latency_us_p99 {
        words += &format!(", 99 % within {:.1} ms", f64::from(us) / 1000.0);
    }
    if served.worker_deaths > 0 {
        words += &format!(", {} workers died", served.worker_deaths);
    }
    if let Some(held) = served.workers_kib {
        words += &format!(", workers held {} at most", kib(held.into()));
    }
    words
}

fn clock(health: &Health) -> String {
    let state = match health.clock {
        ClockState::Plausible => "plausible",
        ClockState::Behind => "wrong: earlier than a document that this device holds",
        ClockState::Ahead => "wrong: later than its trust root is valid",
        ClockState::None => "none",
    };
    let off = match health.clock_offset_secs {
        None | Some(0) => String::new(),
        Some(secs) if secs > 0 => format!(", {} behind the server's", span(secs.unsigned_abs())),
        Some(secs) => format!(", {} ahead of the server's", span(secs.unsigned_abs())),
    };
    format!("{state}{off}")
}

fn kib(kib: u64) -> String {
    bytes(kib.saturating_mul(1024))
}

impl SlotView {
    fn push_lines(&self, now: u64, lines: &mut Vec<String>) {
        lines.push(format!("{}: {}", self.slot, self.serves(now)));
        for (label, text) in self.details(now) {
            lines.push(format!("  {label:<9} {text}"));
        }
        lines.push(String::new());
    }

    /// What it serves, or why it does not.
    pub(crate) fn serves(&self, now: u64) -> String {
        if let (true, Some(program)) = (self.is_own(), &self.model) {
            let release = self.serving.as_ref();
            let release = release.map(|id| format!(" ({})", short(id)));
            return format!("runs {program}{}", release.unwrap_or_default());
        }
        let since = self.since.map(|since| now.saturating_sub(since));
        let since = since.map_or(String::new(), |secs| format!(" since {}", span(secs)));
        if let Some(reason) = &self.reason {
            return format!("serves nothing{since}: {reason}");
        }
        match (&self.serving, &self.model) {
            (Some(release), Some(model)) => format!("serves {model} ({}){since}", short(release)),
            (Some(release), None) => format!("is opening {}", short(release)),
            (None, _) => "serves nothing".to_owned(),
        }
    }

    /// What else there is to say of it, as label and text.
    pub(crate) fn details(&self, now: u64) -> Vec<(&'static str, String)> {
        let mut details = vec![("phase", self.phase.clone())];
        let (candidate, previous) = (self.candidate.as_ref(), self.previous.as_ref());
        details.extend(candidate.map(|id| ("candidate", short(id))));
        details.extend(previous.map(|id| ("previous", short(id))));
        let order = self.outcome.as_ref().map(|outcome| outcome.line(now));
        details.push(("last order", order.unwrap_or("has not ended yet".into())));
        details
    }
}

impl OutcomeView {
    fn line(&self, now: u64) -> String {
        format!("{} {}: {}", self.sequence, ago(now, self.at), self.text)
    }
}

impl ReadingsView {
    /// `pump/readings at 127.0.0.1:1883: 12 answered, 1 refused`.
    fn told(&self, now: u64) -> String {
        let mut words = format!("{} at {}: ", self.topic, self.broker);
        if !self.connected {
            let gap = span(now.saturating_sub(self.since));
            let why = self.trouble.as_deref().unwrap_or("it did not answer yet");
            words += &format!("no broker since {gap}, because {why}; ");
        }
        words += &format!("{} answered", self.answered);
        let others = [
            (self.refused, "refused"),
            (self.failed, "failed"),
            (self.silent, "while nothing served"),
            (self.left_out, "left out"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            words += &format!(", {count} {what}");
        }
        words
    }
}

impl EventView {
    /// `anomaly: its worker died, 3 times`.
    pub(crate) fn told(&self) -> String {
        let slot = self.slot.as_ref().map(|slot| format!("{slot}: "));
        let times = (self.times > 1).then(|| format!(", {} times", self.times));
        let (slot, times) = (slot.unwrap_or_default(), times.unwrap_or_default());
        format!("{slot}{}{times}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::{Battery, BatteryState, LinkKind};

    use super::*;

    #[test]
    fn a_person_reads_which_agent_runs() {
        let mut own = SlotView {
            slot: bellwether_package::ids::AGENT_SLOT.into(),
            model: Some("bellwether-agent 1.1.0".into()),
            serving: Some("ab".repeat(32)),
            ..SlotView::default()
        };
        assert_eq!(own.serves(0), "runs bellwether-agent 1.1.0 (abababababab)");
        own.serving = None;
        assert_eq!(own.serves(0), "runs bellwether-agent 1.1.0");
        let view = DeviceView {
            slots: vec![own],
            ..DeviceView::default()
        };
        assert!(view.lines(0)[0].starts_with("Waiting for a first release"));
    }

    #[test]
    fn a_person_reads_what_serves_and_why() {
        let view = DeviceView {
            device: "pump-1".into(),
            last_contact: Some(100),
            slots: vec![SlotView {
                slot: "anomaly".into(),
                phase: "serving".into(),
                serving: Some("ab".repeat(32)),
                model: Some("shuttle 1.0.0".into()),
                since: Some(200),
                outcome: Some(OutcomeView {
                    at: 400,
                    sequence: "1.7".into(),
                    text: "refused, because it is revoked".into(),
                    what: "was refused".into(),
                    why: Some("it is revoked".into()),
                    failed: true,
                    ..OutcomeView::default()
                }),
                ..SlotView::default()
            }],
            events: vec![EventView {
                at: 450,
                slot: Some("anomaly".into()),
                text: "its worker died".into(),
                times: 3,
            }],
            ..DeviceView::default()
        };
        let text = view.lines(460).join("\n");
        for told in [
            "Well, but anomaly was refused 60 seconds ago, because it is revoked.",
            "last heard 6 minutes ago",
            "serves shuttle 1.0.0 (abababababab) since 4 minutes",
            "last order 1.7 60 seconds ago: refused, because it is revoked",
            "10 seconds ago   anomaly: its worker died, 3 times",
        ] {
            assert!(text.contains(told), "{told} is not in\n{text}");
        }
    }

    #[test]
    fn health_is_told_in_words() {
        let health = Health {
            clock_offset_secs: Some(-7200),
            battery: Some(Battery {
                percent: 80,
                state: BatteryState::Charging,
            }),
            network: Some(Network {
                link: LinkKind::Wifi,
                signal_dbm: Some(-60),
                received_kib: 3_000,
                sent_kib: 1,
                errors: 4,
            }),
            served: Some(Served {
                rows: 10,
                rows_failed: 1,
                rows_nonfinite: 2,
                latency_us_p99: Some(18_400),
                worker_deaths: 3,
                workers_kib: Some(20_000),
            }),
            ..Health::default()
        };
        let told = figures(&health);
        let said = |label: &str| {
            let found = told.iter().find(|(name, _)| *name == label);
            found.map(|(_, text)| text.as_str()).unwrap_or_default()
        };
        assert_eq!(said("battery"), "80 %, charging");
        assert_eq!(
            said("network"),
            "wifi at -60 dBm, 3.0 MB received and 1.0 kB sent, 4 errors"
        );
        assert_eq!(
            said("answers"),
            "10 rows, 1 failed, 2 not finite, 99 % within 18.4 ms, 3 workers died, \
             workers held 20 MB at most"
        );
        assert_eq!(said("clock"), "plausible, 2 hours ahead of the server's");
        assert_eq!(said("memory"), "", "it was not measured");
    }
}

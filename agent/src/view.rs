//! What the agent shows of itself: `GET /status`, `STATE/status.json`, and `bellwether-agent
//! status`.

use bellwether_package::UnixSecs;
use bellwether_protocol::Outcome;
use serde::{Deserialize, Serialize};

/// The device, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Its id.
    pub device: String,
    /// Version of the agent.
    pub agent_version: String,
    /// When this was told, in seconds since 1970 UTC.
    pub at: u64,
    /// Whether the link to the server is up.
    pub connected: bool,
    /// When the server was last heard; `None`: never.
    pub last_contact: Option<u64>,
    /// Version of the trust root.
    pub root_version: u32,
    /// Version of the revocation list.
    pub revocations_version: Option<u64>,
    /// Reports that the server has not stored yet.
    pub reports_waiting: usize,
    /// What keeps the agent from working as it should, if anything does.
    pub trouble: Option<String>,
    /// Its slots.
    pub slots: Vec<SlotView>,
}

/// One slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its name.
    pub slot: String,
    /// Where its update machine stands.
    pub phase: String,
    /// The release that answers.
    pub serving: Option<String>,
    /// Its model and version.
    pub model: Option<String>,
    /// The release that it is about to serve.
    pub candidate: Option<String>,
    /// The release that it could go back to.
    pub previous: Option<String>,
    /// Why it answers with nothing.
    pub reason: Option<String>,
    /// Since when it has served that release, or has answered with nothing for that reason.
    #[serde(default)]
    pub since: Option<u64>,
    /// The highest order carried out, `epoch.n`.
    pub floor: String,
    /// What became of the last order.
    pub outcome: Option<OutcomeView>,
}

/// What became of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeView {
    /// When, in seconds since 1970 UTC.
    pub at: u64,
    /// The release ordered.
    pub release: Option<String>,
    /// The order, `epoch.n`.
    pub sequence: String,
    /// What happened and why, as a sentence.
    pub text: String,
}

impl OutcomeView {
    /// How `outcome` is shown.
    pub fn of(outcome: &Outcome, at: u64) -> Self {
        Self {
            at,
            release: outcome.release.map(|release| release.to_string()),
            sequence: outcome.sequence.to_string(),
            text: outcome.kind.to_string(),
        }
    }
}

impl DeviceView {
    /// For people, as lines.
    pub fn lines(&self, now: u64) -> Vec<String> {
        let link = match (self.connected, self.last_contact) {
            (true, _) => "connected".to_owned(),
            (false, Some(at)) => format!("not connected; last heard {}", ago(now, at)),
            (false, None) => "never connected".to_owned(),
        };
        let mut lines = vec![
            format!(
                "{}: {link}; {} reports wait",
                self.device, self.reports_waiting
            ),
            format!(
                "trust root version {}, revocation list {}",
                self.root_version,
                self.revocations_version
                    .map_or("missing".to_owned(), |version| format!("version {version}")),
            ),
        ];
        lines.extend(
            self.trouble
                .iter()
                .map(|trouble| format!("trouble: {trouble}")),
        );
        if self.slots.is_empty() {
            lines.push("no slot was ever assigned a release".to_owned());
        }
        self.slots
            .iter()
            .for_each(|slot| slot.push_lines(now, &mut lines));
        lines
    }
}

impl SlotView {
    /// What is there, a reason or a release, and since when.
    pub fn standing(&self) -> Option<(String, UnixSecs)> {
        let what = self.reason.as_ref().or(self.serving.as_ref())?;
        Some((what.clone(), UnixSecs(self.since?)))
    }

    fn push_lines(&self, now: u64, lines: &mut Vec<String>) {
        let short = |id: &String| id.chars().take(12).collect::<String>();
        let serving = match (&self.serving, &self.model) {
            (Some(release), Some(model)) => format!("serves {model} ({})", short(release)),
            (Some(release), None) => format!("is opening {}", short(release)),
            (None, _) => "serves nothing".to_owned(),
        };
        lines.push(format!("slot {}: {}, {serving}", self.slot, self.phase));
        if let Some(reason) = &self.reason {
            lines.push(format!("  because {reason}"));
        }
        if let Some(candidate) = &self.candidate {
            lines.push(format!("  candidate {}", short(candidate)));
        }
        if let Some(previous) = &self.previous {
            lines.push(format!("  can go back to {}", short(previous)));
        }
        match &self.outcome {
            Some(outcome) => lines.push(format!(
                "  last order {} {}: {}",
                outcome.sequence,
                ago(now, outcome.at),
                outcome.text
            )),
            None => lines.push("  no order has ended yet".to_owned()),
        }
    }
}

fn ago(now: u64, at: u64) -> String {
    match now.saturating_sub(at) {
        secs @ 0..120 => format!("{secs} s ago"),
        secs @ 120..7200 => format!("{} min ago", secs / 60),
        secs @ 7200..172_800 => format!("{} h ago", secs / 3600),
        secs => format!("{} days ago", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                outcome: Some(OutcomeView {
                    at: 400,
                    sequence: "1.7".into(),
                    text: "refused, because it is revoked".into(),
                    release: None,
                }),
                ..SlotView::default()
            }],
            ..DeviceView::default()
        };
        let text = view.lines(460).join("\n");
        assert!(text.contains("last heard 6 min ago"), "{text}");
        assert!(
            text.contains("serves shuttle 1.0.0 (abababababab)"),
            "{text}"
        );
        assert!(
            text.contains("last order 1.7 60 s ago: refused, because it is revoked"),
            "{text}"
        );
    }
}

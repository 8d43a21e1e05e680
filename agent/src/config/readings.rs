//! `[[readings]]`: sensors that talk over a broker of their own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bellwether_package::SlotName;
use bellwether_package::sections::{FIELDS_MAX, PORTS_MAX};
use serde::Deserialize;

/// Topics that readings come from at most; each takes a connection and a thread.
pub const READINGS_MAX: usize = 16;
/// Longest topic in bytes: MQTT takes 65535, nobody writes more by hand than this.
const TOPIC_BYTES_MAX: usize = 256;
/// Longest place of a value in bytes.
const POINTER_BYTES_MAX: usize = 256;
/// Longest key, and longest user name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// One topic whose readings a slot answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Readings {
    /// The slot that answers.
    pub slot: SlotName,
    /// The broker.
    pub broker: Broker,
    /// Where readings come from.
    pub topic: String,
    /// Where answers go to; errors go to `ANSWERS/errors`, and what serves to `ANSWERS/state`.
    pub answers: String,
    /// The key under which the answer is put into the reading; left out, the answer goes alone.
    pub put: Option<String>,
    /// Where in a reading the value of a field is, as a JSON pointer; its own name if left out.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// Where in a reading all values of an input are, as a JSON pointer; else by its fields.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// The user that the broker asks for.
    pub user: Option<String>,
    /// The file with that user's password.
    pub password_file: Option<PathBuf>,
}

/// A broker's address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Broker {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// An address that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a broker is given as host:port, such as 127.0.0.1:1883")]
pub struct BadBroker;

impl TryFrom<String> for Broker {
    type Error = BadBroker;

    fn try_from(text: String) -> Result<Self, BadBroker> {
        let (host, port) = text.rsplit_once(':').ok_or(BadBroker)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = port.parse().ok().filter(|port| *port > 0);
        match port {
            Some(port) if !host.is_empty() => Ok(Self { host, port }),
            _ => Err(BadBroker),
        }
    }
}

impl std::fmt::Display for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Readings {
    /// Where errors go to.
    pub fn errors(&self) -> String {
        format!("{}/errors", self.answers)
    }

    /// Where it is told what serves.
    pub fn state(&self) -> String {
        format!("{}/state", self.answers)
    }
}

/// Which key is out of its bounds, and what it must be.
pub(super) fn check(all: &[Readings]) -> Result<(), (&'static str, &'static str)> {
    if all.len() > READINGS_MAX {
        return Err(("readings", "at most 16"));
    }
    let is_topic = |topic: &str| {
        let bytes = 1..=TOPIC_BYTES_MAX;
        bytes.contains(&topic.len()) && !topic.contains(['+', '#', '\0']) && !topic.starts_with('$')
    };
    let is_pointer = |at: &str| at.starts_with('/') && at.len() <= POINTER_BYTES_MAX;
    let is_name = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len());
    for readings in all {
        if !is_topic(&readings.topic) {
            return Err((
                "readings.topic",
                "one topic of up to 256 bytes, without + and #",
            ));
        }
        if !is_topic(&readings.answers) {
            return Err((
                "readings.answers",
                "one topic of up to 256 bytes, without + and #",
            ));
        }
        // Answers that are readings again would go round for ever.
        let answered = |other: &Readings| {
            let topics = [other.answers.clone(), other.errors(), other.state()];
            topics.contains(&readings.topic)
        };
        if all.iter().any(answered) {
            return Err(("readings.topic", "a topic that no answers go to"));
        }
        let places = readings.fields.values().chain(readings.inputs.values());
        let few = readings.fields.len() <= FIELDS_MAX && readings.inputs.len() <= PORTS_MAX;
        if !few || !places.map(String::as_str).all(is_pointer) {
            let must = "JSON pointers such as \"/values/0\", of up to 256 bytes";
            return Err(("readings.fields and readings.inputs", must));
        }
        if !readings.put.as_deref().is_none_or(is_name) {
            return Err(("readings.put", "a key of 1 to 64 bytes"));
        }
        if !readings.user.as_deref().is_none_or(is_name) {
            return Err(("readings.user", "1 to 64 bytes long"));
        }
        if readings.password_file.is_some() && readings.user.is_none() {
            return Err(("readings.user", "there when there is a password_file"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(more: &str) -> Readings {
        let least = "slot = \"a\"\nbroker = \"[::1]:1883\"\ntopic = \"in\"\nanswers = \"out\"\n";
        toml::from_str(&format!("{least}{more}")).unwrap()
    }

    #[test]
    fn the_least_is_a_slot_a_broker_and_two_topics() {
        let readings = readings("");
        assert_eq!(readings.broker.to_string(), "::1:1883");
        assert_eq!(
            (readings.errors(), readings.state()),
            ("out/errors".into(), "out/state".into())
        );
        assert_eq!(check(&[readings]), Ok(()));
        for address in ["", ":1883", "host", "host:0", "host:mqtt", "host:70000"] {
            assert_eq!(
                Broker::try_from(address.to_owned()),
                Err(BadBroker),
                "{address}"
            );
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_key() {
        let refused = |readings: Readings| check(&[readings]).unwrap_err().0;
        let with = |topic: &str, answers: &str| Readings {
            topic: topic.into(),
            answers: answers.into(),
            ..readings("")
        };
        for topic in ["", "a/+", "#", "$SYS/x", &"t".repeat(257)] {
            assert_eq!(refused(with(topic, "out")), "readings.topic");
            assert_eq!(refused(with("in", topic)), "readings.answers");
        }
        assert_eq!(refused(readings("put = \"\"")), "readings.put");
        assert_eq!(refused(readings("password_file = \"p\"")), "readings.user");
        let fields = "readings.fields and readings.inputs";
        assert_eq!(refused(readings("fields = { V1 = \"V1\" }")), fields);
        assert_eq!(refused(readings("inputs = { x = \"\" }")), fields);
        let many = vec![readings(""); READINGS_MAX + 1];
        assert_eq!(check(&many).unwrap_err().0, "readings");
    }

    #[test]
    fn answers_never_come_back_as_readings() {
        let with = |topic: &str, answers: &str| Readings {
            topic: topic.into(),
            answers: answers.into(),
            ..readings("")
        };
        for (topic, answers) in [("a", "a"), ("a/errors", "a"), ("a/state", "a")] {
            assert!(check(&[with(topic, answers)]).is_err(), "{topic} {answers}");
        }
        let ring = [with("a", "b"), with("b", "a")];
        assert_eq!(check(&ring).unwrap_err().0, "readings.topic");
        assert_eq!(check(&[with("a", "b"), with("a", "c")]), Ok(()));
    }
}

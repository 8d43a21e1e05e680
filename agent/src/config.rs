//! The agent's configuration: one TOML file, read once, typed, unknown keys refused.

mod readings;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bellwether_package::Attribute;
use bellwether_package::ids::ATTRIBUTES_MAX;
use bellwether_protocol::DeviceId;
use serde::Deserialize;

pub use readings::{Broker, READINGS_MAX, Readings};

/// Longest configuration file in bytes: a person writes it by hand.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;

/// Everything that the agent is told by the person who installs it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The device's name, and the common name of its certificate.
    pub device: DeviceId,
    /// The folder where the agent keeps all it must remember.
    pub state_dir: PathBuf,
    /// Path of the `bellwether-worker` binary that runs models in confinement.
    pub worker: PathBuf,
    /// The local API.
    #[serde(default)]
    pub api: Api,
    /// The page for people beside the device, if it has an address of its own.
    pub page: Option<Page>,
    /// Sensors that talk over a broker of their own.
    #[serde(default)]
    pub readings: Vec<Readings>,
    /// What is known about the device: cohorts and approvals select by it.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// What is reported, and how often.
    #[serde(default)]
    pub report: Report,
    /// The connection to the server.
    #[serde(default)]
    pub link: Link,
    /// What the agent may use of the device.
    #[serde(default)]
    pub limits: Limits,
}

/// The local API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Where it listens; port 0 takes any free port and writes it to `endpoints.json`.
    pub listen: SocketAddr,
    /// A Unix socket on which it listens as well.
    pub socket: Option<PathBuf>,
    /// How many requests are worked on at the same time; more are answered with 503.
    pub requests_max: usize,
    /// Longest request body in bytes; `requests_max` of them may be in memory at once.
    pub body_bytes_max: usize,
}

/// An address for the page alone. The local API has the page too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Where it listens. Whoever reaches this address can read the page, and do nothing else.
    pub listen: SocketAddr,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            socket: None,
            requests_max: 16,
            // 4096 rows of a dozen readings in JSON.
            body_bytes_max: 1024 * 1024,
        }
    }
}

/// Reporting intervals.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Report {
    /// Length of a window of counts in seconds.
    pub window_secs: u32,
    /// Its length while a rollout tries a release on this device, if that is shorter.
    pub rollout_window_secs: u32,
    /// Seconds between health records.
    pub health_secs: u32,
    /// Seconds between two looks for a newer trust root and revocation list.
    pub trust_secs: u32,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            // With the keepalive, some 35 kB a day.
            window_secs: 3600,
            rollout_window_secs: 300,
            health_secs: 3600,
            // The server tells a connected device of new ones at once.
            trust_secs: 86_400,
        }
    }
}

/// The connection to the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// Seconds between two pings. Each costs some 200 bytes; without them a network may forget
    /// the connection, and an order then waits for the next ping.
    pub keep_alive_secs: u32,
    /// The first attempt to connect again is drawn from so many seconds, so that a fleet does
    /// not return in one instant.
    pub spread_secs: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            keep_alive_secs: 1800,
            spread_secs: 60,
        }
    }
}

/// What the agent may use of the device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest package that is downloaded, in bytes.
    pub package_bytes_max: u64,
    /// Bytes that packages may take in all: two copies of each slot's, and one that comes.
    pub disk_bytes_max: u64,
    /// How fast packages are downloaded at most, in bytes per second; as fast as it goes if left
    /// out.
    pub download_bytes_per_sec: Option<u64>,
    /// Bytes that stay free on the state folder's disk.
    pub disk_bytes_free_min: u64,
    /// Memory that one model's worker may use, in bytes.
    pub worker_memory_bytes_max: u64,
    /// Longest that one inference may take, in milliseconds.
    pub deadline_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            package_bytes_max: 512 * 1024 * 1024,
            disk_bytes_max: 3 * 512 * 1024 * 1024,
            download_bytes_per_sec: None,
            disk_bytes_free_min: 16 * 1024 * 1024,
            worker_memory_bytes_max: 1024 * 1024 * 1024,
            deadline_ms: 5_000,
        }
    }
}

/// Why a configuration is refused. The operator has to mend the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: check the path and its permissions", path.display())]
    Unreadable {
        /// The configuration file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is far too long to be a configuration.
    #[error("{} is longer than {CONFIG_BYTES_MAX} bytes: this is not an agent's configuration", path.display())]
    TooLong {
        /// The configuration file.
        path: PathBuf,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{} is not a valid configuration", path.display())]
    Malformed {
        /// The configuration file.
        path: PathBuf,
        /// Line, key and what is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// A value is out of its bounds.
    #[error("{key} in {} must be {must}", path.display())]
    OutOfBounds {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it must be.
        must: &'static str,
    },
}

/// Shortest window and health interval: a second, the resolution of wire times.
const INTERVAL_SECS_MIN: u32 = 1;
/// Longest: a day, or counts would overflow and silence would look like health.
const INTERVAL_SECS_MAX: u32 = 86_400;

/// Slowest download that a person can mean: below, a connection times out between two parts.
const DOWNLOAD_BYTES_PER_SEC_MIN: u64 = 1024;

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]; unknown keys are errors.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let length = std::fs::metadata(path).map_err(unreadable)?.len();
        if length > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLong {
                path: path.to_owned(),
            });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Malformed {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config
            .check()
            .map_err(|(key, must)| ConfigError::OutOfBounds {
                path: path.to_owned(),
                key,
                must,
            })?;
        Ok(config)
    }

    /// The attributes as cohorts and approvals select by them.
    pub fn attributes(&self) -> Vec<Attribute> {
        self.attributes
            .iter()
            .filter_map(|(key, value)| Attribute::new(key, value).ok())
            .collect()
    }

    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let interval = INTERVAL_SECS_MIN..=INTERVAL_SECS_MAX;
        for (secs, key) in [
            (self.report.window_secs, "report.window_secs"),
            (
                self.report.rollout_window_secs,
                "report.rollout_window_secs",
            ),
            (self.report.health_secs, "report.health_secs"),
            (self.report.trust_secs, "report.trust_secs"),
        ] {
            if !interval.contains(&secs) {
                return Err((key, "from 1 to 86400"));
            }
        }
        // MQTT counts the keepalive in 16 bits.
        if !(5..=65_535).contains(&self.link.keep_alive_secs) {
            return Err(("link.keep_alive_secs", "from 5 to 65535"));
        }
        if !(1..=3600).contains(&self.link.spread_secs) {
            return Err(("link.spread_secs", "from 1 to 3600"));
        }
        if !(1..=256).contains(&self.api.requests_max) {
            return Err(("api.requests_max", "from 1 to 256"));
        }
        if !(1024..=64 * 1024 * 1024).contains(&self.api.body_bytes_max) {
            return Err(("api.body_bytes_max", "from 1024 to 67108864 (64 MiB)"));
        }
        if !(10..=600_000).contains(&self.limits.deadline_ms) {
            return Err(("limits.deadline_ms", "from 10 to 600000"));
        }
        let paced = self.limits.download_bytes_per_sec;
        if paced.is_some_and(|limit| limit < DOWNLOAD_BYTES_PER_SEC_MIN) {
            return Err(("limits.download_bytes_per_sec", "at least 1024"));
        }
        if self.limits.worker_memory_bytes_max < 16 * 1024 * 1024 {
            return Err((
                "limits.worker_memory_bytes_max",
                "at least 16777216 (16 MiB)",
            ));
        }
        readings::check(&self.readings)?;
        if self.attributes.len() > ATTRIBUTES_MAX
            || self
                .attributes
                .iter()
                .any(|(key, value)| Attribute::new(key, value).is_err())
        {
            return Err((
                "attributes",
                "at most 32, keys up to 24 and values up to 48 of [a-z0-9-_.]",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod shipped;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    const LEAST: &str = "device = \"pump-1\"\nstate_dir = \"s\"\nworker = \"w\"\n";

    #[test]
    fn the_least_configuration_is_enough() {
        let config = read(LEAST).unwrap();
        assert_eq!(config.report.window_secs, 3600);
        assert!(config.api.listen.ip().is_loopback());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for text in [
            format!("{LEAST}sevrer = \"x\"\n"),
            format!("{LEAST}[report]\nwindow_sec = 3\n"),
        ] {
            let Err(ConfigError::Malformed { source, .. }) = read(&text) else {
                panic!("unknown key accepted: {text}");
            };
            assert!(source.to_string().contains("unknown field"), "{source}");
        }
    }

    #[test]
    fn values_out_of_bounds_are_refused_by_key() {
        let text = format!("{LEAST}[report]\nwindow_secs = 0\n");
        assert!(matches!(
            read(&text),
            Err(ConfigError::OutOfBounds {
                key: "report.window_secs",
                ..
            })
        ));
        let text = format!("{LEAST}[attributes]\n\"Bad Key\" = \"x\"\n");
        assert!(matches!(
            read(&text),
            Err(ConfigError::OutOfBounds {
                key: "attributes",
                ..
            })
        ));
        let text = "device = \"Not A Name\"\nstate_dir = \"s\"\nworker = \"w\"\n";
        assert!(matches!(read(text), Err(ConfigError::Malformed { .. })));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::read(Path::new("/nonexistent/agent.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/agent.toml"));
    }
}

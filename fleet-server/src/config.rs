//! The server's configuration: read once, unknown keys refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

/// Everything that may be set in the TOML file, or by `BELLWETHER_SERVER_…` in the environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the REST API listens; port 0: any free one.
    pub https: SocketAddr,
    /// Where the broker listens; port 0: any free one.
    pub mqtts: SocketAddr,
    /// Names and addresses that the server's certificate is for, beside `localhost` and the
    /// addresses it listens on. Devices check them.
    pub names: Vec<String>,
    /// `host` that enrolled devices reach the broker at; absent: the address it listens on.
    pub mqtts_host: Option<String>,
    /// Milliseconds between two rounds of the planner.
    pub planner_period_ms: u64,
    /// Seconds between two publications of every device's assignment, beside those after each
    /// connection to the broker: it may forget. Devices on metered networks pay for each.
    pub republish_secs: u64,
    /// How long a signed assignment is valid, in seconds. It is signed anew before half of that.
    pub assignment_secs: u64,
    /// How long a device's certificate is valid, in days.
    pub device_certificate_days: u32,
    /// Windows kept per device and slot; the oldest go first.
    pub windows_kept: u32,
    /// Largest package that may be uploaded, in bytes.
    pub package_bytes_max: u64,
    /// Rows that one device can answer in a second: windows that tell more are impossible.
    pub rows_per_sec_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            https: SocketAddr::from((Ipv4Addr::LOCALHOST, 7443)),
            mqtts: SocketAddr::from((Ipv4Addr::LOCALHOST, 8883)),
            names: Vec::new(),
            mqtts_host: None,
            planner_period_ms: 1000,
            republish_secs: 6 * 3600,
            assignment_secs: 30 * 24 * 3600,
            device_certificate_days: 825,
            windows_kept: 2000,
            package_bytes_max: 768 * 1024 * 1024,
            rows_per_sec_max: 100_000,
        }
    }
}

/// The configuration cannot be used. The operator is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Unreadable, of the wrong type, or with keys that do not exist.
    #[error("the configuration cannot be read; correct it and start again")]
    Unreadable(#[source] Box<figment::Error>),
    /// A figure that cannot work.
    #[error("configuration: {0}")]
    Impossible(&'static str),
}

impl Config {
    /// Reads defaults, then `file` if there is one, then the environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a value or key is not understood.
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        let config: Self = figment
            .merge(Env::prefixed("BELLWETHER_SERVER_"))
            .extract()
            .map_err(|cause| ConfigError::Unreadable(Box::new(cause)))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |why| Err(ConfigError::Impossible(why));
        if !(50..=60_000).contains(&self.planner_period_ms) {
            return refuse("planner_period_ms must be from 50 to 60000");
        }
        if self.republish_secs == 0 {
            return refuse("republish_secs must be at least 1");
        }
        if self.assignment_secs < 3600 {
            return refuse("assignment_secs must be at least 3600");
        }
        if self.windows_kept == 0 {
            return refuse("windows_kept must be at least 1");
        }
        if self.rows_per_sec_max == 0 {
            return refuse("rows_per_sec_max must be at least 1");
        }
        Ok(())
    }
}

//! `bellwether-agent status`: asks the running agent, or reads what it left in the state folder.

use serde::Serialize;

use crate::api::ask_status;
use crate::clock;
use crate::config::Config;
use crate::store::{Store, StoreError};
use crate::view::{DeviceView, Summary};

/// The file in the state folder that the agent keeps its view in.
pub const STATUS: &str = "status.json";

/// There is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The agent never ran here.
    #[error("the agent has never run with this state folder: start `bellwether-agent run`")]
    NeverRan,
    /// What it left cannot be read.
    #[error("cannot read what the agent left")]
    Store(#[from] StoreError),
    /// What it left is damaged.
    #[error("status.json in the state folder is damaged: start the agent to write it anew")]
    Damaged(#[source] serde_json::Error),
}

/// What is known of the device.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// Whether the agent answered; if not, the rest is what it last wrote.
    pub running: bool,
    /// The one sentence, and how bad it is.
    pub summary: Summary,
    /// The device.
    #[serde(flatten)]
    pub device: DeviceView,
}

impl Seen {
    fn of(running: bool, device: DeviceView) -> Self {
        let summary = device.summary(clock::now().0);
        Self {
            running,
            summary,
            device,
        }
    }

    /// For people, as lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.device.lines(clock::now().0);
        if !self.running {
            lines.insert(
                0,
                "The agent does not answer; this is what it last wrote.".to_owned(),
            );
        }
        lines
    }
}

/// Asks the running agent, or reads what it last wrote.
///
/// # Errors
///
/// [`StatusError`] when there is neither.
pub fn look(config: &Config) -> Result<Seen, StatusError> {
    if let Some(device) = ask_status(config)
        && device.device == config.device.as_str()
    {
        return Ok(Seen::of(true, device));
    }
    let text = Store::reader(&config.state_dir)
        .read_file(STATUS)?
        .ok_or(StatusError::NeverRan)?;
    let device = serde_json::from_slice(&text).map_err(StatusError::Damaged)?;
    Ok(Seen::of(false, device))
}

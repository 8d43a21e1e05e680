//! Every MQTT topic, built and parsed. No other place has topic strings.
//!
//! `bw/1/{device}/assignment` and `bw/1/{device}/documents` (both retained) and `bw/1/{device}/ack` go
//! down, `bw/1/{device}/report` goes up; `bw/1/{device}/gone` is the last will that a broker
//! publishes for it. The 1 is the version of this layout.

use core::fmt;
use core::str::FromStr;

use bellwether_package::ids::IdError;

use crate::ids::{DEVICE_ID_BYTES_MAX, DeviceId};

/// What the server subscribes to: every device's reports, shared among its ingest workers.
pub const INGEST_FILTER: &str = "$share/ingest/bw/1/+/report";

/// What the server subscribes to as well: every device's last will.
pub const GONE_FILTER: &str = "$share/ingest/bw/1/+/gone";

/// Every device's orders: nobody may subscribe to it, and the server proves that at each start.
pub const ASSIGNMENTS_FILTER: &str = "bw/1/+/assignment";

const PREFIX: &str = "bw/1/";
const ASSIGNMENT: &str = "assignment";
const DOCUMENTS: &str = "documents";
const ACK: &str = "ack";
const REPORT: &str = "report";
const GONE: &str = "gone";

/// Longest topic in bytes.
pub const TOPIC_BYTES_MAX: usize = PREFIX.len() + DEVICE_ID_BYTES_MAX + 1 + ASSIGNMENT.len();

/// A topic of one device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Down, retained: its signed assignment.
    Assignment(DeviceId),
    /// Down, retained: which trust documents there are.
    Documents(DeviceId),
    /// Down: acknowledged reports.
    Ack(DeviceId),
    /// Up: its reports.
    Report(DeviceId),
    /// Up: its last will, which the broker publishes when its connection is lost. The payload is
    /// the boot id of whoever was connected, 8 bytes little-endian.
    Gone(DeviceId),
}

/// Why a text is not one of our topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not `bw/1/{device}/{assignment|documents|ack|report|gone}`.
    #[error("the topic is none of Bellwether's")]
    Foreign,
    /// Its device level is no device id.
    #[error("the topic's device level is not a device id")]
    Device(#[source] IdError),
}

impl Topic {
    /// Parses a topic name (no wildcards).
    ///
    /// # Errors
    ///
    /// [`TopicError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let rest = text.strip_prefix(PREFIX).ok_or(TopicError::Foreign)?;
        let (device, leaf) = rest.split_once('/').ok_or(TopicError::Foreign)?;
        let of = match leaf {
            ASSIGNMENT => Self::Assignment,
            DOCUMENTS => Self::Documents,
            ACK => Self::Ack,
            REPORT => Self::Report,
            GONE => Self::Gone,
            _ => return Err(TopicError::Foreign),
        };
        DeviceId::new(device).map(of).map_err(TopicError::Device)
    }

    /// The device whose topic it is.
    pub fn device(&self) -> &DeviceId {
        match self {
            Self::Assignment(device)
            | Self::Documents(device)
            | Self::Ack(device)
            | Self::Report(device)
            | Self::Gone(device) => device,
        }
    }

    /// The topic's name.
    pub fn name(&self) -> heapless::String<TOPIC_BYTES_MAX> {
        let mut name = heapless::String::new();
        fmt::Write::write_fmt(&mut name, format_args!("{self}"))
            .expect("TOPIC_BYTES_MAX fits the longest device id and leaf");
        name
    }

    /// Whether the device whose topic it is may publish here. Nobody else may.
    pub fn device_publishes(&self) -> bool {
        matches!(self, Self::Report(_) | Self::Gone(_))
    }

    /// Whether the device whose topic it is may subscribe here. No other device may.
    pub fn device_subscribes(&self) -> bool {
        matches!(
            self,
            Self::Assignment(_) | Self::Documents(_) | Self::Ack(_)
        )
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, leaf) = match self {
            Self::Assignment(device) => (device, ASSIGNMENT),
            Self::Documents(device) => (device, DOCUMENTS),
            Self::Ack(device) => (device, ACK),
            Self::Report(device) => (device, REPORT),
            Self::Gone(device) => (device, GONE),
        };
        write!(f, "{PREFIX}{device}/{leaf}")
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::parse(text)
    }
}

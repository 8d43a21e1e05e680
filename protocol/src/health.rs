//! How a device itself is.
//!
//! It is sent every few minutes for years, so it is made of small integers: postcard gives each as
//! many bytes as it needs. Figures that only rise count from the device's start, so that a record
//! that was lost takes nothing with it; what concerns requests counts since the record before.

use core::fmt;

use serde::{Deserialize, Serialize};

use bellwether_package::ids::ModelVersion;

use crate::outcome::OutcomeWord;

/// Longest agent version in a [`BriefHealth`], in bytes.
pub const AGENT_VERSION_BYTES_MAX: usize = 24;

/// How the device itself is. `None`: it is not there, or cannot be measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Version of the agent.
    pub agent_version: Option<ModelVersion>,
    /// Since the device started, in seconds.
    pub uptime_secs: u64,
    /// How far its clock can be trusted.
    pub clock: ClockState,
    /// By how much the server's clock is ahead of the device's, in seconds.
    pub clock_offset_secs: Option<i64>,
    /// Share of processor time in use, in thousandths.
    pub cpu_permille: Option<u16>,
    /// Load average over a minute, in hundredths.
    pub load_centi: Option<u32>,
    /// Memory; free is what programs could still get.
    pub memory: Option<Room>,
    /// Storage where packages lie.
    pub disk: Option<Room>,
    /// The warmest sensor, in hundredths of a degree Celsius.
    pub temperature_centi_c: Option<i32>,
    /// The interface that leads to the server; `None` while none does.
    pub network: Option<Network>,
    /// The device's battery.
    pub battery: Option<Battery>,
    /// Memory that the agent holds, in KiB.
    pub agent_kib: Option<u32>,
    /// What its models did since the record before; `None` if it has no slot.
    pub served: Option<Served>,
    /// What became of the last order that ended, in any slot.
    pub last_outcome: Option<LastOutcome>,
}

/// Room of some kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Room {
    /// In all, in KiB.
    pub kib: u64,
    /// Free, in KiB.
    pub kib_free: u64,
}

impl Room {
    /// In use, in KiB.
    pub fn kib_used(self) -> u64 {
        self.kib.saturating_sub(self.kib_free)
    }
}

/// One network interface, since the device started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Of what kind it is.
    pub link: LinkKind,
    /// Strength of the radio's signal in dBm.
    pub signal_dbm: Option<i8>,
    /// Received by everything on the device, in KiB.
    pub received_kib: u64,
    /// Sent, likewise.
    pub sent_kib: u64,
    /// Packets that were received or sent wrongly.
    pub errors: u32,
}

/// Of what kind a network interface is. Append only: devices in the field keep these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// None of these.
    Other,
    /// A cable.
    Ethernet,
    /// Wireless LAN.
    Wifi,
    /// A mobile network's modem.
    Cellular,
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Other => "other",
            Self::Ethernet => "ethernet",
            Self::Wifi => "wifi",
            Self::Cellular => "cellular",
        })
    }
}

/// A battery that the device runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Battery {
    /// What is left, in hundredths.
    pub percent: u8,
    /// What becomes of it.
    pub state: BatteryState,
}

/// What becomes of a battery. Append only: devices in the field keep these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatteryState {
    /// Nobody knows.
    Unknown,
    /// The device lives on it.
    Discharging,
    /// It takes more than it gives.
    Charging,
    /// On mains, and not charged, full or not.
    Idle,
}

impl fmt::Display for BatteryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Discharging => "discharging",
            Self::Charging => "charging",
            Self::Idle => "idle",
        })
    }
}

/// What the models of all slots did since the record before, in the windows that closed by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Served {
    /// Rows that applications asked for.
    pub rows: u32,
    /// Rows that failed, whosever fault it was.
    pub rows_failed: u32,
    /// Rows whose answers hold NaN or infinity.
    pub rows_nonfinite: u32,
    /// 99th percentile of how long an answer took, in microseconds; of the slowest slot's window.
    pub latency_us_p99: Option<u32>,
    /// Workers that died.
    pub worker_deaths: u32,
    /// The most memory that each slot's worker has held since it was started, added up, in KiB.
    pub workers_kib: Option<u32>,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastOutcome {
    /// In a word.
    pub word: OutcomeWord,
    /// How long before this record, in seconds.
    pub secs_ago: u32,
}

/// How far a device's clock can be trusted. Append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ClockState {
    /// Within what verified documents say.
    #[default]
    Plausible,
    /// Earlier than a verified document that the device holds.
    Behind,
    /// Later than anything that the device holds is valid for.
    Ahead,
    /// The device has no clock.
    None,
}

/// Health as agents told it before [`Health`] had network, battery and what was served. Devices in
/// the field may still send it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BriefHealth {
    /// Share of processor time in use, in thousandths.
    pub cpu_permille: Option<u16>,
    /// Memory in use, in bytes.
    pub memory_bytes_used: Option<u64>,
    /// Memory in all, in bytes.
    pub memory_bytes: Option<u64>,
    /// Free storage where packages lie, in bytes.
    pub disk_bytes_free: Option<u64>,
    /// That storage in all, in bytes.
    pub disk_bytes: Option<u64>,
    /// The warmest sensor, in hundredths of a degree Celsius.
    pub temperature_centi_c: Option<i32>,
    /// Load average over a minute, in hundredths.
    pub load_centi: Option<u32>,
    /// Since the device started, in seconds.
    pub uptime_secs: u64,
    /// Version of the agent.
    pub agent_version: heapless::String<AGENT_VERSION_BYTES_MAX, u8>,
    /// How far its clock can be trusted.
    pub clock: ClockState,
}

impl From<&BriefHealth> for Health {
    fn from(brief: &BriefHealth) -> Self {
        let room = |all: Option<u64>, free: Option<u64>| {
            Some(Room {
                kib: all? / 1024,
                kib_free: free? / 1024,
            })
        };
        let memory_free = brief.memory_bytes.zip(brief.memory_bytes_used);
        let memory_free = memory_free.map(|(all, used)| all.saturating_sub(used));
        Self {
            agent_version: brief.agent_version.parse().ok(),
            uptime_secs: brief.uptime_secs,
            clock: brief.clock,
            cpu_permille: brief.cpu_permille,
            load_centi: brief.load_centi,
            memory: room(brief.memory_bytes, memory_free),
            disk: room(brief.disk_bytes, brief.disk_bytes_free),
            temperature_centi_c: brief.temperature_centi_c,
            ..Self::default()
        }
    }
}

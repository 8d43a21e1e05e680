//! The parts of the server's answers that text output shows. Fields the server adds are ignored;
//! fields it drops are reported.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) version: String,
    pub(super) bytes: u64,
    pub(super) approved_by: Vec<String>,
    pub(super) rejected_by: Vec<String>,
    pub(super) approvals_needed: u32,
    pub(super) is_release: bool,
    pub(super) revoked: bool,
    pub(super) golden_mismatch_allowed: bool,
    pub(super) approvals: Vec<Approval>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Approval {
    pub(super) person: String,
    pub(super) standing: String,
    pub(super) decision: String,
    pub(super) slots: Vec<String>,
    pub(super) selectors: Vec<String>,
    pub(super) expires: u64,
    pub(super) reason: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct FieldLabels {
    pub(super) slot: String,
    pub(super) field: String,
    pub(super) devices: u32,
    pub(super) labels: u64,
    pub(super) classes: Option<ClassLabels>,
    pub(super) numbers: Option<NumberLabels>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ClassLabels {
    pub(super) right: Option<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct NumberLabels {
    pub(super) bias: f64,
    pub(super) mean_abs: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Device {
    pub(super) device: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) last_seen: Option<u64>,
    pub(super) revoked: Option<DeviceRevoked>,
    pub(super) health: Option<Health>,
    pub(super) slots: Vec<Slot>,
    pub(super) flags: Vec<Flag>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DeviceRevoked {
    pub(super) at: u64,
    pub(super) reason: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Health {
    pub(super) cpu_permille: Option<u16>,
    pub(super) memory_bytes_used: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) disk_bytes_free: Option<u64>,
    pub(super) temperature_centi_c: Option<i32>,
    pub(super) uptime_secs: u64,
    pub(super) agent_version: Option<String>,
    pub(super) clock: String,
    pub(super) clock_offset_secs: Option<i64>,
    pub(super) network: Option<Network>,
    pub(super) battery: Option<Battery>,
    pub(super) served: Option<Served>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Network {
    pub(super) link: String,
    pub(super) signal_dbm: Option<i8>,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) errors: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Battery {
    pub(super) percent: u8,
    pub(super) state: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Served {
    pub(super) rows: u32,
    pub(super) rows_failed: u32,
    pub(super) latency_us_p99: Option<u32>,
    pub(super) worker_deaths: u32,
    pub(super) workers_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Slot {
    pub(super) slot: String,
    pub(super) desired: Option<String>,
    pub(super) disabled: Option<String>,
    pub(super) serving: Option<String>,
    pub(super) candidate: Option<String>,
    pub(super) phase: Option<String>,
    pub(super) outcome: Option<Outcome>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    pub(super) kind: String,
    pub(super) text: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Flag {
    pub(super) kind: String,
    pub(super) text: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct RolloutSummary {
    pub(super) id: u64,
    pub(super) slot: String,
    pub(super) release: String,
    pub(super) previous: Option<String>,
    pub(super) selector: String,
    pub(super) state: String,
    pub(super) stage: Option<u32>,
    pub(super) stages: u32,
    pub(super) devices: u32,
    pub(super) treated: u32,
    pub(super) decision: Option<Decision>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Rollout {
    #[serde(flatten)]
    pub(super) summary: RolloutSummary,
    pub(super) device_states: Vec<RolloutDevice>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RolloutDevice {
    pub(super) device: String,
    pub(super) arm: String,
    pub(super) stage: Option<u32>,
    pub(super) serving: Option<String>,
    pub(super) phase: Option<String>,
    pub(super) last_seen: Option<u64>,
    pub(super) outcome: Option<Outcome>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Decision {
    pub(super) at: u64,
    pub(super) stage: Option<u32>,
    pub(super) decision: String,
    pub(super) text: String,
    pub(super) reasons: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RolloutCreated {
    pub(super) id: u64,
    pub(super) state: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct OrderAccepted {
    pub(super) devices: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Claim {
    pub(super) claim: String,
    pub(super) ca_sha256: String,
    pub(super) expires: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Why {
    pub(super) sentence: String,
    pub(super) chain: Vec<WhyStep>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WhyStep {
    pub(super) at: u64,
    pub(super) kind: String,
    pub(super) text: String,
}

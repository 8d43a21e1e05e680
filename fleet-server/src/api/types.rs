//! What the REST API takes and gives, as JSON.
//!
//! Package ids, fingerprints and keys are lower-case hexadecimal text, times are seconds since
//! 1970 UTC. Every request refuses unknown fields; answers may grow fields, never lose them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong, for programs and for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// A stable word for programs, such as `claim-used`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// What to do next.
    pub next: String,
}

/// `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`, or `starting` while the broker's isolation is being probed.
    pub status: String,
    /// Version of the server.
    pub version: String,
    /// Whether releases are offered that the server itself would refuse: a drill, never production.
    pub drill_offer_unapproved: bool,
    /// Whether the server's own link to the broker is up.
    pub broker_connected: bool,
    /// Fingerprint of the trust root chain's first version.
    pub root: String,
    /// Version of the trust root in force.
    pub root_version: u32,
    /// Whether that root names this server's director key. If not, no device obeys assignments.
    pub director_trusted: bool,
}

/// `POST /v1/claims`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// The only device that may use the claim; absent: whoever has it chooses a free id.
    #[serde(default)]
    pub device: Option<String>,
    /// How long it may be used; absent: one hour. At most a day.
    #[serde(default)]
    pub ttl_secs: Option<u64>,
    /// Tags that the device gets; they override attributes that it tells of the same key.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A new claim. It is shown once; the server keeps only its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Claim {
    /// The secret, for one enrolment.
    pub claim: String,
    /// SHA-256 of the server's CA certificate (DER), to hand to the device beside the claim.
    pub ca_sha256: String,
    /// From then on it cannot be used.
    pub expires: u64,
}

/// `POST /v1/enroll`. Needs no token and no certificate: the claim is the authority.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The claim.
    pub claim: String,
    /// The id that the device shall have: its certificate's common name.
    pub device: String,
    /// PKCS #10 request in PEM. Only its key is used.
    pub csr_pem: String,
    /// What the device measured about itself.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// A device's request for its next certificate.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS #10 request in PEM. Only its key is used.
    pub csr_pem: String,
}

/// A device's next certificate.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Renewed {
    /// The certificate.
    pub certificate_pem: String,
    /// `host:port` of the broker, which may have moved.
    pub mqtts: String,
}

/// Why a device is shut out.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeDeviceRequest {
    /// For the audit log, and for whoever looks at the device.
    pub reason: String,
}

/// That a device is shut out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceRevoked {
    /// Since when.
    pub at: u64,
    /// Why.
    pub reason: String,
}

/// What an enrolled device needs from then on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Enrolled {
    /// The device's certificate.
    pub certificate_pem: String,
    /// The CA's certificate, against which the device checks server and broker.
    pub ca_pem: String,
    /// `host:port` of the broker.
    pub mqtts: String,
    /// The trust root chain (`.bwt`), base64. The device checks it against its pinned fingerprint.
    pub trust_root_b64: String,
    /// The device's attributes after the claim's tags were laid over them; approvals' selectors
    /// are matched against these on the server, and against the device's own on the device.
    pub attributes: BTreeMap<String, String>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Its id.
    pub device: String,
    /// Measured attributes, and tags over them.
    pub attributes: BTreeMap<String, String>,
    /// When it enrolled.
    pub enrolled_at: u64,
    /// Set when it may not connect any more.
    pub revoked: Option<DeviceRevoked>,
    /// When a report of it last arrived.
    pub last_seen: Option<u64>,
    /// Since when its connection is known to be lost. Absent: it is connected, or was never heard,
    /// or its loss was not noticed yet.
    pub gone_at: Option<u64>,
    /// Its latest health report.
    pub health: Option<DeviceHealth>,
    /// Its slots, by name.
    pub slots: Vec<Slot>,
    /// Open findings about it, such as a stuck sensor.
    pub flags: Vec<Flag>,
}

/// What a device last told about itself. `null`: not measured there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceHealth {
    /// When, by the device's clock.
    pub at: u64,
    /// Share of processor time in use, in thousandths.
    pub cpu_permille: Option<u16>,
    /// Memory in use, in bytes.
    pub memory_bytes_used: Option<u64>,
    /// Memory in all, in bytes.
    pub memory_bytes: Option<u64>,
    /// Free storage in bytes.
    pub disk_bytes_free: Option<u64>,
    /// Storage in all, in bytes.
    pub disk_bytes: Option<u64>,
    /// Warmest sensor, in hundredths of a degree Celsius.
    pub temperature_centi_c: Option<i32>,
    /// Load average over a minute, in hundredths.
    pub load_centi: Option<u32>,
    /// Since the device started, in seconds.
    pub uptime_secs: u64,
    /// Version of the agent.
    pub agent_version: Option<String>,
    /// `plausible`, `behind`, `ahead` or `none`.
    pub clock: String,
    /// By how much the server's clock was ahead of the device's, in seconds.
    pub clock_offset_secs: Option<i64>,
    /// The interface that leads to the server.
    pub network: Option<DeviceNetwork>,
    /// The battery that it runs on.
    pub battery: Option<DeviceBattery>,
    /// Memory that the agent holds, in bytes.
    pub agent_bytes: Option<u64>,
    /// What its models did since the health report before.
    pub served: Option<DeviceServed>,
    /// What became of the last order that ended.
    pub last_outcome: Option<DeviceOutcome>,
}

/// The network interface that leads to the server, since the device started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceNetwork {
    /// `ethernet`, `wifi`, `cellular` or `other`.
    pub link: String,
    /// Strength of the radio's signal in dBm.
    pub signal_dbm: Option<i8>,
    /// Received by everything on the device, in bytes.
    pub received_bytes: u64,
    /// Sent, likewise.
    pub sent_bytes: u64,
    /// Packets that were received or sent wrongly.
    pub errors: u32,
}

/// A battery that a device runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceBattery {
    /// What is left, in hundredths.
    pub percent: u8,
    /// `discharging`, `charging`, `idle` (on mains, and not charged) or `unknown`.
    pub state: String,
}

/// What a device's models did between two health reports, in the windows that closed then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceServed {
    /// Rows that applications asked for.
    pub rows: u32,
    /// Rows that failed, whosever fault it was.
    pub rows_failed: u32,
    /// Rows whose answers hold NaN or infinity.
    pub rows_nonfinite: u32,
    /// 99th percentile of how long an answer took, in microseconds.
    pub latency_us_p99: Option<u32>,
    /// Workers that died.
    pub worker_deaths: u32,
    /// The most memory that the workers have held, in bytes.
    pub workers_bytes: Option<u64>,
}

/// What became of a device's last order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceOutcome {
    /// `committed`, `rolled-back-itself` and so on, as in the slot's own outcome.
    pub kind: String,
    /// When, by the device's clock.
    pub at: u64,
}

/// One slot of one device: what it shall do, what it does, and what became of the last order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Slot {
    /// Its name.
    pub slot: String,
    /// What it shall serve; `null`: nothing was ever assigned, or it shall serve nothing.
    pub desired: Option<String>,
    /// Why it shall serve nothing, if it was disabled.
    pub disabled: Option<String>,
    /// Sequence of the assignment that says so, `epoch.n`.
    pub sequence: Option<String>,
    /// The rollout that the desired release belongs to.
    pub rollout: Option<u64>,
    /// What it serves, as it last told.
    pub serving: Option<String>,
    /// What it is about to serve, while it fetches, checks, proves or tries it.
    pub candidate: Option<String>,
    /// `empty`, `serving`, `fetching`, `checking`, `proving`, `shadowing`, `trial`, `trial-held`,
    /// `trial-held-by-drift`, `disabled`.
    pub phase: Option<String>,
    /// What became of the last order.
    pub outcome: Option<Outcome>,
}

/// What became of one order on one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// When, by the device's clock.
    pub at: u64,
    /// The slot.
    pub slot: String,
    /// The release that was ordered.
    pub release: Option<String>,
    /// Sequence of the order, `epoch.n`.
    pub sequence: String,
    /// The rollout that the order belonged to.
    pub rollout: Option<u64>,
    /// `refused`, `failed-before-serving`, `committed`, `rolled-back-itself`,
    /// `rolled-back-by-order`, `disabled`, `unable-to-roll-back` or `lost`.
    pub kind: String,
    /// The reason and its figures, as a sentence.
    pub text: String,
    /// What served afterwards.
    pub serving: Option<String>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Package {
    /// Its id: SHA-256 of its manifest.
    pub id: String,
    /// Name of the model.
    pub model: String,
    /// Version of the model.
    pub version: String,
    /// When it was packed.
    pub created: u64,
    /// When it was uploaded.
    pub uploaded_at: u64,
    /// Length of the `.bwp` with the approvals that the server has, in bytes.
    pub bytes: u64,
    /// Persons whose approval is in force, counted against the trust root in force.
    pub approved_by: Vec<String>,
    /// Persons that rejected it.
    pub rejected_by: Vec<String>,
    /// Persons that must approve.
    pub approvals_needed: u32,
    /// Enough persons approved it, and it is not revoked: a release.
    pub is_release: bool,
    /// The revocation list in force names it.
    pub revoked: bool,
    /// Whether the packer was told to pack it in spite of golden answers that differ.
    pub golden_mismatch_allowed: bool,
    /// Each approval and rejection.
    pub approvals: Vec<ApprovalView>,
}

/// One approval or rejection, as its signed document says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    /// The person who signed it.
    pub person: String,
    /// `in-force`, `not-yet`, `expired`, `voided` (by the same person's rejection) or `rejection`.
    pub standing: String,
    /// `approve` or `reject`.
    pub decision: String,
    /// Slots that it is for.
    pub slots: Vec<String>,
    /// Selectors of the cohorts that it is for.
    pub selectors: Vec<String>,
    /// Valid from.
    pub not_before: u64,
    /// Valid until.
    pub expires: u64,
    /// When it was signed, by the signer's clock.
    pub at: u64,
    /// The signer's reason.
    pub reason: String,
}

/// The revocation list in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RevocationsAccepted {
    /// Its version.
    pub version: u64,
    /// Its expiry: from then on devices install nothing new.
    pub expires: u64,
    /// Packages that it names.
    pub packages: Vec<String>,
}

/// The trust root in force after a chain was published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RootAccepted {
    /// The root id.
    pub root: String,
    /// Its version.
    pub version: u32,
    /// Its expiry.
    pub expires: u64,
    /// Whether it names this server's director key.
    pub director_trusted: bool,
}

/// `POST /v1/rollouts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// The slot that shall change.
    pub slot: String,
    /// Package id of the new release.
    pub release: String,
    /// The cohort: `class=pump,site=lyon`, or `*`.
    pub selector: String,
    /// The policy, with the fields of `bellwether_rollout::Policy`. Safety figures have no defaults.
    pub policy: serde_json::Value,
    /// Start at once.
    #[serde(default)]
    pub start: bool,
}

/// A new rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutCreated {
    /// Its id.
    pub id: u64,
    /// Its state.
    pub state: String,
}

/// `POST /v1/rollouts/{id}/start|pause|resume|rollback`, and the reason that the audit log keeps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutOrder {
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// One rollout, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutSummary {
    /// Its id.
    pub id: u64,
    /// The slot.
    pub slot: String,
    /// The new release.
    pub release: String,
    /// The release that the cohort served before; `null`: none.
    pub previous: Option<String>,
    /// The cohort.
    pub selector: String,
    /// `draft`, `running`, `paused`, `rolled_back`, `disabled` or `complete`.
    pub state: String,
    /// The stage reached, from 0; `null` before the first.
    pub stage: Option<u32>,
    /// Stages in all.
    pub stages: u32,
    /// When the stage was reached.
    pub stage_since: u64,
    /// When it was started.
    pub started_at: Option<u64>,
    /// Devices of the cohort.
    pub devices: u32,
    /// Of those, devices that shall have the new release.
    pub treated: u32,
    /// When it was made.
    pub created_at: u64,
    /// Rises with each change; commits compare it.
    pub generation: u64,
    /// The last decision.
    pub decision: Option<Decision>,
}

/// One rollout in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// The short form.
    #[serde(flatten)]
    pub summary: RolloutSummary,
    /// The policy.
    pub policy: serde_json::Value,
    /// Each device of the cohort.
    pub device_states: Vec<RolloutDevice>,
}

/// One device within a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutDevice {
    /// The device.
    pub device: String,
    /// `treated`, `control` or `holdout`.
    pub arm: String,
    /// The stage that drew it, from 0.
    pub stage: Option<u32>,
    /// When it was assigned the new release.
    pub assigned_at: Option<u64>,
    /// What it serves, as it last told.
    pub serving: Option<String>,
    /// Where its slot stands.
    pub phase: Option<String>,
    /// When a report of it last arrived.
    pub last_seen: Option<u64>,
    /// What became of the rollout's order there.
    pub outcome: Option<Outcome>,
}

/// One decision of the planner: audit entry and API field are the same text and figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// When it was first made.
    pub at: u64,
    /// When it was last made.
    pub last_at: u64,
    /// The rollout.
    pub rollout: u64,
    /// The stage that it was made in, from 0.
    pub stage: Option<u32>,
    /// `advance`, `hold`, `pause`, `roll_back`, `disable`, `notify` or `complete` by the planner;
    /// `start`, `pause`, `resume` or `roll_back` by an operator.
    pub decision: String,
    /// Everything that was decided, as one sentence.
    pub text: String,
    /// Each reason with its figures, as a sentence.
    pub reasons: Vec<String>,
    /// The decision with all its figures, as `bellwether_rollout` wrote it; `null` if an operator's.
    pub figures: serde_json::Value,
    /// How often the same decision was made.
    pub repeated: u64,
}

/// `POST /v1/disable`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DisableRequest {
    /// The slot.
    pub slot: String,
    /// The cohort.
    pub selector: String,
    /// For the person beside the device; at most 120 bytes of it reach the device.
    pub reason: String,
}

/// How many devices an order reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OrderAccepted {
    /// Devices that got a new assignment.
    pub devices: u32,
}

/// `GET /v1/devices/{id}/why?slot=`: is it well, and if not, why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The device.
    pub device: String,
    /// The slot.
    pub slot: String,
    /// The answer in one sentence.
    pub sentence: String,
    /// What led there, oldest first.
    pub chain: Vec<WhyStep>,
}

/// One step of what led to a device's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhyStep {
    /// When; steps of the device carry the device's clock.
    pub at: u64,
    /// `assignment`, `outcome`, `decision` or `flag`.
    pub kind: String,
    /// What happened.
    pub text: String,
}

/// `GET /v1/packages/{id}/labels`: what labels that came late say of one output field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldLabels {
    /// The slot.
    pub slot: String,
    /// The field, by its name in the contract.
    pub field: String,
    /// Devices that have sent labels.
    pub devices: u32,
    /// Labels in all.
    pub labels: u64,
    /// When the first of them reached the server.
    pub first_at: u64,
    /// When the last of them did.
    pub last_at: u64,
    /// If the field has codes.
    pub classes: Option<ClassLabels>,
    /// If the field is a number, and any prediction was one.
    pub numbers: Option<NumberLabels>,
}

/// Predicted codes against true ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClassLabels {
    /// The field's codes.
    pub codes: Vec<i64>,
    /// A row for each true code; in it a column for each predicted code, and a last one for
    /// predictions that are none of the codes.
    pub confusion: Vec<Vec<u64>>,
    /// Share of labels that were predicted, 0 to 1.
    pub right: Option<f64>,
}

/// Predicted numbers against true ones, in the field's unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NumberLabels {
    /// Mean of prediction − label.
    pub bias: f64,
    /// Mean of its absolute value.
    pub mean_abs: f64,
    /// Root of the mean of its square.
    pub root_mean_sq: f64,
}

/// A finding: a device's sensor, a world that moved, a report that cannot be true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Flag {
    /// When it was first seen.
    pub at: u64,
    /// When it was last seen.
    pub last_at: u64,
    /// `sensor`, `retrain`, `many-moved` or `invalid`.
    pub kind: String,
    /// The device that it is about, if one.
    pub device: Option<String>,
    /// The rollout that found it, if one.
    pub rollout: Option<u64>,
    /// The slot.
    pub slot: Option<String>,
    /// The fields that it is about, by their names in the contract.
    pub fields: Vec<String>,
    /// The finding with its figures, as a sentence.
    pub text: String,
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Counts up.
    pub id: u64,
    /// When.
    pub at: u64,
    /// `operator`, `planner`, or `device:` and an id.
    pub actor: String,
    /// What was done, such as `rollout-start`.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// The reasons, as a sentence.
    pub text: String,
}

//! What the fleet of the tests is told and tells: a trust root, packages, windows, outcomes.

use bellwether_drift::FieldBaseline;
use bellwether_package::approval::{Approval, Decision};
use bellwether_package::root::{Person, Role, RootDocument};
use bellwether_package::sections::{
    Baseline, Budget, Contract, DType, Dim, Field, FieldKind, Golden, GoldenCase, GoldenOrigin,
    GoldenTensor, MissingRule, Port,
};
use bellwether_package::sign::public_key;
use bellwether_package::std_io::FromStd;
use bellwether_package::write::{Draft, OnnxDraft, ProgramDraft, TargetDraft};
use bellwether_package::{
    Manifest, ModelName, ModelVersion, PackageId, PublicKey, RootId, Selector, SlotName, UnixSecs,
};
use bellwether_protocol::{
    Assignment, Fields, Latency, Outcome, OutcomeKind, Phase, Record, SlotAssignment, Status,
    Window,
};

use super::{SLOT, key, now};

/// Approvers and root are the same three persons; two must agree.
pub(crate) fn root_document(director: PublicKey) -> RootDocument {
    let person = |name: &str, seed: u8| Person {
        name: name.try_into().expect("a short name"),
        keys: [public_key(&key(seed))].into_iter().collect(),
    };
    let role = || Role {
        persons: [0, 1, 2].into_iter().collect(),
        threshold: 2,
    };
    RootDocument {
        version: 1,
        id: None,
        expires: now().plus_secs(365 * 86_400),
        persons: [person("ann", 1), person("ben", 2), person("cleo", 3)]
            .into_iter()
            .collect(),
        root: role(),
        approvers: role(),
        director: [director].into_iter().collect(),
    }
}

pub(crate) fn approval(root: RootId, package: PackageId) -> Approval {
    approval_for(root, package, &[SLOT])
}

pub(crate) fn approval_for(root: RootId, package: PackageId, slots: &[&str]) -> Approval {
    let slot = |name: &&str| SlotName::new(name).expect("a name");
    Approval {
        root,
        package,
        decision: Decision::Approve,
        slots: slots.iter().map(slot).collect(),
        selectors: [Selector::new("class=pump").expect("a selector")]
            .into_iter()
            .collect(),
        not_before: UnixSecs(now().0 - 60),
        expires: now().plus_secs(86_400),
        at: now(),
        reason: "tested on the bench".try_into().expect("short"),
    }
}

fn port(name: &str, fields: &[&str]) -> Port {
    let field = |name: &&str| Field {
        name: (*name).to_owned(),
        unit: String::new(),
        range: None,
        missing: MissingRule::Refuse,
        export: true,
        kind: FieldKind::Numeric,
        source: String::new(),
    };
    Port {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![Dim::Batch, Dim::Fixed(fields.len() as u32)],
        fields: fields.iter().map(field).collect(),
    }
}

fn tensor(name: &str, values: &[f32]) -> GoldenTensor {
    GoldenTensor {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![1, values.len() as u32],
        bytes: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    }
}

/// Values of the training data, the same for every field: 0 to 1.
pub(crate) fn samples() -> Vec<f32> {
    (0..1000).map(|n| n as f32 / 1000.0).collect()
}

pub(crate) fn baseline(name: &str) -> FieldBaseline {
    FieldBaseline::numeric(name, &samples(), 8).expect("samples")
}

/// A package: inputs `inlet` and `outlet`, output `score`; more than one chunk long.
pub(crate) fn package(major: u32) -> Vec<u8> {
    let model: Vec<u8> = (0..400_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let draft = Draft {
        model: ModelName::new("pump-anomaly").expect("a name"),
        version: ModelVersion {
            major,
            minor: 0,
            patch: 0,
        },
        created: UnixSecs(1_790_000_000),
        golden_mismatch_allowed: false,
        contract: Contract {
            inputs: vec![port("readings", &["inlet", "outlet"])],
            outputs: vec![port("score", &["score"])],
            steps: Vec::new(),
            states: Vec::new(),
            constants: Vec::new(),
        },
        baseline: Baseline {
            inputs: vec![baseline("inlet"), baseline("outlet")],
            outputs: vec![baseline("score")],
        },
        golden: Golden {
            cases: vec![GoldenCase {
                inputs: vec![tensor("readings", &[0.5, 0.5])],
                outputs: vec![tensor("score", &[0.25])],
            }],
            tolerance_abs: 1e-5,
            tolerance_rel: 1e-4,
            origin: GoldenOrigin::Framework,
        },
        budget: Budget {
            latency_us_p99: 5000,
            memory_bytes: 1 << 25,
            error_share_max_ppm: 1000,
        },
        card: None,
        provenance: None,
        activation: None,
        onnx: Some(OnnxDraft {
            bytes: &model,
            opset: 17,
            memory_bytes: 1 << 24,
            operators: Vec::new(),
        }),
        micro: None,
    };
    draft.to_vec().expect("a valid draft")
}

/// A package of the device's own programs.
pub(crate) fn programs(major: u32) -> Vec<u8> {
    let draft = ProgramDraft {
        name: ModelName::new("bellwether-agent").expect("a name"),
        version: ModelVersion {
            major,
            minor: 0,
            patch: 0,
        },
        created: UnixSecs(1_790_000_000),
        card: None,
        provenance: None,
        targets: vec![TargetDraft {
            triple: "x86_64-unknown-linux-gnu".to_owned(),
            worker: b"a worker",
            agent: b"an agent",
        }],
    };
    let mut bytes = FromStd::new(Vec::new());
    draft.write(&mut bytes).expect("a valid draft");
    bytes.into_inner()
}

pub(crate) fn id_of(package: &[u8]) -> PackageId {
    let header = bellwether_package::read_header(package).expect("a header");
    Manifest::id(header.manifest_bytes())
}

/// A window of so many rows whose values are those of the training data, shifted by `shift`.
pub(crate) fn window(release: PackageId, baseline_of: PackageId, rows: u32, shift: f32) -> Window {
    let counts = |name: &str| {
        let baseline = baseline(name);
        let mut counts = bellwether_drift::Counts::new(baseline.bins());
        let samples = samples();
        for row in 0..rows {
            let value = samples[(row as usize * 617) % samples.len()] + shift;
            counts.observe(&baseline, value);
        }
        Some(counts)
    };
    let own = release == baseline_of;
    let outputs = if own {
        vec![counts("score")]
    } else {
        Vec::new()
    };
    Window {
        slot: SlotName::new(SLOT).expect("a name"),
        release,
        baseline: baseline_of,
        started_at: now(),
        secs: 10,
        rows,
        inputs: Fields::of([counts("inlet"), counts("outlet")]).expect("two"),
        outputs: Fields::of(outputs).expect("one"),
        errors: Default::default(),
        rows_nonfinite: 0,
        latency: Some(Latency {
            answers: rows,
            us_p50: 100,
            us_p99: 200,
            us_max: 300,
        }),
    }
}

/// What a device tells once it serves what it was ordered to.
pub(crate) fn told(
    order: &SlotAssignment,
    assignment: &Assignment,
    kind: OutcomeKind,
) -> [Record; 2] {
    let release = match &order.desired {
        bellwether_protocol::Desired::Serve { release, .. } => Some(*release),
        bellwether_protocol::Desired::Disable { .. } => None,
    };
    let outcome = Outcome {
        slot: order.slot.clone(),
        release,
        sequence: assignment.sequence,
        rollout: order.rollout,
        kind,
        serving: release,
    };
    let status = Status {
        slot: order.slot.clone(),
        phase: if release.is_some() {
            Phase::Serving
        } else {
            Phase::Disabled
        },
        serving: release,
        candidate: None,
        previous: None,
        floor: assignment.sequence,
        rollout: order.rollout,
    };
    [Record::Outcome(outcome), Record::Status(status)]
}

//! Packages around the tiny models.

use bellwether_drift::FieldBaseline;
use bellwether_package::ids::AGENT_SLOT;
use bellwether_package::sections::{
    Activation, Baseline, Budget, Contract, DType, Dim, Field, FieldKind, Golden, GoldenCase,
    GoldenOrigin, GoldenTensor, MissingRule, Port,
};
use bellwether_package::std_io::FromStd;
use bellwether_package::write::{Draft, OnnxDraft, ProgramDraft, TargetDraft, replace_approvals};
use bellwether_package::{ModelName, ModelVersion, PackageId, UnixSecs};
use bellwether_protocol::Desired;

use crate::people::People;

/// The machine that the tests run on.
pub(crate) const TARGET: &str = env!("BELLWETHER_TARGET");

/// A package's bytes and id.
#[derive(Clone)]
pub(crate) struct Package {
    pub(crate) id: PackageId,
    pub(crate) bytes: Vec<u8>,
}

impl Package {
    /// A model of this `minor` version whose golden answers are those of `answer`, approved by
    /// both approvers.
    pub(crate) fn approved(
        people: &People,
        minor: u32,
        onnx: &[u8],
        answer: impl Fn(f32) -> f32,
    ) -> Self {
        Self::bare(minor, onnx, answer).signed(people)
    }

    /// As [`Package::approved`], under an activation policy.
    pub(crate) fn under(
        people: &People,
        minor: u32,
        onnx: &[u8],
        answer: impl Fn(f32) -> f32,
        policy: Activation,
    ) -> Self {
        Self::drafted(minor, onnx, answer, Some(policy)).signed(people)
    }

    /// The same without approvals.
    pub(crate) fn bare(minor: u32, onnx: &[u8], answer: impl Fn(f32) -> f32) -> Self {
        Self::drafted(minor, onnx, answer, None)
    }

    /// The device's own programs, approved by both approvers.
    pub(crate) fn programs(people: &People, minor: u32, worker: &[u8], agent: &[u8]) -> Self {
        let bare = Self::bare_programs(minor, TARGET, worker, agent);
        let approvals = people.approvals_for(bare.id, AGENT_SLOT);
        bare.carrying(approvals)
    }

    /// Programs for `target` without approvals.
    pub(crate) fn bare_programs(minor: u32, target: &str, worker: &[u8], agent: &[u8]) -> Self {
        let draft = ProgramDraft {
            name: ModelName::new("bellwether-agent").unwrap(),
            version: ModelVersion {
                major: 1,
                minor,
                patch: 0,
            },
            created: UnixSecs(1),
            card: None,
            provenance: None,
            targets: vec![TargetDraft {
                triple: target.into(),
                worker,
                agent,
            }],
        };
        let mut bytes = FromStd::new(Vec::new());
        let id = draft.write(&mut bytes).unwrap();
        Self {
            id,
            bytes: bytes.into_inner(),
        }
    }

    fn signed(self, people: &People) -> Self {
        let approvals = people.approvals(self.id);
        self.carrying(approvals)
    }

    pub(crate) fn carrying(self, approvals: Vec<Vec<u8>>) -> Self {
        let mut bytes = FromStd::new(Vec::new());
        replace_approvals(self.bytes.as_slice(), &mut bytes, approvals).unwrap();
        Self {
            id: self.id,
            bytes: bytes.into_inner(),
        }
    }

    fn drafted(
        minor: u32,
        onnx: &[u8],
        answer: impl Fn(f32) -> f32,
        activation: Option<Activation>,
    ) -> Self {
        let readings = [1.0, 4.0, 9.0, 16.0];
        let answers = readings.map(&answer);
        let tensor = |name: &str, values: [f32; 4]| GoldenTensor {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![2, 2],
            bytes: values.into_iter().flat_map(f32::to_le_bytes).collect(),
        };
        let case = GoldenCase {
            inputs: vec![tensor("readings", readings)],
            outputs: vec![tensor("scores", answers)],
        };
        let draft = Draft {
            model: ModelName::new("tiny").unwrap(),
            version: ModelVersion {
                major: 1,
                minor,
                patch: 0,
            },
            created: UnixSecs(1),
            golden_mismatch_allowed: true,
            contract: Contract {
                inputs: vec![port("readings", &[("flow", true), ("position", false)])],
                outputs: vec![port("scores", &[("low", true), ("high", true)])],
                steps: Vec::new(),
                states: Vec::new(),
                constants: Vec::new(),
            },
            baseline: Baseline {
                inputs: vec![counted("flow"), counted("position")],
                outputs: vec![counted("low"), counted("high")],
            },
            golden: Golden {
                cases: vec![case],
                tolerance_abs: 1e-4,
                tolerance_rel: 1e-4,
                origin: GoldenOrigin::Framework,
            },
            budget: Budget {
                latency_us_p99: 2_000_000,
                memory_bytes: 1 << 30,
                error_share_max_ppm: 1000,
            },
            card: None,
            provenance: None,
            activation,
            onnx: Some(OnnxDraft {
                bytes: onnx,
                opset: 13,
                memory_bytes: 1 << 20,
                operators: vec!["Mul".into()],
            }),
            micro: None,
        };
        let mut bytes = FromStd::new(Vec::new());
        let id = draft.write(&mut bytes).unwrap();
        Self {
            id,
            bytes: bytes.into_inner(),
        }
    }

    pub(crate) fn path(&self) -> String {
        format!("/v1/packages/{}/content", self.id)
    }

    pub(crate) fn desired(&self) -> Desired {
        Desired::Serve {
            release: self.id,
            length: self.bytes.len() as u64,
        }
    }
}

fn port(name: &str, fields: &[(&str, bool)]) -> Port {
    let field = |(name, export): &(&str, bool)| Field {
        name: (*name).into(),
        unit: String::new(),
        range: None,
        missing: MissingRule::Allow,
        export: *export,
        kind: FieldKind::Numeric,
        source: String::new(),
    };
    Port {
        name: name.into(),
        dtype: DType::F32,
        shape: vec![Dim::Batch, Dim::Fixed(2)],
        fields: fields.iter().map(field).collect(),
    }
}

fn counted(name: &str) -> FieldBaseline {
    let sample: Vec<f32> = (0..400).map(|n| n as f32 / 4.0).collect();
    FieldBaseline::numeric(name, &sample, 8).unwrap()
}

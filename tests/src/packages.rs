//! Small packages over the fixture models, approved by one person, for tests that run one.

// Helpers of tests fail as tests do.
#![allow(missing_docs, clippy::unwrap_used)]

use bellwether_drift::FieldBaseline;
use bellwether_package::{
    Approval, Decision, IntactPackage, ModelVersion, RevocationList, Revocations, RootDocument,
    Selector, TrustRoot, UnixSecs, VerifiedPackage, Verifier, digest,
    root::{Person, Role},
    sections::{
        Baseline, Budget, Constant, Contract, DType, Dim, Field, FieldKind, Golden, GoldenCase,
        GoldenOrigin, GoldenTensor, MissingRule, Port, State,
    },
    sign,
    write::{Draft, OnnxDraft},
};
use ed25519_dalek::SigningKey;

pub const NOW: UnixSecs = UnixSecs(1_800_000_000);
const LATER: UnixSecs = UnixSecs(1_900_000_000);

pub fn model(name: &str) -> Vec<u8> {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/models");
    std::fs::read(format!("{models}/{name}")).unwrap()
}

pub fn field(name: &str) -> Field {
    Field {
        name: name.to_owned(),
        unit: String::new(),
        range: Some((-1000.0, 1000.0)),
        missing: MissingRule::Refuse,
        export: false,
        kind: FieldKind::Numeric,
        source: String::new(),
    }
}

pub fn port(name: &str, fields: Vec<Field>) -> Port {
    Port {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![Dim::Batch, Dim::Fixed(fields.len() as u32)],
        fields,
    }
}

/// `linear.onnx`: three readings, two scores.
pub fn linear_contract() -> Contract {
    Contract {
        inputs: vec![port("readings", ["a", "b", "c"].map(field).to_vec())],
        outputs: vec![port("scores", ["s", "t"].map(field).to_vec())],
        steps: vec![],
        states: vec![],
        constants: vec![],
    }
}

/// `logarithm.onnx`: one reading, one score.
pub fn logarithm_contract() -> Contract {
    Contract {
        inputs: vec![port("readings", vec![field("a")])],
        outputs: vec![port("scores", vec![field("s")])],
        steps: vec![],
        states: vec![],
        constants: vec![],
    }
}

/// `accumulate.onnx`: one reading, its running total times a constant gain of 2.
pub fn accumulate_contract() -> Contract {
    Contract {
        inputs: vec![port("reading", vec![field("a")])],
        outputs: vec![port("score", vec![field("s")])],
        steps: vec![],
        states: vec![State {
            input: "total".to_owned(),
            output: "total_next".to_owned(),
            dtype: DType::F32,
            shape: vec![Dim::Batch, Dim::Fixed(1)],
        }],
        constants: vec![Constant {
            name: "gain".to_owned(),
            dtype: DType::F32,
            shape: vec![],
            bytes: 2.0_f32.to_le_bytes().to_vec(),
        }],
    }
}

pub fn accumulate_golden() -> Golden {
    golden(
        golden_tensor("reading", 1, &[1.0]),
        golden_tensor("score", 1, &[2.0]),
    )
}

pub fn baseline(contract: &Contract) -> Baseline {
    let samples: Vec<f32> = (0..100).map(|i| i as f32 / 10.0).collect();
    let of = |field: &Field| FieldBaseline::numeric(&field.name, &samples, 10).unwrap();
    Baseline {
        inputs: contract.input_fields().map(of).collect(),
        outputs: contract.output_fields().map(of).collect(),
    }
}

pub fn golden_tensor(name: &str, width: u32, values: &[f32]) -> GoldenTensor {
    GoldenTensor {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![values.len() as u32 / width, width],
        bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

pub fn golden(inputs: GoldenTensor, outputs: GoldenTensor) -> Golden {
    Golden {
        cases: vec![GoldenCase {
            inputs: vec![inputs],
            outputs: vec![outputs],
        }],
        tolerance_abs: 1e-6,
        tolerance_rel: 1e-6,
        origin: GoldenOrigin::Framework,
    }
}

pub fn linear_golden() -> Golden {
    golden(
        golden_tensor("readings", 3, &[1.0, 2.0, 3.0, 0.0, 0.0, 0.0]),
        golden_tensor("scores", 2, &[-1.5, 15.0, 0.5, -1.0]),
    )
}

pub fn logarithm_golden() -> Golden {
    golden(
        golden_tensor("readings", 1, &[1.0]),
        golden_tensor("scores", 1, &[0.0]),
    )
}

pub struct Parts {
    pub onnx: Vec<u8>,
    pub contract: Contract,
    pub golden: Golden,
    pub budget: Budget,
}

impl Parts {
    pub fn linear() -> Self {
        Self::of(model("linear.onnx"), linear_contract(), linear_golden())
    }

    pub fn logarithm() -> Self {
        Self::of(
            model("logarithm.onnx"),
            logarithm_contract(),
            logarithm_golden(),
        )
    }

    pub fn accumulate() -> Self {
        Self::of(
            model("accumulate.onnx"),
            accumulate_contract(),
            accumulate_golden(),
        )
    }

    pub fn of(onnx: Vec<u8>, contract: Contract, golden: Golden) -> Self {
        Self {
            onnx,
            contract,
            golden,
            budget: Budget {
                latency_us_p99: 1_000_000,
                memory_bytes: 1 << 30,
                error_share_max_ppm: 0,
            },
        }
    }

    pub fn packed(&self) -> Vec<u8> {
        let draft = Draft {
            model: "test".parse().unwrap(),
            version: ModelVersion {
                major: 1,
                minor: 0,
                patch: 0,
            },
            created: NOW,
            golden_mismatch_allowed: false,
            contract: self.contract.clone(),
            baseline: baseline(&self.contract),
            golden: self.golden.clone(),
            budget: self.budget,
            card: None,
            provenance: None,
            activation: None,
            onnx: Some(OnnxDraft {
                bytes: &self.onnx,
                opset: 17,
                memory_bytes: 1,
                operators: vec![],
            }),
            micro: None,
        };
        draft.to_vec().unwrap()
    }
}

/// One person is root, approver and director; the slot is `main`, the scope every device.
pub fn approved(mut package: IntactPackage) -> VerifiedPackage {
    let key = SigningKey::from_bytes(&[7; 32]);
    let role = Role {
        persons: [0].into_iter().collect(),
        threshold: 1,
    };
    let document = RootDocument {
        version: 1,
        id: None,
        expires: LATER,
        persons: [Person {
            name: "ada".parse().unwrap(),
            keys: [sign::public_key(&key)].into_iter().collect(),
        }]
        .into_iter()
        .collect(),
        root: role.clone(),
        approvers: role,
        director: [sign::public_key(&SigningKey::from_bytes(&[8; 32]))]
            .into_iter()
            .collect(),
    };
    let signed = document.sign(&[&key]).unwrap();
    let fingerprint = digest::sha256(&document.encode().unwrap());
    let root = TrustRoot::pinned(&signed, &fingerprint).unwrap();
    let list = RevocationList::genesis(root.id(), LATER)
        .sign(&[&key])
        .unwrap();
    let revocations = Revocations::verify(&list, &root).unwrap();
    let approval = Approval {
        root: root.id(),
        package: package.id(),
        decision: Decision::Approve,
        slots: ["main".parse().unwrap()].into_iter().collect(),
        selectors: [Selector::everything()].into_iter().collect(),
        not_before: UnixSecs(0),
        expires: LATER,
        at: NOW,
        reason: Default::default(),
    };
    package
        .set_approvals(vec![approval.sign(&key).unwrap()])
        .unwrap();
    let verifier = Verifier {
        root: &root,
        revocations: &revocations,
        slot: &"main".parse().unwrap(),
        attributes: &[],
        now: Some(NOW),
    };
    verifier.verify_for_install(package).unwrap()
}

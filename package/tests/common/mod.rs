//! A small fleet for tests: three persons, their trust root, one package.

#![allow(dead_code, reason = "each test file uses its own part")]

use bellwether_drift::FieldBaseline;
use bellwether_package::approval::{Approval, Decision};
use bellwether_package::read::{IntactPackage, MemoryBlobs, NoBlobs, read};
use bellwether_package::root::{Person, Role, RootDocument, TrustRoot};
use bellwether_package::sections::{
    Activation, Baseline, Budget, Card, Contract, DType, Dim, Field, FieldKind, Golden, GoldenCase,
    GoldenOrigin, GoldenTensor, Metric, MissingRule, Port, Provenance,
};
use bellwether_package::sign::public_key;
use bellwether_package::write::{Draft, OnnxDraft};
use bellwether_package::{
    Attribute, ModelName, ModelVersion, PackageId, Refusal, RevocationList, Revocations, RootId,
    Selector, SlotName, UnixSecs, VerifiedPackage, Verifier,
};
use ed25519_dalek::SigningKey;

/// 2026-01-01 and some.
pub(crate) const NOW: UnixSecs = UnixSecs(1_767_300_000);
pub(crate) const DAY: u64 = 86_400;

/// Test keys are made from one byte.
pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Ann, Ben and Cleo have keys 1, 2 and 3; Ann has 11 as well. 9 directs.
pub(crate) fn root_document() -> RootDocument {
    let person = |name: &str, seeds: &[u8]| Person {
        name: name.try_into().expect("a short name"),
        keys: seeds.iter().map(|seed| public_key(&key(*seed))).collect(),
    };
    let role = |persons: &[u8]| Role {
        persons: persons.iter().copied().collect(),
        threshold: 2,
    };
    RootDocument {
        version: 1,
        id: None,
        expires: NOW.plus_secs(365 * DAY),
        persons: [
            person("ann", &[1, 11]),
            person("ben", &[2]),
            person("cleo", &[3]),
        ]
        .into_iter()
        .collect(),
        root: role(&[0, 1, 2]),
        approvers: role(&[0, 1, 2]),
        director: [public_key(&key(9))].into_iter().collect(),
    }
}

/// Signs with the keys of these seeds.
pub(crate) fn sign_root(document: &RootDocument, seeds: &[u8]) -> Vec<u8> {
    let keys: Vec<SigningKey> = seeds.iter().map(|seed| key(*seed)).collect();
    document
        .sign(&keys.iter().collect::<Vec<_>>())
        .expect("a valid root")
}

pub(crate) fn pin(signed: &[u8]) -> bellwether_package::Digest {
    let signed = bellwether_package::Signed::decode(signed, usize::MAX).expect("an envelope");
    bellwether_package::digest::sha256(signed.payload())
}

pub(crate) fn trust(document: &RootDocument) -> TrustRoot {
    let signed = sign_root(document, &[1, 2]);
    TrustRoot::pinned(&signed, &pin(&signed)).expect("a valid root")
}

pub(crate) fn slot(name: &str) -> SlotName {
    SlotName::new(name).expect("a valid slot")
}

pub(crate) fn attributes(texts: &[(&str, &str)]) -> Vec<Attribute> {
    let attribute = |(key, value): &(&str, &str)| Attribute::new(key, value).expect("valid");
    texts.iter().map(attribute).collect()
}

pub(crate) fn field(name: &str) -> Field {
    Field {
        name: name.into(),
        unit: "K".into(),
        range: Some((-50.0, 150.0)),
        missing: MissingRule::Refuse,
        export: false,
        kind: FieldKind::Numeric,
        source: "probe".into(),
    }
}

pub(crate) fn port(name: &str, fields: &[&str]) -> Port {
    Port {
        name: name.into(),
        dtype: DType::F32,
        shape: vec![Dim::Batch, Dim::Fixed(fields.len() as u32)],
        fields: fields.iter().map(|name| field(name)).collect(),
    }
}

pub(crate) fn baseline_of(name: &str) -> FieldBaseline {
    let samples: Vec<f32> = (0..32).map(|n| n as f32).collect();
    FieldBaseline::numeric(name, &samples, 4).expect("samples")
}

pub(crate) fn tensor(name: &str, values: &[f32]) -> GoldenTensor {
    GoldenTensor {
        name: name.into(),
        dtype: DType::F32,
        shape: vec![1, values.len() as u32],
        bytes: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    }
}

pub(crate) const MODEL_BYTES: &[u8] = b"not really an ONNX file, but nobody looks inside here";

/// Two inputs, one output, one golden case.
pub(crate) fn draft() -> Draft<'static> {
    Draft {
        model: ModelName::new("pump-anomaly").expect("valid"),
        version: ModelVersion {
            major: 1,
            minor: 4,
            patch: 0,
        },
        created: NOW,
        golden_mismatch_allowed: false,
        contract: Contract {
            inputs: vec![port("readings", &["inlet", "outlet"])],
            outputs: vec![port("score", &["score"])],
            steps: Vec::new(),
            states: Vec::new(),
            constants: Vec::new(),
        },
        baseline: Baseline {
            inputs: vec![baseline_of("inlet"), baseline_of("outlet")],
            outputs: vec![baseline_of("score")],
        },
        golden: Golden {
            cases: vec![GoldenCase {
                inputs: vec![tensor("readings", &[20.0, 35.5])],
                outputs: vec![tensor("score", &[0.25])],
            }],
            tolerance_abs: 1e-5,
            tolerance_rel: 1e-4,
            origin: GoldenOrigin::Framework,
        },
        budget: Budget {
            latency_us_p99: 5_000,
            memory_bytes: 32 << 20,
            error_share_max_ppm: 1_000,
        },
        card: Some(Card {
            intended_use: "Warns of cavitation in water pumps.".into(),
            limits: "Not for oil.".into(),
            data: "Forty pumps, one winter.".into(),
            owner: "pumps@example.org".into(),
            accuracy: vec![Metric {
                name: "recall on the held-out pumps".into(),
                value: 0.93,
                interval: Some((0.90, 0.95, 0.95)),
            }],
            prohibited_features: vec!["operator name".into()],
            fairness: String::new(),
        }),
        provenance: Some(Provenance {
            data: Some(bellwether_package::digest::sha256(b"data")),
            code_commit: "0e857af".into(),
            framework: "scikit-learn 1.7".into(),
            parameters: vec![("hidden".into(), "16".into())],
            parents: Vec::new(),
        }),
        activation: Some(Activation::default()),
        onnx: Some(OnnxDraft {
            bytes: MODEL_BYTES,
            opset: 17,
            memory_bytes: 16 << 20,
            operators: vec!["Gemm".into(), "Relu".into()],
        }),
        micro: None,
    }
}

/// Everything around one device.
pub(crate) struct World {
    pub(crate) root: TrustRoot,
    pub(crate) revocations: Revocations,
    pub(crate) slot: SlotName,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) now: Option<UnixSecs>,
    pub(crate) package: IntactPackage,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = trust(&root_document());
        let revocations = revocations(&genesis(root.id()), &root);
        Self {
            root,
            revocations,
            slot: slot("cavitation"),
            attributes: attributes(&[("class", "pump"), ("site", "lyon")]),
            now: Some(NOW),
            package: intact(),
        }
    }

    pub(crate) fn verifier(&self) -> Verifier<'_> {
        Verifier {
            root: &self.root,
            revocations: &self.revocations,
            slot: &self.slot,
            attributes: &self.attributes,
            now: self.now,
        }
    }

    pub(crate) fn approval(&self) -> Approval {
        approval(self.root.id(), self.package.id())
    }

    fn carrying(&self, approvals: Vec<Vec<u8>>) -> IntactPackage {
        let mut package = self.package.clone();
        package.set_approvals(approvals).expect("within bounds");
        package
    }

    pub(crate) fn install(&self, approvals: Vec<Vec<u8>>) -> Result<VerifiedPackage, Refusal> {
        let package = self.carrying(approvals);
        let early = self.verifier().approve_for_install(package.header());
        let late = self.verifier().verify_for_install(package);
        // A device may ask before or after it has the sections: one answer.
        assert_eq!(
            early.as_ref().err().copied(),
            late.as_ref().err().copied(),
            "early and late answers differ"
        );
        late
    }

    pub(crate) fn boot(&self, approvals: Vec<Vec<u8>>) -> Result<VerifiedPackage, Refusal> {
        self.verifier().verify_for_boot(self.carrying(approvals))
    }
}

pub(crate) fn intact() -> IntactPackage {
    read(&*draft().to_vec().expect("a valid draft"), NoBlobs).expect("an intact package")
}

pub(crate) fn with_blobs(bytes: &[u8]) -> (IntactPackage, MemoryBlobs) {
    let mut blobs = MemoryBlobs::default();
    let package = read(bytes, &mut blobs).expect("an intact package");
    (package, blobs)
}

pub(crate) fn genesis(root: RootId) -> RevocationList {
    RevocationList::genesis(root, NOW.plus_secs(30 * DAY))
}

pub(crate) fn revocations(list: &RevocationList, root: &TrustRoot) -> Revocations {
    let signed = list.sign(&[&key(2), &key(3)]).expect("a valid list");
    Revocations::verify(&signed, root).expect("signed by two approvers")
}

pub(crate) fn approval(root: RootId, package: PackageId) -> Approval {
    Approval {
        root,
        package,
        decision: Decision::Approve,
        slots: [slot("cavitation")].into_iter().collect(),
        selectors: [Selector::new("class=pump").expect("valid")]
            .into_iter()
            .collect(),
        not_before: UnixSecs(NOW.0 - DAY),
        expires: NOW.plus_secs(90 * DAY),
        at: NOW,
        reason: "recall is better, drift is the same"
            .try_into()
            .expect("short"),
    }
}

pub(crate) fn signed(approval: &Approval, seed: u8) -> Vec<u8> {
    approval.sign(&key(seed)).expect("a valid approval")
}

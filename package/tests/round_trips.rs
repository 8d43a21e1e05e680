//! Every document comes back from its bytes as it was, and no bytes make a decoder panic.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot build its fixture fails"
)]

use bellwether_package::approval::{Approval, Decision};
use bellwether_package::manifest::{Manifest, SectionEntry};
use bellwether_package::read::{NoBlobs, read};
use bellwether_package::sections::{
    Activation, Baseline, Budget, Card, Contract, Golden, Hours, Metric, MicroInfo, OnnxInfo,
    Provenance,
};
use bellwether_package::{
    Attribute, Digest, DocumentType, ModelName, ModelVersion, PackageId, PublicKey, RevocationList,
    Revocations, RootChain, RootDocument, RootId, SectionKind, Selector, Signed, SignedBuf,
    SlotName, UnixSecs, chain,
};
use proptest::collection::vec;
use proptest::prelude::*;

mod common;

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn version() -> impl Strategy<Value = ModelVersion> {
    any::<(u32, u32, u32)>().prop_map(|(major, minor, patch)| ModelVersion {
        major,
        minor,
        patch,
    })
}

fn model() -> impl Strategy<Value = ModelName> {
    "[a-z0-9_.-]{1,48}".prop_map(|text| ModelName::new(&text).unwrap())
}

fn slot() -> impl Strategy<Value = SlotName> {
    "[a-z0-9-]{1,32}".prop_map(|text| SlotName::new(&text).unwrap())
}

fn attribute() -> impl Strategy<Value = Attribute> {
    ("[!#-&(-+.-<>-Z^-~]{1,24}", "[a-zA-Z0-9.:/_-]{1,40}")
        .prop_filter_map("valid", |(key, value)| Attribute::new(&key, &value).ok())
}

fn selector() -> impl Strategy<Value = Selector> {
    vec(attribute(), 0..4).prop_filter_map("fits", |terms| Selector::of(&terms).ok())
}

fn approval() -> impl Strategy<Value = Approval> {
    let scope = (vec(slot(), 1..8), vec(selector(), 1..4));
    let times = (0..1u64 << 40, 1..1u64 << 40, any::<u64>());
    (
        digest(),
        digest(),
        any::<bool>(),
        scope,
        times,
        "[ -~é]{0,100}",
    )
        .prop_map(
            |(root, package, approve, (slots, selectors), (from, secs, at), reason)| Approval {
                root: RootId(root),
                package: PackageId(package),
                decision: if approve {
                    Decision::Approve
                } else {
                    Decision::Reject
                },
                slots: slots.into_iter().collect(),
                selectors: selectors.into_iter().collect(),
                not_before: UnixSecs(from),
                expires: UnixSecs(from + secs),
                at: UnixSecs(at),
                reason: reason.as_str().try_into().unwrap(),
            },
        )
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let sections = vec((1..64u64, digest()), SectionKind::ALL.len());
    (
        model(),
        version(),
        any::<u64>(),
        0..2u32,
        sections,
        any::<bool>(),
    )
        .prop_map(|(model, version, created, flags, sections, all)| Manifest {
            model,
            version,
            created: UnixSecs(created),
            flags,
            sections: SectionKind::ALL
                .into_iter()
                .zip(sections)
                .filter(|(kind, _)| {
                    use SectionKind::{ProgramBlob, ProgramInfo};
                    !matches!(kind, ProgramInfo | ProgramBlob)
                        && (all || !matches!(kind, SectionKind::Card))
                })
                .map(|(kind, (length, digest))| SectionEntry {
                    kind,
                    length,
                    digest,
                })
                .collect(),
        })
}

fn list() -> impl Strategy<Value = RevocationList> {
    let least = proptest::collection::btree_map(model(), version(), 0..16);
    (
        digest(),
        1..u64::MAX,
        any::<u64>(),
        vec(digest(), 0..64),
        least,
    )
        .prop_map(|(root, version, expires, packages, least)| RevocationList {
            root: RootId(root),
            version,
            expires: UnixSecs(expires),
            packages: packages.into_iter().map(PackageId).collect(),
            least: least.into_iter().collect(),
        })
}

fn text() -> impl Strategy<Value = String> {
    "[ -~é\n]{0,60}"
}

fn card() -> impl Strategy<Value = Card> {
    let metric = (
        text(),
        -1e9..1e9f64,
        proptest::option::of((-1.0..0.0f64, 0.0..1.0f64)),
    );
    (vec(text(), 5), vec(metric, 0..5), vec(text(), 0..5)).prop_map(|(texts, metrics, features)| {
        Card {
            intended_use: texts[0].clone(),
            limits: texts[1].clone(),
            data: texts[2].clone(),
            owner: texts[3].clone(),
            fairness: texts[4].clone(),
            prohibited_features: features,
            accuracy: metrics
                .into_iter()
                .map(|(name, value, interval)| Metric {
                    name,
                    value,
                    interval: interval.map(|(lo, hi)| (lo, hi, 0.95)),
                })
                .collect(),
        }
    })
}

fn provenance() -> impl Strategy<Value = Provenance> {
    let parts = (text(), text(), vec((text(), text()), 0..8));
    (proptest::option::of(digest()), parts, vec(digest(), 0..4)).prop_map(
        |(data, (code_commit, framework, parameters), parents)| Provenance {
            data,
            code_commit,
            framework,
            parameters,
            parents: parents.into_iter().map(PackageId).collect(),
        },
    )
}

fn activation() -> impl Strategy<Value = Activation> {
    let hours = (1..128u8, 0..1440u16, 1..1440u16).prop_map(|(days, from_minute, minutes)| Hours {
        days,
        from_minute,
        until_minute: (from_minute + minutes).min(1440),
    });
    (
        vec(selector(), 0..4),
        vec(selector(), 0..4),
        vec(hours, 0..4),
    )
        .prop_map(|(regions, excluded, hours)| Activation {
            regions,
            excluded,
            hours,
        })
}

fn roots() -> impl Strategy<Value = RootDocument> {
    (
        1..5u8,
        any::<u64>(),
        proptest::option::of((2..100u32, digest())),
    )
        .prop_map(|(persons, expires, later)| {
            let mut root = common::root_document();
            root.expires = UnixSecs(expires);
            for place in 0..persons {
                let mut person = root.persons[0].clone();
                person.name = ["dan", "eva", "fay", "gus"][usize::from(place)]
                    .try_into()
                    .unwrap();
                let key = bellwether_package::sign::public_key(&common::key(100 + place));
                person.keys = [key].into_iter().collect();
                root.persons.push(person).unwrap();
                root.approvers.persons.push(3 + place).unwrap();
            }
            root.approvers.threshold = 1 + persons;
            if let Some((version, id)) = later {
                root.version = version;
                root.id = Some(RootId(id));
            }
            root
        })
}

/// Bytes near a valid document: cut, or with some bytes changed.
fn near(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = valid.len();
    (vec((0..length, any::<u8>()), 0..4), 0..=length).prop_map(move |(changes, end)| {
        let mut bytes = valid.clone();
        changes
            .iter()
            .for_each(|(place, byte)| bytes[*place] = *byte);
        bytes.truncate(end.max(length / 2));
        bytes
    })
}

proptest! {
    #[test]
    fn approvals_come_back(approval in approval()) {
        if let Ok(payload) = approval.encode() {
            prop_assert_eq!(Approval::decode(&payload), Ok(approval));
        }
    }

    #[test]
    fn manifests_come_back(manifest in manifest()) {
        let mut buffer = [0; bellwether_package::manifest::MANIFEST_BYTES_MAX];
        let bytes = manifest.encode(&mut buffer).unwrap();
        prop_assert_eq!(Manifest::decode(bytes), Ok(manifest));
    }

    #[test]
    fn revocation_lists_come_back(list in list()) {
        prop_assert_eq!(RevocationList::decode(&list.encode().unwrap()), Ok(list));
    }

    #[test]
    fn roots_come_back(root in roots()) {
        prop_assert_eq!(RootDocument::decode(&root.encode().unwrap()), Ok(root));
    }

    #[test]
    fn cards_come_back(card in card()) {
        prop_assert_eq!(Card::decode(&card.encode().unwrap()), Ok(card));
    }

    #[test]
    fn provenances_come_back(provenance in provenance()) {
        prop_assert_eq!(Provenance::decode(&provenance.encode().unwrap()), Ok(provenance));
    }

    #[test]
    fn activation_policies_come_back(activation in activation()) {
        prop_assert_eq!(Activation::decode(&activation.encode().unwrap()), Ok(activation));
    }

    #[test]
    fn budgets_come_back(latency_us_p99 in 1u32.., memory_bytes in 1u64.., ppm in 0..=1_000_000u32) {
        let budget = Budget { latency_us_p99, memory_bytes, error_share_max_ppm: ppm };
        prop_assert_eq!(Budget::decode(&budget.encode().unwrap()), Ok(budget));
    }

    #[test]
    fn descriptions_of_variants_come_back(
        chunks in vec(digest(), 1..20), short in 0..1000u64, memory_bytes: u64, version: u32,
        operators in vec("[A-Za-z.:]{1,30}", 0..20),
    ) {
        let length = chunks.len() as u64 * bellwether_package::digest::CHUNK_BYTES as u64 - short;
        let micro = MicroInfo { length, plan_version: version, memory_bytes, chunks: chunks.clone() };
        prop_assert_eq!(MicroInfo::decode(&micro.encode().unwrap()), Ok(micro));
        let onnx = OnnxInfo { length, opset: version, memory_bytes, operators, chunks };
        prop_assert_eq!(OnnxInfo::decode(&onnx.encode().unwrap()), Ok(onnx));
    }

    #[test]
    fn contracts_baselines_and_golden_vectors_come_back(
        names in proptest::collection::btree_set("[a-z]{1,20}", 1..20), values in vec(any::<f32>(), 20),
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut draft = common::draft();
        draft.contract.inputs = vec![common::port("readings", &names)];
        draft.baseline.inputs = names.iter().map(|name| common::baseline_of(name)).collect();
        draft.golden.cases[0].inputs = vec![common::tensor("readings", &values[..names.len()])];
        let package = read(&*draft.to_vec().unwrap(), NoBlobs).unwrap();
        prop_assert_eq!(package.contract(), &draft.contract);
        prop_assert_eq!(package.baseline(), &draft.baseline);
        prop_assert_eq!(package.golden(), &draft.golden);
    }

    #[test]
    fn envelopes_come_back(payload in vec(any::<u8>(), 0..500), seeds in vec(1..200u8, 0..5)) {
        let keys: Vec<_> = seeds.iter().map(|seed| common::key(*seed)).collect();
        let keys: Vec<_> = keys.iter().collect();
        let made = SignedBuf::sign(DocumentType::Assignment, payload, &keys);
        let bytes = made.encode().unwrap();
        let signed = Signed::decode(&bytes, 500).unwrap();
        prop_assert_eq!(SignedBuf::from_signed(signed), made);
    }

    #[test]
    fn texts_of_ids_come_back(
        digest in digest(), version in version(), selector in selector(), attribute in attribute(),
    ) {
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        prop_assert_eq!(version.to_string().parse(), Ok(version));
        prop_assert_eq!(Selector::new(selector.as_str()), Ok(selector.clone()));
        let own: Vec<Attribute> = selector
            .terms()
            .map(|(key, value)| Attribute::new(key, value).unwrap())
            .collect();
        prop_assert!(selector.matches(&own));
        let (key, value) = (attribute.key.as_str(), attribute.value.as_str());
        prop_assert_eq!(Attribute::new(key, value), Ok(attribute.clone()));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..600)) {
        decode_all(&bytes);
        for version in [b"BWP1".as_slice(), b"BWT1", &[1]] {
            decode_all(&[version, &bytes].concat());
        }
    }

    #[test]
    fn no_bytes_near_a_package_make_the_reader_panic(
        bytes in near(common::draft().to_vec().unwrap())
    ) {
        let _ = read(&*bytes, NoBlobs);
    }

    #[test]
    fn no_bytes_near_a_root_make_the_chain_panic(
        bytes in near(chain::join(&[common::sign_root(&common::root_document(), &[1, 2])]).unwrap())
    ) {
        let _ = RootChain::verify_from_first(&bytes);
    }
}

fn decode_all(bytes: &[u8]) {
    let root = common::trust(&common::root_document());
    let _ = read(bytes, NoBlobs);
    let _ = RootChain::verify_from_first(bytes);
    let _ = RootChain::verify(bytes, &root.fingerprint());
    let _ = Revocations::verify(bytes, &root);
    let _ = RevocationList::decode(bytes);
    let _ = RootDocument::decode(bytes);
    let _ = Approval::decode(bytes);
    let _ = Approval::verify(bytes, &root);
    let _ = Manifest::decode(bytes);
    let _ = (
        Contract::decode(bytes),
        Baseline::decode(bytes),
        Golden::decode(bytes),
    );
    let _ = (
        Budget::decode(bytes),
        Card::decode(bytes),
        Provenance::decode(bytes),
    );
    let _ = (
        Activation::decode(bytes),
        OnnxInfo::decode(bytes),
        MicroInfo::decode(bytes),
    );
}

#[test]
fn names_outside_their_alphabet_or_bounds_are_refused() {
    for text in ["", "Pump", "pump anomaly", "pümp", &"a".repeat(49)] {
        assert!(ModelName::new(text).is_err(), "{text}");
    }
    for text in ["", "a_b", "a.b", &"a".repeat(33)] {
        assert!(SlotName::new(text).is_err(), "{text}");
    }
    for text in [
        "1.2",
        "1.2.3.4",
        "+1.2.3",
        "1..3",
        "4294967296.0.0",
        "a.b.c",
    ] {
        assert!(text.parse::<ModelVersion>().is_err(), "{text}");
    }
    for text in ["a", "a=", "=b", "a=b,", "a=b,a=c", "a=b=c", "*,a=b", "a=*"] {
        assert!(Selector::new(text).is_err(), "{text}");
    }
    let nine: Vec<String> = (0..9).map(|n| format!("k{n}=v")).collect();
    assert!(Selector::new(&nine.join(",")).is_err());
    assert!(Selector::new(&nine[..8].join(",")).is_ok());
    for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(65)] {
        assert!(text.parse::<PublicKey>().is_err(), "{text}");
    }
}

#[test]
fn the_empty_selector_and_the_star_mean_everything() {
    assert_eq!(Selector::new(""), Selector::new("*"));
    assert!(Selector::everything().matches(&[]));
    assert_eq!(Selector::everything().to_string(), "*");
}

#[test]
fn hours_and_regions_of_an_activation_policy_bind() {
    // 2026-01-01 20:40 UTC was a Thursday evening.
    let now = common::NOW;
    let hours = |days, from_minute, until_minute| Hours {
        days,
        from_minute,
        until_minute,
    };
    let thursday = 1 << 3;
    assert!(hours(thursday, 20 * 60, 21 * 60).contain(now));
    assert!(!hours(thursday, 20 * 60, 20 * 60 + 40).contain(now));
    assert!(!hours(!thursday & 0x7f, 0, 1440).contain(now));
    let lyon = common::attributes(&[("site", "lyon")]);
    let selector = |text| vec![Selector::new(text).unwrap()];
    let mut policy = Activation {
        regions: selector("site=lyon"),
        ..Activation::default()
    };
    assert!(policy.allows(&lyon, None).is_ok());
    assert!(policy.allows(&[], None).is_err());
    policy.hours = vec![hours(thursday, 0, 1440)];
    assert!(policy.allows(&lyon, Some(now)).is_ok() && policy.allows(&lyon, None).is_err());
    policy.excluded = selector("*");
    assert!(policy.allows(&lyon, Some(now)).is_err());
}

#[test]
fn a_few_bytes_cannot_claim_much_memory() {
    // A baseline that claims as many fields as there can be, and brings none.
    let mut bytes = vec![1, 0x80, 0x08];
    assert!(Baseline::decode(&bytes).is_err());
    // A card that claims a text of four gigabytes.
    bytes = vec![1, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(Card::decode(&bytes).is_err());
}

#[test]
fn bytes_after_the_last_field_of_a_document_are_refused() {
    use bellwether_package::document::DocumentError;
    let longer = |bytes: Vec<u8>| [bytes.as_slice(), &[0]].concat();
    let draft = common::draft();
    let budget = Budget::decode(&longer(draft.budget.encode().unwrap()));
    assert_eq!(budget, Err(DocumentError::TrailingBytes));
    let root = RootDocument::decode(&longer(common::root_document().encode().unwrap()));
    assert_eq!(root, Err(DocumentError::TrailingBytes));
}

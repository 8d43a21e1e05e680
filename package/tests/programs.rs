//! Packages of the device's own programs: round trips, what may stand in them, and their slot.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod common;

use bellwether_package::digest::sha256;
use bellwether_package::document::DocumentError;
use bellwether_package::ids::AGENT_SLOT;
use bellwether_package::manifest::SectionEntry;
use bellwether_package::read::{MemoryBlobs, NoBlobs, ReadError, read, read_header};
use bellwether_package::sections::ProgramInfo;
use bellwether_package::write::{ProgramDraft, TargetDraft, WriteError};
use bellwether_package::{
    IntactPackage, Manifest, ModelName, ModelVersion, Refusal, SectionKind, pieces,
};

use common::{NOW, World, signed, slot};

const HERE: &str = "x86_64-unknown-linux-gnu";
const THERE: &str = "aarch64-unknown-linux-musl";

fn target<'a>(triple: &str, worker: &'a [u8], agent: &'a [u8]) -> TargetDraft<'a> {
    TargetDraft {
        triple: triple.into(),
        worker,
        agent,
    }
}

fn draft(targets: Vec<TargetDraft<'_>>) -> ProgramDraft<'_> {
    ProgramDraft {
        name: ModelName::new("bellwether-agent").unwrap(),
        version: ModelVersion {
            major: 1,
            minor: 1,
            patch: 0,
        },
        created: NOW,
        card: common::draft().card,
        provenance: common::draft().provenance,
        targets,
    }
}

fn packed(targets: Vec<TargetDraft<'_>>) -> Vec<u8> {
    let mut bytes = bellwether_package::std_io::FromStd::new(Vec::new());
    draft(targets).write(&mut bytes).unwrap();
    bytes.into_inner()
}

fn two() -> Vec<u8> {
    packed(vec![
        target(HERE, b"worker here", b"agent here"),
        target(THERE, b"worker there", b"agent there"),
    ])
}

fn intact(bytes: &[u8]) -> IntactPackage {
    read(bytes, NoBlobs).unwrap()
}

#[test]
fn what_was_packed_is_found_by_its_target_and_place() {
    let bytes = two();
    let package = intact(&bytes);
    assert!(package.manifest().is_program());
    let info = package.program().unwrap();
    let blob = pieces::section_place(package.header(), SectionKind::ProgramBlob).unwrap();
    for (triple, worker, agent) in [
        (HERE, "worker here", "agent here"),
        (THERE, "worker there", "agent there"),
    ] {
        let (target, begins) = info.target(triple).unwrap();
        let first = (blob.0 + begins) as usize;
        let middle = first + target.worker.length as usize;
        let last = middle + target.agent.length as usize;
        assert_eq!(&bytes[first..middle], worker.as_bytes());
        assert_eq!(&bytes[middle..last], agent.as_bytes());
        assert_eq!(target.worker.digest, sha256(worker.as_bytes()));
        assert_eq!(target.agent.digest, sha256(agent.as_bytes()));
    }
    assert_eq!(info.target("mips-unknown-linux-gnu"), None);
}

#[test]
fn a_package_of_programs_has_nothing_of_a_model() {
    let bytes = two();
    let mut blobs = MemoryBlobs::default();
    let package = read(&*bytes, &mut blobs).unwrap();
    assert!(package.onnx().is_none() && package.micro().is_none());
    assert!(package.contract().inputs.is_empty() && package.golden().cases.is_empty());
    assert!(blobs.onnx.is_empty() && blobs.micro.is_empty());
}

#[test]
fn any_flipped_byte_is_noticed() {
    let bytes = two();
    let whole = intact(&bytes);
    for place in 0..bytes.len() {
        let mut spoiled = bytes.clone();
        spoiled[place] ^= 1;
        match read(&*spoiled, NoBlobs) {
            Err(_) => {}
            Ok(package) => assert_ne!(package.id(), whole.id(), "byte {place}"),
        }
    }
}

#[test]
fn programs_and_models_never_share_a_package() {
    let programs = intact(&two()).manifest().clone();
    let model = common::intact().manifest().clone();
    let both = |from: &Manifest, kinds: &[SectionKind]| -> Manifest {
        let mut manifest = from.clone();
        for kind in kinds {
            let other = if from.is_program() { &model } else { &programs };
            manifest
                .sections
                .push(*other.section(*kind).unwrap())
                .unwrap();
        }
        manifest
            .sections
            .sort_unstable_by_key(|section| section.kind);
        manifest
    };
    use SectionKind::{Contract, Golden, OnnxBlob, OnnxInfo, ProgramBlob, ProgramInfo};
    assert!(programs.check().is_ok() && model.check().is_ok());
    assert!(both(&programs, &[Contract]).check().is_err());
    assert!(both(&programs, &[Golden]).check().is_err());
    assert!(both(&programs, &[OnnxInfo, OnnxBlob]).check().is_err());
    assert!(both(&model, &[ProgramInfo]).check().is_err());
    assert!(both(&model, &[ProgramInfo, ProgramBlob]).check().is_err());
    for kind in [ProgramInfo, ProgramBlob] {
        let mut manifest = programs.clone();
        let left = manifest.sections.iter().filter(|it| it.kind != kind);
        manifest.sections = left.copied().collect();
        assert!(manifest.check().is_err(), "without {kind}");
    }
}

#[test]
fn a_description_that_contradicts_itself_is_refused() {
    let good = intact(&two()).program().unwrap().clone();
    assert_eq!(
        ProgramInfo::decode(&good.encode().unwrap()),
        Ok(good.clone())
    );
    type Spoil = fn(&mut ProgramInfo);
    let spoils: [Spoil; 8] = [
        |info| info.targets.clear(),
        |info| drop(info.targets.pop()),
        |info| info.targets[1].triple = info.targets[0].triple.clone(),
        |info| info.targets[0].triple.clear(),
        |info| info.targets[0].agent.length = 0,
        |info| info.targets[0].worker.length += 1,
        |info| info.targets[1].agent.length = u64::MAX,
        |info| info.length -= 1,
    ];
    for (place, spoil) in spoils.into_iter().enumerate() {
        let mut info = good.clone();
        spoil(&mut info);
        assert!(info.encode().is_err(), "{place}");
    }
}

#[test]
fn a_blob_that_its_description_does_not_fit_is_refused() {
    let (bytes, other) = (two(), packed(vec![target(HERE, b"worker", b"agent")]));
    let header = read_header(&*bytes).unwrap();
    let mut manifest = header.manifest().clone();
    let blob = *read_header(&*other)
        .unwrap()
        .manifest()
        .section(SectionKind::ProgramBlob)
        .unwrap();
    for section in &mut manifest.sections {
        if section.kind == SectionKind::ProgramBlob {
            *section = SectionEntry { ..blob };
        }
    }
    let mut buffer = [0; bellwether_package::manifest::MANIFEST_BYTES_MAX];
    let encoded = manifest.encode(&mut buffer).unwrap().to_vec();
    let header = bellwether_package::Header::from_parts(encoded, Vec::new()).unwrap();
    let spoiled = [
        &header.encode()[..],
        &bytes[header.header_bytes() as usize..],
    ]
    .concat();
    assert!(matches!(
        read(&*spoiled, NoBlobs),
        Err(ReadError::Fit(bellwether_package::sections::FitError::Blob))
    ));
}

#[test]
fn a_package_for_no_machine_is_not_written() {
    let refused =
        draft(Vec::new()).write(&mut bellwether_package::std_io::FromStd::new(Vec::new()));
    assert!(matches!(
        refused,
        Err(WriteError::Section {
            kind: SectionKind::ProgramInfo,
            source: DocumentError::Invalid(_)
        })
    ));
}

#[test]
fn an_unchanged_worker_is_not_fetched_again() {
    let worker: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let agent =
        |seed: u8| -> Vec<u8> { (0..600_000_u32).map(|n| (n % 241) as u8 ^ seed).collect() };
    let (before, after) = (agent(0), [agent(7), vec![1; 1000]].concat());
    let old = intact(&packed(vec![target(HERE, &worker, &before)]));
    let new = intact(&packed(vec![target(HERE, &worker, &after)]));
    let shared = pieces::shared(&new, &old);
    // Three whole chunks of the worker; the fourth holds the beginning of the agent too.
    assert!(shared.bytes_shared >= 3 * 256 * 1024, "{shared:?}");
}

#[test]
fn programs_are_approved_for_their_slot_alone_and_models_never_for_it() {
    let mut world = World::new();
    world.package = intact(&two());
    let approve = |world: &World, name: &str| {
        let mut approval = world.approval();
        approval.slots = [slot(name)].into_iter().collect();
        vec![signed(&approval, 1), signed(&approval, 2)]
    };
    world.slot = slot(AGENT_SLOT);
    assert!(world.install(approve(&world, AGENT_SLOT)).is_ok());
    assert!(matches!(
        world.install(approve(&world, "cavitation")),
        Err(Refusal::UnderApproved(_))
    ));
    world.slot = slot("cavitation");
    let both = approve(&world, "cavitation");
    assert_eq!(world.install(both.clone()), Err(Refusal::OtherSlot));
    assert_eq!(world.boot(both), Err(Refusal::OtherSlot));
    let mut world = World::new();
    world.slot = slot(AGENT_SLOT);
    assert_eq!(
        world.install(approve(&world, AGENT_SLOT)),
        Err(Refusal::OtherSlot)
    );
}

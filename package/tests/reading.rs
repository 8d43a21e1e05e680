//! Reading packages: what is damaged, too long or does not fit together never gets through.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot build its fixture fails"
)]

use core::convert::Infallible;

use bellwether_package::approval::{APPROVALS_MAX, SIGNED_APPROVAL_BYTES_MAX};
use bellwether_package::digest::{CHUNK_BYTES, ChunkRoot, sha256};
use bellwether_package::document::{self, DocumentError};
use bellwether_package::manifest::{MANIFEST_BYTES_MAX, SectionEntry};
use bellwether_package::read::{BlobSink, MAGIC, NoBlobs, ReadError, read, read_header};
use bellwether_package::sections::{
    self, Budget, Constant, Contract, DType, Dim, FitError, OnnxInfo, State,
};
use bellwether_package::std_io::{self, BlobWriter, StdReadError};
use bellwether_package::write::{Draft, OnnxDraft, WriteError, chunk_digests, replace_approvals};
use bellwether_package::{Header, IntactPackage, Manifest, SectionKind};
use embedded_io::{ErrorKind, ErrorType};

mod common;

use common::{MODEL_BYTES, World, draft, signed, with_blobs};

type Sections = Vec<(SectionKind, Vec<u8>)>;

/// Takes a valid package apart, lets somebody change sections, and puts it together again with
/// digests that are right.
fn rebuilt(change: impl FnOnce(&mut Sections)) -> Vec<u8> {
    let bytes = draft().to_vec().unwrap();
    let header = read_header(&*bytes).unwrap();
    let mut at = header.header_bytes() as usize;
    let mut sections = Sections::new();
    for section in &header.manifest().sections {
        let end = at + section.length as usize;
        sections.push((section.kind, bytes[at..end].to_vec()));
        at = end;
    }
    change(&mut sections);
    let mut manifest = header.manifest().clone();
    manifest.sections = sections
        .iter()
        .map(|(kind, bytes)| SectionEntry {
            kind: *kind,
            length: bytes.len() as u64,
            digest: match kind {
                SectionKind::OnnxBlob => ChunkRoot::of_chunks(&chunk_digests(bytes)),
                _ => sha256(bytes),
            },
        })
        .collect();
    let sections: Vec<Vec<u8>> = sections.into_iter().map(|(_, bytes)| bytes).collect();
    [unchecked_header(&manifest), sections.concat()].concat()
}

/// A header around whatever manifest.
fn unchecked_header(manifest: &Manifest) -> Vec<u8> {
    let mut buffer = [0; 4 * MANIFEST_BYTES_MAX];
    let manifest = document::encode(1, manifest, &mut buffer).unwrap();
    let length = (manifest.len() as u32).to_le_bytes();
    [MAGIC.as_slice(), &length, manifest, &[0, 0]].concat()
}

fn replaced(kind: SectionKind, bytes: Vec<u8>) -> Vec<u8> {
    rebuilt(|sections| {
        let found = sections
            .iter_mut()
            .find(|(found, _)| *found == kind)
            .unwrap();
        found.1 = bytes;
    })
}

fn refusal(bytes: &[u8]) -> ReadError {
    read(bytes, NoBlobs).unwrap_err()
}

/// A valid package with two approvals.
fn approved() -> (World, Vec<u8>) {
    let world = World::new();
    let approvals = vec![signed(&world.approval(), 1), signed(&world.approval(), 2)];
    let mut bytes = Vec::new();
    replace_approvals(&*draft().to_vec().unwrap(), &mut bytes, approvals).unwrap();
    (world, bytes)
}

#[test]
fn a_package_comes_out_as_it_went_in() {
    let draft = draft();
    let (package, blobs) = with_blobs(&draft.to_vec().unwrap());
    assert_eq!(package.contract(), &draft.contract);
    assert_eq!(package.baseline(), &draft.baseline);
    assert_eq!(package.golden(), &draft.golden);
    assert_eq!(package.budget(), &draft.budget);
    assert_eq!(package.card(), draft.card.as_ref());
    assert_eq!(package.provenance(), draft.provenance.as_ref());
    assert_eq!(package.activation(), draft.activation.as_ref());
    assert_eq!(blobs.onnx, MODEL_BYTES);
    assert_eq!(package.onnx().unwrap().operators, ["Gemm", "Relu"]);
    assert_eq!(package.manifest().model, draft.model);
    assert!(!package.manifest().golden_mismatch_allowed());
    assert_eq!(
        package.header().package_bytes(),
        draft.to_vec().unwrap().len() as u64
    );
}

#[test]
fn flipping_any_byte_never_gives_a_verified_package() {
    let (world, bytes) = approved();
    let verify = |bytes: &[u8]| {
        let package = read(bytes, NoBlobs).ok()?;
        world.verifier().verify_for_install(package).ok()
    };
    assert!(verify(&bytes).is_some());
    let mut spoiled = bytes.clone();
    for place in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            spoiled[place] = bytes[place] ^ mask;
            assert!(
                verify(&spoiled).is_none(),
                "byte {place} with mask {mask:#x}"
            );
        }
        spoiled[place] = bytes[place];
    }
}

#[test]
fn flipping_a_byte_of_a_spare_approval_leaves_the_content_as_it_was() {
    let world = World::new();
    let approvals = [1, 2, 3]
        .map(|seed| signed(&world.approval(), seed))
        .to_vec();
    let mut bytes = Vec::new();
    replace_approvals(&*draft().to_vec().unwrap(), &mut bytes, approvals).unwrap();
    let header = read_header(&*bytes).unwrap();
    let first = MAGIC.len() + 4 + header.manifest_bytes().len();
    let mut verified = 0;
    for place in first..header.header_bytes() as usize {
        let mut spoiled = bytes.clone();
        spoiled[place] ^= 0x10;
        let Ok(package) = read(&*spoiled, NoBlobs) else {
            continue;
        };
        let mut without = package.clone();
        without.set_approvals(Vec::new()).unwrap();
        assert_eq!(without, world.package, "byte {place}");
        if let Ok(package) = world.verifier().verify_for_install(package) {
            assert_eq!(package.approved_by().len(), 2, "byte {place}");
            verified += 1;
        }
    }
    assert!(verified > 0);
}

#[test]
fn a_package_cut_off_anywhere_is_refused() {
    let (_, bytes) = approved();
    for end in 0..bytes.len() {
        assert_eq!(
            refusal(&bytes[..end]),
            ReadError::Truncated,
            "after {end} bytes"
        );
    }
}

#[test]
fn bytes_after_the_last_section_are_refused() {
    let (_, mut bytes) = approved();
    bytes.push(0);
    assert_eq!(refusal(&bytes), ReadError::TrailingBytes);
}

#[test]
fn something_else_is_refused() {
    assert_eq!(refusal(b"PK\x03\x04 and so on"), ReadError::NotAPackage);
    assert_eq!(refusal(b"BWP2 and so on"), ReadError::NotAPackage);
}

#[test]
fn oversized_lengths_are_refused_before_anything_is_read() {
    let claim = |manifest: u32| [MAGIC.as_slice(), &manifest.to_le_bytes()].concat();
    for found in [MANIFEST_BYTES_MAX as u32 + 1, u32::MAX] {
        assert_eq!(refusal(&claim(found)), ReadError::ManifestLength { found });
    }
    let bytes = draft().to_vec().unwrap();
    let manifest = read_header(&*bytes).unwrap().manifest_bytes().len();
    let approvals = MAGIC.len() + 4 + manifest;
    let mut many = bytes[..approvals].to_vec();
    many.extend((APPROVALS_MAX as u16 + 1).to_le_bytes());
    assert_eq!(refusal(&many), ReadError::TooManyApprovals { found: 17 });
    let mut long = bytes[..approvals].to_vec();
    long.extend(1u16.to_le_bytes());
    long.extend((SIGNED_APPROVAL_BYTES_MAX as u16 + 1).to_le_bytes());
    assert_eq!(refusal(&long), ReadError::ApprovalLength { found: 2049 });
}

#[test]
fn sections_of_impossible_length_are_refused_by_the_manifest() {
    let manifest = common::intact().manifest().clone();
    for place in 0..manifest.sections.len() {
        for length in [0, manifest.sections[place].kind.bytes_max() + 1, u64::MAX] {
            let mut manifest = manifest.clone();
            manifest.sections[place].length = length;
            let refused = refusal(&unchecked_header(&manifest));
            assert!(matches!(
                refused,
                ReadError::Manifest(DocumentError::Invalid(_))
            ));
        }
    }
}

#[test]
fn manifests_without_a_mandatory_section_or_out_of_order_are_refused() {
    let whole = common::intact().manifest().clone();
    let optional = [
        SectionKind::Card,
        SectionKind::Provenance,
        SectionKind::Activation,
    ];
    for place in 0..whole.sections.len() {
        let mut manifest = whole.clone();
        let removed = manifest.sections.remove(place);
        assert_eq!(
            manifest.check().is_ok(),
            optional.contains(&removed.kind),
            "{removed:?}"
        );
    }
    for place in 1..whole.sections.len() {
        let mut manifest = whole.clone();
        manifest.sections.swap(place - 1, place);
        assert!(manifest.check().is_err());
        manifest.sections[place - 1] = manifest.sections[place];
        assert!(manifest.check().is_err());
    }
    let mut manifest = whole;
    manifest.flags = 2;
    assert!(manifest.check().is_err());
}

#[test]
fn a_manifest_of_newer_software_says_so() {
    let mut bytes = draft().to_vec().unwrap();
    bytes[8] = 2;
    let newer = DocumentError::Version { found: 2, known: 1 };
    assert_eq!(refusal(&bytes), ReadError::Manifest(newer));
}

#[test]
fn sections_that_do_not_fit_the_header_are_refused() {
    // The header of one package before the sections of another of the same lengths.
    let mut other = draft();
    other.budget = Budget {
        latency_us_p99: 5_001,
        ..other.budget
    };
    let (one, other) = (draft().to_vec().unwrap(), other.to_vec().unwrap());
    let end = read_header(&*one).unwrap().header_bytes() as usize;
    assert_eq!(one.len(), other.len());
    let mixed = [&one[..end], &other[end..]].concat();
    assert_eq!(
        refusal(&mixed),
        ReadError::Digest {
            kind: SectionKind::Budget
        }
    );
}

#[test]
fn a_baseline_that_does_not_fit_its_contract_is_refused() {
    let baseline = |change: fn(&mut Draft<'_>)| {
        let mut draft = draft();
        change(&mut draft);
        refusal(&replaced(
            SectionKind::Baseline,
            draft.baseline.encode().unwrap(),
        ))
    };
    assert_eq!(
        baseline(|draft| drop(draft.baseline.inputs.pop())),
        FitError::BaselineFields {
            side: "inputs",
            expected: 2,
            found: 1
        }
        .into()
    );
    assert_eq!(
        baseline(|draft| draft.baseline.outputs.clear()),
        FitError::BaselineFields {
            side: "outputs",
            expected: 1,
            found: 0
        }
        .into()
    );
    assert_eq!(
        baseline(|draft| draft.baseline.inputs.swap(0, 1)),
        FitError::BaselineField {
            side: "inputs",
            place: 0
        }
        .into()
    );
    assert_eq!(
        baseline(|draft| {
            let categorical = bellwether_drift::FieldBaseline::categorical("outlet", &[1], &[1]);
            draft.baseline.inputs[1] = categorical.unwrap();
        }),
        FitError::BaselineField {
            side: "inputs",
            place: 1
        }
        .into()
    );
}

#[test]
fn golden_cases_that_do_not_fit_their_contract_are_refused() {
    type Change = fn(&mut Draft<'_>);
    let changes: [(&str, Change); 6] = [
        ("inputs", |draft| {
            draft.golden.cases[0].inputs[0].name = "other".into()
        }),
        ("inputs", |draft| {
            draft.golden.cases[0].inputs[0].shape = vec![2, 1]
        }),
        ("inputs", |draft| drop(draft.golden.cases[0].inputs.pop())),
        ("inputs", |draft| {
            draft.golden.cases[0].inputs[0].bytes.truncate(7)
        }),
        ("outputs", |draft| draft.golden.cases[0].outputs.clear()),
        ("outputs", |draft| {
            draft.golden.cases[0].outputs[0].shape = vec![2, 1];
            draft.golden.cases[0].outputs[0].bytes = vec![0; 8];
        }),
    ];
    for (side, change) in changes {
        let mut draft = draft();
        change(&mut draft);
        assert!(matches!(draft.to_vec(), Err(WriteError::Fit(_))));
        let bytes = replaced(SectionKind::Golden, draft.golden.encode().unwrap());
        assert_eq!(
            refusal(&bytes),
            FitError::GoldenCase { case: 0, side }.into()
        );
    }
}

fn state(input: &str, output: &str) -> State {
    State {
        input: input.to_owned(),
        output: output.to_owned(),
        dtype: DType::F32,
        shape: vec![Dim::Fixed(1)],
    }
}

/// One f32 of so many bytes.
fn constant(name: &str, bytes: usize) -> Constant {
    Constant {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![],
        bytes: vec![0; bytes],
    }
}

#[test]
fn states_and_constants_come_back_as_they_went() {
    let mut contract = draft().contract;
    contract.states.push(state("h", "h_next"));
    contract.constants.push(constant("rate", 4));
    let bytes = contract.encode().unwrap();
    assert_eq!(Contract::decode(&bytes).unwrap(), contract);
}

#[test]
fn contracts_that_contradict_themselves_are_refused() {
    use bellwether_features::Step;
    let changes: [fn(&mut Contract); 13] = [
        |contract| contract.inputs.clear(),
        |contract| contract.outputs.clear(),
        |contract| drop(contract.inputs[0].fields.pop()),
        |contract| contract.inputs[0].fields[1].name = "inlet".into(),
        |contract| contract.inputs[0].fields[1].name.clear(),
        |contract| contract.inputs[0].fields[0].range = Some((1.0, f32::NAN)),
        |contract| contract.inputs.push(contract.inputs[0].clone()),
        |contract| {
            contract.steps.push(Step::Clip {
                field: 2,
                lo: 0.0,
                hi: 1.0,
            })
        },
        |contract| contract.inputs[0].fields[0].source = "\x1b[2J".into(),
        |contract| contract.states.push(state("readings", "h")),
        |contract| contract.states.push(state("h", "score")),
        |contract| contract.constants.push(constant("h", 1)),
        |contract| contract.constants.push(constant("readings", 4)),
    ];
    for (place, change) in changes.into_iter().enumerate() {
        let mut contract = draft().contract;
        change(&mut contract);
        assert!(contract.encode().is_err(), "change {place} is written");
        let bytes = document::to_vec(sections::FORMAT_VERSION, &contract, 1 << 16).unwrap();
        let refused = refusal(&replaced(SectionKind::Contract, bytes));
        let kind = SectionKind::Contract;
        assert!(
            matches!(refused, ReadError::Section { kind: found, .. } if found == kind),
            "change {place} is read: {refused}"
        );
    }
}

#[test]
fn a_description_that_does_not_fit_its_blob_is_refused() {
    let info = OnnxInfo {
        length: MODEL_BYTES.len() as u64,
        opset: 17,
        memory_bytes: 1,
        operators: Vec::new(),
        chunks: chunk_digests(b"another model"),
    };
    let bytes = replaced(SectionKind::OnnxInfo, info.encode().unwrap());
    assert_eq!(refusal(&bytes), FitError::Blob.into());
    let longer = OnnxInfo {
        length: info.length + 1,
        chunks: chunk_digests(MODEL_BYTES),
        ..info
    };
    let bytes = replaced(SectionKind::OnnxInfo, longer.encode().unwrap());
    assert_eq!(refusal(&bytes), FitError::Blob.into());
}

/// Counts what it is given.
#[derive(Default)]
struct Counting(u64);

impl BlobSink for Counting {
    type Error = Infallible;

    fn begin(&mut self, _: SectionKind, _: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0 += bytes.len() as u64;
        Ok(())
    }
}

fn large() -> (Vec<u8>, Vec<u8>) {
    let model: Vec<u8> = (0..CHUNK_BYTES * 5 / 2)
        .map(|place| (place / 7) as u8)
        .collect();
    let mut draft = draft();
    draft.onnx = Some(OnnxDraft {
        bytes: &model,
        ..draft.onnx.unwrap()
    });
    let bytes = draft.to_vec().unwrap();
    (model, bytes)
}

#[test]
fn a_blob_of_several_chunks_arrives_whole() {
    let (model, bytes) = large();
    let (package, blobs) = with_blobs(&bytes);
    assert_eq!(blobs.onnx, model);
    assert_eq!(package.onnx().unwrap().chunks.len(), 3);
    let mut root = ChunkRoot::default();
    model.chunks(1000).for_each(|piece| root.update(piece));
    assert_eq!(
        root.finish(),
        package
            .manifest()
            .section(SectionKind::OnnxBlob)
            .unwrap()
            .digest
    );
}

#[test]
fn a_damaged_chunk_is_refused_before_the_sink_sees_it() {
    let (model, mut bytes) = large();
    let place = bytes.len() - model.len() + CHUNK_BYTES + 5;
    bytes[place] ^= 1;
    let mut sink = Counting::default();
    let kind = SectionKind::OnnxBlob;
    assert_eq!(read(&*bytes, &mut sink), Err(ReadError::Digest { kind }));
    assert_eq!(sink.0, CHUNK_BYTES as u64);
}

/// Gives one byte at a time, then fails.
struct Dripping<'a>(&'a [u8], Option<ErrorKind>);

impl ErrorType for Dripping<'_> {
    type Error = ErrorKind;
}

impl embedded_io::Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        match (self.0.split_first(), self.1) {
            (Some((byte, rest)), _) => {
                buffer[0] = *byte;
                self.0 = rest;
                Ok(1)
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(0),
        }
    }
}

#[test]
fn a_source_that_drips_gives_the_same_package() {
    let bytes = draft().to_vec().unwrap();
    assert_eq!(
        read(Dripping(&bytes, None), NoBlobs).unwrap(),
        common::intact()
    );
}

#[test]
fn a_source_that_fails_is_reported_as_such() {
    let bytes = draft().to_vec().unwrap();
    let source = Dripping(&bytes[..bytes.len() / 2], Some(ErrorKind::TimedOut));
    assert_eq!(
        read(source, NoBlobs),
        Err(ReadError::Source(ErrorKind::TimedOut))
    );
}

/// Has room for nothing.
struct Full;

impl BlobSink for Full {
    type Error = ErrorKind;

    fn begin(&mut self, _: SectionKind, _: u64) -> Result<(), ErrorKind> {
        Err(ErrorKind::OutOfMemory)
    }

    fn append(&mut self, _: &[u8]) -> Result<(), ErrorKind> {
        Ok(())
    }
}

#[test]
fn a_sink_that_is_full_is_reported_as_such() {
    let bytes = draft().to_vec().unwrap();
    assert_eq!(
        read(&*bytes, Full),
        Err(ReadError::Sink(ErrorKind::OutOfMemory))
    );
}

#[test]
fn other_approvals_leave_the_package_as_it_was() {
    let bytes = draft().to_vec().unwrap();
    let (world, with_two) = approved();
    let package = read(&*with_two, NoBlobs).unwrap();
    assert_eq!(package.id(), world.package.id());
    assert_eq!(package.header().approvals().count(), 2);
    let mut without = Vec::new();
    replace_approvals(&*with_two, &mut without, Vec::new()).unwrap();
    assert_eq!(without, bytes);
}

#[test]
fn approvals_are_not_replaced_in_a_package_that_is_cut_off_or_too_long() {
    let bytes = draft().to_vec().unwrap();
    let replace = |bytes: &[u8]| replace_approvals(bytes, &mut Vec::new(), Vec::new());
    let cut = replace(&bytes[..bytes.len() - 1]);
    assert_eq!(cut, Err(WriteError::Read(ReadError::Truncated)));
    let longer = replace(&[bytes.as_slice(), &[0]].concat());
    assert_eq!(longer, Err(WriteError::Read(ReadError::TrailingBytes)));
    let many = replace_approvals(&*bytes, &mut Vec::new(), vec![Vec::new(); 17]);
    assert_eq!(
        many,
        Err(WriteError::Read(ReadError::TooManyApprovals { found: 17 }))
    );
}

#[test]
fn a_header_alone_leads_to_the_same_package() {
    let (world, bytes) = approved();
    let mut source = &*bytes;
    let header: Header = std_io::read_header(&mut source).unwrap();
    assert!(world.verifier().approve_for_install(&header).is_ok());
    let package: IntactPackage = std_io::read_sections(header, &mut source, NoBlobs).unwrap();
    assert_eq!(package, read(&*bytes, NoBlobs).unwrap());
}

#[test]
fn std_readers_and_writers_work_and_keep_the_systems_error() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("a cable"))
        }
    }
    let (_, bytes) = approved();
    let mut sink = BlobWriter::new(SectionKind::OnnxBlob, Vec::new());
    std_io::read(&*bytes, &mut sink).unwrap();
    assert_eq!(sink.into_inner(), MODEL_BYTES);
    match std_io::read(Broken, NoBlobs) {
        Err(StdReadError::Source(error)) => assert_eq!(error.to_string(), "a cable"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_draft_without_a_model_is_not_written() {
    let mut draft = draft();
    draft.onnx = None;
    assert!(matches!(
        draft.to_vec(),
        Err(WriteError::Manifest(DocumentError::Invalid(_)))
    ));
}

//! The bytes on the wire, and what bytes from outside can do.
//!
//! `vectors/*.hex` are what devices in the field send and expect. A vector that changes breaks them:
//! raise the message's version instead. `BELLWETHER_WRITE_VECTORS=1 cargo test -p
//! bellwether-protocol` writes those that do not exist yet, and never overwrites one.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use bellwether_drift::{Bins, Counts, FieldBaseline};
use bellwether_package::ids::{Digest, PackageId, PublicKey, RootId, SlotName, UnixSecs};
use bellwether_package::signed::{DocumentType, SignedBuf};
use bellwether_protocol::assignment::{Addressee, SIGNED_ASSIGNMENT_BYTES_MAX, SLOTS_MAX};
use bellwether_protocol::*;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

fn package(tag: u8) -> PackageId {
    PackageId(Digest([tag; 32]))
}

fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

fn baseline(name: &str) -> FieldBaseline {
    let edges = heapless::Vec::from_slice(&[1.0, 2.0]).unwrap();
    let bins = Bins::Numeric {
        edges,
        lo: 0.0,
        hi: 3.0,
    };
    let counts = Counts::new(&bins);
    FieldBaseline::new(name, bins, counts, 1.5, 0.125).unwrap()
}

fn counted(values: &[f32]) -> Counts {
    let baseline = baseline("V1");
    let mut counts = Counts::new(baseline.bins());
    values
        .iter()
        .for_each(|value| assert!(counts.observe(&baseline, *value)));
    counts
}

fn window() -> Window {
    Window {
        slot: slot("pump"),
        release: package(2),
        baseline: package(2),
        started_at: UnixSecs(1_764_000_000),
        secs: 60,
        rows: 3,
        inputs: Fields::of([Some(counted(&[0.5, 1.5, 9.0])), None]).unwrap(),
        outputs: Fields::of([Some(counted(&[2.5, 2.5]))]).unwrap(),
        errors: ErrorCounts {
            deadline: 1,
            ..ErrorCounts::default()
        },
        rows_nonfinite: 0,
        latency: Some(Latency {
            answers: 2,
            us_p50: 90,
            us_p99: 400,
            us_max: 400,
        }),
    }
}

fn slot_assignment(name: &str) -> SlotAssignment {
    SlotAssignment {
        slot: slot(name),
        desired: Desired::Serve {
            release: package(2),
            length: 123_456,
        },
        also_baseline: Some(package(1)),
        trial: TrialLimits {
            secs_min: 60,
            rows_min: 100,
            secs_max: 3_600,
            error_share_max_ppm: 10_000,
            nonfinite_share_max_ppm: 0,
            worker_deaths_max: 1,
            latency_us_p99_max: Some(20_000),
            shadow: Some(ShadowLimits {
                secs_min: 600,
                rows_min: 500,
                disagree_share_max_ppm: 50_000,
            }),
            drift: Some(DriftLimits {
                rows_min: 1_000,
                psi_max_milli: 250,
                outside_rise_max_ppm: 50_000,
            }),
        },
        rollout: Some(RolloutId(7)),
        ordered_back: false,
        treated: Some(true),
    }
}

fn assignment() -> Assignment {
    let off = SlotAssignment {
        desired: Desired::Disable {
            reason: Note::new("recalled"),
        },
        also_baseline: None,
        rollout: None,
        treated: None,
        ..slot_assignment("fan")
    };
    Assignment {
        root: RootId(Digest([9; 32])),
        device: DeviceId::new("press-07").unwrap(),
        sequence: Sequence { epoch: 1, n: 42 },
        issued_at: UnixSecs(1_764_000_000),
        expires_at: UnixSecs(1_766_592_000),
        slots: heapless::Vec::from_slice(&[slot_assignment("pump"), off]).unwrap(),
    }
}

fn report(record: Record) -> Report {
    Report {
        boot: BootId(0x1234_5678_9abc_def0),
        seq: 5,
        at: UnixSecs(1_764_000_060),
        record,
    }
}

fn outcome(kind: OutcomeKind) -> Report {
    report(Record::Outcome(Outcome {
        slot: slot("pump"),
        release: Some(package(3)),
        sequence: Sequence { epoch: 1, n: 42 },
        rollout: Some(RolloutId(7)),
        kind,
        serving: Some(package(1)),
    }))
}

/// A device that has everything, after a year.
fn health() -> Health {
    Health {
        agent_version: Some("0.1.0".parse().unwrap()),
        uptime_secs: 365 * 86_400,
        clock: ClockState::Plausible,
        clock_offset_secs: Some(-2),
        cpu_permille: Some(125),
        load_centi: Some(142),
        memory: Some(Room {
            kib: 1_926_392,
            kib_free: 1_104_000,
        }),
        disk: Some(Room {
            kib: 30_000_000,
            kib_free: 21_000_000,
        }),
        temperature_centi_c: Some(4_850),
        network: Some(Network {
            link: LinkKind::Cellular,
            signal_dbm: Some(-71),
            received_kib: 90_000_000,
            sent_kib: 14_000_000,
            errors: 12,
        }),
        battery: Some(Battery {
            percent: 87,
            state: BatteryState::Discharging,
        }),
        agent_kib: Some(7_300),
        served: Some(Served {
            rows: 300_000,
            rows_failed: 3,
            rows_nonfinite: 0,
            latency_us_p99: Some(18_000),
            worker_deaths: 1,
            workers_kib: Some(21_000),
        }),
        last_outcome: Some(LastOutcome {
            word: OutcomeWord::Committed,
            secs_ago: 2_000_000,
        }),
    }
}

fn brief_health() -> BriefHealth {
    BriefHealth {
        cpu_permille: Some(125),
        memory_bytes_used: Some(70_000_000),
        memory_bytes: Some(512_000_000),
        disk_bytes_free: None,
        disk_bytes: None,
        temperature_centi_c: Some(-512),
        load_centi: Some(42),
        uptime_secs: 86_400,
        agent_version: "0.1.0".try_into().unwrap(),
        clock: ClockState::Plausible,
    }
}

fn labels(tally: Tally) -> Report {
    report(Record::Labels(Labels {
        slot: slot("pump"),
        release: package(2),
        field: 3,
        started_at: UnixSecs(1_764_000_000),
        secs: 300,
        tally,
    }))
}

fn next_report() -> Report {
    Report {
        seq: 6,
        ..report(Record::Window(window()))
    }
}

fn bundle() -> Bundle {
    let (first, second) = (report(Record::Health(health())), next_report());
    Bundle {
        boot: first.boot,
        reports: vec![
            (first.seq, first.at, first.record),
            (second.seq, second.at, second.record),
        ],
    }
}

fn confusion() -> Confusion {
    let mut confusion = Confusion::new(2);
    confusion.count(0, Some(0));
    confusion.count(1, Some(0));
    confusion.count(1, None);
    confusion
}

fn status() -> Status {
    Status {
        slot: slot("pump"),
        phase: Phase::TrialHeld,
        serving: Some(package(2)),
        candidate: Some(package(2)),
        previous: Some(package(1)),
        floor: Sequence { epoch: 1, n: 41 },
        rollout: Some(RolloutId(7)),
    }
}

/// Compares with the committed bytes, and reads them back.
fn holds<M: Message + PartialEq + std::fmt::Debug>(name: &str, message: &M) {
    let bytes = to_vec(message).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.hex"));
    if !path.exists() && std::env::var_os("BELLWETHER_WRITE_VECTORS").is_some() {
        fs::write(&path, format!("{hex}\n")).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        committed.trim(),
        hex,
        "{name}: devices in the field speak the committed bytes"
    );
    assert_eq!(decode::<M>(&bytes).unwrap(), *message);
    let mut buffer = [0; 4_096];
    assert_eq!(
        encode(message, &mut buffer).unwrap(),
        bytes,
        "with and without a heap alike"
    );
}

#[test]
fn committed_bytes_are_what_is_sent() {
    holds("assignment", &assignment());
    holds(
        "ack",
        &Ack {
            boot: BootId(0x1234_5678_9abc_def0),
            seqs: heapless::Vec::from_slice(&[5, 6, 300]).unwrap(),
        },
    );
    holds(
        "documents",
        &Documents {
            root_version: 3,
            revocations_version: Some(300),
        },
    );
    holds("report-packed-window", &report(Record::Window(window())));
    holds(
        "report-packed-window-also",
        &report(Record::Window(Window {
            baseline: package(1),
            outputs: Fields::new(),
            ..window()
        })),
    );
    holds("bundle", &bundle());
    holds("report-health", &report(Record::Health(health())));
    let brief = Record::BriefHealth(brief_health());
    holds("report-health-brief", &report(brief));
    holds("report-status", &report(Record::Status(status())));
    holds(
        "report-labels-classes",
        &labels(Tally::Classes(confusion())),
    );
    let mut errors = Errors::NONE;
    errors.count(1.5, 1.0);
    holds("report-labels-numbers", &labels(Tally::Numbers(errors)));
    holds(
        "outcome-refused",
        &outcome(OutcomeKind::Refused(Refusal::NotApproved {
            persons: 1,
            threshold: 2,
        })),
    );
    holds(
        "outcome-golden",
        &outcome(OutcomeKind::FailedBeforeServing(
            ProofFailure::GoldenMismatch {
                case: 3,
                difference: 0.8125,
                tolerance: 0.0001,
            },
        )),
    );
    holds("outcome-committed", &outcome(OutcomeKind::Committed));
    holds(
        "outcome-rolled-back-itself",
        &outcome(OutcomeKind::RolledBackItself(TrialFailure::WorkerDeaths {
            deaths: 2,
            deaths_max: 1,
            last: WorkerDeath::Faulted { signal: 11 },
        })),
    );
    holds(
        "outcome-rolled-back-by-order",
        &outcome(OutcomeKind::RolledBackByOrder),
    );
    holds(
        "outcome-disabled",
        &outcome(OutcomeKind::Disabled(Note::new("recalled"))),
    );
    holds(
        "outcome-unable",
        &outcome(OutcomeKind::UnableToRollBack(TrialFailure::Latency {
            us_p99: 30_000,
            us_p99_max: 20_000,
        })),
    );
    holds(
        "outcome-shadowed",
        &outcome(OutcomeKind::FailedBeforeServing(ProofFailure::Shadowed(
            TrialFailure::Disagrees {
                rows_disagreeing: 90,
                rows: 500,
                share_max_ppm: 50_000,
            },
        ))),
    );
    holds(
        "outcome-drift",
        &outcome(OutcomeKind::RolledBackItself(TrialFailure::OutputDrift {
            field: 1,
            psi_milli: 1_250,
            outside_rise_ppm: 10_000,
            values: 2_000,
        })),
    );
    holds(
        "outcome-server-not-reached",
        &outcome(OutcomeKind::RolledBackItself(
            TrialFailure::ServerNotReached { secs: 600 },
        )),
    );
    holds(
        "outcome-program-ended",
        &outcome(OutcomeKind::RolledBackItself(TrialFailure::ProgramEnded {
            starts: 3,
            last: WorkerDeath::Hung,
        })),
    );
    holds(
        "outcome-nonfinite-since",
        &outcome(OutcomeKind::RolledBackItself(
            TrialFailure::NonfiniteSince {
                rows_nonfinite: 20,
                rows: 1_129,
                share_max_ppm: 10_000,
            },
        )),
    );
    holds(
        "outcome-not-offered",
        &outcome(OutcomeKind::Refused(Refusal::NotOffered { status: 404 })),
    );
    holds(
        "outcome-lost",
        &outcome(OutcomeKind::Lost(Refusal::Revoked)),
    );
}

/// What devices sent at first, and have in their outboxes.
#[test]
fn windows_as_they_were_at_first_are_read_still() {
    let hex = include_str!("vectors/report-window.hex").trim();
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let read: Report = decode(&bytes).unwrap();
    assert_eq!(read, report(Record::Window(window())));
    assert_eq!(Bundle::open(&bytes).unwrap(), [read]);
}

#[test]
fn a_bundle_holds_its_reports_in_order_and_no_more_than_its_bound() {
    let bundle = bundle();
    let read = Bundle::open(&to_vec(&bundle).unwrap()).unwrap();
    assert_eq!(read, [report(Record::Health(health())), next_report()]);
    let one = (1, UnixSecs(1), Record::Status(status()));
    let long = Bundle {
        reports: vec![one; bundle::REPORTS_MAX + 1],
        ..bundle
    };
    assert!(Bundle::open(&to_vec(&long).unwrap()).is_err());
}

/// The last variant of each enum: a variant put before it moves its number.
#[test]
fn the_last_variant_of_each_enum_keeps_its_number() {
    let last = |kind| {
        *to_vec(&outcome(kind))
            .unwrap()
            .iter()
            .rev()
            .nth(33)
            .unwrap()
    };
    assert_eq!(last(OutcomeKind::Refused(Refusal::Other)), 16);
    assert_eq!(
        last(OutcomeKind::FailedBeforeServing(ProofFailure::Other)),
        7
    );
    let died = OutcomeKind::FailedBeforeServing(ProofFailure::WorkerDied(WorkerDeath::Other));
    assert_eq!(last(died), 5);
    let gone = OutcomeKind::Lost(Refusal::Damaged);
    assert_eq!(last(gone), 3);
}

#[test]
fn the_longest_assignment_fits_its_packet() {
    let mut longest = assignment();
    longest.device = DeviceId::new(&"d".repeat(48)).unwrap();
    longest.sequence = Sequence {
        epoch: u32::MAX,
        n: u64::MAX,
    };
    longest.slots.clear();
    for place in 0..SLOTS_MAX {
        let reason = Note::new(&"r".repeat(500));
        let most = u32::MAX;
        let slot = SlotAssignment {
            desired: Desired::Disable { reason },
            rollout: Some(RolloutId(u64::MAX)),
            trial: TrialLimits {
                secs_min: most,
                rows_min: most,
                secs_max: most,
                error_share_max_ppm: most,
                nonfinite_share_max_ppm: most,
                worker_deaths_max: most,
                latency_us_p99_max: Some(most),
                shadow: Some(ShadowLimits {
                    secs_min: most,
                    rows_min: most,
                    disagree_share_max_ppm: most,
                }),
                drift: Some(DriftLimits {
                    rows_min: most,
                    psi_max_milli: most,
                    outside_rise_max_ppm: most,
                }),
            },
            ..slot_assignment(&format!("{}{place}", "s".repeat(31)))
        };
        longest.slots.push(slot).unwrap();
    }
    let payload = to_vec(&longest).unwrap();
    let keys = [
        SigningKey::from_bytes(&[1; 32]),
        SigningKey::from_bytes(&[2; 32]),
    ];
    let signed = SignedBuf::sign(DocumentType::Assignment, payload, &[&keys[0], &keys[1]]);
    assert!(signed.encode().unwrap().len() <= SIGNED_ASSIGNMENT_BYTES_MAX);
}

#[test]
fn a_report_of_the_most_fields_that_are_usual_fits() {
    let field = || Some(counted(&[0.5, 1.5, 2.5, -7.0, 9.0]));
    let window = Window {
        inputs: Fields::of((0..200).map(|_| field())).unwrap(),
        ..window()
    };
    assert!(to_vec(&report(Record::Window(window))).is_ok());
}

#[test]
fn more_fields_than_the_bound_are_refused() {
    let fields = (0..=window::FIELDS_MAX).map(|_| None);
    assert!(Fields::of(fields).is_err());
}

#[test]
fn a_device_that_has_everything_tells_its_health_in_few_bytes() {
    let bytes = |health: Health| {
        let whole = to_vec(&report(Record::Health(health))).unwrap().len();
        whole
            - to_vec(&report(Record::Health(Health::default())))
                .unwrap()
                .len()
    };
    assert!(bytes(health()) <= 64, "{}", bytes(health()));
    assert_eq!(bytes(Health::default()), 0);
}

#[test]
fn what_older_agents_tell_of_health_is_understood() {
    let health = Health::from(&brief_health());
    let memory = health.memory.unwrap();
    assert_eq!((memory.kib, memory.kib_used()), (500_000, 68_360));
    assert_eq!(health.agent_version, Some("0.1.0".parse().unwrap()));
    assert_eq!(
        (health.disk, health.temperature_centi_c),
        (None, Some(-512))
    );
}

#[test]
fn other_versions_trailing_bytes_and_long_messages_are_refused() {
    let mut bytes = to_vec(&report(Record::Health(health()))).unwrap();
    bytes.push(0);
    assert!(decode::<Report>(&bytes).is_err());
    bytes.pop();
    bytes[0] = 2;
    let error = decode::<Report>(&bytes).unwrap_err();
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("version 2")
    );
    assert!(decode::<Report>(&vec![1; Report::BYTES_MAX + 1]).is_err());
    assert!(decode::<Ack>(&[]).is_err());
}

struct Bench {
    director: SigningKey,
    keys: [PublicKey; 1],
    device: DeviceId,
}

impl Bench {
    fn new() -> Self {
        let director = SigningKey::from_bytes(&[7; 32]);
        let keys = [PublicKey(director.verifying_key().to_bytes())];
        Self {
            director,
            keys,
            device: DeviceId::new("press-07").unwrap(),
        }
    }

    fn signed(&self, assignment: &Assignment) -> Vec<u8> {
        let payload = to_vec(assignment).unwrap();
        let signed = SignedBuf::sign(DocumentType::Assignment, payload, &[&self.director]);
        signed.encode().unwrap()
    }

    fn open(&self, bytes: &[u8]) -> Result<Assignment, AssignmentError> {
        open_assignment(
            bytes,
            &Addressee {
                device: &self.device,
                root: RootId(Digest([9; 32])),
                root_version: 1,
                directors: &self.keys,
                now: Some(UnixSecs(1_764_000_100)),
            },
        )
    }
}

#[test]
fn an_assignment_is_obeyed_only_as_signed_and_addressed() {
    let bench = Bench::new();
    let good = assignment();
    assert_eq!(bench.open(&bench.signed(&good)).unwrap(), good);

    let changed = |change: fn(&mut Assignment)| {
        let mut changed = assignment();
        change(&mut changed);
        bench.open(&bench.signed(&changed)).unwrap_err()
    };
    let foreign = changed(|it| it.root = RootId(Digest([8; 32])));
    assert_eq!(foreign, AssignmentError::RootForeign);
    let foreign = changed(|it| it.device = DeviceId::new("press-08").unwrap());
    assert_eq!(foreign, AssignmentError::DeviceForeign);
    let epoch = changed(|it| it.sequence.epoch = 2);
    assert_eq!(
        epoch,
        AssignmentError::EpochDiffers {
            found: 2,
            expected: 1
        }
    );
    let expired = changed(|it| it.expires_at = UnixSecs(1_764_000_100));
    assert_eq!(
        expired,
        AssignmentError::Expired {
            expires_at: UnixSecs(1_764_000_100)
        }
    );
    let twice = changed(|it| it.slots[1].slot = it.slots[0].slot.clone());
    assert_eq!(twice, AssignmentError::SlotTwice);
}

#[test]
fn a_device_without_a_clock_takes_an_assignment_of_any_age() {
    let bench = Bench::new();
    let old = Assignment {
        expires_at: UnixSecs(1),
        ..assignment()
    };
    let to = Addressee {
        device: &bench.device,
        root: old.root,
        root_version: 1,
        directors: &bench.keys,
        now: None,
    };
    assert!(open_assignment(&bench.signed(&old), &to).is_ok());
}

#[test]
fn a_signature_by_another_key_or_for_another_document_is_refused() {
    let bench = Bench::new();
    let payload = to_vec(&assignment()).unwrap();
    let thief = SigningKey::from_bytes(&[6; 32]);
    let stolen = SignedBuf::sign(DocumentType::Assignment, payload.clone(), &[&thief]);
    assert_eq!(
        bench.open(&stolen.encode().unwrap()),
        Err(AssignmentError::NotSigned)
    );
    let approval = SignedBuf::sign(DocumentType::Approval, payload.clone(), &[&bench.director]);
    assert_eq!(
        bench.open(&approval.encode().unwrap()),
        Err(AssignmentError::NotSigned)
    );
    let unsigned = SignedBuf::unsigned(payload);
    assert_eq!(
        bench.open(&unsigned.encode().unwrap()),
        Err(AssignmentError::NotSigned)
    );
}

/// What a window is held against: two inputs, one output.
fn checked(change: impl FnOnce(&mut Window)) -> Result<(), Impossible> {
    let inputs = [baseline("V1"), baseline("V2")];
    let outputs = [baseline("score")];
    let expected = Expected {
        inputs: &inputs,
        outputs: &outputs,
        values_per_row_max: 1,
        rows_per_sec_max: 10,
    };
    let mut window = window();
    change(&mut window);
    window.check(&expected)
}

#[test]
fn a_true_window_passes() {
    assert_eq!(checked(|_| ()), Ok(()));
    let reference = checked(|it| {
        it.baseline = package(1);
        it.outputs = Fields::new();
    });
    assert_eq!(
        reference,
        Ok(()),
        "under another baseline outputs do not count"
    );
}

#[test]
fn impossible_windows_are_told_apart() {
    assert!(matches!(
        checked(|it| it.secs = 100_000),
        Err(Impossible::TooLong { .. })
    ));
    let rows = checked(|it| it.rows = 601);
    assert_eq!(
        rows,
        Err(Impossible::TooManyRows {
            rows: 601,
            rows_max: 600
        })
    );
    let counts = checked(|it| it.rows = 2);
    assert!(matches!(
        counts,
        Err(Impossible::Counts {
            direction: "input",
            field: 0,
            ..
        })
    ));
    let fields = checked(|it| it.outputs = Fields::new());
    assert!(matches!(
        fields,
        Err(Impossible::FieldsDiffer {
            direction: "output",
            ..
        })
    ));
    let failures = checked(|it| it.rows_nonfinite = 3);
    assert_eq!(
        failures,
        Err(Impossible::TooManyFailures { found: 4, rows: 3 })
    );
    let latency = checked(|it| {
        it.latency = Some(Latency {
            answers: 2,
            us_p50: 9,
            us_p99: 8,
            us_max: 9,
        });
    });
    assert_eq!(latency, Err(Impossible::Latency));
    let bins = Counts::from_parts(&[1, 1], [0; bellwether_drift::counts::SPECIALS], None);
    let bins = checked(|it| it.inputs = Fields::of([bins, None]).unwrap());
    assert!(matches!(bins, Err(Impossible::Counts { .. })));
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for version in [1, 2] {
            let versioned: Vec<u8> = std::iter::once(version).chain(bytes.iter().copied()).collect();
            let _ = Bundle::open(&versioned);
            let _ = decode::<Assignment>(&versioned);
            let _ = decode::<Ack>(&versioned);
        }
        let _ = Bench::new().open(&bytes);
    }

    #[test]
    fn a_report_with_a_changed_byte_decodes_to_something_valid_or_not_at_all(
        place in 0_usize..1_000, flip in 1_u8..=255
    ) {
        let mut bytes = to_vec(&report(Record::Window(window()))).unwrap();
        let place = place % bytes.len();
        bytes[place] ^= flip;
        if let Ok(report) = decode::<Report>(&bytes)
            && let Record::Window(window) = report.record
        {
            let _ = checked(|it| *it = window);
        }
    }

    #[test]
    fn an_assignment_with_a_changed_byte_is_not_obeyed(place in 0_usize..1_000, flip in 1_u8..=255) {
        let bench = Bench::new();
        let mut bytes = bench.signed(&assignment());
        let place = place % bytes.len();
        bytes[place] ^= flip;
        prop_assert!(bench.open(&bytes).is_err());
    }

    #[test]
    fn any_text_makes_a_note(text in ".{0,300}") {
        let note = Note::new(&text);
        prop_assert!(note.as_str().len() <= note::NOTE_BYTES_MAX);
        prop_assert!(!note.as_str().chars().any(char::is_control));
    }
}

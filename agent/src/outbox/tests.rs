use bellwether_package::{PackageId, SlotName};
use bellwether_protocol::{Fields, Health, Outcome, OutcomeKind, Sequence, Window};

use super::*;

fn health() -> Record {
    Record::Health(Health::default())
}

fn outcome() -> Record {
    Record::Outcome(Outcome {
        slot: SlotName::new("anomaly").unwrap(),
        release: Some(PackageId(bellwether_package::digest::sha256(b"release"))),
        sequence: Sequence { epoch: 1, n: 7 },
        rollout: None,
        kind: OutcomeKind::Committed,
        serving: None,
    })
}

fn window() -> Record {
    Record::Window(Window {
        slot: SlotName::new("a").unwrap(),
        release: PackageId(bellwether_package::digest::sha256(b"release")),
        baseline: PackageId(bellwether_package::digest::sha256(b"release")),
        started_at: UnixSecs(1),
        secs: 1,
        rows: 0,
        inputs: Fields::default(),
        outputs: Fields::default(),
        errors: Default::default(),
        rows_nonfinite: 0,
        latency: None,
    })
}

fn open(folder: &Path, boot: u64) -> Outbox {
    Outbox::open(folder, BootId(boot)).unwrap()
}

fn ack(boot: u64, seqs: &[u64]) -> Ack {
    Ack {
        boot: BootId(boot),
        seqs: seqs.iter().copied().collect(),
    }
}

fn key(bytes: &[u8]) -> (u64, u64) {
    let report: Report = decode(bytes).unwrap();
    (report.boot.0, report.seq)
}

#[test]
fn a_record_stays_until_the_server_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.push(health(), UnixSecs(1)).unwrap();
    outbox.push(outcome(), UnixSecs(2)).unwrap();
    let now = Instant::now();
    let sent: Vec<_> = outbox.due(now, 8).iter().map(|bytes| key(bytes)).collect();
    assert_eq!(sent, [(1, 2), (1, 1)], "outcomes first");
    assert!(outbox.due(now, 8).is_empty(), "not twice on one link");
    outbox.link_lost();
    assert_eq!(outbox.due(now, 8).len(), 2, "again after the link was lost");
    assert_eq!(
        outbox.due(now + RESEND_AFTER, 8).len(),
        2,
        "again without acknowledgement"
    );
    assert_eq!(
        outbox.acknowledge(&ack(2, &[1, 2])),
        0,
        "another boot's acknowledgement"
    );
    assert_eq!(outbox.acknowledge(&ack(1, &[2, 9])), 1);
    assert_eq!(outbox.len(), 1);
}

#[test]
fn records_of_an_earlier_boot_survive_it() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), 1).push(outcome(), UnixSecs(1)).unwrap();
    let mut outbox = open(folder.path(), 2);
    outbox.push(outcome(), UnixSecs(2)).unwrap();
    let sent: Vec<_> = outbox
        .due(Instant::now(), 8)
        .iter()
        .map(|bytes| key(bytes))
        .collect();
    assert_eq!(sent, [(1, 1), (2, 1)]);
    outbox.acknowledge(&ack(1, &[1]));
    outbox.acknowledge(&ack(2, &[1]));
    assert!(open(folder.path(), 3).is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_full_box_gives_up_health_and_never_outcomes() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.records_max = 3;
    outbox.push(health(), UnixSecs(1)).unwrap();
    for n in 0..3 {
        outbox.push(outcome(), UnixSecs(n)).unwrap();
    }
    assert_eq!(outbox.len(), 3);
    assert!(matches!(
        outbox.push(health(), UnixSecs(9)),
        Err(OutboxError::Full)
    ));
    assert!(
        outbox
            .entries
            .values()
            .all(|entry| entry.kind == Kind::Outcome)
    );
}

#[test]
fn damaged_and_foreign_files_are_removed_and_never_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.push(outcome(), UnixSecs(1)).unwrap();
    let path = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(&path, b"torn").unwrap();
    std::fs::write(folder.path().join("0-0-0-o.tmp"), b"left by a crash").unwrap();
    let mut outbox = open(folder.path(), 2);
    assert!(outbox.due(Instant::now(), 8).is_empty());
    assert!(outbox.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn outcomes_and_windows_that_the_disk_refuses_are_kept_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    let moved = folder.path().with_extension("moved");
    std::fs::rename(folder.path(), &moved).unwrap();
    outbox.push(outcome(), UnixSecs(1)).unwrap();
    assert!(outbox.push(health(), UnixSecs(1)).is_err());
    assert_eq!(outbox.due(Instant::now(), 8).len(), 1);
    std::fs::rename(&moved, folder.path()).unwrap();
    outbox.save_unsaved();
    assert_eq!(open(folder.path(), 2).len(), 1);

    std::fs::rename(folder.path(), &moved).unwrap();
    let kept = (0..UNSAVED_MAX)
        .take_while(|_| outbox.push(window(), UnixSecs(2)).is_ok())
        .count();
    assert_eq!(kept, UNSAVED_MAX - UNSAVED_FOR_OUTCOMES);
    outbox.push(outcome(), UnixSecs(3)).unwrap();
}

fn told() -> Outcome {
    let Record::Outcome(outcome) = outcome() else {
        unreachable!("it is one")
    };
    outcome
}

#[test]
fn an_outcome_that_its_machine_remembers_over_a_boot_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.hold(told(), UnixSecs(1)).unwrap();
    // The server has it, and then the power goes before the machine has forgotten it.
    assert_eq!(outbox.acknowledge(&ack(1, &[1])), 1);
    assert!(outbox.due(Instant::now(), 8).is_empty(), "it is stored");
    drop(outbox);

    let mut outbox = open(folder.path(), 2);
    outbox.hold(told(), UnixSecs(2)).unwrap();
    let slot = told().slot;
    outbox.let_go(&slot);
    let sent: Vec<_> = outbox
        .due(Instant::now(), 8)
        .iter()
        .map(|it| key(it))
        .collect();
    assert_eq!(sent, [(1, 1)], "under the name that it had");
    outbox.acknowledge(&ack(1, &[1]));
    assert!(outbox.is_empty());
    // Another outcome of this boot may say the same.
    outbox.hold(told(), UnixSecs(3)).unwrap();
    outbox.hold(told(), UnixSecs(4)).unwrap();
    assert_eq!(outbox.len(), 2);
}

#[test]
fn an_acknowledged_outcome_goes_when_its_machine_has_forgotten_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.hold(told(), UnixSecs(1)).unwrap();
    outbox.acknowledge(&ack(1, &[1]));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    outbox.let_go(&told().slot);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_machine_may_not_forget_an_outcome_that_the_disk_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    let slot = told().slot;
    let away = folder.path().with_extension("away");
    std::fs::rename(folder.path(), &away).unwrap();
    outbox.hold(told(), UnixSecs(1)).unwrap();
    assert!(!outbox.is_safe(&slot), "it is in memory alone");
    assert!(outbox.save_unsaved().is_empty());
    std::fs::rename(&away, folder.path()).unwrap();
    assert_eq!(outbox.save_unsaved(), std::slice::from_ref(&slot));
    assert!(outbox.is_safe(&slot));
}

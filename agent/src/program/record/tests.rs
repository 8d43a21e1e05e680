//! The launcher's decisions, and power failures between any two of its writes.

use super::*;

fn program(tag: u8) -> Program {
    Program {
        release: PackageId(Digest([tag; 32])),
        agent: Digest([tag; 32]),
        worker: Digest([tag; 32]),
    }
}

fn release(tag: u8) -> Option<PackageId> {
    Some(program(tag).release)
}

fn started(tag: u8) -> Started {
    Started::new(program(tag), 60)
}

fn record(good: Option<u8>, candidate: Option<u8>) -> Record {
    Record {
        good: good.map(started),
        candidate: candidate.map(started),
        ..Record::default()
    }
}

fn all(_: &Program) -> bool {
    true
}

#[test]
fn without_a_record_the_installed_program_runs() {
    let mut none = Record::default();
    assert_eq!(none.next(None, all), Next::Run);
    assert_eq!(none.next(release(1), all), Next::BecomeInstalled);
    assert_eq!(none, Record::default());
}

#[test]
fn the_installed_program_becomes_the_good_one_which_then_runs() {
    let mut record = record(Some(1), None);
    assert_eq!(record.next(None, all), Next::Become(program(1)));
    let counted = record.clone();
    assert_eq!(record.next(release(1), all), Next::Run);
    assert_eq!(record, counted, "a start is counted once");
    assert!(record.well(program(1).release));
    assert!(!record.well(program(1).release), "no news");
}

#[test]
fn a_candidate_gets_few_starts_and_then_the_good_one_runs_and_tells() {
    for (good, me, then) in [
        (None, None, Next::Run),
        (Some(1), release(1), Next::Run),
        (Some(1), None, Next::Become(program(1))),
        (None, release(9), Next::BecomeInstalled),
    ] {
        let mut record = record(good, Some(2));
        for starts in 1..=STARTS_MAX {
            let Next::Try(candidate) = record.next(me, all) else {
                panic!("start {starts}");
            };
            assert_eq!((candidate.program, candidate.starts), (program(2), starts));
        }
        assert_eq!(record.next(me, all), then);
        let ended = Ended {
            release: program(2).release,
            starts: STARTS_MAX,
            last: Some(WorkerDeath::Other),
        };
        assert_eq!(record.ended, [ended]);
        assert_eq!(record.candidate, None);
    }
}

#[test]
fn a_candidate_that_hung_is_not_started_again() {
    let mut record = record(None, Some(2));
    assert!(matches!(record.next(None, all), Next::Try(_)));
    record.died(program(2).release, WorkerDeath::Hung);
    assert_eq!(record.next(None, all), Next::Run);
    let ended = record.ended[0];
    assert_eq!((ended.starts, ended.last), (1, Some(WorkerDeath::Hung)));
}

#[test]
fn how_a_candidate_ended_is_told_and_another_ones_end_is_not_mixed_in() {
    let mut record = record(None, Some(2));
    record.died(program(3).release, WorkerDeath::Hung);
    assert_eq!(record.candidate, Some(started(2)));
    record.died(program(2).release, WorkerDeath::Faulted { signal: 11 });
    for _ in 0..STARTS_MAX {
        assert!(matches!(record.next(None, all), Next::Try(_)));
    }
    record.next(None, all);
    let last = Some(WorkerDeath::Faulted { signal: 11 });
    assert_eq!(record.ended[0].last, last);
}

#[test]
fn files_that_are_not_what_was_signed_are_never_started() {
    let damaged = |program: &Program| program.release != PackageId(Digest([2; 32]));
    let mut record = record(Some(1), Some(2));
    assert_eq!(record.next(None, damaged), Next::Become(program(1)));
    assert_eq!(record.ended[0].last, None);
    let mut record = Record {
        good: Some(started(2)),
        previous: Some(program(1)),
        ..Record::default()
    };
    assert_eq!(record.next(None, damaged), Next::Become(program(1)));
    let mut record = Record {
        good: Some(started(2)),
        ..Record::default()
    };
    assert_eq!(record.next(None, damaged), Next::Run);
    assert_eq!(record.ended.len(), 1);
}

#[test]
fn a_good_program_that_never_gets_well_gives_way_to_the_one_before_and_then_to_the_installed() {
    let mut record = Record {
        good: Some(started(2)),
        previous: Some(program(1)),
        ..Record::default()
    };
    for expected in [2, 2, 2, 1, 1, 1] {
        assert_eq!(record.next(None, all), Next::Become(program(expected)));
    }
    assert_eq!(record.next(None, all), Next::Run);
    let given_up: Vec<PackageId> = record.ended.iter().map(|it| it.release).collect();
    assert_eq!(given_up, [program(2).release, program(1).release]);
}

#[test]
fn a_commit_keeps_the_copy_before_and_is_news_once() {
    let mut record = record(Some(1), Some(2));
    assert!(record.commit(program(2)));
    assert_eq!(record.good, Some(Started::new(program(2), 0)));
    assert_eq!(record.previous, Some(program(1)));
    assert!(!record.commit(program(2)));
    assert!(record.commit_installed());
    assert_eq!(record, Record::default());
    assert!(!record.commit_installed());
}

/// A fault between any write and what it was for: whatever is on disk, a bounded number of starts
/// later something runs that is not the candidate.
#[test]
fn from_any_record_a_bounded_number_of_failing_starts_ends_on_the_installed_program() {
    for good in [None, Some(1)] {
        for previous in [None, Some(3)] {
            for candidate in [None, Some(2)] {
                for starts in 0..=STARTS_MAX + 1 {
                    let mut record = record(good, candidate);
                    record.previous = previous.map(program);
                    for started in record.good.iter_mut().chain(&mut record.candidate) {
                        started.starts = starts;
                    }
                    let bound = 3 * STARTS_MAX + 1;
                    let runs = (0..bound).find(|_| record.next(None, all) == Next::Run);
                    assert!(runs.is_some(), "{record:?}");
                    assert!(record.ended.len() <= ENDED_MAX);
                }
            }
        }
    }
}

#[test]
fn a_record_of_a_newer_program_is_read_and_a_damaged_one_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::reader(folder.path());
    let mut record = record(Some(1), Some(2));
    record.save(&store).unwrap();
    assert_eq!(Record::load(&store), record);
    let mut newer = serde_json::to_value(&record).unwrap();
    newer["weather"] = "fair".into();
    newer["good"]["colour"] = 3.into();
    store.put(FILE, newer.to_string().as_bytes()).unwrap();
    assert_eq!(Record::load(&store), record);
    record = Record::default();
    store.put(FILE, b"{").unwrap();
    assert_eq!(Record::load(&store), record);
    std::fs::write(folder.path().join(FILE), "torn").unwrap();
    std::fs::write(folder.path().join(format!("{FILE}.prev")), "torn").unwrap();
    assert_eq!(Record::load(&store), record);
}

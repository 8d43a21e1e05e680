use std::time::Duration;

use bellwether_package::{PackageId, SlotName};
use bellwether_protocol::{Bundle, Fields, Health, Outcome, OutcomeKind, Sequence, Window};
use proptest::prelude::*;

use super::sending::{LINGER, RESEND_AFTER};
use super::*;
use crate::link::Sending;

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

/// A window of one row and one second.
fn window(started_at: u64) -> Record {
    window_of(b"release", started_at)
}

fn window_of(release: &[u8], started_at: u64) -> Record {
    let release = PackageId(bellwether_package::digest::sha256(release));
    Record::Window(Window {
        slot: SlotName::new("a").unwrap(),
        release,
        baseline: release,
        started_at: UnixSecs(started_at),
        secs: 1,
        rows: 1,
        inputs: Fields::default(),
        outputs: Fields::default(),
        errors: Default::default(),
        rows_nonfinite: 0,
        latency: None,
    })
}

/// Keys and rows of the windows that wait, oldest first.
fn rows(outbox: &Outbox) -> Vec<((u64, u64), u32)> {
    let reports = outbox
        .entries
        .iter()
        .map(|(order, entry)| entry.read(&outbox.folder, *order).unwrap().unwrap());
    let of = |report: Report| match report.record {
        Record::Window(window) => Some(((report.boot.0, report.seq), window.rows)),
        _ => None,
    };
    reports.filter_map(of).collect()
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

/// The keys of the records in these messages.
fn keys(messages: &[Sending]) -> Vec<(u64, u64)> {
    let reports = messages
        .iter()
        .flat_map(|it| Bundle::open(&it.payload).unwrap());
    reports.map(|it| (it.boot.0, it.seq)).collect()
}

#[test]
fn a_record_stays_until_the_server_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.push(health(), UnixSecs(1)).unwrap();
    outbox.push(outcome(), UnixSecs(2)).unwrap();
    let now = Instant::now();
    let sent = outbox.due(now, 8);
    assert_eq!(sent.len(), 1, "in one message");
    assert_eq!(keys(&sent), [(1, 2), (1, 1)], "outcomes first");
    assert!(!sent[0].again);
    assert!(outbox.due(now, 8).is_empty(), "not twice on one link");
    outbox.link_lost();
    let again = outbox.due(now, 8);
    assert_eq!(
        keys(&again),
        keys(&sent),
        "again after the link was lost, and it says so"
    );
    assert!(again[0].again);
    let later = now + RESEND_AFTER;
    assert!(
        outbox.due(later, 8).is_empty(),
        "the pause doubles each time"
    );
    assert_eq!(keys(&outbox.due(later + RESEND_AFTER, 8)), keys(&sent));
    assert_eq!(
        outbox.acknowledge(&ack(2, &[1, 2])),
        0,
        "another boot's acknowledgement"
    );
    assert_eq!(outbox.acknowledge(&ack(1, &[2, 9])), 1);
    assert_eq!(outbox.len(), 1);
}

#[test]
fn health_waits_a_moment_for_company() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.push(health(), UnixSecs(1)).unwrap();
    let now = Instant::now();
    assert!(outbox.due(now, 8).is_empty());
    outbox.push(window(1), UnixSecs(1)).unwrap();
    let sent = outbox.due(now, 8);
    assert_eq!((sent.len(), keys(&sent).len()), (1, 2));
    outbox.push(health(), UnixSecs(2)).unwrap();
    assert!(outbox.due(now, 8).is_empty());
    assert_eq!(outbox.due(now + LINGER, 8).len(), 1, "alone in the end");
}

#[test]
fn a_device_that_was_alone_for_days_does_not_flood() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    for at in 0..200 {
        outbox.push(window(at), UnixSecs(at)).unwrap();
    }
    let mut now = Instant::now();
    let mut stored = 0;
    let mut rounds = 0;
    while !outbox.is_empty() {
        let sent = keys(&outbox.due(now, 64));
        assert!(sent.len() <= UNDERWAY_MAX);
        assert!(outbox.due(now, 64).is_empty(), "no more before an answer");
        let seqs: Vec<u64> = sent.iter().map(|(_, seq)| *seq).collect();
        stored += outbox.acknowledge(&ack(1, &seqs));
        now += Duration::from_millis(100);
        rounds += 1;
    }
    assert_eq!((stored, rounds), (200, 200_usize.div_ceil(UNDERWAY_MAX)));
}

#[test]
fn records_of_an_earlier_boot_survive_it() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), 1).push(outcome(), UnixSecs(1)).unwrap();
    let mut outbox = open(folder.path(), 2);
    outbox.push(outcome(), UnixSecs(2)).unwrap();
    assert_eq!(keys(&outbox.due(Instant::now(), 8)), [(1, 1), (2, 1)]);
    outbox.acknowledge(&ack(1, &[1]));
    outbox.acknowledge(&ack(2, &[1]));
    assert!(open(folder.path(), 3).is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn outcomes_are_never_refused_and_never_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.records_max = 3;
    outbox.push(health(), UnixSecs(1)).unwrap();
    for n in 0..5 {
        outbox.push(outcome(), UnixSecs(n)).unwrap();
    }
    for n in 0..4 {
        outbox.push(window(n), UnixSecs(n)).unwrap();
    }
    assert!(matches!(
        outbox.push(health(), UnixSecs(9)),
        Err(OutboxError::Full)
    ));
    outbox.push(outcome(), UnixSecs(10)).unwrap();
    let kinds = |kind| outbox.entries.values().filter(|it| it.kind == kind).count();
    assert_eq!(kinds(Kind::Outcome), 6);
    assert_eq!(kinds(Kind::Health), 0, "health goes first");
    assert!(kinds(Kind::Window) <= 3);
}

#[test]
fn windows_that_were_sent_are_never_merged() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.records_max = 4;
    for at in 0..4 {
        outbox.push(window(at), UnixSecs(at)).unwrap();
    }
    // The server may have these two, though it says nothing.
    assert_eq!(outbox.due(Instant::now(), 2).len(), 1);
    for boot in 2..4 {
        outbox.push(window(10 * boot), UnixSecs(99)).unwrap();
        assert_eq!(rows(&outbox)[..2], [((1, 1), 1), ((1, 2), 1)]);
        outbox = open(folder.path(), boot);
        outbox.records_max = 4;
    }
    let merged: u32 = rows(&outbox).iter().map(|(_, rows)| rows).sum();
    assert_eq!(merged, 6, "and nothing was lost");
}

#[test]
fn windows_of_different_boots_or_releases_stay_apart_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), 1).push(window(1), UnixSecs(1)).unwrap();
    let mut outbox = open(folder.path(), 2);
    outbox.records_max = 2;
    outbox.push(window_of(b"other", 2), UnixSecs(2)).unwrap();
    outbox.push(window(3), UnixSecs(3)).unwrap();
    assert_eq!(rows(&outbox), [((2, 1), 1), ((2, 2), 1)]);
}

#[test]
fn power_that_goes_within_a_merge_counts_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.push(window(1), UnixSecs(1)).unwrap();
    outbox.push(window(2), UnixSecs(2)).unwrap();
    let files = |folder: &Path| -> Vec<PathBuf> {
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    };
    let parts: Vec<(PathBuf, Vec<u8>)> = files(folder.path())
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    assert_eq!(outbox.thin(), 1);
    // Neither part was removed yet, or one of the two.
    for back in [vec![0, 1], vec![0], vec![1]] {
        for part in back {
            std::fs::write(&parts[part].0, &parts[part].1).unwrap();
        }
        let outbox = open(folder.path(), 2);
        assert_eq!(rows(&outbox).iter().map(|(_, rows)| rows).sum::<u32>(), 2);
        assert_eq!(files(folder.path()).len(), 1);
    }
}

#[test]
fn nothing_is_merged_while_a_file_cannot_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    for at in 0..4 {
        outbox.push(window(at), UnixSecs(at)).unwrap();
    }
    // A folder in a file's place cannot be removed as a file.
    let stuck = folder.path().join("stuck");
    std::fs::create_dir(&stuck).unwrap();
    outbox.leftovers.push(stuck.clone());
    assert_eq!(outbox.thin(), 0);
    std::fs::remove_dir(&stuck).unwrap();
    assert_eq!(outbox.thin(), 2);
}

#[test]
fn a_torn_outcome_has_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.push(outcome(), UnixSecs(1)).unwrap();
    let paths: Vec<PathBuf> = outbox.entries[&1].paths(folder.path(), 1).collect();
    assert_eq!(paths.len(), 2);
    for torn in &paths {
        let whole = std::fs::read(torn).unwrap();
        std::fs::write(torn, &whole[..whole.len() / 2]).unwrap();
        let mut outbox = open(folder.path(), 2);
        assert_eq!(keys(&outbox.due(Instant::now(), 8)), [(1, 1)]);
        std::fs::write(torn, whole).unwrap();
    }
    outbox.acknowledge(&ack(1, &[1]));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn records_of_an_earlier_build_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let report = Report {
        boot: BootId(7),
        seq: 3,
        at: UnixSecs(1),
        record: outcome(),
    };
    let name = format!("{:016x}-{}-{:016x}-o", 5, report.boot, report.seq);
    std::fs::write(folder.path().join(name), to_vec(&report).unwrap()).unwrap();
    let mut outbox = open(folder.path(), 8);
    assert_eq!(keys(&outbox.due(Instant::now(), 8)), [(7, 3)]);
}

#[test]
fn damaged_and_foreign_files_are_removed_and_never_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    outbox.push(outcome(), UnixSecs(1)).unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::write(file.unwrap().path(), b"torn").unwrap();
    }
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
    assert_eq!(keys(&outbox.due(Instant::now(), 8)).len(), 1);
    std::fs::rename(&moved, folder.path()).unwrap();
    outbox.save_unsaved();
    assert_eq!(open(folder.path(), 2).len(), 1);

    std::fs::rename(folder.path(), &moved).unwrap();
    let kept = (0..2 * UNSAVED_MAX as u64)
        .take_while(|at| outbox.push(window(*at), UnixSecs(2)).is_ok())
        .count();
    assert_eq!(kept, UNSAVED_MAX);
    for n in 0..100 {
        outbox.push(outcome(), UnixSecs(n)).unwrap();
    }
    std::fs::rename(&moved, folder.path()).unwrap();
    outbox.save_unsaved();
    assert_eq!(open(folder.path(), 2).len(), 1 + UNSAVED_MAX + 100);
}

#[derive(Debug, Clone)]
enum Step {
    Outcome,
    Window {
        release: u8,
    },
    Health,
    /// What is due is sent; the server stores the share of it that arrives, and answers or not.
    Send {
        arrives: usize,
        answers: bool,
    },
    LinkLost,
    Restart,
    /// The power goes, and removed files are back: the folder was not flushed since.
    PowerCut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Outcome),
        8 => (0_u8..2).prop_map(|release| Step::Window { release }),
        2 => Just(Step::Health),
        3 => (0_usize..6, any::<bool>())
            .prop_map(|(arrives, answers)| Step::Send { arrives, answers }),
        1 => Just(Step::LinkLost),
        1 => Just(Step::Restart),
        1 => Just(Step::PowerCut),
    ]
}

/// A device, and a server that stores each record once.
struct World {
    folder: tempfile::TempDir,
    outbox: Outbox,
    boot: u64,
    clock: u64,
    now: Instant,
    told: BTreeMap<(u64, u64), Report>,
    /// What the folder held when it was flushed last, as far as a power cut may bring it back.
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl World {
    fn new() -> Self {
        // In memory where that is possible: thousands of files are flushed.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let folder = folder.unwrap();
        let outbox = open(folder.path(), 1);
        let mut world = Self {
            folder,
            outbox,
            boot: 1,
            clock: 0,
            now: Instant::now(),
            told: BTreeMap::new(),
            before: BTreeMap::new(),
        };
        world.outbox.records_max = 8;
        world
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    }

    fn take(&mut self, step: Step) {
        self.clock += 1;
        let at = UnixSecs(self.clock);
        match step {
            Step::Outcome => self.push(outcome(), at),
            Step::Window { release } => self.push(window_of(&[release], self.clock), at),
            Step::Health => self.push(health(), at),
            Step::Send { arrives, answers } => self.send(arrives, answers),
            Step::LinkLost => self.outbox.link_lost(),
            Step::Restart => self.restart(),
            Step::PowerCut => {
                let gone = self.before.iter().filter(|(path, _)| !path.exists());
                gone.for_each(|(path, content)| std::fs::write(path, content).unwrap());
                self.restart();
            }
        }
    }

    fn push(&mut self, record: Record, at: UnixSecs) {
        let may_be_refused = matches!(record, Record::Health(_));
        let pushed = self.outbox.push(record, at);
        assert!(pushed.is_ok() || may_be_refused, "{pushed:?}");
        // Its own file was flushed, and with it whatever was removed.
        self.before.clear();
    }

    fn thin(&mut self) {
        self.before = self.files();
        self.outbox.thin();
    }

    fn send(&mut self, arrives: usize, answers: bool) {
        self.now += Duration::from_secs(2 * 3600);
        let due = self.outbox.due(self.now, 64);
        // That windows are sent was flushed; what is acknowledged now may come back.
        self.before = self.files();
        for sent in due {
            let reports = Bundle::open(&sent.payload).unwrap();
            let boot = reports[0].boot.0;
            let arrived: Vec<Report> = reports.into_iter().take(arrives).collect();
            let seqs: Vec<u64> = arrived.iter().map(|it| it.seq).collect();
            for report in arrived {
                self.told.entry((boot, report.seq)).or_insert(report);
            }
            if answers {
                self.outbox.acknowledge(&ack(boot, &seqs));
            }
        }
    }

    fn restart(&mut self) {
        self.boot += 1;
        self.outbox = open(self.folder.path(), self.boot);
        self.outbox.records_max = 8;
    }

    /// Outcomes and rows at the server once everything has arrived.
    fn settled(mut self) -> (usize, u64) {
        for _ in 0..64 {
            self.send(usize::MAX, true);
        }
        assert!(self.outbox.is_empty());
        let mut counted = (0, 0);
        for report in self.told.values() {
            match &report.record {
                Record::Outcome(_) => counted.0 += 1,
                Record::Window(window) => counted.1 += u64::from(window.rows),
                _ => {}
            }
        }
        counted
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_outcome_and_every_row_arrives_exactly_once(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let of = |wanted: fn(&Step) -> bool| steps.iter().filter(|it| wanted(it)).count();
        let outcomes = of(|it| matches!(it, Step::Outcome));
        let windows = of(|it| matches!(it, Step::Window { .. })) as u64;
        let mut world = World::new();
        // Merging loses nothing; what the next test does may, where nothing is left to merge.
        world.outbox.records_max = RECORDS_MAX;
        for step in steps {
            world.take(step);
            world.outbox.records_max = RECORDS_MAX;
            world.thin();
        }
        prop_assert_eq!(world.settled(), (outcomes, windows));
    }

    #[test]
    fn a_box_that_overflows_loses_no_outcome_and_counts_no_row_twice(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let outcomes = steps.iter().filter(|it| matches!(it, Step::Outcome)).count();
        let windows = steps.iter().filter(|it| matches!(it, Step::Window { .. })).count();
        let mut world = World::new();
        for step in steps {
            let makes_room = matches!(step, Step::Window { .. });
            world.take(step);
            let waiting = world.outbox.entries.values();
            let waiting = waiting.filter(|it| it.kind != Kind::Outcome).count();
            prop_assert!(!makes_room || waiting <= 8, "{}", waiting);
        }
        let (told, rows) = world.settled();
        prop_assert_eq!(told, outcomes);
        prop_assert!(rows <= windows as u64);
    }
}

#[test]
#[ignore = "writes some ten thousand files; half a minute on a disk"]
fn more_outcomes_than_the_box_has_records_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(folder.path(), 1);
    for n in 0..RECORDS_MAX as u64 + 10 {
        outbox.push(outcome(), UnixSecs(n)).unwrap();
    }
    assert_eq!(open(folder.path(), 2).len(), RECORDS_MAX + 10);
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
    let sent = keys(&outbox.due(Instant::now(), 8));
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
    assert_ne!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
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

//! The agent updates itself: real programs, real processes, whatever goes wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellwether_package::PackageId;
use bellwether_protocol::{
    Desired, Note, OutcomeKind, ProofFailure, Refusal, TrialFailure, WorkerDeath,
};

use crate::bench::{Agent, Bench, wait, worker};
use crate::model;
use crate::package::{Package, TARGET};
use crate::supervised::Manager;

/// Kills in an ordinary test run; more with `BELLWETHER_PROGRAM_KILLS`.
const KILLS: u64 = 4;
/// Long enough for any trial that is meant to succeed.
const LONG_SECS: u32 = 600;

/// A program that passes its own test and then does `run`.
fn script(run: &str) -> Vec<u8> {
    format!("#!/bin/sh\n[ \"$1\" = self-test ] && exit 0\n{run}\n").into_bytes()
}

/// The real agent, told from others by what follows it.
fn agent(tag: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(env!("CARGO_BIN_EXE_bellwether-agent")).unwrap();
    bytes.extend_from_slice(tag.as_bytes());
    bytes
}

fn real(bench: &Bench, minor: u32) -> Package {
    let worker = std::fs::read(worker()).unwrap();
    Package::programs(&bench.people, minor, &worker, &agent(&minor.to_string()))
}

fn fake(bench: &Bench, minor: u32, run: &str) -> Package {
    Package::programs(&bench.people, minor, b"no worker", &script(run))
}

/// A device that serves a model.
fn serving() -> (Bench, Agent) {
    let mut bench = Bench::new();
    let agent = bench.start();
    bench.install(&doubling(&bench));
    (bench, agent)
}

fn doubling(bench: &Bench) -> Package {
    Package::approved(&bench.people, 0, &model::times(2.0), |x| 2.0 * x)
}

fn order(bench: &mut Bench, package: &Package, secs_max: u32) {
    bench.upload(package);
    bench.order_programs(package.desired(), secs_max);
}

/// The file that the answering process runs.
fn runs(bench: &Bench) -> Option<PathBuf> {
    let pid = bench.answering_pid()?;
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

fn of_release(bench: &Bench, release: PackageId) -> PathBuf {
    let state = bench.state.canonicalize().unwrap();
    state
        .join("programs")
        .join(release.to_string())
        .join("bellwether-agent")
}

fn installed() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_bellwether-agent"))
}

fn wait_committed(bench: &Bench, release: PackageId) {
    let text = release.to_string();
    wait("the commit of the programs", || {
        let slot = bench.own_slot()?;
        (slot.phase == "serving" && slot.serving.as_ref() == Some(&text)).then_some(())
    });
    assert_eq!(runs(bench), Some(of_release(bench, release)));
}

/// Goes back to what was installed, with this told, and the model serves on.
fn goes_back(bench: &Bench, release: PackageId, told: &OutcomeKind) {
    assert_eq!(&bench.wait_outcome(release), told);
    let gone = "the programs' removal";
    let programs = bench.state.join("programs").join(release.to_string());
    wait(gone, || (!programs.exists()).then_some(()));
    assert_eq!(runs(bench), Some(installed()));
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(2.0), Some(4.0)]);
}

#[test]
fn an_update_of_the_agent_fails_no_request_and_lasts_over_a_restart() {
    let mut bench = Bench::new();
    let manager = Manager::at_a_path(&bench);
    let socket = bench.state.with_file_name("api.sock");
    bench.configure(&format!(
        "[api]\nsocket = {socket:?}\n[page]\nlisten = \"127.0.0.1:0\"\n"
    ));
    let mut agent = manager.start(&bench);
    bench.install(&doubling(&bench));
    let page = bench.page_address();
    let inode = std::fs::metadata(&socket).unwrap().ino();
    let bench_address = bench.address();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let (stop, url) = (stop.clone(), bench_address);
        move || ask_until(&stop, &url)
    });
    let next = real(&bench, 1);
    order(&mut bench, &next, LONG_SECS);
    wait_committed(&bench, next.id);
    stop.store(true, Ordering::Relaxed);
    let (asked, failed, longest) = asking.join().unwrap();
    println!("{asked} requests during the update, {failed} failed, the longest took {longest:?}");
    assert!(asked > 50, "{asked}");
    assert_eq!(failed, 0);
    assert_eq!(bench.wait_outcome(next.id), OutcomeKind::Committed);
    // Every socket is the same one.
    assert_eq!(bench.page_address(), page);
    assert_eq!(std::fs::metadata(&socket).unwrap().ino(), inode);
    for mut stream in [
        Box::new(UnixStream::connect(&socket).unwrap()) as Box<dyn ReadWrite>,
        Box::new(TcpStream::connect(&page).unwrap()),
    ] {
        let ask = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(ask).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // A service manager sees one process that is ready and alive, and never one that stops.
    let told = std::iter::from_fn(|| manager.hears(Duration::from_millis(10)));
    let told: Vec<String> = told.collect();
    assert!(
        told.iter().all(|text| !text.contains("STOPPING")),
        "{told:?}"
    );
    let ping = manager.hears_of("WATCHDOG=1");
    // What the new agent says of the device reaches the manager by way of whoever watches it.
    let status = |text: String| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("STATUS="));
        lines.next().map(str::to_owned)
    };
    let mut latest = told
        .into_iter()
        .chain([ping])
        .filter_map(status)
        .next_back();
    wait("the new agent's sentence", || {
        let next = manager.hears(Duration::from_millis(100)).and_then(status);
        latest = next.or(latest.take());
        (latest.as_deref() == Some("Well.")).then_some(())
    });
    // The process that was started watches; the next start becomes the program itself.
    assert_ne!(bench.answering_pid(), Some(agent.id()));
    assert!(agent.stop().success());
    manager.hears_of("STOPPING=1");
    let mut agent = bench.start();
    assert_eq!(bench.answering_pid(), Some(agent.id()));
    assert_eq!(runs(&bench), Some(of_release(&bench, next.id)));
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(2.0), Some(4.0)]);

    // A third takes over from the second, and the first goes.
    let third = real(&bench, 2);
    order(&mut bench, &third, LONG_SECS);
    wait_committed(&bench, third.id);
    let slot = bench.own_slot().unwrap();
    assert_eq!(slot.previous, Some(next.id.to_string()));

    // Back to the second, which is on disk and needs no trial.
    bench.order_programs_back(next.desired());
    wait_committed(&bench, next.id);
    let told = OutcomeKind::RolledBackByOrder;
    wait("the rollback at the server", || {
        (bench.wait_outcome(next.id) == told).then_some(())
    });

    // An order to run none of them runs what was installed.
    let reason = Note::new("back to the factory");
    bench.order_programs(Desired::Disable { reason }, LONG_SECS);
    wait("the installed program", || {
        (runs(&bench)? == installed()).then_some(())
    });
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(2.0), Some(4.0)]);
    assert!(agent.exited().is_none());
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Asks until it is told to stop, each time on a connection of its own.
fn ask_until(stop: &AtomicBool, address: &str) -> (u32, u32, Duration) {
    let (mut asked, mut failed, mut longest) = (0, 0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let status = crate::bench::ask_at(address, [1.0, 2.0]);
        asked += 1;
        if status != Some(200) {
            eprintln!("a request failed: {status:?}");
            failed += 1;
        }
        longest = longest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    (asked, failed, longest)
}

#[test]
fn programs_that_crash_at_start_are_taken_back() {
    let (mut bench, _agent) = serving();
    let bad = fake(&bench, 1, "kill -SEGV $$");
    order(&mut bench, &bad, LONG_SECS);
    let why = TrialFailure::ProgramEnded {
        starts: 3,
        last: WorkerDeath::Faulted { signal: 11 },
    };
    goes_back(&bench, bad.id, &OutcomeKind::RolledBackItself(why));
    // The device takes the next one.
    let good = real(&bench, 2);
    order(&mut bench, &good, LONG_SECS);
    wait_committed(&bench, good.id);
}

#[test]
fn programs_that_hang_are_taken_back() {
    let (mut bench, _agent) = serving();
    let bad = fake(&bench, 1, "exec sleep 1000");
    order(&mut bench, &bad, 3);
    let why = TrialFailure::ProgramEnded {
        starts: 1,
        last: WorkerDeath::Hung,
    };
    goes_back(&bench, bad.id, &OutcomeKind::RolledBackItself(why));
}

#[test]
fn programs_that_do_not_reach_the_server_are_taken_back_by_themselves() {
    let (mut bench, _agent) = serving();
    let next = real(&bench, 1);
    order(&mut bench, &next, 4);
    let file = of_release(&bench, next.id);
    wait("the programs on disk", || file.exists().then_some(()));
    bench.server.world().down = true;
    wait("the new program", || (runs(&bench)? == file).then_some(()));
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(2.0), Some(4.0)]);
    wait("the installed program", || {
        (runs(&bench)? == installed()).then_some(())
    });
    bench.server.world().down = false;
    let why = TrialFailure::ServerNotReached { secs: 4 };
    goes_back(&bench, next.id, &OutcomeKind::RolledBackItself(why));
}

#[test]
fn a_trial_that_power_failures_end_again_and_again_is_given_up() {
    let (mut bench, mut agent) = serving();
    bench.server.world().acknowledges = false;
    let next = real(&bench, 1);
    order(&mut bench, &next, LONG_SECS);
    let file = of_release(&bench, next.id);
    for start in 1..=3 {
        wait("the new program", || (runs(&bench)? == file).then_some(()));
        assert_eq!(
            bench.scores([1.0, 2.0]).0,
            [Some(2.0), Some(4.0)],
            "{start}"
        );
        agent.kill();
        agent = bench.start();
    }
    assert_eq!(runs(&bench), Some(installed()));
    bench.server.world().acknowledges = true;
    let why = TrialFailure::ProgramEnded {
        starts: 3,
        last: WorkerDeath::Other,
    };
    goes_back(&bench, next.id, &OutcomeKind::RolledBackItself(why));
}

#[test]
fn programs_that_fail_their_own_test_never_run() {
    let (mut bench, _agent) = serving();
    let bad = Package::programs(&bench.people, 1, b"no worker", b"#!/bin/sh\nexit 3\n");
    order(&mut bench, &bad, LONG_SECS);
    let told = OutcomeKind::FailedBeforeServing(ProofFailure::Other);
    goes_back(&bench, bad.id, &told);
    // The real agent finds that its own worker cannot run what serves.
    let bad = Package::programs(&bench.people, 2, b"no worker", &agent("x"));
    order(&mut bench, &bad, LONG_SECS);
    let told = OutcomeKind::FailedBeforeServing(ProofFailure::Other);
    goes_back(&bench, bad.id, &told);
}

#[test]
fn programs_that_nobody_approved_or_for_another_machine_or_slot_are_refused() {
    let (mut bench, _agent) = serving();
    let run = script("exit 0");
    let bare = Package::bare_programs(1, TARGET, b"no worker", &run);
    order(&mut bench, &bare, LONG_SECS);
    let refused = |why| OutcomeKind::Refused(why);
    let why = Refusal::NotApproved {
        persons: 0,
        threshold: 2,
    };
    goes_back(&bench, bare.id, &refused(why));
    let other = Package::bare_programs(2, "mips-unknown-linux-gnu", b"no worker", &run);
    let approvals = bench.people.approvals_for(other.id, "agent");
    let other = other.carrying(approvals);
    order(&mut bench, &other, LONG_SECS);
    goes_back(&bench, other.id, &refused(Refusal::NoVariant));
    // Approved for the slot, and yet a model.
    let model = Package::bare(7, &model::times(2.0), |x| 2.0 * x);
    let approvals = bench.people.approvals_for(model.id, "agent");
    let model = model.carrying(approvals);
    order(&mut bench, &model, LONG_SECS);
    goes_back(&bench, model.id, &refused(Refusal::ContractUnfit));
}

#[test]
fn programs_that_were_changed_on_disk_are_not_started() {
    let (mut bench, mut agent) = serving();
    let next = real(&bench, 1);
    order(&mut bench, &next, LONG_SECS);
    wait_committed(&bench, next.id);
    agent.kill();
    let file = of_release(&bench, next.id);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.push(b'!');
    // The program that was watched ends with the one that watched it, a moment later.
    wait("its end", || std::fs::write(&file, &bytes).ok());
    let _agent = bench.start();
    let told = OutcomeKind::Lost(Refusal::Damaged);
    wait("the loss at the server", || {
        (bench.wait_outcome(next.id) == told).then_some(())
    });
    assert_eq!(runs(&bench), Some(installed()));
    assert_eq!(bench.scores([1.0, 2.0]).0, [Some(2.0), Some(4.0)]);
}

#[test]
fn programs_that_crash_after_their_commit_give_way_to_the_installed_ones() {
    let (mut bench, mut agent) = serving();
    let poison = bench.state.with_file_name("poison");
    let run = format!(
        "[ -e {} ] && exit 7\nexec {} \"$@\"",
        poison.display(),
        installed().display()
    );
    let worker = std::fs::read(worker()).unwrap();
    let next = Package::programs(&bench.people, 1, &worker, &script(&run));
    order(&mut bench, &next, LONG_SECS);
    assert_eq!(bench.wait_outcome(next.id), OutcomeKind::Committed);
    assert!(agent.stop().success());
    std::fs::write(&poison, "").unwrap();
    for start in 0..3 {
        let mut agent = bench.spawn();
        let status = wait("its end", || agent.exited());
        assert_eq!(status.code(), Some(7), "start {start}");
    }
    let _agent = bench.start();
    let why = TrialFailure::ProgramEnded {
        starts: 3,
        last: WorkerDeath::Other,
    };
    let told = OutcomeKind::RolledBackItself(why);
    wait("the rollback at the server", || {
        (bench.wait_outcome(next.id) == told).then_some(())
    });
    goes_back(&bench, next.id, &told);
}

/// The two files that an update changes, as they lie on the disk.
fn on_disk(bench: &Bench) -> [Option<Vec<u8>>; 2] {
    FILES.map(|name| std::fs::read(bench.state.join(name)).ok())
}

/// The state of the slot's machine, and what the launcher knows.
const FILES: [&str; 2] = ["slots/agent", "program"];

/// Power may fail between any two writes, so any state of one file may lie beside any of the other.
#[test]
fn whatever_of_an_update_has_reached_the_disk_it_ends_on_the_new_agent() {
    let (mut bench, mut agent) = serving();
    let mut seen = vec![on_disk(&bench)];
    bench.server.world().acknowledges = false;
    let next = real(&bench, 1);
    order(&mut bench, &next, LONG_SECS);
    let file = of_release(&bench, next.id);
    wait("the new program", || (runs(&bench)? == file).then_some(()));
    seen.push(on_disk(&bench));
    bench.server.world().acknowledges = true;
    wait_committed(&bench, next.id);
    wait("its record", || {
        let now = on_disk(&bench);
        (seen.last() != Some(&now)).then_some(())
    });
    agent.kill();
    seen.push(on_disk(&bench));
    assert!(
        seen.iter()
            .all(|now| seen.iter().filter(|it| *it == now).count() == 1)
    );
    let of_machine = seen.iter().map(|[machine, _]| machine.clone());
    for (place, machine) in of_machine.enumerate() {
        for (beside, [_, record]) in seen.iter().enumerate() {
            restore(&bench, [&machine, record]);
            println!("machine {place}, record {beside}");
            let mut agent = bench.start();
            wait_committed(&bench, next.id);
            assert_eq!(bench.scores([1.0, 2.0]).0, [Some(2.0), Some(4.0)]);
            agent.kill();
        }
    }
}

fn restore(bench: &Bench, files: [&Option<Vec<u8>>; 2]) {
    // The program that was watched ends a moment after the one that watched it.
    let lock = bench.state.join("lock");
    wait("the end of the agent", || {
        let file = std::fs::File::open(&lock).ok()?;
        file.try_lock().ok()
    });
    for (name, bytes) in FILES.into_iter().zip(files) {
        let path = bench.state.join(name);
        let _ = std::fs::remove_file(format!("{}.prev", path.display()));
        let _ = std::fs::remove_file(&path);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn an_agent_that_cannot_note_its_successor_goes_on() {
    let (mut bench, _agent) = serving();
    // A folder in the way makes the write fail even for root.
    std::fs::create_dir(bench.state.join("program.tmp")).unwrap();
    let next = fake(&bench, 1, "exit 0");
    order(&mut bench, &next, LONG_SECS);
    let why = TrialFailure::Unservable(Refusal::Other);
    goes_back(&bench, next.id, &OutcomeKind::RolledBackItself(why));
}

#[test]
fn killed_at_any_moment_of_an_update_the_device_ends_on_a_working_agent() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let kills: u64 = setting("BELLWETHER_PROGRAM_KILLS").unwrap_or(KILLS);
    let seed: u64 = setting("BELLWETHER_SEED").unwrap_or(1);
    println!("BELLWETHER_SEED={seed} BELLWETHER_PROGRAM_KILLS={kills}");
    let (mut bench, mut agent) = serving();
    agent.kill();
    let mut random = seed;
    for kill in 0..kills {
        let next = real(&bench, 1 + kill as u32);
        order(&mut bench, &next, LONG_SECS);
        let mut agent = bench.spawn();
        // splitmix64: the moments of a seed are the same on every machine.
        random = u64::wrapping_add(random, 0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        std::thread::sleep(Duration::from_millis((mixed ^ (mixed >> 27)) % 4000));
        agent.kill();
        bench.server.world().down = true;
        let mut agent = bench.start();
        assert_eq!(
            bench.scores([1.0, 2.0]).0,
            [Some(2.0), Some(4.0)],
            "kill {kill} of seed {seed}"
        );
        bench.server.world().down = false;
        agent.kill();
    }
    let _agent = bench.start();
    let last = real(&bench, 99);
    order(&mut bench, &last, LONG_SECS);
    wait_committed(&bench, last.id);
    let programs = std::fs::read_dir(bench.state.join("programs")).unwrap();
    assert!(programs.count() <= 2);
}

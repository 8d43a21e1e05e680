//! From package to release: approving, verifying, running, revoking.

use crate::packing::write_npz;
use crate::{INPUT, World, sample};

const SCOPE: &str = "--trust-root root.bwt --slot main --attr class=pump";

fn ready() -> World {
    let world = World::new();
    world.trust();
    world.package("linear.bwp");
    world
}

fn approve(world: &World, person: &str, more: &str) -> crate::Done {
    world.run(&format!(
        "approve linear.bwp --key {person}.key --passphrase-file passphrase --trust-root root.bwt \
         --slot main --cohort class=pump --valid-days 30 --reason tested {more}"
    ))
}

#[test]
fn one_approval_of_two_is_not_enough_and_two_are() {
    let world = ready();
    let done = world.run(&format!("verify linear.bwp {SCOPE}"));
    assert_eq!(done.code, 1);
    assert!(done.stdout.contains("0 of 2 persons"), "{}", done.stdout);
    let id = world.ok("--json inspect linear.bwp").stdout;
    let first = approve(&world, "alice", "--yes");
    assert_eq!(first.code, 0, "{}", first.stderr);
    // The same person once more is still one person.
    assert_eq!(approve(&world, "alice", "--yes").code, 0);
    let done = world.run(&format!("verify linear.bwp {SCOPE}"));
    assert_eq!(done.code, 1);
    assert!(done.stdout.contains("1 of 2 persons"), "{}", done.stdout);
    assert_eq!(approve(&world, "bob", "--yes").code, 0);
    let done = world.ok(&format!("verify linear.bwp {SCOPE}"));
    assert!(
        done.stdout.contains("APPROVED for slot main by alice, bob"),
        "{}",
        done.stdout
    );
    // Approving changes no byte that is signed.
    let of = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["id"].clone();
    assert_eq!(of(&id), of(&world.ok("--json inspect linear.bwp").stdout));
}

#[test]
fn another_slot_or_device_is_out_of_scope() {
    let world = ready();
    approve(&world, "alice", "--yes");
    approve(&world, "bob", "--yes");
    for scope in [
        "--slot other --attr class=pump",
        "--slot main --attr class=fan",
        "--slot main",
    ] {
        let done = world.run(&format!("verify linear.bwp --trust-root root.bwt {scope}"));
        assert_eq!(done.code, 1, "{scope}");
        assert!(
            done.stdout.contains("other slots or devices"),
            "{}",
            done.stdout
        );
    }
}

#[test]
fn nobody_there_to_consent_signs_nothing() {
    let world = ready();
    let before = std::fs::read(world.path("linear.bwp")).unwrap();
    let done = approve(&world, "alice", "");
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("consent"), "{}", done.stderr);
    assert_eq!(std::fs::read(world.path("linear.bwp")).unwrap(), before);
}

#[test]
fn a_wrong_passphrase_signs_nothing() {
    let world = ready();
    world.write("passphrase", "another passphrase\n");
    let before = std::fs::read(world.path("linear.bwp")).unwrap();
    let done = approve(&world, "alice", "--yes");
    assert_eq!(done.code, 1);
    assert!(
        done.stderr.contains("passphrase does not open"),
        "{}",
        done.stderr
    );
    assert_eq!(std::fs::read(world.path("linear.bwp")).unwrap(), before);
}

#[test]
fn a_rejection_voids_the_same_persons_approval() {
    let world = ready();
    approve(&world, "alice", "--yes");
    approve(&world, "bob", "--yes");
    assert_eq!(approve(&world, "bob", "--yes --reject").code, 0);
    let done = world.run(&format!("verify linear.bwp {SCOPE}"));
    assert_eq!(done.code, 1);
    assert!(done.stdout.contains("1 rejected it"), "{}", done.stdout);
    assert!(done.stdout.contains("voided"), "{}", done.stdout);
}

#[test]
fn a_flipped_byte_is_not_an_intact_package() {
    let world = ready();
    let mut bytes = std::fs::read(world.path("linear.bwp")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(world.path("linear.bwp"), bytes).unwrap();
    world.refused(
        &format!("verify linear.bwp {SCOPE}"),
        &["not an intact package"],
    );
    let done = approve(&world, "alice", "--yes");
    assert_eq!(done.code, 1);
}

#[test]
fn only_an_approved_package_runs() {
    let world = ready();
    world.refused(
        &format!("run linear.bwp --inputs sample.csv --outputs out.csv {SCOPE}"),
        &["not approved for slot main", "0 of 2 persons"],
    );
    assert!(!world.files().contains(&"out.csv".to_owned()));
    approve(&world, "alice", "--yes");
    approve(&world, "bob", "--yes");
    world.ok(&format!(
        "run linear.bwp --inputs sample.csv --outputs out.csv {SCOPE}"
    ));
    let out = std::fs::read_to_string(world.path("out.csv")).unwrap();
    assert_eq!(out.lines().count(), sample(64).lines().count());
    assert!(out.starts_with("p,q\n"), "{out}");
    // The same rows as an array give the same answers.
    let values: Vec<f32> = (0..64)
        .flat_map(|row| [row as f32, (row * 2) as f32, (row % 7) as f32])
        .collect();
    write_npz(&world, "in.npz", &[(INPUT, &[64, 3], &values)]);
    world.ok(&format!(
        "run linear.bwp --inputs in.npz --outputs same.csv {SCOPE}"
    ));
    assert_eq!(
        std::fs::read_to_string(world.path("same.csv")).unwrap(),
        out
    );
    world.ok(&format!(
        "run linear.bwp --inputs in.npz --outputs out.npz {SCOPE}"
    ));
    world.refused(
        &format!("run linear.bwp --inputs in.npz --outputs out.npz {SCOPE}"),
        &["not overwritten"],
    );
}

#[test]
fn a_bad_input_row_leaves_no_output_behind() {
    let world = ready();
    approve(&world, "alice", "--yes");
    approve(&world, "bob", "--yes");
    world.write("bad.csv", "a,b,c\n1,2,3\n1,nan,3\n");
    world.refused(
        &format!("run linear.bwp --inputs bad.csv --outputs out.csv {SCOPE}"),
        &["were not answered"],
    );
    assert!(
        !world
            .files()
            .iter()
            .any(|name| name.contains("out") || name.ends_with(".part"))
    );
}

#[test]
fn a_revoked_package_is_refused_whoever_approved_it() {
    let world = ready();
    approve(&world, "alice", "--yes");
    approve(&world, "bob", "--yes");
    let revoke = "revoke --revocations root.bwr --trust-root root.bwt --passphrase-file passphrase";
    world.refused(
        &format!("{revoke} --package linear.bwp --sign-with alice.key"),
        &["more signatures"],
    );
    world.ok(&format!("verify linear.bwp {SCOPE}"));
    world.ok(&format!(
        "{revoke} --package linear.bwp --sign-with alice.key --out next.bwr"
    ));
    world.ok(
        "revoke --revocations next.bwr --trust-root root.bwt --sign-only --yes \
              --sign-with bob.key --passphrase-file passphrase",
    );
    let done = world.run(&format!("verify linear.bwp {SCOPE} --revocations next.bwr"));
    assert_eq!(done.code, 1);
    assert!(done.stdout.contains("revoked"), "{}", done.stdout);
}

#[test]
fn a_detached_approval_leaves_the_package_alone() {
    let world = ready();
    let before = std::fs::read(world.path("linear.bwp")).unwrap();
    assert_eq!(
        approve(&world, "alice", "--yes --detached alice.bwa").code,
        0
    );
    assert_eq!(std::fs::read(world.path("linear.bwp")).unwrap(), before);
    assert!(world.files().contains(&"alice.bwa".to_owned()));
}

#[test]
fn drift_is_found_where_it_is_and_nowhere_else() {
    let world = World::new();
    world.write("then.csv", &sample(2_000));
    let moved: String = sample(2_000)
        .lines()
        .map(|line| moved(line) + "\n")
        .collect();
    world.write("now.csv", &moved);
    world.ok("drift --baseline then.csv --live then.csv");
    let done = world.run("--json drift --baseline then.csv --live now.csv");
    assert_eq!(done.code, 1, "{}", done.stderr);
    let look: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(look["verdict"], "Drifted");
    let verdicts: Vec<_> = look["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| {
            (
                field["name"].as_str().unwrap(),
                field["verdict"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        verdicts,
        [("a", "Healthy"), ("b", "Healthy"), ("c", "Drifted")]
    );
    let plain = world.run("drift --baseline then.csv --live now.csv --columns c");
    assert!(
        plain.stdout.contains('#') && plain.stdout.contains("drifted"),
        "{}",
        plain.stdout
    );
}

/// The third column loses its upper half.
fn moved(line: &str) -> String {
    match line.rsplit_once(',') {
        Some((rest, last)) => match last.parse::<u32>() {
            Ok(value) => format!("{rest},{}", value / 2),
            Err(_) => line.to_owned(),
        },
        None => line.to_owned(),
    }
}

/// Programs are packed, shown, approved and verified like models, for their own slot alone.
#[test]
fn programs_travel_the_same_road_in_their_own_slot() {
    let world = World::new();
    world.trust();
    std::fs::create_dir(world.path("built")).unwrap();
    world.write("built/bellwether-worker", "\x7fELF the worker");
    world.write("built/bellwether-agent", "no program");
    let pack = "pack-agent --release 1.1.0 --target x86_64-unknown-linux-gnu=built \
                --notes faster --out agent.bwp";
    world.refused(pack, &["bellwether-agent is no program for Linux"]);
    world.write("built/bellwether-agent", "\x7fELF the agent");
    let done = world.ok(pack);
    assert!(
        done.stdout.contains("bellwether-agent 1.1.0"),
        "{}",
        done.stdout
    );
    let shown = world.ok("inspect agent.bwp").stdout;
    assert!(
        shown.contains("x86_64-unknown-linux-gnu: agent 14 B"),
        "{shown}"
    );
    assert!(!shown.contains("golden"), "{shown}");
    let scope = |slot: &str| format!("--trust-root root.bwt --slot {slot} --attr class=pump");
    for person in ["alice", "bob"] {
        world.ok(&format!(
            "approve agent.bwp --key {person}.key --passphrase-file passphrase \
             --trust-root root.bwt --slot agent --slot main --cohort class=pump --valid-days 30 \
             --reason tested --yes"
        ));
    }
    let done = world.ok(&format!("verify agent.bwp {}", scope("agent")));
    assert!(
        done.stdout.contains("APPROVED for slot agent"),
        "{}",
        done.stdout
    );
    let done = world.run(&format!("verify agent.bwp {}", scope("main")));
    assert_eq!(done.code, 1);
    assert!(
        done.stdout.contains("slot `agent` takes"),
        "{}",
        done.stdout
    );
}

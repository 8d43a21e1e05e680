//! Keys, trust roots, revocation lists.

use std::os::unix::fs::PermissionsExt;

use crate::World;

#[test]
fn a_new_key_is_for_its_owner_alone_and_encrypted() {
    let world = World::new();
    world.keys(&["alice"]);
    let mode = std::fs::metadata(world.path("alice.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(world.path("alice.key")).unwrap();
    assert!(
        text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
        "{text}"
    );
}

#[test]
fn a_key_is_never_overwritten() {
    let world = World::new();
    world.keys(&["alice"]);
    let before = std::fs::read(world.path("alice.key")).unwrap();
    world.refused(
        "key new --out alice.key --passphrase-file passphrase",
        &["not overwritten"],
    );
    assert_eq!(std::fs::read(world.path("alice.key")).unwrap(), before);
}

#[test]
fn a_short_passphrase_is_refused_and_leaves_no_key() {
    let world = World::new();
    world.write("short", "abc\n");
    world.refused(
        "key new --out alice.key --passphrase-file short",
        &["at least 8 characters"],
    );
    assert!(!world.files().contains(&"alice.key".to_owned()));
}

#[test]
fn nobody_to_ask_for_a_passphrase_is_said() {
    let world = World::new();
    let done = world.run("key new --out alice.key");
    // A terminal may be there even so: /dev/tty is not standard input.
    if done.code != 0 {
        assert!(done.stderr.contains("--passphrase-file"), "{}", done.stderr);
    }
}

#[test]
fn two_keys_of_one_person_are_one_person() {
    let world = World::new();
    world.keys(&["alice", "alice2", "bob", "director"]);
    let persons = "--person alice=alice.pub,alice2.pub --person bob=bob.pub --director director.pub \
                   --passphrase-file passphrase";
    // Both of alice's keys sign, and the root still lacks a second person.
    let done = world.ok(&format!(
        "trust init {persons} --root-threshold 2 --approvers-threshold 2 --sign-with alice.key \
         --sign-with alice2.key --out half.bwt"
    ));
    assert!(done.stdout.contains("NOT VALID YET"), "{}", done.stdout);
    world.refused(
        &format!(
            "trust init {persons} --root-threshold 3 --approvers-threshold 1 --sign-with alice.key \
             --out three.bwt"
        ),
        &[
            "can't be reached by 2 persons",
            "two keys of one person are one person",
        ],
    );
    // One person after another may sign.
    let done = world.ok("trust sign half.bwt --sign-with bob.key --passphrase-file passphrase");
    assert!(!done.stdout.contains("NOT VALID YET"), "{}", done.stdout);
}

#[test]
fn a_half_signed_rotation_does_not_replace_the_root() {
    let world = World::new();
    world.trust();
    let before = std::fs::read(world.path("root.bwt")).unwrap();
    world.refused(
        "trust rotate root.bwt --approvers-threshold 1 --sign-with alice.key --passphrase-file passphrase",
        &["more signatures"],
    );
    assert_eq!(std::fs::read(world.path("root.bwt")).unwrap(), before);
    world.ok(
        "trust rotate root.bwt --approvers-threshold 1 --sign-with alice.key \
              --sign-with bob.key --passphrase-file passphrase",
    );
    let shown = world.ok("--json trust show root.bwt").stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["version"], 2);
    assert_eq!(shown["approvers"]["threshold"], 1);
    assert_eq!(shown["valid"], true);
}

#[test]
fn a_strangers_signature_is_not_made() {
    let world = World::new();
    world.trust();
    world.keys(&["mallory"]);
    world.refused(
        "revoke --revocations root.bwr --trust-root root.bwt --least linear=2.0.0 \
         --sign-with mallory.key --passphrase-file passphrase",
        &["belongs to no person"],
    );
}

#[test]
fn a_damaged_trust_root_is_refused() {
    let world = World::new();
    world.trust();
    let mut bytes = std::fs::read(world.path("root.bwt")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(world.path("root.bwt"), bytes).unwrap();
    let done = world.run("trust show root.bwt");
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(done.code == 1 || said.contains("NOT VALID"), "{said}");
}

#[test]
fn a_closed_pipe_is_no_panic() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.is_empty(), "{stderr}");
}

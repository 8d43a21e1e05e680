//! The configuration that the package installs, held against the code: it parses, shows every key
//! that there is, and says the truth about what holds while a key is left out.

use std::collections::BTreeSet;

use super::*;

const SHIPPED: &str = include_str!("../../debian/agent.toml");
const GUIDE: &str = include_str!("../../../docs/device.md");

/// Sections, as TOML begins them. `attributes` has keys of the person's own.
const SECTIONS: [&str; 6] = [
    "[api]",
    "[page]",
    "[[readings]]",
    "[report]",
    "[link]",
    "[limits]",
];

fn parse(text: &str) -> Config {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

/// The shipped text with every key that it only shows put into force.
fn shown() -> String {
    let in_force = |line: &str| {
        let shown = line.strip_prefix('#').unwrap_or(line);
        let begins = shown.starts_with(|first: char| first.is_ascii_lowercase() || first == '[');
        if begins {
            shown.to_owned()
        } else {
            line.to_owned()
        }
    };
    let lines: Vec<String> = SHIPPED.lines().map(in_force).collect();
    lines.join("\n")
}

/// The names that serde takes in a section, by its own account.
fn keys(section: &str) -> BTreeSet<String> {
    let least = "device = \"d\"\nstate_dir = \"s\"\nworker = \"w\"\n";
    let error = toml::from_str::<Config>(&format!("{least}{section}\nno_such_key = 1\n"));
    let error = error.unwrap_err().to_string();
    let (_, names) = error
        .split_once("expected")
        .expect("serde names what it takes");
    names
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_shipped_configuration_is_valid_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, SHIPPED).unwrap();
    Config::read(&path).unwrap();
    std::fs::write(&path, shown()).unwrap();
    Config::read(&path).unwrap();
}

#[test]
fn the_shipped_configuration_shows_every_key() {
    let shown: toml::Table = shown().parse().unwrap();
    let names = |table: &toml::Table| table.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&shown), keys(""));
    for section in SECTIONS {
        let name = section.trim_matches(['[', ']']);
        let one = shown[name].as_array().map_or(&shown[name], |all| &all[0]);
        assert_eq!(names(one.as_table().unwrap()), keys(section), "{section}");
    }
    let is_section = |value: &&toml::Value| value.is_table() || value.is_array();
    let tables = shown.values().filter(is_section).count();
    assert_eq!(tables, SECTIONS.len() + 1, "a section without a test");
}

#[test]
fn the_defaults_that_the_shipped_configuration_shows_are_the_codes() {
    let shown = parse(&shown());
    assert_eq!(shown.report, Report::default());
    assert_eq!(shown.link, Link::default());
    // Where the code has no value, and where the package has one of its own, it says so.
    let limits = Limits {
        download_bytes_per_sec: shown.limits.download_bytes_per_sec,
        ..Limits::default()
    };
    assert_eq!(shown.limits, limits);
    let api = Api {
        listen: shown.api.listen,
        socket: shown.api.socket.clone(),
        ..Api::default()
    };
    assert_eq!(shown.api, api);
    // Nothing else is in force that is not the default.
    let shipped = parse(SHIPPED);
    assert_eq!(shipped.limits, Limits::default());
    assert_eq!(shipped.api, api);
    assert!(shipped.attributes.is_empty() && shipped.page.is_none());
    assert!(shipped.readings.is_empty());
}

#[test]
fn the_guides_configurations_are_valid() {
    let blocks = GUIDE.split("```toml\n").skip(1);
    let blocks: Vec<&str> = blocks
        .filter_map(|block| block.split("```").next())
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        // A block without the first three keys is one to be added.
        let least = "device = \"pump-07\"\nstate_dir = \"s\"\nworker = \"w\"\n";
        let whole = block.contains("state_dir");
        parse(&if whole {
            block.to_owned()
        } else {
            format!("{least}{block}")
        });
    }
}

#[test]
fn the_unit_and_the_shipped_configuration_name_the_same_places() {
    const UNIT: &str = include_str!("../../debian/bellwether-agent.service");
    const PACKED: &str = include_str!("../../Cargo.toml");
    let said = |key: &str| {
        let mut lines = UNIT.lines().filter_map(|line| line.split_once('='));
        let value = lines.find(|(name, _)| *name == key);
        value.unwrap_or_else(|| panic!("the unit has no {key}")).1
    };
    let config = parse(SHIPPED);
    assert_eq!(
        config.state_dir,
        Path::new("/var/lib").join(said("StateDirectory"))
    );
    let run = Path::new("/run").join(said("RuntimeDirectory"));
    assert_eq!(config.api.socket.unwrap().parent(), Some(run.as_path()));
    // The identity, and the copy before it, as `Store` names them.
    assert!(said("ConditionPathExists").ends_with("/var/lib/bellwether/identity"));
    let (program, rest) = said("ExecStart").split_once(' ').unwrap();
    assert_eq!(rest, "run --config /etc/bellwether/agent.toml");
    for installed in [Path::new(program), &config.worker] {
        let name = installed.file_name().unwrap().to_str().unwrap();
        let packed = format!("[\"target/release/{name}\", \"usr/bin/\"");
        assert!(PACKED.contains(&packed), "{packed}");
        assert_eq!(installed.parent(), Some(Path::new("/usr/bin")));
    }
    assert!(PACKED.contains("\"etc/bellwether/agent.toml\""));
}

#[test]
fn the_packages_scripts_are_scripts_and_leave_room_for_the_units_own() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("debian");
    for name in ["postinst", "prerm", "postrm"] {
        let script = folder.join(name);
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(text.starts_with("#!/bin/sh\n"), "{name}");
        // Starting, stopping, enabling and disabling are put in here.
        let places = text.lines().filter(|line| *line == "#DEBHELPER#").count();
        assert_eq!(places, 1, "{name}");
        assert!(text.lines().any(|line| line == "set -e"), "{name}");
        let parsed = std::process::Command::new("sh")
            .arg("-n")
            .arg(&script)
            .status();
        assert!(parsed.unwrap().success(), "{name}");
    }
}

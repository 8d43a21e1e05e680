//! Real models, packed from what a person would write and nothing else: no shape is set by hand
//! but where the model leaves it open, and every one reproduces another engine's outputs.

use std::path::{Path, PathBuf};

use crate::World;

/// As many as `tests/fixtures/real` holds: a file that is lost must not go unnoticed.
const MODELS: usize = 13;

#[test]
fn every_real_model_is_packed_and_reproduces_its_golden_outputs() {
    let world = World::new();
    let configurations = configurations();
    assert_eq!(configurations.len(), MODELS);
    let mut failed = Vec::new();
    for path in &configurations {
        let name = path.file_stem().unwrap().to_string_lossy();
        let golden = path.with_extension("npz");
        let done = world.run(&format!(
            "pack {} --golden {} --out {name}.bwp",
            path.display(),
            golden.display()
        ));
        println!("{name}: {}\n{}{}", done.code, done.stdout, done.stderr);
        if done.code != 0 {
            failed.push(name.into_owned());
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

fn configurations() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/real");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "toml"))
        .collect();
    found.sort();
    found
}

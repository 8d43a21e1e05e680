//! Packing: what is refused, by name, and that nothing is left behind.

use std::io::Write;

use crate::{INPUT, OUTPUT, World, config, sample};

fn ready() -> World {
    let world = World::new();
    world.write("model.toml", &config("linear.onnx"));
    world.write("sample.csv", &sample(64));
    world
}

/// Refused, with these words, and nothing new in the folder.
fn pack_refused(world: &World, words: &str, said: &[&str]) {
    let before = world.files();
    world.refused(words, said);
    assert_eq!(world.files(), before, "something was left behind");
}

#[test]
fn a_package_is_made_and_says_that_nobody_checked_its_numbers() {
    let world = ready();
    let done = world.ok("pack model.toml --out linear.bwp");
    assert!(
        done.stdout
            .contains("nothing independent has checked the numbers"),
        "{}",
        done.stdout
    );
    let facts: serde_json::Value =
        serde_json::from_str(&world.ok("--json inspect linear.bwp").stdout).unwrap();
    assert_eq!(facts["model"], "linear");
    assert_eq!(facts["golden"]["origin"], "self-computed");
    assert_eq!(facts["golden"]["cases"], 8);
    assert_eq!(facts["inputs"][0]["fields"][2]["name"], "c");
}

#[test]
fn what_a_device_need_not_download_again_is_told() {
    let world = ready();
    world.ok("pack model.toml --out old.bwp");
    let text = config("linear.onnx").replace("\"tests\"", "\"other tests\"");
    world.write("model.toml", &text);
    world.ok("pack model.toml --out new.bwp");
    let facts: serde_json::Value =
        serde_json::from_str(&world.ok("--json inspect new.bwp --against old.bwp").stdout).unwrap();
    let (all, download) = (&facts["bytes"], &facts["against"]["bytes_to_download"]);
    assert!(download.as_u64() < all.as_u64(), "{facts}");
    let shown = world.ok("inspect new.bwp --against old.bwp").stdout;
    assert!(shown.contains("sections and chunks differ"), "{shown}");
}

#[test]
fn an_unknown_key_is_named() {
    let world = ready();
    world.write(
        "model.toml",
        &config("linear.onnx").replace("[budget]", "[budget]\nlatency = 5"),
    );
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp",
        &["unknown field", "latency"],
    );
}

#[test]
fn nan_in_the_sample_is_refused_by_row_and_column() {
    let world = ready();
    world.write("sample.csv", &sample(64).replace("3,6,3\n", "3,nan,3\n"));
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp",
        &["row 4 of `b`", "missing or NaN"],
    );
}

#[test]
fn text_in_the_sample_is_refused_by_row_and_column() {
    let world = ready();
    world.write("sample.csv", &sample(64).replace("3,6,3\n", "3,six,3\n"));
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp",
        &["row 4 of column `b` is `six`"],
    );
}

#[test]
fn a_column_that_is_not_there_is_named() {
    let world = ready();
    world.write("sample.csv", &sample(64).replace("a,b,c", "a,b,d"));
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp",
        &["no column `c`"],
    );
}

#[test]
fn another_number_of_columns_than_the_model_takes_is_refused() {
    let world = ready();
    world.write(
        "model.toml",
        &config("linear.onnx").replace(r#""b", "c"]"#, r#""b"]"#),
    );
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp",
        &["has 2 columns", "last axis has 3 elements"],
    );
}

#[test]
fn an_output_that_the_model_lacks_is_refused() {
    let world = ready();
    world.write(
        "model.toml",
        &config("linear.onnx").replace(OUTPUT, "answers"),
    );
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp",
        &["no output `answers`", OUTPUT],
    );
}

#[test]
fn an_operator_that_the_engine_lacks_is_named() {
    let world = ready();
    world.write("model.toml", &config("unknown_operator.onnx"));
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp",
        &["uses operator"],
    );
}

#[test]
fn a_package_is_never_overwritten() {
    let world = ready();
    world.write("linear.bwp", "precious");
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp",
        &["not overwritten"],
    );
    assert_eq!(
        std::fs::read(world.path("linear.bwp")).unwrap(),
        b"precious"
    );
}

#[test]
fn golden_outputs_that_the_model_does_not_give_are_refused() {
    let world = ready();
    let zeros = [0.0_f32; 8];
    write_npz(
        &world,
        "golden.npz",
        &[(INPUT, &[4, 3], &[1.0; 12]), (OUTPUT, &[4, 2], &zeros)],
    );
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp --golden golden.npz",
        &[
            "does not reproduce its golden outputs",
            "worst in row",
            "--allow-mismatch",
        ],
    );
    let done = world.ok("pack model.toml --out linear.bwp --golden golden.npz --allow-mismatch");
    assert!(done.stdout.contains("MISMATCH ALLOWED"), "{}", done.stdout);
    let shown = world.ok("inspect linear.bwp").stdout;
    assert!(shown.contains("GOLDEN MISMATCH ALLOWED"), "{shown}");
}

#[test]
fn golden_arrays_of_another_shape_are_refused() {
    let world = ready();
    write_npz(
        &world,
        "golden.npz",
        &[(INPUT, &[4, 2], &[1.0; 8]), (OUTPUT, &[4, 2], &[0.0; 8])],
    );
    pack_refused(
        &world,
        "pack model.toml --out linear.bwp --golden golden.npz",
        &[INPUT, "the contract has [batch, 3]"],
    );
}

#[test]
fn a_missing_reading_may_be_declared() {
    let world = ready();
    world.write("sample.csv", &sample(64).replace("3,6,3\n", "3,,3\n"));
    let steps = "\n[[steps]]\nstep = \"fill\"\nfield = \"b\"\nvalue = 0.0\n";
    let text = config("linear.onnx").replace(
        r#"columns = ["a", "b", "c"]"#,
        "columns = [\"a\", \"b\", \"c\"]\nmissing = \"nan\"",
    );
    world.write("model.toml", &(text + steps));
    world.ok("pack model.toml --out linear.bwp");
}

/// An NPZ of f32 arrays, uncompressed, as `np.savez` writes them.
pub(crate) fn write_npz(world: &World, name: &str, arrays: &[(&str, &[u64], &[f32])]) {
    use npyz::WriterBuilder;
    let file = std::fs::File::create(world.path(name)).unwrap();
    let mut writer = npyz::npz::NpzWriter::new(std::io::BufWriter::new(file));
    for (name, shape, values) in arrays {
        let mut array = writer
            .array(name, Default::default())
            .unwrap()
            .default_dtype()
            .shape(shape)
            .begin_nd()
            .unwrap();
        array.extend(values.iter()).unwrap();
        array.finish().unwrap();
    }
    writer.zip_writer().finish().unwrap().flush().unwrap();
}

/// A configuration for `accumulate.onnx`, whose state and constant are described by `unfed`.
fn accumulate(unfed: &str) -> String {
    config("accumulate.onnx")
        .replace(INPUT, "reading")
        .replace(OUTPUT, "score")
        .replace(r#"columns = ["a", "b", "c"]"#, r#"columns = ["a"]"#)
        .replace(r#"columns = ["p", "q"]"#, r#"columns = ["s"]"#)
        .replace("[golden]", &format!("{unfed}\n[golden]"))
}

const STATE: &str = "[[states]]\ninput = \"total\"\noutput = \"total_next\"\n";
const GAIN: &str = "[[constants]]\nname = \"gain\"\nvalue = 2\n";

#[test]
fn a_model_with_a_state_and_a_constant_is_packed_from_its_contract_alone() {
    let world = ready();
    world.write("model.toml", &accumulate(&format!("{STATE}{GAIN}")));
    world.ok("pack model.toml --out sum.bwp");
    let facts: serde_json::Value =
        serde_json::from_str(&world.ok("--json inspect sum.bwp").stdout).unwrap();
    assert_eq!(facts["states"][0]["output"], "total_next");
    assert_eq!(facts["states"][0]["shape"], "[batch, 1]");
    assert_eq!(facts["constants"][0]["values"][0], 2.0);
    let told = world.ok("inspect sum.bwp").stdout;
    assert!(told.contains("fed back from total_next"), "{told}");
    assert!(told.contains("gain f32 = 2"), "{told}");
}

#[test]
fn an_input_that_nobody_feeds_is_refused_with_the_tables_that_could_say_so() {
    let world = ready();
    for (unfed, said) in [
        (STATE, "`gain`"),
        (GAIN, "`total`"),
        ("", "[[states]]"),
        (
            "[[constants]]\nname = \"rate\"\nvalue = 2\n",
            "no input `rate`",
        ),
    ] {
        world.write("model.toml", &accumulate(unfed));
        pack_refused(&world, "pack model.toml --out sum.bwp", &[said]);
    }
}

#[test]
fn a_constant_that_does_not_fit_its_input_is_refused() {
    let world = ready();
    for value in ["\"two\"", "[1, 2]", "[[1], [2, 3]]"] {
        let gain = format!("[[constants]]\nname = \"gain\"\nvalue = {value}\n");
        world.write("model.toml", &accumulate(&format!("{STATE}{gain}")));
        pack_refused(
            &world,
            "pack model.toml --out sum.bwp",
            &["constant `gain`"],
        );
    }
}

#[test]
fn a_quantised_model_is_packed_with_a_notice_of_how_it_is_computed() {
    let world = ready();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/int8");
    let onnx = format!("{folder}/mlp_qdq_u8i8_channel.onnx");
    let linear = crate::fixture("linear.onnx").display().to_string();
    let text = config("linear.onnx")
        .replace(&linear, &onnx)
        .replace("sample.csv", "sample.npz")
        .replace(INPUT, "pixels")
        .replace(OUTPUT, "shares")
        .replace(r#"columns = ["a", "b", "c"]"#, "")
        .replace(r#"columns = ["p", "q"]"#, "");
    world.write("model.toml", &text);
    let pixels: Vec<f32> = (0..8 * 64).map(|at| (at % 17) as f32).collect();
    write_npz(&world, "sample.npz", &[("pixels", &[8, 64], &pixels)]);
    let done = world.ok("pack model.toml --out digits.bwp");
    assert!(done.stderr.contains("quantised"), "{}", done.stderr);
    let plain = ready().ok("pack model.toml --out linear.bwp");
    assert!(!plain.stderr.contains("quantised"), "{}", plain.stderr);
}

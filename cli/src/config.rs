//! The short TOML that a person writes for `bellwether pack`. Unknown keys are refused by name;
//! what the ONNX file and the sample can tell is not asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bellwether_package::{ModelName, ModelVersion, PackageId, Selector};
use serde::{Deserialize, Deserializer, de};

use crate::failure::{Failure, Result};
use crate::files;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) model: Model,
    pub(crate) sample: Sample,
    /// One table for each input of the model.
    pub(crate) inputs: Vec<Port>,
    /// One table for each output of the model.
    pub(crate) outputs: Vec<Port>,
    /// Outputs of the model that are fed back as inputs of the next run.
    #[serde(default)]
    pub(crate) states: Vec<State>,
    /// Inputs of the model that are always the same.
    #[serde(default)]
    pub(crate) constants: Vec<Constant>,
    /// From raw readings to what the model is fed, in order.
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    pub(crate) golden: Golden,
    pub(crate) budget: Budget,
    pub(crate) card: Card,
    pub(crate) provenance: Provenance,
    pub(crate) activation: Option<Activation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    #[serde(deserialize_with = "text_value")]
    pub(crate) name: ModelName,
    #[serde(deserialize_with = "text_value")]
    pub(crate) version: ModelVersion,
    /// Relative to the TOML file.
    pub(crate) onnx: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    /// CSV, gzipped CSV, Parquet or NPZ, relative to the TOML file.
    pub(crate) path: PathBuf,
    /// Rows that are used, spread evenly over the file; all, unless given.
    pub(crate) rows_max: Option<usize>,
}

/// One input or output.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Port {
    /// The model's own name for it.
    pub(crate) name: String,
    /// Short form: fields named as these columns, all alike.
    #[serde(default)]
    pub(crate) columns: Vec<String>,
    /// Long form: one table for each element of the last axis.
    #[serde(default)]
    pub(crate) fields: Vec<Field>,
    /// For fields of the short form.
    #[serde(default)]
    pub(crate) unit: String,
    /// For fields of the short form.
    pub(crate) range: Option<[f32; 2]>,
    /// For fields of the short form.
    pub(crate) missing: Option<Missing>,
    /// For fields of the short form.
    #[serde(default)]
    pub(crate) export: bool,
    /// Where the model leaves a dimension open: its size, outermost first, 0 for the batch.
    pub(crate) shape: Option<Vec<u32>>,
}

/// What one run leaves for the next.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// The model's input that takes it.
    pub(crate) input: String,
    /// The model's output that gives it.
    pub(crate) output: String,
    /// Where the model leaves a dimension open: its size, outermost first, 0 for the batch.
    pub(crate) shape: Option<Vec<u32>>,
}

/// An input that is always the same.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Constant {
    /// The model's own name for it.
    pub(crate) name: String,
    /// A number, a truth value, or arrays of them.
    pub(crate) value: toml::Value,
}

impl Port {
    /// Whether devices may tell counts of any of its fields.
    pub(crate) fn exports(&self) -> bool {
        self.export || self.fields.iter().any(|field| field.export)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Field {
    pub(crate) name: String,
    /// The sample's column; the field's name, unless given.
    pub(crate) column: Option<String>,
    #[serde(default)]
    pub(crate) unit: String,
    /// Least and greatest value that is accepted.
    pub(crate) range: Option<[f32; 2]>,
    pub(crate) missing: Option<Missing>,
    /// Whether devices may tell its counts, with the least and greatest value of each window.
    #[serde(default)]
    pub(crate) export: bool,
    /// Codes of a field that is no number.
    pub(crate) categories: Option<Vec<i64>>,
    /// The sensor that it comes from.
    #[serde(default)]
    pub(crate) source: String,
}

/// What happens to a reading that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Missing {
    /// The input is refused.
    Refuse,
    /// The model gets NaN, or what a fill step makes of it.
    Nan,
}

/// A feature step; `field` is an input field's name.
#[derive(Debug, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Step {
    Unit {
        field: String,
        factor: f32,
        offset: f32,
    },
    Fill {
        field: String,
        value: f32,
    },
    Scale {
        field: String,
        centre: f32,
        deviation: f32,
    },
    Range {
        field: String,
        lo: f32,
        hi: f32,
    },
    Clip {
        field: String,
        lo: f32,
        hi: f32,
    },
    Window {
        len: u16,
        hop: u16,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Golden {
    /// Rows of the sample that become golden inputs, unless `--golden` brings its own.
    pub(crate) rows: usize,
    /// An output may differ by this, plus `tolerance_rel` of the expected value.
    pub(crate) tolerance_abs: f32,
    pub(crate) tolerance_rel: f32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) latency_us_p99: u32,
    pub(crate) memory_bytes: u64,
    /// Share of runs that may fail, 0 to 1.
    pub(crate) error_share_max: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    pub(crate) intended_use: String,
    #[serde(default)]
    pub(crate) limits: String,
    /// Figures, with the interval that each is believed to lie in.
    #[serde(default)]
    pub(crate) accuracy: Vec<Metric>,
    #[serde(default)]
    pub(crate) data: String,
    pub(crate) owner: String,
    #[serde(default)]
    pub(crate) prohibited_features: Vec<String>,
    #[serde(default)]
    pub(crate) fairness: String,
}

/// One figure of the card.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metric {
    /// What was measured, and on which data.
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Least and greatest.
    pub(crate) interval: Option<[f64; 2]>,
    /// Confidence of the interval, a share.
    #[serde(default = "usual_confidence")]
    pub(crate) confidence: f64,
}

/// Where and when the model may run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Activation {
    /// Devices on which it may run; all, unless given.
    #[serde(default)]
    pub(crate) regions: Vec<Selector>,
    /// Devices on which it must not run.
    #[serde(default)]
    pub(crate) excluded: Vec<Selector>,
    /// When it may run, in UTC; always, unless given.
    #[serde(default)]
    pub(crate) hours: Vec<Hours>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hours {
    pub(crate) days: Vec<Day>,
    /// First minute of the day, 0 to 1439.
    pub(crate) from_minute: u16,
    /// First minute that is no longer meant, at most 1440.
    pub(crate) until_minute: u16,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provenance {
    pub(crate) framework: String,
    #[serde(default)]
    pub(crate) code_commit: String,
    #[serde(default)]
    pub(crate) parameters: BTreeMap<String, toml::Value>,
    #[serde(default, deserialize_with = "text_values")]
    pub(crate) parents: Vec<PackageId>,
}

/// The file of one package to pack, with the folder that its paths start from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    folder: PathBuf,
}

impl Loaded {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// When it is no TOML, a key is unknown or missing, or a value is out of its bounds.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        let config: Config = toml::from_str(&text).map_err(|error| {
            let message = error.message().trim().to_owned();
            let first = message.lines().next().unwrap_or_default();
            let failure = Failure::operator(format!("{}: {first}", path.display()))
                .next("correct it; examples/shuttle/out/release-1.toml is a whole one");
            match error.span() {
                Some(span) => failure.pointing_at(path, &text, span, message.clone()),
                None => failure,
            }
        })?;
        check(&config).map_err(|problem| {
            Failure::operator(format!("{}: {problem}", path.display()))
                .next("correct the value and run it again")
        })?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { config, folder })
    }

    /// The ONNX file.
    pub(crate) fn onnx(&self) -> PathBuf {
        self.folder.join(&self.config.model.onnx)
    }

    /// The sample.
    pub(crate) fn sample(&self) -> PathBuf {
        self.folder.join(&self.config.sample.path)
    }
}

impl Port {
    /// Its fields, whichever form they were written in.
    pub(crate) fn all_fields(&self) -> Vec<Field> {
        let short = self.columns.iter().map(|column| Field {
            name: column.clone(),
            column: None,
            unit: self.unit.clone(),
            range: self.range,
            missing: self.missing,
            export: self.export,
            categories: None,
            source: String::new(),
        });
        short.chain(self.fields.iter().cloned()).collect()
    }
}

impl Field {
    /// The sample's column.
    pub(crate) fn column(&self) -> &str {
        self.column.as_deref().unwrap_or(&self.name)
    }
}

fn check(config: &Config) -> std::result::Result<(), String> {
    for port in config.inputs.iter().chain(&config.outputs) {
        if !port.columns.is_empty() && !port.fields.is_empty() {
            return Err(format!(
                "`{}` has both `columns` and `fields`: use one",
                port.name
            ));
        }
        for field in port.all_fields() {
            if let Some([lo, hi]) = field.range
                && (lo.is_nan() || hi.is_nan() || lo >= hi)
            {
                return Err(format!(
                    "the range of `{}` is not [least, greatest]",
                    field.name
                ));
            }
        }
    }
    let share = config.budget.error_share_max;
    if !(0.0..=1.0).contains(&share) {
        return Err("`budget.error_share_max` is a share between 0 and 1".to_owned());
    }
    for (name, tolerance) in [
        ("abs", config.golden.tolerance_abs),
        ("rel", config.golden.tolerance_rel),
    ] {
        if !(tolerance.is_finite() && tolerance >= 0.0) {
            return Err(format!(
                "`golden.tolerance_{name}` is a number of at least 0"
            ));
        }
    }
    if config.golden.rows == 0 {
        return Err("`golden.rows` must be at least 1".to_owned());
    }
    if config.sample.rows_max == Some(0) {
        return Err("`sample.rows_max` must be at least 1".to_owned());
    }
    Ok(())
}

fn usual_confidence() -> f64 {
    0.95
}

/// A value whose text form is checked by its type.
fn text_value<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|error| de::Error::custom(format!("`{text}` {error}")))
}

fn text_values<'de, D, T>(deserializer: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: String| {
        text.parse()
            .map_err(|error| de::Error::custom(format!("`{text}` {error}")))
    };
    texts.into_iter().map(parse).collect()
}

#[cfg(test)]
pub(crate) const EXAMPLE: &str = r#"
[model]
name = "shuttle"
version = "1.0.0"
onnx = "shuttle.onnx"

[sample]
path = "train.csv"

[[inputs]]
name = "readings"
columns = ["V1", "V2"]

[[outputs]]
name = "probabilities"
columns = ["normal", "anomaly"]

[golden]
rows = 8
tolerance_abs = 1e-4
tolerance_rel = 1e-4

[budget]
latency_us_p99 = 5000
memory_bytes = 67108864
error_share_max = 0.01

[card]
intended_use = "a test"
owner = "the tests"

[provenance]
framework = "none"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Loaded> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.toml");
        std::fs::write(&path, text).unwrap();
        Loaded::read(&path)
    }

    #[test]
    fn a_short_file_is_enough() {
        let loaded = load(EXAMPLE).unwrap();
        let fields = loaded.config.inputs[0].all_fields();
        assert_eq!(fields.len(), 2);
        assert_eq!(fields[1].column(), "V2");
    }

    #[test]
    fn an_unknown_key_is_named() {
        for (table, key) in [
            ("[model]", "colour"),
            ("[golden]", "tolerence"),
            ("[card]", "autor"),
        ] {
            let text = EXAMPLE.replace(table, &format!("{table}\n{key} = \"x\""));
            let refused = load(&text).unwrap_err().to_string();
            assert!(refused.contains(key), "{refused}");
        }
    }

    #[test]
    fn an_unknown_key_of_a_step_is_named() {
        let text = format!(
            "{EXAMPLE}\n[[steps]]\nstep = \"scale\"\nfield = \"V1\"\ncentre = 1\ndeviation = 2\nextra = 3\n"
        );
        let refused = load(&text).unwrap_err().to_string();
        assert!(refused.contains("extra"), "{refused}");
    }

    #[test]
    fn a_missing_safety_figure_has_no_default() {
        let refused = load(&EXAMPLE.replace("latency_us_p99 = 5000\n", "")).unwrap_err();
        assert!(
            refused.to_string().contains("latency_us_p99"),
            "{refused:?}"
        );
    }

    #[test]
    fn a_bad_version_is_refused_with_its_text() {
        let refused = load(&EXAMPLE.replace("\"1.0.0\"", "\"1.0\""))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("`1.0` is not a version"), "{refused}");
    }
}

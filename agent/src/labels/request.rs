//! `POST …/labels` as an application writes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};

use super::PredictionId;
use crate::api::request::shortened;

/// Labels of one request at most; an application with more sends several.
pub const LABELS_MAX: usize = 4096;

/// Body of `POST /v2/models/{slot}/labels`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelsRequest {
    /// The labels.
    pub labels: Vec<Label>,
}

/// What was true of one row of one prediction.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The prediction, as the answer named it.
    pub prediction: PredictionId,
    /// The row of it, from 0.
    #[serde(default)]
    pub row: usize,
    /// Output field and true value, or code.
    pub values: BTreeMap<String, f64>,
}

/// Why labels are refused. The application has to mend its request, but for the last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Too many at once.
    #[error("a request has 1 to {LABELS_MAX} labels: send several")]
    Many,
    /// The prediction has fewer rows.
    #[error("row {row} of a prediction with {rows} rows, counted from 0")]
    Row {
        /// The row.
        row: usize,
        /// Rows that there are.
        rows: usize,
    },
    /// The model has no such output field, or it must not leave the device.
    #[error(
        "`{field}` is no output field that may have labels: its contract must mark it `export`"
    )]
    Field {
        /// The field.
        field: String,
    },
    /// The value is no number, or no code of the field.
    #[error("the label of `{field}` is none of the values that the contract gives that field")]
    Value {
        /// The field.
        field: String,
    },
    /// Labels of too many fields since the last report.
    #[error("labels of too many fields wait to be reported: send them again later")]
    Full,
}

impl LabelError {
    pub(super) fn field(field: &str) -> Self {
        let field = shortened(field);
        Self::Field { field }
    }

    pub(super) fn value(field: &str) -> Self {
        let field = shortened(field);
        Self::Value { field }
    }
}

impl<'de> Deserialize<'de> for PredictionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = digits.then(|| u64::from_str_radix(&text, 16).ok());
        let id = id.flatten();
        id.map(Self)
            .ok_or_else(|| de::Error::custom("a prediction's id has 16 hexadecimal digits"))
    }
}

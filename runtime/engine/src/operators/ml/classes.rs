//! The classes of a classifier.

use tract_onnx::tract_hir::internal::*;

use super::attributes::{AttributeError, Attributes, Result};

/// What the classes are called.
///
/// Contracts have no text. Where classes are text, the label that the engine passes on is the
/// class's place among them, of type `u32`: no contract can name that type, so it can feed other
/// outputs, such as none at all, but never be taken for a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Classes {
    Numbered(Vec<i64>),
    /// This many.
    Text(usize),
}

impl Classes {
    pub(crate) fn of(
        attributes: Attributes<'_>,
        ints: &'static str,
        strings: &'static str,
    ) -> Result<Self> {
        let numbers = attributes.ints(ints)?.unwrap_or_default();
        let texts = attributes.strings(strings)?.unwrap_or_default();
        match (numbers, texts) {
            ([], []) => Err(AttributeError::Absent { name: ints }),
            (numbers, []) => Ok(Self::Numbered(numbers.to_vec())),
            (_, texts) => Ok(Self::Text(texts.len())),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Numbered(numbers) => numbers.len(),
            Self::Text(count) => *count,
        }
    }

    pub(crate) fn dtype(&self) -> DatumType {
        match self {
            Self::Numbered(_) => DatumType::I64,
            Self::Text(_) => DatumType::U32,
        }
    }

    /// The labels of rows whose classes are known.
    pub(crate) fn labels(&self, rows: &[Label]) -> TractResult<TValue> {
        let shape = [rows.len()];
        match self {
            Self::Numbered(numbers) => {
                let label = |row: &Label| match *row {
                    Label::Class(class) => numbers.get(class).copied().unwrap_or_default(),
                    Label::Sign(positive) => positive.into(),
                };
                let labels: Vec<i64> = rows.iter().map(label).collect();
                super::op::tensor(&shape, &labels)
            }
            Self::Text(_) => {
                let label = |row: &Label| match *row {
                    Label::Class(class) => class as u32,
                    Label::Sign(positive) => positive.into(),
                };
                let labels: Vec<u32> = rows.iter().map(label).collect();
                super::op::tensor(&shape, &labels)
            }
        }
    }
}

/// What a row was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// This class.
    Class(usize),
    /// 1 or 0, whatever the classes are called: what ONNX Runtime gives where scores cannot be
    /// brought together with classes.
    Sign(bool),
}

/// The first of the greatest scores; 0 of none.
pub(crate) fn greatest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = class;
        }
    }
    best
}

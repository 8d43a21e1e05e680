//! What is done to scores before they are given out.
//!
//! The formulas are those of ONNX Runtime, in `f32` as there: exporters are tested against it, and
//! the specification leaves open what one score for two classes means.

use super::attributes::{AttributeError, Attributes, Result};

/// The attribute `post_transform`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostTransform {
    None,
    Softmax,
    Logistic,
    /// Softmax that leaves zeros alone.
    SoftmaxZero,
    Probit,
}

impl PostTransform {
    pub(crate) fn of(attributes: Attributes<'_>) -> Result<Self> {
        let name = "post_transform";
        Ok(match attributes.word(name)? {
            None | Some("NONE") => Self::None,
            Some("SOFTMAX") => Self::Softmax,
            Some("LOGISTIC") => Self::Logistic,
            Some("SOFTMAX_ZERO") => Self::SoftmaxZero,
            Some("PROBIT") => Self::Probit,
            Some(other) => {
                let message = format!("`{other}` is not a transform");
                return Err(AttributeError::Value { name, message });
            }
        })
    }

    /// Transforms the scores of one row, of which there are several.
    pub(crate) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Softmax => softmax(scores),
            Self::Logistic => scores
                .iter_mut()
                .for_each(|score| *score = logistic(*score)),
            Self::SoftmaxZero => softmax_zero(scores),
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
        }
    }
}

pub(crate) fn logistic(score: f32) -> f32 {
    let share = 1.0 / (1.0 + (-score.abs()).exp());
    if score < 0.0 { 1.0 - share } else { share }
}

pub(crate) fn probit(score: f32) -> f32 {
    std::f32::consts::SQRT_2 * inverse_error_function(2.0 * score - 1.0)
}

/// Winitzki's approximation.
fn inverse_error_function(x: f32) -> f32 {
    const A: f32 = 0.147;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f32::consts::PI * A) + 0.5 * log;
    let root = (-v + (v * v - log / A).sqrt()).sqrt();
    if x < 0.0 { -root } else { root }
}

fn softmax(scores: &mut [f32]) {
    let greatest = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in &mut *scores {
        *score = (*score - greatest).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

fn softmax_zero(scores: &mut [f32]) {
    /// Nearer to zero is zero.
    const ZERO: f32 = 1e-7;
    let greatest = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in &mut *scores {
        if score.abs() > ZERO {
            *score = (*score - greatest).exp();
            sum += *score;
        } else {
            *score *= (-greatest).exp();
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

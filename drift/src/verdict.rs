//! The five words for what the counts say.

use serde::{Deserialize, Serialize};

/// What the counts say. Silence is never health: nothing counted is [`Verdict::Insufficient`].
///
/// Wire enum: append only; a reordered variant breaks devices in the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Enough was counted, and nothing moved by more than the effect size.
    Healthy,
    /// A distribution or a rate moved: significantly, and by more than the effect size.
    Drifted,
    /// An output is no longer a number more often than in training.
    Failing,
    /// Not enough was counted to tell.
    Insufficient,
    /// Counts that counting under that baseline cannot give.
    Invalid,
}

impl Verdict {
    /// The graver of two: invalid, failing, drifted, insufficient, healthy.
    pub fn worst(self, other: Self) -> Self {
        if other.gravity() > self.gravity() {
            other
        } else {
            self
        }
    }

    fn gravity(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Insufficient => 1,
            Self::Drifted => 2,
            Self::Failing => 3,
            Self::Invalid => 4,
        }
    }
}

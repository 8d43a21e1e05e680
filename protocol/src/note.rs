//! A short text from one person to another, such as the reason for a disable order.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Longest note in bytes: one sentence, so that four slots still fit an assignment.
pub const NOTE_BYTES_MAX: usize = 120;

/// One line of text: at most 120 bytes, without control characters.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Note(heapless::String<NOTE_BYTES_MAX, u8>);

impl Note {
    /// As much of `text` as fits; control characters become spaces.
    pub fn new(text: &str) -> Self {
        let mut note = heapless::String::new();
        for character in text.chars() {
            let character = if character.is_control() {
                ' '
            } else {
                character
            };
            if note.push(character).is_err() {
                break;
            }
        }
        Self(note)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Note({:?})", self.as_str())
    }
}

impl From<&str> for Note {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = heapless::String::<NOTE_BYTES_MAX, u8>::deserialize(deserializer)?;
        if text.chars().any(char::is_control) {
            return Err(serde::de::Error::custom("a note has no control characters"));
        }
        Ok(Self(text))
    }
}

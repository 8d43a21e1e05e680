//! Digests, names, selectors, times and keys: the words that every other crate shares.
//!
//! A value of these types is valid: construction and deserialisation both check. In binary formats
//! digests and keys are plain bytes; in formats for people (JSON) they are lower-case hex.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest model name in bytes: fits a label on a console and a directory name.
pub const MODEL_NAME_BYTES_MAX: usize = 48;
/// Longest slot name in bytes: slots are named by application engineers, briefly.
pub const SLOT_NAME_BYTES_MAX: usize = 32;
/// Longest attribute key in bytes.
pub const ATTRIBUTE_KEY_BYTES_MAX: usize = 24;
/// Longest attribute value in bytes.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 48;
/// Most attributes that one device has: bounds what a selector is compared with.
pub const ATTRIBUTES_MAX: usize = 32;
/// Most terms in one selector.
pub const SELECTOR_TERMS_MAX: usize = 8;
/// Longest selector text in bytes: keeps an approval with eight selectors within its bound.
pub const SELECTOR_BYTES_MAX: usize = 192;

/// Why a text or bytes are not a valid id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given where something must stand.
    #[error("is empty")]
    Empty,
    /// The text is longer than its bound.
    #[error("is longer than {bytes_max} bytes")]
    TooLong {
        /// The bound, in bytes.
        bytes_max: usize,
    },
    /// A character outside the allowed set.
    #[error("has a character that is not allowed here")]
    Character,
    /// Not hexadecimal, or not of the right length.
    #[error("is not {bytes} bytes in hexadecimal")]
    Hex {
        /// The length that is expected, in bytes.
        bytes: usize,
    },
    /// A version that is not `major.minor.patch`.
    #[error("is not a version such as 1.4.0")]
    Version,
    /// A selector term that is not `key=value`.
    #[error("is not a selector such as class=pump,site=lyon or *")]
    Selector,
    /// The same key twice in one selector.
    #[error("names the same key twice")]
    KeyTwice,
    /// More terms than a selector may have.
    #[error("has more than {SELECTOR_TERMS_MAX} terms")]
    TooManyTerms,
}

macro_rules! bytes_id {
    ($(#[$meta:meta])* $name:ident, $bytes:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_bytes(&self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_bytes(deserializer).map(Self)
            }
        }
    };
}

bytes_id!(
    /// A SHA-256 digest.
    Digest, 32
);
bytes_id!(
    /// An Ed25519 public key, as RFC 8032 encodes it. Not necessarily a valid point.
    PublicKey, 32
);
bytes_id!(
    /// An Ed25519 signature, as RFC 8032 encodes it.
    Signature, 64
);

macro_rules! digest_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The first 12 hexadecimal digits, for people; never for comparison.
            pub fn short(&self) -> heapless::String<12> {
                let mut text = heapless::String::new();
                for byte in &self.0.0[..6] {
                    // Six bytes are twelve digits: they always fit.
                    let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
                }
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map(Self)
            }
        }
    };
}

digest_id!(
    /// What a package is called everywhere: the SHA-256 of its manifest's bytes.
    PackageId
);
digest_id!(
    /// What a trust root is called: the SHA-256 of the payload of its version 1. Rotations keep it.
    RootId
);

macro_rules! name_id {
    ($(#[$meta:meta])* $name:ident, $bytes_max:expr, $allowed:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(heapless::String<{ $bytes_max }, u8>);

        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            ///
            /// [`IdError`] when it is empty, too long or has other characters than allowed.
            pub fn new(text: &str) -> Result<Self, IdError> {
                if text.is_empty() {
                    return Err(IdError::Empty);
                }
                if !text.bytes().all($allowed) {
                    return Err(IdError::Character);
                }
                heapless::String::try_from(text)
                    .map(Self)
                    .map_err(|_| IdError::TooLong { bytes_max: $bytes_max })
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        text_impls!($name);
    };
}

macro_rules! text_impls {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = IdError;

            fn try_from(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", stringify!($name)))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    };
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

fn is_model_byte(byte: u8) -> bool {
    is_lower(byte) || byte == b'_' || byte == b'.'
}

/// Anything printable except what the text form of a selector needs for itself.
fn is_attribute_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'=' | b',' | b'*' | b'"' | b'\'' | b'\\')
}

name_id!(
    /// The name of a model through all its versions: 1 to 48 bytes of `a-z 0-9 - _ .`
    ModelName, MODEL_NAME_BYTES_MAX, is_model_byte
);
name_id!(
    /// The named place on a device where an application expects a model: 1 to 32 bytes of
    /// `a-z 0-9 -`
    SlotName, SLOT_NAME_BYTES_MAX, is_lower
);
name_id!(
    /// What an attribute is about: 1 to 24 printable ASCII bytes without `= , * " ' \`
    AttributeKey, ATTRIBUTE_KEY_BYTES_MAX, is_attribute_byte
);
name_id!(
    /// What an attribute says: 1 to 48 printable ASCII bytes without `= , * " ' \`
    AttributeValue, ATTRIBUTE_VALUE_BYTES_MAX, is_attribute_byte
);

/// The slot of the device's own programs. No model serves there, and programs nowhere else.
pub const AGENT_SLOT: &str = "agent";

impl SlotName {
    /// Whether this is the slot of the device's own programs.
    pub fn is_agent(&self) -> bool {
        self.as_str() == AGENT_SLOT
    }
}

/// A version of a model, ordered by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelVersion {
    /// Raised when the contract changes.
    pub major: u32,
    /// Raised when the model is trained anew.
    pub minor: u32,
    /// Raised for anything smaller.
    pub patch: u32,
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for ModelVersion {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('.').map(|part| {
            // `parse` alone would let "+1" pass.
            if part.bytes().all(|byte| byte.is_ascii_digit()) {
                part.parse().ok()
            } else {
                None
            }
        });
        let mut next = || parts.next().flatten().ok_or(IdError::Version);
        let version = Self {
            major: next()?,
            minor: next()?,
            patch: next()?,
        };
        if parts.next().is_some() {
            Err(IdError::Version)
        } else {
            Ok(version)
        }
    }
}

/// One fact about a device, measured or configured: `site=lyon`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attribute {
    /// What it is about.
    pub key: AttributeKey,
    /// What it says.
    pub value: AttributeValue,
}

impl Attribute {
    /// Checks both texts.
    ///
    /// # Errors
    ///
    /// [`IdError`] of the first one that is not valid.
    pub fn new(key: &str, value: &str) -> Result<Self, IdError> {
        Ok(Self {
            key: AttributeKey::new(key)?,
            value: AttributeValue::new(value)?,
        })
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// Which devices are meant: all terms must hold. `*` means every device.
///
/// Kept and sent as its text (`class=pump,site=lyon`), which is also what people read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(heapless::String<SELECTOR_BYTES_MAX, u8>);

impl Selector {
    /// Every device.
    pub fn everything() -> Self {
        Self(heapless::String::new())
    }

    /// Checks a text such as `class=pump,site=lyon`; `*` and the empty text mean every device.
    ///
    /// # Errors
    ///
    /// [`IdError`] when a term is not `key=value`, a key stands twice, or there is too much of it.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if text == "*" || text.is_empty() {
            return Ok(Self::everything());
        }
        for (index, term) in text.split(',').enumerate() {
            if index == SELECTOR_TERMS_MAX {
                return Err(IdError::TooManyTerms);
            }
            let (key, value) = term.split_once('=').ok_or(IdError::Selector)?;
            Attribute::new(key, value)?;
            if split_terms(text)
                .take(index)
                .any(|(earlier, _)| earlier == key)
            {
                return Err(IdError::KeyTwice);
            }
        }
        heapless::String::try_from(text)
            .map(Self)
            .map_err(|_| IdError::TooLong {
                bytes_max: SELECTOR_BYTES_MAX,
            })
    }

    /// A selector of these terms.
    ///
    /// # Errors
    ///
    /// As [`Selector::new`].
    pub fn of(terms: &[Attribute]) -> Result<Self, IdError> {
        let mut text = heapless::String::<SELECTOR_BYTES_MAX, u8>::new();
        for (index, term) in terms.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            fmt::Write::write_fmt(&mut text, format_args!("{comma}{term}")).map_err(|_| {
                IdError::TooLong {
                    bytes_max: SELECTOR_BYTES_MAX,
                }
            })?;
        }
        Self::new(&text)
    }

    /// The text form; `*` for every device.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "*" } else { &self.0 }
    }

    /// The terms, as key and value.
    pub fn terms(&self) -> impl Iterator<Item = (&str, &str)> {
        split_terms(&self.0)
    }

    /// Whether every device is meant.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a device with these attributes is meant.
    pub fn matches(&self, attributes: &[Attribute]) -> bool {
        self.terms().all(|(key, value)| {
            attributes
                .iter()
                .any(|attribute| attribute.key.as_str() == key && attribute.value.as_str() == value)
        })
    }
}

text_impls!(Selector);

fn split_terms(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter_map(|term| term.split_once('='))
}

/// Seconds since 1970-01-01 00:00 UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixSecs(pub u64);

impl UnixSecs {
    /// This time and `secs` later, at most the end of time.
    #[must_use]
    pub fn plus_secs(self, secs: u64) -> Self {
        Self(self.0.saturating_add(secs))
    }

    /// Seconds from `earlier` to this time; 0 when `earlier` is later.
    #[must_use]
    pub fn secs_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for UnixSecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let error = IdError::Hex { bytes: N };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(error);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |ascii: u8| (ascii as char).to_digit(16).ok_or(error);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Ok(bytes)
}

fn serialize_bytes<S: Serializer, const N: usize>(
    bytes: &[u8; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return serializer.collect_str(&Hex(bytes));
    }
    let mut tuple = serializer.serialize_tuple(N)?;
    for byte in bytes {
        serde::ser::SerializeTuple::serialize_element(&mut tuple, byte)?;
    }
    serde::ser::SerializeTuple::end(tuple)
}

fn deserialize_bytes<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    struct Plain<const N: usize>;

    impl<'de, const N: usize> de::Visitor<'de> for Plain<N> {
        type Value = [u8; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{N} bytes, in hexadecimal where people read")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; N], E> {
            parse_hex(text).map_err(E::custom)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; N], A::Error> {
            let mut bytes = [0; N];
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = seq
                    .next_element()?
                    .ok_or_else(|| de::Error::invalid_length(index, &self))?;
            }
            Ok(bytes)
        }
    }

    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Plain::<N>)
    } else {
        deserializer.deserialize_tuple(N, Plain::<N>)
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

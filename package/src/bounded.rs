//! Deserialisation with bounds, so that a few bytes cannot claim much memory.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// Elements that are reserved before the first one has been read.
const RESERVED_MAX: usize = 16;

/// A list of at most `N` elements.
pub(crate) fn list<'de, D, T, const N: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const N: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {N} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let claimed = seq.size_hint().unwrap_or(0);
            if claimed > N {
                return Err(de::Error::invalid_length(claimed, &self));
            }
            let mut list = Vec::with_capacity(claimed.min(RESERVED_MAX));
            while let Some(element) = seq.next_element()? {
                if list.len() == N {
                    return Err(de::Error::invalid_length(N + 1, &self));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List::<T, N>(PhantomData))
}

/// A text of at most `N` bytes without control characters other than a new line.
pub(crate) fn text<'de, D, const N: usize>(deserializer: D) -> Result<String, D::Error>
where
    D: Deserializer<'de>,
{
    struct Text<const N: usize>;

    impl<const N: usize> Visitor<'_> for Text<N> {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a text of at most {N} bytes without control characters")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            if text.len() > N {
                return Err(E::invalid_length(text.len(), &self));
            }
            // Cards are shown on terminals: no escape sequences.
            if text.chars().any(|char| char.is_control() && char != '\n') {
                return Err(E::custom("a control character"));
            }
            Ok(text.into())
        }
    }

    deserializer.deserialize_str(Text::<N>)
}

/// Texts that stand in a list.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<const N: usize>(#[serde(deserialize_with = "text::<_, N>")] String);

/// A list of at most `N` texts of at most `M` bytes each.
pub(crate) fn texts<'de, D, const N: usize, const M: usize>(
    deserializer: D,
) -> Result<Vec<String>, D::Error>
where
    D: Deserializer<'de>,
{
    let texts = list::<_, Text<M>, N>(deserializer)?;
    Ok(texts.into_iter().map(|text| text.0).collect())
}

/// A list of at most `N` pairs of texts of at most `M` bytes each.
pub(crate) fn pairs<'de, D, const N: usize, const M: usize>(
    deserializer: D,
) -> Result<Vec<(String, String)>, D::Error>
where
    D: Deserializer<'de>,
{
    let pairs = list::<_, (Text<M>, Text<M>), N>(deserializer)?;
    Ok(pairs
        .into_iter()
        .map(|(key, value)| (key.0, value.0))
        .collect())
}

/// Bytes, at most `N` of them.
pub(crate) fn bytes<'de, D, const N: usize>(deserializer: D) -> Result<Vec<u8>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Bytes<const N: usize>;

    impl<'de, const N: usize> Visitor<'de> for Bytes<N> {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {N} bytes")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            if bytes.len() > N {
                return Err(E::invalid_length(bytes.len(), &self));
            }
            Ok(bytes.into())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = seq.next_element()? {
                if bytes.len() == N {
                    return Err(de::Error::invalid_length(N + 1, &self));
                }
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }

    deserializer.deserialize_bytes(Bytes::<N>)
}

/// Writes bytes as bytes, in one piece.
pub(crate) fn write_bytes<S: serde::Serializer>(
    bytes: &[u8],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

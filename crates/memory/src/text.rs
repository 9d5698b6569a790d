//! Bytes of any kind as JSON text: each byte is the character of the same number (Latin-1), so that what
//! is UTF-8 in ASCII can be read and nothing is lost.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

fn from_text<E: Error>(text: &str) -> Result<Vec<u8>, E> {
    let byte = |c: char| u8::try_from(u32::from(c)).map_err(|_| E::custom("a character above U+00FF"));
    text.chars().map(byte).collect()
}

fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// For `#[serde(with)]`: one string.
pub(crate) mod latin1 {
    use super::*;
    use serde::Serializer;

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_text(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from_text(&String::deserialize(from)?)
    }
}

/// For `#[serde(with)]`: a list of strings.
pub(crate) mod latin1_list {
    use super::*;
    use serde::Serializer;

    pub fn serialize<S: Serializer>(list: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|bytes| to_text(bytes)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
        Vec::<String>::deserialize(from)?.iter().map(|text| from_text(text)).collect()
    }
}

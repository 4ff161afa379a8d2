//! Variables and what they hold.

use std::fmt;
use std::sync::Arc;

use holdfast_proto::v1 as proto;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::Key;

/// What the bytes of a value are. The cluster never looks into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Bytes that mean what the programs have agreed on.
    Bytes,
    /// A JSON text: what every language reads.
    Json,
    /// A Python pickle. Never taken apart here: that would run whatever it says.
    Pickle,
}

/// What a variable holds: bytes, and what they are. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    codec: Codec,
    bytes: Arc<[u8]>,
}

/// A value that is not what it was asked for as, or that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It is not JSON by its tag.
    #[error("the value is tagged {0:?} and not Json; take its bytes")]
    NotJson(Codec),
    /// It is JSON of another shape, or none.
    #[error("the value cannot be read: {0}")]
    Decode(String),
    /// It cannot be a JSON text.
    #[error("the value cannot be written as JSON: {0}")]
    Encode(String),
}

impl Content {
    /// Bytes with this tag.
    pub fn new(codec: Codec, bytes: impl Into<Arc<[u8]>>) -> Content {
        Content { codec, bytes: bytes.into() }
    }

    /// A value as a JSON text.
    ///
    /// # Errors
    /// [`CodecError::Encode`] if JSON has no form for it, as for a map whose keys are no texts.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Content, CodecError> {
        let text = serde_json::to_vec(value).map_err(|e| CodecError::Encode(e.to_string()))?;
        Ok(Content::new(Codec::Json, text))
    }

    /// What the bytes are.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The bytes, exactly as they were written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the JSON text says.
    ///
    /// # Errors
    /// [`CodecError::NotJson`] if it has another tag; [`CodecError::Decode`] if it is no such value.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        match self.codec {
            Codec::Json => {
                serde_json::from_slice(&self.bytes).map_err(|e| CodecError::Decode(e.to_string()))
            }
            Codec::Bytes | Codec::Pickle => Err(CodecError::NotJson(self.codec)),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.codec, std::str::from_utf8(&self.bytes)) {
            (Codec::Json, Ok(text)) => f.write_str(text),
            (codec, _) => write!(f, "<{codec:?}, {} bytes>", self.bytes.len()),
        }
    }
}

/// A variable as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub key: Key,
    /// How often it has been written since it was created; 0: it is not there.
    pub version: u64,
    /// The revision that wrote it last; 0: it is not there.
    pub mod_revision: u64,
    /// What it holds. None if it is not there, and where values were not asked for or left out.
    pub content: Option<Content>,
}

/// The variables that begin with a prefix, or several others, as they were at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What they are true at.
    pub revision: u64,
    /// In order of their keys, or in the order asked for.
    pub variables: Vec<Variable>,
}

impl Codec {
    pub(super) fn to_wire(self) -> proto::Codec {
        match self {
            Codec::Bytes => proto::Codec::Bytes,
            Codec::Json => proto::Codec::Json,
            Codec::Pickle => proto::Codec::Pickle,
        }
    }

    /// A tag that this release does not know is bytes to it.
    fn from_wire(codec: i32) -> Codec {
        match proto::Codec::try_from(codec) {
            Ok(proto::Codec::Json) => Codec::Json,
            Ok(proto::Codec::Pickle) => Codec::Pickle,
            Ok(proto::Codec::Bytes | proto::Codec::Unspecified) | Err(_) => Codec::Bytes,
        }
    }
}

impl Variable {
    /// As it came; `has_value` says whether its value did.
    pub(super) fn from_wire(variable: proto::Variable, has_value: bool) -> Variable {
        let proto::Variable { key, version, mod_revision, codec, value } = variable;
        let content = Content::new(Codec::from_wire(codec), value);
        let has_value = has_value && version > 0;
        let content = has_value.then_some(content);
        Variable { key: Key::from_bytes(&key), version, mod_revision, content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_unless_they_say_otherwise() {
        let content = Content::json(&("a", 1.5)).expect("it is JSON");
        assert_eq!((content.codec(), content.bytes()), (Codec::Json, &b"[\"a\",1.5]"[..]));
        assert_eq!(content.parse::<(String, f64)>(), Ok(("a".to_owned(), 1.5)));
        assert!(matches!(content.parse::<u8>(), Err(CodecError::Decode(_))));
        let pickle = Content::new(Codec::Pickle, *b"\x80\x05K\x01.");
        assert_eq!(pickle.parse::<u8>(), Err(CodecError::NotJson(Codec::Pickle)));
        assert_eq!(pickle.bytes(), b"\x80\x05K\x01.");
        let keyed = std::collections::BTreeMap::from([(vec![1], 2)]);
        assert!(matches!(Content::json(&keyed), Err(CodecError::Encode(_))));
    }
}

//! How keys and values become bytes: keys so that their order is kept, values with a version in front.
//!
//! # Keys
//!
//! A key is a table's prefix byte and then its parts, one behind the other: unsigned numbers as eight bytes
//! big-endian, signed ones the same with the sign bit flipped, byte strings with each 0x00 spelt 0x00 0xff
//! and 0x00 0x00 behind them, text as its UTF-8. Comparing two keys as bytes compares their parts in turn,
//! and the bytes of a leading part, or of the beginning of a byte string, are a prefix of exactly the keys
//! that begin with it.
//!
//! # Values
//!
//! A value is one version byte and then bincode (its standard configuration: little-endian, varints). A
//! reader refuses a version it does not know, anything above its size limit, and bytes left over.

use serde::{Deserialize, Serialize};

use crate::limits;

/// Why bytes cannot be read, or a value not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There is nothing where a value should be.
    #[error("it is empty")]
    Empty,
    /// The version byte is none that this build knows.
    #[error("it has format version {found}, this build knows {known}")]
    UnknownVersion {
        /// The version byte.
        found: u8,
        /// The version that this build reads.
        known: u8,
    },
    /// The encoded form is above its limit.
    #[error("it takes {actual} bytes, {allowed} are allowed")]
    TooLong {
        /// The encoded size, in bytes.
        actual: usize,
        /// The limit, in bytes.
        allowed: usize,
    },
    /// The bytes are not what the version byte says.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// A value ended before its bytes did.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    /// A key is not made of the parts that its table has.
    #[error("its key is malformed")]
    MalformedKey,
}

/// Encodes a value: its version, then bincode. An error if that takes more than `bytes_max`.
pub(crate) fn encode(
    version: u8,
    value: &impl Serialize,
    bytes_max: usize,
) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(version);
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match bytes.len() {
        actual if actual > bytes_max => Err(CodecError::TooLong { actual, allowed: bytes_max }),
        _ => Ok(bytes),
    }
}

/// Decodes what [`encode`] made with the same version and limit. The value may borrow from the bytes.
pub(crate) fn decode<'a, T: Deserialize<'a>>(
    version: u8,
    bytes: &'a [u8],
    bytes_max: usize,
) -> Result<T, CodecError> {
    if bytes.len() > bytes_max {
        return Err(CodecError::TooLong { actual: bytes.len(), allowed: bytes_max });
    }
    let (found, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *found != version {
        return Err(CodecError::UnknownVersion { found: *found, known: version });
    }
    // bincode counts what a value claims to hold against this limit before it reserves memory for it.
    let config = bincode::config::standard().with_limit::<{ limits::DECODE_BYTES_MAX }>();
    let (value, read) = bincode::serde::borrow_decode_from_slice(body, config)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match body.len() - read {
        0 => Ok(value),
        left => Err(CodecError::LeftOver(left)),
    }
}

/// Byte strings as one piece; serde by itself would go through them byte by byte.
pub(crate) mod raw {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    use crate::Bytes;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes.as_ref())
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor)
    }

    struct BytesVisitor;

    impl Visitor<'_> for BytesVisitor {
        type Value = Bytes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a byte string")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(bytes.into())
        }
    }
}

/// A key, or the leading parts of one. `Owned` is the key that a table is declared with.
pub(crate) trait EncodeKey {
    /// What decoding gives back.
    type Owned;
    /// Appends the parts to `out`.
    fn encode_key(&self, out: &mut Vec<u8>);
}

/// A key that can be read back from its bytes.
pub(crate) trait DecodeKey: Sized {
    /// Takes the parts off the front of `input`.
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError>;
}

impl EncodeKey for u8 {
    type Owned = u8;
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
}

impl DecodeKey for u8 {
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError> {
        Ok(take::<1>(input)?[0])
    }
}

impl EncodeKey for u64 {
    type Owned = u64;
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl DecodeKey for u64 {
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError> {
        Ok(u64::from_be_bytes(take(input)?))
    }
}

impl EncodeKey for i64 {
    type Owned = i64;
    fn encode_key(&self, out: &mut Vec<u8>) {
        (self.cast_unsigned() ^ (1 << 63)).encode_key(out);
    }
}

impl DecodeKey for i64 {
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError> {
        Ok((u64::decode_key(input)? ^ (1 << 63)).cast_signed())
    }
}

/// A byte string, as a part of a key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteString(pub(crate) Vec<u8>);

impl std::fmt::Debug for ByteString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl EncodeKey for &[u8] {
    type Owned = ByteString;
    fn encode_key(&self, out: &mut Vec<u8>) {
        Beginning(self).encode_key(out);
        out.extend_from_slice(&[0, 0]);
    }
}

impl DecodeKey for ByteString {
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError> {
        let mut bytes = Vec::new();
        loop {
            let zero = input.iter().position(|byte| *byte == 0).ok_or(CodecError::MalformedKey)?;
            bytes.extend_from_slice(&input[..zero]);
            *input = &input[zero..];
            match take(input)? {
                [_, 0] => return Ok(ByteString(bytes)),
                [_, 0xff] => bytes.push(0),
                [_, _] => return Err(CodecError::MalformedKey),
            }
        }
    }
}

/// The beginning of a byte string, to look for keys by.
pub(crate) struct Beginning<'a>(pub(crate) &'a [u8]);

impl EncodeKey for Beginning<'_> {
    /// It is no whole part: there is nothing to decode.
    type Owned = ();
    fn encode_key(&self, out: &mut Vec<u8>) {
        for (nth, piece) in self.0.split(|byte| *byte == 0).enumerate() {
            if nth > 0 {
                out.extend_from_slice(&[0, 0xff]);
            }
            out.extend_from_slice(piece);
        }
    }
}

impl EncodeKey for &str {
    type Owned = String;
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.as_bytes().encode_key(out);
    }
}

impl DecodeKey for String {
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError> {
        let ByteString(text) = ByteString::decode_key(input)?;
        String::from_utf8(text).map_err(|_| CodecError::MalformedKey)
    }
}

impl<A: EncodeKey, B: EncodeKey> EncodeKey for (A, B) {
    type Owned = (A::Owned, B::Owned);
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.0.encode_key(out);
        self.1.encode_key(out);
    }
}

impl<A: DecodeKey, B: DecodeKey> DecodeKey for (A, B) {
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError> {
        Ok((A::decode_key(input)?, B::decode_key(input)?))
    }
}

impl<A: EncodeKey, B: EncodeKey, C: EncodeKey> EncodeKey for (A, B, C) {
    type Owned = (A::Owned, B::Owned, C::Owned);
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.0.encode_key(out);
        self.1.encode_key(out);
        self.2.encode_key(out);
    }
}

impl<A: DecodeKey, B: DecodeKey, C: DecodeKey> DecodeKey for (A, B, C) {
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError> {
        Ok((A::decode_key(input)?, B::decode_key(input)?, C::decode_key(input)?))
    }
}

impl<A: EncodeKey, B: EncodeKey, C: EncodeKey, D: EncodeKey> EncodeKey for (A, B, C, D) {
    type Owned = (A::Owned, B::Owned, C::Owned, D::Owned);
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.0.encode_key(out);
        self.1.encode_key(out);
        self.2.encode_key(out);
        self.3.encode_key(out);
    }
}

impl<A: DecodeKey, B: DecodeKey, C: DecodeKey, D: DecodeKey> DecodeKey for (A, B, C, D) {
    fn decode_key(input: &mut &[u8]) -> Result<Self, CodecError> {
        let (a, b, c) = <(A, B, C)>::decode_key(input)?;
        Ok((a, b, c, D::decode_key(input)?))
    }
}

/// Takes `N` bytes off the front of `input`.
pub(crate) fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (bytes, rest) = input.split_first_chunk().ok_or(CodecError::MalformedKey)?;
    *input = rest;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: impl EncodeKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        parts.encode_key(&mut bytes);
        bytes
    }

    #[test]
    fn keys_have_these_bytes() {
        assert_eq!(key(7u8), [7]);
        assert_eq!(key(258u64), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(key(1i64), [0x80, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(key(-1i64), [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(key("a\0b"), [b'a', 0, 0xff, b'b', 0, 0]);
        assert_eq!(key(("", 1u8)), [0, 0, 1]);
    }

    #[test]
    fn byte_order_is_the_order_of_the_parts() {
        let numbers = [i64::MIN, -2, -1, 0, 1, 255, 256, i64::MAX];
        let texts = ["", "\0", "\0\0", "\0a", "a", "a\0", "a\0b", "aa", "b", "ä", "\u{ffff}"];
        for left in texts.iter().flat_map(|text| numbers.map(|number| (*text, number))) {
            for right in texts.iter().flat_map(|text| numbers.map(|number| (*text, number))) {
                assert_eq!(left.cmp(&right), key(left).cmp(&key(right)), "{left:?}, {right:?}");
            }
        }
    }

    #[test]
    fn keys_read_back() {
        let bytes = key(("a\0b", -5i64, u64::MAX, 7u8));
        let mut input = bytes.as_slice();
        let parts = <(String, i64, u64, u8)>::decode_key(&mut input);
        assert_eq!(parts, Ok(("a\0b".to_owned(), -5, u64::MAX, 7)));
        assert!(input.is_empty());
    }

    #[test]
    fn leading_parts_are_a_prefix_of_no_other_keys() {
        assert!(key(("a", 1i64)).starts_with(&key("a")));
        assert!(!key(("ab", 1i64)).starts_with(&key("a")));
        assert!(!key(("a\0", 1i64)).starts_with(&key("a")));
    }

    #[test]
    fn a_beginning_is_a_prefix_of_exactly_what_begins_with_it() {
        let all: Vec<Vec<u8>> = (0..4 * 4 * 4)
            .map(|nth| {
                let digits = [nth / 16 % 4, nth / 4 % 4, nth % 4];
                digits
                    .iter()
                    .filter_map(|digit| [None, Some(0), Some(1), Some(0xff)][*digit])
                    .collect()
            })
            .collect();
        for whole in &all {
            for part in &all {
                let is_prefix = key((whole.as_slice(), 7u8)).starts_with(&key(Beginning(part)));
                assert_eq!(is_prefix, whole.starts_with(part), "{whole:?}, {part:?}");
            }
        }
    }

    #[test]
    fn malformed_keys_are_errors() {
        let decode = |mut bytes: &[u8]| String::decode_key(&mut bytes);
        for bytes in [b"".as_slice(), b"abc", b"abc\0", b"a\0\x01b\0\0", b"\xff\0\0"] {
            assert_eq!(decode(bytes), Err(CodecError::MalformedKey), "{bytes:?}");
        }
        assert_eq!(u64::decode_key(&mut [0; 7].as_slice()), Err(CodecError::MalformedKey));
    }

    #[test]
    fn values_have_these_bytes() {
        let value = (300u64, Some("ab"), false);
        let bytes = encode(3, &value, 100).expect("it is short");
        assert_eq!(bytes, [3, 251, 44, 1, 1, 2, b'a', b'b', 0]);
        assert_eq!(decode(3, &bytes, 100), Ok(value));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let bytes = encode(3, &"ab", 100).expect("it is short");
        let decode = |version, bytes: &[u8], max| decode::<String>(version, bytes, max);
        assert_eq!(decode(3, &[], 100), Err(CodecError::Empty));
        assert_eq!(decode(4, &bytes, 100), Err(CodecError::UnknownVersion { found: 3, known: 4 }));
        assert_eq!(decode(3, &bytes, 3), Err(CodecError::TooLong { actual: 4, allowed: 3 }));
        assert!(matches!(decode(3, &bytes[..3], 100), Err(CodecError::Malformed(_))));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode(3, &longer, 100), Err(CodecError::LeftOver(1)));
    }

    #[test]
    fn a_length_that_lies_reserves_no_memory() {
        // A text that claims 2^60 bytes.
        let bytes = [3, 253, 0, 0, 0, 0, 0, 0, 0, 16];
        assert!(matches!(decode::<String>(3, &bytes, 100), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<Vec<u64>>(3, &bytes, 100), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn a_value_beyond_its_limit_is_not_written() {
        assert_eq!(encode(1, &[0u8; 9], 10).map(|bytes| bytes.len()), Ok(10));
        assert_eq!(encode(1, &[0u8; 10], 10), Err(CodecError::TooLong { actual: 11, allowed: 10 }));
    }
}

//! Keys of variables: what they are made of, and their bytes.
//!
//! A key is none, a bool, an int, a float, a str, bytes, or a tuple of these, as Python has them. Its
//! *encoding* is canonical (equal keys have equal bytes: `1`, `1.0` and `True` are one key, `'x'` and `b'x'`
//! are two) and keeps the order: none, then numbers, texts, byte strings and tuples; numbers by value, texts
//! by code points, byte strings by bytes, tuples by their parts, a tuple before a longer one that begins with
//! it. docs/formats.md has the bytes, `proto/vectors/stm_keys.json` examples for every language.
//!
//! Each part is a tag and what follows; texts, byte strings and tuples end in a zero byte, and a zero byte
//! inside the first two is followed by 0xff. No tag is 0xff, and none is zero, so an end sorts before
//! whatever goes on.
//!
//! The cluster orders keys as bytes and never looks into them.

use std::fmt;
use std::sync::Arc;

use num_bigint::BigInt;

use super::number;
use super::text::Text;

/// Longest encoding, in bytes; the cluster's limit for names.
pub const KEY_BYTES_MAX: usize = 1024;
/// How deep tuples nest: more than any key needs, and little enough for everybody's stack.
pub(super) const DEPTH_MAX: usize = 64;

const NONE: u8 = 0x01;
const TEXT: u8 = 0x20;
const BYTES: u8 = 0x21;
const TUPLE: u8 = 0x30;
/// Ends texts, byte strings and tuples.
const END: u8 = 0x00;
/// Behind a zero byte that is no end.
const ESCAPE: u8 = 0xff;

/// What a key is made of. Several of these can be the same key: a bool is the int 0 or 1, and a float
/// without a fraction is an int.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Nothing, Python's `None`.
    None,
    /// 0 or 1.
    Bool(bool),
    /// Any int of at most 8,192 bits.
    Int(BigInt),
    /// Any float but NaN.
    Float(f64),
    /// A text.
    Str(Text),
    /// A byte string.
    Bytes(Vec<u8>),
    /// Any number of parts; nested at most 64 deep.
    Tuple(Vec<Part>),
}

/// A key as the cluster has it: its encoding, which also gives equality, order and hash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    bytes: Arc<[u8]>,
}

/// Bytes that the keys of a kind begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix {
    bytes: Vec<u8>,
}

/// Why something is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// NaN equals nothing, not even itself.
    #[error("NaN cannot be a key, nor a part of one")]
    NotANumber,
    /// An int beyond 8,192 bits.
    #[error("an int of a key has {bits} bits, and at most 8192 are allowed")]
    IntTooLarge {
        /// How many it has.
        bits: u64,
    },
    /// Tuples in tuples, more than 64 deep.
    #[error("tuples of a key are nested more than 64 deep")]
    TooDeep,
    /// The encoding is longer than the cluster takes.
    #[error("the key takes {actual} bytes, and at most {KEY_BYTES_MAX} are allowed")]
    TooLong {
        /// How long it is.
        actual: usize,
    },
    /// A text is no Python literal of a key.
    #[error("not a key, at character {at}: {what}")]
    Literal {
        /// From 1 on.
        at: usize,
        /// What is wrong there.
        what: String,
    },
    /// Bytes that no key is encoded to.
    #[error("not the encoding of a key: {0}")]
    Malformed(&'static str),
}

impl Key {
    /// The key that is made of `part`: `Key::new("balance")`, `Key::new(("account", 7))`.
    ///
    /// # Errors
    /// If it is NaN or has it inside, is too large, nested too deeply, or too long.
    pub fn new(part: impl Into<Part>) -> Result<Key, KeyError> {
        let mut bytes = Vec::new();
        encode(&part.into(), 0, &mut bytes)?;
        match bytes.len() {
            ..=KEY_BYTES_MAX => Ok(Key { bytes: bytes.into() }),
            actual => Err(KeyError::TooLong { actual }),
        }
    }

    /// A key as it came from the cluster. Another program may have stored bytes that are no encoding:
    /// they are a key of their own, of which [`Key::part`] knows nothing.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Key {
        Key { bytes: bytes.into() }
    }

    /// The encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the key is made of, in the simplest form: whole numbers are ints.
    ///
    /// # Errors
    /// If its bytes are no encoding.
    pub fn part(&self) -> Result<Part, KeyError> {
        let mut reader = Reader { rest: &self.bytes };
        let part = decode(&mut reader, 0)?;
        if !reader.rest.is_empty() {
            return Err(KeyError::Malformed("something is behind its end"));
        }
        Ok(part)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl Prefix {
    /// Every key.
    #[must_use]
    pub fn all() -> Prefix {
        Prefix::default()
    }

    /// What goes on as this begins: texts that begin with a text, byte strings with a byte string, tuples with
    /// the parts of a tuple; itself included. Of none or a number, itself alone.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn of(part: impl Into<Part>) -> Result<Prefix, KeyError> {
        let part = part.into();
        let mut bytes = Key::new(part.clone())?.as_bytes().to_vec();
        match part {
            Part::Str(_) | Part::Bytes(_) | Part::Tuple(_) => drop(bytes.pop()),
            Part::None | Part::Bool(_) | Part::Int(_) | Part::Float(_) => {}
        }
        Ok(Prefix { bytes })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a key begins with it.
    #[must_use]
    pub fn covers(&self, key: &Key) -> bool {
        key.as_bytes().starts_with(&self.bytes)
    }
}

fn encode(part: &Part, depth: usize, out: &mut Vec<u8>) -> Result<(), KeyError> {
    match part {
        Part::None => out.push(NONE),
        Part::Bool(is_true) => number::encode_int(&BigInt::from(u8::from(*is_true)), out)?,
        Part::Int(number) => number::encode_int(number, out)?,
        Part::Float(number) => number::encode_float(*number, out)?,
        Part::Str(text) => {
            out.push(TEXT);
            escape(text.as_bytes(), out);
            out.push(END);
        }
        Part::Bytes(bytes) => {
            out.push(BYTES);
            escape(bytes, out);
            out.push(END);
        }
        Part::Tuple(parts) => {
            if depth == DEPTH_MAX {
                return Err(KeyError::TooDeep);
            }
            out.push(TUPLE);
            for part in parts {
                encode(part, depth + 1, out)?;
            }
            out.push(END);
        }
    }
    Ok(())
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == END {
            out.push(ESCAPE);
        }
    }
}

/// Bytes that are still to be decoded.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    pub(super) fn byte(&mut self) -> Result<u8, KeyError> {
        let (byte, rest) = self.rest.split_first().ok_or(KeyError::Malformed("it is cut short"))?;
        self.rest = rest;
        Ok(*byte)
    }

    /// Bytes up to their end.
    fn unescaped(&mut self) -> Result<Vec<u8>, KeyError> {
        let mut bytes = Vec::new();
        loop {
            match self.byte()? {
                END if self.rest.first() == Some(&ESCAPE) => {
                    self.byte()?;
                    bytes.push(END);
                }
                END => return Ok(bytes),
                byte => bytes.push(byte),
            }
        }
    }
}

fn decode(reader: &mut Reader<'_>, depth: usize) -> Result<Part, KeyError> {
    Ok(match reader.byte()? {
        NONE => Part::None,
        number::NEGATIVE_INFINITY => Part::Float(f64::NEG_INFINITY),
        number::NEGATIVE => number::decode(true, reader)?,
        number::ZERO => Part::Int(BigInt::ZERO),
        number::POSITIVE => number::decode(false, reader)?,
        number::INFINITY => Part::Float(f64::INFINITY),
        TEXT => {
            let text = Text::from_bytes(reader.unescaped()?);
            Part::Str(text.ok_or(KeyError::Malformed("a text is no UTF-8"))?)
        }
        BYTES => Part::Bytes(reader.unescaped()?),
        TUPLE if depth == DEPTH_MAX => return Err(KeyError::TooDeep),
        TUPLE => {
            let mut parts = Vec::new();
            while reader.rest.first() != Some(&END) {
                parts.push(decode(reader, depth + 1)?);
            }
            reader.byte()?;
            Part::Tuple(parts)
        }
        _ => return Err(KeyError::Malformed("it has a tag that no kind of key has")),
    })
}

impl From<()> for Part {
    /// None.
    fn from((): ()) -> Part {
        Part::None
    }
}

impl From<bool> for Part {
    fn from(is_true: bool) -> Part {
        Part::Bool(is_true)
    }
}

impl From<f64> for Part {
    fn from(number: f64) -> Part {
        Part::Float(number)
    }
}

impl From<&str> for Part {
    fn from(text: &str) -> Part {
        Part::Str(Text::from(text))
    }
}

impl From<String> for Part {
    fn from(text: String) -> Part {
        Part::Str(Text::from(text.as_str()))
    }
}

impl From<&[u8]> for Part {
    fn from(bytes: &[u8]) -> Part {
        Part::Bytes(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Part {
    fn from(bytes: &[u8; N]) -> Part {
        Part::Bytes(bytes.to_vec())
    }
}

impl From<Vec<Part>> for Part {
    /// A tuple.
    fn from(parts: Vec<Part>) -> Part {
        Part::Tuple(parts)
    }
}

// Macros, as Rust has no other way to be generic over kinds of ints and lengths of tuples.
macro_rules! from_ints {
    ($($int:ty)*) => {$(
        impl From<$int> for Part {
            fn from(number: $int) -> Part {
                Part::Int(BigInt::from(number))
            }
        }
    )*};
}

from_ints! { i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize BigInt }

macro_rules! from_tuples {
    ($(($($kind:ident $name:ident),*);)*) => {$(
        impl<$($kind: Into<Part>),*> From<($($kind,)*)> for Part {
            /// A tuple.
            fn from(($($name,)*): ($($kind,)*)) -> Part {
                Part::Tuple(vec![$($name.into()),*])
            }
        }
    )*};
}

from_tuples! {
    (A a);
    (A a, B b);
    (A a, B b, C c);
    (A a, B b, C c, D d);
}

#[cfg(test)]
mod tests {
    //! The shared vectors, and what they cannot say.

    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};
    use serde_json::Value;

    use super::*;

    const VECTORS: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/vectors/stm_keys.json"));

    fn vectors(list: &str) -> Vec<Value> {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        vectors[list].as_array().unwrap().clone()
    }

    fn bytes(hex: &Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    // T6: 1, 1.0 and True are one key.
    #[test]
    fn every_spelling_has_the_bytes_of_the_vectors() {
        let entries = vectors("ordered");
        assert!(entries.len() > 400, "{}", entries.len());
        for entry in &entries {
            let bytes = bytes(&entry["hex"]);
            for spelling in entry["keys"].as_array().unwrap() {
                let spelling = spelling.as_str().unwrap();
                let part: Part = spelling.parse().unwrap_or_else(|e| panic!("{spelling}: {e}"));
                let key = Key::new(part).unwrap_or_else(|e| panic!("{spelling}: {e}"));
                assert_eq!(key.as_bytes(), bytes, "{spelling}");
            }
        }
    }

    #[test]
    fn every_encoding_is_decoded_to_what_it_was() {
        for entry in vectors("ordered") {
            let key = Key::from_bytes(&bytes(&entry["hex"]));
            let part = key.part().unwrap_or_else(|e| panic!("{entry}: {e}"));
            assert_eq!(Key::new(part).unwrap(), key, "{entry}");
            let spelt = key.to_string();
            let again: Part = spelt.parse().unwrap_or_else(|e| panic!("{entry}, {spelt}: {e}"));
            assert_eq!(Key::new(again).unwrap(), key, "{entry}, {spelt}");
        }
    }

    // T6
    #[test]
    fn bytes_are_in_the_order_of_the_keys() {
        let keys: Vec<Vec<u8>> = vectors("ordered").iter().map(|e| bytes(&e["hex"])).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn what_no_key_is_encoded_to_is_not_decoded() {
        for entry in vectors("invalid") {
            let part = Key::from_bytes(&bytes(&entry["hex"])).part();
            assert!(part.is_err(), "{entry}: {part:?}");
        }
    }

    // T6
    #[test]
    fn what_is_no_key_is_refused() {
        for entry in vectors("refused") {
            let spelling = entry["key"].as_str().unwrap();
            let error = spelling.parse::<Part>().and_then(Key::new).unwrap_err();
            let expected = match entry["why"].as_str().unwrap() {
                "number too large" => matches!(error, KeyError::IntTooLarge { bits: 8193 }),
                "nested too deeply" => error == KeyError::TooDeep,
                "too long" => matches!(error, KeyError::TooLong { actual: 1025.. }),
                other => panic!("{other}"),
            };
            assert!(expected, "{entry}: {error}");
        }
        assert_eq!(Key::new(f64::NAN), Err(KeyError::NotANumber));
        assert_eq!(Key::new((1, f64::NAN)), Err(KeyError::NotANumber));
    }

    #[test]
    fn prefixes_cover_what_begins_with_them() {
        let key = |text: &str| text.parse::<Key>().unwrap();
        let texts = Prefix::of("ab").unwrap();
        assert!(texts.covers(&key("ab")) && texts.covers(&key("abc")));
        assert!(!texts.covers(&key("a")) && !texts.covers(&key("b'ab'")));
        let tuples = Prefix::of(("account", 7)).unwrap();
        for inside in ["('account', 7)", "('account', 7.0, 'x')"] {
            assert!(tuples.covers(&key(inside)), "{inside}");
        }
        for outside in ["('account',)", "('account', 70)", "('account', 7.5)", "('account', '7')"] {
            assert!(!tuples.covers(&key(outside)), "{outside}");
        }
        let number = Prefix::of(7).unwrap();
        assert!(number.covers(&key("7")) && !number.covers(&key("7.5")));
        assert!(Prefix::all().covers(&key("x")));
    }

    const SEED: u64 = 4;
    const ROUNDS: usize = 20_000;

    fn any_part(random: &mut SmallRng, depth: usize) -> Part {
        let length = random.random_range(0..4);
        match random.random_range(0..if depth < 3 { 8 } else { 6 }) {
            0 => Part::None,
            1 => Part::from(random.random::<bool>()),
            2 => Part::from(random.random::<i128>() >> random.random_range(0..128)),
            // Any bits: subnormals, infinities and NaN among them.
            3 => Part::Float(f64::from_bits(random.random())),
            4 => Part::Bytes((0..length).map(|_| random.random::<u8>() & 0x81).collect()),
            5 => {
                let mut text = Text::default();
                while text.code_points().count() < length {
                    text.push(random.random_range(0..0x0011_0000) & random.random::<u32>());
                }
                Part::Str(text)
            }
            _ => (0..length).map(|_| any_part(random, depth + 1)).collect::<Vec<_>>().into(),
        }
    }

    #[test]
    fn any_key_comes_back() {
        let mut random = SmallRng::seed_from_u64(SEED);
        let mut keys = 0;
        for _ in 0..ROUNDS {
            let part = any_part(&mut random, 0);
            let Ok(key) = Key::new(part.clone()) else { continue };
            keys += 1;
            assert_eq!(Key::new(key.part().unwrap()).unwrap(), key, "{part}");
            let spelt: Part = key.to_string().parse().unwrap();
            assert_eq!(Key::new(spelt).unwrap(), key, "{part}");
        }
        assert!(keys > ROUNDS * 9 / 10, "{keys}");
    }

    #[test]
    fn there_is_one_encoding_of_a_key() {
        let mut random = SmallRng::seed_from_u64(SEED);
        let keys: Vec<Vec<u8>> = vectors("ordered").iter().map(|e| bytes(&e["hex"])).collect();
        let mut decoded = 0;
        for round in 0..ROUNDS {
            // One byte of a key is another one, or gone, or new.
            let mut bytes = keys[round % keys.len()].clone();
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.random()),
            }
            let key = Key::from_bytes(&bytes);
            if let Ok(part) = key.part()
                && bytes.len() <= KEY_BYTES_MAX
            {
                decoded += 1;
                assert_eq!(Key::new(part).unwrap(), key);
            }
        }
        assert!(decoded > ROUNDS / 10, "{decoded}");
    }
}

//! Texts as Python has them: sequences of code points, surrogates among them.

use std::fmt;

/// A text. Unlike a Rust string it may hold surrogates (U+D800 to U+DFFF), alone or in pairs; a pair is two
/// code points and not the one that UTF-16 means by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text {
    /// UTF-8, in which a surrogate is encoded as any other code point. The order of the bytes is that of the
    /// code points.
    bytes: Vec<u8>,
}

impl Text {
    /// From UTF-8 in which surrogates are encoded as any other code point, as Python's `surrogatepass` does
    /// it; none if it is not that.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Text> {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            rest = after_code_point(rest)?;
        }
        Some(Text { bytes })
    }

    /// As a string; none if it holds surrogates.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    /// UTF-8 in which surrogates are encoded as any other code point.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The code points, up to U+10FFFF.
    pub fn code_points(&self) -> impl Iterator<Item = u32> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let after = after_code_point(rest)?;
            let encoded = &rest[..rest.len() - after.len()];
            rest = after;
            Some(code_point(encoded))
        })
    }

    /// Adds a code point; false if it is beyond U+10FFFF.
    pub(super) fn push(&mut self, point: u32) -> bool {
        if let Some(character) = char::from_u32(point) {
            self.bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
            return true;
        }
        let is_surrogate = (0xd800..=0xdfff).contains(&point);
        if is_surrogate {
            let low = |shift: u32| 0x80 | u8::try_from(point >> shift & 0x3f).unwrap_or(0x3f);
            self.bytes.extend([0xed, low(6), low(0)]);
        }
        is_surrogate
    }
}

impl Default for Text {
    /// The empty text.
    fn default() -> Text {
        Text::from("")
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text { bytes: text.as_bytes().to_vec() }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.bytes))
    }
}

/// What is behind the first code point; none if the bytes do not begin with one.
fn after_code_point(bytes: &[u8]) -> Option<&[u8]> {
    // Ranges of the second byte exclude overlong forms and what is beyond U+10FFFF (RFC 3629, section 4);
    // that of 0xed includes surrogates here.
    let (length, second) = match *bytes.first()? {
        0x00..=0x7f => return Some(&bytes[1..]),
        0xc2..=0xdf => (2, 0x80..=0xbf),
        0xe0 => (3, 0xa0..=0xbf),
        0xe1..=0xef => (3, 0x80..=0xbf),
        0xf0 => (4, 0x90..=0xbf),
        0xf1..=0xf3 => (4, 0x80..=0xbf),
        0xf4 => (4, 0x80..=0x8f),
        _ => return None,
    };
    let (encoded, rest) = bytes.split_at_checked(length)?;
    let are_tails = encoded[2..].iter().all(|byte| (0x80..=0xbf).contains(byte));
    (second.contains(&encoded[1]) && are_tails).then_some(rest)
}

/// The code point that is encoded so; as [`after_code_point`] found it.
fn code_point(encoded: &[u8]) -> u32 {
    let first = match encoded.len() {
        1 => encoded[0],
        2 => encoded[0] & 0x1f,
        3 => encoded[0] & 0x0f,
        _ => encoded[0] & 0x07,
    };
    let append = |point: u32, byte: &u8| point << 6 | u32::from(byte & 0x3f);
    encoded[1..].iter().fold(u32::from(first), append)
}

#[cfg(test)]
mod tests {
    //! Every code point, surrogates included.

    use super::*;

    #[test]
    fn every_code_point_comes_back_and_keeps_its_place() {
        let mut before = Text::default();
        for point in 0..=0x0010_ffff {
            let mut text = Text::default();
            assert!(text.push(point));
            assert_eq!(text.code_points().collect::<Vec<_>>(), [point]);
            assert_eq!(Text::from_bytes(text.as_bytes().to_vec()), Some(text.clone()));
            assert!(before < text, "{point:x}");
            before = text;
        }
        assert!(!Text::default().push(0x0011_0000));
    }

    #[test]
    fn surrogates_are_no_string() {
        let mut text = Text::from("a");
        assert_eq!(text.as_str(), Some("a"));
        text.push(0xd800);
        assert_eq!(text.as_str(), None);
        assert_eq!(text.as_bytes(), b"a\xed\xa0\x80");
    }
}

//! The ids of stored objects.

use std::fmt;
use std::str::FromStr;

/// The lowest id; all have 16 digits, so that the order of their texts is that of their numbers.
const LOWEST: u64 = 1_000_000_000_000_000;
/// The highest id.
const HIGHEST: u64 = 9_999_999_999_999_999;
/// Digits of an id.
const DIGITS: usize = 16;

/// The id of a stored object: a number of 16 digits that a store gives out once, and never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

/// What was to be an id is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id: ids have 16 digits and begin with 1 to 9")]
pub struct BadId(pub String);

impl Id {
    /// The lowest id there is.
    pub const LOWEST: Id = Id(LOWEST);
    /// The highest id there is.
    pub const HIGHEST: Id = Id(HIGHEST);

    /// The id of this number.
    ///
    /// # Errors
    /// If it has not 16 digits.
    pub fn new(number: u64) -> Result<Id, BadId> {
        let is_id = (LOWEST..=HIGHEST).contains(&number);
        if is_id { Ok(Id(number)) } else { Err(BadId(number.to_string())) }
    }

    /// As a number: 10^15 to 10^16 - 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Id, BadId> {
        let bad = || BadId(text.to_owned());
        // A number may be written in more ways than one, an id may not.
        if text.len() != DIGITS || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        text.parse().ok().and_then(|number| Id::new(number).ok()).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // P1
    #[test]
    fn order_of_texts_is_order_of_numbers() {
        let ids = [LOWEST, LOWEST + 9, LOWEST + 10, 2 * LOWEST, HIGHEST];
        let texts = ids.map(|number| Id::new(number).unwrap().to_string());
        assert!(texts.is_sorted() && texts.iter().all(|text| text.len() == DIGITS), "{texts:?}");
        assert!(texts.iter().zip(ids).all(|(text, id)| text.parse::<Id>().unwrap().get() == id));
    }

    #[test]
    fn nothing_else_is_an_id() {
        for number in [0, LOWEST - 1, HIGHEST + 1, u64::MAX] {
            assert!(Id::new(number).is_err(), "{number}");
        }
        for text in ["", "1", "0999999999999999", "+100000000000000", "10000000000000000", "１"] {
            assert_eq!(text.parse::<Id>(), Err(BadId(text.to_owned())));
        }
    }
}

//! Keys as Python literals: how they are printed, and how they are read.
//!
//! What is printed is read back as the same key, by Python too. Read are `None`, `True`, `False`, ints
//! (`7`, `-1_000`, `0x1f`), floats (`1.5`, `1e-7`; an infinity is spelt `1e999`), texts and byte strings in
//! either quotes with Python's escapes but `\N{…}`, and tuples. A *word*, as a command line has it, is such a
//! literal or else the text that it is: `balance` is `'balance'`, `7` is the number and `'7'` the text.

use std::fmt;
use std::str::FromStr;

use num_bigint::BigInt;

use super::key::{DEPTH_MAX, Key, KeyError, Part};
use super::text::Text;

/// Digits of an int that are worked out at most: the largest one has 2,467 in decimal.
const DIGITS_MAX: usize = 2_500;

impl fmt::Display for Key {
    /// As a Python literal; bytes that are no encoding as `<hex …>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part() {
            Ok(part) => part.fmt(f),
            Err(_) => {
                f.write_str("<hex ")?;
                self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(">")
            }
        }
    }
}

impl fmt::Display for Part {
    /// As a Python literal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::None => f.write_str("None"),
            Part::Bool(true) => f.write_str("True"),
            Part::Bool(false) => f.write_str("False"),
            Part::Int(number) => number.fmt(f),
            Part::Float(number) if *number == f64::INFINITY => f.write_str("1e999"),
            Part::Float(number) if *number == f64::NEG_INFINITY => f.write_str("-1e999"),
            // The shortest that is read back as the same float.
            Part::Float(number) => write!(f, "{number:?}"),
            Part::Str(text) => print_text(text, f),
            Part::Bytes(bytes) => print_bytes(bytes, f),
            Part::Tuple(parts) => {
                f.write_str("(")?;
                for (i, part) in parts.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { ", " })?;
                    part.fmt(f)?;
                }
                f.write_str(if parts.len() == 1 { ",)" } else { ")" })
            }
        }
    }
}

fn print_text(text: &Text, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let quote = quote(text.as_bytes());
    write!(f, "{quote}")?;
    for point in text.code_points() {
        match char::from_u32(point) {
            Some(c) if c == quote || c == '\\' => write!(f, "\\{c}")?,
            Some('\n') => f.write_str("\\n")?,
            Some('\r') => f.write_str("\\r")?,
            Some('\t') => f.write_str("\\t")?,
            Some(c) if !c.is_control() && !is_invisible(c) => write!(f, "{c}")?,
            Some(_) | None if point <= 0xff => write!(f, "\\x{point:02x}")?,
            Some(_) | None => write!(f, "\\u{point:04x}")?,
        }
    }
    write!(f, "{quote}")
}

/// What would change how other text is shown, without being seen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn print_bytes(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let quote = quote(bytes);
    write!(f, "b{quote}")?;
    for byte in bytes {
        match char::from(*byte) {
            c if c == quote || c == '\\' => write!(f, "\\{c}")?,
            c @ ' '..='~' => write!(f, "{c}")?,
            _ => write!(f, "\\x{byte:02x}")?,
        }
    }
    write!(f, "{quote}")
}

fn quote(bytes: &[u8]) -> char {
    if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' }
}

impl Key {
    /// Reads the word that a text begins with, and returns what is behind it: a literal with blanks inside, or
    /// whatever there is up to a blank.
    ///
    /// # Errors
    /// As the parsing of a word.
    pub fn split_from(text: &str) -> Result<(Key, &str), KeyError> {
        if begins_literal(text) {
            let mut reader = Reader::of(text);
            let key = Key::new(reader.part(0)?)?;
            let length = reader.characters[..reader.at].iter().map(|c| c.len_utf8()).sum();
            return Ok((key, &text[length..]));
        }
        let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
        Ok((word.parse()?, rest))
    }
}

/// Whether a word has quotes or parentheses in front.
fn begins_literal(word: &str) -> bool {
    word.starts_with(['\'', '"', '(']) || word.starts_with("b'") || word.starts_with("b\"")
}

impl FromStr for Key {
    type Err = KeyError;

    /// Reads a word: a literal, or else the text that it is.
    ///
    /// # Errors
    /// If it begins as a literal and is none (a quote that does not end), or no key is made of it.
    fn from_str(word: &str) -> Result<Key, KeyError> {
        let is_literal = begins_literal(word)
            || matches!(word, "None" | "True" | "False")
            || matches!(number(word), Some(Ok(_) | Err(KeyError::IntTooLarge { .. })));
        match is_literal {
            true => Key::new(word.parse::<Part>()?),
            false => Key::new(word),
        }
    }
}

impl FromStr for Part {
    type Err = KeyError;

    /// Reads a literal.
    ///
    /// # Errors
    /// [`KeyError::Literal`] if it is none.
    fn from_str(text: &str) -> Result<Part, KeyError> {
        let mut reader = Reader::of(text);
        reader.skip_blanks();
        let part = reader.part(0)?;
        reader.skip_blanks();
        match reader.peek() {
            None => Ok(part),
            Some(c) => Err(reader.wrong(format!("{c:?} is behind its end"))),
        }
    }
}

/// What is between quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Bytes,
}

struct Reader {
    characters: Vec<char>,
    at: usize,
}

impl Reader {
    fn of(text: &str) -> Reader {
        Reader { characters: text.chars().collect(), at: 0 }
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn wrong(&self, what: impl Into<String>) -> KeyError {
        KeyError::Literal { at: self.at + 1, what: what.into() }
    }

    fn part(&mut self, depth: usize) -> Result<Part, KeyError> {
        match self.peek() {
            None => Err(self.wrong("it ends too early")),
            Some('(') => self.tuple(depth),
            Some('\'' | '"') => self.text(),
            Some('b') if matches!(self.characters.get(self.at + 1), Some('\'' | '"')) => {
                self.at += 1;
                self.bytes()
            }
            Some(_) => self.word(),
        }
    }

    fn tuple(&mut self, depth: usize) -> Result<Part, KeyError> {
        if depth == DEPTH_MAX {
            return Err(KeyError::TooDeep);
        }
        self.at += 1;
        let mut parts = Vec::new();
        let mut has_comma = true;
        loop {
            self.skip_blanks();
            match self.peek() {
                Some(')') => break,
                Some(_) if has_comma => parts.push(self.part(depth + 1)?),
                Some(c) => return Err(self.wrong(format!("a comma was expected, and not {c:?}"))),
                None => return Err(self.wrong("the tuple has no end")),
            }
            self.skip_blanks();
            has_comma = self.peek() == Some(',');
            self.at += usize::from(has_comma);
        }
        // As in Python, one part in parentheses is that part.
        if parts.len() == 1 && !has_comma {
            return Err(self.wrong("a tuple of one part is spelt with a comma: ('x',)"));
        }
        self.at += 1;
        Ok(Part::Tuple(parts))
    }

    fn text(&mut self) -> Result<Part, KeyError> {
        let mut text = Text::default();
        for point in self.quoted(Kind::Text)? {
            if !text.push(point) {
                return Err(self.wrong("there is no such character"));
            }
        }
        Ok(Part::Str(text))
    }

    fn bytes(&mut self) -> Result<Part, KeyError> {
        let points = self.quoted(Kind::Bytes)?;
        let bytes: Result<Vec<u8>, _> = points.into_iter().map(u8::try_from).collect();
        bytes.map(Part::Bytes).map_err(|_| self.wrong("a byte is at most \\xff"))
    }

    /// The code points between quotes.
    fn quoted(&mut self, kind: Kind) -> Result<Vec<u32>, KeyError> {
        let quote = self.next();
        let mut points = Vec::new();
        loop {
            match self.next() {
                None => return Err(self.wrong("the quote has no end")),
                Some(c) if Some(c) == quote => return Ok(points),
                Some('\\') => points.push(self.escape(kind)?),
                Some(c) if kind == Kind::Bytes && !c.is_ascii() => {
                    return Err(self.wrong("bytes beyond ASCII are spelt \\x80 to \\xff"));
                }
                Some(c) => points.push(u32::from(c)),
            }
        }
    }

    fn escape(&mut self, kind: Kind) -> Result<u32, KeyError> {
        Ok(match self.next() {
            Some(c @ ('\\' | '\'' | '"')) => u32::from(c),
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('t') => 0x09,
            Some('n') => 0x0a,
            Some('v') => 0x0b,
            Some('f') => 0x0c,
            Some('r') => 0x0d,
            Some('x') => self.digits(2)?,
            Some('u') if kind == Kind::Text => self.digits(4)?,
            Some('U') if kind == Kind::Text => self.digits(8)?,
            Some(c @ '0'..='7') => {
                // As in C, up to three digits.
                let mut point = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    point = point * 8 + digit;
                    self.at += 1;
                }
                point
            }
            Some(_) | None => return Err(self.wrong("there is no such escape")),
        })
    }

    fn digits(&mut self, count: usize) -> Result<u32, KeyError> {
        (0..count).try_fold(0_u32, |point, _| {
            let digit = self.next().and_then(|c| c.to_digit(16));
            let digit = digit
                .ok_or_else(|| self.wrong(format!("{count} hexadecimal digits were expected")))?;
            Ok(point << 4 | digit)
        })
    }

    /// A name or a number.
    fn word(&mut self) -> Result<Part, KeyError> {
        let is_part = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
        let word: String = self.characters[self.at..].iter().take_while(|c| is_part(c)).collect();
        let part = match word.as_str() {
            "None" => Part::None,
            "True" => Part::Bool(true),
            "False" => Part::Bool(false),
            "" => {
                return Err(self.wrong(format!("{:?} begins nothing", self.peek().unwrap_or(' '))));
            }
            _ => number(&word)
                .unwrap_or_else(|| Err(self.wrong(format!("a text has quotes: '{word}'"))))?,
        };
        self.at += word.chars().count();
        Ok(part)
    }
}

/// A number, if the word is one.
fn number(word: &str) -> Option<Result<Part, KeyError>> {
    let (is_negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let between_digits = |(i, _): (usize, _)| {
        let around = [digits[..i].chars().next_back(), digits[i + 1..].chars().next()];
        around.iter().all(|c| c.is_some_and(|c| c.is_ascii_hexdigit()))
    };
    if !digits.match_indices('_').all(between_digits) {
        return None;
    }
    let digits = digits.replace('_', "");
    let (radix, rest) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(rest) => (16, rest),
        None => (10, digits.as_str()),
    };
    if !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)) {
        if rest.len() > DIGITS_MAX {
            return Some(Err(KeyError::IntTooLarge { bits: at_least_bits(rest.len(), radix) }));
        }
        let number = BigInt::parse_bytes(rest.as_bytes(), radix)?;
        return Some(Ok(Part::Int(if is_negative { -number } else { number })));
    }
    let number: f64 = if radix == 10 { digits.parse().ok()? } else { return None };
    Some(Ok(Part::Float(if is_negative { -number } else { number })))
}

/// What so many digits take at least, the first of them aside.
fn at_least_bits(digits: usize, radix: u32) -> u64 {
    let bits_of_a_digit = u64::from(radix.ilog2());
    u64::try_from(digits - 1).unwrap_or(u64::MAX).saturating_mul(bits_of_a_digit)
}

#[cfg(test)]
mod tests {
    //! Spelling, to the letter, and what is refused. What is read back is in `key`.

    use super::*;

    fn spelt(word: &str) -> String {
        word.parse::<Key>().unwrap_or_else(|e| panic!("{word}: {e}")).to_string()
    }

    #[test]
    fn words_are_literals_or_texts() {
        for (word, expected) in [
            ("balance", "'balance'"),
            ("'balance'", "'balance'"),
            ("7", "7"),
            ("'7'", "'7'"),
            ("7.0", "7"),
            ("True", "1"),
            ("true", "'true'"),
            ("None", "None"),
            ("-1_000", "-1000"),
            ("0x1f", "31"),
            ("1e999", "1e999"),
            ("-1e999", "-1e999"),
            ("inf", "'inf'"),
            ("nan", "'nan'"),
            ("7a", "'7a'"),
            ("-", "'-'"),
            ("1__0", "'1__0'"),
            ("192.168.0.1", "'192.168.0.1'"),
            ("2026-11-26", "'2026-11-26'"),
            ("b'x'", "b'x'"),
            ("bank", "'bank'"),
            ("", "''"),
            ("()", "()"),
            ("('account', 7)", "('account', 7)"),
            ("(1,)", "(1,)"),
            ("( ( 1 , ) , )", "((1,),)"),
            ("\"it's\"", "\"it's\""),
            ("'\\'\"'", "'\\'\"'"),
            ("'\\x00\\n\\u200b\\ud800\\U0001f600\\101'", "'\\x00\\n\\u200b\\ud800😀A'"),
            ("b'\\x00\\xff\\\\'", "b'\\x00\\xff\\\\'"),
            (".5", "0.5"),
            ("1e-7", "1e-7"),
        ] {
            assert_eq!(spelt(word), expected, "{word}");
        }
    }

    #[test]
    fn what_begins_as_a_literal_has_to_be_one() {
        for (word, expected) in [
            ("'x", "not a key, at character 3: the quote has no end"),
            ("(1", "not a key, at character 3: the tuple has no end"),
            ("(1)", "not a key, at character 3: a tuple of one part is spelt with a comma: ('x',)"),
            ("(1 2)", "not a key, at character 4: a comma was expected, and not '2'"),
            ("(x,)", "not a key, at character 2: a text has quotes: 'x'"),
            ("(,)", "not a key, at character 2: ',' begins nothing"),
            ("'x'y", "not a key, at character 4: 'y' is behind its end"),
            ("'\\q'", "not a key, at character 4: there is no such escape"),
            ("'\\U00110000'", "not a key, at character 13: there is no such character"),
            ("b'é'", "not a key, at character 4: bytes beyond ASCII are spelt \\x80 to \\xff"),
            ("b'\\u00e9'", "not a key, at character 5: there is no such escape"),
            ("b'\\777'", "not a key, at character 8: a byte is at most \\xff"),
        ] {
            let error = word.parse::<Key>().expect_err(word);
            assert_eq!(error.to_string(), expected, "{word}");
        }
    }

    #[test]
    fn word_ends_where_its_literal_does() {
        for (text, key, rest) in [
            ("x 1", "'x'", " 1"),
            ("('é', 1) 2", "('é', 1)", " 2"),
            ("'a b'=c", "'a b'", "=c"),
            ("7\t", "7", "\t"),
            ("", "''", ""),
        ] {
            let (found, behind) = Key::split_from(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((found.to_string().as_str(), behind), (key, rest));
        }
    }

    #[test]
    fn an_endless_int_is_refused_before_it_is_worked_out() {
        let error = "9".repeat(1 << 20).parse::<Key>().expect_err("it is too large");
        assert!(matches!(error, KeyError::IntTooLarge { bits: 3_000_000.. }), "{error}");
    }

    #[test]
    fn bytes_that_are_no_key_are_shown_as_they_are() {
        assert_eq!(Key::from_bytes(&[0xff, 0x00]).to_string(), "<hex ff00>");
    }
}

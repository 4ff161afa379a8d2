//! The URIs that name stores.

use std::fmt;

use super::error::Error;

/// A URI, taken apart: `scheme://authority/path?name=value&…`, or a bare path, which means a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// In lower case; `file` for a bare path.
    pub scheme: String,
    /// Between `//` and the path: hosts.
    pub authority: String,
    /// From the first `/` behind that on, decoded.
    pub path: String,
    /// What stands behind `?`, decoded, in its order.
    pub query: Vec<(String, String)>,
    text: String,
}

impl Uri {
    /// Takes a text apart.
    ///
    /// # Errors
    /// [`Error::BadUri`] if it is empty, or something in it is not UTF-8 once it is decoded.
    pub fn parse(text: &str) -> Result<Uri, Error> {
        let bad = |reason: &str| Error::BadUri { uri: text.to_owned(), reason: reason.to_owned() };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme))
        else {
            return Ok(Uri {
                scheme: "file".to_owned(),
                authority: String::new(),
                path: text.to_owned(),
                query: Vec::new(),
                text: text.to_owned(),
            });
        };
        let decode = |text: &str| decode(text).ok_or_else(|| bad("a % in it stands for no text"));
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = place.find('/').unwrap_or(place.len());
        let (authority, path) = place.split_at(path);
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Uri {
            scheme: scheme.to_ascii_lowercase(),
            authority: authority.to_owned(),
            path: decode(path)?,
            query: pairs,
            text: text.to_owned(),
        })
    }

    /// The error of a constructor that cannot use this URI.
    #[must_use]
    pub fn bad(&self, reason: impl Into<String>) -> Error {
        Error::BadUri { uri: self.text.clone(), reason: reason.into() }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// RFC 3986, section 3.1.
pub(super) fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// Percent-decoding: RFC 3986, section 2.1. None if that gives no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String, Vec<(String, String)>) {
        let Uri { scheme, authority, path, query, .. } = Uri::parse(text).unwrap();
        (scheme, authority, path, query)
    }

    fn plain(scheme: &str, authority: &str, path: &str) -> (String, String, String) {
        (scheme.to_owned(), authority.to_owned(), path.to_owned())
    }

    // P5
    #[test]
    fn uris_come_apart() {
        let cases = [
            ("/var/lib/jobs", plain("file", "", "/var/lib/jobs")),
            ("jobs?x=%20", plain("file", "", "jobs?x=%20")),
            ("c/a://b", plain("file", "", "c/a://b")),
            ("file:///a%20b", plain("file", "", "/a b")),
            ("FILE://localhost/a", plain("file", "localhost", "/a")),
            ("holdfast://a:1,b:2/site", plain("holdfast", "a:1,b:2", "/site")),
            ("holdfast://[::1]:7480", plain("holdfast", "[::1]:7480", "")),
        ];
        for (text, (scheme, authority, path)) in cases {
            assert_eq!(parts(text), (scheme, authority, path, Vec::new()), "{text}");
        }
        let (_, _, path, query) = parts("holdfast://a:1/n?peers=b:2,c:3&timeout=5&x&y=%C3%A9");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected =
            [pair("peers", "b:2,c:3"), pair("timeout", "5"), pair("x", ""), pair("y", "é")];
        assert_eq!((path.as_str(), query.as_slice()), ("/n", expected.as_slice()));
    }

    #[test]
    fn what_stands_for_no_text_is_refused() {
        for text in ["", "file:///a%", "file:///a%2", "file:///%zz", "file:///%ff"] {
            let refused = Uri::parse(text);
            assert!(matches!(&refused, Err(Error::BadUri { uri, .. }) if uri == text), "{text}");
        }
    }
}

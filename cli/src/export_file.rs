//! The file of an export: JSON lines, of which the first says where the rows are from, and the last how many
//! they are.
//!
//! The format is in docs/formats.md. Invariants:
//! - Numbers of 64 bits are texts, and values that are not text are base64, so that every reader of JSON gets
//!   what was written.
//! - The last line counts the rows and has a CRC-32 of everything above it: a file that is cut short or was
//!   changed is found out, and whoever reads learns at which line.

use std::fmt;
use std::io::{self, BufRead, Read as _, Write};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use holdfast_client::Row;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the first line says.
pub(crate) const SCHEMA: &str = "holdfast.export/v1";
/// Longest line, in bytes: the largest value, with each byte spelt as `\u0000`, and its names.
const LINE_BYTES_MAX: u64 = 8 << 20;

/// Where the rows of a file are from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// The cluster.
    pub(crate) cluster_id: String,
    /// The namespace.
    pub(crate) namespace: String,
    /// What they are true at.
    pub(crate) revision: Number<u64>,
}

/// How many rows of each kind there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    masters: Number<u64>,
    changesources: Number<u64>,
    objects: Number<u64>,
    state: Number<u64>,
}

impl Counts {
    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.masters.0 + self.changesources.0 + self.objects.0 + self.state.0
    }

    fn count(&mut self, row: &Row) {
        let kind = match row {
            Row::Master { .. } => &mut self.masters,
            Row::ChangeSource { .. } => &mut self.changesources,
            Row::Object { .. } => &mut self.objects,
            Row::Value { .. } => &mut self.state,
        };
        kind.0 += 1;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { masters, changesources, objects, state } = self;
        let [masters, changesources, objects, state] =
            [masters, changesources, objects, state].map(|count| count.0);
        write!(
            f,
            "{masters} masters, {changesources} change sources, {objects} objects, {state} values"
        )
    }
}

/// A line behind the first one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Master { id: Number<i64>, name: String, last_active_ms: Number<u64> },
    ChangeSource { id: Number<i64>, name: String, group: Option<String> },
    Object { id: Number<i64>, name: String, class: String },
    State { object_id: Number<i64>, key: String, value: Bytes },
    End { rows: Counts, crc32: String },
}

/// A number of 64 bits, as a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Number<T>(pub(crate) T);

impl<T: fmt::Display> Serialize for Number<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number =
            text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no number")))?;
        Ok(Number(number))
    }
}

/// A value: its text, or an object with its base64.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Base64(Base64),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        String::from_utf8(bytes).map_or_else(
            |error| Bytes::Base64(Base64 { base64: BASE64.encode(error.as_bytes()) }),
            Bytes::Text,
        )
    }
}

impl Line {
    fn of(row: Row) -> Line {
        match row {
            Row::Master { id, name, last_active_ms } => {
                Line::Master { id: Number(id), name, last_active_ms: Number(last_active_ms) }
            }
            Row::ChangeSource { id, name, group } => {
                Line::ChangeSource { id: Number(id), name, group }
            }
            Row::Object { id, name, class_name } => {
                Line::Object { id: Number(id), name, class: class_name }
            }
            Row::Value { object, name, bytes } => {
                Line::State { object_id: Number(object), key: name, value: bytes.into() }
            }
        }
    }
}

/// Writes a file.
pub(crate) struct Writer<W> {
    out: W,
    crc: crc32fast::Hasher,
    counts: Counts,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub(crate) fn begin(out: W, head: &Head) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, crc: crc32fast::Hasher::new(), counts: Counts::default() };
        writer.line(head)?;
        Ok(writer)
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, row: Row) -> io::Result<()> {
        self.counts.count(&row);
        self.line(&Line::of(row))
    }

    /// Ends the file; gives it back, with how many rows it has.
    pub(crate) fn end(mut self) -> io::Result<(W, Counts)> {
        let crc32 = format!("{:08x}", self.crc.clone().finalize());
        self.line(&Line::End { rows: self.counts, crc32 })?;
        self.out.flush()?;
        Ok((self.out, self.counts))
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.crc.update(&bytes);
        self.out.write_all(&bytes)
    }
}

/// What is wrong with a file, and at which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bad {
    /// From 1 on.
    pub(crate) line: u64,
    /// For people.
    pub(crate) what: String,
}

/// Reads a file, row by row; the file is whole once there is no row more.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    head: Head,
    /// The last line that was read.
    line: u64,
    crc: crc32fast::Hasher,
    counts: Counts,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    pub(crate) fn begin(input: R) -> Result<Reader<R>, Bad> {
        let head = Head {
            schema: String::new(),
            cluster_id: String::new(),
            namespace: String::new(),
            revision: Number(0),
        };
        let crc = crc32fast::Hasher::new();
        let mut reader = Reader { input, head, line: 0, crc, counts: Counts::default() };
        let bytes =
            reader.next_line()?.ok_or_else(|| reader.bad("the file is empty".to_owned()))?;
        let head: Head = serde_json::from_slice(&bytes)
            .map_err(|error| reader.bad(format!("it is no head of an export: {error}")))?;
        if head.schema != SCHEMA {
            let what = format!("the schema is {:?}; this command reads {SCHEMA:?}", head.schema);
            return Err(reader.bad(what));
        }
        reader.crc.update(&bytes);
        Ok(Reader { head, ..reader })
    }

    /// Where the rows are from.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// How many rows have been read.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The next row and its line; none if it was the last one, and the file is whole.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Row)>, Bad> {
        let cut = "the file ends without its last line: it was cut short";
        let bytes = self.next_line()?.ok_or_else(|| self.bad(cut.to_owned()))?;
        let line = serde_json::from_slice(&bytes)
            .map_err(|error| self.bad(format!("it is no row of an export: {error}")))?;
        let row = match line {
            Line::Master { id: Number(id), name, last_active_ms: Number(last_active_ms) } => {
                Row::Master { id, name, last_active_ms }
            }
            Line::ChangeSource { id: Number(id), name, group } => {
                Row::ChangeSource { id, name, group }
            }
            Line::Object { id: Number(id), name, class } => {
                Row::Object { id, name, class_name: class }
            }
            Line::State { object_id: Number(object), key: name, value } => {
                let bytes = match value {
                    Bytes::Text(text) => text.into_bytes(),
                    Bytes::Base64(Base64 { base64 }) => BASE64
                        .decode(base64)
                        .map_err(|error| self.bad(format!("the value is no base64: {error}")))?,
                };
                Row::Value { object, name, bytes }
            }
            Line::End { rows, crc32 } => return self.end(&rows, &crc32).map(|()| None),
        };
        self.crc.update(&bytes);
        self.counts.count(&row);
        Ok(Some((self.line, row)))
    }

    fn end(&mut self, rows: &Counts, crc32: &str) -> Result<(), Bad> {
        let computed = format!("{:08x}", self.crc.clone().finalize());
        if *rows != self.counts {
            return Err(self.bad(format!("it counts {rows}, and above are {}", self.counts)));
        }
        if crc32 != computed {
            let what = format!(
                "it has the checksum {crc32}, and the lines above have {computed}: one of them was \
                 changed"
            );
            return Err(self.bad(what));
        }
        match self.next_line()? {
            None => Ok(()),
            Some(_) => Err(self.bad("it comes behind the last line".to_owned())),
        }
    }

    /// The next line with its end; none at the end of the file.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Bad> {
        self.line += 1;
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
        read.map_err(|error| self.bad(format!("it cannot be read: {error}")))?;
        match bytes.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(bytes)),
            Some(_) if bytes.len() as u64 == LINE_BYTES_MAX => {
                Err(self.bad(format!("it is longer than {LINE_BYTES_MAX} bytes")))
            }
            Some(_) => Err(self.bad("it has no end: the file was cut short".to_owned())),
        }
    }

    fn bad(&self, what: String) -> Bad {
        Bad { line: self.line, what }
    }
}

#[cfg(test)]
mod tests {
    //! What is written is what is read, and whatever is not is found out.
    use super::*;

    fn head() -> Head {
        Head {
            schema: SCHEMA.to_owned(),
            cluster_id: "c".to_owned(),
            namespace: "default".to_owned(),
            revision: Number(u64::MAX),
        }
    }

    fn rows() -> Vec<Row> {
        let value = |name: &str, bytes: &[u8]| Row::Value {
            object: 1 << 53,
            name: name.to_owned(),
            bytes: bytes.to_vec(),
        };
        vec![
            Row::Master { id: 1, name: "a".to_owned(), last_active_ms: 1_700_000_000_000 },
            Row::ChangeSource { id: 2, name: "b".to_owned(), group: None },
            Row::ChangeSource { id: 3, name: "c".to_owned(), group: Some("g".to_owned()) },
            Row::Object { id: 1 << 53, name: "d".to_owned(), class_name: "e".to_owned() },
            value("text", "NaN \\ud800 \u{1f600}\n\0".as_bytes()),
            value("bytes", &[0xff, 0, 10]),
            value("empty", b""),
        ]
    }

    fn file() -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &head()).unwrap();
        rows().into_iter().for_each(|row| writer.row(row).unwrap());
        writer.end().unwrap().0
    }

    fn read(bytes: &[u8]) -> Result<Vec<Row>, Bad> {
        let mut reader = Reader::begin(bytes)?;
        let mut rows = Vec::new();
        while let Some((_, row)) = reader.next()? {
            rows.push(row);
        }
        Ok(rows)
    }

    // S7
    #[test]
    fn what_is_written_is_read() {
        let file = file();
        assert_eq!(read(&file), Ok(rows()));
        let expected = r#"{"schema":"holdfast.export/v1","cluster_id":"c","namespace":"default","revision":"18446744073709551615"}
{"kind":"master","id":"1","name":"a","last_active_ms":"1700000000000"}
{"kind":"changesource","id":"2","name":"b","group":null}
{"kind":"changesource","id":"3","name":"c","group":"g"}
{"kind":"object","id":"9007199254740992","name":"d","class":"e"}
{"kind":"state","object_id":"9007199254740992","key":"text","value":"NaN \\ud800 😀\n\u0000"}
{"kind":"state","object_id":"9007199254740992","key":"bytes","value":{"base64":"/wAK"}}
{"kind":"state","object_id":"9007199254740992","key":"empty","value":""}
"#;
        let text = String::from_utf8(file).unwrap();
        let (rows, end) = text.split_at(expected.len());
        assert_eq!(rows, expected);
        let crc32 = crc32fast::hash(expected.as_bytes());
        let counts = r#"{"masters":"1","changesources":"2","objects":"1","state":"3"}"#;
        assert_eq!(
            end,
            format!("{{\"kind\":\"end\",\"rows\":{counts},\"crc32\":\"{crc32:08x}\"}}\n")
        );
    }

    // S7 G11
    #[test]
    fn a_file_cut_anywhere_is_refused_at_its_last_line() {
        let file = file();
        for len in 0..file.len() {
            let lines = file[..len].iter().filter(|byte| **byte == b'\n').count() as u64;
            let bad = read(&file[..len]).unwrap_err();
            assert_eq!(bad.line, lines + 1, "{len}: {bad:?}");
        }
    }

    // S7 G11
    #[test]
    fn a_file_with_any_byte_changed_is_refused() {
        let file = file();
        for place in 0..file.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut changed = file.clone();
                changed[place] ^= flip;
                assert!(read(&changed).is_err(), "byte {place} ^ {flip:x}");
            }
        }
    }

    // S7 G11
    #[test]
    fn errors_name_the_line() {
        let text = String::from_utf8(file()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let bad = |lines: &[&str]| read(format!("{}\n", lines.join("\n")).as_bytes()).unwrap_err();
        let without = |nth: usize| {
            let mut lines = lines.clone();
            lines.remove(nth);
            lines
        };
        assert_eq!(bad(&without(0)).line, 1);
        let counted = bad(&without(2));
        assert_eq!(counted.line, 8);
        assert!(counted.what.contains("2 change sources"), "{}", counted.what);
        let swapped = bad(&[&lines[..1], &[lines[2], lines[1]], &lines[3..]].concat());
        assert_eq!(swapped.line, 9);
        assert!(swapped.what.contains("checksum"), "{}", swapped.what);
        let more = bad(&[&lines[..], &lines[1..2]].concat());
        assert_eq!((more.line, more.what.as_str()), (10, "it comes behind the last line"));
        let odd = bad(&[lines[0], r#"{"kind":"object","id":5,"name":"d","class":"e"}"#]);
        assert_eq!(odd.line, 2);
        let later = bad(&[&lines[0].replace("/v1", "/v2")]);
        assert!(later.what.contains("holdfast.export/v2"), "{}", later.what);
    }

    // G9
    #[test]
    fn a_line_without_end_takes_no_memory() {
        let endless = io::BufReader::new(io::repeat(b'x'));
        let bad = Reader::begin(endless).unwrap_err();
        assert_eq!((bad.line, bad.what.as_str()), (1, "it is longer than 8388608 bytes"));
    }
}

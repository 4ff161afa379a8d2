//! How answers are printed: text for people, JSON for scripts.
//!
//! Invariants: stdout carries the answer and nothing else; a JSON answer is one object with a
//! `schema`; with `-o jsonl` it stands on one line, and a list is one object a line; 64-bit numbers
//! are strings (JavaScript and jq round them), durations in milliseconds and counts are numbers;
//! bytes that are not text are `{"base64": …}`; a reader that has gone away (`| head`) is no error.

use std::io::{self, Write};
use std::process;

use base64::Engine as _;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table};
use serde_json::{Value, json};

use crate::errors::Failure;

/// How the answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// JSON on one line; lists and streams print one object a line.
    Jsonl,
}

impl Format {
    /// The format that raw arguments ask for, for errors found before they could be parsed.
    pub(crate) fn guess(args: &[String]) -> Self {
        let mut format = Self::Text;
        let mut words = args.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let value = match word {
                "-o" | "--output" => words.peek().copied().unwrap_or_default(),
                _ => word
                    .strip_prefix("--output=")
                    .or_else(|| word.strip_prefix("-o="))
                    .or_else(|| word.strip_prefix("-o"))
                    .unwrap_or_default(),
            };
            if let Ok(found) = Self::from_str(value, false) {
                format = found;
            }
        }
        format
    }
}

/// Where answers, notes and errors of one run go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// How the answer is printed.
    pub(crate) format: Format,
}

impl Output {
    /// Prints one answer: `text` for people, or the object built by `json` for scripts.
    pub(crate) fn answer(self, text: &str, json: impl FnOnce() -> Value) {
        match self.format {
            Format::Text => print_line(text),
            Format::Json => print_line(&pretty(&json())),
            Format::Jsonl => print_line(&json().to_string()),
        }
    }

    /// Prints a list: a table for people, else one object with the rows under `member`, or with
    /// `-o jsonl` one row a line, each with the schema.
    pub(crate) fn list(self, schema: &str, member: &str, table: &Table, rows: Vec<Value>) {
        match self.format {
            Format::Text => print_line(&table_text(table)),
            Format::Json => print_line(&pretty(&json!({ "schema": schema, member: rows }))),
            Format::Jsonl => {
                for row in rows {
                    print_line(&with_schema(schema, row).to_string());
                }
            }
        }
    }

    /// Prints bytes as they are: the answer of `object load`.
    pub(crate) fn bytes(self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        leave_if_reader_is_gone(stdout.write_all(bytes).and_then(|()| stdout.flush()));
    }

    /// Prints bytes as they are, and a newline: the answer of `state get`.
    pub(crate) fn raw(self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.write_all(b"\n"));
        leave_if_reader_is_gone(written.and_then(|()| stdout.flush()));
    }

    /// Says something beside the answer, on stderr; scripts that read JSON do not want it.
    pub(crate) fn note(self, text: &str) {
        if self.format == Format::Text {
            let _gone = writeln!(anstream::stderr(), "{text}");
        }
    }

    /// Prints an error on stderr, in the format of the answer.
    pub(crate) fn failure(self, failure: &Failure) {
        let text = match self.format {
            Format::Text => failure.to_text(),
            Format::Json => pretty(&failure.to_json()),
            Format::Jsonl => failure.to_json().to_string(),
        };
        // Nobody is left to tell if stderr is closed.
        let _gone = writeln!(anstream::stderr(), "{text}");
    }
}

/// A table without borders, as `docker ps` prints it.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table
}

/// Bytes for JSON: text if they are text, else `{"base64": …}`.
pub(crate) fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    }
}

/// Bytes for a line of text: as they are if they are text, else a description.
pub(crate) fn bytes_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("<{} bytes that are not text>", bytes.len()),
    }
}

/// A row of a list as an object of its own.
fn with_schema(schema: &str, row: Value) -> Value {
    let mut object = row;
    if let Value::Object(members) = &mut object {
        members.insert("schema".to_owned(), json!(schema));
    }
    object
}

/// A table as text, without blanks at the ends of its lines.
pub(crate) fn table_text(table: &Table) -> String {
    // Each cell has a blank on both sides; the one before the first column says nothing.
    let line = |line: String| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned();
    table.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// Prints a line of an answer.
pub(crate) fn print_line(text: &str) {
    let mut stdout = anstream::stdout();
    leave_if_reader_is_gone(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

/// Ends the run quietly if whoever read our answer has gone away, as `head` does.
fn leave_if_reader_is_gone(written: io::Result<()>) {
    if let Err(error) = written {
        let gone = error.kind() == io::ErrorKind::BrokenPipe;
        process::exit(if gone { 0 } else { 9 });
    }
}

#[cfg(test)]
mod tests {
    //! The shape of answers that scripts rely on.
    use super::*;

    #[test]
    fn bytes_that_are_not_text_are_base64() {
        assert_eq!(bytes_json(b"\"hello\"").to_string(), r#""\"hello\"""#);
        assert_eq!(bytes_json(&[0xff, 0x00, 0x10]).to_string(), r#"{"base64":"/wAQ"}"#);
        assert_eq!(bytes_text(&[0xff]), "<1 bytes that are not text>");
    }

    #[test]
    fn the_format_is_guessed_from_raw_arguments() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(Format::guess(&words("holdfast ps -o json --bogus")), Format::Json);
        assert_eq!(Format::guess(&words("holdfast -ojsonl bogus")), Format::Jsonl);
        assert_eq!(Format::guess(&words("holdfast --output=json")), Format::Json);
        assert_eq!(Format::guess(&words("holdfast up --name json")), Format::Text);
    }

    #[test]
    fn a_row_of_jsonl_names_its_schema() {
        let row = with_schema("holdfast.members/v1", json!({ "node": "n1" }));
        assert_eq!(row.to_string(), r#"{"node":"n1","schema":"holdfast.members/v1"}"#);
    }

    #[test]
    fn tables_have_no_borders_and_no_trailing_blanks() {
        let mut members = table(&["NODE", "ROLE"]);
        members.add_row(["n1", "leader"]);
        members.add_row(["n12", ""]);
        assert_eq!(table_text(&members), "NODE  ROLE\nn1    leader\nn12");
    }
}

//! `holdfast logs`: what the nodes wrote, in the order of time.
//!
//! A line of a node begins with its time; one that does not (the further lines of an error) belongs
//! to the line before it. Lines of several nodes are merged by that time.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::places::Places;
use super::state_file::LocalCluster;
use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::names::NodeRef;
use crate::output::{Format, Output, print_line};

/// How often followed logs are looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Most of one log that is read at a time; older lines are left out.
const READ_BYTES_MAX: u64 = 16 << 20;

/// A line, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    time: String,
    node: String,
    text: String,
}

/// A log on its way to us.
struct Tail {
    node: String,
    path: PathBuf,
    read_to: u64,
    /// A line that has no end yet.
    rest: Vec<u8>,
    time: String,
}

/// Prints the logs.
pub(crate) async fn run(
    places: &Places,
    node: Option<NodeRef>,
    follow: bool,
    output: Output,
) -> Outcome<()> {
    let cluster = LocalCluster::require(places)?;
    let nodes = match node {
        None => cluster.nodes.clone(),
        Some(NodeRef::Id(id)) => vec![cluster.node(id)?.clone()],
        Some(NodeRef::Leader) => {
            return Err(Failure::new(Code::Usage, "name a node to see its log")
                .help("holdfast logs n1, or holdfast logs for all of them"));
        }
    };
    let mut tails: Vec<Tail> = nodes
        .into_iter()
        .map(|node| Tail {
            node: node.name(),
            path: node.log,
            read_to: 0,
            rest: Vec::new(),
            time: String::new(),
        })
        .collect();
    let is_single = tails.len() == 1;
    let lines = read_all(&mut tails)?;
    if output.format == Format::Json && !follow {
        output.answer("", || {
            let rows: Vec<_> = lines.iter().map(row).collect();
            json!({ "schema": "holdfast.logs/v1", "lines": rows })
        });
        return Ok(());
    }
    print(&lines, is_single, output);
    if !follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        print(&read_all(&mut tails)?, is_single, output);
    }
}

fn read_all(tails: &mut [Tail]) -> Outcome<Vec<Line>> {
    let mut lines = Vec::new();
    for tail in tails {
        match tail.read() {
            Ok(more) => lines.extend(more),
            // A node that was never started has no log.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file("read", &tail.path, &error)),
        }
    }
    lines.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(lines)
}

fn print(lines: &[Line], is_single: bool, output: Output) {
    for line in lines {
        match output.format {
            Format::Text if is_single => print_line(&line.text),
            Format::Text => print_line(&format!("{}  {}", line.node, line.text)),
            Format::Json | Format::Jsonl => {
                let mut row = row(line);
                row["schema"] = json!("holdfast.logs/v1");
                print_line(&row.to_string());
            }
        }
    }
}

fn row(line: &Line) -> serde_json::Value {
    json!({ "node": line.node, "line": line.text })
}

impl Tail {
    /// The lines that have come since the last call.
    fn read(&mut self) -> io::Result<Vec<Line>> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        self.read_to = self.read_to.max(length.saturating_sub(READ_BYTES_MAX)).min(length);
        file.seek(SeekFrom::Start(self.read_to))?;
        let mut bytes = std::mem::take(&mut self.rest);
        let read = file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        self.read_to += u64::try_from(read).unwrap_or(0);
        Ok(self.split(&bytes))
    }

    fn split(&mut self, bytes: &[u8]) -> Vec<Line> {
        let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
        self.rest = bytes[end..].to_vec();
        let mut lines = Vec::new();
        for text in String::from_utf8_lossy(&bytes[..end]).lines() {
            if let Some(time) = time_of(text) {
                self.time = time.to_owned();
            }
            lines.push(Line {
                time: self.time.clone(),
                node: self.node.clone(),
                text: text.to_owned(),
            });
        }
        lines
    }
}

/// The time that a line begins with: `2026-01-31T18:31:04.123456Z`, which sorts as text.
fn time_of(line: &str) -> Option<&str> {
    let first = line.split(' ').next()?;
    (first.len() >= 20 && first.ends_with('Z') && first.as_bytes()[10] == b'T').then_some(first)
}

#[cfg(test)]
mod tests {
    //! Lines of several nodes come in the order of time, and none is cut.
    use super::*;

    fn tail(node: &str) -> Tail {
        Tail {
            node: node.to_owned(),
            path: PathBuf::new(),
            read_to: 0,
            rest: Vec::new(),
            time: String::new(),
        }
    }

    #[test]
    fn further_lines_stay_with_the_line_before() {
        let lines = tail("n1").split(
            b"2026-01-31T18:31:04.100000Z ERROR a\n  cause: b\n2026-01-31T18:31:04.300000Z INFO c\n",
        );
        assert_eq!(lines[0].time, lines[1].time);
        assert_eq!(lines[1].text, "  cause: b");
        assert!(lines[2].time > lines[1].time);
    }

    #[test]
    fn a_line_without_an_end_waits_for_it() {
        let mut tail = tail("n1");
        assert_eq!(tail.split(b"one\ntwo").len(), 1);
        assert_eq!(tail.rest, b"two");
    }

    #[test]
    fn what_is_appended_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut tail = Tail { path: dir.path().join("n1.log"), ..tail("n1") };
        assert_eq!(tail.read().unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&tail.path, "a\nb\nc").unwrap();
        assert_eq!(tail.read().unwrap().len(), 2);
        std::fs::write(&tail.path, "a\nb\nc\n").unwrap();
        let more = tail.read().unwrap();
        assert_eq!(more[0].text, "c");
        assert!(tail.read().unwrap().is_empty());
    }
}

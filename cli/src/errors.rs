//! What the command says when it cannot do what was asked.
//!
//! Every error has up to three parts, and a code that `holdfast help CODE` explains offline:
//!
//! ```text
//! error[no-quorum]: the cluster cannot commit writes
//!   cause: 1 of 3 voters answers (n1); n2 unreachable 31 s, n3 unreachable 45 s
//!    help: bring back n2 or n3. Nothing is lost; stale reads work with --local.
//! ```
//!
//! Invariants: errors go to stderr, as text or (with `-o json`) as one object of the schema
//! `holdfast.error/v1`; the exit code follows from the code alone.

use std::fmt;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::codes::Code;

/// An error as people and scripts see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The runbook section; decides the exit code.
    pub(crate) code: Code,
    /// What failed, naming the thing and its value.
    pub(crate) what: String,
    /// Why; left out where `what` says it all.
    pub(crate) cause: Option<String>,
    /// What to do about it.
    pub(crate) help: Option<String>,
    /// What a script may want to read, as further members of the JSON object.
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// The result of whatever can fail in front of a person.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// An error with its first part only.
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), cause: None, help: None, fields: Vec::new() }
    }

    /// Adds why it failed.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a member to the JSON object.
    pub(crate) fn field(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }

    /// An error about a file or directory of the local cluster.
    pub(crate) fn file(verb: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(Code::LocalFiles, format!("cannot {verb} {}", path.display()))
            .cause(error.to_string())
            .help("make that place readable and writable for this user, or choose another one")
    }

    /// Something that cannot happen did.
    pub(crate) fn bug(what: impl Into<String>) -> Self {
        Self::new(Code::Bug, what).help("please report this with the command and what it printed")
    }

    /// The three parts as text, with the colour codes that the printer strips where unwanted.
    pub(crate) fn to_text(&self) -> String {
        let red = anstyle::AnsiColor::Red.on_default().bold();
        let mut text = format!("{red}error[{}]{red:#}: {}", self.code.name(), self.what);
        if let Some(cause) = &self.cause {
            text += &format!("\n  cause: {}", indent(cause));
        }
        if let Some(help) = &self.help {
            text += &format!("\n   help: {}", indent(help));
        }
        text
    }

    /// The object that `-o json` prints on stderr.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("schema".into(), json!("holdfast.error/v1"));
        object.insert("code".into(), json!(self.code.name()));
        object.insert("exit".into(), json!(self.code.exit().number()));
        object.insert("what".into(), json!(self.what));
        object.insert("cause".into(), json!(self.cause));
        object.insert("help".into(), json!(self.help));
        for (name, value) in &self.fields {
            object.insert((*name).into(), json!(value));
        }
        Value::Object(object)
    }

    /// Reads back the last error that a process of ours printed as text, for instance a node into
    /// its log. None if there is none of a code that we know.
    pub(crate) fn parse_last(text: &str) -> Option<Self> {
        // A log may hold colours if somebody forced them.
        let text = anstream::adapter::strip_str(text).to_string();
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.iter().rposition(|line| line.starts_with("error["))?;
        let (code, what) = lines[start].strip_prefix("error[")?.split_once("]: ")?;
        let mut failure = Self::new(Code::from_name(code)?, what);
        for line in &lines[start + 1..] {
            if let Some(cause) = line.strip_prefix("  cause: ") {
                failure.cause = Some(cause.into());
            } else if let Some(help) = line.strip_prefix("   help: ") {
                failure.help = Some(help.into());
            } else {
                break;
            }
        }
        Some(failure)
    }
}

/// Further lines of a part stand below its first one.
fn indent(part: &str) -> String {
    part.replace('\n', "\n         ")
}

#[cfg(test)]
mod tests {
    //! The shape of errors: text, JSON, and back from a node's log.
    use super::*;

    fn no_quorum() -> Failure {
        Failure::new(Code::NoQuorum, "the cluster cannot commit writes")
            .cause("1 of 3 voters answers (n1); n2 unreachable 31 s, n3 unreachable 45 s")
            .help("bring back n2 or n3. Nothing is lost; stale reads work with --local.")
    }

    #[test]
    fn text_has_three_parts() {
        let plain = anstream::adapter::strip_str(&no_quorum().to_text()).to_string();
        assert_eq!(
            plain,
            "error[no-quorum]: the cluster cannot commit writes\n  cause: 1 of 3 voters answers \
             (n1); n2 unreachable 31 s, n3 unreachable 45 s\n   help: bring back n2 or n3. Nothing \
             is lost; stale reads work with --local."
        );
    }

    #[test]
    fn json_has_a_schema_and_the_exit_code() {
        let text = serde_json::to_string(&no_quorum().field("voters", 3).to_json()).unwrap();
        assert_eq!(
            text,
            "{\"cause\":\"1 of 3 voters answers (n1); n2 unreachable 31 s, n3 unreachable 45 s\",\
             \"code\":\"no-quorum\",\"exit\":4,\"help\":\"bring back n2 or n3. Nothing is lost; \
             stale reads work with --local.\",\"schema\":\"holdfast.error/v1\",\"voters\":\"3\",\
             \"what\":\"the cluster cannot commit writes\"}"
        );
    }

    #[test]
    fn the_last_error_is_read_back_from_a_log() {
        let plain = anstream::adapter::strip_str(&no_quorum().to_text()).to_string();
        let log = format!("error[bug]: an older one\nsome line\n{plain}\n");
        assert_eq!(Failure::parse_last(&log), Some(no_quorum()));
        assert_eq!(Failure::parse_last("nothing here"), None);
        assert_eq!(Failure::parse_last("error[who-knows]: x"), None);
    }
}

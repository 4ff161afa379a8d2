//! `holdfast state import --from-buildbot-sql URL` and `holdfast state export --to-buildbot-sql URL`: rows from
//! and into the SQL database of a Buildbot master.
//!
//! What speaks SQL is the Python package, since SQLAlchemy is where Buildbot is: `python -m
//! holdfast.buildbot.sql` turns a database into an export and back. So a database comes in as a file does, and
//! is checked as one.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Output as Ended, Stdio};

use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use crate::codes::{Code, Exit};
use crate::commands::transfer::{self, Imported};
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::output::Output;
use crate::progress::Progress;

/// What the package says that it did.
#[derive(Debug, Deserialize)]
struct Written {
    /// How many rows were not in the database, or had another value there.
    written: u64,
    /// How many change sources are in groups, which Buildbot knows nothing of.
    ungrouped: u64,
}

/// Takes in all rows of a database.
pub(super) async fn import(connection: &Connection, url: &str, output: Output) -> Outcome<Exit> {
    let mut file = aside()?;
    let out = file.try_clone().map_err(|error| no_room(&error))?;
    let mut python = Python::new(&["read", url]);
    python.command.stdout(out);
    python.run(output, "reading the database").await?;
    file.rewind().map_err(|error| no_room(&error))?;
    let Imported { counts, written, .. } =
        transfer::take_in(connection, file, "what the database has").await?;
    output.answer(&transfer::imported_text(&counts, written), || {
        json!({
            "schema": "holdfast.import/v1",
            "rows": counts.total().to_string(),
            "written": written.to_string(),
            "from": "buildbot-sql",
        })
    });
    Ok(Exit::Done)
}

/// Writes all rows into a database.
pub(super) async fn export(
    connection: &Connection,
    url: &str,
    overwrite: bool,
    output: Output,
) -> Outcome<Exit> {
    let (file, counts, revision) = transfer::write(connection, BufWriter::new(aside()?)).await?;
    let mut file = file.into_inner().map_err(|error| no_room(error.error()))?;
    file.rewind().map_err(|error| no_room(&error))?;
    let overwrite: &[&str] = if overwrite { &["--overwrite"] } else { &[] };
    let mut python = Python::new(&[&["write", url], overwrite].concat());
    python.command.stdin(file);
    let ended = python.run(output, "writing the database").await?;
    let Written { written, ungrouped } = serde_json::from_slice(&ended.stdout)
        .map_err(|error| Failure::bug(format!("the package answered something else: {error}")))?;
    if ungrouped > 0 {
        output.note(&format!(
            "{ungrouped} change sources are in groups, and Buildbot's database has no place for that"
        ));
    }
    let there = counts.total() - written;
    let text = format!(
        "wrote  {written} rows, {there} were there already ({counts})\nas of revision {revision}"
    );
    output.answer(&text, || {
        json!({
            "schema": "holdfast.export.sql/v1",
            "rows": counts.total().to_string(),
            "written": written.to_string(),
            "ungrouped": ungrouped.to_string(),
            "revision": revision.to_string(),
        })
    });
    Ok(Exit::Done)
}

/// A file without a name, for what is on its way.
fn aside() -> Outcome<File> {
    tempfile::tempfile().map_err(|error| no_room(&error))
}

fn no_room(error: &io::Error) -> Failure {
    Failure::file("write", &env::temp_dir(), error)
}

/// A run of the package.
struct Python {
    interpreter: OsString,
    command: Command,
}

impl Python {
    fn new(args: &[&str]) -> Python {
        let interpreter = interpreter(env::var_os("HOLDFAST_PYTHON"), env::current_exe());
        let mut command = Command::new(&interpreter);
        command.args(["-m", "holdfast.buildbot.sql"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Python { interpreter, command }
    }

    async fn run(mut self, output: Output, doing: &str) -> Outcome<Ended> {
        let waiting = Progress::start(output, doing);
        let spawned = self.command.kill_on_drop(true).spawn();
        let child = spawned.map_err(|error| self.missing(error.to_string()))?;
        let ended = child.wait_with_output().await;
        drop(waiting);
        let ended = ended.map_err(|error| self.missing(error.to_string()))?;
        if ended.status.success() {
            return Ok(ended);
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        Err(Failure::parse_last(&said).unwrap_or_else(|| {
            let last = said.lines().rfind(|line| !line.trim().is_empty());
            self.missing(last.map_or_else(|| ended.status.to_string(), str::to_owned))
        }))
    }

    fn missing(&self, cause: String) -> Failure {
        let interpreter = Path::new(&self.interpreter).display();
        Failure::new(Code::NoPython, format!("{interpreter} cannot run the package holdfast"))
            .cause(cause)
            .help(
                "install it where Buildbot is (pip install holdfast), and name that interpreter: \
                 HOLDFAST_PYTHON=/srv/buildbot/bin/python",
            )
    }
}

/// The one that is named, else the one of the environment that the command is installed in, else any.
fn interpreter(named: Option<OsString>, exe: io::Result<PathBuf>) -> OsString {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        return named;
    }
    let beside = exe.ok().map(|exe| exe.with_file_name("python3"));
    beside.filter(|python| python.is_file()).map_or("python3".into(), OsString::from)
}

#[cfg(test)]
mod tests {
    //! Which interpreter is taken.
    use super::*;

    #[test]
    fn the_named_one_comes_first_then_the_one_beside_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let exe = || Ok(dir.path().join("holdfast"));
        assert_eq!(interpreter(None, exe()), "python3");
        assert_eq!(interpreter(None, Err(io::ErrorKind::NotFound.into())), "python3");
        let beside = dir.path().join("python3");
        std::fs::write(&beside, "").unwrap();
        assert_eq!(interpreter(None, exe()), beside);
        assert_eq!(interpreter(Some("".into()), exe()), beside);
        assert_eq!(interpreter(Some("/p".into()), exe()), "/p");
    }
}

//! `holdfast state export` and `holdfast state import`: all rows of a namespace with their ids, as a file of JSON
//! lines.
//!
//! An import reads the whole file before it sends anything, so that a damaged one changes nothing, and then sends
//! it in parts that can each be repeated: one that broke off is taken up again by running it anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek as _, Write};
use std::path::Path;

use holdfast_client::{Error, Row, State};
use serde_json::json;

use crate::codes::{Code, Exit};
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::export_file::{Bad, Counts, Head, Number, Reader, SCHEMA, Writer};
use crate::output::Output;

/// Most rows that one call takes in.
const ROWS_MAX: usize = 1000;
/// Size at which a call is closed, in bytes of names and values; the cluster takes twice that.
const BYTES_MAX: usize = 1 << 20;
/// What holds of every import that ended early.
const GO_ON: &str = "some of what stands above may be there; running it again goes on from there";

/// Writes all rows to a file, or to stdout.
pub(crate) async fn export(
    connection: &Connection,
    to: Option<&Path>,
    output: Output,
) -> Outcome<Exit> {
    let (counts, revision) = match to {
        None => {
            let (_, counts, revision) = write(connection, BufWriter::new(io::stdout())).await?;
            (counts, revision)
        }
        Some(path) => export_to(connection, path).await?,
    };
    output.note(&format!("exported {counts} at revision {revision}"));
    Ok(Exit::Done)
}

/// Writes aside and renames: under its name the file is whole, or not there.
async fn export_to(connection: &Connection, path: &Path) -> Outcome<(Counts, u64)> {
    let failed = |error: io::Error| Failure::file("write", path, &error);
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    let aside = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    let (file, counts, revision) = write(connection, BufWriter::new(aside)).await?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok((counts, revision))
}

/// Writes all rows, and the revision that they are true at.
pub(super) async fn write<W: Write>(connection: &Connection, out: W) -> Outcome<(W, Counts, u64)> {
    let failed = |error: io::Error| {
        Failure::new(Code::LocalFiles, "cannot write the export").cause(error.to_string())
    };
    let mut export = connection.call(connection.client.state().export()).await?;
    let header = export.header();
    let revision = header.revision;
    let head = Head {
        schema: SCHEMA.to_owned(),
        cluster_id: header.cluster_id.clone(),
        namespace: connection.client.namespace().to_owned(),
        revision: Number(revision),
    };
    let mut writer = Writer::begin(out, &head).map_err(failed)?;
    while let Some(rows) = connection.ok(export.next().await).await? {
        for row in rows {
            writer.row(row).map_err(failed)?;
        }
    }
    let (out, counts) = writer.end().map_err(failed)?;
    Ok((out, counts, revision))
}

/// Takes in all rows of a file, or of stdin.
pub(crate) async fn import(connection: &Connection, from: &Path, output: Output) -> Outcome<Exit> {
    let (file, name) = open(from)?;
    let Imported { head, counts, written } = take_in(connection, file, &name).await?;
    let text = format!(
        "{}\nfrom namespace {} of cluster {} at revision {}",
        imported_text(&counts, written),
        head.namespace,
        head.cluster_id,
        head.revision.0
    );
    output.answer(&text, || {
        json!({
            "schema": "holdfast.import/v1",
            "rows": counts.total().to_string(),
            "written": written.to_string(),
            "from": head,
        })
    });
    Ok(Exit::Done)
}

/// What an import was, and did.
pub(super) struct Imported {
    pub(super) head: Head,
    pub(super) counts: Counts,
    /// How many rows were not there before.
    pub(super) written: u64,
}

/// Takes in all rows of a file, called `name` for people.
pub(super) async fn take_in(
    connection: &Connection,
    mut file: File,
    name: &str,
) -> Outcome<Imported> {
    let bad = |bad: Bad| damaged(name, &bad);
    let mut check = Reader::begin(BufReader::new(&file)).map_err(bad)?;
    while check.next().map_err(bad)?.is_some() {}
    let (head, counts) = (check.head().clone(), *check.counts());

    file.rewind().map_err(|error| Failure::file("read", Path::new(name), &error))?;
    let mut rows = Reader::begin(BufReader::new(&file)).map_err(bad)?;
    let mut parts = Parts::new(connection, name);
    while let Some((line, row)) = rows.next().map_err(bad)? {
        parts.add(line, row).await?;
    }
    let written = parts.end().await?;
    Ok(Imported { head, counts, written })
}

/// What an import did, for people.
pub(super) fn imported_text(counts: &Counts, written: u64) -> String {
    let there = counts.total() - written;
    format!("imported  {written} rows, {there} were there already ({counts})")
}

/// The file, and its name for people; what comes from stdin is put aside to be read twice.
fn open(from: &Path) -> Outcome<(File, String)> {
    if from != Path::new("-") {
        let file = File::open(from).map_err(|error| Failure::file("read", from, &error))?;
        return Ok((file, from.display().to_string()));
    }
    let aside = std::env::temp_dir();
    let spool = || -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut io::stdin().lock(), &mut file)?;
        file.rewind()?;
        Ok(file)
    };
    let file = spool().map_err(|error| Failure::file("write", &aside, &error))?;
    Ok((file, "stdin".to_owned()))
}

fn damaged(name: &str, bad: &Bad) -> Failure {
    let Bad { line, what } = bad;
    Failure::new(Code::BadExport, format!("line {line} of {name} cannot be used"))
        .cause(what)
        .help("nothing was imported; export again, or restore the file")
        .field("line", line)
}

/// Rows on their way into the cluster.
struct Parts<'a> {
    connection: &'a Connection,
    state: State,
    name: &'a str,
    /// The rows of the next call, and their lines.
    rows: Vec<Row>,
    lines: Vec<u64>,
    bytes: usize,
    written: u64,
}

impl<'a> Parts<'a> {
    fn new(connection: &'a Connection, name: &'a str) -> Parts<'a> {
        let state = connection.client.state();
        let (rows, lines) = (Vec::new(), Vec::new());
        Parts { connection, state, name, rows, lines, bytes: 0, written: 0 }
    }

    async fn add(&mut self, line: u64, row: Row) -> Outcome<()> {
        let bytes = row_bytes(&row);
        if self.rows.len() == ROWS_MAX || self.bytes + bytes > BYTES_MAX {
            self.send().await?;
        }
        self.bytes += bytes;
        self.rows.push(row);
        self.lines.push(line);
        Ok(())
    }

    async fn end(mut self) -> Outcome<u64> {
        self.send().await?;
        Ok(self.written)
    }

    async fn send(&mut self) -> Outcome<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let (rows, lines) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.lines));
        match self.state.import(rows).await {
            Ok(written) => {
                self.written += written;
                Ok(())
            }
            Err(Error::Refused { reason, fields, .. }) if reason == "IMPORT_CONFLICT" => {
                Err(self.conflict(&fields, &lines))
            }
            Err(error) => self.connection.ok(Err(error)).await.map_err(|f| self.place(f, &lines)),
        }
    }

    /// A row that contradicts one that is there; both are named.
    fn conflict(&self, fields: &BTreeMap<String, String>, lines: &[u64]) -> Failure {
        let field = |name: &str| fields.get(name).map_or("?", String::as_str);
        let nth = field("nth").parse().ok().and_then(|nth: usize| lines.get(nth));
        let line = nth.map_or("?".to_owned(), ToString::to_string);
        let what = format!("line {line} of {} contradicts what is in the cluster", self.name);
        Failure::new(Code::ImportConflict, what)
            .cause(format!("the file has {}, the cluster has {}", field("row"), field("found")))
            .help(format!("import into an empty namespace (--namespace), or mend it; {GO_ON}"))
            .field("line", line)
    }

    /// Says of which lines an error is.
    fn place(&self, failure: Failure, lines: &[u64]) -> Failure {
        let [first, .., last] = lines else { return failure };
        let what = format!("lines {first} to {last} of {}: {}", self.name, failure.what);
        let own = failure.help.as_deref().map_or(String::new(), |own| format!("{own}\n"));
        let help = format!("{own}{GO_ON}");
        Failure { what, help: Some(help), ..failure }
    }
}

/// As the cluster counts it.
fn row_bytes(row: &Row) -> usize {
    /// What it adds for each row.
    const ROW_BYTES: usize = 40;
    ROW_BYTES
        + match row {
            Row::Master { name, .. } => name.len(),
            Row::ChangeSource { name, group, .. } => {
                name.len() + group.as_ref().map_or(0, String::len)
            }
            Row::Object { name, class_name, .. } => name.len() + class_name.len(),
            Row::Value { name, bytes, .. } => name.len() + bytes.len(),
        }
}

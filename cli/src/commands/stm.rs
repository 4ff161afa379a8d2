//! `holdfast stm`: variables with versions.
//!
//! Keys are spelt as Python literals, or as the text that they are: `balance`, `7`, `'7'`,
//! `('account', 7)`. A prefix is a key, too: texts that begin with this one, tuples that begin with its
//! parts. Values are JSON texts unless told otherwise; a pickle is shown as bytes, and never taken apart.

use std::io::Read as _;

use holdfast_client::stm::{
    Codec, CommitError, Conflict, Content, Interrupt, Key, KeyError, Plan, Prefix, Store,
    TransactError, Variable,
};
use holdfast_client::{WatchFilter, WatchOptions};
use serde_json::{Value, json};

use crate::args::{CodecName, StmArgs, StmVerb};
use crate::codes::{Code, Exit};
use crate::commands::state::{check_value, read_value, shown};
use crate::commands::watch;
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::output::{Format, Output, bytes_json, bytes_text, print_line, table};

/// More than any script needs: 4,096 keys of 1 KiB twice, and 8 MiB of values.
const SCRIPT_BYTES_MAX: u64 = 32 << 20;

/// Carries out `holdfast stm …`.
pub(crate) async fn run(args: &StmArgs, output: Output) -> Outcome<Exit> {
    let connection = Connection::open(&args.call, output)?;
    // A person waits for as long as the call may take before hearing that the cluster is busy.
    let store = connection.client.stm().with_budget(args.call.timeout);
    let done = carry_out(&connection, &store, &args.verb, output).await;
    connection.close().await;
    done
}

async fn carry_out(
    connection: &Connection,
    store: &Store,
    verb: &StmVerb,
    output: Output,
) -> Outcome<Exit> {
    match verb {
        StmVerb::Get { key, local } => get(connection, store, key, *local, output).await,
        StmVerb::Put { key, value, if_version, codec } => {
            let content = content(&read_value(value, true)?, *codec)?;
            let plan = expecting(key, *if_version).put(key.clone(), content);
            put(connection, store, key, plan, output).await
        }
        StmVerb::Del { key, if_version: None } => delete(connection, store, key, output).await,
        StmVerb::Del { key, if_version } => {
            let plan = expecting(key, *if_version).delete(key.clone());
            put(connection, store, key, plan, output).await
        }
        StmVerb::List { prefix } => list(connection, store, prefix.as_ref(), output).await,
        StmVerb::Txn { steps } => transact(connection, store, steps, output).await,
        StmVerb::Dump { prefix } => dump(connection, store, prefix.as_ref(), output).await,
        StmVerb::Watch { prefix, from_revision } => {
            let key_prefix = prefix_of(prefix.as_ref())?.as_bytes().to_vec();
            let filters = vec![WatchFilter::Variable(key_prefix)];
            let options = WatchOptions { from_revision: *from_revision, filters };
            watch::follow(connection, options, "variables", |_| true, output).await
        }
    }
}

async fn get(
    connection: &Connection,
    store: &Store,
    key: &Key,
    local: bool,
    output: Output,
) -> Outcome<Exit> {
    let snapshot = match local {
        true => connection.call(store.read_local([key.clone()])).await?,
        false => connection.call(store.read([key.clone()])).await?,
    };
    let found = snapshot.variables.into_iter().next();
    let Some(variable) = found.filter(|variable| variable.version > 0) else {
        return Err(absent(key));
    };
    match output.format {
        Format::Text => output.raw(variable.content.as_ref().map_or(&[][..], Content::bytes)),
        Format::Json | Format::Jsonl => output.answer("", || {
            let mut row = row(&variable);
            row["schema"] = json!("holdfast.stm/v1");
            row["revision"] = json!(snapshot.revision.to_string());
            row
        }),
    }
    Ok(Exit::Done)
}

fn absent(key: &Key) -> Failure {
    Failure::new(Code::Absent, format!("there is no variable {key}"))
        .help("list them: holdfast stm list")
}

fn expecting(key: &Key, version: Option<u64>) -> Plan {
    match version {
        Some(version) => Plan::new().expect_version(key.clone(), version),
        None => Plan::new(),
    }
}

/// Writes or deletes one variable.
async fn put(
    connection: &Connection,
    store: &Store,
    key: &Key,
    plan: Plan,
    output: Output,
) -> Outcome<Exit> {
    let committed = commit(connection, store, plan).await?;
    output.answer(&put_text(&committed), || {
        let mut answer = match &committed {
            Ok(revision) => json!({ "written": true, "mod_revision": revision.to_string() }),
            Err(conflict) => {
                let mut answer = conflict.variables.first().map_or_else(|| json!({}), row);
                answer["written"] = json!(false);
                answer
            }
        };
        answer["schema"] = json!("holdfast.stm.put/v1");
        answer["key"] = json!(key.to_string());
        answer
    });
    Ok(if committed.is_ok() { Exit::Done } else { Exit::No })
}

fn put_text(committed: &Result<u64, Conflict>) -> String {
    let conflict = match committed {
        Ok(revision) => return format!("written  revision {revision}"),
        Err(conflict) => conflict,
    };
    match conflict.variables.first() {
        Some(Variable { version, content: Some(content), .. }) => {
            format!("lost  version {version}  {}", content_text(content))
        }
        Some(Variable { version: 0, .. }) | None => "lost  there is no such variable".to_owned(),
        Some(Variable { version, content: None, .. }) => format!("lost  version {version}"),
    }
}

/// The revision of a commit, or why it was not carried out.
async fn commit(
    connection: &Connection,
    store: &Store,
    plan: Plan,
) -> Outcome<Result<u64, Conflict>> {
    let mut commit = store.prepare(plan);
    let committed = async {
        match commit.commit().await {
            Ok(revision) => Ok(Ok(revision)),
            Err(CommitError::ConcurrentUpdate(conflict)) => Ok(Err(conflict)),
            Err(
                CommitError::BusyRetry { cause: error }
                | CommitError::CommitUncertain { cause: error }
                | CommitError::Refused(error),
            ) => Err(error),
        }
    };
    connection.call(committed).await
}

async fn delete(
    connection: &Connection,
    store: &Store,
    key: &Key,
    output: Output,
) -> Outcome<Exit> {
    let was_there = match store.delete(key).await {
        Ok(was_there) => was_there,
        Err(error) => return Err(transact_failure(connection, error).await),
    };
    if !was_there {
        return Err(absent(key));
    }
    output.answer(
        "deleted",
        || json!({ "schema": "holdfast.stm.del/v1", "key": key.to_string(), "deleted": true }),
    );
    Ok(Exit::Done)
}

async fn transact_failure(connection: &Connection, error: TransactError<Interrupt>) -> Failure {
    let error = match error {
        TransactError::Read(error)
        | TransactError::Uncertain { cause: error, .. }
        | TransactError::Aborted(Interrupt::Read(error))
        | TransactError::Commit(
            CommitError::BusyRetry { cause: error }
            | CommitError::CommitUncertain { cause: error }
            | CommitError::Refused(error),
        ) => error,
        other @ (TransactError::Aborted(_)
        | TransactError::NothingRead
        | TransactError::Commit(CommitError::ConcurrentUpdate(_))) => {
            return Failure::new(Code::Overloaded, other.to_string())
                .help("nothing was written; try again in a moment");
        }
    };
    match connection.ok::<()>(Err(error)).await {
        Err(failure) => failure,
        Ok(()) => Failure::bug("an error was none"),
    }
}

async fn list(
    connection: &Connection,
    store: &Store,
    prefix: Option<&Key>,
    output: Output,
) -> Outcome<Exit> {
    let variables = connection.call(store.versions(&prefix_of(prefix)?)).await?.variables;
    let mut rows = table(&["KEY", "VERSION", "REVISION"]);
    let mut json = Vec::new();
    for Variable { key, version, mod_revision, .. } in variables {
        rows.add_row([key.to_string(), version.to_string(), mod_revision.to_string()]);
        json.push(json!({
            "key": key.to_string(),
            "version": version.to_string(),
            "mod_revision": mod_revision.to_string(),
        }));
    }
    output.list("holdfast.stm.list/v1", "variables", &rows, json);
    Ok(Exit::Done)
}

async fn dump(
    connection: &Connection,
    store: &Store,
    prefix: Option<&Key>,
    output: Output,
) -> Outcome<Exit> {
    let snapshot = connection.call(store.snapshot(&prefix_of(prefix)?)).await?;
    let rows: Vec<Value> = snapshot.variables.iter().map(row).collect();
    match output.format {
        Format::Text => {
            for variable in &snapshot.variables {
                let value = variable.content.as_ref().map_or_else(String::new, content_text);
                print_line(&format!("{} = {}  version {}", variable.key, value, variable.version));
            }
            output.note(&format!("all of it as of revision {}", snapshot.revision));
        }
        Format::Json => output.answer("", || {
            let revision = snapshot.revision.to_string();
            json!({ "schema": "holdfast.stm.dump/v1", "revision": revision, "variables": rows })
        }),
        Format::Jsonl => {
            for mut row in rows {
                row["schema"] = json!("holdfast.stm/v1");
                row["revision"] = json!(snapshot.revision.to_string());
                print_line(&row.to_string());
            }
        }
    }
    Ok(Exit::Done)
}

async fn transact(
    connection: &Connection,
    store: &Store,
    steps: &[String],
    output: Output,
) -> Outcome<Exit> {
    let plan = match steps {
        [] => plan(read_script()?.lines())?,
        steps => plan(steps.iter().map(String::as_str))?,
    };
    let committed = commit(connection, store, plan).await?;
    output.answer(&txn_text(&committed), || txn_json(&committed));
    Ok(if committed.is_ok() { Exit::Done } else { Exit::No })
}

fn txn_text(committed: &Result<u64, Conflict>) -> String {
    let conflict = match committed {
        Ok(revision) => return format!("committed  revision {revision}"),
        Err(conflict) => conflict,
    };
    let mut lines = vec![format!("conflict  {} failed", conflict.total)];
    for variable in &conflict.variables {
        let value = variable.content.as_ref().map(content_text).unwrap_or_default();
        let line = format!("{}  version {}  {value}", variable.key, variable.version);
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

fn txn_json(committed: &Result<u64, Conflict>) -> Value {
    let (is_committed, revision) = match committed {
        Ok(revision) => (true, revision),
        Err(conflict) => (false, &conflict.revision),
    };
    let mut answer = json!({
        "schema": "holdfast.stm.txn/v1",
        "committed": is_committed,
        "revision": revision.to_string(),
    });
    if let Err(conflict) = committed {
        answer["conflicts"] = conflict.variables.iter().map(row).collect();
        answer["conflicts_total"] = json!(conflict.total);
    }
    answer
}

fn read_script() -> Outcome<String> {
    let mut script = String::new();
    let read = std::io::stdin().lock().take(SCRIPT_BYTES_MAX).read_to_string(&mut script);
    read.map_err(|error| Failure::new(Code::Usage, "cannot read stdin").cause(error.to_string()))?;
    Ok(script)
}

/// What the steps of a script come to.
fn plan<'a>(steps: impl Iterator<Item = &'a str>) -> Outcome<Plan> {
    let mut plan = Plan::new();
    for (number, step) in (1..).zip(steps.map(str::trim)) {
        if step.is_empty() || step.starts_with('#') {
            continue;
        }
        plan = add_step(plan, step).map_err(|failure| {
            let what = format!("step {number} of the transaction: {}", failure.what);
            Failure { what, ..failure }
        })?;
    }
    Ok(plan)
}

fn add_step(plan: Plan, step: &str) -> Outcome<Plan> {
    let (verb, rest) = step.split_once(char::is_whitespace).unwrap_or((step, ""));
    let (key, rest) = Key::split_from(rest.trim_start()).map_err(|error| bad_key(&error))?;
    let rest = rest.trim();
    match (verb, rest) {
        ("expect", "absent") => Ok(plan.expect_version(key, 0)),
        ("expect", version) => match version.parse() {
            Ok(version) => Ok(plan.expect_version(key, version)),
            Err(_) => Err(bad_step("a version is a number, or absent", version)),
        },
        ("put", value) => {
            check_value(value.as_bytes(), false)?;
            Ok(plan.put(key, Content::new(Codec::Json, value.as_bytes())))
        }
        ("del", "") => Ok(plan.delete(key)),
        ("del", more) => Err(bad_step("nothing comes behind the key", more)),
        (verb, _) => Err(bad_step("a step is expect, put or del", verb)),
    }
}

fn bad_step(what: &str, found: &str) -> Failure {
    Failure::new(Code::Usage, format!("{what}, and not {found:?}"))
        .help("steps are: expect KEY VERSION, expect KEY absent, put KEY JSON, del KEY")
}

fn bad_key(error: &KeyError) -> Failure {
    Failure::new(Code::Usage, error.to_string())
        .help("keys are spelt balance, 7, '7', b'x' or ('account', 7)")
}

fn prefix_of(key: Option<&Key>) -> Outcome<Prefix> {
    let Some(key) = key else { return Ok(Prefix::all()) };
    let prefix = key.part().and_then(Prefix::of);
    prefix.map_err(|error| bad_key(&error))
}

fn content(value: &[u8], codec: CodecName) -> Outcome<Content> {
    let codec = match codec {
        CodecName::Json => {
            check_value(value, false)?;
            Codec::Json
        }
        CodecName::Bytes => Codec::Bytes,
        CodecName::Pickle => Codec::Pickle,
    };
    Ok(Content::new(codec, value))
}

/// A value in a line of text: JSON as it is, everything else as bytes.
fn content_text(content: &Content) -> String {
    match content.codec() {
        Codec::Json => shown(content.bytes()),
        Codec::Bytes => match std::str::from_utf8(content.bytes()) {
            Ok(_) => shown(content.bytes()),
            Err(_) => bytes_text(content.bytes()),
        },
        Codec::Pickle => format!("<pickle of {} bytes>", content.bytes().len()),
    }
}

fn row(variable: &Variable) -> Value {
    let codec = variable.content.as_ref().map(|content| match content.codec() {
        Codec::Json => "json",
        Codec::Bytes => "bytes",
        Codec::Pickle => "pickle",
    });
    json!({
        "key": variable.key.to_string(),
        "version": variable.version.to_string(),
        "mod_revision": variable.mod_revision.to_string(),
        "codec": codec,
        "value": variable.content.as_ref().map(|content| bytes_json(content.bytes())),
    })
}

#[cfg(test)]
mod tests {
    //! What scripts rely on, to the letter, and what they may say.
    use super::*;

    fn key(word: &str) -> Key {
        word.parse().unwrap()
    }

    fn variable(word: &str, version: u64, content: Option<Content>) -> Variable {
        Variable { key: key(word), version, mod_revision: 12 * version, content }
    }

    fn json_text(text: &str) -> Option<Content> {
        Some(Content::new(Codec::Json, text.as_bytes()))
    }

    #[test]
    fn put_says_what_stands() {
        let conflict =
            |variable| Err(Conflict { variables: vec![variable], total: 1, revision: 20 });
        assert_eq!(put_text(&Ok(12)), "written  revision 12");
        let stands = variable("x", 3, json_text("[7]"));
        assert_eq!(put_text(&conflict(stands)), "lost  version 3  [7]");
        assert_eq!(put_text(&conflict(variable("x", 0, None))), "lost  there is no such variable");
        let pickle = Content::new(Codec::Pickle, *b"\x80\x05K\x01.");
        let stands = variable("x", 3, Some(pickle));
        assert_eq!(put_text(&conflict(stands)), "lost  version 3  <pickle of 5 bytes>");
    }

    #[test]
    fn txn_says_which_comparisons_failed() {
        assert_eq!(txn_text(&Ok(12)), "committed  revision 12");
        let variables = vec![variable("x", 3, json_text("1")), variable("('y', 1)", 0, None)];
        let conflict = Err(Conflict { variables, total: 2, revision: 20 });
        assert_eq!(
            txn_text(&conflict),
            "conflict  2 failed\n'x'  version 3  1\n('y', 1)  version 0"
        );
        assert_eq!(
            txn_json(&conflict).to_string(),
            "{\"committed\":false,\"conflicts\":[{\"codec\":\"json\",\"key\":\"'x'\",\
             \"mod_revision\":\"36\",\"value\":\"1\",\"version\":\"3\"},{\"codec\":null,\
             \"key\":\"('y', 1)\",\"mod_revision\":\"0\",\"value\":null,\"version\":\"0\"}],\
             \"conflicts_total\":2,\"revision\":\"20\",\"schema\":\"holdfast.stm.txn/v1\"}"
        );
    }

    #[test]
    fn a_script_is_comparisons_and_writes() {
        let script = "# move ten\nexpect alice 3\nexpect ('b', 1) absent\n\n  put alice {\"n\": 90}\n\
                      put ('b', 1) 10\ndel 'old one'\n";
        let expected = Plan::new()
            .expect_version(key("alice"), 3)
            .expect_version(key("('b', 1)"), 0)
            .put(key("alice"), json_text("{\"n\": 90}").unwrap())
            .put(key("('b', 1)"), json_text("10").unwrap())
            .delete(key("'old one'"));
        assert_eq!(plan(script.lines()).unwrap(), expected);
        for (step, what) in [
            ("take x 1", "a step is expect, put or del, and not \"take\""),
            ("expect x y", "a version is a number, or absent, and not \"y\""),
            ("del x y", "nothing comes behind the key, and not \"y\""),
            ("put x hello", "the value is not JSON: hello"),
            ("put ('x' 1", "not a key, at character 6: a comma was expected, and not '1'"),
        ] {
            let failure = plan(["expect a 1", step].into_iter()).unwrap_err();
            assert_eq!(failure.what, format!("step 2 of the transaction: {what}"));
            assert_eq!(failure.code.exit(), Exit::Usage);
        }
    }
}

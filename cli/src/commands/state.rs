//! `holdfast state`: values of objects, byte for byte.

use std::io::Read as _;
use std::path::Path;

use holdfast_client::{Created, Fence, State, Written};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::args::{ExclusiveArgs, StateArgs, StateVerb};
use crate::codes::{Code, Exit};
use crate::commands::{buildbot_sql, changesource, exclusive, transfer, watch};
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::names::{FenceRef, ObjectName};
use crate::output::{Format, Output, bytes_json, bytes_text, table};

/// Most bytes of a value that a table shows.
const SHOWN_MAX: usize = 60;
/// More than any value may have; what is read from stdin or from a command ends here.
pub(crate) const STDIN_MAX: u64 = 2 << 20;

/// Carries out `holdfast state …`.
pub(crate) async fn run(args: &StateArgs, output: Output) -> Outcome<Exit> {
    let connection = Connection::open(&args.call, output)?;
    let done = carry_out(&connection, &args.verb, output).await;
    connection.close().await;
    done
}

async fn carry_out(connection: &Connection, verb: &StateVerb, output: Output) -> Outcome<Exit> {
    match verb {
        StateVerb::Get { object, key, local } => get(connection, object, key, *local, output).await,
        StateVerb::Set { object, key, value, if_revision, fence, raw } => {
            let value = read_value(value, *raw)?;
            let how = match (if_revision, fence) {
                (Some(revision), _) => How::If(*revision),
                (None, Some(fence)) => How::Fenced(fence),
                (None, None) => How::Plainly,
            };
            set(connection, object, key, value, how, output).await
        }
        StateVerb::Create { object, key, value, exclusive, raw } => {
            let made = match (&exclusive.exec, value) {
                (Some(command), _) => Made::By(command, exclusive),
                (None, value) => Made::Here(read_value(value.as_deref().unwrap_or("-"), *raw)?),
            };
            create(connection, object, key, made, *raw, output).await
        }
        StateVerb::Del { object, key } => delete(connection, object, key, output).await,
        StateVerb::Watch { object, key, from_revision } => {
            // An object that is not there yet can be watched too.
            let prefix = format!("state/{object}/{key}");
            watch::watch(connection, &prefix, *from_revision, output).await
        }
        StateVerb::Export { to_buildbot_sql: Some(url), overwrite, .. } => {
            buildbot_sql::export(connection, url, *overwrite, output).await
        }
        StateVerb::Export { file, to_buildbot_sql: None, .. } => {
            transfer::export(connection, file.as_deref(), output).await
        }
        StateVerb::Import { from_buildbot_sql: Some(url), .. } => {
            buildbot_sql::import(connection, url, output).await
        }
        StateVerb::Import { file, from_buildbot_sql: None } => {
            // Without a file there is a database: the command line has been checked.
            let file = file.as_deref().unwrap_or(Path::new("-"));
            transfer::import(connection, file, output).await
        }
        StateVerb::List { object: Some(object) } => list(connection, object, output).await,
        StateVerb::List { object: None } => list_objects(connection, output).await,
    }
}

async fn get(
    connection: &Connection,
    object: &ObjectName,
    key: &str,
    local: bool,
    output: Output,
) -> Outcome<Exit> {
    let state = connection.client.state();
    let id = existing(connection, &state, object).await?;
    let found = match local {
        true => connection.call(state.get_local(id, key)).await?,
        false => connection.call(state.get(id, key)).await?,
    };
    let Some(value) = found else { return Err(no_key(object, key)) };
    match output.format {
        Format::Text => output.raw(&value.bytes),
        Format::Json | Format::Jsonl => output.answer("", || {
            let mut row = item(object, key, &value.bytes, value.mod_revision);
            row["schema"] = json!("holdfast.state/v1");
            row["revision"] = json!(value.revision.to_string());
            row
        }),
    }
    Ok(Exit::Done)
}

/// Under which condition a value is overwritten.
enum How<'a> {
    Plainly,
    If(u64),
    Fenced(&'a FenceRef),
}

async fn set(
    connection: &Connection,
    object: &ObjectName,
    key: &str,
    value: Vec<u8>,
    how: How<'_>,
    output: Output,
) -> Outcome<Exit> {
    let state = connection.client.state();
    let fence = match how {
        How::Plainly | How::If(_) => None,
        How::Fenced(fence) => Some(fenced(connection, fence).await?),
    };
    let id = connection.call(state.get_object_id(&object.name, &object.class)).await?;
    let written = match (&how, fence) {
        (_, Some(fence)) => connection.call(state.set_fenced(id, key, value, fence)).await?,
        (How::If(revision), None) => {
            connection.call(state.set_if(id, key, value, *revision)).await?
        }
        (How::Plainly | How::Fenced(_), None) => connection.call(state.set(id, key, value)).await?,
    };
    output.answer(&set_text(&written), || {
        json!({
            "schema": "holdfast.state.set/v1",
            "object": object.to_string(),
            "key": key,
            "written": written.written,
            "mod_revision": written.mod_revision.to_string(),
            "value": written.value.as_deref().map(bytes_json),
        })
    });
    Ok(if written.written { Exit::Done } else { Exit::No })
}

fn set_text(written: &Written) -> String {
    let revision = written.mod_revision;
    match (&written.value, written.written) {
        (_, true) => format!("written  revision {revision}"),
        (Some(value), false) => format!("lost  revision {revision}  {}", bytes_text(value)),
        (None, false) => "lost  the key has no value".to_owned(),
    }
}

async fn fenced(connection: &Connection, fence: &FenceRef) -> Outcome<Fence> {
    let source = changesource::find(connection, &fence.changesource).await?;
    Ok(Fence { change_source: source.id, token: fence.token })
}

/// Where a value comes from that is to be created.
enum Made<'a> {
    Here(Vec<u8>),
    By(&'a str, &'a ExclusiveArgs),
}

async fn create(
    connection: &Connection,
    object: &ObjectName,
    key: &str,
    made: Made<'_>,
    raw: bool,
    output: Output,
) -> Outcome<Exit> {
    let state = connection.client.state();
    let id = connection.call(state.get_object_id(&object.name, &object.class)).await?;
    let created = match made {
        Made::Here(value) => connection.call(state.create(id, key, value)).await?,
        Made::By(command, args) => {
            exclusive::create(connection, (id, key), command, args, raw).await?
        }
    };
    output.answer(&create_text(&created), || {
        json!({
            "schema": "holdfast.state.create/v1",
            "object": object.to_string(),
            "key": key,
            "created": created.created,
            "mod_revision": created.mod_revision.to_string(),
            "value": bytes_json(&created.value),
        })
    });
    Ok(if created.created { Exit::Done } else { Exit::No })
}

fn create_text(created: &Created) -> String {
    let revision = created.mod_revision;
    match created.created {
        true => format!("created  revision {revision}"),
        false => format!("exists  revision {revision}  {}", bytes_text(&created.value)),
    }
}

async fn delete(
    connection: &Connection,
    object: &ObjectName,
    key: &str,
    output: Output,
) -> Outcome<Exit> {
    let state = connection.client.state();
    let id = existing(connection, &state, object).await?;
    if !connection.call(state.delete(id, key)).await? {
        return Err(no_key(object, key));
    }
    output.answer("deleted", || {
        json!({
            "schema": "holdfast.state.del/v1",
            "object": object.to_string(),
            "key": key,
            "deleted": true,
        })
    });
    Ok(Exit::Done)
}

async fn list(connection: &Connection, object: &ObjectName, output: Output) -> Outcome<Exit> {
    let state = connection.client.state();
    let id = existing(connection, &state, object).await?;
    let items = connection.call(state.list(id)).await?;
    let mut rows = table(&["KEY", "REVISION", "VALUE"]);
    for item in &items {
        rows.add_row([item.name.clone(), item.mod_revision.to_string(), shown(&item.bytes)]);
    }
    let json = items.iter().map(|i| item_of(object, i)).collect();
    output.list("holdfast.state/v1", "items", &rows, json);
    Ok(Exit::Done)
}

fn item_of(object: &ObjectName, found: &holdfast_client::StateItem) -> Value {
    item(object, &found.name, &found.bytes, found.mod_revision)
}

fn item(object: &ObjectName, key: &str, bytes: &[u8], mod_revision: u64) -> Value {
    json!({
        "object": object.to_string(),
        "key": key,
        "value": bytes_json(bytes),
        "mod_revision": mod_revision.to_string(),
    })
}

async fn list_objects(connection: &Connection, output: Output) -> Outcome<Exit> {
    let objects = connection.call(connection.client.state().list_objects()).await?;
    let mut rows = table(&["OBJECT", "ID"]);
    let mut json = Vec::new();
    for object in objects {
        let name = ObjectName { class: object.class_name, name: object.name };
        rows.add_row([name.to_string(), object.id.to_string()]);
        json.push(json!({ "object": name.to_string(), "id": object.id.to_string() }));
    }
    output.list("holdfast.objects/v1", "objects", &rows, json);
    Ok(Exit::Done)
}

/// The id of an object that must be there.
async fn existing(connection: &Connection, state: &State, object: &ObjectName) -> Outcome<i64> {
    let id = connection.call(state.find_object_id(&object.name, &object.class)).await?;
    id.ok_or_else(|| {
        Failure::new(Code::Absent, format!("there is no object {object}"))
            .help("list them: holdfast state list")
    })
}

fn no_key(object: &ObjectName, key: &str) -> Failure {
    Failure::new(Code::Absent, format!("{object} has no value for {key}"))
}

/// The value of the command line; `-` stands for stdin.
pub(crate) fn read_value(text: &str, raw: bool) -> Outcome<Vec<u8>> {
    let bytes = match text {
        "-" => read_stdin()?,
        text => text.as_bytes().to_vec(),
    };
    check_value(&bytes, raw)?;
    Ok(bytes)
}

/// Refuses what is not JSON, unless it may be anything.
pub(crate) fn check_value(bytes: &[u8], raw: bool) -> Outcome<()> {
    if raw { Ok(()) } else { check_json(bytes) }
}

fn read_stdin() -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(STDIN_MAX).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(Code::Usage, "cannot read stdin").cause(error.to_string()))?;
    // What a shell's echo adds is no part of the value.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

fn check_json(bytes: &[u8]) -> Outcome<()> {
    let Err(error) = serde_json::from_slice::<IgnoredAny>(bytes) else { return Ok(()) };
    let text = bytes_text(bytes);
    let is_word = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    let help = if is_word {
        format!("a JSON string has quotes: '\"{text}\"'; --raw stores the text as it is")
    } else {
        "correct the JSON; --raw stores the text as it is".to_owned()
    };
    Err(Failure::new(Code::NotJson, format!("the value is not JSON: {}", shown(bytes)))
        .cause(error.to_string())
        .help(help))
}

/// A value in one cell of a table.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = bytes_text(bytes).replace(['\n', '\r', '\t'], " ");
    match text.char_indices().nth(SHOWN_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    //! What scripts rely on, to the letter.
    use super::*;

    #[test]
    fn create_says_who_won() {
        let created = |created, value: &[u8]| Created {
            created,
            value: value.to_vec(),
            mod_revision: 12,
            revision: 20,
        };
        assert_eq!(create_text(&created(true, b"1")), "created  revision 12");
        assert_eq!(create_text(&created(false, b"{\"a\": 1}")), "exists  revision 12  {\"a\": 1}");
    }

    #[test]
    fn set_says_what_stands() {
        let written = |written, value: Option<&[u8]>| Written {
            written,
            value: value.map(<[u8]>::to_vec),
            mod_revision: 12,
            revision: 20,
        };
        assert_eq!(set_text(&written(true, None)), "written  revision 12");
        assert_eq!(set_text(&written(false, Some(b"7"))), "lost  revision 12  7");
        assert_eq!(set_text(&written(false, None)), "lost  the key has no value");
    }

    #[test]
    fn an_item_keeps_the_text_of_its_value() {
        let object: ObjectName = "demo".parse().unwrap();
        assert_eq!(
            item(&object, "greeting", b"\"hello\"", 9_007_199_254_740_993).to_string(),
            "{\"key\":\"greeting\",\"mod_revision\":\"9007199254740993\",\"object\":\"cli/demo\",\
             \"value\":\"\\\"hello\\\"\"}"
        );
        assert_eq!(item(&object, "k", &[0xff], 1)["value"].to_string(), r#"{"base64":"/w=="}"#);
    }

    #[test]
    fn values_are_json_unless_told_otherwise() {
        assert_eq!(read_value("{\"a\": [1, 2]}", false).unwrap(), b"{\"a\": [1, 2]}");
        let failure = read_value("hello", false).unwrap_err();
        assert_eq!(failure.code, Code::NotJson);
        assert!(failure.help.unwrap().contains("'\"hello\"'"));
        assert_eq!(read_value("NaN", true).unwrap(), b"NaN");
    }

    #[test]
    fn long_values_are_cut_in_tables() {
        assert_eq!(shown("é".repeat(61).as_bytes()), format!("{}…", "é".repeat(60)));
        assert_eq!(shown(b"a\nb"), "a b");
    }
}

//! From what the state machine answers to the output of a script.

use std::fmt::Write as _;

use holdfast_machine::{
    BodyChange, Bytes, Change, Command, Reply, Request, Response, State, changesources, creators,
    inspect, masters, objects, state, stm,
};

use super::{Result, parse};

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a change is to a session's own rows, which most stories are not about.
pub(super) fn is_bookkeeping(change: &Change) -> bool {
    matches!(change.key.first(), Some(0x10..=0x1f)) || *change.key == [0x01, 4]
}

/// The bodies that came and went.
pub(super) fn bodies(bodies: &[BodyChange]) -> Result<String> {
    let mut out = String::new();
    for BodyChange { hash, bytes } in bodies {
        match bytes {
            Some(bytes) => writeln!(out, "  body {hash:?} = {}", value_text(bytes))?,
            None => writeln!(out, "  body {hash:?} goes")?,
        }
    }
    Ok(out)
}

/// The changed rows; of very many, the first and the last.
pub(super) fn changes(changes: &[&Change]) -> Result<String> {
    const EDGE: usize = 10;
    let hidden = changes.len().saturating_sub(2 * EDGE + 5);
    let mut out = String::new();
    for (nth, change) in changes.iter().enumerate() {
        if hidden > 0 && (EDGE..EDGE + hidden).contains(&nth) {
            if nth == EDGE {
                writeln!(out, "  … {hidden} more changes …")?;
            }
            continue;
        }
        let row = inspect::describe(&change.key, change.value.as_deref())?;
        writeln!(out, "  {} {}", change.revision, shorten(&row))?;
    }
    Ok(out)
}

/// What those who watch learn of the changes.
pub(super) fn events(changes: &[Change]) -> Result<String> {
    let mut out = String::new();
    for change in changes {
        let event = change.event()?;
        assert_eq!(event.is_some(), change.is_event(), "{change:?}");
        if let Some(event) = event {
            writeln!(out, "  {} {}: {event:?}", change.revision, event.namespace())?;
        }
    }
    Ok(out)
}

/// Writes long runs of the letter x as scripts do.
fn shorten(row: &str) -> String {
    let is_run = |piece: &str| piece.len() > 50 && piece.bytes().all(|byte| byte == b'x');
    row.split('"')
        .map(|piece| if is_run(piece) { format!("x.{}", piece.len()) } else { piece.to_owned() })
        .collect::<Vec<_>>()
        .join("\"")
}

pub(super) fn response(response: &Response) -> String {
    let outcome = match &response.outcome {
        Ok(Reply::Session(reply)) => format!("{reply:?}"),
        Ok(Reply::State(reply)) => state_reply(reply),
        Ok(Reply::Masters(reply)) => format!("{reply:?}"),
        Ok(Reply::ChangeSources(reply)) => format!("{reply:?}"),
        Ok(Reply::Creators(creators::Reply::Exists { mod_revision, value })) => {
            format!("Exists {{ mod_revision: {mod_revision}, value: {} }}", value_or_none(value))
        }
        Ok(Reply::Creators(reply)) => format!("{reply:?}"),
        Ok(Reply::Import(reply)) => format!("{reply:?}"),
        Ok(Reply::Objects(reply)) => format!("{reply:?}"),
        Ok(Reply::Stm(reply)) => stm_reply(reply),
        Err(refusal) => format!("refused {}: {refusal}", refusal.reason()),
    };
    format!("{} {outcome}", response.revision)
}

/// The note of a set, as admission has filled it in.
pub(super) fn note(request: &Request) -> String {
    if let Command::State(state::Command::Set { noted_revision: Some(note), .. }) = &request.command
    {
        format!(", noting {note}")
    } else {
        String::new()
    }
}

fn state_reply(reply: &state::Reply) -> String {
    match reply {
        state::Reply::ObjectId(_) | state::Reply::Deleted(_) => format!("{reply:?}"),
        state::Reply::Written { written, mod_revision, found, value } => format!(
            "Written {{ written: {written}, mod_revision: {mod_revision}, found: {found}, value: {} }}",
            value_or_none(value)
        ),
        state::Reply::Created { created, mod_revision, value } => format!(
            "Created {{ created: {created}, mod_revision: {mod_revision}, value: {} }}",
            value_or_none(value)
        ),
    }
}

/// A conflict's comparisons by their places; of very many, the first ones.
fn stm_reply(reply: &stm::Reply) -> String {
    match reply {
        stm::Reply::Conflict { failed, total } if failed.len() > 20 => {
            format!(
                "Conflict {{ failed: {:?} and {} more, total: {total} }}",
                &failed[..3],
                failed.len() - 3
            )
        }
        stm::Reply::Committed | stm::Reply::Conflict { .. } => format!("{reply:?}"),
    }
}

fn variable(out: &mut String, key: &[u8], found: &stm::Found<'_>) -> Result<()> {
    let stm::Found { version, mod_revision, codec, value } = found;
    let (key, value) = (key.escape_ascii(), value_text(value));
    writeln!(out, "\"{key}\" = {value} ({codec:?}), version {version} at {mod_revision}")?;
    Ok(())
}

fn value_or_none(value: &Option<Bytes>) -> String {
    value.as_ref().map_or("none".to_owned(), |value| value_text(value))
}

fn value_text(value: &[u8]) -> String {
    match value.len() {
        0..=40 => format!("{:?}", String::from_utf8_lossy(value)),
        len => format!("{len} bytes"),
    }
}

/// The output of a command that reads; none if the command is no such one.
pub(super) fn query(state: &State, command: &goldenscript::Command) -> Result<Option<String>> {
    let args = parse::Args::new(command, 1);
    let namespace = args.namespace();
    let mut out = String::new();
    match command.name.as_str() {
        "get" => match state::get(state, &namespace, args.at(0)?.parse()?, args.at(1)?)? {
            Some(found) => {
                writeln!(out, "{} at {}", value_text(found.value), found.mod_revision)?;
            }
            None => writeln!(out, "none")?,
        },
        "get_many" => {
            let names: Vec<_> = args.at(1)?.split(',').collect();
            let found = state::get_many(state, &namespace, args.at(0)?.parse()?, &names)?;
            match found {
                Some(items) => out += &listed(&items)?,
                None => writeln!(out, "no such object")?,
            }
        }
        "list" => {
            let (after, limit) = (args.key("after").unwrap_or(""), args.number("limit")?);
            let limit = limit.unwrap_or(0).try_into()?;
            match state::list(state, &namespace, args.at(0)?.parse()?, after, limit)? {
                Some(page) => {
                    out += &listed(&page.items)?;
                    writeln!(out, "more: {}", page.more)?;
                }
                None => writeln!(out, "no such object")?,
            }
        }
        "list_objects" => out += &objects(state, &namespace, &args)?,
        "variable" | "variables" => {
            out += &variables(state, &namespace, command.name == "variables", &args)?
        }
        "creators" => {
            let callers = creators::callers(state, &namespace, args.at(0)?.parse()?, args.at(1)?)?;
            writeln!(out, "{callers:?}")?;
        }
        "masters" => {
            let masters = masters::list(state, &namespace)?;
            masters.iter().try_for_each(|master| writeln!(out, "{master:?}"))?;
            writeln!(out, "alive: {}", masters::alive_count(state)?)?;
        }
        "sources" => {
            let (active, master) = (args.flag("active")?, args.key("master"));
            let master = master.map(str::parse).transpose()?;
            let sources = changesources::list(state, &namespace, active, master)?;
            sources.iter().try_for_each(|source| writeln!(out, "{source:?}"))?;
        }
        "counts" => writeln!(out, "{:?}", changesources::counts(state)?)?,
        "deadline" => {
            let (deadline, has_lease) = (state.next_deadline_ms(), state.has_lease());
            writeln!(out, "deadline: {deadline:?}, lease: {has_lease}")?;
        }
        "rows" => {
            let header = state.header_row();
            for (key, value) in state.rows().chain([(&header.0, &header.1)]) {
                writeln!(out, "{}", inspect::describe(key, Some(value))?)?;
                writeln!(out, "  {} = {}", hex(key), hex(value))?;
            }
        }
        "header" => {
            let header = state.header();
            writeln!(out, "revision {}, clock {}", header.revision, header.clock_ms)?;
        }
        _ => return stored_query(state, command),
    }
    Ok(Some(out))
}

/// The same, of what is about stored objects.
fn stored_query(state: &State, command: &goldenscript::Command) -> Result<Option<String>> {
    let args = parse::Args::new(command, 1);
    let namespace = args.namespace();
    let mut out = String::new();
    match command.name.as_str() {
        "load" => match objects::get(state, &namespace, parse::id(args.at(0)?)?)? {
            Some(found) => writeln!(out, "{found:?}")?,
            None => writeln!(out, "none")?,
        },
        "list_stored" => {
            let class_name = args.key("class").map(str::to_owned);
            let filter = objects::Filter { class_name, metadata: parse::metadata(&args) };
            let after = args.key("after").map(parse::id).transpose()?.unwrap_or(0);
            let page = objects::list(state, &namespace, after, &filter)?;
            page.objects.iter().try_for_each(|found| {
                writeln!(
                    out,
                    "{} {} at {}",
                    found.record.id, found.record.class_name, found.mod_revision
                )
            })?;
            writeln!(out, "more behind: {:?}", page.more_behind)?;
        }
        "uploads" => writeln!(out, "{}", objects::upload_count(state)?)?,
        "bytes" => writeln!(out, "{} rows, {} bytes", state.len(), state.bytes())?,
        _ => return Ok(None),
    }
    Ok(Some(out))
}

fn objects(state: &State, namespace: &str, args: &parse::Args) -> Result<String> {
    let mut out = String::new();
    let after = args.key("after").unwrap_or("0").parse()?;
    let limit = args.number("limit")?.unwrap_or(0).try_into()?;
    let page = state::list_objects(state, namespace, after, limit)?;
    page.items.iter().try_for_each(|object| writeln!(out, "{object:?}"))?;
    writeln!(out, "more: {}", page.more)?;
    Ok(out)
}

/// One variable by its key, or those of a listing.
fn variables(
    state: &State,
    namespace: &str,
    is_listing: bool,
    args: &parse::Args,
) -> Result<String> {
    let mut out = String::new();
    if is_listing {
        let prefix = args.key("prefix").unwrap_or("").as_bytes();
        let after = args.key("after").unwrap_or("").as_bytes();
        let page = stm::list(state, namespace, prefix, after)?;
        for stm::Listed { key, found } in &page.items {
            variable(&mut out, key, found)?;
        }
        writeln!(out, "more: {}", page.more)?;
        return Ok(out);
    }
    let key = args.at(0)?.as_bytes();
    match stm::get(state, namespace, key)? {
        Some(found) => variable(&mut out, key, &found)?,
        None => writeln!(out, "none")?,
    }
    Ok(out)
}

fn listed(items: &[state::Listed<'_>]) -> Result<String> {
    let mut out = String::new();
    for state::Listed { name, value, mod_revision } in items {
        writeln!(out, "{name:?} = {} at {mod_revision}", value_text(value))?;
    }
    Ok(out)
}

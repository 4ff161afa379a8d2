//! `holdfast watch` and `holdfast state watch`: what changes, one line each, until interrupted.
//!
//! The model: every change has a path, `state/CLASS/OBJECT/KEY`, `changesource/NAME`, `master/NAME`,
//! `stm/KEY` or `object/ID`. A watch shows the changes whose paths begin with a text. The cluster filters by
//! kind; the rest is done here, as events name objects by their ids.

use std::collections::HashMap;

use holdfast_client::stm::Key;
use holdfast_client::{Change, Event, WatchFilter, WatchOptions};
use serde_json::{Value, json};

use crate::args::WatchArgs;
use crate::codes::{Code, Exit};
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::names::ObjectName;
use crate::output::{Format, Output, bytes_json, bytes_text, print_line};

/// Carries out `holdfast watch`.
pub(crate) async fn run(args: &WatchArgs, output: Output) -> Outcome<Exit> {
    let connection = Connection::open(&args.call, output)?;
    let prefix = args.prefix.as_deref().unwrap_or_default();
    watch(&connection, prefix, args.from_revision, output).await
}

/// Prints the changes whose paths begin with `prefix`.
pub(crate) async fn watch(
    connection: &Connection,
    prefix: &str,
    from_revision: Option<u64>,
    output: Output,
) -> Outcome<Exit> {
    let filters = filters(prefix);
    if filters.is_empty() {
        let what = format!("nothing has a path that begins with {prefix}");
        return Err(Failure::new(Code::Usage, what).help(
            "paths are state/CLASS/OBJECT/KEY, changesource/NAME, master/NAME, stm/KEY and object/ID",
        ));
    }
    let options = WatchOptions { from_revision, filters };
    follow(connection, options, spelt(prefix), |path| path.starts_with(prefix), output).await
}

/// Prints the changes that pass the options and whose paths are wanted; `what` is what is watched.
pub(crate) async fn follow(
    connection: &Connection,
    options: WatchOptions,
    what: &str,
    is_wanted: impl Fn(&str) -> bool,
    output: Output,
) -> Outcome<Exit> {
    let mut watch = connection.call(connection.client.watch(options)).await?;
    // Behind the watch's begin, so that no object is missed that is made meanwhile.
    let objects = connection.call(connection.client.state().list_objects()).await?;
    let mut names: HashMap<i64, ObjectName> = objects
        .into_iter()
        .map(|object| (object.id, ObjectName { class: object.class_name, name: object.name }))
        .collect();
    output.note(&format!("watching {what} from revision {} on", watch.revision() + 1));
    loop {
        let change = connection.ok(watch.next().await).await?;
        if let Event::ObjectCreated { object, name, class_name } = &change.event {
            let name = ObjectName { class: class_name.clone(), name: name.clone() };
            names.insert(*object, name);
        }
        let path = path(&change.event, &names);
        if is_wanted(&path) {
            match output.format {
                Format::Text => print_line(&text(&change, &path)),
                // A stream is one object a line, whichever JSON was asked for.
                Format::Json | Format::Jsonl => print_line(&json(&change, &path).to_string()),
            }
        }
    }
}

fn spelt(prefix: &str) -> &str {
    if prefix.is_empty() { "everything" } else { prefix }
}

/// Asks the cluster only for the kinds that the prefix can be about.
fn filters(prefix: &str) -> Vec<WatchFilter> {
    let state = WatchFilter::State { object: None, name_prefix: String::new() };
    let kinds = [
        ("state/", state),
        ("changesource/", WatchFilter::ChangeSource(None)),
        ("master/", WatchFilter::Master(None)),
        ("object/", WatchFilter::StoredObject(None)),
        ("stm/", WatchFilter::Variable(Vec::new())),
    ];
    let is_about = |kind: &str| kind.starts_with(prefix) || prefix.starts_with(kind);
    kinds.into_iter().filter(|(kind, _)| is_about(kind)).map(|(_, filter)| filter).collect()
}

fn path(event: &Event, names: &HashMap<i64, ObjectName>) -> String {
    let object = |id: &i64| match names.get(id) {
        Some(name) => name.to_string(),
        None => format!("#{id}"),
    };
    match event {
        Event::ObjectCreated { object: id, .. } => format!("state/{}", object(id)),
        Event::StatePut { object: id, name, .. }
        | Event::StateDeleted { object: id, name }
        | Event::CreatorChanged { object: id, name, .. } => {
            format!("state/{}/{name}", object(id))
        }
        Event::Master { name, .. } => format!("master/{name}"),
        Event::ChangeSource { name, .. } => format!("changesource/{name}"),
        Event::StoredObject { id, .. } => format!("object/{id}"),
        Event::Variable { key, .. } => format!("stm/{}", Key::from_bytes(key)),
    }
}

fn text(change: &Change, path: &str) -> String {
    let what = match &change.event {
        Event::ObjectCreated { object, .. } => format!("created  id {object}"),
        Event::StatePut { value, .. } => format!("= {}", bytes_text(value)),
        Event::StateDeleted { .. } => "deleted".to_owned(),
        Event::CreatorChanged { token: Some(token), .. } => format!("being created  token {token}"),
        Event::CreatorChanged { token: None, .. } => "not being created".to_owned(),
        Event::Master { active: false, .. } => "inactive".to_owned(),
        Event::Master { lease, claims, .. } => {
            let lease = lease.map(|lease| format!("  lease {lease}")).unwrap_or_default();
            format!("active{lease}  owns {claims}")
        }
        Event::ChangeSource { owner, group, .. } => {
            let owner = owner.map_or("free".to_owned(), |(master, token)| {
                format!("owned by master {master}  fence {token}")
            });
            let group = group.as_ref().map(|group| format!("  group {group}"));
            owner + &group.unwrap_or_default()
        }
        Event::StoredObject { class_name, mod_revision: Some(revision), .. } => {
            format!("saved  class {class_name}  at {revision}")
        }
        Event::StoredObject { mod_revision: None, .. } => "removed".to_owned(),
        Event::Variable { version: Some(version), .. } => format!("version {version}"),
        Event::Variable { version: None, .. } => "deleted".to_owned(),
    };
    format!("{}  {path}  {what}", change.revision)
}

fn json(change: &Change, path: &str) -> Value {
    let mut row = match &change.event {
        Event::ObjectCreated { object, .. } => {
            json!({ "event": "object-created", "id": object.to_string() })
        }
        Event::StatePut { name, value, .. } => {
            json!({ "event": "put", "key": name, "value": bytes_json(value) })
        }
        Event::StateDeleted { name, .. } => json!({ "event": "deleted", "key": name }),
        Event::CreatorChanged { name, token, .. } => json!({
            "event": "creator",
            "key": name,
            "token": token.map(|token| token.to_string()),
        }),
        Event::Master { id, active, lease, claims, .. } => json!({
            "event": "master",
            "id": id.to_string(),
            "active": active,
            "lease": lease.map(|lease| lease.to_string()),
            "owns": claims,
        }),
        Event::ChangeSource { id, owner, group, .. } => json!({
            "event": "changesource",
            "id": id.to_string(),
            "master": owner.map(|(master, _)| master.to_string()),
            "fence": owner.map(|(_, token)| token.to_string()),
            "group": group,
        }),
        Event::StoredObject { id, class_name, mod_revision: Some(revision) } => json!({
            "event": "object-saved",
            "id": id.to_string(),
            "class": class_name,
            "mod_revision": revision.to_string(),
        }),
        Event::StoredObject { id, mod_revision: None, .. } => {
            json!({ "event": "object-removed", "id": id.to_string() })
        }
        Event::Variable { key, version } => json!({
            "event": "variable",
            "key": Key::from_bytes(key).to_string(),
            "version": version.map(|version| version.to_string()),
        }),
    };
    row["schema"] = json!("holdfast.watch/v1");
    row["revision"] = json!(change.revision.to_string());
    row["path"] = json!(path);
    row
}

#[cfg(test)]
mod tests {
    //! What people see and scripts read.
    use super::*;

    fn names() -> HashMap<i64, ObjectName> {
        HashMap::from([(1, "demo".parse().expect("a name"))])
    }

    fn lines(event: Event) -> (String, String) {
        let change = Change { revision: 12, event };
        let path = path(&change.event, &names());
        (text(&change, &path), json(&change, &path).to_string())
    }

    #[test]
    fn changes_are_spelt_for_people_and_scripts() {
        let name = || "greeting".to_owned();
        let put = Event::StatePut { object: 1, name: name(), value: b"\"hello\"".to_vec() };
        let (text, json) = lines(put);
        assert_eq!(text, "12  state/cli/demo/greeting  = \"hello\"");
        assert_eq!(
            json,
            "{\"event\":\"put\",\"key\":\"greeting\",\"path\":\"state/cli/demo/greeting\",\
             \"revision\":\"12\",\"schema\":\"holdfast.watch/v1\",\"value\":\"\\\"hello\\\"\"}"
        );
        let deleted = Event::StateDeleted { object: 7, name: name() };
        assert_eq!(lines(deleted).0, "12  state/#7/greeting  deleted");
        let source = |owner, group: Option<&str>| {
            let (name, group) = ("git-main".to_owned(), group.map(str::to_owned));
            Event::ChangeSource { id: 3, name, owner, group }
        };
        let creator = |token| Event::CreatorChanged { object: 1, name: name(), token };
        assert_eq!(
            lines(creator(Some(9))).0,
            "12  state/cli/demo/greeting  being created  token 9"
        );
        assert_eq!(lines(creator(None)).0, "12  state/cli/demo/greeting  not being created");
        assert_eq!(
            lines(source(Some((2, 11)), None)).0,
            "12  changesource/git-main  owned by master 2  fence 11"
        );
        assert_eq!(lines(source(None, None)).0, "12  changesource/git-main  free");
        let (text, json) = lines(source(None, Some("project")));
        assert_eq!(text, "12  changesource/git-main  free  group project");
        assert!(json.contains("\"group\":\"project\""), "{json}");
        let (lease, claims) = (Some(5), 14);
        let master = |active| Event::Master { id: 2, name: name(), active, lease, claims };
        assert_eq!(lines(master(true)).0, "12  master/greeting  active  lease 5  owns 14");
        assert_eq!(lines(master(false)).0, "12  master/greeting  inactive");
        let object = |mod_revision| {
            let (id, class_name) = (1_000_000_000_000_007, "Job".to_owned());
            Event::StoredObject { id, class_name, mod_revision }
        };
        let (text, json) = lines(object(Some(11)));
        assert_eq!(text, "12  object/1000000000000007  saved  class Job  at 11");
        assert!(json.contains("\"mod_revision\":\"11\""), "{json}");
        assert_eq!(lines(object(None)).0, "12  object/1000000000000007  removed");
        let key = Key::new(("account", 7)).expect("a short key");
        let variable = |version| Event::Variable { key: key.as_bytes().to_vec(), version };
        let (text, json) = lines(variable(Some(3)));
        assert_eq!(text, "12  stm/('account', 7)  version 3");
        assert!(json.contains("\"key\":\"('account', 7)\""), "{json}");
        assert_eq!(lines(variable(None)).0, "12  stm/('account', 7)  deleted");
    }

    #[test]
    fn cluster_is_asked_for_what_the_prefix_can_be_about() {
        let prefixes =
            ["", "s", "state/", "state/cli/demo/k", "master/a", "m", "stm/x", "object/1", "x"];
        let counts = prefixes.map(|prefix| filters(prefix).len());
        assert_eq!(counts, [5, 2, 1, 1, 1, 1, 1, 1, 0]);
    }
}

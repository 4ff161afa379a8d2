//! `holdfast changesource group`: which change sources belong to one master, all or none.
//!
//! A group is there while it has members, and changes only while it is free.

use std::collections::BTreeMap;

use holdfast_client::ChangeSource;
use serde_json::{Value, json};

use crate::args::GroupVerb;
use crate::codes::Code;
use crate::commands::changesource::{claimant_json, find, hold, owner_cells};
use crate::connect::Connection;
use crate::errors::{Failure, Outcome};
use crate::output::{Output, table};

/// Carries out `holdfast changesource group …`.
pub(crate) async fn run(connection: &Connection, verb: &GroupVerb, output: Output) -> Outcome<()> {
    match verb {
        GroupVerb::List => list(connection, output).await,
        GroupVerb::Join { name, group } => join(connection, name, group, output).await,
        GroupVerb::Leave { name } => leave(connection, name, output).await,
    }
}

async fn list(connection: &Connection, output: Output) -> Outcome<()> {
    let sources = connection.call(connection.client.change_sources().list(None, None)).await?;
    let groups = by_group(&sources);
    let mut rows = table(&["GROUP", "OWNER", "FENCE", "LEASE LEFT", "CHANGESOURCES"]);
    for (group, members) in &groups {
        let [owner, fence, left] = owner_cells(members[0].claimant.as_ref());
        rows.add_row([(*group).to_owned(), owner, fence, left, names(members).join(", ")]);
    }
    let json = groups.iter().map(|(group, members)| group_json(group, members)).collect();
    output.list("holdfast.groups/v1", "groups", &rows, json);
    Ok(())
}

/// The members of each group; none is empty.
fn by_group(sources: &[ChangeSource]) -> BTreeMap<&str, Vec<&ChangeSource>> {
    let mut groups: BTreeMap<&str, Vec<&ChangeSource>> = BTreeMap::new();
    for source in sources {
        if let Some(group) = &source.group {
            groups.entry(group).or_default().push(source);
        }
    }
    groups
}

fn names(members: &[&ChangeSource]) -> Vec<String> {
    members.iter().map(|member| member.name.clone()).collect()
}

fn group_json(group: &str, members: &[&ChangeSource]) -> Value {
    json!({
        "group": group,
        "owner": members[0].claimant.as_ref().map(claimant_json),
        "changesources": names(members),
    })
}

async fn join(connection: &Connection, name: &str, group: &str, output: Output) -> Outcome<()> {
    let sources = connection.client.change_sources();
    let id = connection.call(sources.find_id(name)).await?;
    let changed = match connection.call(sources.set_group(id, Some(group))).await {
        Ok(changed) => changed,
        Err(failure) => return Err(with_owner(connection, name, Some(group), failure).await),
    };
    let text = match changed {
        true => format!("joined  {group}"),
        false => format!("{name} was in {group} already"),
    };
    say(output, &text, name, Some(group), changed);
    Ok(())
}

async fn leave(connection: &Connection, name: &str, output: Output) -> Outcome<()> {
    let source = find(connection, name).await?;
    let Some(group) = source.group else {
        return Err(Failure::new(Code::Absent, format!("{name} is in no group"))
            .help("list the groups: holdfast changesource group list"));
    };
    let sources = connection.client.change_sources();
    match connection.call(sources.set_group(source.id, None)).await {
        Ok(changed) => say(output, &format!("left  {group}"), name, None, changed),
        Err(failure) => return Err(with_owner(connection, name, None, failure).await),
    }
    Ok(())
}

fn say(output: Output, text: &str, name: &str, group: Option<&str>, changed: bool) {
    output.answer(text, || {
        json!({
            "schema": "holdfast.group/v1",
            "changesource": name,
            "group": group,
            "changed": changed,
        })
    });
}

/// Says who is in the way, if that is why it failed and they still are.
async fn with_owner(
    connection: &Connection,
    name: &str,
    group: Option<&str>,
    failure: Failure,
) -> Failure {
    if failure.code != Code::InUse {
        return failure;
    }
    let sources = connection.client.change_sources();
    let Ok(owned) = connection.call(sources.list(Some(true), None)).await else { return failure };
    let in_the_way = owned.iter().find(|source| {
        source.name == name || group.is_some_and(|group| source.group.as_deref() == Some(group))
    });
    match in_the_way {
        Some(source) => named(source, failure),
        None => failure,
    }
}

/// The failure, with the names of what is owned and by whom.
fn named(source: &ChangeSource, failure: Failure) -> Failure {
    let Some(owner) = &source.claimant else { return failure };
    let what = format!("{} is owned by {} ({})", source.name, owner.master_name, hold(owner));
    let help = format!("release it first: holdfast changesource release {}", source.name);
    Failure { what, ..failure }.help(help).field("owner", &owner.master_name)
}

#[cfg(test)]
mod tests {
    //! What is said of groups, to the letter.
    use std::time::Duration;

    use holdfast_client::Claimant;

    use super::*;

    fn source(name: &str, group: Option<&str>) -> ChangeSource {
        let claimant = Claimant {
            master: 3,
            master_name: "master-a".to_owned(),
            token: 12,
            lease: None,
            lease_remaining: Duration::ZERO,
        };
        let group = group.map(str::to_owned);
        ChangeSource { id: 5, name: name.to_owned(), claimant: Some(claimant), group }
    }

    #[test]
    fn members_come_together() {
        let sources = [
            source("git-main", Some("project")),
            source("free", None),
            source("git-docs", Some("project")),
            source("other", Some("another")),
        ];
        let groups = by_group(&sources);
        assert_eq!(groups.keys().copied().collect::<Vec<_>>(), ["another", "project"]);
        assert_eq!(
            group_json("project", &groups["project"]).to_string(),
            "{\"changesources\":[\"git-main\",\"git-docs\"],\"group\":\"project\",\"owner\":{\
             \"fence\":\"12\",\"lease\":null,\"lease_remaining_ms\":null,\"master\":\"master-a\",\
             \"master_id\":\"3\"}}"
        );
    }

    #[test]
    fn who_is_in_the_way_is_named() {
        let failure = Failure::new(Code::InUse, "change source 5 is owned or waited for");
        let failure = named(&source("git-main", None), failure);
        assert_eq!(failure.code.exit().number(), 1);
        assert_eq!(failure.what, "git-main is owned by master-a (fence 12, no lease)");
        assert_eq!(
            failure.help.as_deref(),
            Some("release it first: holdfast changesource release git-main")
        );
    }
}

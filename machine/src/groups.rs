//! Groups of change sources: all of them belong to one master, or none does.
//!
//! # Model
//!
//! A change source may be in one group, by name. Whatever gives one member to a master gives all of them,
//! and whatever takes one takes all, in one step and so with one revision: the fence of a grant is that of
//! every member. A group has one queue, kept at its *head*, the member with the lowest id; a change source
//! without a group is its own head.
//!
//! # Invariants
//!
//! - A group has as many rows as change sources name it, at most [`GROUP_MEMBERS_MAX`].
//! - A group's members change only while nobody owns it and nobody waits for it. So all members have the
//!   same claim at all times, and a head stays the head for as long as there is a queue.
//!
//! # What it leaves out
//!
//! Groups have no rows of their own, no ids and no settings: one is there while it has members.

use std::collections::BTreeMap;

use crate::changesources::Reply;
use crate::fault::Fault;
use crate::limits::GROUP_MEMBERS_MAX;
use crate::machine::Stop;
use crate::table::{Table, Txn, View};
use crate::{Refusal, claims};

/// Members by namespace, group and change source.
const MEMBERS: Table<(String, String, i64), ()> = Table::new(0x46, "group member");

/// The change sources that go together with this one, which is among them, in order of their ids.
pub(crate) fn members(
    view: View<'_>,
    namespace: &str,
    changesource: i64,
    group: Option<&str>,
) -> Result<Vec<i64>, Fault> {
    let Some(group) = group else { return Ok(vec![changesource]) };
    let members = MEMBERS.keys(view, (namespace, group));
    members.map(|key| key.map(|(_, _, member)| member)).collect()
}

/// Where the queue is that serves this change source.
pub(crate) fn head(
    view: View<'_>,
    namespace: &str,
    changesource: i64,
    group: Option<&str>,
) -> Result<i64, Fault> {
    let first = group.map(|group| first_member(view, namespace, group)).transpose()?.flatten();
    Ok(first.unwrap_or(changesource))
}

/// The head of a group, if it has members.
pub(crate) fn first_member(
    view: View<'_>,
    namespace: &str,
    group: &str,
) -> Result<Option<i64>, Fault> {
    let first = MEMBERS.keys(view, (namespace, group)).next().transpose()?;
    Ok(first.map(|(_, _, member)| member))
}

/// Puts a change source into a group, or without one takes it out of the one it is in.
pub(crate) fn set(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
    group: Option<&str>,
) -> Result<Reply, Stop> {
    let view = txn.view();
    let record = claims::known_record(view, namespace, changesource)?;
    let present = record.group.as_deref();
    if present == group {
        return Ok(Reply::GroupSet(false));
    }
    check_free(view, namespace, head(view, namespace, changesource, present)?)?;
    if let Some(group) = group
        && let Some(first) = first_member(view, namespace, group)?
    {
        check_free(view, namespace, first)?;
        let actual = MEMBERS.keys(view, (namespace, group)).count() as u64 + 1;
        let allowed = GROUP_MEMBERS_MAX;
        if actual > allowed {
            return Err(Refusal::TooManyMembers { changesource, actual, allowed }.into());
        }
    }
    if let Some(present) = present {
        MEMBERS.delete(txn, (namespace, present, changesource));
    }
    if let Some(group) = group {
        MEMBERS.put(txn, (namespace, group, changesource), &())?;
    }
    claims::store_group(txn, namespace, changesource, record, group)?;
    Ok(Reply::GroupSet(true))
}

/// Refuses to change what somebody owns. What is free here is not waited for: a freed change source is granted
/// before a command comes upon it.
fn check_free(view: View<'_>, namespace: &str, head: i64) -> Result<(), Stop> {
    match claims::known_record(view, namespace, head)?.is_free() {
        true => Ok(()),
        false => Err(Refusal::ChangeSourceInUse { changesource: head }.into()),
    }
}

/// Spells a row of this file's table.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    MEMBERS.describe(key, value)
}

/// Whether a group's rows say that a change source is in it.
pub(crate) fn has_member(view: View<'_>, namespace: &str, group: &str, changesource: i64) -> bool {
    MEMBERS.contains(view, (namespace, group, changesource))
}

/// Appends what does not hold of this file's invariants; `named` is how many change sources name a group.
pub(crate) fn audit(view: View<'_>, named: usize, broken: &mut Vec<String>) -> Result<(), Fault> {
    let mut sizes: BTreeMap<(String, String), u64> = BTreeMap::new();
    for row in MEMBERS.scan_all(view) {
        let ((namespace, group, _), ()) = row?;
        *sizes.entry((namespace, group)).or_default() += 1;
    }
    let rows: u64 = sizes.values().sum();
    if rows != named as u64 {
        broken.push(format!("{named} change sources name groups that have {rows} members"));
    }
    for ((namespace, group), size) in sizes {
        if size > GROUP_MEMBERS_MAX {
            broken.push(format!("group {group} of {namespace} has {size} members"));
        }
    }
    Ok(())
}

//! The rows of change sources and of claims, and what gives and takes them.
//!
//! # Model
//!
//! A change source ([`changesources`](crate::changesources)) has one row, with its claim. A grant writes a claim
//! into the rows of a whole group (`groups.rs`), into an index by owner and into the owner's count; freeing takes
//! all that away, and notes that the queue is to be served.
//!
//! # Invariants
//!
//! - A claim has one row here, one in the index by owner, and counts once in its master's row.
//! - The members of a group have the same claim, or none.
//! - The token of a claim is the revision of the step that granted it.

use serde::{Deserialize, Serialize};

use crate::changesources::{Claimant, Reply};
use crate::fault::Fault;
use crate::machine::Stop;
#[cfg(feature = "plant")]
use crate::plant;
use crate::table::{Table, Txn, Value, View};
use crate::{Refusal, groups, limits, masters, queues};

/// Change sources by namespace and id.
pub(crate) const SOURCES: Table<(String, i64), Record> = Table::new(0x40, "change source");
/// Claims by namespace, master and change source: what a master owns.
const OWNED: Table<(String, i64, i64), ()> = Table::new(0x42, "owned");

/// A change source.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Never changes.
    pub(crate) name: String,
    /// Set by a grant; taken away by a release, an unset, and the end of the owner's lease.
    pub(crate) claim: Option<Claim>,
    /// Changed by a command while it has no claim. Which other claims come and go with this one.
    pub(crate) group: Option<String>,
}

impl Record {
    /// Whether it has no claim, not even one under a lease that has lapsed.
    pub(crate) fn is_free(&self) -> bool {
        self.claim.is_none()
    }
}

/// A grant. Never changes while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) master: i64,
    pub(crate) token: u64,
}

impl Value for Record {
    const VERSION: u8 = 1;
    type At<'a> = Record;
}

/// A change source's row as it is stored; refused if there is none.
pub(crate) fn known_record(
    view: View<'_>,
    namespace: &str,
    changesource: i64,
) -> Result<Record, Stop> {
    let record = SOURCES.get(view, (namespace, changesource))?;
    Ok(record.ok_or(Refusal::UnknownChangeSource { id: changesource })?)
}

/// A change source's row, which must be there, because another row names it.
pub(crate) fn existing(
    view: View<'_>,
    namespace: &str,
    changesource: i64,
) -> Result<Record, Fault> {
    SOURCES.get(view, (namespace, changesource))?.ok_or_else(|| missing(changesource))
}

pub(crate) fn known_head(view: View<'_>, namespace: &str, changesource: i64) -> Result<i64, Stop> {
    let record = known_record(view, namespace, changesource)?;
    Ok(groups::head(view, namespace, changesource, record.group.as_deref())?)
}

/// Stores which group a change source is in.
pub(crate) fn store_group(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
    record: Record,
    group: Option<&str>,
) -> Result<(), Fault> {
    let record = Record { group: group.map(str::to_owned), ..record };
    SOURCES.put(txn, (namespace, changesource), &record)
}

/// How many change sources a grant of this one gives.
pub(crate) fn group_size(
    view: View<'_>,
    namespace: &str,
    changesource: i64,
) -> Result<usize, Fault> {
    let group = existing(view, namespace, changesource)?.group;
    Ok(groups::members(view, namespace, changesource, group.as_deref())?.len())
}

/// Gives a free change source, and all of its group, to a master.
pub(crate) fn grant(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
    record: Record,
    master: i64,
) -> Result<Reply, Stop> {
    let Some(owner) = masters::record(txn.view(), namespace, master)? else {
        return Err(Refusal::UnknownMaster { id: master }.into());
    };
    let members = groups::members(txn.view(), namespace, changesource, record.group.as_deref())?;
    let (actual, allowed) =
        (u64::from(owner.claims) + members.len() as u64, limits::CLAIMS_PER_MASTER_MAX);
    let claims = match u32::try_from(actual) {
        Ok(claims) if claims <= allowed => claims,
        Ok(_) | Err(_) => {
            return Err(Refusal::TooManyClaims { master, actual, allowed: allowed.into() }.into());
        }
    };
    masters::set_claims(txn, namespace, master, owner, claims)?;
    let token = txn.revision;
    #[cfg(feature = "plant")]
    let token = plant::token(token);
    for member in members {
        let record = existing(txn.view(), namespace, member)?;
        let record = Record { claim: Some(Claim { master, token }), ..record };
        SOURCES.put(txn, (namespace, member), &record)?;
        OWNED.put(txn, (namespace, master, member), &())?;
    }
    Ok(Reply::Granted { token })
}

/// Takes a change source, and all of its group, from its owner, if it has one.
pub(crate) fn free(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
    record: Record,
) -> Result<(), Fault> {
    let Some(Claim { master, .. }) = record.claim else {
        return Ok(());
    };
    let members = groups::members(txn.view(), namespace, changesource, record.group.as_deref())?;
    let owner = masters::record(txn.view(), namespace, master)?;
    let freed = u32::try_from(members.len()).ok();
    let Some((owner, claims)) = owner.and_then(|owner| {
        let claims = owner.claims.checked_sub(freed?)?;
        Some((owner, claims))
    }) else {
        return Err(missing(changesource));
    };
    masters::set_claims(txn, namespace, master, owner, claims)?;
    for member in members {
        let record = existing(txn.view(), namespace, member)?;
        take_away(txn, namespace, member, master, record)?;
    }
    Ok(())
}

/// Takes one change source from its owner. The caller sets the master's count and sees to the others of its
/// group; all of them share the queue of the head.
fn take_away(
    txn: &mut Txn<'_>,
    namespace: &str,
    changesource: i64,
    master: i64,
    record: Record,
) -> Result<(), Fault> {
    let head = groups::head(txn.view(), namespace, changesource, record.group.as_deref())?;
    OWNED.delete(txn, (namespace, master, changesource));
    SOURCES.put(txn, (namespace, changesource), &Record { claim: None, ..record })?;
    match head == changesource {
        true => queues::note_freed(txn, namespace, head),
        false => Ok(()),
    }
}

/// Takes all change sources from a master and says how many it had. The caller sets the master's count.
pub(crate) fn free_all(txn: &mut Txn<'_>, namespace: &str, master: i64) -> Result<u32, Fault> {
    let owned: Vec<i64> = OWNED
        .scan(txn.view(), (namespace, master))
        .map(|row| row.map(|((_, _, changesource), ())| changesource))
        .collect::<Result<_, _>>()?;
    let mut freed = 0;
    for changesource in owned {
        let record = existing(txn.view(), namespace, changesource)?;
        take_away(txn, namespace, changesource, master, record)?;
        freed += 1;
    }
    Ok(freed)
}

/// Who owns a change source at this time.
pub(crate) fn claimant(
    view: View<'_>,
    namespace: &str,
    record: &Record,
) -> Result<Option<Claimant>, Fault> {
    let Some(Claim { master, token }) = record.claim else {
        return Ok(None);
    };
    let Some(owner) = masters::read(view, namespace, master)? else {
        return Err(missing(master));
    };
    if owner.claims == 0 {
        // Its lease has lapsed, and with it this claim, though the rows are still there.
        return Ok(None);
    }
    let masters::Master { name: master_name, lease, remaining_ms, .. } = owner;
    Ok(Some(Claimant { master, master_name, token, lease, remaining_ms }))
}

fn missing(id: i64) -> Fault {
    Fault::Contradiction { what: "a claim without its other rows", id: id.cast_unsigned() }
}

/// Spells a row of this file's tables.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    SOURCES.describe(key, value).or_else(|| OWNED.describe(key, value))
}

/// How many change sources the index gives a master.
pub(crate) fn owned_count(view: View<'_>, namespace: &str, master: i64) -> usize {
    OWNED.keys(view, (namespace, master)).count()
}

/// Appends what does not hold of the claim of one change source.
pub(crate) fn audit_one(
    view: View<'_>,
    revision: u64,
    (namespace, id): (&str, i64),
    record: &Record,
    broken: &mut Vec<String>,
) -> Result<(), Fault> {
    let Record { claim, group, .. } = record;
    if let Some(group) = group {
        let head = groups::head(view, namespace, id, Some(group))?;
        let of_head = existing(view, namespace, head)?.claim;
        if *claim != of_head || !groups::has_member(view, namespace, group, id) {
            broken.push(format!("{id} of {group} has {claim:?}, and {head} has {of_head:?}"));
        }
    }
    if let Some(Claim { master, token }) = *claim
        && (token > revision || !OWNED.contains(view, (namespace, master, id)))
    {
        broken.push(format!("change source {id} is owned by {master} under {token}"));
    }
    Ok(())
}

/// How many claims the index has, of all masters.
pub(crate) fn indexed_count(view: View<'_>) -> usize {
    OWNED.scan_all(view).count()
}

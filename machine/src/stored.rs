//! The rows of stored objects: which there are of an id, and which of them is seen.
//!
//! # Model
//!
//! An id can have several rows: one that is *settled*, under upload 0, and one under each upload that has staged
//! it. A staged row counts from the revision that committed its upload on, and is seen if no other one of
//! the same id is newer. So committing an upload touches none of its rows, however many there are; afterwards
//! they settle, some in each entry, which nobody sees: a settled row says the same.
//!
//! # Invariants
//!
//! - A settled row has the revision that made it visible; a staged one has 0, and its upload's row says more.
//! - Every chunk of a row is there, and has a name for it.
//! - Of two committed rows of one id the newer one is seen, whichever has settled.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::chunks::{self, Hash};
use crate::fault::Fault;
use crate::objects::Record;
#[cfg(feature = "plant")]
use crate::plant::{self, Plant};
use crate::table::{Table, Txn, Value, View};
use crate::uploads;

/// Objects by namespace, id and upload.
const OBJECTS: Table<(String, u64, u64), Object> = Table::new(0x60, "stored object");

/// The upload of settled rows.
const SETTLED: u64 = 0;

/// A stored object, or what is to become one. It is written as a whole; only settling changes the revision.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Object {
    /// The revision that made it visible; 0 in a staged row.
    pub(crate) mod_revision: u64,
    pub(crate) class_name: String,
    pub(crate) metadata: BTreeMap<String, String>,
    /// The sum of its chunks.
    pub(crate) body_bytes: u64,
    /// Its body, in this order.
    pub(crate) chunks: Vec<Hash>,
}

impl Value for Object {
    const VERSION: u8 = 1;
    type At<'a> = Object;
}

impl Object {
    /// An object whose chunks already have their names for it.
    pub(crate) fn new(record: &Record, body_bytes: u64, chunks: Vec<Hash>) -> Object {
        let Record { class_name, metadata, .. } = record.clone();
        Object { mod_revision: 0, class_name, metadata, body_bytes, chunks }
    }
}

/// Writes an object that is visible from this step on.
pub(crate) fn save(
    txn: &mut Txn<'_>,
    namespace: &str,
    id: u64,
    object: Object,
) -> Result<(), Fault> {
    let mod_revision = txn.revision;
    put(txn, (namespace, id, SETTLED), &Object { mod_revision, ..object })
}

/// Writes what becomes an object with its upload; true if the upload had none of this id.
pub(crate) fn stage(
    txn: &mut Txn<'_>,
    (namespace, id, upload): (&str, u64, u64),
    object: &Object,
) -> Result<bool, Fault> {
    let is_new = !OBJECTS.contains(txn.view(), (namespace, id, upload));
    put(txn, (namespace, id, upload), object)?;
    Ok(is_new)
}

/// Removes a settled object; false if there is none.
pub(crate) fn remove(txn: &mut Txn<'_>, namespace: &str, id: u64) -> Result<bool, Fault> {
    take(txn, (namespace, id, SETTLED))
}

/// Takes a staged row away: if its upload was committed, and nothing newer is settled, it is settled now.
/// Gives the number of rows that this touches, at most.
pub(crate) fn settle(
    txn: &mut Txn<'_>,
    (namespace, id, upload): (&str, u64, u64),
    committed: Option<u64>,
) -> Result<u64, Fault> {
    let Some(object) = OBJECTS.get(txn.view(), (namespace, id, upload))? else {
        return Err(Fault::Contradiction { what: "an upload's object is not there", id: upload });
    };
    let settled = OBJECTS.get(txn.view(), (namespace, id, SETTLED))?;
    let rows = object.chunks.len() + settled.as_ref().map_or(0, |settled| settled.chunks.len()) + 3;
    let present = settled.map_or(0, |settled| settled.mod_revision);
    if let Some(mod_revision) = committed.filter(|revision| *revision > present) {
        for hash in &object.chunks {
            chunks::name(txn, *hash)?;
        }
        put(txn, (namespace, id, SETTLED), &Object { mod_revision, ..object })?;
    }
    take(txn, (namespace, id, upload))?;
    Ok(rows as u64)
}

/// Writes a row whose chunks already have their names for it; those of the row before lose theirs.
fn put(txn: &mut Txn<'_>, key: (&str, u64, u64), object: &Object) -> Result<(), Fault> {
    take(txn, key)?;
    OBJECTS.put(txn, key, object)
}

/// Removes a row, and its chunks' names for it; false if there is none.
fn take(txn: &mut Txn<'_>, key: (&str, u64, u64)) -> Result<bool, Fault> {
    let Some(object) = OBJECTS.get(txn.view(), key)? else { return Ok(false) };
    OBJECTS.delete(txn, key);
    for hash in object.chunks {
        chunks::release(txn, hash)?;
    }
    Ok(true)
}

/// An object as it is seen, its revision filled in.
pub(crate) fn visible(view: View<'_>, namespace: &str, id: u64) -> Result<Option<Object>, Fault> {
    let mut newest: Option<Object> = None;
    for row in OBJECTS.scan(view, (namespace, id)) {
        let ((_, _, upload), object) = row?;
        let object = seen(view, upload, object)?;
        newest = newer(newest, object);
    }
    Ok(newest)
}

/// Some objects as they are seen.
pub(crate) struct Run {
    /// With their ids, in order.
    pub(crate) objects: Vec<(u64, Object)>,
    /// If there may be more, the id that they come behind.
    pub(crate) more_behind: Option<u64>,
}

/// The objects of a namespace behind an id as they are seen, in order of their ids. Looks at so many ids.
pub(crate) fn visible_behind(
    view: View<'_>,
    namespace: &str,
    after: u64,
    ids_max: usize,
) -> Result<Run, Fault> {
    let mut objects = Vec::new();
    let (mut ids, mut current, mut newest) = (0, after, None);
    for row in OBJECTS.scan_after(view, namespace, (namespace, after, u64::MAX)) {
        let ((_, id, upload), object) = row?;
        if id != current || ids == 0 {
            objects.extend(newest.take().map(|object| (current, object)));
            if ids == ids_max {
                return Ok(Run { objects, more_behind: Some(current) });
            }
            (ids, current) = (ids + 1, id);
        }
        newest = newer(newest, seen(view, upload, object)?);
    }
    objects.extend(newest.map(|object| (current, object)));
    Ok(Run { objects, more_behind: None })
}

/// A row as it is seen; None if it is staged only.
fn seen(view: View<'_>, upload: u64, object: Object) -> Result<Option<Object>, Fault> {
    if upload == SETTLED {
        return Ok(Some(object));
    }
    let committed = uploads::committed(view, upload)?;
    #[cfg(feature = "plant")]
    let committed = committed.or(plant::is(Plant::StagedIsSeen).then_some(upload));
    Ok(committed.map(|mod_revision| Object { mod_revision, ..object }))
}

fn newer(one: Option<Object>, other: Option<Object>) -> Option<Object> {
    match (one, other) {
        (Some(one), Some(other)) if one.mod_revision > other.mod_revision => Some(one),
        (one, None) => one,
        (_, other) => other,
    }
}

/// Those rows of these ids that are committed and not settled: by the revision that committed them, their
/// upload and ids.
pub(crate) fn unsettled(
    view: View<'_>,
    namespace: &str,
    ids: impl Iterator<Item = u64>,
) -> Result<BTreeMap<u64, (u64, BTreeSet<u64>)>, Fault> {
    let mut unsettled: BTreeMap<u64, (u64, BTreeSet<u64>)> = BTreeMap::new();
    for id in ids {
        for key in OBJECTS.keys(view, (namespace, id)) {
            let (_, _, upload) = key?;
            if upload == SETTLED {
                continue;
            }
            if let Some(revision) = uploads::committed(view, upload)? {
                unsettled.entry(revision).or_insert((upload, BTreeSet::new())).1.insert(id);
            }
        }
    }
    Ok(unsettled)
}

/// Whether a row is one that those who watch learn of: a settled one.
pub(crate) fn is_event(key: &[u8]) -> bool {
    OBJECTS.has(key) && key.ends_with(&SETTLED.to_be_bytes())
}

/// A changed row that [`is_event`].
pub(crate) struct Changed {
    pub(crate) namespace: String,
    pub(crate) id: u64,
    /// None if it was removed.
    pub(crate) object: Option<Object>,
}

/// What a changed row says; None if it is no event.
pub(crate) fn event(key: &[u8], value: Option<&[u8]>) -> Option<Result<Changed, Fault>> {
    let row = is_event(key).then(|| OBJECTS.row(key, value)).flatten()?;
    Some(row.map(|((namespace, id, _), object)| Changed { namespace, id, object }))
}

/// Spells a row of this file's table.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    OBJECTS.describe(key, value)
}

/// What rows name, for whoever checks that it is there.
#[derive(Default)]
pub(crate) struct Named {
    /// How often each chunk is named.
    pub(crate) chunks: BTreeMap<Hash, u64>,
    /// The ids of each upload's rows, with their namespaces.
    pub(crate) staged: BTreeSet<(u64, u64, String)>,
    /// The highest id.
    pub(crate) last: u64,
}

/// Appends what does not hold of this file's invariants; says what its rows name.
pub(crate) fn audit(
    view: View<'_>,
    revision: u64,
    broken: &mut Vec<String>,
) -> Result<Named, Fault> {
    let sizes = chunks::all(view).collect::<Result<BTreeMap<_, _>, _>>()?;
    let mut named = Named::default();
    for row in OBJECTS.scan_all(view) {
        let ((namespace, id, upload), object) = row?;
        let sum: u64 = object.chunks.iter().filter_map(|hash| sizes.get(hash)).sum();
        let is_settled = upload == SETTLED;
        if sum != object.body_bytes
            || object.mod_revision > revision
            || is_settled != (object.mod_revision > 0)
        {
            broken.push(format!("object {id} of upload {upload} is out of order: {object:?}"));
        }
        named.last = named.last.max(id);
        for hash in object.chunks {
            *named.chunks.entry(hash).or_default() += 1;
        }
        if !is_settled {
            named.staged.insert((upload, id, namespace));
        }
    }
    Ok(named)
}

//! Uploads: objects of any number and size that become visible together.
//!
//! # Model
//!
//! An upload is opened, and chunks and objects are staged in it; a staged object names chunks that the same
//! upload has staged before. Committing it marks it, in one step of a fixed size, and from that revision on its
//! objects are seen. It is over when it was committed or abandoned, or when nothing was staged in it for its
//! idle time. What it leaves behind goes in the entries that follow, a bounded part in each: committed objects
//! settle (`stored.rs`), the other rows go.
//!
//! # Invariants
//!
//! - Staging can be repeated: the same twice is as once, but that it counts the idle time anew. So it needs no
//!   session. Once the upload is over it is refused, so that a late copy changes nothing.
//! - An upload commits only with as many objects as its client says that it has staged.
//! - Committed uploads settle in the order in which they were committed.
//! - An upload whose deadline is not above the clock is over, whether or not its rows are still there.
//! - Every staged object has a row here under its upload, and each open upload a deadline.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::chunks::{self, Hash};
use crate::fault::Fault;
use crate::limits::{OBJECT_BYTES_MAX, UPLOADS_MAX};
use crate::machine::Stop;
use crate::objects::{Body, Staged};
use crate::stored::{self, Named, Object};
use crate::table::{Counter, Table, Txn, Value, View};
use crate::{Bytes, Refusal};

/// Uploads by id, which is the revision that opened it.
const UPLOADS: Table<u64, Upload> = Table::new(0x61, "upload");
/// The ids of staged objects by upload.
const MEMBERS: Table<(u64, u64), ()> = Table::new(0x62, "upload member");
/// The sizes of staged chunks by upload and hash, in bytes.
const STAGED: Table<(u64, Hash), u64> = Table::new(0x63, "upload chunk");
/// Uploads that are not committed, by deadline and id.
const DEADLINES: Table<(u64, u64), ()> = Table::new(0x65, "upload deadline");
/// Committed uploads that have not settled, by the revision that committed them.
const SETTLING: Table<u64, u64> = Table::new(0x66, "committed upload");

/// An upload. Staging changes the deadline and the number of objects, and committing the last field.
#[derive(Debug, Serialize, Deserialize)]
struct Upload {
    namespace: String,
    /// How long it lives after something was staged.
    idle_ms: u64,
    /// The cluster clock at which it is over; 0 once it was abandoned. Of no meaning once it is committed.
    deadline_ms: u64,
    /// How many objects are staged. Whether it can be committed depends on it.
    objects: u64,
    /// The revision that committed it. Whether its objects are seen depends on it.
    committed: Option<u64>,
}

impl Value for Upload {
    const VERSION: u8 = 1;
    type At<'a> = Upload;
}

/// Opens an upload; its id is the revision of this step.
pub(crate) fn open(txn: &mut Txn<'_>, namespace: &str, idle_ms: u64) -> Result<u64, Stop> {
    let actual = Counter::Uploads.get(txn.view())?;
    if actual >= UPLOADS_MAX {
        return Err(Refusal::TooManyUploads { actual, allowed: UPLOADS_MAX }.into());
    }
    Counter::Uploads.set(txn, actual + 1)?;
    let (id, deadline_ms) = (txn.revision, txn.clock_ms.saturating_add(idle_ms));
    let namespace = namespace.to_owned();
    let upload = Upload { namespace, idle_ms, deadline_ms, objects: 0, committed: None };
    UPLOADS.put(txn, id, &upload)?;
    DEADLINES.put(txn, (deadline_ms, id), &())?;
    Ok(id)
}

/// Stages a chunk.
pub(crate) fn stage_chunk(
    txn: &mut Txn<'_>,
    namespace: &str,
    id: u64,
    bytes: &Bytes,
) -> Result<(), Stop> {
    let upload = open_upload(txn.view(), namespace, id)?;
    if !STAGED.contains(txn.view(), (id, Hash::of(bytes))) {
        let hash = chunks::keep(txn, bytes)?;
        STAGED.put(txn, (id, hash), &(bytes.len() as u64))?;
    }
    Ok(go_on(txn, id, upload, 0)?)
}

/// Stages objects; one whose id was staged before takes its place.
pub(crate) fn stage_objects(
    txn: &mut Txn<'_>,
    namespace: &str,
    id: u64,
    objects: &[Staged],
) -> Result<(), Stop> {
    let upload = open_upload(txn.view(), namespace, id)?;
    let mut more = 0;
    for Staged { record, body } in objects {
        let object = match body {
            Body::Inline(bytes) if bytes.is_empty() => Object::new(record, 0, vec![]),
            Body::Inline(bytes) => {
                let hash = chunks::keep(txn, bytes)?;
                Object::new(record, bytes.len() as u64, vec![hash])
            }
            Body::Chunks(hashes) => {
                let bytes = size(txn.view(), id, record.id, hashes)?;
                for hash in hashes {
                    chunks::name(txn, *hash)?;
                }
                Object::new(record, bytes, hashes.clone())
            }
        };
        if stored::stage(txn, (namespace, record.id, id), &object)? {
            MEMBERS.put(txn, (id, record.id), &())?;
            more += 1;
        }
    }
    Ok(go_on(txn, id, upload, more)?)
}

/// How long a body of these chunks is. Refused if the upload has not staged one, or if it is too long.
fn size(view: View<'_>, upload: u64, id: u64, hashes: &[Hash]) -> Result<u64, Stop> {
    let mut bytes = 0;
    for hash in hashes {
        let Some(of_chunk) = STAGED.get(view, (upload, *hash))? else {
            return Err(Refusal::MissingChunk { id, hash: hash.to_string() }.into());
        };
        bytes += of_chunk;
    }
    match bytes > OBJECT_BYTES_MAX {
        true => {
            Err(Refusal::ObjectTooLarge { id, actual: bytes, allowed: OBJECT_BYTES_MAX }.into())
        }
        false => Ok(bytes),
    }
}

/// Counts an upload's idle time from here, and its objects.
fn go_on(txn: &mut Txn<'_>, id: u64, upload: Upload, more: u64) -> Result<(), Fault> {
    DEADLINES.delete(txn, (upload.deadline_ms, id));
    let deadline_ms = txn.clock_ms.saturating_add(upload.idle_ms);
    DEADLINES.put(txn, (deadline_ms, id), &())?;
    let objects = upload.objects + more;
    UPLOADS.put(txn, id, &Upload { deadline_ms, objects, ..upload })
}

/// Makes all objects of an upload visible, if they are as many as its client says.
pub(crate) fn commit(
    txn: &mut Txn<'_>,
    namespace: &str,
    id: u64,
    expected: u64,
) -> Result<u64, Stop> {
    let upload = open_upload(txn.view(), namespace, id)?;
    let (actual, revision) = (upload.objects, txn.revision);
    if actual != expected {
        return Err(Refusal::IncompleteUpload { upload: id, actual, expected }.into());
    }
    DEADLINES.delete(txn, (upload.deadline_ms, id));
    SETTLING.put(txn, revision, &id)?;
    UPLOADS.put(txn, id, &Upload { committed: Some(revision), ..upload })?;
    Ok(revision)
}

/// Ends an upload; false if there is none that is open.
pub(crate) fn abandon(txn: &mut Txn<'_>, namespace: &str, id: u64) -> Result<bool, Stop> {
    let upload = match open_upload(txn.view(), namespace, id) {
        Ok(upload) => upload,
        Err(Stop::Refused(_)) => return Ok(false),
        Err(stop) => return Err(stop),
    };
    DEADLINES.delete(txn, (upload.deadline_ms, id));
    DEADLINES.put(txn, (0u64, id), &())?;
    UPLOADS.put(txn, id, &Upload { deadline_ms: 0, ..upload })?;
    Ok(true)
}

/// An upload that is not over; else refused.
fn open_upload(view: View<'_>, namespace: &str, id: u64) -> Result<Upload, Stop> {
    let upload = UPLOADS.get(view, id)?.filter(|upload| {
        upload.namespace == namespace
            && upload.committed.is_none()
            && upload.deadline_ms > view.clock_ms
    });
    upload.ok_or(Refusal::UnknownUpload { upload: id }.into())
}

/// The revision that committed an upload; None if none did.
pub(crate) fn committed(view: View<'_>, id: u64) -> Result<Option<u64>, Fault> {
    let upload = UPLOADS.get(view, id)?;
    let missing = Fault::Contradiction { what: "a staged object has no upload", id };
    Ok(upload.ok_or(missing)?.committed)
}

/// When the next upload is over, by the cluster clock; 0 if one is committed and has not settled.
pub(crate) fn first_deadline(view: View<'_>) -> Result<Option<u64>, Fault> {
    if SETTLING.scan_all(view).next().is_some() {
        return Ok(Some(0));
    }
    Ok(DEADLINES.scan_all(view).next().transpose()?.map(|((deadline_ms, _), ())| deadline_ms))
}

/// An upload that is over and has left something behind; those that were committed first, in their order.
pub(crate) fn first_over(view: View<'_>) -> Result<Option<u64>, Fault> {
    if let Some(row) = SETTLING.scan_all(view).next() {
        return Ok(Some(row?.1));
    }
    let first = DEADLINES.scan_all(view).next().transpose()?.map(|(key, ())| key);
    Ok(first.filter(|(deadline_ms, _)| *deadline_ms <= view.clock_ms).map(|(_, id)| id))
}

/// Settles or clears away what an upload has left behind, for as long as `rows` last, and then the upload.
pub(crate) fn clear(txn: &mut Txn<'_>, id: u64, rows: &mut u64) -> Result<(), Fault> {
    let missing = Fault::Contradiction { what: "an upload that is over is not there", id };
    let upload = UPLOADS.get(txn.view(), id)?.ok_or(missing)?;
    while *rows > 0 {
        let Some(key) = MEMBERS.keys(txn.view(), id).next() else { break };
        let (_, object) = key?;
        *rows = rows.saturating_sub(clear_member(txn, id, &upload, object)?);
    }
    while *rows > 0 {
        let Some(key) = STAGED.keys(txn.view(), id).next() else { break };
        let (_, hash) = key?;
        STAGED.delete(txn, (id, hash));
        chunks::release(txn, hash)?;
        *rows = rows.saturating_sub(2);
    }
    if *rows > 0 {
        UPLOADS.delete(txn, id);
        DEADLINES.delete(txn, (upload.deadline_ms, id));
        if let Some(revision) = upload.committed {
            SETTLING.delete(txn, revision);
        }
        let uploads = Counter::Uploads.get(txn.view())?;
        Counter::Uploads.set(txn, uploads.saturating_sub(1))?;
        *rows = rows.saturating_sub(4);
    }
    Ok(())
}

fn clear_member(txn: &mut Txn<'_>, id: u64, upload: &Upload, object: u64) -> Result<u64, Fault> {
    MEMBERS.delete(txn, (id, object));
    let rows = stored::settle(txn, (&upload.namespace, object, id), upload.committed)?;
    Ok(rows + 1)
}

/// Settles some objects of a committed upload ahead of the others.
pub(crate) fn settle(txn: &mut Txn<'_>, id: u64, objects: &BTreeSet<u64>) -> Result<(), Fault> {
    let missing = Fault::Contradiction { what: "a committed upload is not there", id };
    let upload = UPLOADS.get(txn.view(), id)?.ok_or(missing)?;
    for object in objects {
        clear_member(txn, id, &upload, *object)?;
    }
    Ok(())
}

/// How many uploads there are, those included that are over and have left something behind.
pub(crate) fn count(view: View<'_>) -> Result<u64, Fault> {
    Counter::Uploads.get(view)
}

/// Spells a row of this file's tables.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    UPLOADS
        .describe(key, value)
        .or_else(|| MEMBERS.describe(key, value))
        .or_else(|| STAGED.describe(key, value))
        .or_else(|| DEADLINES.describe(key, value))
        .or_else(|| SETTLING.describe(key, value))
}

/// Appends what does not hold of this file's invariants, nor of what the objects' rows name.
pub(crate) fn audit(
    view: View<'_>,
    mut named: Named,
    broken: &mut Vec<String>,
) -> Result<(), Fault> {
    let (mut uploads, mut settling) = (0, 0);
    for row in UPLOADS.scan_all(view) {
        let (id, upload) = row?;
        uploads += 1;
        let members = MEMBERS.keys(view, id).collect::<Result<Vec<_>, _>>()?;
        for (_, object) in &members {
            if !named.staged.remove(&(id, *object, upload.namespace.clone())) {
                broken.push(format!("object {object} of upload {id} is not there"));
            }
        }
        let is_listed = match upload.committed {
            Some(revision) => {
                settling += 1;
                SETTLING.get(view, revision)? == Some(id)
            }
            None => DEADLINES.contains(view, (upload.deadline_ms, id)),
        };
        let is_open = upload.committed.is_none() && upload.deadline_ms > view.clock_ms;
        if !is_listed || is_open && members.len() as u64 != upload.objects {
            broken.push(format!("upload {id} is out of order: {upload:?}"));
        }
    }
    for key in STAGED.scan_all(view) {
        let ((id, hash), _) = key?;
        *named.chunks.entry(hash).or_default() += 1;
        if !UPLOADS.contains(view, id) {
            broken.push(format!("chunk {hash} has no upload {id}"));
        }
    }
    let is_counted = uploads == Counter::Uploads.get(view)?
        && settling == SETTLING.rows(view)
        && uploads - settling == DEADLINES.rows(view);
    if !is_counted || !named.staged.is_empty() {
        broken.push(format!("{uploads} uploads, {settling} committed, have more rows"));
    }
    let names = chunks::names(view).collect::<Result<_, _>>()?;
    if named.chunks != names {
        broken.push(format!("chunks are named {:?} and count {names:?}", named.chunks));
    }
    Ok(())
}

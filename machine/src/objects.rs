//! Stored objects: bodies of bytes under ids that the cluster gives out, with metadata to find them by.
//!
//! # Model
//!
//! Ids are given out in blocks, from one counter for all namespaces. An object has an id, a class, metadata and
//! a body. A few small ones are saved in one step; more, or larger ones, are staged in an upload and become
//! visible together when it is committed (`uploads.rs`). Which row of an object is seen is in `stored.rs`, and
//! what becomes of bodies in `chunks.rs`.
//!
//! # Invariants
//!
//! - An id is given out once, whatever becomes of the object that gets it; nothing is saved under any other.
//! - A save, a removal and the commit of an upload take effect whole and at one revision.
//! - Bodies are in no row: a row has their hashes.
//!
//! # What it leaves out
//!
//! What a body means, what refers to what, and reading a body: whoever stores bodies reads them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::chunks::{self, Hash};
use crate::encoding::raw;
use crate::fault::Fault;
use crate::limits::{
    CHUNK_BYTES_MAX, CHUNKS_PER_OBJECT_MAX, METADATA_BYTES_MAX, METADATA_ENTRIES_MAX,
    OBJECT_ID_FIRST, OBJECT_ID_LAST, OBJECT_IDS_PER_LEASE_MAX, OBJECTS_BYTES_MAX,
    OBJECTS_PER_REQUEST_MAX, PAGE_MAX, UPLOAD_IDLE_MS_MAX, UPLOAD_IDLE_MS_MIN,
};
use crate::machine::Stop;
use crate::refusal::{Field, check_bounds, check_name};
use crate::stored::{self, Object};
use crate::table::{Counter, Txn, View};
use crate::{Bytes, Refusal, State, growth, uploads};

/// What an object is, without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: u64,
    /// Its class.
    pub class_name: String,
    /// What it can be found by.
    pub metadata: BTreeMap<String, String>,
}

/// A small object to be saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Small {
    /// What it is.
    pub record: Record,
    /// Its body.
    #[serde(with = "raw")]
    pub body: Bytes,
}

/// An object to be staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// What it is.
    pub record: Record,
    /// Its body.
    pub body: Body,
}

/// A body on its way in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// These bytes, which are one chunk.
    Inline(#[serde(with = "raw")] Bytes),
    /// These chunks of the upload, one behind the other.
    Chunks(Vec<Hash>),
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are what their names say; the others are described")]
pub enum Command {
    /// Gives out so many ids.
    LeaseIds { namespace: String, count: u64 },
    /// Saves objects; those that are there are overwritten.
    Save { namespace: String, objects: Vec<Small> },
    /// Removes objects; silent about those that are not there.
    Remove { namespace: String, ids: Vec<u64> },
    /// Opens an upload that lives for so long after something was staged in it.
    OpenUpload { namespace: String, idle_ms: u64 },
    /// Stages a chunk.
    StageChunk {
        namespace: String,
        upload: u64,
        #[serde(with = "raw")]
        bytes: Bytes,
    },
    /// Stages objects; one that was staged before is replaced.
    StageObjects { namespace: String, upload: u64, objects: Vec<Staged> },
    /// Makes all objects of an upload visible, if they are so many.
    CommitUpload { namespace: String, upload: u64, objects: u64 },
    /// Ends an upload; silent if there is none.
    AbandonUpload { namespace: String, upload: u64 },
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Ids were given out.
    Leased {
        /// The first of them; the others follow it.
        first: u64,
    },
    /// The objects are saved, or the upload is committed.
    Saved {
        /// The revision of all of them.
        mod_revision: u64,
    },
    /// How many objects there were to remove.
    Removed(u64),
    /// An upload was opened.
    Opened {
        /// Its id.
        upload: u64,
    },
    /// What was to be staged is staged.
    Staged,
    /// Whether there was an upload to end.
    Abandoned(bool),
}

impl Record {
    fn validate(&self) -> Result<(), Refusal> {
        check_name(Field::ClassName, &self.class_name)?;
        let entries = self.metadata.len() as u64;
        check_bounds(Field::MetadataEntries, entries, 0..=METADATA_ENTRIES_MAX)?;
        self.metadata.keys().try_for_each(|name| check_name(Field::MetadataName, name))?;
        let bytes = self.metadata.iter().map(|(name, value)| name.len() + value.len());
        check_bounds(Field::MetadataBytes, bytes.sum::<usize>() as u64, 0..=METADATA_BYTES_MAX)
    }

    /// How many bytes its class and metadata take.
    fn text_bytes(&self) -> usize {
        let metadata = self.metadata.iter().map(|(name, value)| name.len() + value.len());
        self.class_name.len() + metadata.sum::<usize>()
    }

    /// How many bytes it takes in an entry, at most.
    fn encoded_bytes(&self) -> usize {
        /// More than an id, the lengths of a class, metadata and a body, and a tag take.
        const NUMBERS_BYTES: usize = 48;
        /// The lengths of a name and a value.
        const ENTRY_BYTES: usize = 18;
        NUMBERS_BYTES + self.text_bytes() + self.metadata.len() * ENTRY_BYTES
    }
}

impl Body {
    fn validate(&self) -> Result<(), Refusal> {
        match self {
            Body::Inline(bytes) => {
                check_bounds(Field::ChunkBytes, bytes.len() as u64, 0..=CHUNK_BYTES_MAX as u64)
            }
            Body::Chunks(hashes) => {
                check_bounds(Field::Chunks, hashes.len() as u64, 0..=CHUNKS_PER_OBJECT_MAX)
            }
        }
    }

    /// How many bytes it takes in a request.
    fn bytes(&self) -> usize {
        match self {
            Body::Inline(bytes) => bytes.len(),
            Body::Chunks(hashes) => size_of_val(hashes.as_slice()),
        }
    }
}

/// Refuses too many objects, too large ones, and one that comes twice.
fn check_objects<'a>(
    records: impl Iterator<Item = &'a Record> + Clone,
    body_bytes: usize,
) -> Result<(), Refusal> {
    let count = records.clone().count() as u64;
    check_bounds(Field::Objects, count, 1..=OBJECTS_PER_REQUEST_MAX)?;
    let bytes = records.clone().map(Record::text_bytes).sum::<usize>() + body_bytes;
    check_bounds(Field::ObjectsBytes, bytes as u64, 0..=OBJECTS_BYTES_MAX)?;
    let mut ids = BTreeSet::new();
    for record in records {
        record.validate()?;
        if !ids.insert(record.id) {
            return Err(Refusal::RepeatedId { id: record.id });
        }
    }
    Ok(())
}

impl Command {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        check_name(Field::Namespace, self.namespace())?;
        match self {
            Command::LeaseIds { count, .. } => {
                check_bounds(Field::Count, *count, 1..=OBJECT_IDS_PER_LEASE_MAX)
            }
            Command::Save { objects, .. } => {
                let body_bytes = objects.iter().map(|small| small.body.len()).sum();
                check_objects(objects.iter().map(|small| &small.record), body_bytes)
            }
            Command::Remove { ids, .. } => {
                check_bounds(Field::Ids, ids.len() as u64, 1..=OBJECTS_PER_REQUEST_MAX)
            }
            Command::OpenUpload { idle_ms, .. } => {
                check_bounds(Field::IdleMs, *idle_ms, UPLOAD_IDLE_MS_MIN..=UPLOAD_IDLE_MS_MAX)
            }
            Command::StageChunk { bytes, .. } => {
                check_bounds(Field::ChunkBytes, bytes.len() as u64, 1..=CHUNK_BYTES_MAX as u64)
            }
            Command::StageObjects { objects, .. } => {
                let body_bytes = objects.iter().map(|staged| staged.body.bytes()).sum();
                check_objects(objects.iter().map(|staged| &staged.record), body_bytes)?;
                objects.iter().try_for_each(|staged| staged.body.validate())
            }
            Command::CommitUpload { .. } | Command::AbandonUpload { .. } => Ok(()),
        }
    }

    /// Whether it needs no session: repeating it changes nothing.
    pub(crate) fn is_of_nodes(&self) -> bool {
        match self {
            Command::StageChunk { .. } | Command::StageObjects { .. } => true,
            Command::LeaseIds { .. }
            | Command::Save { .. }
            | Command::Remove { .. }
            | Command::OpenUpload { .. }
            | Command::CommitUpload { .. }
            | Command::AbandonUpload { .. } => false,
        }
    }

    /// About how many bytes its objects take; never less than they do in an entry.
    pub(crate) fn text_bytes(&self) -> usize {
        /// The longest varint.
        const ID_BYTES: usize = 9;
        let of_small = |small: &Small| small.record.encoded_bytes() + small.body.len();
        let of_staged = |staged: &Staged| staged.record.encoded_bytes() + staged.body.bytes();
        self.namespace().len()
            + match self {
                Command::Save { objects, .. } => objects.iter().map(of_small).sum(),
                Command::StageObjects { objects, .. } => objects.iter().map(of_staged).sum(),
                Command::StageChunk { bytes, .. } => bytes.len(),
                Command::Remove { ids, .. } => ids.len() * ID_BYTES,
                Command::LeaseIds { .. }
                | Command::OpenUpload { .. }
                | Command::CommitUpload { .. }
                | Command::AbandonUpload { .. } => 0,
            }
    }

    fn namespace(&self) -> &str {
        match self {
            Command::LeaseIds { namespace, .. }
            | Command::Save { namespace, .. }
            | Command::Remove { namespace, .. }
            | Command::OpenUpload { namespace, .. }
            | Command::StageChunk { namespace, .. }
            | Command::StageObjects { namespace, .. }
            | Command::CommitUpload { namespace, .. }
            | Command::AbandonUpload { namespace, .. } => namespace,
        }
    }
}

/// At most how many bytes a command adds, bodies among them. What it overwrites is not counted against that: a
/// new body is there before the old one goes.
pub(crate) fn growth(command: &Command) -> u64 {
    let namespace = command.namespace().len();
    // A row, and the names and values in it; for each chunk the hash in it, a row of its own, and its bytes.
    let of_object = |record: &Record, chunks: usize, bytes: usize| {
        let text = namespace + record.encoded_bytes();
        growth::of_rows(1 + chunks, text + 2 * chunks * size_of::<Hash>() + bytes)
    };
    match command {
        Command::Save { objects, .. } => {
            let of_small = |Small { record, body }: &Small| {
                of_object(record, body.len().div_ceil(CHUNK_BYTES_MAX), body.len())
            };
            objects.iter().map(of_small).sum()
        }
        Command::StageObjects { objects, .. } => {
            let of_staged = |Staged { record, body }: &Staged| match body {
                Body::Inline(bytes) => of_object(record, 1, bytes.len()),
                Body::Chunks(hashes) => of_object(record, hashes.len(), 0),
            };
            // And a row for each that says whose it is.
            objects.iter().map(|staged| of_staged(staged) + growth::of_rows(1, 0)).sum()
        }
        Command::StageChunk { bytes, .. } => {
            growth::of_rows(2, 2 * size_of::<Hash>() + bytes.len())
        }
        Command::OpenUpload { .. } => growth::of_rows(2, namespace),
        Command::LeaseIds { .. }
        | Command::Remove { .. }
        | Command::CommitUpload { .. }
        | Command::AbandonUpload { .. } => 0,
    }
}

/// Carries out a command.
pub(crate) fn apply(txn: &mut Txn<'_>, command: &Command) -> Result<Reply, Stop> {
    match command {
        Command::LeaseIds { count, .. } => Ok(Reply::Leased { first: lease_ids(txn, *count)? }),
        Command::Save { namespace, objects } => save(txn, namespace, objects),
        Command::Remove { namespace, ids } => {
            let mut removed = 0;
            for id in ids {
                removed += u64::from(stored::remove(txn, namespace, *id)?);
            }
            Ok(Reply::Removed(removed))
        }
        Command::OpenUpload { namespace, idle_ms } => {
            Ok(Reply::Opened { upload: uploads::open(txn, namespace, *idle_ms)? })
        }
        Command::StageChunk { namespace, upload, bytes } => {
            uploads::stage_chunk(txn, namespace, *upload, bytes)?;
            Ok(Reply::Staged)
        }
        Command::StageObjects { namespace, upload, objects } => {
            check_issued(txn.view(), objects.iter().map(|staged| staged.record.id))?;
            uploads::stage_objects(txn, namespace, *upload, objects)?;
            Ok(Reply::Staged)
        }
        Command::CommitUpload { namespace, upload, objects } => {
            let mod_revision = uploads::commit(txn, namespace, *upload, *objects)?;
            Ok(Reply::Saved { mod_revision })
        }
        Command::AbandonUpload { namespace, upload } => {
            Ok(Reply::Abandoned(uploads::abandon(txn, namespace, *upload)?))
        }
    }
}

fn lease_ids(txn: &mut Txn<'_>, count: u64) -> Result<u64, Fault> {
    let given = Counter::StoredObjects.get(txn.view())?;
    let is_left = |given: &u64| *given <= OBJECT_ID_LAST - OBJECT_ID_FIRST + 1;
    let next = given.checked_add(count).filter(is_left);
    let next = next.ok_or(Fault::CounterExhausted { counter: "stored object ids" })?;
    Counter::StoredObjects.set(txn, next)?;
    Ok(OBJECT_ID_FIRST + given)
}

/// Refuses an id that was never given out.
fn check_issued(view: View<'_>, mut ids: impl Iterator<Item = u64>) -> Result<(), Stop> {
    let next = OBJECT_ID_FIRST + Counter::StoredObjects.get(view)?;
    match ids.find(|id| !(OBJECT_ID_FIRST..next).contains(id)) {
        Some(id) => Err(Refusal::UnissuedId { id }.into()),
        None => Ok(()),
    }
}

fn save(txn: &mut Txn<'_>, namespace: &str, objects: &[Small]) -> Result<Reply, Stop> {
    check_issued(txn.view(), objects.iter().map(|small| small.record.id))?;
    for Small { record, body } in objects {
        let mut hashes = Vec::new();
        if body.len() <= CHUNK_BYTES_MAX {
            if !body.is_empty() {
                hashes.push(chunks::keep(txn, body)?);
            }
        } else {
            for chunk in body.chunks(CHUNK_BYTES_MAX) {
                hashes.push(chunks::keep(txn, &chunk.into())?);
            }
        }
        let object = Object::new(record, body.len() as u64, hashes);
        stored::save(txn, namespace, record.id, object)?;
    }
    Ok(Reply::Saved { mod_revision: txn.revision })
}

/// The objects of committed uploads that a command would come upon before they have settled: by the revision
/// that committed them, their upload and ids. They settle first, each upload's in a step of its own, so that
/// those who watch learn of each in order.
pub(crate) fn unsettled_in_the_way(
    view: View<'_>,
    command: &Command,
) -> Result<BTreeMap<u64, (u64, BTreeSet<u64>)>, Fault> {
    match command {
        Command::Save { namespace, objects } => {
            stored::unsettled(view, namespace, objects.iter().map(|small| small.record.id))
        }
        Command::Remove { namespace, ids } => {
            stored::unsettled(view, namespace, ids.iter().copied())
        }
        Command::LeaseIds { .. }
        | Command::OpenUpload { .. }
        | Command::StageChunk { .. }
        | Command::StageObjects { .. }
        | Command::CommitUpload { .. }
        | Command::AbandonUpload { .. } => Ok(BTreeMap::new()),
    }
}

/// An object as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub record: Record,
    /// The revision that made it visible.
    pub mod_revision: u64,
    /// How long its body is.
    pub body_bytes: u64,
    /// Its body: these chunks, one behind the other.
    pub chunks: Vec<Hash>,
}

impl Found {
    fn new(id: u64, object: Object) -> Found {
        let Object { mod_revision, class_name, metadata, body_bytes, chunks } = object;
        Found { record: Record { id, class_name, metadata }, mod_revision, body_bytes, chunks }
    }
}

/// Which objects a listing has: those that pass all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this class.
    pub class_name: Option<String>,
    /// With these values under these names.
    pub metadata: BTreeMap<String, String>,
}

impl Filter {
    fn passes(&self, object: &Object) -> bool {
        let has = |(name, value)| object.metadata.get(name) == Some(value);
        self.class_name.as_ref().is_none_or(|class_name| *class_name == object.class_name)
            && self.metadata.iter().all(has)
    }
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Those that pass the filter, in order of their ids.
    pub objects: Vec<Found>,
    /// If there may be more, the id that they come behind.
    pub more_behind: Option<u64>,
}

/// One object. None if there is none that is visible.
pub fn get(state: &State, namespace: &str, id: u64) -> Result<Option<Found>, Fault> {
    Ok(stored::visible(state.view(), namespace, id)?.map(|object| Found::new(id, object)))
}

/// The objects of a namespace behind an id (0 for the first page) that pass a filter, in order of their ids.
/// A page looks at [`PAGE_MAX`] ids.
pub fn list(state: &State, namespace: &str, after: u64, filter: &Filter) -> Result<Page, Fault> {
    let run = stored::visible_behind(state.view(), namespace, after, PAGE_MAX)?;
    let passing = run.objects.into_iter().filter(|(_, object)| filter.passes(object));
    let objects = passing.map(|(id, object)| Found::new(id, object)).collect();
    Ok(Page { objects, more_behind: run.more_behind })
}

/// All chunks that a state names, whatever their namespaces, in order of their hashes, with their sizes in
/// bytes.
pub fn chunks(state: &State) -> impl Iterator<Item = Result<(Hash, u64), Fault>> {
    chunks::all(state.view())
}

/// How many uploads there are, those included that are over and have left something behind.
pub fn upload_count(state: &State) -> Result<u64, Fault> {
    uploads::count(state.view())
}

/// What those who watch learn of a changed row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are what their names say; the others are described")]
pub enum Event {
    /// An object was saved.
    Saved {
        namespace: String,
        id: u64,
        class_name: String,
        /// The revision that made it visible: this one, or that of the commit of its upload.
        mod_revision: u64,
    },
    /// An object was removed.
    Removed { namespace: String, id: u64 },
}

impl Event {
    pub(crate) fn namespace(&self) -> &str {
        match self {
            Event::Saved { namespace, .. } | Event::Removed { namespace, .. } => namespace,
        }
    }
}

/// Whether a row is one that those who watch learn of.
pub(crate) fn is_event(key: &[u8]) -> bool {
    stored::is_event(key)
}

/// The event of a changed row; None if it is none of this connector's.
pub(crate) fn event(key: &[u8], value: Option<&[u8]>) -> Option<Result<Event, Fault>> {
    let changed = stored::event(key, value)?;
    Some(changed.map(|stored::Changed { namespace, id, object }| match object {
        Some(Object { class_name, mod_revision, .. }) => {
            Event::Saved { namespace, id, class_name, mod_revision }
        }
        None => Event::Removed { namespace, id },
    }))
}

/// Spells a row of this connector's tables.
pub(crate) fn describe(key: &[u8], value: Option<&[u8]>) -> Option<Result<String, Fault>> {
    let of_object = stored::describe(key, value);
    of_object.or_else(|| uploads::describe(key, value)).or_else(|| chunks::describe(key, value))
}

/// Appends what does not hold of this connector's invariants.
pub(crate) fn audit(view: View<'_>, revision: u64, broken: &mut Vec<String>) -> Result<(), Fault> {
    let named = stored::audit(view, revision, broken)?;
    if named.last >= OBJECT_ID_FIRST + Counter::StoredObjects.get(view)? {
        broken.push(format!("object {} has an id that was not given out", named.last));
    }
    uploads::audit(view, named, broken)
}

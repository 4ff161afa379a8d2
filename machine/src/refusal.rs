//! Every deterministic no of the state machine.
//!
//! A refusal is part of the reply: all nodes come to the same one, a retry gets it again, and nothing but
//! the bookkeeping of its session has changed. Expected answers, such as *already claimed* or a lost race,
//! are no refusals; they are replies.
//!
//! Refusals are stored with sessions: variants and fields are only ever added at the end.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The request writes, and names no session to do it in.
    #[error("the write names no session; open one and write in it")]
    SessionRequired,
    /// The session was closed, has idled out, or never was.
    #[error("session {session} has expired or never was; open a new one")]
    SessionExpired {
        /// The session named.
        session: u64,
    },
    /// The caller has said before that this write was decided.
    #[error(
        "write {seq} was answered before; the session keeps outcomes from {first_incomplete} on"
    )]
    StaleSeq {
        /// The write named.
        seq: u64,
        /// Below it nothing is kept.
        first_incomplete: u64,
    },
    /// The session keeps as many outcomes as it may.
    #[error(
        "session {session} has {actual} undecided writes, {allowed} are allowed; \
         raise first_incomplete once answers have come in"
    )]
    TooManyUndecided {
        /// The session.
        session: u64,
        /// How many outcomes it keeps.
        actual: u64,
        /// How many it may keep.
        allowed: u64,
    },
    /// The cluster has as many sessions as it may.
    #[error("there are {actual} sessions, {allowed} are allowed; close some or let them expire")]
    TooManySessions {
        /// How many there are.
        actual: u64,
        /// How many there may be.
        allowed: u64,
    },
    /// A name is empty.
    #[error("{field} is empty; give it 1 to {} bytes", limits::NAME_BYTES_MAX)]
    NameEmpty {
        /// Which one.
        field: Field,
    },
    /// A name is too long.
    #[error("{field} takes {actual} bytes, {allowed} are allowed")]
    NameTooLong {
        /// Which one.
        field: Field,
        /// Its length, in bytes.
        actual: u64,
        /// The limit, in bytes.
        allowed: u64,
    },
    /// A value is too large.
    #[error("the value takes {actual} bytes, {allowed} are allowed")]
    ValueTooLarge {
        /// Its size, in bytes.
        actual: u64,
        /// The limit, in bytes.
        allowed: u64,
    },
    /// An id is zero or negative.
    #[error("{field} is {value}, and ids are positive")]
    BadId {
        /// Which one.
        field: Field,
        /// What was given.
        value: i64,
    },
    /// A lease is too short or too long.
    #[error("ttl_ms of the lease is {actual}; {min} to {max} are allowed")]
    BadTtl {
        /// What was asked for, in milliseconds.
        actual: u64,
        /// The shortest, in milliseconds.
        min: u64,
        /// The longest, in milliseconds.
        max: u64,
    },
    /// A session's idle time is too short or too long.
    #[error("idle_ms of the session is {actual}; {min} to {max} are allowed")]
    BadIdle {
        /// What was asked for, in milliseconds.
        actual: u64,
        /// The shortest, in milliseconds.
        min: u64,
        /// The longest, in milliseconds.
        max: u64,
    },
    /// There is no object with this id in the namespace.
    #[error("there is no object {id}; get its id from its name and class first")]
    UnknownObject {
        /// The object named.
        id: i64,
    },
    /// There is no master with this id in the namespace.
    #[error("there is no master {id}; get its id from its name first")]
    UnknownMaster {
        /// The master named.
        id: i64,
    },
    /// There is no change source with this id in the namespace.
    #[error("there is no change source {id}; get its id from its name first")]
    UnknownChangeSource {
        /// The change source named.
        id: i64,
    },
    /// The lease has ended; it never comes back.
    #[error("lease {lease} has ended; open a new one")]
    LeaseLost {
        /// The lease named.
        lease: u64,
    },
    /// The claim that the writer relied on has moved on.
    #[error("token {token} does not hold change source {changesource} any more; claim it again")]
    StaleFence {
        /// The change source that was to be owned.
        changesource: i64,
        /// The token that was given as proof.
        token: u64,
    },
    /// The master owns as many change sources as it may, or would own too many with the whole group.
    #[error("master {master} would own {actual} change sources, {allowed} are allowed")]
    TooManyClaims {
        /// The master.
        master: i64,
        /// How many it would own.
        actual: u64,
        /// How many it may own.
        allowed: u64,
    },
    /// As many wait for the change source as may.
    #[error("change source {changesource} has {actual} waiting, {allowed} are allowed")]
    TooManyWaiters {
        /// The change source, or the first of its group.
        changesource: i64,
        /// How many wait.
        actual: u64,
        /// How many may wait.
        allowed: u64,
    },
    /// The lease waits for as many change sources as it may.
    #[error("lease {lease} waits for {actual} change sources, {allowed} are allowed")]
    TooManyPlaces {
        /// The lease.
        lease: u64,
        /// How many it waits for.
        actual: u64,
        /// How many it may wait for.
        allowed: u64,
    },
    /// The change source is owned, and only a free one changes its group or lets others into its own.
    #[error(
        "change source {changesource} is owned or waited for; its group can change when it is free"
    )]
    ChangeSourceInUse {
        /// The change source, or the first of its group, or of the group it was to join.
        changesource: i64,
    },
    /// The group has as many change sources as it may.
    #[error(
        "with change source {changesource} the group would have {actual} members, {allowed} are \
         allowed"
    )]
    TooManyMembers {
        /// The change source that was to join.
        changesource: i64,
        /// How many there would be.
        actual: u64,
        /// How many there may be.
        allowed: u64,
    },
    /// A number is too small or too large.
    #[error("{field} is {actual}; {min} to {max} are allowed")]
    OutOfBounds {
        /// Which one.
        field: Field,
        /// What was asked for.
        actual: u64,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// As many stand in line to create the value as may.
    #[error("the line to create the value has {actual} callers, {allowed} are allowed")]
    TooManyCreators {
        /// How many do.
        actual: u64,
        /// How many may.
        allowed: u64,
    },
    /// The caller does not have the right to create the value, nor waits for it.
    #[error("token {token} has no right to create the value any more; ask for it again")]
    CreationLost {
        /// The token that was given as proof.
        token: u64,
    },
    /// The lease was opened without a connection grace.
    #[error("lease {lease} has no connection grace")]
    NoGrace {
        /// The lease named.
        lease: u64,
    },
    /// The lease has been renewed since, or not yet as often.
    #[error("renewal {renewal} is not the last one of lease {lease}")]
    LeaseRenewed {
        /// The lease named.
        lease: u64,
        /// The renewal named.
        renewal: u64,
    },
    /// A row of an import contradicts one that is here.
    #[error("row {nth} of the import is {row}, and here is {found}")]
    ImportConflict {
        /// Its place in the import, from 0 on.
        nth: u64,
        /// What it says.
        row: String,
        /// What is here.
        found: String,
    },
    /// An object is to be saved under an id that was never given out.
    #[error("id {id} was never given out; lease ids first")]
    UnissuedId {
        /// The id.
        id: u64,
    },
    /// An object comes twice in one request.
    #[error("id {id} comes twice; name each object once")]
    RepeatedId {
        /// The id.
        id: u64,
    },
    /// An object's body is too large.
    #[error("object {id} has {actual} bytes, {allowed} are allowed")]
    ObjectTooLarge {
        /// The object.
        id: u64,
        /// Its size, in bytes.
        actual: u64,
        /// The limit, in bytes.
        allowed: u64,
    },
    /// There is no open upload with this id in the namespace: it is over, or never was.
    #[error("there is no open upload {upload}; open another one and stage everything in it")]
    UnknownUpload {
        /// The upload named.
        upload: u64,
    },
    /// An object names a chunk that its upload has not staged.
    #[error("object {id} has chunk {hash}, which is not staged; stage it first")]
    MissingChunk {
        /// The object.
        id: u64,
        /// The chunk's hash, in hexadecimal digits.
        hash: String,
    },
    /// The upload has not as many objects as its client says.
    #[error("upload {upload} has {actual} objects, not {expected}; stage what is missing")]
    IncompleteUpload {
        /// The upload.
        upload: u64,
        /// How many objects are staged.
        actual: u64,
        /// How many its client says there are.
        expected: u64,
    },
    /// The cluster has as many uploads as it may.
    #[error("there are {actual} uploads, {allowed} are allowed; commit or abandon some")]
    TooManyUploads {
        /// How many there are.
        actual: u64,
        /// How many there may be.
        allowed: u64,
    },
    /// A transaction compares, or writes, a variable twice.
    #[error("{field} {first} and {again} have the same key")]
    DuplicateKey {
        /// In which of its lists.
        field: Field,
        /// The first place of the key in it, from 0 on.
        first: u64,
        /// The second place.
        again: u64,
    },
    /// A transaction has too many keys, or takes too many bytes.
    #[error("the transaction has {actual} {field}, {allowed} are allowed; split it up")]
    TransactionTooLarge {
        /// Of what it has too many.
        field: Field,
        /// How many it has.
        actual: u64,
        /// How many it may have.
        allowed: u64,
    },
    /// A comparison names what its variable has never had.
    #[error(
        "comparison {nth} names {field} {actual}, and its variable has {found}: that never was; \
         read it again"
    )]
    VersionFromFuture {
        /// The comparison's place in the transaction, from 0 on.
        nth: u64,
        /// What it names: the version or the modification revision.
        field: Field,
        /// What it says.
        actual: u64,
        /// What is here.
        found: u64,
    },
}

/// What kind of no a refusal is; decides the status that a caller sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request is wrong whatever the state is.
    InvalidArgument,
    /// The request names something that is not there.
    NotFound,
    /// The state does not allow it, now or any more.
    FailedPrecondition,
    /// A limit on how much there may be.
    ResourceExhausted,
}

/// The part of a request that a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Field {
    /// The namespace.
    Namespace,
    /// The name of a key, a master or a change source.
    Name,
    /// The class name of an object.
    ClassName,
    /// The id of an object.
    ObjectId,
    /// The id of a master.
    MasterId,
    /// The id of a change source.
    ChangeSourceId,
    /// The name of a group of change sources.
    Group,
    /// How long something lasts without a renewal.
    TtlMs,
    /// How long a caller waits.
    WaitMs,
    /// The connection grace of a lease.
    GraceMs,
    /// How many rows an import has.
    Rows,
    /// How many bytes the rows of an import take.
    RowsBytes,
    /// How many ids are leased.
    Count,
    /// How many ids a request names.
    Ids,
    /// How many objects a request has.
    Objects,
    /// How many bytes the objects of a request take.
    ObjectsBytes,
    /// How many entries the metadata of an object has.
    MetadataEntries,
    /// A name in the metadata of an object.
    MetadataName,
    /// How many bytes the metadata of an object takes.
    MetadataBytes,
    /// How many chunks an object has.
    Chunks,
    /// How many bytes a chunk, or a body that is one, takes.
    ChunkBytes,
    /// How long an upload lives after something was staged.
    IdleMs,
    /// The key of a variable.
    Key,
    /// How many keys a transaction has.
    Keys,
    /// How many bytes the keys and values of a transaction take.
    Bytes,
    /// What a transaction compares.
    Comparisons,
    /// What a transaction writes.
    Writes,
    /// How often a variable was written since it was created.
    Version,
    /// The revision that wrote a variable last.
    ModRevision,
}

impl Field {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Field::Namespace => "namespace",
            Field::Name => "name",
            Field::ClassName => "class_name",
            Field::ObjectId => "object_id",
            Field::MasterId => "master_id",
            Field::ChangeSourceId => "changesource_id",
            Field::Group => "group",
            Field::TtlMs => "ttl_ms",
            Field::WaitMs => "wait_ms",
            Field::GraceMs => "grace_ms",
            Field::Rows => "rows",
            Field::RowsBytes => "rows_bytes",
            Field::Count => "count",
            Field::Ids => "ids",
            Field::Objects => "objects",
            Field::ObjectsBytes => "objects_bytes",
            Field::MetadataEntries => "metadata",
            Field::MetadataName => "metadata name",
            Field::MetadataBytes => "metadata_bytes",
            Field::Chunks => "chunks",
            Field::ChunkBytes => "chunk_bytes",
            Field::IdleMs => "idle_ms",
            Field::Key => "key",
            Field::Keys => "keys",
            Field::Bytes => "bytes",
            Field::Comparisons => "comparisons",
            Field::Writes => "writes",
            Field::Version => "version",
            Field::ModRevision => "mod_revision",
        }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Refusal {
    /// A name for programs. It never changes.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::SessionRequired => "SESSION_REQUIRED",
            Refusal::SessionExpired { .. } => "SESSION_EXPIRED",
            Refusal::StaleSeq { .. } => "STALE_SEQ",
            Refusal::TooManyUndecided { .. } => "TOO_MANY_UNDECIDED",
            Refusal::TooManySessions { .. } => "TOO_MANY_SESSIONS",
            Refusal::NameEmpty { .. } => "NAME_EMPTY",
            Refusal::NameTooLong { .. } => "NAME_TOO_LONG",
            Refusal::ValueTooLarge { .. } => "VALUE_TOO_LARGE",
            Refusal::BadId { .. } => "BAD_ID",
            Refusal::BadTtl { .. } => "BAD_TTL",
            Refusal::BadIdle { .. } => "BAD_IDLE",
            Refusal::UnknownObject { .. } => "UNKNOWN_OBJECT",
            Refusal::UnknownMaster { .. } => "UNKNOWN_MASTER",
            Refusal::UnknownChangeSource { .. } => "UNKNOWN_CHANGE_SOURCE",
            Refusal::LeaseLost { .. } => "LEASE_LOST",
            Refusal::StaleFence { .. } => "STALE_FENCE",
            Refusal::TooManyClaims { .. } => "TOO_MANY_CLAIMS",
            Refusal::TooManyWaiters { .. } => "TOO_MANY_WAITERS",
            Refusal::TooManyPlaces { .. } => "TOO_MANY_PLACES",
            Refusal::ChangeSourceInUse { .. } => "CHANGE_SOURCE_IN_USE",
            Refusal::TooManyMembers { .. } => "TOO_MANY_MEMBERS",
            Refusal::OutOfBounds { .. } => "OUT_OF_BOUNDS",
            Refusal::TooManyCreators { .. } => "TOO_MANY_CREATORS",
            Refusal::CreationLost { .. } => "CREATION_LOST",
            Refusal::NoGrace { .. } => "NO_GRACE",
            Refusal::LeaseRenewed { .. } => "LEASE_RENEWED",
            Refusal::ImportConflict { .. } => "IMPORT_CONFLICT",
            Refusal::UnissuedId { .. } => "UNISSUED_ID",
            Refusal::RepeatedId { .. } => "REPEATED_ID",
            Refusal::ObjectTooLarge { .. } => "OBJECT_TOO_LARGE",
            Refusal::UnknownUpload { .. } => "UNKNOWN_UPLOAD",
            Refusal::MissingChunk { .. } => "MISSING_CHUNK",
            Refusal::IncompleteUpload { .. } => "INCOMPLETE_UPLOAD",
            Refusal::TooManyUploads { .. } => "TOO_MANY_UPLOADS",
            Refusal::DuplicateKey { .. } => "DUPLICATE_KEY",
            Refusal::TransactionTooLarge { .. } => "TRANSACTION_TOO_LARGE",
            Refusal::VersionFromFuture { .. } => "VERSION_FROM_FUTURE",
        }
    }

    /// What kind of no it is.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Refusal::SessionRequired
            | Refusal::NameEmpty { .. }
            | Refusal::NameTooLong { .. }
            | Refusal::ValueTooLarge { .. }
            | Refusal::BadId { .. }
            | Refusal::BadTtl { .. }
            | Refusal::BadIdle { .. }
            | Refusal::OutOfBounds { .. }
            | Refusal::UnissuedId { .. }
            | Refusal::RepeatedId { .. }
            | Refusal::ObjectTooLarge { .. }
            | Refusal::DuplicateKey { .. } => RefusalKind::InvalidArgument,
            Refusal::UnknownObject { .. }
            | Refusal::UnknownMaster { .. }
            | Refusal::UnknownChangeSource { .. }
            | Refusal::UnknownUpload { .. } => RefusalKind::NotFound,
            Refusal::SessionExpired { .. }
            | Refusal::StaleSeq { .. }
            | Refusal::LeaseLost { .. }
            | Refusal::StaleFence { .. }
            | Refusal::ChangeSourceInUse { .. }
            | Refusal::NoGrace { .. }
            | Refusal::LeaseRenewed { .. }
            | Refusal::CreationLost { .. }
            | Refusal::ImportConflict { .. }
            | Refusal::MissingChunk { .. }
            | Refusal::IncompleteUpload { .. }
            | Refusal::VersionFromFuture { .. } => RefusalKind::FailedPrecondition,
            Refusal::TooManyUndecided { .. }
            | Refusal::TooManySessions { .. }
            | Refusal::TooManyClaims { .. }
            | Refusal::TooManyWaiters { .. }
            | Refusal::TooManyPlaces { .. }
            | Refusal::TooManyMembers { .. }
            | Refusal::TooManyCreators { .. }
            | Refusal::TooManyUploads { .. }
            | Refusal::TransactionTooLarge { .. } => RefusalKind::ResourceExhausted,
        }
    }

    /// What it is about, by name, for programs that show or compare it.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Refusal::SessionRequired => vec![],
            Refusal::SessionExpired { session } => vec![of("session_id", session)],
            Refusal::StaleSeq { seq, first_incomplete } => {
                vec![of("seq", seq), of("first_incomplete", first_incomplete)]
            }
            Refusal::TooManyUndecided { session, actual, allowed } => {
                with(of("session_id", session), size(actual, allowed))
            }
            Refusal::TooManySessions { actual, allowed }
            | Refusal::TooManyCreators { actual, allowed }
            | Refusal::TooManyUploads { actual, allowed } => size(actual, allowed).into(),
            Refusal::ValueTooLarge { actual, allowed } => {
                with(of("field", &"value"), size(actual, allowed))
            }
            Refusal::NameEmpty { field } => vec![of("field", field)],
            Refusal::NameTooLong { field, actual, allowed }
            | Refusal::TransactionTooLarge { field, actual, allowed } => {
                with(of("field", field), size(actual, allowed))
            }
            Refusal::BadId { field, value } => vec![of("field", field), of("value", value)],
            Refusal::BadTtl { actual, min, max } => bounds(&"ttl_ms", actual, min, max),
            Refusal::BadIdle { actual, min, max } => bounds(&"idle_ms", actual, min, max),
            Refusal::UnknownObject { id } => vec![of("object_id", id)],
            Refusal::UnknownMaster { id } => vec![of("master_id", id)],
            Refusal::UnknownChangeSource { id }
            | Refusal::ChangeSourceInUse { changesource: id } => vec![of("changesource_id", id)],
            Refusal::LeaseLost { lease } | Refusal::NoGrace { lease } => {
                vec![of("lease_id", lease)]
            }
            Refusal::LeaseRenewed { lease, renewal } => {
                vec![of("lease_id", lease), of("renewal", renewal)]
            }
            Refusal::StaleFence { changesource, token } => {
                vec![of("changesource_id", changesource), of("token", token)]
            }
            Refusal::TooManyClaims { master, actual, allowed } => {
                with(of("master_id", master), size(actual, allowed))
            }
            Refusal::TooManyWaiters { changesource, actual, allowed }
            | Refusal::TooManyMembers { changesource, actual, allowed } => {
                with(of("changesource_id", changesource), size(actual, allowed))
            }
            Refusal::TooManyPlaces { lease, actual, allowed } => {
                with(of("lease_id", lease), size(actual, allowed))
            }
            Refusal::OutOfBounds { field, actual, min, max } => bounds(field, actual, min, max),
            Refusal::CreationLost { token } => vec![of("token", token)],
            Refusal::ImportConflict { nth, row, found } => {
                vec![of("nth", nth), of("row", row), of("found", found)]
            }
            Refusal::UnissuedId { id } | Refusal::RepeatedId { id } => vec![of("object_id", id)],
            Refusal::ObjectTooLarge { id, actual, allowed } => {
                with(of("object_id", id), size(actual, allowed))
            }
            Refusal::UnknownUpload { upload } => vec![of("upload_id", upload)],
            Refusal::MissingChunk { id, hash } => vec![of("object_id", id), of("hash", hash)],
            Refusal::IncompleteUpload { upload, actual, expected } => {
                with(of("upload_id", upload), [of("actual", actual), of("expected", expected)])
            }
            Refusal::DuplicateKey { field, first, again } => {
                vec![of("field", field), of("first", first), of("again", again)]
            }
            Refusal::VersionFromFuture { nth, field, actual, found } => {
                vec![of("nth", nth), of("field", field), of("actual", actual), of("found", found)]
            }
        }
    }
}

/// A field of a refusal: its name, and what it is.
type Named = (&'static str, String);

fn of(name: &'static str, value: &dyn ToString) -> Named {
    (name, value.to_string())
}

fn size(actual: &u64, allowed: &u64) -> [Named; 2] {
    [of("actual", actual), of("allowed", allowed)]
}

fn bounds(field: &dyn ToString, actual: &u64, min: &u64, max: &u64) -> Vec<Named> {
    vec![of("field", field), of("actual", actual), of("min", min), of("max", max)]
}

fn with(first: Named, rest: [Named; 2]) -> Vec<Named> {
    [first].into_iter().chain(rest).collect()
}

/// Refuses an empty or a too long name.
pub(crate) fn check_name(field: Field, name: &(impl AsRef<[u8]> + ?Sized)) -> Result<(), Refusal> {
    let (actual, allowed) = (name.as_ref().len() as u64, limits::NAME_BYTES_MAX as u64);
    match actual {
        0 => Err(Refusal::NameEmpty { field }),
        _ if actual > allowed => Err(Refusal::NameTooLong { field, actual, allowed }),
        _ => Ok(()),
    }
}

/// Refuses an id that no counter gives out.
pub(crate) fn check_id(field: Field, value: i64) -> Result<(), Refusal> {
    if value > 0 { Ok(()) } else { Err(Refusal::BadId { field, value }) }
}

/// Refuses a number that is out of its bounds.
pub(crate) fn check_bounds(
    field: Field,
    actual: u64,
    allowed: RangeInclusive<u64>,
) -> Result<(), Refusal> {
    let (min, max) = allowed.into_inner();
    match (min..=max).contains(&actual) {
        true => Ok(()),
        false => Err(Refusal::OutOfBounds { field, actual, min, max }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Response;

    /// One of each, in order.
    fn all() -> Vec<Refusal> {
        let (actual, allowed, min, max) = (9, 8, 2, 7);
        vec![
            Refusal::SessionRequired,
            Refusal::SessionExpired { session: 5 },
            Refusal::StaleSeq { seq: 3, first_incomplete: 4 },
            Refusal::TooManyUndecided { session: 5, actual, allowed },
            Refusal::TooManySessions { actual, allowed },
            Refusal::NameEmpty { field: Field::Namespace },
            Refusal::NameTooLong { field: Field::ClassName, actual, allowed },
            Refusal::ValueTooLarge { actual, allowed },
            Refusal::BadId { field: Field::ChangeSourceId, value: -1 },
            Refusal::BadTtl { actual, min, max },
            Refusal::BadIdle { actual, min, max },
            Refusal::UnknownObject { id: 6 },
            Refusal::UnknownMaster { id: 6 },
            Refusal::UnknownChangeSource { id: 6 },
            Refusal::LeaseLost { lease: 5 },
            Refusal::StaleFence { changesource: 6, token: 5 },
            Refusal::TooManyClaims { master: 6, actual, allowed },
            Refusal::TooManyWaiters { changesource: 6, actual, allowed },
            Refusal::TooManyPlaces { lease: 5, actual, allowed },
            Refusal::ChangeSourceInUse { changesource: 6 },
            Refusal::TooManyMembers { changesource: 6, actual, allowed },
            Refusal::OutOfBounds { field: Field::WaitMs, actual, min, max },
            Refusal::TooManyCreators { actual, allowed },
            Refusal::CreationLost { token: 5 },
            Refusal::NoGrace { lease: 5 },
            Refusal::LeaseRenewed { lease: 5, renewal: 4 },
            Refusal::ImportConflict { nth: 3, row: "a".to_owned(), found: "b".to_owned() },
            Refusal::UnissuedId { id: 6 },
            Refusal::RepeatedId { id: 6 },
            Refusal::ObjectTooLarge { id: 6, actual, allowed },
            Refusal::UnknownUpload { upload: 5 },
            Refusal::MissingChunk { id: 6, hash: "ab".to_owned() },
            Refusal::IncompleteUpload { upload: 5, actual, expected: 8 },
            Refusal::TooManyUploads { actual, allowed },
            Refusal::DuplicateKey { field: Field::Writes, first: 2, again: 7 },
            Refusal::TransactionTooLarge { field: Field::Bytes, actual, allowed },
            Refusal::VersionFromFuture { nth: 3, field: Field::Version, actual, found: 8 },
        ]
    }

    #[test]
    fn stored_bytes_never_change() {
        // Version, revision 1, Err, then the variant's number and its fields.
        let expected = [
            "01010100",
            "0101010105",
            "010101020304",
            "01010103050908",
            "010101040908",
            "0101010500",
            "01010106020908",
            "010101070908",
            "010101080501",
            "01010109090207",
            "0101010a090207",
            "0101010b0c",
            "0101010c0c",
            "0101010d0c",
            "0101010e05",
            "0101010f0c05",
            "010101100c0908",
            "010101110c0908",
            "01010112050908",
            "010101130c",
            "010101140c0908",
            "0101011508090207",
            "010101160908",
            "0101011705",
            "0101011805",
            "010101190504",
            "0101011a0301610162",
            "0101011b06",
            "0101011c06",
            "0101011d060908",
            "0101011e05",
            "0101011f06026162",
            "01010120050908",
            "010101210908",
            "010101221a0207",
            "01010123180908",
            "01010124031b0908",
        ];
        for (refusal, expected) in all().into_iter().zip(expected) {
            let response = Response { revision: 1, outcome: Err(refusal) };
            let bytes = response.encode().expect("it is short");
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{response:?}");
            assert_eq!(Response::decode(&bytes), Ok(response));
        }
        assert_eq!(all().len(), expected.len());
    }

    #[test]
    fn reasons_are_told_apart() {
        let mut reasons: Vec<_> = all().iter().map(Refusal::reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), all().len());
    }

    #[test]
    fn messages_name_the_thing_and_its_value() {
        for refusal in all() {
            let message = refusal.to_string();
            assert!(message.starts_with(|first: char| first.is_ascii_lowercase()), "{message}");
            assert!(!message.ends_with('.'), "{message}");
            for (field, value) in refusal.fields() {
                let is_known = matches!(field, "field" | "session_id") || message.contains(&value);
                assert!(is_known, "{message} does not say {field} {value}");
            }
        }
        let refusal = Refusal::NameTooLong { field: Field::Name, actual: 1025, allowed: 1024 };
        assert_eq!(refusal.to_string(), "name takes 1025 bytes, 1024 are allowed");
    }
}

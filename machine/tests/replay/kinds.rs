//! The kinds of answers that random histories must come upon, to be worth their time.

use holdfast_machine::{
    Reply, Response, changesources, creators, import, masters, objects, sessions, state, stm,
};

/// All that the generator can reach.
pub(crate) const ALL: [&str; 79] = [
    "opened",
    "kept",
    "closed",
    "object id",
    "written",
    "equal",
    "lost",
    "lost to nothing",
    "created",
    "not created",
    "deleted",
    "not deleted",
    "master id",
    "changed",
    "not changed",
    "lease",
    "held by",
    "renewed",
    "lease closed",
    "shrunk",
    "source id",
    "granted",
    "granted again",
    "unset",
    "already claimed",
    "already claimed without lease",
    "released",
    "not released",
    "waiting",
    "waiting behind others",
    "stopped",
    "not waiting",
    "group set",
    "group not set",
    "creating",
    "creating again",
    "waits to create",
    "exists",
    "abandoned",
    "not abandoned",
    "imported",
    "all here already",
    "ids leased",
    "saved",
    "removed",
    "nothing removed",
    "upload opened",
    "staged",
    "upload abandoned",
    "upload not abandoned",
    "committed",
    "conflict",
    "conflicts",
    "SESSION_REQUIRED",
    "SESSION_EXPIRED",
    "STALE_SEQ",
    "NAME_TOO_LONG",
    "BAD_ID",
    "BAD_TTL",
    "BAD_IDLE",
    "UNKNOWN_OBJECT",
    "UNKNOWN_MASTER",
    "UNKNOWN_CHANGE_SOURCE",
    "LEASE_LOST",
    "STALE_FENCE",
    "CHANGE_SOURCE_IN_USE",
    "OUT_OF_BOUNDS",
    "CREATION_LOST",
    "NO_GRACE",
    "LEASE_RENEWED",
    "IMPORT_CONFLICT",
    "UNISSUED_ID",
    "UNKNOWN_UPLOAD",
    "MISSING_CHUNK",
    "INCOMPLETE_UPLOAD",
    "VALUE_TOO_LARGE",
    "DUPLICATE_KEY",
    "TRANSACTION_TOO_LARGE",
    "VERSION_FROM_FUTURE",
];

/// Which of them a response is.
pub(crate) fn kind(response: &Response) -> &'static str {
    match &response.outcome {
        Err(refusal) => refusal.reason(),
        Ok(Reply::Session(reply)) => match reply {
            sessions::Reply::Opened { .. } => "opened",
            sessions::Reply::Kept => "kept",
            sessions::Reply::Closed => "closed",
        },
        Ok(Reply::State(reply)) => match reply {
            state::Reply::ObjectId(_) => "object id",
            state::Reply::Written { written: false, found: true, .. } => "lost",
            state::Reply::Written { written: false, found: false, .. } => "lost to nothing",
            state::Reply::Written { mod_revision, .. } if *mod_revision < response.revision => {
                "equal"
            }
            state::Reply::Written { .. } => "written",
            state::Reply::Created { created: true, .. } => "created",
            state::Reply::Created { created: false, .. } => "not created",
            state::Reply::Deleted(true) => "deleted",
            state::Reply::Deleted(false) => "not deleted",
        },
        Ok(Reply::Masters(reply)) => match reply {
            masters::Reply::Id(_) => "master id",
            masters::Reply::Changed(true) => "changed",
            masters::Reply::Changed(false) => "not changed",
            masters::Reply::Lease { .. } => "lease",
            masters::Reply::HeldBy { .. } => "held by",
            masters::Reply::Renewed { .. } => "renewed",
            masters::Reply::Closed { .. } => "lease closed",
            masters::Reply::Shrunk { .. } => "shrunk",
        },
        Ok(Reply::ChangeSources(reply)) => match reply {
            changesources::Reply::Id(_) => "source id",
            changesources::Reply::Granted { token } if *token < response.revision => {
                "granted again"
            }
            changesources::Reply::Granted { .. } => "granted",
            changesources::Reply::Unset => "unset",
            changesources::Reply::AlreadyClaimed(holder) if holder.lease.is_none() => {
                "already claimed without lease"
            }
            changesources::Reply::AlreadyClaimed(_) => "already claimed",
            changesources::Reply::Released(true) => "released",
            changesources::Reply::Released(false) => "not released",
            changesources::Reply::Waiting { ahead: 0 } => "waiting",
            changesources::Reply::Waiting { .. } => "waiting behind others",
            changesources::Reply::Stopped(true) => "stopped",
            changesources::Reply::Stopped(false) => "not waiting",
            changesources::Reply::GroupSet(true) => "group set",
            changesources::Reply::GroupSet(false) => "group not set",
        },
        Ok(Reply::Creators(reply)) => match reply {
            creators::Reply::Creating { token, .. } if *token < response.revision => {
                "creating again"
            }
            creators::Reply::Creating { .. } => "creating",
            creators::Reply::Waiting { .. } => "waits to create",
            creators::Reply::Exists { .. } => "exists",
            creators::Reply::Abandoned(true) => "abandoned",
            creators::Reply::Abandoned(false) => "not abandoned",
        },
        Ok(Reply::Import(import::Reply { written: 0 })) => "all here already",
        Ok(Reply::Import(import::Reply { .. })) => "imported",
        Ok(Reply::Stm(stm::Reply::Committed)) => "committed",
        Ok(Reply::Stm(stm::Reply::Conflict { total: 1, .. })) => "conflict",
        Ok(Reply::Stm(stm::Reply::Conflict { .. })) => "conflicts",
        Ok(Reply::Objects(reply)) => of_objects(reply),
    }
}

fn of_objects(reply: &objects::Reply) -> &'static str {
    match reply {
        objects::Reply::Leased { .. } => "ids leased",
        objects::Reply::Saved { .. } => "saved",
        objects::Reply::Removed(0) => "nothing removed",
        objects::Reply::Removed(_) => "removed",
        objects::Reply::Opened { .. } => "upload opened",
        objects::Reply::Staged => "staged",
        objects::Reply::Abandoned(true) => "upload abandoned",
        objects::Reply::Abandoned(false) => "upload not abandoned",
    }
}

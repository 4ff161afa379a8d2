//! What can go wrong with a store.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Applied;

use super::id::Id;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A load error: the store has no object of this id.
    #[error("load error: {store} has no object {id}{}", of_parent(*.parent))]
    Load {
        /// What is not there.
        id: Id,
        /// The object that refers to it; none if it was asked for itself.
        parent: Option<Id>,
        /// Which store.
        store: String,
    },
    /// The store could not be reached for as long as it was waited for. Never means that an object is
    /// not there.
    #[error("store unavailable: {store} did not answer within {:.1} s: {reason}", .waited.as_secs_f64())]
    Unavailable {
        /// Which store: names its hosts.
        store: String,
        /// How long it was tried.
        waited: Duration,
        /// What happened at each host.
        reason: String,
        /// Whether a write may have been carried out. Saving the same objects again is safe: they keep
        /// their ids.
        applied: Applied,
        /// The call that failed, if it was one to a cluster.
        source: Option<Box<crate::Error>>,
    },
    /// A stream of ids or records broke off after some of it had been handed out, and could not go on: the
    /// cluster has moved on from its revision. What was handed out is true of that one; list again.
    #[error(
        "the listing of {store} broke off after {handed_out} {}, and something has been written since; \
         list again: {source}",
        if *.handed_out == 1 { "object" } else { "objects" }
    )]
    BrokenOff {
        /// Which store.
        store: String,
        /// How many objects had been handed out.
        handed_out: u64,
        /// What became of the node that they came from.
        source: Box<crate::Error>,
    },
    /// This kind of store does not do that.
    #[error("{operation} is not implemented by {store}")]
    NotImplemented {
        /// What was asked for.
        operation: &'static str,
        /// Which store.
        store: String,
    },
    /// No store is registered for the scheme of a URI.
    #[error("unknown scheme {scheme:?} in {uri:?}; known are: {}", .known.join(", "))]
    UnknownScheme {
        /// The scheme.
        scheme: String,
        /// The URI that has it.
        uri: String,
        /// The schemes that are registered.
        known: Vec<String>,
    },
    /// A URI that names no store.
    #[error("{uri:?} names no store: {reason}")]
    BadUri {
        /// The URI.
        uri: String,
        /// What is wrong with it, and what it may say.
        reason: String,
    },
    /// More than is allowed; nothing was sent or written.
    #[error("{what} {actual}, and at most {allowed} are allowed")]
    TooLarge {
        /// What is too large, in the words that come before the number.
        what: String,
        /// How large it is.
        actual: u64,
        /// How large it may be.
        allowed: u64,
    },
    /// An object that cannot be stored as it is; nothing was sent or written.
    #[error("cannot store an object of class {class_name:?}: {reason}")]
    Unstorable {
        /// Its class.
        class_name: String,
        /// Why.
        reason: String,
    },
    /// An object is to be saved under an id that this store has never given out.
    #[error("{store} has never given out the id {id}")]
    UnissuedId {
        /// The id.
        id: Id,
        /// Which store.
        store: String,
    },
    /// Objects that refer to each other in a circle, where that cannot be.
    #[error("object {id} refers to itself through its children")]
    Cycle {
        /// One of them.
        id: Id,
    },
    /// The objects of a tree were changed over and over while it was loaded.
    #[error("the tree of {id} kept changing while it was loaded, {tries} times; load it again")]
    Unsteady {
        /// Its root.
        id: Id,
        /// How often it was begun.
        tries: u32,
    },
    /// What is stored cannot be used.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// Which object or file.
        what: String,
        /// How that was seen.
        reason: String,
    },
    /// The file system refused something.
    #[error("{act} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// The cluster refused; nothing was changed.
    #[error("{store}: {source}")]
    Refused {
        /// Which store.
        store: String,
        /// What it said.
        source: Box<crate::Error>,
    },
}

impl Error {
    /// Whether it is a load error: the object, or one that it refers to, is not there.
    #[must_use]
    pub fn is_load_error(&self) -> bool {
        matches!(self, Error::Load { .. })
    }

    /// The call to the cluster that failed, if there was one.
    #[must_use]
    pub fn of_call(&self) -> Option<&crate::Error> {
        match self {
            Error::Unavailable { source, .. } => source.as_deref(),
            Error::BrokenOff { source, .. } | Error::Refused { source, .. } => Some(source),
            Error::Load { .. }
            | Error::NotImplemented { .. }
            | Error::UnknownScheme { .. }
            | Error::BadUri { .. }
            | Error::TooLarge { .. }
            | Error::Unstorable { .. }
            | Error::UnissuedId { .. }
            | Error::Cycle { .. }
            | Error::Unsteady { .. }
            | Error::Damaged { .. }
            | Error::Io { .. } => None,
        }
    }

    /// Whether the store could not be reached.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Unavailable { .. })
    }
}

fn of_parent(parent: Option<Id>) -> String {
    parent.map_or(String::new(), |parent| format!(", to which {parent} refers"))
}

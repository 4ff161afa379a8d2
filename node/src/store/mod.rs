//! What a node keeps on disk: its identity, its raft log and its replicated state.
//!
//! The model is one *data directory*, locked by one process:
//!
//! ```text
//! LOCK            held by flock while a process uses the directory; names its pid
//! IDENTITY        which node of which cluster this is
//! CURRENT         whether the log was made, and which state generation is in use
//! log/            one sled database: vote, log entries; large entries in files beside it
//! state-<n>/      two sled databases: rows of the replicated state, generation n, and in bodies/ its bodies;
//!                 large bodies in files beside it
//! *.corrupt-<n>/  a database that could not be read, set aside
//! ```
//!
//! This module is plain threads and bytes: it knows indexes, rows and bodies, not what they mean.
//!
//! Invariants:
//! - Nothing is acknowledged before a real sync covers it (see [`sync`]); a power cut of the machine
//!   at any point loses no acknowledged write.
//! - Each database has one thread that writes it, in order; after a crash it holds a prefix of what
//!   that thread wrote, which contains everything that was acknowledged.
//! - The first failed write or sync is final ([`Fault`]): every later call fails, and nothing is
//!   acknowledged again by any store of this data directory.
//! - A database that CURRENT names and that is missing or damaged is never replaced by an empty one:
//!   a node that forgot its vote or its log must join again as a new node.
//!
//! Left out: what the bytes mean, snapshots on the wire, free-space policy (only
//! [`DataDir::free_bytes`] is here).

mod bodies;
mod db;
mod entries;
mod fault;
mod files;
mod generation;
mod header;
mod log;
mod measures;
#[cfg(test)]
mod model;
mod queue;
mod record;
mod redo;
mod rows;
mod snapshot;
mod state;
pub mod sync;
mod tail;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use bodies::{BodyChange, Hash};
pub use entries::LogStart;
pub use fault::{Fault, OnFault};
pub use header::{DataDir, DirError, Identity, Place};
pub use log::LogStore;
pub use measures::GroupCommits;
pub use snapshot::Building;
pub use state::{Row, RowChange, StateStore};

pub use crate::pins::{Pin, Pins};

/// Called once, from a thread of the store, with the outcome of a durable write.
///
/// It must be short and must not block: the next group of writes waits for it.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused something.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// Verb and object, such as `create directory`.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A database could not be read, even without its caches, and was moved out of the way.
    #[error("{} is damaged ({cause}) and was set aside as {}", path.display(), aside.display())]
    Quarantined {
        /// Where the database was.
        path: PathBuf,
        /// Where it is now.
        aside: PathBuf,
        /// What the engine said.
        cause: String,
    },
    /// A database that this node has used before is gone.
    #[error("{} is missing, but this node has used it before", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A database opens, but what is in it contradicts itself.
    #[error("{} is damaged: {cause}", path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A row was written by a newer release.
    #[error("{} has rows of format {found}, this release reads up to {supported}", path.display())]
    NewerFormat {
        /// The database.
        path: PathBuf,
        /// The version found.
        found: u8,
        /// The newest version this release knows.
        supported: u8,
    },
    /// This binary does not turn the engine's flush into a real sync.
    #[error("sync-not-real: flushing a database in {} made no sync", path.display())]
    SyncNotReal {
        /// Where the scratch database was.
        path: PathBuf,
    },
    /// An earlier write or sync failed; nothing is written again by this process.
    #[error("{0}")]
    Fault(String),
}

impl StoreError {
    /// The runbook section about this error; stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "data-dir-unwritable",
            Self::Quarantined { .. } | Self::Corrupt { .. } => "store-damaged",
            Self::Missing { .. } => "store-missing",
            Self::NewerFormat { .. } => "newer-format",
            Self::SyncNotReal { .. } => "sync-not-real",
            Self::Fault(_) => "disk-failed",
        }
    }

    /// What the operator can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check that the data directory is writable and its disk healthy",
            Self::Quarantined { .. } | Self::Corrupt { .. } | Self::Missing { .. } => {
                "do not start this node again from this directory: remove the node from the \
                 cluster, then join a new one with an empty data directory"
            }
            Self::NewerFormat { .. } => {
                "start the release that wrote this directory, or a newer one"
            }
            Self::SyncNotReal { .. } => {
                "this binary is broken: its `sync_file_range` is not Holdfast's own; install a \
                 released build"
            }
            Self::Fault(_) => "check the disk (dmesg, free space), then start the node again",
        }
    }

    /// The same as an error of a write.
    fn into_io(self) -> io::Error {
        if let Self::Io { source, .. } = self { source } else { io::Error::other(self.to_string()) }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Locks for a short section.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values under the store's locks change in single steps, so a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

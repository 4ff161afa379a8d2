//! The replicated state machine of Holdfast: a pure function from a state and a log entry to replies and changes.
//!
//! # Model
//!
//! A [`State`] is one ordered map of bytes plus a [`Header`]. [`State::apply`] takes the next log entry and
//! answers with one [`Response`] for each request in it and with the list of rows that changed. Every node
//! of a cluster applies the same entries in the same order, so every node holds the same rows.
//!
//! A request comes with the session it was made in, so that a retry finds the outcome of the first try
//! ([`sessions`]). What a request does belongs to its connector: [`state`] (object state) with [`creators`]
//! (who may create a value), [`masters`] (masters and their leases), [`changesources`] (who owns a change
//! source), [`objects`] (stored objects) and [`stm`] (variables that transactions share).
//!
//! # Invariants
//!
//! - Apply reads nothing but the state and the entry: no clock, randomness, IO, floats, hash-map order.
//! - Folding all changes over an empty map gives all rows; with the header row they give back the state.
//!   Bodies of stored objects are in no row; folding what goes out of them gives those that rows name.
//! - A request is carried out whole or not at all; a [`Refusal`] changes no row but its session's.
//! - The revision rises by one with each request, and each ended lease, that changed rows.
//! - Time is [`Header::clock_ms`], the cluster clock, which only entries advance. A lease whose deadline it
//!   has reached is never treated as held, even while its row is still there.
//! - A refusal is deterministic and part of the reply. Anything else is a [`Fault`] and stops the node.
//! - The limits in [`limits`] are checked by apply, not only before it: they are part of the function, and
//!   a changed limit needs a new feature [`level`].
//!
//! # Map
//!
//! | file | holds |
//! |---|---|
//! | `machine.rs` | [`State`], apply, rows in and out |
//! | `header.rs` | [`Header`]: position in the log, revision, clock, digest |
//! | `entry.rs` | [`Entry`], [`Request`], [`Command`], [`Reply`], [`Response`] and their bytes |
//! | `refusal.rs`, `fault.rs` | every deterministic no; every reason to stop |
//! | `admit.rs`, `growth.rs` | what the leader can decide before it proposes; how much a request adds |
//! | `table.rs`, `encoding.rs` | typed tables over the map; ordered keys, versioned values |
//! | `sessions.rs` | exactly-once |
//! | `state.rs`, `masters.rs`, `changesources.rs`, `objects.rs`, `stm.rs` | one connector each |
//! | `creators.rs` | who may create a value, and who waits for that |
//! | `import.rs` | taking in rows from elsewhere |
//! | `events.rs` | what changes mean to those who watch |
//! | `leases.rs` | the rows of leases, and when they lapse |
//! | `claims.rs` | the rows of change sources: what gives and takes claims |
//! | `queues.rs` | who waits for which change source |
//! | `groups.rs` | which change sources are owned together |
//! | `stored.rs` | the rows of stored objects: which are seen |
//! | `uploads.rs` | what is staged, committed and settles |
//! | `chunks.rs` | bodies by hash, and who names them |
//! | `inspect.rs` | rows for people, and whether they agree |
//! | `digest.rs`, `level.rs`, `limits.rs` | agreement, upgrades, bounds |
//!
//! # What it leaves out
//!
//! The API's protocol buffers, the log, the disk, who watches and quotas: they are the node's.

#![forbid(unsafe_code)]
// Floats round differently; clippy.toml bans the rest of what apply may not depend on.
#![deny(clippy::float_arithmetic, clippy::disallowed_types, clippy::disallowed_methods)]

mod admit;
pub mod changesources;
mod chunks;
mod claims;
pub mod creators;
pub mod digest;
mod encoding;
mod entry;
pub mod events;
mod fault;
mod groups;
mod growth;
mod header;
pub mod import;
pub mod inspect;
mod leases;
pub mod level;
pub mod limits;
mod machine;
pub mod masters;
pub mod objects;
#[cfg(feature = "plant")]
pub mod plant;
mod queues;
mod refusal;
pub mod sessions;
pub mod state;
pub mod stm;
mod stored;
mod table;
mod uploads;

pub use admit::Admission;
pub use chunks::{BodyChange, Hash};
pub use encoding::CodecError;
pub use entry::{Command, Entry, Origin, Reply, Request, Response};
pub use events::Event;
pub use fault::Fault;
pub use header::{Header, LogPosition};
pub use machine::{Applied, Change, Payload, State};
pub use refusal::{Field, Refusal, RefusalKind};

/// Shared bytes: a row's key or value, or a value on its way into a row.
///
/// Cloning one copies a pointer, so that a snapshot, the disk and a watcher can hold the same row.
pub type Bytes = std::sync::Arc<[u8]>;

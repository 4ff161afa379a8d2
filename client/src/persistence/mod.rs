//! Keeping objects: the same calls on a cluster, and on a directory of files.
//!
//! ```no_run
//! # async fn example() -> Result<(), holdfast_client::persistence::Error> {
//! use holdfast_client::persistence::{Object, make_store};
//!
//! let store = make_store("holdfast://127.0.0.1:7480,127.0.0.1:7490/jobs")?;
//! let id = store.save(&Object::new("Job", b"sleep 1".to_vec())).await?;
//! let job = store.load(id).await?;
//! assert_eq!(job.root().body, b"sleep 1");
//! # Ok(()) }
//! ```
//!
//! # The model
//! A [`Store`] keeps objects under ids that it gives out, each once and for ever. An object
//! ([`Persistable`]) is a class, metadata to find it by, a body of bytes, and references to other objects,
//! which are stored on their own. A save takes an object with all that it refers to, and a load brings
//! back a [`Tree`].
//!
//! # Invariants
//! - A save is one atomic step, whatever it holds; nobody sees a part of it. All of it is encoded and
//!   checked before anything is sent or written.
//! - An id is given out once: after a remove, a restart, a fork or a restored copy it is not given out
//!   again.
//! - A store that cannot be reached never says that an object is not there ([`Error::is_load_error`]).
//!
//! # Where things are
//! `store` the calls · `persistable` what can be stored, `family` it and its children on the way in, `tree`
//! the way out, `record` the form that every store keeps · `id`, `id_blocks`, `per_process` ids, and that
//! no two processes share them · `uri` and `registry` which store a URI stands for · `cluster` and `file`
//! the two kinds of store.
//!
//! It leaves out: encodings of objects, which are the caller's, and removing what nothing refers to any
//! more.

mod cluster;
mod error;
mod family;
mod file;
mod id;
mod id_blocks;
mod per_process;
mod persistable;
mod record;
mod registry;
mod store;
mod tree;
mod uri;

pub use cluster::{ClusterStore, Progress};
pub use error::Error;
pub use file::FilesystemStore;
pub use id::{BadId, Id};
pub use persistable::{EncodeError, Identity, Object, Persistable};
pub use registry::{Constructor, make_store, register};
pub use store::{Filter, Listed, Store};
pub use tree::{Stored, Tree};
pub use uri::Uri;

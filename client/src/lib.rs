//! Client library of Holdfast: state and ownership that several programs share.
//!
//! ```no_run
//! # async fn example() -> Result<(), holdfast_client::Error> {
//! use holdfast_client::{Client, ClientConfig};
//!
//! let client = Client::connect(ClientConfig::new(["127.0.0.1:7480", "127.0.0.1:7490"]));
//! let state = client.state();
//! let object = state.get_object_id("scheduler-1", "Scheduler").await?;
//! let written = state.set(object, "last_build", b"17").await?;
//! assert!(written.written);
//! # Ok(()) }
//! ```
//!
//! # The model
//! A [`Client`] knows some endpoints and learns the others. It finds the leader by the hints in
//! what nodes answer, and gets around nodes that are gone or hang. Writes go through a *session*,
//! which makes each of them happen at most once however often it was sent.
//! A master owns change sources while its *lease* lives; [`LeaseHolder`] keeps one alive and says
//! in time when it is lost.
//!
//! # Invariants
//! - A caller can always tell apart *applied*, *definitely not applied* and *outcome unknown*
//!   ([`Error::applied`]).
//! - A write is never carried out twice, nor moved to another session.
//! - A holder is told that its lease is lost before the cluster could give its claims away.
//!
//! # Where things are
//! `client` what the facades share · `call` the engine that brings one call to an answer ·
//! `pool` and `endpoint` whom to ask · `pipeline` many calls on one stream · `session` numbering of writes ·
//! `pending` writes that are sent again ·
//! `error` the outcomes, and the inverse of the node's map to gRPC statuses · `lease`, `life`, `attach` and
//! `instance` the life of a lease · `watch` streams of changes that go on at another node · `stream` answers
//! in parts ·
//! `transfer` rows from cluster to cluster · `exclusive` creating by a callback that runs in one place at a time ·
//! `state`, `masters`, `change_sources`, `cluster` one facade for each service · [`stm`] variables ·
//! [`persistence`] stores of objects · `rpc` the wire calls as types.
//!
//! It leaves out: encoding of values (the cluster keeps bytes), and TLS.

mod attach;
mod boottime;
mod call;
mod change_sources;
mod client;
mod cluster;
mod config;
mod deadline;
mod endpoint;
mod error;
mod exclusive;
mod instance;
mod lease;
mod life;
mod masters;
mod pending;
pub mod persistence;
mod pipeline;
mod pool;
mod rpc;
mod session;
mod state;
pub mod stm;
mod stream;
mod transfer;
mod watch;

pub use boottime::BootTime;
pub use change_sources::{Awaited, ChangeSource, ChangeSources, Claimant, Claimed, Fence};
pub use client::Client;
pub use cluster::{Cluster, JoinRequest, Joined, Member, Members, NodeStatus, Role};
pub use config::ClientConfig;
pub use error::{Applied, Attempt, Cause, Error, Header};
pub use exclusive::{Creator, ExclusiveError, ExclusiveOptions};
pub use instance::{Instance, InstanceError, Origin};
pub use lease::{LeaseHolder, Opened};
pub use life::Loss;
pub use masters::{HeldBy, Lease, Master, Masters, OpenedLease, Renewal};
pub use state::{Created, Object, Page, State, StateItem, Value, Written};
pub use tonic::Code;
pub use transfer::{Export, Row};
pub use watch::{Change, Event, Watch, WatchFilter, WatchOptions};

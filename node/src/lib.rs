//! One node of a Holdfast cluster.
//!
//! The layers, each importing only those below it:
//!
//! ```text
//! serve        start and stop: directory, identity, sockets
//! grpc         services: protobuf in, commands out
//! metrics      what a node shows of itself
//! node         every call comes through here: tried here or at the leader, held, or refused
//! propose  read  watch  forward  members  expire  agree  measures  readiness
//! leadership   who leads, and the cluster clock of a leader's term
//! raft         openraft's traits on our store, state machine and peer protocol
//! store        what is durable: sled with its guards
//! ```
//!
//! sled appears only under `store`, openraft's traits only under `raft`, tonic only under `grpc`,
//! `serve` and `raft::network`; nothing but `runtime` names the async runtime.

mod agree;
mod alarm;
pub mod config;
mod expire;
mod forward;
mod grpc;
mod leadership;
mod measures;
mod members;
mod metrics;
mod node;
mod propose;
mod raft;
mod read;
mod readiness;
mod runtime;
mod serve;
pub mod store;
mod trim;
mod watch;

pub use serve::{Boxed, ServeError, serve};

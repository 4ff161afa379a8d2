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

#![cfg_attr(
    feature = "sim",
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "much of a node is for sockets, which are left out"
    )
)]

mod agree;
mod alarm;
mod assemble;
pub mod config;
mod expire;
mod forward;
#[cfg(not(feature = "sim"))]
mod grpc;
mod leadership;
mod measures;
mod members;
#[cfg(not(feature = "sim"))]
mod metrics;
mod node;
mod pins;
mod places;
mod propose;
mod raft;
mod read;
mod readiness;
mod room;
mod runtime;
#[cfg(not(feature = "sim"))]
mod serve;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(not(feature = "sim"))]
mod space;
#[cfg(not(feature = "sim"))]
pub mod store;
mod trim;
mod watch;

#[cfg(not(feature = "sim"))]
pub use serve::{Boxed, ServeError, serve};
#[cfg(feature = "sim")]
use sim::store;

//! The network between the nodes of a practice cluster on one machine, which cuts and slows on
//! command and needs no root.
//!
//! # The model
//! Each node has a loopback address of its own ([`host_of`]): there it listens for its peers, and
//! from there it dials them. A [`Network`] listens where the nodes *say* that they listen and
//! carries each connection on. So it knows both ends of whatever passes, and [`Rules`] say what
//! becomes of the bytes from one node to another.
//!
//! A cut drops nothing that TCP would bring later and resets nothing: bytes, ends of connections
//! and new connections wait, and go on when it heals, unless an end has given up meanwhile. After
//! [`PATIENCE`] the connection is closed, as a kernel does that has sent in vain for long.
//!
//! # Parts
//! [`rules`] who hears whom · [`relay`] what carries bytes · [`Network`] listeners and connections.
//!
//! # Invariants
//! - Bytes of one direction keep their order, and none is lost while both ends stay.
//! - A rule holds for every byte that is written after the call that made it has returned.
//! - What is held is bounded ([`relay::HELD_BYTES_MAX`] a direction of a connection).
//!
//! # What it leaves out
//! Clients are not cut off: they dial nodes directly. Nothing is reordered, duplicated or corrupted:
//! TCP would hide it.
#![forbid(unsafe_code)]

mod hosts;
mod network;
pub mod relay;
pub mod rules;

pub use hosts::{host_of, node_at};
pub use network::{Network, PATIENCE, Route};
pub use relay::Flow;
pub use rules::Rules;

//! Harness for tests against real clusters: real `holdfast serve` processes on loopback, driven
//! through the Rust client, with processes killed and connections cut under them.
//!
//! # The model
//! [`Cluster`] is some nodes, each a child process with a data directory, two ports and a log file.
//! [`Chaos`] kills its leader again and again. [`Proxy`] stands between a client and a node and
//! stalls, delays or cuts what passes; the [`Network`] stands between the nodes and cuts, stalls and
//! delays by who sends to whom. [`StandIn`] is a master in a process of its own, which can be
//! killed and frozen, [`CreatorProcess`] one that creates a value, and [`mod@saver`] one that saves trees of
//! objects. [`Faults`] does such things
//! to nodes at random, from a seed, while a [`Recorder`] notes what clients are told. [`scale`] and
//! [`bound`] say how much of each a test does, and [`report`] notes the figures that came out.
//!
//! # Invariants
//! - Processes are only ever ended by the handle of the child that this process started; dropping a
//!   [`Cluster`] or a [`StandIn`] ends its children and waits for them.
//! - A node keeps its ports over restarts, and no two tests get the same ones ([`ports`]).
//! - Every wait has a bound, and says what it waited for when that has passed ([`wait_for`]).
//! - A [`Cluster`] that is dropped without [`Cluster::finish`] belongs to a test that failed: it
//!   prints the ends of its nodes' logs.
//!
//! # Environment
//! - `HOLDFAST_BIN`: the program to test; by default `holdfast` in the directory of the build.
//! - `HOLDFAST_SCALE=full`: the full counts and the tight time bounds; else those for CI.
//! - `HOLDFAST_FIGURES`: a file to which [`report`] appends.
//! - `HOLDFAST_SEED`: a number that chooses the same faults and calls again.
//! - `HOLDFAST_KEEP=1`: data directories and logs of a failed test are kept.

mod chaos;
mod cluster;
mod creator;
mod faults;
pub mod http;
pub mod loopfs;
mod node;
pub mod ports;
mod programs;
mod proxy;
pub mod recorder;
pub mod saver;
mod scale;
mod stand_in;
mod wait;

pub use chaos::{Chaos, Kill};
pub use cluster::{Cluster, Options};
pub use creator::CreatorProcess;
pub use faults::Faults;
pub use holdfast_network::Network;
pub use node::{Ended, NodeProcess, serve_until_end};
pub use programs::{creator, holdfast, saver, stand_in};
pub use proxy::{Flow, Proxy};
pub use recorder::{Record, Recorder, boot_us, micros};
pub use scale::{Percentiles, bound, is_full, millis, report, scale};
pub use stand_in::{Event, StandIn, StandInOptions};
pub use wait::wait_for;

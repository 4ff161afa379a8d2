//! Whole clusters in one process, driven from a seed: compiled only with the cargo feature `sim`,
//! which no program is built with.
//!
//! What runs is the real node (consensus, proposer, leadership, expiry, reads, watches, state
//! machine) on a simulated runtime (`runtime::simulated`), a simulated network
//! (`raft/simulated_network.rs`, [`World`]) and a simulated disk (`disk`, in the place of `store`).
//! What does not run is what faces outward: sockets, gRPC, identity, sled.
//!
//! Invariant: the same seed and the same doings give the same [`World::trace`].

mod disk;
mod links;
mod world;

/// In the place of `crate::store`.
pub(crate) mod store {
    pub(crate) use super::disk::{
        Building, DataDir, LogStart, LogStore, Pin, Pins, Row, RowChange, StateStore, StoreError,
        sync,
    };
}

pub use holdfast_machine::plant::{self, Plant};
pub use world::{CallFailed, Lead, Seen, Watching, World};

use std::future::Future;
use std::time::Duration;

use openraft::AsyncRuntime as _;

use crate::runtime;

/// Runs a simulation to its end on this thread; everything random in it comes from the seed.
///
/// # Panics
/// If `main` does, or if nothing can ever happen again.
pub fn run<F: Future>(seed: u64, main: F) -> F::Output {
    runtime::Base::with_seed(seed).block_on(main)
}

/// Starts a task that belongs to no node.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(runtime::spawn_outside(future));
}

/// Waits, by the clock of the simulation.
pub async fn sleep(duration: Duration) {
    runtime::sleep(duration).await;
}

/// How long the simulation has run.
#[must_use]
pub fn now() -> Duration {
    runtime::since_start()
}

//! Whole clusters simulated from a seed: the real node code on a simulated runtime, network and disk
//! (`holdfast_node::sim`), clients and faults around it, and what must hold in each run.
//!
//! # The model
//! `Plan` says what a run is like; the seed decides it, and everything else. `run` forms a
//! cluster, lets clients loose on it (`clients`) while the nemesis breaks things (`nemesis`),
//! heals everything, and waits for quiet. What clients and watchers saw is the `History`, by the
//! clock of the simulation, which no node knows. Then each of the `invariants` looks at it.
//!
//! # Invariants
//! - The same seed gives the same run, event by event.
//! - A client says what it knows and no more: an answer that did not come is no answer.
//! - What a plan plants (`Plant`) is compiled only here, and in nothing that is shipped.
#![cfg(feature = "sim")]

pub mod clients;
mod history;
pub mod invariants;
pub mod nemesis;
mod plan;
mod run;
/// As of the tests of real processes.
#[path = "../../src/scale.rs"]
pub mod scale;

pub use history::{Answer, Call, Ended, History, LeadSeen, Read, Segment};
pub use holdfast_node::sim::Plant;
pub use invariants::{Invariant, Violation};
pub use plan::Plan;
pub use run::{Counts, LOOK_EVERY, Outcome, run};

//! Checks recorded histories: what clients asked of a cluster, what they were told, and when,
//! against what Holdfast promises.
//!
//! # The model
//! A recorder (not here) notes every call of every client with the moment before it was sent and
//! the moment its answer was there, all on one clock. A history is good if the calls could have
//! been carried out one at a time, each at some moment between its two, with just these answers.
//! What became of a call without an answer is not known: it may have taken effect at any moment
//! after it began, or never.
//!
//! # Invariants
//! - Nothing here reads a clock, files, or anything but its arguments.
//! - A history that a correct cluster can bring about is never called broken.
//! - A check that runs out of its budget says [`Error::Undecided`], which is an error: "not shown
//!   to be wrong" is never taken for "right".
//!
//! # Where things are
//! `call` what a recorder notes of state calls · `key` what one key does (S1–S4) · `linear` the
//! search for an order in which all calls on a key fit · `revisions` revisions against real time ·
//! `tenures` leases, claims and fences · `streams` watches · `error` which rule was broken.
//!
//! It leaves out: order between keys, other than by revisions. Linearizability is local (Herlihy
//! and Wing, *Linearizability: a correctness condition for concurrent objects*, 1990, theorem 1):
//! if each key is linearizable, all are together.

#![forbid(unsafe_code)]

mod call;
mod error;
mod key;
mod linear;
mod revisions;
mod streams;
mod tenures;

pub use call::{Answer, Call, Held, Op, Outcome, Value};
pub use error::{Error, Rule};
pub use key::Key;
pub use linear::{STEPS_MAX, check_key, check_keys};
pub use revisions::check_revisions;
pub use streams::{Event, Stream, check_streams};
pub use tenures::{FencedWrite, Sighting, Tenure, check_fences, check_sightings, check_tenures};

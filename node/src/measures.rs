//! What is counted where it happens; everything else that metrics show is read when they are asked
//! for.

use std::time::Duration;

use holdfast_machine::Response;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::node::WriteFailed;
use crate::read::ReadFailed;

/// The label `outcome`.
pub(crate) type Outcome = [(&'static str, &'static str); 1];

/// Writes, by what their callers were told.
const APPLIED: Outcome = [("outcome", "applied")];
const REFUSED: Outcome = [("outcome", "refused")];
const NOT_APPLIED: Outcome = [("outcome", "not_applied")];
const UNKNOWN: Outcome = [("outcome", "unknown")];
/// Reads, by how they ended.
const LINEARIZABLE: Outcome = [("outcome", "linearizable")];
const LOCAL: Outcome = [("outcome", "local")];
const FAILED: Outcome = [("outcome", "failed")];

/// The counts of one node; clones share them.
#[derive(Clone)]
pub(crate) struct Measures {
    pub(crate) writes: Family<Outcome, Counter>,
    pub(crate) write_seconds: Histogram,
    pub(crate) reads: Family<Outcome, Counter>,
}

impl Default for Measures {
    fn default() -> Measures {
        let measures = Measures {
            writes: Family::default(),
            // Half a millisecond to 16 s: from one sync to a call that waited for an election.
            write_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            reads: Family::default(),
        };
        // Shown from the start, so that the first one of a kind is a step from 0.
        for outcome in [APPLIED, REFUSED, NOT_APPLIED, UNKNOWN] {
            drop(measures.writes.get_or_create(&outcome));
        }
        for outcome in [LINEARIZABLE, LOCAL, FAILED] {
            drop(measures.reads.get_or_create(&outcome));
        }
        measures
    }
}

impl Measures {
    pub(crate) fn wrote(&self, written: &Result<Response, WriteFailed>, took: Duration) {
        let outcome = match written {
            Ok(response) if response.outcome.is_ok() => APPLIED,
            Ok(_) => REFUSED,
            Err(WriteFailed::NotApplied { .. }) => NOT_APPLIED,
            Err(WriteFailed::Unknown(_)) => UNKNOWN,
        };
        self.writes.get_or_create(&outcome).inc();
        self.write_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn read<T>(&self, read: &Result<T, ReadFailed>, local: bool) {
        let outcome = match read {
            Ok(_) if local => LOCAL,
            Ok(_) => LINEARIZABLE,
            Err(_) => FAILED,
        };
        self.reads.get_or_create(&outcome).inc();
    }
}

//! What the log's group commit does, for metrics.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// How long syncs take, and how much each makes durable; clones share the numbers.
#[derive(Clone, Debug)]
pub struct GroupCommits {
    /// The time of one sync, in seconds.
    pub sync_seconds: Histogram,
    /// Entries that one sync made durable; 0 where only a vote or a truncation waited for it.
    pub sync_entries: Histogram,
}

impl Default for GroupCommits {
    fn default() -> Self {
        Self {
            // 100 µs is a fast NVMe, 3.3 s a disk that is about to fail.
            sync_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            sync_entries: Histogram::new(
                [0.0].into_iter().chain(exponential_buckets(1.0, 2.0, 11)),
            ),
        }
    }
}

impl GroupCommits {
    pub(super) fn observe(&self, entries: usize, took: Duration) {
        self.sync_seconds.observe(took.as_secs_f64());
        // Exact: a group never has 2^53 entries.
        self.sync_entries.observe(entries as f64);
    }
}

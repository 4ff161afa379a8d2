//! How much of the log this node keeps (N3, G9).
//!
//! A snapshot is due after so many entries (openraft's own policy) or so many bytes; behind it so
//! many entries are kept, or bytes, whichever is less, for nodes that were away for a moment. What
//! a node needs that is taking in a snapshot is kept longer; see [`Transfers`].
//!
//! openraft's own purging counts entries alone and knows no such holds, so it is switched off. Nor is the
//! snapshot that it knows of always on disk: a node that starts has applied the log again before it asks
//! for one.
//!
//! Invariant: nothing is purged that is not in the durable state.

use std::collections::VecDeque;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use crate::raft::transfers::Transfers;
use crate::raft::types::{LogId, Raft};
use crate::runtime;
use crate::store::{LogStore, StateStore};

/// How often it is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How large the log behind the newest snapshot may become before another one is taken, and how
/// much of it is kept behind a snapshot.
const LOG_BYTES_MAX: u64 = 128 << 20;
/// How finely bytes are told apart.
const MARK_BYTES: u64 = 1 << 20;

/// Runs for the node's life.
pub(crate) async fn run(
    raft: Raft,
    log: LogStore,
    state: StateStore,
    transfers: Transfers,
    keep_entries: u64,
) {
    let metrics = raft.metrics();
    let mut trim = Trim::new(keep_entries);
    loop {
        runtime::sleep(LOOK_EVERY).await;
        let metrics = metrics.borrow_watched().clone();
        let index = |id: Option<LogId>| id.map(|id| id.index);
        let Some(last) = metrics.last_log_index else { continue };
        trim.note(last, log.appended_bytes());
        let snapshot = index(metrics.snapshot);
        if trim.is_snapshot_due(snapshot) && raft.trigger().snapshot().await.is_err() {
            return;
        }
        let durable = durable(snapshot, state.synced_index());
        let Some(purgeable) = durable.and_then(|durable| trim.purgeable(durable)) else {
            continue;
        };
        let hold = if let Some(matched) = metrics.replication {
            let matched = matched.into_iter().map(|(node, id)| (node, index(id))).collect();
            transfers.hold(runtime::now(), &matched, purgeable)
        } else {
            // It does not lead.
            transfers.clear();
            None
        };
        let upto = hold.map_or(purgeable, |hold| hold.min(purgeable));
        // An error means that consensus has stopped.
        if index(metrics.purged) < Some(upto) && raft.trigger().purge_log(upto).await.is_err() {
            return;
        }
    }
}

/// The index up to which the state is on disk, and so is the snapshot; none if nothing is.
fn durable(snapshot: Option<u64>, synced: u64) -> Option<u64> {
    snapshot.filter(|_| synced > 0).map(|snapshot| snapshot.min(synced))
}

/// Knows how many bytes the log has had up to which index, roughly.
struct Trim {
    keep_entries: u64,
    /// Indexes, and how many bytes had been appended when the log ended there; in order.
    marks: VecDeque<(u64, u64)>,
    appended: u64,
}

impl Trim {
    fn new(keep_entries: u64) -> Trim {
        Trim { keep_entries, marks: VecDeque::new(), appended: 0 }
    }

    /// Notes where the log ends, and how many bytes were appended to it since the start.
    fn note(&mut self, last: u64, appended: u64) {
        self.appended = appended;
        // What another leader has cut off is no part of the log.
        while self.marks.back().is_some_and(|(marked, _)| *marked > last) {
            self.marks.pop_back();
        }
        let since = self.marks.back().map(|(_, bytes)| appended - bytes);
        if since.is_none_or(|since| since >= MARK_BYTES) {
            self.marks.push_back((last, appended));
        }
    }

    /// Whether the log has become long since this snapshot.
    fn is_snapshot_due(&self, snapshot: Option<u64>) -> bool {
        let at = snapshot.map_or(0, |snapshot| self.bytes_at(snapshot));
        self.appended - at >= LOG_BYTES_MAX
    }

    /// The index up to which nothing is kept behind a snapshot; none if all is.
    fn purgeable(&mut self, snapshot: u64) -> Option<u64> {
        let beyond_entries = snapshot.checked_sub(self.keep_entries);
        let at = self.bytes_at(snapshot);
        let is_beyond = |(_, bytes): &&(u64, u64)| at - bytes.min(&at) >= LOG_BYTES_MAX;
        let beyond_bytes = self.marks.iter().take_while(is_beyond).last().map(|(index, _)| *index);
        let upto = beyond_entries.max(beyond_bytes).map(|upto| upto.min(snapshot));
        // One mark below what is kept says how many bytes had been appended there.
        let forget = |marks: &VecDeque<(u64, u64)>| marks.get(1).is_some_and(|m| Some(m.0) < upto);
        while forget(&self.marks) {
            self.marks.pop_front();
        }
        upto
    }

    /// How many bytes had been appended at an index, at most.
    fn bytes_at(&self, index: u64) -> u64 {
        let below = self.marks.iter().take_while(|(marked, _)| *marked <= index);
        below.last().or(self.marks.front()).map_or(0, |(_, bytes)| *bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of entries of this size each, looked at now and then.
    fn log(entries: u64, entry_bytes: u64, keep_entries: u64) -> Trim {
        let mut trim = Trim::new(keep_entries);
        for last in (0..=entries).step_by(10) {
            trim.note(last, last * entry_bytes);
        }
        trim
    }

    // G9
    #[test]
    fn small_entries_are_kept_by_number() {
        let mut trim = log(100_000, 100, 10_000);
        assert!(!trim.is_snapshot_due(None));
        assert_eq!(trim.purgeable(50_000), Some(40_000));
        assert_eq!(trim.purgeable(10_000), Some(0));
        assert_eq!(trim.purgeable(9_999), None);
    }

    // G9
    #[test]
    fn large_entries_are_kept_by_bytes() {
        let entry_bytes = 1 << 20;
        let most = LOG_BYTES_MAX / entry_bytes;
        let mut trim = log(10 * most, entry_bytes, 10_000);
        assert!(trim.is_snapshot_due(Some(9 * most)));
        assert!(!trim.is_snapshot_due(Some(10 * most - 10)));
        let upto = trim.purgeable(9 * most).expect("more than is kept");
        assert!((8 * most - 10..=8 * most).contains(&upto), "{upto}");
        assert!(trim.marks[0].0 <= upto && trim.marks[1].0 >= upto, "the others are forgotten");
        assert_eq!(trim.purgeable(9 * most), Some(upto), "which changes no answer");
        assert!(trim.is_snapshot_due(Some(9 * most)));
    }

    // A node that had been started with much to apply again purged it all, and could not be started once
    // more after a crash.
    #[test]
    fn nothing_counts_as_a_snapshot_that_is_not_on_disk() {
        assert_eq!(durable(None, 900), None);
        assert_eq!(durable(Some(800), 900), Some(800));
        assert_eq!(durable(Some(900), 800), Some(800));
        assert_eq!(durable(Some(900), 0), None);
    }

    #[test]
    fn marks_end_where_the_log_was_cut_off() {
        let mut trim = log(1_000, MARK_BYTES, 10_000);
        trim.note(500, 1_001 * MARK_BYTES);
        assert!(trim.marks.iter().is_sorted(), "{:?}", trim.marks);
        assert_eq!(trim.bytes_at(500), 1_001 * MARK_BYTES);
    }

    #[test]
    fn a_log_that_was_there_before_the_start_counts_from_the_start() {
        let mut trim = Trim::new(1_000);
        trim.note(70_000, 0);
        assert!(!trim.is_snapshot_due(Some(60_000)));
        assert_eq!(trim.purgeable(60_000), Some(59_000));
        trim.note(70_010, LOG_BYTES_MAX);
        assert!(trim.is_snapshot_due(Some(60_000)));
    }
}

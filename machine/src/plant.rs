//! Defects that the simulation plants on purpose, to see each caught. Compiled only with the feature
//! `plant`, which no program is built with.
#![expect(clippy::disallowed_types, reason = "which defect is planted is no part of any state")]

use std::cell::Cell;

use crate::digest::Digest;
use crate::header::Header;

/// A defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The log says that a write is durable before it has been synced.
    AcknowledgeBeforeSync,
    /// A leader answers reads without asking a quorum whether it still leads.
    ReadWithoutQuorum,
    /// Some revisions never come to those who watch.
    SkipEvent,
    /// A write under any fence is accepted.
    FenceNotChecked,
    /// A release under any token frees the change source.
    ReleaseUnchecked,
    /// The revision rises once an entry.
    RevisionPerEntry,
    /// A lease is over when something has cleared its row away, not when its time is.
    ExpireByPresence,
    /// A renewal of a lease that is over is answered as if it were not.
    RenewEnded,
    /// The fence of a claim stays for some grants.
    FenceKept,
    /// Snapshots leave out what makes writes exactly-once.
    SnapshotWithoutOutcomes,
    /// What is staged is seen before its upload is committed.
    StagedIsSeen,
    /// Of a transaction's comparisons only the first one counts.
    OnlyFirstCompared,
}

thread_local! {
    static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
    /// The revision at which the entry began that is being applied.
    static ENTRY_BEGAN: Cell<u64> = const { Cell::new(0) };
}

/// Plants a defect in everything that runs on this thread, or with None none.
pub fn set(plant: Option<Plant>) {
    PLANTED.set(plant);
}

/// Whether this defect is planted.
#[must_use]
pub fn is(plant: Plant) -> bool {
    PLANTED.get() == Some(plant)
}

pub(crate) fn begin_entry(revision: u64) {
    ENTRY_BEGAN.set(revision);
}

/// Whether a step raises the revision.
pub(crate) fn raises(revision: u64) -> bool {
    !is(Plant::RevisionPerEntry) || revision == ENTRY_BEGAN.get()
}

/// A header that goes with rows from which some were left out.
pub(crate) fn with_digest(header: Header, computed: Digest) -> Header {
    if is(Plant::SnapshotWithoutOutcomes) { Header { digest: computed, ..header } } else { header }
}

/// When the rows of a lease with this deadline are cleared away.
pub(crate) fn cleared_at(deadline_ms: u64) -> u64 {
    if is(Plant::ExpireByPresence) { deadline_ms + 1500 } else { deadline_ms }
}

/// The token of a grant at this revision.
pub(crate) fn token(revision: u64) -> u64 {
    if is(Plant::FenceKept) { revision - revision % 100 } else { revision }
}

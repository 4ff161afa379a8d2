//! Watching: a cursor into what was applied lately, and the wait for more.
//!
//! Invariants:
//! - A watch hands out every change behind its cursor, in order, each once, and all of one revision
//!   together; its cursor never falls.
//! - It waits for nobody and keeps nothing: whoever is slower than the history is told so.

use std::sync::Arc;
use std::time::Duration;

use crate::raft::history::Run;
use crate::raft::machine::Applied;
use crate::runtime::{self, watch};

/// About how much one step hands out, in bytes: enough to make good use of a frame, and little
/// enough that a thousand watchers that all are behind fit into memory.
const STEP_BYTES_MAX: usize = 256 << 10;

/// Where one reader is.
pub(crate) struct Watch {
    applied: Arc<Applied>,
    newest: watch::Receiver<u64>,
    /// Everything up to here was handed out.
    cursor: u64,
}

/// What a watch comes upon next.
pub(crate) enum Step {
    /// More changes.
    Changes(Run),
    /// None within the time asked for; everything up to the watch's cursor was handed out.
    Idle,
    /// Changes behind the cursor are forgotten; `oldest` is the first revision from which all are
    /// remembered.
    Compacted { oldest: u64 },
    /// The node stops.
    Stopping,
}

impl Watch {
    /// Begins behind `cursor`.
    pub(crate) fn new(applied: &Arc<Applied>, cursor: u64) -> Watch {
        Watch { applied: Arc::clone(applied), newest: applied.watch_revision(), cursor }
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next changes, as soon as there are any.
    pub(crate) async fn next(&mut self, idle: Duration) -> Step {
        let deadline = runtime::now() + idle;
        loop {
            // Before looking: what comes after that look wakes this watch again.
            self.newest.mark_unchanged();
            match self.applied.changes_behind(self.cursor, STEP_BYTES_MAX) {
                Err(oldest) => return Step::Compacted { oldest },
                Ok(run) => {
                    self.cursor = self.cursor.max(run.through);
                    if !run.revisions.is_empty() {
                        return Step::Changes(run);
                    }
                }
            }
            match runtime::until(deadline, self.newest.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Step::Stopping,
                None => return Step::Idle,
            }
        }
    }
}

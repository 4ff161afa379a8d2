//! Whether this node can serve linearizable calls now, as far as it knows, and why not.
//!
//! The model: a leader is ready while a quorum answers it, a follower or learner while it hears
//! the leader that it would send calls to. Both are looked at over one election time-out: by then
//! somebody else may lead.

use std::fmt;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;

use crate::leadership::Leader;
use crate::node::Node;

/// Who carries out what this node is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) leader: u64,
    pub(crate) term: u64,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{} leads in term {}", self.leader, self.term)
    }
}

/// Why nothing linearizable can be had here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    #[error("no leader is known in term {term}")]
    NoLeader { term: u64 },
    #[error("the leader, n{leader}, was not heard for {limit_ms} ms")]
    Silent { leader: u64, limit_ms: u64 },
    #[error("this node leads, and no quorum has answered it for {limit_ms} ms")]
    NoQuorum { limit_ms: u64 },
    #[error("{0}")]
    WritesRefused(String),
    #[error("this node stops: {0}")]
    Stopping(String),
}

impl Node {
    /// Whether this node can serve linearizable calls now.
    pub(crate) fn readiness(&self) -> Result<Ready, NotReady> {
        if let Some(reason) = self.stop_reason.borrow().clone() {
            return Err(NotReady::Stopping(reason));
        }
        if let Some(reason) = self.alarms.refuses_writes() {
            return Err(NotReady::WritesRefused(reason));
        }
        let lead = self.lead.borrow().clone();
        let limit_ms = self.config.election_max_ms;
        let in_touch = self.is_in_touch(Duration::from_millis(limit_ms));
        let term = lead.term;
        match lead.leader {
            Leader::None => Err(NotReady::NoLeader { term }),
            Leader::Me(_) if !in_touch => Err(NotReady::NoQuorum { limit_ms }),
            Leader::Other(leader) if !in_touch => Err(NotReady::Silent { leader, limit_ms }),
            Leader::Me(_) => Ok(Ready { leader: self.peers.own().node_id, term }),
            Leader::Other(leader) => Ok(Ready { leader, term }),
        }
    }

    /// Whether this node led a quorum, or heard from a leader, not longer ago than this.
    pub(crate) fn is_in_touch(&self, recent: Duration) -> bool {
        match self.lead.borrow().leader {
            Leader::None | Leader::Other(_) => {
                self.pace.silence().is_some_and(|silence| silence <= recent)
            }
            Leader::Me(_) => {
                let alone = self.raft.voter_ids().count() == 1;
                let metrics = self.raft.data_metrics();
                let acked = metrics.borrow_watched().last_quorum_acked;
                alone || acked.is_some_and(|acked| acked.elapsed() <= recent)
            }
        }
    }
}

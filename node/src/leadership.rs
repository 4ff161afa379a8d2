//! Who leads, as this node knows it.
//!
//! The model: a term has at most one leader. A node that leads takes calls only after the entry
//! that opened its term is applied here (the *epoch* exists from then on): before that its state
//! may lack writes that the previous leader acknowledged. The epoch carries the cluster clock:
//! the state's clock at that moment plus the monotonic time since. A leader that falls silent is
//! not known any more after one election time-out, so that calls are held, not sent into the void.
//!
//! Invariant: an epoch is used for proposals of its own term only; each proposal names the term.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use crate::raft::machine::Applied;
use crate::raft::types::Raft;
use crate::runtime::{self, Instant, Pace, watch};

/// How often a node whose leader is silent looks whether it was heard again: a heartbeat.
const SILENT_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Timers are no finer: a look that is to come after a time comes this much later.
const FINEST: Duration = Duration::from_millis(1);

/// What one node knows of the lead.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    /// The term that this node is in.
    pub(crate) term: u64,
    pub(crate) leader: Leader,
}

#[derive(Clone, Debug)]
pub(crate) enum Leader {
    /// Nobody, or nobody heard of lately; also this node between winning and being ready.
    None,
    /// This node, ready to take calls.
    Me(Arc<Epoch>),
    /// Another node.
    Other(u64),
}

/// One node's time as the ready leader of one term.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) term: u64,
    clock_base_ms: u64,
    since: Instant,
    /// Wall-clock time at which it began, milliseconds since 1970; display only.
    pub(crate) since_unix_ms: u64,
}

impl Epoch {
    /// The cluster clock now, in milliseconds.
    pub(crate) fn clock_ms(&self) -> u64 {
        let elapsed = self.since.elapsed().as_millis();
        self.clock_base_ms + u64::try_from(elapsed).expect("an epoch lasts less than 2^64 ms")
    }

    /// How long until the cluster clock shows `clock_ms`; zero if it does already.
    pub(crate) fn until(&self, clock_ms: u64) -> std::time::Duration {
        std::time::Duration::from_millis(clock_ms.saturating_sub(self.clock_ms()))
    }
}

/// Starts following raft; the receiver always holds the newest knowledge.
///
/// A leader that was not heard for `silence_max_ms` is not known any more: without a quorum that would
/// elect another one, raft itself would name it for ever.
pub(crate) fn follow(
    raft: &Raft,
    applied: &Arc<Applied>,
    pace: &Arc<Pace>,
    silence_max_ms: u64,
    tasks: &runtime::Tasks,
) -> watch::Receiver<Lead> {
    let (sender, receiver) = watch::channel(Lead { term: 0, leader: Leader::None });
    let mut metrics = raft.server_metrics();
    let id = *raft.node_id();
    let silence_max = Duration::from_millis(silence_max_ms);
    let (applied, pace) = (Arc::clone(applied), Arc::clone(pace));
    let mut applied_index = applied.watch();
    tasks.spawn(async move {
        loop {
            let (term, learned) = {
                let metrics = metrics.borrow_watched();
                let term = metrics.vote.leader_id.term;
                let silence = pace.silence();
                let is_silent = silence.is_none_or(|silence| silence > silence_max);
                let learned = match metrics.current_leader {
                    _ if metrics.state.is_leader() => lead_myself(&sender.borrow(), term, &applied),
                    Some(other) if other != id && is_silent => Learned::Silent,
                    Some(other) if other != id => {
                        let left = silence_max.saturating_sub(silence.unwrap_or_default());
                        Learned::Other { leader: other, left }
                    }
                    Some(_) | None => Learned::Nobody,
                };
                (term, learned)
            };
            let leader = match &learned {
                Learned::Me(epoch) => Leader::Me(Arc::clone(epoch)),
                Learned::Other { leader, .. } => Leader::Other(*leader),
                Learned::NotReady | Learned::Silent | Learned::Nobody => Leader::None,
            };
            announce(&sender, id, Lead { term, leader });
            let look_again = async {
                match learned {
                    Learned::Me(_) | Learned::Nobody => std::future::pending().await,
                    Learned::Other { left, .. } => runtime::sleep(left + FINEST).await,
                    Learned::Silent => runtime::sleep(SILENT_LOOK_EVERY).await,
                    // An error means that the node stops, and this task with it.
                    Learned::NotReady => drop(applied_index.changed().await),
                }
            };
            runtime::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                () = look_again => {}
            }
        }
    });
    receiver
}

/// What a look at raft has shown.
enum Learned {
    Me(Arc<Epoch>),
    /// This node has won its term, and has not applied the entry that opens it.
    NotReady,
    /// Another node leads, and was heard; without another word it is silent once this has passed.
    Other {
        leader: u64,
        left: Duration,
    },
    /// Raft names another node that was not heard for too long.
    Silent,
    Nobody,
}

fn lead_myself(before: &Lead, term: u64, applied: &Applied) -> Learned {
    if let Leader::Me(epoch) = &before.leader
        && epoch.term == term
    {
        return Learned::Me(Arc::clone(epoch));
    }
    let state = applied.state();
    if state.header().applied.is_none_or(|position| position.term != term) {
        return Learned::NotReady;
    }
    Learned::Me(Arc::new(Epoch {
        term,
        clock_base_ms: state.header().clock_ms,
        since: runtime::now(),
        since_unix_ms: runtime::wall_ms(),
    }))
}

/// Publishes what changed, and logs one line for each change of the leader.
fn announce(sender: &watch::Sender<Lead>, id: u64, lead: Lead) {
    let before = sender.borrow().clone();
    let same_leader = match (&before.leader, &lead.leader) {
        (Leader::None, Leader::None) => true,
        (Leader::Me(old), Leader::Me(new)) => old.term == new.term,
        (Leader::Other(old), Leader::Other(new)) => old == new,
        (Leader::None | Leader::Me(_) | Leader::Other(_), _) => false,
    };
    if same_leader && before.term == lead.term {
        return;
    }
    if !same_leader {
        match &lead.leader {
            Leader::Me(epoch) => tracing::info!(term = epoch.term, "n{id} leads"),
            Leader::Other(other) => tracing::info!(term = lead.term, "n{other} leads"),
            Leader::None => tracing::info!(term = lead.term, "no leader"),
        }
    }
    sender.send_replace(lead);
}

//! Who leads, as this node knows it.
//!
//! The model: a term has at most one leader. A node that leads takes calls only after the entry
//! that opened its term is applied here (the *epoch* exists from then on): before that its state
//! may lack writes that the previous leader acknowledged. The epoch carries the cluster clock:
//! the state's clock at that moment plus the monotonic time since.
//!
//! Invariant: an epoch is used for proposals of its own term only; each proposal names the term.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;

use crate::raft::machine::Applied;
use crate::raft::types::Raft;
use crate::runtime::{self, Instant};

/// What one node knows of the lead.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    /// The term that this node is in.
    pub(crate) term: u64,
    pub(crate) leader: Leader,
}

#[derive(Clone, Debug)]
pub(crate) enum Leader {
    /// Nobody, or nobody known; also this node between winning and being ready.
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

/// Wall-clock time in milliseconds since 1970, for display only.
pub(crate) fn wall_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// Starts following raft; the receiver always holds the newest knowledge.
pub(crate) fn follow(
    raft: &Raft,
    applied: Arc<Applied>,
    tasks: &runtime::Tasks,
) -> watch::Receiver<Lead> {
    let (sender, receiver) = watch::channel(Lead { term: 0, leader: Leader::None });
    let mut metrics = raft.server_metrics();
    let id = *raft.node_id();
    let mut applied_index = applied.watch();
    tasks.spawn(async move {
        loop {
            let lead = {
                let metrics = metrics.borrow_watched();
                let led_by_me = metrics.state.is_leader();
                let term = metrics.vote.leader_id.term;
                let leader = metrics.current_leader;
                learn(&sender.borrow(), id, term, led_by_me, leader, &applied)
            };
            let waits_for_ready = matches!(&lead, Learned::NotReady);
            if let Learned::Lead(lead) = lead {
                announce(&sender, id, lead);
            } else if let Learned::NotReady = lead {
                let term = metrics.borrow_watched().vote.leader_id.term;
                announce(&sender, id, Lead { term, leader: Leader::None });
            }
            let changed = async {
                if waits_for_ready {
                    tokio::select! {
                        result = metrics.changed() => result.is_ok(),
                        result = applied_index.changed() => result.is_ok(),
                    }
                } else {
                    metrics.changed().await.is_ok()
                }
            };
            if !changed.await {
                return;
            }
        }
    });
    receiver
}

enum Learned {
    Lead(Lead),
    /// This node has won its term, and has not applied the entry that opens it.
    NotReady,
}

fn learn(
    before: &Lead,
    id: u64,
    term: u64,
    led_by_me: bool,
    leader: Option<u64>,
    applied: &Applied,
) -> Learned {
    if !led_by_me {
        let leader = match leader {
            Some(other) if other != id => Leader::Other(other),
            Some(_) | None => Leader::None,
        };
        return Learned::Lead(Lead { term, leader });
    }
    if let Leader::Me(epoch) = &before.leader
        && epoch.term == term
    {
        return Learned::Lead(before.clone());
    }
    let state = applied.state();
    if state.header().applied.is_none_or(|position| position.term != term) {
        return Learned::NotReady;
    }
    let epoch = Epoch {
        term,
        clock_base_ms: state.header().clock_ms,
        since: runtime::now(),
        since_unix_ms: wall_ms(),
    };
    Learned::Lead(Lead { term, leader: Leader::Me(Arc::new(epoch)) })
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

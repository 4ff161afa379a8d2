//! Linearizable reads: ReadIndex (Raft dissertation, section 6.4), one for all reads that wait.
//!
//! The model: a read joins the waiting ones; a task takes all that wait, asks the leader (itself,
//! or over the wire) up to which index a quorum-confirmed leader has committed, waits until this
//! node has applied that much, and lets them go. Whoever arrives meanwhile takes part in the next
//! round: a round never serves a read that began after it.
//!
//! There is no lease read: a restarted voter votes at once, so a leader's lease promises nothing.

use std::sync::Arc;
use std::time::Duration;

use holdfast_machine::State;
#[cfg(feature = "sim")]
use holdfast_machine::plant::{self, Plant};
use openraft::ReadPolicy;
use tokio::sync::{mpsc, oneshot};

use crate::leadership::{Lead, Leader};
use crate::raft::machine::Applied;
use crate::raft::network::Peers;
use crate::raft::types::Raft;
use crate::runtime::{self, Instant, watch};

/// How many reads wait at most; one more is refused as overloaded.
const WAITING_MAX: usize = 16_384;
/// How long one round may take before it is tried again; a leader that lost its quorum never
/// answers. Longer than an election, so that a round is not repeated for nothing.
const ROUND_MAX: Duration = Duration::from_millis(1000);
/// Pause between rounds that failed at once, such as against a leader that has just stepped down.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Why a linearizable read has no answer. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFailed {
    /// No quorum confirmed a leader before the deadline.
    NoLeader,
    Overloaded,
    Stopping,
}

/// The way to a linearizable state.
#[derive(Clone)]
pub(crate) struct Reads {
    confirmer: Confirmer,
    queue: mpsc::Sender<oneshot::Sender<()>>,
}

impl Reads {
    pub(crate) fn start(
        raft: Raft,
        applied: Arc<Applied>,
        lead: watch::Receiver<Lead>,
        peers: Peers,
        tasks: &runtime::Tasks,
    ) -> Reads {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let confirmer = Confirmer { raft, applied };
        tasks.spawn(rounds(confirmer.clone(), lead, peers, waiting));
        Reads { confirmer, queue }
    }

    /// How many reads wait for the next round.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// A state at least as new as every write acknowledged before this call, anywhere.
    pub(crate) async fn linearizable(&self, deadline: Instant) -> Result<State, ReadFailed> {
        let (done, confirmed) = oneshot::channel();
        self.queue.try_send(done).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadFailed::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ReadFailed::Stopping,
        })?;
        match runtime::until(deadline, confirmed).await {
            None => Err(ReadFailed::NoLeader),
            Some(Err(_)) => Err(ReadFailed::Stopping),
            Some(Ok(())) => Ok(self.confirmer.applied.state()),
        }
    }

    /// Confirms that this node leads and has applied whatever was acknowledged before the call.
    pub(crate) async fn barrier_here(&self) -> bool {
        let deadline = runtime::now() + ROUND_MAX;
        self.confirmer.confirm_here(deadline).await
    }

    /// The index that a linearizable read must see, if this node leads and a quorum confirms it.
    pub(crate) async fn read_index(&self, deadline: Instant) -> Option<u64> {
        self.confirmer.read_index(deadline).await
    }
}

/// What a round needs; holds no sender of the queue it drains, so that the queue can close.
#[derive(Clone)]
struct Confirmer {
    raft: Raft,
    applied: Arc<Applied>,
}

async fn rounds(
    confirmer: Confirmer,
    mut lead: watch::Receiver<Lead>,
    peers: Peers,
    mut queue: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, WAITING_MAX).await > 0 {
        loop {
            // Those whose deadline has passed are gone.
            waiting.retain(|done| !done.is_closed());
            if waiting.is_empty() || confirmer.round(&lead, &peers).await {
                break;
            }
            let pause = runtime::sleep(RETRY_PAUSE);
            runtime::select! {
                () = pause => {}
                changed = lead.changed() => if changed.is_err() { return },
            }
        }
        for done in waiting.drain(..) {
            // Gone at its deadline: a read leaves nothing behind.
            let _ = done.send(());
        }
    }
}

impl Confirmer {
    async fn read_index(&self, deadline: Instant) -> Option<u64> {
        #[cfg(feature = "sim")]
        if plant::is(Plant::ReadWithoutQuorum) {
            return Some(crate::raft::machine::applied_index(&self.applied.state()));
        }
        let confirmed = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
        let (read, _applied) = runtime::until(deadline, confirmed).await?.ok()?;
        Some(read.index())
    }

    async fn confirm_here(&self, deadline: Instant) -> bool {
        match self.read_index(deadline).await {
            Some(index) => self.applied.reach(index, deadline).await.is_some(),
            None => false,
        }
    }

    async fn round(&self, lead: &watch::Receiver<Lead>, peers: &Peers) -> bool {
        let deadline = runtime::now() + ROUND_MAX;
        let leader = lead.borrow().leader.clone();
        match leader {
            Leader::None => false,
            Leader::Me(_) => self.confirm_here(deadline).await,
            Leader::Other(id) => match peers.read_index(id, deadline).await {
                Ok(index) => self.applied.reach(index, deadline).await.is_some(),
                Err(_) => false,
            },
        }
    }
}

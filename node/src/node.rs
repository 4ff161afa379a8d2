//! One node, put together: every call of every connector comes through here.
//!
//! The model: a write is tried until its deadline, here or at the leader; a read waits for a
//! quorum to confirm the lead. While there is no leader, calls are held: a client sees the length
//! of the election and nothing more. Repeating a write is safe because it carries its session and
//! seq; what the node cannot find out before the deadline, it reports as unknown.

use std::sync::Arc;
use std::time::Duration;

use holdfast_machine::{Request, Response, State};
use tokio::sync::Semaphore;

use crate::alarm::Alarms;
use crate::config::Config;
use crate::forward::Forwarder;
use crate::leadership::{Lead, Leader};
use crate::measures::Measures;
use crate::places::{Limits, Places};
use crate::propose::{Attempt, Failed, NotProposed, Proposer};
use crate::raft::machine::Applied;
use crate::raft::network::Peers;
use crate::raft::peer::SnapshotCounters;
use crate::raft::types::Raft;
use crate::read::{ReadFailed, Reads};
use crate::room::Room;
use crate::runtime::{self, Instant, Pace, watch};
use crate::store::{DataDir, LogStore, StateStore};

/// How many calls are held at most while there is no leader; one more is refused as overloaded.
/// Enough for 64 connections with their 256 requests each, or for 64 of the longest values.
const HELD: Limits =
    Limits { waiting: "wait for a leader", calls_max: 16_384, bytes_max: 64 << 20 };
/// How many leases are attached to one node at most: each has a task.
const ATTACHED_MAX: usize = 4096;
/// Pause before another try, such as at a leader that is not ready yet; a change of the lead ends
/// it.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Why a write has no answer.
#[derive(Clone, Debug)]
pub(crate) enum WriteFailed {
    /// It was not applied and never will be.
    NotApplied { reason: NotProposed, message: String },
    /// It may have been applied.
    Unknown(String),
}

/// Everything that serves calls.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) raft: Raft,
    pub(crate) applied: Arc<Applied>,
    pub(crate) lead: watch::Receiver<Lead>,
    pub(crate) peers: Peers,
    pub(crate) proposer: Proposer,
    pub(crate) forwarder: Forwarder,
    pub(crate) reads: Reads,
    pub(crate) snapshots: Arc<SnapshotCounters>,
    pub(crate) log: LogStore,
    /// Where the bodies of stored objects are read from.
    pub(crate) store: StateStore,
    pub(crate) held: Places,
    pub(crate) room: Arc<Room>,
    /// One permit for each further lease that may be attached to this node.
    pub(crate) attachable: Arc<Semaphore>,
    /// True from when the node closes its clients' connections: that they break means nothing then.
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) measures: Measures,
    /// Held while the membership changes, also while the change waits for a quorum: that is what
    /// makes it one change at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) alarms: Alarms,
    /// Set once, by whatever makes the node stop by itself.
    pub(crate) stop_reason: watch::Sender<Option<String>>,
    pub(crate) tasks: runtime::Tasks,
    /// Locked for as long as the node lives.
    pub(crate) dir: DataDir,
}

impl Node {
    pub(crate) fn held_calls() -> Places {
        Places::new(HELD)
    }

    pub(crate) fn attachable_leases() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(ATTACHED_MAX))
    }

    /// Makes the node stop, saying why; the first reason stands.
    pub(crate) fn stop_for(&self, reason: String) {
        self.stop_reason.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!("this node stops: {reason}");
                *current = Some(reason);
            }
            first
        });
    }

    /// Carries a write out exactly once, wherever the leader is.
    pub(crate) async fn write(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, WriteFailed> {
        let arrived = runtime::now();
        let written = self.carry_out(request, deadline).await;
        self.measures.wrote(&written, arrived.elapsed());
        written
    }

    async fn carry_out(
        &self,
        mut request: Request,
        deadline: Instant,
    ) -> Result<Response, WriteFailed> {
        if let Err(refusal) = request.validate() {
            let revision = self.applied.state().header().revision;
            return Ok(Response { revision, outcome: Err(refusal) });
        }
        if let Some(alarm) = self.alarms.refuses_writes() {
            return Err(WriteFailed::NotApplied { reason: NotProposed::Stopping, message: alarm });
        }
        let mut unknown: Option<String> = None;
        loop {
            let failed = match self.attempt(&request, deadline).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let given_up = match &failed {
                Failed::NotProposed {
                    reason: NotProposed::Overloaded | NotProposed::NoRoom(_),
                    ..
                } => true,
                Failed::NotProposed { .. } | Failed::Unknown(_) => {
                    let resume = runtime::now() + RETRY_PAUSE;
                    if resume < deadline {
                        let mut lead = self.lead.clone();
                        lead.mark_unchanged();
                        let changed = async {
                            if lead.changed().await.is_err() {
                                // The node stops: nothing changes any more, and the pause is to be one.
                                std::future::pending().await
                            }
                        };
                        // Either way it is time for another try.
                        let _ = runtime::until(resume, changed).await;
                    }
                    resume >= deadline
                }
            };
            if let Failed::Unknown(cause) = &failed {
                unknown = Some(cause.clone());
                if let Some(origin) = &mut request.origin {
                    origin.resent = true;
                }
            }
            if given_up {
                return Err(match (unknown, failed) {
                    (Some(cause), _) | (None, Failed::Unknown(cause)) => {
                        WriteFailed::Unknown(cause)
                    }
                    (None, Failed::NotProposed { reason, message }) => {
                        WriteFailed::NotApplied { reason, message }
                    }
                });
            }
        }
    }

    /// A state at least as new as every acknowledged write, or with `local` whatever is here.
    pub(crate) async fn read(&self, local: bool, deadline: Instant) -> Result<State, ReadFailed> {
        let state = match local {
            true => Ok(self.applied.state()),
            false => self.reads.linearizable(deadline).await,
        };
        self.measures.read(&state, local);
        state
    }

    /// The term and index that a linearizable read at another node must see, or why this node cannot
    /// tell.
    pub(crate) async fn read_index(&self, deadline: Instant) -> Result<(u64, u64), &'static str> {
        // Only a ready leader: before its first entry is applied it does not know what was
        // committed before it.
        let Leader::Me(epoch) = self.lead.borrow().leader.clone() else {
            return Err("this node does not lead");
        };
        let index = self.reads.read_index(deadline).await;
        Ok((epoch.term, index.ok_or("no quorum confirmed the lead")?))
    }

    /// One transmission, at most until the deadline.
    async fn attempt(&self, request: &Request, deadline: Instant) -> Attempt {
        let mut lead = self.lead.clone();
        let Lead { term, leader } = lead.borrow_and_update().clone();
        let attempt = async {
            match leader {
                Leader::None => return self.hold(request, &mut lead, deadline).await,
                Leader::Me(_) => runtime::select! {
                    attempt = self.proposer.propose(request.clone()) => attempt,
                    () = moved_on(&mut lead, term) => Err(left_behind()),
                },
                Leader::Other(id) => runtime::select! {
                    attempt = self.forwarder.forward(id, request, deadline) => attempt,
                    () = moved_on(&mut lead, term) => Err(left_behind()),
                },
            }
        };
        match runtime::until(deadline, attempt).await {
            Some(attempt) => attempt,
            // Holding ends by itself a moment before; what is left may be on its way.
            None => Err(Failed::Unknown("no answer before the deadline".to_owned())),
        }
    }

    /// Waits until something is known about a leader.
    async fn hold(
        &self,
        request: &Request,
        lead: &mut watch::Receiver<Lead>,
        deadline: Instant,
    ) -> Attempt {
        let not_proposed = |reason, message: String| Err(Failed::NotProposed { reason, message });
        let _place = match self.held.take(request.encoded_len_hint()) {
            Ok(place) => place,
            Err(crowded) => return not_proposed(NotProposed::Overloaded, crowded.to_string()),
        };
        let margin = RETRY_PAUSE.min(deadline.saturating_duration_since(runtime::now()) / 2);
        match runtime::until(deadline - margin, lead.changed()).await {
            Some(Err(_)) => not_proposed(NotProposed::Stopping, "this node stops".to_owned()),
            Some(Ok(())) | None => {
                not_proposed(NotProposed::NotLeader, "there is no leader".to_owned())
            }
        }
    }
}

fn left_behind() -> Failed {
    Failed::Unknown("the leader changed while the call was on its way".to_owned())
}

/// Returns once this node is in a later term, or does not lead its own any more.
async fn moved_on(lead: &mut watch::Receiver<Lead>, term: u64) {
    let led = matches!(lead.borrow().leader, Leader::Me(_));
    let moved =
        lead.wait_for(|lead| lead.term > term || (led && !matches!(lead.leader, Leader::Me(_))));
    if moved.await.is_err() {
        // The node stops; the attempt itself then ends.
        std::future::pending().await
    }
}

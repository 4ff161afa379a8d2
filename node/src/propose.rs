//! From client requests to log entries, on the leader.
//!
//! The model: requests wait in one queue; the proposer takes what is there, admits each request
//! against the applied state, packs the admitted ones into one entry, and hands it to raft under
//! the term it was admitted in. While a few entries are on their way, later requests gather, so
//! entries grow with the load: that, not a timer, is what batches.
//!
//! Invariants:
//! - Nothing is admitted before the epoch exists (see [`crate::leadership`]), and a proposal that
//!   finds another term is dead: it was not and never will be applied.
//! - A request that needs no entry (a value equal to the present one, a commit that conflicts) is
//!   answered only behind a read barrier and with no write on its way that it relies on.
//! - No acknowledgement leaves after a sync has failed on this node.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holdfast_machine::{Admission, Entry, Refusal, Request, Response, limits};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::leadership::{Epoch, Lead, Leader};
use crate::places::{Limits, Place, Places};
use crate::raft::machine::Applied;
use crate::raft::types::{Batch, Raft};
use crate::read::Reads;
use crate::room::{Growth, NoRoom, Room};
use crate::runtime::{self, watch};
use crate::store::sync;

/// How many requests wait for the proposer at most; one more is refused as overloaded. Enough for
/// 64 connections with their 256 requests each, or for 256 of the longest values.
const QUEUE: Limits =
    Limits { waiting: "wait to be proposed", calls_max: 16_384, bytes_max: 256 << 20 };
/// How many entries are on their way at most. More would make entries smaller, not calls faster:
/// the log writer syncs whatever is there, and these are there while it syncs.
const ENTRIES_IN_FLIGHT_MAX: usize = 4;

/// Why one transmission of a request has no answer.
#[derive(Clone, Debug)]
pub(crate) enum Failed {
    /// It was not proposed and never will be: another try is free.
    NotProposed { reason: NotProposed, message: String },
    /// It may have been proposed; only the same seq can find out.
    Unknown(String),
}

/// Why a request was not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotProposed {
    NotLeader,
    Overloaded,
    Stopping,
    /// It adds to the state, and there is no room.
    NoRoom(NoRoom),
}

pub(crate) type Attempt = Result<Response, Failed>;

/// Counts for status and metrics.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) entries: AtomicU64,
    pub(crate) requests: AtomicU64,
}

/// The way into the log.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Pending>,
    pub(crate) places: Places,
    pub(crate) counters: Arc<Counters>,
}

struct Pending {
    request: Request,
    /// Until it is part of an entry.
    _place: Place,
    /// Skip the answer that needs no entry: it was tried, and something was in the way.
    through_log: bool,
    answer: oneshot::Sender<Attempt>,
}

impl Proposer {
    pub(crate) fn start(
        raft: &Raft,
        applied: &Arc<Applied>,
        lead: &watch::Receiver<Lead>,
        reads: &Reads,
        room: &Arc<Room>,
        tasks: &runtime::Tasks,
    ) -> Proposer {
        let (queue, waiting) = mpsc::channel(QUEUE.calls_max);
        let counters = Arc::new(Counters::default());
        let worker = Worker {
            raft: raft.clone(),
            applied: Arc::clone(applied),
            lead: lead.clone(),
            reads: reads.clone(),
            room: Arc::clone(room),
            requeue: queue.downgrade(),
            on_their_way: Arc::default(),
            in_flight: Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX)),
            counters: Arc::clone(&counters),
        };
        tasks.spawn(worker.run(waiting));
        Proposer { queue, places: Places::new(QUEUE), counters }
    }

    /// Proposes a request on this node, which leads, and waits for its answer.
    pub(crate) async fn propose(&self, request: Request) -> Attempt {
        let (answer, wait) = oneshot::channel();
        let place = self.places.take(request.encoded_len_hint());
        let place = place.map_err(|crowded| not_proposed(NotProposed::Overloaded, &crowded))?;
        let pending = Pending { request, _place: place, through_log: false, answer };
        // It has room for all places, so this fails only when the node stops.
        let sent = self.queue.try_send(pending);
        sent.map_err(|_| not_proposed(NotProposed::Stopping, &"this node is stopping"))?;
        wait.await.unwrap_or_else(|_| Err(Failed::Unknown("the node stopped".to_owned())))
    }

    /// Proposes an entry without requests: time passes, what is due ends.
    pub(crate) async fn tick(raft: &Raft, epoch: &Epoch) {
        let entry =
            Entry { clock_ms: epoch.clock_ms(), wall_ms: runtime::wall_ms(), requests: Vec::new() };
        let bytes = Bytes::from(entry.encode().expect("an empty entry is far below the limit"));
        let (responder, outcome) = ProgressResponder::complete_only();
        let sent = raft.write(Batch(bytes)).with_leader(epoch.term).responder(responder).await;
        if sent.is_ok() {
            // Whatever the outcome: the next tick follows from the state.
            let _ = outcome.await;
        }
    }
}

type KeysOnTheirWay = Arc<Mutex<HashMap<Vec<u8>, usize>>>;

struct Worker {
    raft: Raft,
    applied: Arc<Applied>,
    lead: watch::Receiver<Lead>,
    reads: Reads,
    room: Arc<Room>,
    requeue: mpsc::WeakSender<Pending>,
    on_their_way: KeysOnTheirWay,
    in_flight: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// An entry in the making, with what its answers need.
#[derive(Default)]
struct Open {
    requests: Vec<Request>,
    answers: Vec<oneshot::Sender<Attempt>>,
    keys: Vec<Vec<u8>>,
    growth: Vec<Growth>,
    bytes: usize,
}

impl Worker {
    async fn run(self, mut queue: mpsc::Receiver<Pending>) {
        let mut next: Option<Pending> = None;
        loop {
            let first = match next.take() {
                Some(pending) => pending,
                None => match queue.recv().await {
                    Some(pending) => pending,
                    None => return,
                },
            };
            let permit = Arc::clone(&self.in_flight).acquire_owned().await;
            let permit = permit.expect("this semaphore is never closed");
            let Leader::Me(epoch) = self.lead.borrow().leader.clone() else {
                reject_all(first, &mut queue);
                continue;
            };
            let mut open = Open::default();
            self.admit(first, &mut open);
            while open.requests.len() < limits::REQUESTS_PER_ENTRY_MAX
                && open.bytes < limits::BATCH_BYTES_MAX
            {
                let Ok(pending) = queue.try_recv() else { break };
                // Only one request of an entry may be large: a second one opens the next entry.
                let bytes = pending.request.encoded_len_hint();
                if !open.requests.is_empty() && open.bytes + bytes > limits::BATCH_BYTES_MAX {
                    next = Some(pending);
                    break;
                }
                self.admit(pending, &mut open);
            }
            if !open.requests.is_empty() {
                self.propose(open, &epoch, permit).await;
            }
        }
    }

    fn admit(&self, mut pending: Pending, open: &mut Open) {
        if pending.answer.is_closed() {
            // The caller has gone; whether it retries is its own affair.
            return;
        }
        let state = self.applied.state();
        match state.admit(&mut pending.request) {
            Admission::Refuse(refusal) => self.answer(pending.answer, Err(refusal)),
            Admission::AnswerNow(response) => {
                // Nobody waits any more: the outcome stays stored for a retry.
                let _ = pending.answer.send(Ok(response));
            }
            Admission::Answer(_) if !pending.through_log => self.answer_behind_barrier(pending),
            Admission::Answer(_) | Admission::Propose => {
                let growth = state.growth(&pending.request);
                match self.room.admit(growth, || self.applied.state().bytes()) {
                    Ok(growth) => open.growth.push(growth),
                    Err(no_room) => {
                        let failed = not_proposed(NotProposed::NoRoom(no_room), &no_room);
                        return fail_all(vec![pending.answer], &failed);
                    }
                }
                let touched = pending.request.touches();
                if !touched.is_empty() {
                    let mut keys = lock(&self.on_their_way);
                    for key in &touched {
                        *keys.entry(key.clone()).or_default() += 1;
                    }
                    open.keys.extend(touched);
                }
                open.bytes += pending.request.encoded_len_hint();
                open.requests.push(pending.request);
                open.answers.push(pending.answer);
            }
        }
    }

    fn answer(
        &self,
        answer: oneshot::Sender<Attempt>,
        outcome: Result<holdfast_machine::Reply, Refusal>,
    ) {
        let revision = self.applied.state().header().revision;
        // Nobody waits any more: a refusal changed nothing.
        let _ = answer.send(Ok(Response { revision, outcome }));
    }

    /// Answers without an entry if the state still says so after a quorum has confirmed the lead
    /// and nothing is on its way that the answer relies on; else the request goes through the log.
    fn answer_behind_barrier(&self, mut pending: Pending) {
        let reads = self.reads.clone();
        let applied = Arc::clone(&self.applied);
        let on_their_way = Arc::clone(&self.on_their_way);
        let requeue = self.requeue.clone();
        let relies_on = pending.request.relies_on();
        runtime::spawn(async move {
            if reads.barrier_here().await {
                let is_quiet = relies_on.is_some_and(|keys| {
                    let on_their_way = lock(&on_their_way);
                    !keys.iter().any(|key| on_their_way.contains_key(key))
                });
                if is_quiet
                    && let Admission::Answer(response) = applied.state().admit(&mut pending.request)
                {
                    // Nobody waits any more: nothing was written.
                    let _ = pending.answer.send(Ok(response));
                    return;
                }
            }
            pending.through_log = true;
            if let Some(queue) = requeue.upgrade() {
                // Gone only when the node stops; the caller then learns that nothing was proposed.
                let _ = queue.send(pending).await;
            }
        });
    }

    async fn propose(&self, open: Open, epoch: &Epoch, permit: OwnedSemaphorePermit) {
        let Open { requests, answers, keys, growth, .. } = open;
        self.counters.entries.fetch_add(1, Ordering::Relaxed);
        self.counters.requests.fetch_add(requests.len() as u64, Ordering::Relaxed);
        let entry = Entry { clock_ms: epoch.clock_ms(), wall_ms: runtime::wall_ms(), requests };
        let bytes = match entry.encode() {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                fail_all(answers, &not_proposed(NotProposed::Overloaded, &error));
                forget(&self.on_their_way, keys);
                return;
            }
        };
        let (responder, outcome) = ProgressResponder::complete_only();
        let sent = self.raft.write(Batch(bytes)).with_leader(epoch.term).responder(responder).await;
        let on_their_way = Arc::clone(&self.on_their_way);
        runtime::spawn(async move {
            let outcome = match sent {
                Ok(()) => outcome.await.map_err(|_| Failed::Unknown("raft stopped".to_owned())),
                Err(fatal) => Err(Failed::Unknown(fatal.to_string())),
            };
            drop((permit, growth));
            forget(&on_their_way, keys);
            let replies = outcome.and_then(|result| {
                result.map(|response| response.data.0).map_err(|error| failed(&error))
            });
            match replies {
                Ok(replies) => acknowledge(answers, replies),
                Err(failed) => fail_all(answers, &failed),
            }
        });
    }
}

fn acknowledge(answers: Vec<oneshot::Sender<Attempt>>, replies: Vec<Response>) {
    if let Some(failure) = sync::failed() {
        fail_all(answers, &Failed::Unknown(format!("a sync failed on this node: {failure}")));
        return;
    }
    assert_eq!(answers.len(), replies.len(), "apply answers each request of an entry");
    for (answer, response) in answers.into_iter().zip(replies) {
        // Nobody waits any more: the outcome stays stored for a retry.
        let _ = answer.send(Ok(response));
    }
}

fn failed(error: &ClientWriteError<crate::raft::types::TypeConfig>) -> Failed {
    match error {
        ClientWriteError::ForwardToLeader(_) => {
            not_proposed(NotProposed::NotLeader, &"this node does not lead any more")
        }
        ClientWriteError::LogEntryDiscarded(_)
        | ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_) => Failed::Unknown(error.to_string()),
    }
}

fn not_proposed(reason: NotProposed, message: &dyn std::fmt::Display) -> Failed {
    Failed::NotProposed { reason, message: message.to_string() }
}

/// Turns away everything that waits: this node does not lead.
fn reject_all(first: Pending, queue: &mut mpsc::Receiver<Pending>) {
    let failed = not_proposed(NotProposed::NotLeader, &"this node does not lead");
    let mut rejected = vec![first.answer];
    while let Ok(pending) = queue.try_recv() {
        rejected.push(pending.answer);
    }
    fail_all(rejected, &failed);
}

fn fail_all(answers: Vec<oneshot::Sender<Attempt>>, failed: &Failed) {
    for answer in answers {
        // Nobody waits any more: the caller has given up and knows that the outcome is open.
        let _ = answer.send(Err(failed.clone()));
    }
}

fn forget(on_their_way: &KeysOnTheirWay, keys: Vec<Vec<u8>>) {
    let mut counts = lock(on_their_way);
    for key in keys {
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&key);
            }
        }
    }
}

fn lock(keys: &KeysOnTheirWay) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, usize>> {
    keys.lock().expect("no code panics while it holds this lock")
}

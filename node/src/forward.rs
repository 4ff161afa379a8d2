//! Client writes on their way from a follower to the leader: one hop, one stream, many at a time.
//!
//! Invariant: a request whose stream broke after it was handed over is *unknown*, whatever the
//! reason; only one that was never handed over is *not proposed*.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use holdfast_machine::{Request, Response};
use holdfast_proto::peer;
use holdfast_proto::peer::forward_response::Outcome;
use tokio::sync::{mpsc, oneshot};

use crate::leadership::Leader;
use crate::node::Node;
use crate::propose::{Attempt, Failed, NotProposed};
use crate::raft::network::{ForwardStream, Peers};
use crate::raft::peer::PeerError;
use crate::runtime::{self, Instant};

/// How many requests wait to be handed over; one more is refused as overloaded.
const QUEUE_MAX: usize = 16_384;
/// How many requests wait for the connection to take them.
const ON_STREAM_MAX: usize = 1024;
/// How long opening the stream may take before the attempt is given up.
const OPEN_MAX: Duration = Duration::from_millis(500);

/// The way to the leader.
#[derive(Clone)]
pub(crate) struct Forwarder {
    queue: mpsc::Sender<Outgoing>,
}

struct Outgoing {
    leader: u64,
    request: Bytes,
    timeout_ms: u64,
    answer: oneshot::Sender<Attempt>,
}

impl Forwarder {
    pub(crate) fn start(peers: Peers, tasks: &runtime::Tasks) -> Forwarder {
        let (queue, outgoing) = mpsc::channel(QUEUE_MAX);
        tasks.spawn(run(peers, outgoing));
        Forwarder { queue }
    }

    /// How many requests wait to be handed over.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Sends a request to the leader and waits for its answer, at most until the deadline.
    pub(crate) async fn forward(
        &self,
        leader: u64,
        request: &Request,
        deadline: Instant,
    ) -> Attempt {
        let encoded = request.encode().map_err(|error| Failed::NotProposed {
            reason: NotProposed::Overloaded,
            message: error.to_string(),
        })?;
        let timeout = deadline.saturating_duration_since(runtime::now());
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let (answer, wait) = oneshot::channel();
        let outgoing = Outgoing { leader, request: Bytes::from(encoded), timeout_ms, answer };
        self.queue.try_send(outgoing).map_err(|error| Failed::NotProposed {
            reason: match error {
                mpsc::error::TrySendError::Full(_) => NotProposed::Overloaded,
                mpsc::error::TrySendError::Closed(_) => NotProposed::Stopping,
            },
            message: format!("{QUEUE_MAX} requests wait already, or this node is stopping"),
        })?;
        wait.await.unwrap_or_else(|_| Err(Failed::Unknown("the node stopped".to_owned())))
    }
}

/// An open stream with what it owes.
struct Link {
    leader: u64,
    requests: mpsc::Sender<peer::ForwardRequest>,
    answers: ForwardStream,
    owed: BTreeMap<u64, oneshot::Sender<Attempt>>,
}

async fn run(peers: Peers, mut queue: mpsc::Receiver<Outgoing>) {
    let mut link: Option<Link> = None;
    let mut next_id = 0_u64;
    loop {
        let step = match &mut link {
            None => Step::Send(queue.recv().await),
            Some(link) => runtime::select! {
                outgoing = queue.recv() => Step::Send(outgoing),
                answer = link.answers.next() => Step::Answer(answer),
            },
        };
        match step {
            Step::Send(None) => return,
            Step::Send(Some(outgoing)) => {
                next_id += 1;
                send(&peers, &mut link, next_id, outgoing).await;
            }
            Step::Answer(Ok(response)) => {
                let open = link.as_mut().expect("an answer comes from an open link");
                deliver(open, response);
            }
            Step::Answer(Err(error)) => {
                let open = link.take().expect("an answer comes from an open link");
                break_off(open, &error.to_string());
            }
        }
    }
}

enum Step {
    Send(Option<Outgoing>),
    Answer(Result<peer::ForwardResponse, PeerError>),
}

async fn send(peers: &Peers, link: &mut Option<Link>, id: u64, outgoing: Outgoing) {
    if let Some(old) = link.take_if(|open| open.leader != outgoing.leader) {
        break_off(old, "another node leads now");
    }
    if link.is_none() {
        match open(peers, outgoing.leader).await {
            Ok(opened) => *link = Some(opened),
            Err(message) => {
                let failed = Failed::NotProposed { reason: NotProposed::NotLeader, message };
                // Nobody waits any more: nothing was sent.
                let _ = outgoing.answer.send(Err(failed));
                return;
            }
        }
    }
    let open = link.as_mut().expect("it was opened above");
    let Outgoing { request, timeout_ms, answer, .. } = outgoing;
    open.owed.insert(id, answer);
    let request = peer::ForwardRequest { id, request, timeout_ms };
    if open.requests.send(request).await.is_err() {
        let broken = link.take().expect("it was open above");
        break_off(broken, "the stream to the leader broke");
    }
}

async fn open(peers: &Peers, leader: u64) -> Result<Link, String> {
    let (requests, on_stream) = mpsc::channel(ON_STREAM_MAX);
    let deadline = runtime::now() + OPEN_MAX;
    let answers =
        peers.forward(leader, on_stream, deadline).await.map_err(|error| error.to_string())?;
    Ok(Link { leader, requests, answers, owed: BTreeMap::new() })
}

fn deliver(link: &mut Link, response: peer::ForwardResponse) {
    let Some(answer) = link.owed.remove(&response.id) else { return };
    // Nobody waits any more: the outcome stays stored for a retry.
    let _ = answer.send(attempt(response.outcome));
}

fn attempt(outcome: Option<Outcome>) -> Attempt {
    match outcome {
        Some(Outcome::Response(bytes)) => Response::decode(&bytes)
            .map_err(|error| Failed::Unknown(format!("the leader's answer: {error}"))),
        Some(Outcome::NotProposed(not)) => {
            let reason = reason_from_wire(&not.reason);
            Err(Failed::NotProposed { reason, message: not.message })
        }
        Some(Outcome::Unknown(unknown)) => Err(Failed::Unknown(unknown.message)),
        None => Err(Failed::Unknown("the leader's answer is empty".to_owned())),
    }
}

fn break_off(link: Link, cause: &str) {
    for answer in link.owed.into_values() {
        // Nobody waits any more: the caller knows that the outcome is open.
        let _ = answer.send(Err(Failed::Unknown(cause.to_owned())));
    }
}

impl Node {
    /// The leader's side: proposes a forwarded request, if this node leads: one hop and no further.
    pub(crate) async fn take_forwarded(
        &self,
        request: peer::ForwardRequest,
    ) -> peer::ForwardResponse {
        let deadline = runtime::now() + Duration::from_millis(request.timeout_ms);
        let attempt = match Request::decode(&request.request) {
            Ok(decoded) if matches!(self.lead.borrow().leader, Leader::Me(_)) => {
                let proposed = self.proposer.propose(decoded);
                let unknown = || Err(Failed::Unknown("no answer before the deadline".to_owned()));
                runtime::until(deadline, proposed).await.unwrap_or_else(unknown)
            }
            Ok(_) => Err(Failed::NotProposed {
                reason: NotProposed::NotLeader,
                message: format!("n{} does not lead", self.peers.own().node_id),
            }),
            Err(error) => Err(Failed::NotProposed {
                reason: NotProposed::Overloaded,
                message: format!("the forwarded request: {error}"),
            }),
        };
        peer::ForwardResponse { id: request.id, outcome: Some(outcome_to_wire(attempt)) }
    }
}

fn outcome_to_wire(attempt: Attempt) -> Outcome {
    match attempt {
        Ok(response) => match response.encode() {
            Ok(bytes) => Outcome::Response(Bytes::from(bytes)),
            Err(error) => Outcome::Unknown(peer::Unknown { message: error.to_string() }),
        },
        Err(Failed::NotProposed { reason, message }) => Outcome::NotProposed(peer::NotProposed {
            reason: reason_to_wire(reason).to_owned(),
            message,
            leader_id: 0,
        }),
        Err(Failed::Unknown(message)) => Outcome::Unknown(peer::Unknown { message }),
    }
}

/// The stable word for a reason, as it travels between nodes.
fn reason_to_wire(reason: NotProposed) -> &'static str {
    match reason {
        NotProposed::NotLeader => "NOT_LEADER",
        NotProposed::Overloaded => "OVERLOADED",
        NotProposed::Stopping => "STOPPING",
    }
}

/// An unknown word comes from a newer node; what it shares with all others is that another try
/// is free.
fn reason_from_wire(reason: &str) -> NotProposed {
    match reason {
        "OVERLOADED" => NotProposed::Overloaded,
        "STOPPING" => NotProposed::Stopping,
        _ => NotProposed::NotLeader,
    }
}

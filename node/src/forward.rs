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
use crate::places::{Limits, Place, Places};
use crate::propose::{Attempt, Failed, NotProposed};
use crate::raft::network::{ForwardStream, Peers};
use crate::raft::peer::PeerError;
use crate::room::NoRoom;
use crate::runtime::{self, Instant};

/// How many requests are on their way to the leader, from their arrival to their answer; one more
/// is refused as overloaded. Bytes: 256 of the longest values.
const ON_THEIR_WAY: Limits =
    Limits { waiting: "are on their way to the leader", calls_max: 16_384, bytes_max: 256 << 20 };
/// How many requests wait for the connection to take them.
const ON_STREAM_MAX: usize = 1024;
/// How long opening the stream may take before the attempt is given up.
const OPEN_MAX: Duration = Duration::from_millis(500);

/// The way to the leader.
#[derive(Clone)]
pub(crate) struct Forwarder {
    queue: mpsc::Sender<Outgoing>,
    pub(crate) places: Places,
}

struct Outgoing {
    leader: u64,
    request: Bytes,
    timeout_ms: u64,
    owed: Owed,
}

/// An answer that is owed to a caller; it keeps its place until then, also when the caller has
/// gone.
struct Owed {
    answer: oneshot::Sender<Attempt>,
    _place: Place,
}

impl Forwarder {
    pub(crate) fn start(peers: Peers, tasks: &runtime::Tasks) -> Forwarder {
        let (queue, outgoing) = mpsc::channel(ON_THEIR_WAY.calls_max);
        tasks.spawn(run(peers, outgoing));
        Forwarder { queue, places: Places::new(ON_THEIR_WAY) }
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
        let place = self.places.take(encoded.len()).map_err(|crowded| Failed::NotProposed {
            reason: NotProposed::Overloaded,
            message: crowded.to_string(),
        })?;
        let timeout = deadline.saturating_duration_since(runtime::now());
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let (answer, wait) = oneshot::channel();
        let request = Bytes::from(encoded);
        let outgoing =
            Outgoing { leader, request, timeout_ms, owed: Owed { answer, _place: place } };
        // It has room for all places, so this fails only when the node stops.
        self.queue.try_send(outgoing).map_err(|_| Failed::NotProposed {
            reason: NotProposed::Stopping,
            message: "this node is stopping".to_owned(),
        })?;
        wait.await.unwrap_or_else(|_| Err(Failed::Unknown("the node stopped".to_owned())))
    }
}

/// An open stream with what it owes.
struct Link {
    leader: u64,
    requests: mpsc::Sender<peer::ForwardRequest>,
    answers: ForwardStream,
    owed: BTreeMap<u64, Owed>,
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
                let _ = outgoing.owed.answer.send(Err(failed));
                return;
            }
        }
    }
    let open = link.as_mut().expect("it was opened above");
    let Outgoing { request, timeout_ms, owed, .. } = outgoing;
    open.owed.insert(id, owed);
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
    let Some(owed) = link.owed.remove(&response.id) else { return };
    // Nobody waits any more: the outcome stays stored for a retry.
    let _ = owed.answer.send(attempt(response.outcome));
}

fn attempt(outcome: Option<Outcome>) -> Attempt {
    match outcome {
        Some(Outcome::Response(bytes)) => Response::decode(&bytes)
            .map_err(|error| Failed::Unknown(format!("the leader's answer: {error}"))),
        Some(Outcome::NotProposed(not)) => {
            let reason = reason_from_wire(&not);
            Err(Failed::NotProposed { reason, message: not.message })
        }
        Some(Outcome::Unknown(unknown)) => Err(Failed::Unknown(unknown.message)),
        None => Err(Failed::Unknown("the leader's answer is empty".to_owned())),
    }
}

fn break_off(link: Link, cause: &str) {
    for owed in link.owed.into_values() {
        // Nobody waits any more: the caller knows that the outcome is open.
        let _ = owed.answer.send(Err(Failed::Unknown(cause.to_owned())));
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
        Err(Failed::NotProposed { reason, message }) => {
            Outcome::NotProposed(not_proposed_to_wire(reason, message))
        }
        Err(Failed::Unknown(message)) => Outcome::Unknown(peer::Unknown { message }),
    }
}

/// A request that was not proposed, as that travels between nodes.
fn not_proposed_to_wire(reason: NotProposed, message: String) -> peer::NotProposed {
    let mut not = peer::NotProposed { message, ..Default::default() };
    let word = match reason {
        NotProposed::NotLeader => NOT_LEADER,
        NotProposed::Overloaded => OVERLOADED,
        NotProposed::Stopping => STOPPING,
        NotProposed::NoRoom(NoRoom::Quota { actual, asked, allowed }) => {
            (not.actual_bytes, not.asked_bytes, not.allowed_bytes) = (actual, asked, allowed);
            QUOTA_FULL
        }
        NotProposed::NoRoom(NoRoom::Disk { node, actual, allowed }) => {
            (not.node_id, not.actual_bytes, not.allowed_bytes) = (node, actual, allowed);
            DISK_FULL
        }
    };
    word.clone_into(&mut not.reason);
    not
}

/// An unknown word comes from a newer node; what it shares with all others is that another try
/// is free.
fn reason_from_wire(not: &peer::NotProposed) -> NotProposed {
    let (actual, asked, allowed) = (not.actual_bytes, not.asked_bytes, not.allowed_bytes);
    match not.reason.as_str() {
        OVERLOADED => NotProposed::Overloaded,
        STOPPING => NotProposed::Stopping,
        QUOTA_FULL => NotProposed::NoRoom(NoRoom::Quota { actual, asked, allowed }),
        DISK_FULL => NotProposed::NoRoom(NoRoom::Disk { node: not.node_id, actual, allowed }),
        _ => NotProposed::NotLeader,
    }
}

/// The stable words for why a request was not proposed.
const NOT_LEADER: &str = "NOT_LEADER";
const OVERLOADED: &str = "OVERLOADED";
const STOPPING: &str = "STOPPING";
const QUOTA_FULL: &str = "QUOTA_FULL";
const DISK_FULL: &str = "DISK_FULL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_travel_with_their_numbers() {
        for reason in [
            NotProposed::NotLeader,
            NotProposed::Overloaded,
            NotProposed::Stopping,
            NotProposed::NoRoom(NoRoom::Quota { actual: 1, asked: 2, allowed: 3 }),
            NotProposed::NoRoom(NoRoom::Disk { node: 4, actual: 5, allowed: 6 }),
        ] {
            let wire = not_proposed_to_wire(reason, "why".to_owned());
            assert_eq!((reason_from_wire(&wire), wire.message.as_str()), (reason, "why"));
        }
        let newer = peer::NotProposed { reason: "NEWER".to_owned(), ..Default::default() };
        assert_eq!(reason_from_wire(&newer), NotProposed::NotLeader);
    }
}

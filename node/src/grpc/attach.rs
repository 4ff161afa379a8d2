//! `Masters.AttachLease`: leases whose holders have a connection to this node.
//!
//! # Model
//!
//! A holder says on a stream which renewal of its lease was the last, again and again, and is answered each
//! time. When the stream breaks, or falls silent, the node proposes to shrink the lease to its grace, naming
//! the last renewal that it was told of. The state machine refuses that if there is a newer one, so a holder
//! that is connected elsewhere by now keeps its lease.
//!
//! # Invariants
//!
//! - A lease is shrunk only after its stream has broken, so not before any message that was answered on it
//!   was sent: from that its holder counts.
//! - A stream that the holder or this node ends in good order shrinks nothing. A node that closes its
//!   connections says so first.
//!
//! # What it leaves out
//!
//! Whether there is such a lease: it may have been opened at another node a moment ago. Shrinking asks.

use std::sync::Arc;
use std::time::Duration;

use holdfast_machine::{Command, Request, Response, masters};
use holdfast_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::namespace;
use crate::node::{Node, WriteFailed};
use crate::propose::NotProposed;
use crate::runtime::{self, watch};

/// For how long shrinking a lease is tried. Later the lease has less to fear from it than from its own end.
const SHRINK_MAX: Duration = Duration::from_secs(10);
/// The shortest silence that can count as a break, in milliseconds.
const SILENCE_MS_MIN: u32 = 100;
/// How long an answer may wait for the holder to take those before it.
const SEND_MAX: Duration = Duration::from_secs(1);
/// How long a stream stays without its first message.
const FIRST_MESSAGE_MAX: Duration = Duration::from_secs(10);

/// The answers of one stream.
pub(super) type Answers = ReceiverStream<Result<v1::AttachLeaseResponse, Status>>;

/// Begins to follow a holder's stream.
pub(super) fn begin(
    node: &Arc<Node>,
    messages: Streaming<v1::AttachLeaseRequest>,
) -> Result<Answers, Status> {
    let closing = node.closing.subscribe();
    if *closing.borrow() {
        return Err(stopping(node));
    }
    let permit = Arc::clone(&node.attachable).try_acquire_owned().map_err(|_| {
        let message = "too many leases are attached to this node; attach to another".to_owned();
        node.write_failed(WriteFailed::NotApplied { reason: NotProposed::Overloaded, message })
    })?;
    let (answers, taken) = mpsc::channel(1);
    let stream = Stream { node: Arc::clone(node), messages, answers, closing, _permit: permit };
    runtime::spawn(stream.run());
    Ok(ReceiverStream::new(taken))
}

fn stopping(node: &Node) -> Status {
    let message = "this node is stopping".to_owned();
    node.write_failed(WriteFailed::NotApplied { reason: NotProposed::Stopping, message })
}

struct Stream {
    node: Arc<Node>,
    messages: Streaming<v1::AttachLeaseRequest>,
    answers: mpsc::Sender<Result<v1::AttachLeaseResponse, Status>>,
    closing: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

/// What comes of waiting for the holder.
enum Heard {
    Message(v1::AttachLeaseRequest),
    /// It has ended its side, or cancelled the call: tonic shows both as the end of the messages.
    End,
    /// The stream broke, or was silent for too long.
    Break(String),
    /// This node closes its connections.
    Closing,
}

/// A lease whose holder is there.
struct Attached {
    namespace: String,
    lease: u64,
    renewal: u64,
    silence: Option<Duration>,
}

impl Stream {
    async fn run(mut self) {
        let first = match self.hear(Some(FIRST_MESSAGE_MAX)).await {
            Heard::Message(first) => first,
            Heard::Closing => return self.end(stopping(&self.node)).await,
            Heard::End | Heard::Break(_) => return,
        };
        let mut attached = match self.read(&first) {
            Ok(attached) => attached,
            Err(status) => return self.end(status).await,
        };
        self.answer(attached.renewal).await;
        let cause = loop {
            match self.hear(attached.silence).await {
                Heard::Message(message) => {
                    attached.renewal = attached.renewal.max(message.renewal);
                    self.answer(message.renewal).await;
                }
                Heard::End => return,
                Heard::Closing => return self.end(stopping(&self.node)).await,
                Heard::Break(cause) => break cause,
            }
        };
        let (node, closing) = (Arc::clone(&self.node), self.closing.clone());
        // What is left of the stream ends now, for whoever may still listen.
        drop(self);
        // What broke while this node closes its connections may be its own doing.
        if !*closing.borrow() {
            attached.shrink(&node, &cause).await;
        }
    }

    /// Waits for the next message.
    async fn hear(&mut self, silence: Option<Duration>) -> Heard {
        let message = async {
            let Some(silence) = silence else { return Some(self.messages.message().await) };
            runtime::until(runtime::now() + silence, self.messages.message()).await
        };
        tokio::select! {
            biased;
            // An error means that the node is gone, which is the same.
            _ = self.closing.wait_for(|closing| *closing) => Heard::Closing,
            message = message => match message {
                Some(Ok(Some(message))) => Heard::Message(message),
                Some(Ok(None)) => Heard::End,
                Some(Err(status)) => Heard::Break(status.message().to_owned()),
                None => Heard::Break("silence".to_owned()),
            },
        }
    }

    fn read(&self, first: &v1::AttachLeaseRequest) -> Result<Attached, Status> {
        let silence = match first.silence_ms {
            0 => None,
            ms if ms < SILENCE_MS_MIN => {
                let message = format!("silence_ms is {ms}, and at least {SILENCE_MS_MIN}");
                return Err(self.node.bad_request(message));
            }
            ms => Some(Duration::from_millis(ms.into())),
        };
        let (namespace, lease) = (namespace(first.namespace.clone()), first.lease_id);
        let attached = Attached { namespace, lease, renewal: first.renewal, silence };
        match attached.request().validate() {
            Ok(()) => Ok(attached),
            Err(refusal) => {
                let revision = self.node.applied.state().header().revision;
                Err(self.node.refused(&refusal, revision))
            }
        }
    }

    async fn answer(&mut self, renewal: u64) {
        let header = Some(self.node.header_of(&self.node.applied.state()));
        self.send(Ok(v1::AttachLeaseResponse { header, renewal })).await;
    }

    async fn end(&mut self, status: Status) {
        self.send(Err(status)).await;
    }

    /// Hands an answer over, unless the holder does not take what is there, or has gone: both show when it
    /// is listened to.
    async fn send(&mut self, answer: Result<v1::AttachLeaseResponse, Status>) {
        let _ = runtime::until(runtime::now() + SEND_MAX, self.answers.send(answer)).await;
    }
}

impl Attached {
    /// The request that shrinks the lease.
    fn request(&self) -> Request {
        let Attached { namespace, lease, renewal, .. } = self;
        let (namespace, lease, renewal) = (namespace.clone(), *lease, *renewal);
        let command = masters::Command::ShrinkLease { namespace, lease, renewal };
        Request { origin: None, command: Command::Masters(command) }
    }

    async fn shrink(&self, node: &Node, cause: &str) {
        let lease = self.lease;
        let written = node.write(self.request(), runtime::now() + SHRINK_MAX).await;
        match written {
            Ok(Response { outcome: Ok(_), .. }) => {
                tracing::info!(lease, cause, "the holder's connection broke, its grace runs");
            }
            Ok(Response { outcome: Err(refusal), .. }) => {
                tracing::debug!(lease, cause, %refusal, "the holder's connection broke");
            }
            Err(failed) => {
                tracing::warn!(lease, cause, ?failed, "the holder's connection broke, and no more");
            }
        }
    }
}

//! Many calls on one stream of a connection: what a node is told at the same moment shares a message.
//!
//! A stream is opened with the first call and lives as long as its connection. It is tonic that takes
//! the calls from the queue, whenever the connection has room, so whatever has come up meanwhile goes
//! together. A node that ends the stream, or loses it, leaves the calls on it unanswered: they count
//! as lost, and the engine (`call`) sends further copies.
//!
//! A node that does not know such streams gets each call by itself.
//!
//! Invariant: a call that was put on the stream gets an answer, or the status that the stream ended
//! with.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use holdfast_proto::v1 as proto;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::rpc;

/// How many calls may be on one stream, as many as a node works on; more go by themselves.
const CALLS_MAX: usize = 256;
/// Longest request that goes on a stream, in bytes: those behind it wait for it.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// How many calls go into one message at most.
const MESSAGE_CALLS_MAX: usize = 64;

/// An encoded response, or the status in its place; None if the call is to go by itself.
type Answer = Option<Result<Vec<u8>, Status>>;

/// The stream of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    channel: Channel,
    /// The node does not know such streams.
    is_unknown: AtomicBool,
    // A std lock: held for a few moves, never across an await.
    stream: Mutex<Option<OpenStream>>,
}

#[derive(Debug, Clone)]
struct OpenStream {
    queue: mpsc::UnboundedSender<proto::PipedCall>,
    owed: Arc<Mutex<Owed>>,
}

/// The calls on a stream that have no answer yet.
#[derive(Debug, Default)]
struct Owed {
    next_id: u64,
    calls: HashMap<u64, oneshot::Sender<Answer>>,
    /// What it ended with: nothing more may be put on it.
    ended: Option<Status>,
}

impl Pipeline {
    pub(crate) fn new(channel: Channel) -> Pipeline {
        let (is_unknown, stream) = (AtomicBool::new(false), Mutex::new(None));
        Pipeline { shared: Arc::new(Shared { channel, is_unknown, stream }) }
    }

    /// Makes a call on the stream; None if it should go by itself.
    pub(crate) async fn call(
        &self,
        method: String,
        timeout: Duration,
        message: &impl prost::Message,
    ) -> Answer {
        let goes_by_itself = message.encoded_len() > REQUEST_BYTES_MAX
            || self.shared.is_unknown.load(Ordering::Relaxed);
        if goes_by_itself {
            return None;
        }
        let answer = self.stream().put(method, timeout, message.encode_to_vec())?;
        // The stream's task answers before it ends, unless its runtime is shut down.
        let dropped =
            |_| Some(Err(Status::unknown("the runtime of the stream of calls has ended")));
        answer.await.unwrap_or_else(dropped)
    }

    /// The stream, opened if there is none.
    fn stream(&self) -> OpenStream {
        let mut present = locked(&self.shared.stream);
        if let Some(stream) = &*present
            && locked(&stream.owed).ended.is_none()
        {
            return stream.clone();
        }
        let (queue, calls) = mpsc::unbounded_channel();
        let stream = OpenStream { queue, owed: Arc::default() };
        tokio::spawn(run(
            Arc::downgrade(&self.shared),
            self.shared.channel.clone(),
            calls,
            Arc::clone(&stream.owed),
        ));
        *present = Some(stream.clone());
        stream
    }
}

impl OpenStream {
    /// Puts a call on the stream; None if it is full, or has just ended.
    fn put(
        &self,
        method: String,
        timeout: Duration,
        message: Vec<u8>,
    ) -> Option<oneshot::Receiver<Answer>> {
        let (answer, wait) = oneshot::channel();
        let mut owed = locked(&self.owed);
        if owed.ended.is_some() || owed.calls.len() >= CALLS_MAX {
            return None;
        }
        owed.next_id += 1;
        let id = owed.next_id;
        owed.calls.insert(id, answer);
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        let call = proto::PipedCall { id, method, timeout_ms, message };
        // The receiver goes with the stream, whose end answers all that is owed.
        let _ = self.queue.send(call);
        Some(wait)
    }
}

/// The messages of a stream, made of what is in the queue when the connection has room.
struct Messages(mpsc::UnboundedReceiver<proto::PipedCall>);

impl Stream for Messages {
    type Item = proto::ExchangeRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut calls = Vec::new();
        match self.0.poll_recv_many(cx, &mut calls, MESSAGE_CALLS_MAX) {
            Poll::Ready(0) => Poll::Ready(None),
            Poll::Ready(_) => Poll::Ready(Some(proto::ExchangeRequest { calls })),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Takes the answers of a stream in, until it ends.
async fn run(
    shared: Weak<Shared>,
    channel: Channel,
    calls: mpsc::UnboundedReceiver<proto::PipedCall>,
    owed: Arc<Mutex<Owed>>,
) {
    let end = match rpc::pipeline(channel).exchange(Messages(calls)).await {
        Ok(answers) => take_in(answers.into_inner(), &owed).await,
        Err(status) => status,
    };
    let calls = {
        let mut owed = locked(&owed);
        owed.ended = Some(end.clone());
        std::mem::take(&mut owed.calls)
    };
    // Of the calls on it a node says that they are unknown, never of the stream.
    let is_unknown = end.code() == Code::Unimplemented;
    if let Some(shared) = shared.upgrade()
        && is_unknown
    {
        shared.is_unknown.store(true, Ordering::Relaxed);
    }
    for call in calls.into_values() {
        // Whoever has given its call up does not listen.
        let _ = call.send((!is_unknown).then(|| Err(end.clone())));
    }
}

async fn take_in(
    mut answers: tonic::Streaming<proto::ExchangeResponse>,
    owed: &Mutex<Owed>,
) -> Status {
    loop {
        match answers.message().await {
            Ok(Some(message)) => deliver(message.answers, owed),
            Ok(None) => return Status::unavailable("the node has ended the stream of calls"),
            Err(status) => return status,
        }
    }
}

fn deliver(answers: Vec<proto::PipedAnswer>, owed: &Mutex<Owed>) {
    let mut owed = locked(owed);
    for answer in answers {
        let Some(call) = owed.calls.remove(&answer.id) else { continue };
        let result = match answer.code {
            0 => Ok(answer.message),
            code => {
                let code = Code::from_i32(i32::try_from(code).unwrap_or(i32::MAX));
                Err(Status::with_details(code, answer.error, answer.details.into()))
            }
        };
        // Whoever has given its call up does not listen.
        let _ = call.send(Some(result));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code under these locks panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

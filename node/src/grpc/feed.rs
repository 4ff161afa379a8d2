//! Streams that tell of one state: an export, a listing, a load.
//!
//! The model: a task of its own reads the state, whose clone costs nothing, part by part, and hands over to
//! the connection one response at a time. When the reader leaves one lying, the task gives up and leaves a
//! last word, which the reader finds behind what is already on its way; so no reader keeps an old state for
//! ever. What is on its way by then is what the windows of HTTP/2 and the buffers of both ends hold, some
//! MiB at most: a stream that is shorter has ended before anybody could be slow.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use holdfast_machine::Fault;
use holdfast_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::node::Node;
use crate::runtime;

/// How long a reader may leave a response lying before it is cut off.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// Size at which a response is best closed, in bytes: enough to make good use of a frame.
pub(super) const RESPONSE_BYTES: usize = 256 << 10;

/// The responses of one stream.
pub(super) type Responses<T> = ReceiverStream<Result<T, Status>>;

/// What a stream is fed from.
pub(super) struct Feed<T> {
    node: Arc<Node>,
    /// What the stream is, to a reader that is cut off.
    what: &'static str,
    responses: mpsc::Sender<Result<T, Status>>,
}

/// The stream has ended early.
pub(super) struct Ended;

/// A stream that is fed by `run`, in a task of its own, until that returns.
pub(super) fn stream<T, F>(
    node: &Arc<Node>,
    what: &'static str,
    run: impl FnOnce(Feed<T>) -> F,
) -> Responses<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Ended>> + Send + 'static,
{
    // The second place is for the last word of a reader that is cut off.
    let (responses, taken) = mpsc::channel(2);
    let fed = run(Feed { node: Arc::clone(node), what, responses });
    runtime::spawn(async move {
        // Cut off or gone; either way there is nothing more to send.
        let _ended = fed.await;
    });
    ReceiverStream::new(taken)
}

impl<T> Feed<T> {
    /// The header of responses that are true of this state.
    pub(super) fn header_of(&self, state: &holdfast_machine::State) -> v1::ResponseHeader {
        self.node.header_of(state)
    }

    /// A query's result. A fault means that the state is damaged: the node stops.
    pub(super) async fn read<R>(&self, result: Result<R, Fault>) -> Result<R, Ended> {
        match result {
            Ok(read) => Ok(read),
            Err(fault) => {
                self.node.stop_for(format!("read the state: {fault}"));
                Err(self.fail(Status::internal(fault.to_string())).await)
            }
        }
    }

    /// Ends the stream with this last word.
    pub(super) async fn fail(&self, status: Status) -> Ended {
        // Gone with the node, or with the reader.
        let _ = self.responses.send(Err(status)).await;
        Ended
    }

    /// Hands over a response, once the reader has taken the one before.
    pub(super) async fn send(&self, response: T) -> Result<(), Ended> {
        let deadline = runtime::now() + UNREAD_MAX;
        // Two places and one of them always free: the other one waits for the reader.
        let place = runtime::until(deadline, self.responses.reserve_many(2)).await;
        match place {
            Some(Ok(mut places)) => {
                if let Some(place) = places.next() {
                    place.send(Ok(response));
                }
                Ok(())
            }
            Some(Err(_)) => Err(Ended),
            None => {
                // Gone, or it finds this behind what is already on its way.
                let _ = self.responses.try_send(Err(self.node.cut_off(self.what)));
                Err(Ended)
            }
        }
    }
}

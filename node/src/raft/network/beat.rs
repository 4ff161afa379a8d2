//! Signs of life: appends without entries, on one stream that stays open.
//!
//! openraft opens a stream for each heartbeat. Taken literally, that is a new HTTP/2 stream with its
//! headers and its tasks at both ends, twenty times a second for each node, and about half of what
//! an idle leader used.
//!
//! Invariants: one append at a time is on its way, so an answer belongs to the last request; a
//! stream whose answer is not awaited to the end is not used again.

use std::sync::{Arc, Mutex};

use holdfast_proto::peer;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::peers::Client;
use crate::raft::convert;
use crate::raft::types::TypeConfig;

type Answer = StreamAppendResult<TypeConfig>;

/// The stream to one node, once there is one; clones share it.
#[derive(Clone, Default)]
pub(super) struct Beats(Arc<Mutex<Option<Line>>>);

struct Line {
    requests: mpsc::Sender<peer::AppendRequest>,
    answers: Streaming<peer::AppendResponse>,
}

impl Beats {
    /// Sends an append and waits for its answer, without a limit of its own.
    pub(super) async fn send(
        &self,
        client: &Client,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<Answer, Status> {
        let request = convert::append_to_wire(request);
        // While it is out, it is lost with this future if nobody waits any more.
        let line = self.0.lock().expect("no code panics while it holds this lock").take();
        if let Some(line) = line
            && line.requests.try_send(request.clone()).is_ok()
            && let Ok(answer) = self.answer(line).await
        {
            return Ok(answer);
        }
        // There was none, or it broke while nothing was sent, such as by a restart of the node.
        let line = open(client, request).await?;
        self.answer(line).await
    }

    /// The answer to what was sent last; the stream is kept if it is a good one.
    async fn answer(&self, mut line: Line) -> Result<Answer, Status> {
        let answer = line.answers.message().await?;
        let answer = answer.ok_or_else(|| Status::unavailable("the peer closed the stream"))?;
        let answer = convert::appended_from_wire(answer)
            .map_err(|malformed| Status::new(Code::Internal, malformed.to_string()))?;
        if answer.is_ok() {
            *self.0.lock().expect("no code panics while it holds this lock") = Some(line);
        }
        Ok(answer)
    }
}

async fn open(client: &Client, first: peer::AppendRequest) -> Result<Line, Status> {
    // Room for the one that is on its way.
    let (requests, on_stream) = mpsc::channel(1);
    requests.try_send(first).expect("a new channel has room");
    let request = client.request(ReceiverStream::new(on_stream));
    let answers = client.rpc().stream_append(request).await?.into_inner();
    Ok(Line { requests, answers })
}

//! What is staged over one stream: `Objects.Upload`.
//!
//! The model: messages are proposed as they come, several at a time, and answered in order, each once it
//! is durable. What is on its way is bounded by its bytes; beyond that nothing more is read from the
//! connection. A message with objects goes behind all before it, because it may name their chunks.
//! The first message that fails ends the stream, behind the answers to those before it: the client sends
//! again what was not answered, on this node or another, which changes nothing where it was staged.

use std::future::Future;
use std::pin::Pin;

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use holdfast_machine::objects::{Command, Reply as Done};
use holdfast_machine::{Command as Any, Reply, Request};
use holdfast_proto::v1;
use holdfast_proto::v1::upload_request::Staged;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use super::objects::staged;
use super::{Calls, foreign, header, namespace};
use crate::runtime;

/// Bytes of one stream's messages that are on their way to the log at most, if more than one message
/// is. Four chunks: as many entries as the proposer has on their way.
const WINDOW_BYTES: usize = 2 << 20;
/// Answers that wait for the connection at most. A client that reads none is read no further.
const ANSWERS_AHEAD: usize = 64;

/// The answers of one stream.
pub(super) type Answers = ReceiverStream<Result<v1::UploadResponse, Status>>;

/// A message on its way: how many bytes it takes, and what comes of it.
type Staging = Pin<Box<dyn Future<Output = (usize, Result<v1::UploadResponse, Status>)> + Send>>;

/// A message that can be proposed.
struct Message {
    number: u64,
    bytes: usize,
    command: Command,
}

/// The stream's client is gone.
struct Gone;

impl Calls {
    /// Stages what comes.
    pub(super) fn take_upload(
        &self,
        metadata: MetadataMap,
        messages: Streaming<v1::UploadRequest>,
    ) -> Answers {
        let (answers, taken) = mpsc::channel(ANSWERS_AHEAD);
        let calls = self.clone();
        runtime::spawn(async move {
            if let Err(status) = calls.stage_all(&metadata, messages, &answers).await {
                // Gone with its stream: nobody is there to read it.
                let _ = answers.send(Err(status)).await;
            }
        });
        ReceiverStream::new(taken)
    }

    async fn stage_all(
        &self,
        metadata: &MetadataMap,
        mut messages: Streaming<v1::UploadRequest>,
        answers: &mpsc::Sender<Result<v1::UploadResponse, Status>>,
    ) -> Result<(), Status> {
        let mut on_their_way: FuturesOrdered<Staging> = FuturesOrdered::new();
        let (mut bytes, mut has_ended) = (0, false);
        // The one that waits for all before it.
        let mut held: Option<Message> = None;
        loop {
            if on_their_way.is_empty() {
                match held.take() {
                    Some(message) => {
                        bytes += message.bytes;
                        on_their_way.push_back(self.stage(metadata, message));
                    }
                    None if has_ended => return Ok(()),
                    None => {}
                }
            }
            let is_open = !has_ended && held.is_none() && bytes < WINDOW_BYTES;
            runtime::select! {
                message = messages.message(), if is_open => match message? {
                    None => has_ended = true,
                    Some(message) => {
                        let message = read(message).map_err(|error| self.0.bad_request(error))?;
                        if matches!(message.command, Command::StageObjects { .. }) {
                            held = Some(message);
                        } else {
                            bytes += message.bytes;
                            on_their_way.push_back(self.stage(metadata, message));
                        }
                    }
                },
                Some((of_message, answer)) = on_their_way.next(), if !on_their_way.is_empty() => {
                    bytes -= of_message;
                    if let Err(Gone) = hand_over(answers, answer?).await {
                        return Ok(());
                    }
                }
                () = answers.closed() => return Ok(()),
            }
        }
    }

    /// Proposes a message until it is applied, or its time is over.
    fn stage(&self, metadata: &MetadataMap, message: Message) -> Staging {
        let (calls, deadline) = (self.clone(), header::deadline(metadata));
        Box::pin(async move {
            let Message { number, bytes, command } = message;
            let request = Request { origin: None, command: Any::Objects(command) };
            (bytes, calls.stage_until(request, deadline, number).await)
        })
    }

    async fn stage_until(
        &self,
        request: Request,
        deadline: runtime::Instant,
        number: u64,
    ) -> Result<v1::UploadResponse, Status> {
        let written = self.0.write(request, deadline).await;
        let response = written.map_err(|failed| self.0.write_failed(failed))?;
        match response.outcome {
            Ok(Reply::Objects(Done::Staged)) => {
                let header = Some(self.0.header(response.revision));
                Ok(v1::UploadResponse { header, number })
            }
            Ok(reply) => Err(foreign(&reply)),
            Err(refusal) => Err(self.0.refused(&refusal, response.revision)),
        }
    }
}

async fn hand_over(
    answers: &mpsc::Sender<Result<v1::UploadResponse, Status>>,
    answer: v1::UploadResponse,
) -> Result<(), Gone> {
    answers.send(Ok(answer)).await.map_err(|_| Gone)
}

fn read(message: v1::UploadRequest) -> Result<Message, String> {
    let bytes = prost::Message::encoded_len(&message);
    let v1::UploadRequest { namespace: named, upload_id: upload, number, staged: what } = message;
    let namespace = namespace(named);
    let command = match what {
        None => return Err(format!("message {number} stages nothing")),
        Some(Staged::Chunk(bytes)) => {
            Command::StageChunk { namespace, upload, bytes: bytes.into() }
        }
        Some(Staged::Objects(v1::StagedObjects { objects })) => {
            let objects = objects.into_iter().map(staged).collect::<Result<_, _>>()?;
            Command::StageObjects { namespace, upload, objects }
        }
    };
    Ok(Message { number, bytes, command })
}

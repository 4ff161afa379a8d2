//! Objects that do not fit into one request: staged piece by piece, and then made visible together.
//!
//! # The model
//! The pieces are numbered. The cluster answers them in order, each once it is durable, so what it has
//! answered is always a beginning of them. A stream that breaks or falls silent is followed by another one,
//! to another node if there is one, from the first piece on that was not answered; pieces that come twice
//! change nothing.
//!
//! What has to be sent is in `pieces`: large bodies come as chunks, named by their hashes, and the objects
//! that name them only when all chunks have been answered: so a chunk that is named is there, whatever
//! happened to the streams.
//!
//! # Invariants
//! - Beside the records only what is on its way is in memory.
//! - It is given up when no piece has been answered for as long as a call may take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::v1 as proto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::pieces::{Piece, Queue, WINDOW_PIECES, body_bytes, plan};
use super::{Progress, Session};
use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::error::{Answer, Attempt, Cause, Error, Header, Refusal, is_transport_error};
use crate::persistence::id::Id;
use crate::persistence::record::Record;
use crate::rpc;

/// Silence after which another node is tried: longer than an election, and than a slow disk takes for what
/// is on its way.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Pause after all endpoints have failed; doubles from round to round.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between rounds.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// How long the end of an upload that failed may take; it lapses by itself anyway.
const ABANDON_WITHIN: Duration = Duration::from_secs(1);

/// Why an upload ended early; nothing of it is there.
pub(super) enum Halt {
    /// It was over on the cluster's side before it was committed: it can be begun anew.
    Lapsed(Error),
    /// It failed, or nobody knows.
    Failed(Error),
}

/// Saves all records, or none.
pub(super) async fn run(
    session: &Session,
    namespace: &str,
    records: &[(Id, Record)],
    progress: &Progress,
) -> Result<(), Halt> {
    let namespace = namespace.to_owned();
    let request =
        proto::OpenUploadRequest { context: None, namespace: namespace.clone(), idle_ms: 0 };
    let opened = session.prepare(request).await.map_err(halt)?;
    let upload_id = opened.upload_id;
    let mut upload =
        Upload { session, namespace, upload_id, records, progress, hashes: BTreeMap::new() };
    let staged = upload.stage().await;
    let committed = match staged {
        Ok(()) => upload.commit().await,
        Err(error) => Err(error),
    };
    if let Err(error) = &committed
        && error.applied() == crate::Applied::No
    {
        upload.abandon().await;
    }
    committed.map_err(halt)
}

fn halt(error: Error) -> Halt {
    if error.reason() == Some("UNKNOWN_UPLOAD") { Halt::Lapsed(error) } else { Halt::Failed(error) }
}

struct Upload<'a> {
    session: &'a Session,
    namespace: String,
    upload_id: u64,
    records: &'a [(Id, Record)],
    progress: &'a Progress,
    /// Of the chunks of large bodies, by the place of their records; each once it is first sent.
    hashes: BTreeMap<(usize, usize), Vec<u8>>,
}

impl Upload<'_> {
    async fn stage(&mut self) -> Result<(), Error> {
        let (bodies, names) = plan(self.records);
        let mut answered = 0;
        for pieces in [bodies, names] {
            self.stage_all(&pieces, answered).await?;
            answered += pieces.len();
        }
        Ok(())
    }

    async fn commit(&self) -> Result<(), Error> {
        let request = proto::CommitUploadRequest {
            context: None,
            namespace: self.namespace.clone(),
            upload_id: self.upload_id,
            objects: u64::try_from(self.records.len()).unwrap_or(u64::MAX),
        };
        self.session.write(request).await.map(drop)
    }

    /// Tells the cluster that nothing more will come, if it listens.
    async fn abandon(&self) {
        let request = proto::AbandonUploadRequest {
            context: None,
            namespace: self.namespace.clone(),
            upload_id: self.upload_id,
        };
        let client = self.session.client.with_timeout(ABANDON_WITHIN);
        let _lapses = client.write(request).await;
    }

    /// Stages pieces, whose numbers follow these that came before, until all are answered.
    async fn stage_all(&mut self, pieces: &[Piece], before: usize) -> Result<(), Error> {
        let pool = self.session.client.pool();
        let wait = self.session.client.call_timeout();
        let mut queue = Queue::new(pieces, before);
        let mut deadline = Deadline::after(wait);
        let mut pause = PAUSE_FIRST;
        let mut attempts = Attempts::default();
        if let Some(faults) = pool.faults() {
            faults.into_iter().for_each(|(address, fault)| attempts.note(&address, None, fault));
            return Err(attempts.unavailable(wait));
        }
        while !queue.is_done() {
            for endpoint in pool.in_order() {
                let answered = queue.answered();
                let broken = tokio::select! {
                    broken = self.stream(&endpoint, &mut queue) => broken,
                    () = deadline.reached() => Broken::Answer(Answer::Unknown {
                        reason: None,
                        message: crate::error::SILENCE.to_owned(),
                        header: None,
                    }),
                };
                if queue.answered() > answered {
                    deadline = Deadline::after(wait);
                    pause = PAUSE_FIRST;
                }
                match broken {
                    Broken::Done => return Ok(()),
                    Broken::Answer(Answer::Refused(refusal)) => {
                        return Err(Refusal::into_error(refusal));
                    }
                    Broken::Answer(answer) => attempts.take_in(&endpoint, answer),
                }
                if deadline.has_passed() {
                    return Err(attempts.unavailable(wait));
                }
            }
            let pausing = pause.mul_f64(rand::random_range(0.5..1.0));
            tokio::time::sleep(pausing.min(deadline.remaining())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }

    /// Sends what is not answered to one node, until all is answered or the stream breaks.
    async fn stream(&mut self, endpoint: &Arc<Endpoint>, queue: &mut Queue<'_>) -> Broken {
        let connection = match endpoint.connection().await {
            Ok(connection) => connection,
            Err(message) => {
                return Broken::Answer(Answer::NotSent { message: message.to_string() });
            }
        };
        queue.begin_again();
        let (send, requests) = mpsc::channel(WINDOW_PIECES);
        // The node may answer only once it has got something.
        self.fill(queue, &send);
        let mut client = rpc::objects(connection.channel.clone());
        let opening = client.upload(ReceiverStream::new(requests));
        let mut responses = match timely(opening).await {
            Ok(opened) => opened.into_inner(),
            Err(status) => return broken(endpoint, &connection, &status),
        };
        while !queue.is_done() {
            match timely(next(&mut responses)).await {
                Ok(response) => {
                    if let Err(answer) = self.take_in(endpoint, queue, &response) {
                        return Broken::Answer(answer);
                    }
                }
                Err(status) => return broken(endpoint, &connection, &status),
            }
            self.fill(queue, &send);
        }
        Broken::Done
    }

    /// Sends as much as may be on its way.
    fn fill(&mut self, queue: &mut Queue<'_>, send: &mpsc::Sender<proto::UploadRequest>) {
        while let Some((number, piece)) = queue.next() {
            let staged = self.message(piece);
            let number = u64::try_from(number).unwrap_or(u64::MAX);
            let namespace = self.namespace.clone();
            let (upload_id, staged) = (self.upload_id, Some(staged));
            let request = proto::UploadRequest { namespace, upload_id, number, staged };
            // There is room for all that may be on its way. A stream that has ended says why when it is
            // read.
            let _ended = send.try_send(request);
        }
    }

    fn take_in(
        &mut self,
        endpoint: &Endpoint,
        queue: &mut Queue<'_>,
        response: &proto::UploadResponse,
    ) -> Result<(), Answer> {
        let header = response.header.as_ref().map(Header::from).unwrap_or_default();
        let unknown = |message| Answer::Unknown { reason: None, message, header: None };
        self.session.client.pool().observe(endpoint, &header, true).map_err(unknown)?;
        endpoint.mark_good();
        let arrived = queue.answer(response.number).ok_or_else(|| {
            unknown(format!("it answered message {}, which was not its turn", response.number))
        })?;
        self.progress.arrived(body_bytes(arrived, self.records));
        Ok(())
    }

    fn message(&mut self, piece: &Piece) -> proto::upload_request::Staged {
        use proto::upload_request::Staged;
        match piece {
            Piece::Chunk { place, bytes } => {
                let chunk = &self.records[*place].1.body[bytes.clone()];
                let hash = || blake3::hash(chunk).as_bytes().to_vec();
                self.hashes.entry((*place, bytes.start)).or_insert_with(hash);
                Staged::Chunk(chunk.to_vec())
            }
            Piece::Objects(places) => {
                let objects = places.iter().map(|place| {
                    let body = self.records[*place].1.body.clone();
                    self.object(*place, body, Vec::new())
                });
                Staged::Objects(proto::StagedObjects { objects: objects.collect() })
            }
            Piece::Chunked(places) => {
                let objects = places.iter().map(|place| {
                    let of_body = self.hashes.range((*place, 0)..=(*place, usize::MAX));
                    let chunks = of_body.map(|(_, hash)| hash.clone()).collect();
                    self.object(*place, Vec::new(), chunks)
                });
                Staged::Objects(proto::StagedObjects { objects: objects.collect() })
            }
        }
    }

    fn object(&self, place: usize, body: Vec<u8>, chunks: Vec<Vec<u8>>) -> proto::StagedObject {
        let (id, record) = &self.records[place];
        let record = proto::ObjectRecord {
            id: id.get(),
            class_name: record.class_name.clone(),
            metadata: record.metadata.clone().into_iter().collect(),
            ..Default::default()
        };
        proto::StagedObject { record: Some(record), body, chunks }
    }
}

/// What becomes of a stream.
enum Broken {
    /// Everything was answered.
    Done,
    Answer(Answer),
}

fn broken(
    endpoint: &Endpoint,
    connection: &crate::endpoint::Connection,
    status: &Status,
) -> Broken {
    if is_transport_error(status) {
        endpoint.forget(connection);
    }
    Broken::Answer(Answer::from_status(status))
}

/// The next answer; a stream that ends before the last one was cut.
async fn next(
    responses: &mut Streaming<proto::UploadResponse>,
) -> Result<proto::UploadResponse, Status> {
    let next = responses.message().await?;
    next.ok_or_else(|| Status::aborted("the stream was cut short"))
}

async fn timely<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let silent = || Err(Status::deadline_exceeded("no answer"));
    tokio::time::timeout(SILENCE_MAX, answer).await.unwrap_or_else(|_| silent())
}

/// The last thing that happened at each endpoint.
#[derive(Default)]
struct Attempts {
    attempts: BTreeMap<Arc<str>, Attempt>,
}

impl Attempts {
    fn take_in(&mut self, endpoint: &Endpoint, answer: Answer) {
        let (reason, message) = match answer {
            Answer::Refused(refusal) => (Some(refusal.reason), refusal.message),
            Answer::Elsewhere { reason, message, .. } => (Some(reason), message),
            Answer::Unknown { reason, message, .. } => {
                endpoint.mark_bad();
                (reason, message)
            }
            Answer::NotSent { message } => {
                endpoint.mark_bad();
                (None, message)
            }
        };
        self.note(endpoint.address(), reason, message);
    }

    fn note(&mut self, address: &Arc<str>, reason: Option<String>, message: String) {
        let attempt = Attempt { endpoint: address.to_string(), reason, message };
        self.attempts.insert(address.clone(), attempt);
    }

    fn unavailable(self, wait: Duration) -> Error {
        let seconds = wait.as_secs_f64();
        let summary = format!("objects.upload went on at no node within {seconds:.1} s");
        let cause = Cause { summary, attempts: self.attempts.into_values().collect() };
        Error::Unavailable { cause, header: None }
    }
}

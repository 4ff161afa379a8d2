//! The peer service: Raft's messages, forwarded writes, read indexes and digests.
//!
//! Every call but `Hello` is checked first: a sender of another cluster, of another data directory
//! under a known id, or of a copied directory is refused. A copy is told by its nonce: the process
//! that listens at the member's own address answers with another one.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use holdfast_proto::peer;
use holdfast_proto::peer::peer_server::{Peer, PeerServer};
use openraft::raft::TransferLeaderRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::leadership::Leader;
use crate::node::Node;
use crate::raft::convert;
use crate::raft::network::{MESSAGE_BYTES_MAX, Received, keys};
use crate::runtime;

/// How long the process at a member's address may take to say who it is.
const HELLO_MAX: Duration = Duration::from_millis(300);
/// Answers to forwarded writes that wait for the connection.
const ANSWERS_AHEAD: usize = 1024;

/// Everything that other nodes may call.
pub(crate) fn peer_routes(node: &Arc<Node>) -> Routes {
    let calls = PeerCalls { node: Arc::clone(node), known: Arc::default() };
    let service = PeerServer::new(calls)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(service)
}

struct PeerCalls {
    node: Arc<Node>,
    /// The nonce that the process at each member's address was seen to have.
    known: Arc<Mutex<BTreeMap<u64, u64>>>,
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn malformed(error: convert::Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

impl PeerCalls {
    async fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        let number = |key| {
            let parsed = text(key).and_then(|text| text.parse::<u64>().ok());
            parsed.ok_or_else(|| Status::invalid_argument(format!("{key} is missing")))
        };
        let own = self.node.peers.own();
        let cluster = text(keys::CLUSTER).unwrap_or_default();
        if cluster != own.cluster_id {
            return Err(Status::failed_precondition(format!(
                "foreign-cluster: n{} belongs to cluster {}, the caller to {cluster:?}",
                own.node_id, own.cluster_id
            )));
        }
        let (id, incarnation) = (number(keys::NODE)?, number(keys::INCARNATION)?);
        let nonce = number(keys::NONCE)?;
        let Some(member) = self.node.peers.member(id) else {
            // A node that is behind may not know a newer member; the leader knows them all.
            return match self.node.lead.borrow().leader {
                Leader::Me(_) => Err(Status::failed_precondition(format!(
                    "n{id} is not a member of this cluster; join it again with an empty directory"
                ))),
                Leader::None | Leader::Other(_) => Ok(()),
            };
        };
        if member.incarnation != incarnation {
            return Err(Status::failed_precondition(format!(
                "wiped-directory: n{id} was set up with incarnation {:016x}, the caller has \
                 {incarnation:016x}; remove n{id} and join again with an empty directory",
                member.incarnation
            )));
        }
        self.check_nonce(id, nonce, incarnation, &member.peer_endpoint).await
    }

    async fn check_nonce(
        &self,
        id: u64,
        nonce: u64,
        incarnation: u64,
        endpoint: &str,
    ) -> Result<(), Status> {
        let known =
            self.known.lock().expect("no code panics while it holds this lock").get(&id).copied();
        if known == Some(nonce) {
            return Ok(());
        }
        let hello = self.node.peers.hello(endpoint, runtime::now() + HELLO_MAX).await;
        // Nobody answers there: the caller may be that node on its way to a new address.
        let Ok(hello) = hello else { return Ok(()) };
        if hello.node_id != id || hello.incarnation != incarnation || hello.nonce == nonce {
            self.known.lock().expect("no code panics while it holds this lock").insert(id, nonce);
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "copied-directory: n{id} is alive at {endpoint}; the caller runs on a copy of its \
             directory and must stop"
        )))
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerCalls {
    type StreamAppendStream = Answers<peer::AppendResponse>;
    type ForwardStream = Answers<peer::ForwardResponse>;

    async fn hello(
        &self,
        _request: Request<peer::HelloRequest>,
    ) -> Result<Response<peer::HelloResponse>, Status> {
        let own = self.node.peers.own();
        Ok(Response::new(peer::HelloResponse {
            cluster_id: own.cluster_id.clone(),
            node_id: own.node_id,
            incarnation: own.incarnation,
            nonce: own.nonce,
            level: holdfast_machine::level::KNOWN,
        }))
    }

    async fn stream_append(
        &self,
        request: Request<Streaming<peer::AppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        self.check(request.metadata()).await?;
        // A message that cannot be read ends the stream: openraft sees its input close, and the
        // leader opens a new one.
        let messages = (request.into_inner(), Arc::clone(&self.node.pace));
        let requests = futures::stream::unfold(messages, |(mut messages, pace)| async move {
            let message = messages.message().await.ok().flatten()?;
            pace.heard();
            match convert::append_from_wire(message) {
                Ok(request) => Some((request, (messages, pace))),
                Err(error) => {
                    tracing::warn!("append from a peer: {error}");
                    None
                }
            }
        });
        let answers = self
            .node
            .raft
            .stream_append(requests.boxed())
            .map(|answer| answer.map(convert::appended_to_wire).map_err(failed));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        self.check(request.metadata()).await?;
        let request = convert::vote_request_from_wire(request.into_inner()).map_err(malformed)?;
        let response = self.node.raft.vote(request).await.map_err(failed)?;
        Ok(Response::new(convert::vote_response_to_wire(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        self.check(request.metadata()).await?;
        let request = convert::vote_request_from_wire(request.into_inner()).map_err(malformed)?;
        let response = self.node.raft.pre_vote(request).await.map_err(failed)?;
        Ok(Response::new(convert::vote_response_to_wire(&response)))
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferLeaderRequest>,
    ) -> Result<Response<peer::TransferLeaderResponse>, Status> {
        self.check(request.metadata()).await?;
        let request = request.into_inner();
        let from = convert::vote_from_wire(request.from).map_err(malformed)?;
        let last = request.last_log_id.map(convert::log_id_from_wire);
        let request = TransferLeaderRequest::new(from, request.to, last);
        let accepted = self.node.raft.handle_transfer_leader(request).await.map_err(failed)?;
        accepted.map_err(|refused| Status::failed_precondition(refused.to_string()))?;
        Ok(Response::new(peer::TransferLeaderResponse {}))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<peer::SnapshotFrame>>,
    ) -> Result<Response<peer::InstallSnapshotResponse>, Status> {
        use peer::snapshot_frame::Frame;
        self.check(request.metadata()).await?;
        let mut frames = request.into_inner();
        let mut received: Option<Received> = None;
        while let Some(frame) = frames.message().await? {
            match (frame.frame, &mut received) {
                (Some(Frame::Header(header)), None) => {
                    let store = self.node.store.clone();
                    received = Some(Received::begin(header, store).map_err(failed)?);
                }
                (Some(Frame::Rows(rows)), Some(received)) => {
                    received.rows(&rows).map_err(failed)?;
                }
                (Some(Frame::Body(bytes)), Some(_)) => {
                    let mut taking = received.take().expect("matched above");
                    let taken = runtime::background(move || {
                        taking.body(&bytes)?;
                        Ok(taking)
                    });
                    received = Some(taken.await.map_err(failed)?);
                }
                (Some(Frame::End(end)), Some(_)) => {
                    let received = received.take().expect("matched above");
                    return self.install(received, end).await;
                }
                (Some(Frame::Header(_)), Some(_))
                | (Some(Frame::Rows(_) | Frame::Body(_) | Frame::End(_)), None)
                | (None, _) => {
                    return Err(Status::invalid_argument("snapshot frames out of order"));
                }
            }
        }
        Err(Status::invalid_argument("the snapshot ended without its end frame"))
    }

    async fn forward(
        &self,
        request: Request<Streaming<peer::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        self.check(request.metadata()).await?;
        let mut requests = request.into_inner();
        let (answers, ready) = mpsc::channel(ANSWERS_AHEAD);
        let node = Arc::clone(&self.node);
        runtime::spawn(async move {
            // The stream ends when the follower closes it, or its connection breaks.
            while let Ok(Some(request)) = requests.message().await {
                let (node, answers) = (Arc::clone(&node), answers.clone());
                runtime::spawn(async move {
                    let response = node.take_forwarded(request).await;
                    // The follower is gone: it has told its callers that the outcome is unknown.
                    let _ = answers.send(Ok(response)).await;
                });
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(ready))))
    }

    async fn read_index(
        &self,
        request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        self.check(request.metadata()).await?;
        let timeout = Duration::from_millis(request.get_ref().timeout_ms);
        let confirmed = self.node.read_index(runtime::now() + timeout).await;
        let (term, index) = confirmed.map_err(failed)?;
        let read_log_id = Some(peer::LogId { term, index });
        Ok(Response::new(peer::ReadIndexResponse { read_log_id }))
    }

    async fn digest(
        &self,
        request: Request<peer::DigestRequest>,
    ) -> Result<Response<peer::DigestResponse>, Status> {
        self.check(request.metadata()).await?;
        let asked = request.get_ref().index;
        let remembered = self.node.applied.digests();
        let digest = remembered.iter().find(|(index, _)| *index == asked);
        Ok(Response::new(peer::DigestResponse {
            digest: digest.map(|(_, digest)| Bytes::copy_from_slice(digest)),
            version: crate::agree::DIGEST_VERSION,
        }))
    }

    async fn space(
        &self,
        request: Request<peer::SpaceRequest>,
    ) -> Result<Response<peer::SpaceResponse>, Status> {
        self.check(request.metadata()).await?;
        let space = self.node.look_at_disk().await.map_err(failed)?;
        Ok(Response::new(peer::SpaceResponse {
            free_bytes: space.free_bytes,
            floor_bytes: space.floor_bytes,
            low: space.is_low,
        }))
    }
}

impl PeerCalls {
    async fn install(
        &self,
        received: Received,
        end: peer::SnapshotEnd,
    ) -> Result<Response<peer::InstallSnapshotResponse>, Status> {
        let finished = runtime::background(move || received.finish(&end)).await;
        let (vote, snapshot) = finished.map_err(failed)?;
        let installed = self.node.raft.install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(failed)?;
        self.node.snapshots.installed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let vote = Some(convert::vote_to_wire(response.vote));
        Ok(Response::new(peer::InstallSnapshotResponse { vote }))
    }
}

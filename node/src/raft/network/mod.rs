//! openraft's network on the peer protocol.
//!
//! One connection for replication, one for heartbeats and votes, one for snapshots, so that a
//! large transfer never delays a sign of life. Appends are pipelined on one stream; those without
//! entries go one by one on another that stays open ([`beat`]).
//!
//! Trap: openraft awaits its back-off *inside* the request stream. A transport that fails before
//! it has polled that stream is retried in a hot loop (0.8 of a core with one follower down), so
//! the first request is always pulled before anything is dialled.

mod beat;
mod peers;
mod snapshot;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, Stream, StreamExt as _};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};

use super::convert;
use super::image::Image;
use super::peer::SnapshotCounters;
use super::types::{Member, Snapshot, TypeConfig, Vote};
use crate::runtime::{self, Pace};
pub(crate) use peers::{ForwardStream, MESSAGE_BYTES_MAX, Peers, keys};
pub(crate) use snapshot::Received;

/// How long an append may go unanswered before the stream is given up. A batch of 9 MiB with its
/// sync takes a fraction of it.
const APPEND_SILENCE_MAX: Duration = Duration::from_secs(3);

/// How long a node that could not be reached is not dialled again by the same sender: heartbeats go
/// out every 50 ms, and a node that is down answers none of them. Shorter than the shortest
/// election time-out, so that a node that comes back hears of its leader before it stands.
const REDIAL_AFTER: Duration = Duration::from_millis(100);

type AppendStream<'a> = BoxStream<'a, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

/// Makes one [`Network`] for each node and purpose.
pub(crate) struct Factory {
    pub(crate) peers: Peers,
    pub(crate) counters: Arc<SnapshotCounters>,
    pub(crate) pace: Arc<Pace>,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &Member) -> Network {
        Network {
            client: self.peers.dial(&node.peer_endpoint),
            target,
            counters: Arc::clone(&self.counters),
            beats: beat::Beats::default(),
            pace: Arc::clone(&self.pace),
        }
    }
}

/// The way to one node for one purpose.
pub(crate) struct Network {
    client: peers::Client,
    target: u64,
    counters: Arc<SnapshotCounters>,
    beats: beat::Beats,
    pace: Arc<Pace>,
}

fn unreachable(cause: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(cause))
}

impl Network {
    /// Runs a unary call within openraft's time to live.
    async fn unary<T>(
        &self,
        option: &RPCOption,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let deadline = runtime::now() + option.soft_ttl();
        match runtime::until(deadline, call).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(status)) => Err(unreachable(&status)),
            None => {
                let cause = AnyError::error(format!("n{} does not answer", self.target));
                Err(unreachable(&cause))
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut responses = self.stream_append(stream::iter([rpc]), option).await?;
        match responses.next().await {
            Some(result) => Ok(result?.into()),
            None => Err(unreachable(&AnyError::error("the peer closed the stream"))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendStream<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let (client, beats) = (self.client.clone(), self.beats.clone());
        let pace = Arc::clone(&self.pace);
        async move {
            let responses = stream::once(async move {
                // Before dialling: openraft's back-off is awaited in here.
                let Some(first) = input.next().await else { return stream::empty().boxed() };
                if !first.entries.is_empty() {
                    return append(client, first, input).await;
                }
                pace.sent();
                let answer = beat(&client, &beats, first).await;
                let goes_on = matches!(&answer, Ok(Ok(_)));
                let rest = stream::once(async move {
                    match input.next().await.filter(|_| goes_on) {
                        Some(next) => append(client, next, input).await,
                        None => stream::empty().boxed(),
                    }
                });
                stream::iter([answer]).chain(rest.flatten()).boxed()
            });
            Ok(responses.flatten().boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = self.client.request(convert::vote_request_to_wire(&rpc));
        let mut client = self.client.rpc();
        let response = self.unary(&option, client.vote(request)).await?.into_inner();
        convert::vote_response_from_wire(response).map_err(|e| unreachable(&e))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = self.client.request(convert::vote_request_to_wire(&rpc));
        let mut client = self.client.rpc();
        let response = self.unary(&option, client.pre_vote(request)).await?.into_inner();
        convert::vote_response_from_wire(response).map_err(|e| unreachable(&e))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        let index = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let (began, target) = (runtime::now(), self.target);
        let _under_way = self.counters.transfers.begin(target, index);
        tracing::info!(index, rows = snapshot.snapshot.state().len(), "sends n{target} a snapshot");
        let frames = snapshot::frames(vote, &snapshot);
        let request = self.client.request(frames);
        let mut client = self.client.rpc();
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = client.install_snapshot(request) => {
                let response = sent
                    .map_err(|status| StreamingError::Unreachable(Unreachable::new(&status)))?;
                let vote = convert::vote_from_wire(response.into_inner().vote)
                    .map_err(|e| StreamingError::Unreachable(Unreachable::new(&e)))?;
                tracing::info!(index, took = ?began.elapsed(), "n{target} has taken the snapshot in");
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = self.client.request(holdfast_proto::peer::TransferLeaderRequest {
            from: Some(convert::vote_to_wire(*req.from_leader())),
            to: *req.to_node_id(),
            last_log_id: req.last_log_id().copied().map(convert::log_id_to_wire),
        });
        let mut client = self.client.rpc();
        self.unary(&option, client.transfer_leader(request)).await?;
        Ok(Ok(()))
    }
}

/// Sends one append without entries.
async fn beat(
    client: &peers::Client,
    beats: &beat::Beats,
    request: AppendEntriesRequest<TypeConfig>,
) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
    if let Some(cause) = client.unreached_within(REDIAL_AFTER) {
        return Err(unreachable(&AnyError::error(cause)));
    }
    let deadline = runtime::now() + APPEND_SILENCE_MAX;
    match runtime::until(deadline, beats.send(client, request)).await {
        Some(answer) => answer.map_err(|status| failed(client, &status)),
        None => Err(unreachable(&silent())),
    }
}

/// What a call has come to; remembers a node that could not be reached.
fn failed(client: &peers::Client, status: &tonic::Status) -> RPCError<TypeConfig> {
    if status.code() == tonic::Code::Unavailable {
        client.note_unreached(status.message().to_owned());
    }
    unreachable(status)
}

/// Opens the stream with its first request and yields the answers in order, until either side
/// ends it or an answer is overdue.
async fn append<S>(
    client: peers::Client,
    first: AppendEntriesRequest<TypeConfig>,
    rest: S,
) -> AppendStream<'static>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    if let Some(cause) = client.unreached_within(REDIAL_AFTER) {
        return stream::iter([Err(unreachable(&AnyError::error(cause)))]).boxed();
    }
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let requests = stream::iter([first]).chain(rest).map(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        convert::append_to_wire(request)
    });
    let deadline = runtime::now() + APPEND_SILENCE_MAX;
    let request = client.request(requests);
    let mut rpc = client.rpc();
    let opened = match runtime::until(deadline, rpc.stream_append(request)).await {
        Some(Ok(response)) => response.into_inner(),
        Some(Err(status)) => return stream::iter([Err(failed(&client, &status))]).boxed(),
        None => return stream::iter([Err(unreachable(&silent()))]).boxed(),
    };
    let answers = stream::unfold(Some((opened, 0_u64)), move |state| {
        let sent = Arc::clone(&sent);
        async move {
            let (mut opened, received) = state?;
            let next = next_answer(&mut opened, &sent, received).await;
            match next {
                Ok(Some(result)) => {
                    let goes_on = result.is_ok();
                    Some((Ok(result), goes_on.then_some((opened, received + 1))))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    answers.boxed()
}

/// Waits for one answer: for ever while nothing is outstanding, else for a bounded time.
async fn next_answer(
    opened: &mut tonic::Streaming<holdfast_proto::peer::AppendResponse>,
    sent: &AtomicU64,
    received: u64,
) -> Result<Option<StreamAppendResult<TypeConfig>>, RPCError<TypeConfig>> {
    loop {
        let deadline = runtime::now() + APPEND_SILENCE_MAX;
        let outstanding = sent.load(Ordering::Relaxed) > received;
        match runtime::until(deadline, opened.message()).await {
            Some(Ok(Some(answer))) => {
                return convert::appended_from_wire(answer).map(Some).map_err(|e| unreachable(&e));
            }
            Some(Ok(None)) => return Ok(None),
            Some(Err(status)) => return Err(unreachable(&status)),
            None if outstanding => return Err(unreachable(&silent())),
            None => {}
        }
    }
}

fn silent() -> AnyError {
    AnyError::error(format!("no answer for {} s", APPEND_SILENCE_MAX.as_secs()))
}

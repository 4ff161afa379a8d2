//! openraft's network in a simulation, in the place of `network`: the same calls and streams between
//! nodes, carried by a [`World`] instead of gRPC.
//!
//! A message is on its way by itself: it arrives even if its sender has given up or died. What comes
//! in is carried out in the receiver's process, and dies with it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, Stream, StreamExt as _};
use holdfast_machine::State;
use holdfast_proto::peer;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use tokio::sync::{mpsc, oneshot};

use super::image::Image;
use super::peer::{Own, PeerError, SnapshotCounters};
use super::types::{Member, Snapshot, TypeConfig, Vote};
use crate::node::Node;
use crate::runtime::{self, Host, Instant, Pace};
use crate::sim::World;

/// How long an append may go unanswered, as in `network`.
const APPEND_SILENCE_MAX: Duration = Duration::from_secs(3);
/// What a row of a snapshot takes on its way.
const ROW_TIME: Duration = Duration::from_micros(5);

type AppendStream<'a> = BoxStream<'a, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

/// All other nodes; see `network::Peers`.
#[derive(Clone)]
pub(crate) struct Peers {
    own: Arc<Own>,
    world: Arc<World>,
    members: Arc<RwLock<BTreeMap<u64, Member>>>,
}

impl Peers {
    /// Those of the node whose process this is.
    pub(crate) fn new(own: Own, _source: Option<IpAddr>) -> Peers {
        let world = Host::current().expect("a node runs in a host").world();
        Peers { own: Arc::new(own), world, members: Arc::default() }
    }

    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    pub(crate) fn set_members<'a>(&self, members: impl Iterator<Item = (&'a u64, &'a Member)>) {
        let mut known = self.members.write().expect("no code panics while it holds this lock");
        *known = members.map(|(id, member)| (*id, member.clone())).collect();
    }

    pub(crate) fn members(&self) -> BTreeMap<u64, Member> {
        self.members.read().expect("no code panics while it holds this lock").clone()
    }

    /// Has something carried out by another node and waits for what comes of it. An error says why
    /// nothing is known about it.
    async fn call<T, F>(
        &self,
        to: u64,
        kind: &'static str,
        carry_out: impl FnOnce(Arc<Node>) -> F + Send + 'static,
    ) -> Result<T, String>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let (world, from) = (Arc::clone(&self.world), self.own.node_id);
        runtime::spawn_outside(async move {
            let broken = || Err("the connection broke".to_owned());
            let sent = runtime::since_start();
            let result = match world.cross(from, to, kind, sent).await {
                Err(_) => broken(),
                Ok(()) => match world.process(to) {
                    None => Err("nobody listens".to_owned()),
                    Some(process) => {
                        let node = process.node;
                        let carried_out =
                            process.host.spawn(async move { carry_out(node).await }).await;
                        carried_out.unwrap_or_else(|_| broken())
                    }
                },
            };
            let back = world.cross(to, from, kind, runtime::since_start()).await;
            // Nobody waits any more: the caller has given up, or is dead.
            let _ = answer.send(if back.is_ok() { result } else { broken() });
        });
        wait.await.unwrap_or_else(|_| Err("the simulation ends".to_owned()))
    }

    async fn call_within<T, F>(
        &self,
        to: u64,
        kind: &'static str,
        deadline: Instant,
        carry_out: impl FnOnce(Arc<Node>) -> F + Send + 'static,
    ) -> Result<T, PeerError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        let called = runtime::until(deadline, self.call(to, kind, carry_out)).await;
        let result = called.unwrap_or_else(|| Err("no answer in time".to_owned()));
        result.map_err(|cause| PeerError::Failed { node: to, cause })
    }

    /// One direction of a connection: what is put in comes out in order, each after its delay. When
    /// either end is gone, or a message is lost, so is the rest.
    fn line<T: Send + 'static>(&self, from: u64, to: u64, kind: &'static str) -> (Line<T>, Out<T>) {
        let (put, mut taken) = mpsc::unbounded_channel::<(Duration, T)>();
        let (arrived, out) = mpsc::unbounded_channel();
        let world = Arc::clone(&self.world);
        runtime::spawn_outside(async move {
            while let Some((sent, message)) = taken.recv().await {
                let crossed = world.cross(from, to, kind, sent).await;
                if crossed.is_err() || arrived.send(message).is_err() {
                    return;
                }
            }
            // That it has ended is a message as well; if that is lost, silence says it.
            let _ = world.cross(from, to, kind, runtime::since_start()).await;
        });
        (Line(put), out)
    }

    pub(crate) async fn read_index(
        &self,
        leader: u64,
        deadline: Instant,
    ) -> Result<u64, PeerError> {
        let timeout = deadline.saturating_duration_since(runtime::now());
        self.call_within(leader, "read index", deadline, move |node| async move {
            let read = node.read_index(runtime::now() + timeout).await;
            read.map(|(_, index)| index).map_err(str::to_owned)
        })
        .await
    }

    pub(crate) async fn digest(
        &self,
        node: u64,
        index: u64,
        deadline: Instant,
    ) -> Result<peer::DigestResponse, PeerError> {
        self.call_within(node, "digest", deadline, move |node| async move {
            let remembered = node.applied.digests();
            let digest = remembered.into_iter().find(|(at, _)| *at == index);
            Ok(peer::DigestResponse {
                digest: digest.map(|(_, digest)| bytes::Bytes::copy_from_slice(&digest)),
                version: crate::agree::DIGEST_VERSION,
            })
        })
        .await
    }

    /// Who listens at an endpoint: nobody moves in a simulation.
    pub(crate) async fn hello(
        &self,
        _endpoint: &str,
        _deadline: Instant,
    ) -> Result<peer::HelloResponse, PeerError> {
        Err(PeerError::NotSent { node: 0, cause: "nodes do not move".to_owned() })
    }

    /// See `network::Peers::forward`.
    pub(crate) async fn forward(
        &self,
        leader: u64,
        mut requests: mpsc::Receiver<peer::ForwardRequest>,
        deadline: Instant,
    ) -> Result<ForwardStream, PeerError> {
        let own = self.own.node_id;
        let (sending, mut arriving) = self.line(own, leader, "forward");
        let (answering, answers) = self.line(leader, own, "forwarded");
        let connected = self.call_within(leader, "connect", deadline, move |node| async move {
            runtime::spawn(async move {
                while let Some(request) = arriving.recv().await {
                    let (node, answering) = (Arc::clone(&node), answering.clone());
                    runtime::spawn(async move {
                        let response = node.take_forwarded(request).await;
                        answering.put(response);
                    });
                }
            });
            Ok(())
        });
        connected
            .await
            .map_err(|error| PeerError::NotSent { node: leader, cause: error.to_string() })?;
        runtime::spawn(async move {
            while let Some(request) = requests.recv().await {
                sending.put(request);
            }
        });
        Ok(ForwardStream { node: leader, answers })
    }
}

/// The end of a connection where messages are put in.
struct Line<T>(mpsc::UnboundedSender<(Duration, T)>);
/// The end where they come out.
type Out<T> = mpsc::UnboundedReceiver<T>;

impl<T> Clone for Line<T> {
    fn clone(&self) -> Line<T> {
        Line(self.0.clone())
    }
}

impl<T> Line<T> {
    fn put(&self, message: T) {
        // The connection is gone: so is the message.
        let _ = self.0.send((runtime::since_start(), message));
    }
}

/// Answers of the leader to forwarded writes.
pub(crate) struct ForwardStream {
    node: u64,
    answers: Out<peer::ForwardResponse>,
}

impl ForwardStream {
    pub(crate) async fn next(&mut self) -> Result<peer::ForwardResponse, PeerError> {
        let ended = || PeerError::Failed { node: self.node, cause: "the stream ended".to_owned() };
        self.answers.recv().await.ok_or_else(ended)
    }
}

/// Makes one [`Network`] for each node and purpose.
pub(crate) struct Factory {
    pub(crate) peers: Peers,
    pub(crate) counters: Arc<SnapshotCounters>,
    pub(crate) pace: Arc<Pace>,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, _node: &Member) -> Network {
        Network {
            peers: self.peers.clone(),
            target,
            counters: Arc::clone(&self.counters),
            pace: Arc::clone(&self.pace),
        }
    }
}

/// The way to one node.
pub(crate) struct Network {
    peers: Peers,
    target: u64,
    counters: Arc<SnapshotCounters>,
    pace: Arc<Pace>,
}

fn unreachable(cause: impl std::fmt::Display) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(cause)))
}

impl Network {
    async fn unary<T, F>(
        &self,
        kind: &'static str,
        option: &RPCOption,
        carry_out: impl FnOnce(Arc<Node>) -> F + Send + 'static,
    ) -> Result<T, RPCError<TypeConfig>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        let deadline = runtime::now() + option.soft_ttl();
        let called = self.peers.call_within(self.target, kind, deadline, carry_out).await;
        called.map_err(unreachable)
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
            None => Err(unreachable("the peer closed the stream")),
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
        let (peers, target, pace) = (self.peers.clone(), self.target, Arc::clone(&self.pace));
        async move {
            let responses = stream::once(async move {
                let Some(first) = input.next().await else { return stream::empty().boxed() };
                if !first.entries.is_empty() {
                    return append(&peers, target, first, input);
                }
                pace.sent();
                let answer = beat(&peers, target, first).await;
                let goes_on = matches!(&answer, Ok(Ok(_)));
                let rest = stream::once(async move {
                    match input.next().await.filter(|_| goes_on) {
                        Some(next) => append(&peers, target, next, input),
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
        self.unary("vote", &option, move |node| async move {
            node.raft.vote(rpc).await.map_err(|error| error.to_string())
        })
        .await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.unary("pre-vote", &option, move |node| async move {
            node.raft.pre_vote(rpc).await.map_err(|error| error.to_string())
        })
        .await
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
        let _under_way = self.counters.transfers.begin(self.target, index);
        let rows = u32::try_from(snapshot.snapshot.state().len()).unwrap_or(u32::MAX);
        let sending = self.peers.call(self.target, "snapshot", move |node| async move {
            let Snapshot { meta, snapshot: image } = snapshot;
            runtime::sleep(ROW_TIME * rows).await;
            let state = image.state();
            let rows = state.rows().map(|(key, value)| (Arc::clone(key), Arc::clone(value)));
            let state = State::from_rows(rows.chain([state.header_row()]))
                .map_err(|fault| fault.to_string())?;
            let mut building = node.store.build().map_err(|error| error.to_string())?;
            let arrived = image.for_each_body(|bytes| building.put_body(&bytes).map(drop));
            let image = arrived.and_then(|()| Image::arrived(state, building));
            let image = image.map_err(|error: std::io::Error| error.to_string())?;
            let snapshot = Snapshot { meta, snapshot: image };
            let installed = node.raft.install_full_snapshot(vote, snapshot).await;
            node.snapshots.installed.fetch_add(1, Ordering::Relaxed);
            installed.map_err(|fatal| fatal.to_string())
        });
        runtime::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => sent.map_err(|cause| {
                StreamingError::Unreachable(Unreachable::new(&AnyError::error(cause)))
            }),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.unary("transfer", &option, move |node| async move {
            let taken = node.raft.handle_transfer_leader(req).await;
            taken.map_err(|fatal| fatal.to_string())?.map_err(|refused| refused.to_string())
        })
        .await?;
        Ok(Ok(()))
    }
}

/// Sends one append without entries.
async fn beat(
    peers: &Peers,
    target: u64,
    request: AppendEntriesRequest<TypeConfig>,
) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
    let deadline = runtime::now() + APPEND_SILENCE_MAX;
    let called = peers.call_within(target, "beat", deadline, move |node| async move {
        node.pace.heard();
        let mut answers = Box::pin(node.raft.stream_append(stream::iter([request]).boxed()));
        let answer = answers.next().await.ok_or("the peer closed the stream")?;
        answer.map_err(|fatal| fatal.to_string())
    });
    called.await.map_err(unreachable)
}

/// Opens a stream with its first request and yields the answers in order, until either side ends it
/// or an answer is overdue; see `network::append`.
fn append<S>(
    peers: &Peers,
    target: u64,
    first: AppendEntriesRequest<TypeConfig>,
    mut rest: S,
) -> AppendStream<'static>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let own = peers.own.node_id;
    let (sending, arriving) = peers.line(own, target, "append");
    let (answering, answers) = peers.line(target, own, "appended");
    let world = Arc::clone(&peers.world);
    runtime::spawn_outside(async move {
        // The stream is opened by its first message, wherever the process is by then.
        let mut arriving = arriving;
        let Some(first) = arriving.recv().await else { return };
        if let Some(process) = world.process(target) {
            process.host.spawn(take_appends(process.node, first, arriving, answering));
        }
    });
    let sent = Arc::new(AtomicU64::new(1));
    sending.put(first);
    let counted = Arc::clone(&sent);
    let feeding = runtime::spawn(async move {
        while let Some(request) = rest.next().await {
            counted.fetch_add(1, Ordering::Relaxed);
            sending.put(request);
        }
    });
    let feeding = Feeding(feeding);
    let answers = stream::unfold(Some((answers, 0_u64, feeding)), move |state| {
        let sent = Arc::clone(&sent);
        async move {
            let (mut answers, received, feeding) = state?;
            match next_answer(&mut answers, &sent, received).await {
                Ok(Some(result)) => {
                    let goes_on = result.is_ok();
                    Some((Ok(result), goes_on.then_some((answers, received + 1, feeding))))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    answers.boxed()
}

/// The task that feeds a stream ends with it.
struct Feeding(runtime::JoinHandle<()>);

impl Drop for Feeding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn next_answer(
    answers: &mut Out<StreamAppendResult<TypeConfig>>,
    sent: &AtomicU64,
    received: u64,
) -> Result<Option<StreamAppendResult<TypeConfig>>, RPCError<TypeConfig>> {
    loop {
        let deadline = runtime::now() + APPEND_SILENCE_MAX;
        let outstanding = sent.load(Ordering::Relaxed) > received;
        match runtime::until(deadline, answers.recv()).await {
            Some(Some(answer)) => return Ok(Some(answer)),
            Some(None) if outstanding => return Err(unreachable("the connection broke")),
            Some(None) => return Ok(None),
            None if outstanding => return Err(unreachable("no answer")),
            None => {}
        }
    }
}

/// The follower's side of an append stream.
async fn take_appends(
    node: Arc<Node>,
    first: AppendEntriesRequest<TypeConfig>,
    arriving: Out<AppendEntriesRequest<TypeConfig>>,
    answering: Line<StreamAppendResult<TypeConfig>>,
) {
    let pace = Arc::clone(&node.pace);
    let requests = stream::unfold((Some(first), arriving), move |(first, mut arriving)| {
        let pace = Arc::clone(&pace);
        async move {
            let request = match first {
                Some(first) => first,
                None => arriving.recv().await?,
            };
            pace.heard();
            Some((request, (None, arriving)))
        }
    });
    let mut answers = Box::pin(node.raft.stream_append(requests.boxed()));
    while let Some(Ok(answer)) = answers.next().await {
        answering.put(answer);
    }
}

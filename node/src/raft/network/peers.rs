//! The other nodes: where they are, how to dial them, and the calls that are not Raft's own.
//!
//! Every request names the cluster, the sending node, its incarnation and the nonce of its
//! process, so that the receiver can refuse a foreign cluster, a wiped directory and a copy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use holdfast_proto::peer;
use holdfast_proto::peer::peer_client::PeerClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

use crate::raft::peer::{Own, PeerError};
use crate::raft::types::Member;
use crate::runtime::{self, Instant};

/// How long a connection may take; a node on the same network answers within milliseconds.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// Pings on every connection, also idle ones: a peer that is gone without a word is noticed after
/// the sum of the two.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
const KEEPALIVE_MAX: Duration = Duration::from_secs(2);
/// What peers accept in one message: an entry of 9 MiB, or a read of the log, with its envelope.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// For how long a leader that could not be reached is not dialled again for writes: while it is dead
/// and no other is elected, every waiting call comes by here again and again.
const REDIAL_FORWARD_AFTER: Duration = Duration::from_millis(20);

/// HTTP/2 flow control: one whole message may be on its way.
const WINDOW_BYTES: u32 = 16 << 20;

/// All other nodes; cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    own: Arc<Own>,
    /// Where connections come from, if it was said.
    source: Option<IpAddr>,
    members: Arc<RwLock<BTreeMap<u64, (Member, Client)>>>,
}

impl Peers {
    pub(crate) fn new(own: Own, source: Option<IpAddr>) -> Peers {
        Peers { own: Arc::new(own), source, members: Arc::default() }
    }

    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    /// Takes over a new membership; connections to unchanged members stay.
    pub(crate) fn set_members<'a>(&self, members: impl Iterator<Item = (&'a u64, &'a Member)>) {
        let mut known = self.members.write().expect("no code panics while it holds this lock");
        let mut next = BTreeMap::new();
        for (id, member) in members {
            let client = match known.remove(id) {
                Some((old, client)) if old.peer_endpoint == member.peer_endpoint => client,
                Some(_) | None => self.dial(&member.peer_endpoint),
            };
            next.insert(*id, (member.clone(), client));
        }
        *known = next;
    }

    /// The member of that id, if there is one.
    pub(crate) fn member(&self, id: u64) -> Option<Member> {
        let known = self.members.read().expect("no code panics while it holds this lock");
        known.get(&id).map(|(member, _)| member.clone())
    }

    /// All members, this node among them.
    pub(crate) fn members(&self) -> BTreeMap<u64, Member> {
        let known = self.members.read().expect("no code panics while it holds this lock");
        known.iter().map(|(id, (member, _))| (*id, member.clone())).collect()
    }

    /// A connection of its own, made at the first call and again whenever it breaks.
    pub(crate) fn dial(&self, endpoint: &str) -> Client {
        let uri = format!("http://{endpoint}");
        // Endpoints are checked when they enter the membership; an odd one fails when dialled.
        let endpoint = Endpoint::from_shared(uri)
            .unwrap_or_else(|_| Endpoint::from_static("http://0.0.0.0:0"))
            .local_address(self.source)
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_MAX)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = endpoint.connect_lazy();
        Client { channel, endpoint, own: Arc::clone(&self.own), unreached: Arc::default() }
    }

    fn client(&self, node: u64) -> Result<Client, PeerError> {
        let known = self.members.read().expect("no code panics while it holds this lock");
        known.get(&node).map(|(_, client)| client.clone()).ok_or_else(|| PeerError::NotSent {
            node,
            cause: "it is not a member of this cluster".to_owned(),
        })
    }

    /// The index that a linearizable read must see, from the leader.
    pub(crate) async fn read_index(
        &self,
        leader: u64,
        deadline: Instant,
    ) -> Result<u64, PeerError> {
        let client = self.client(leader)?;
        let timeout = deadline.saturating_duration_since(runtime::now());
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let request = client.request(peer::ReadIndexRequest { timeout_ms });
        let mut rpc = client.rpc();
        let response = within(leader, deadline, rpc.read_index(request)).await?;
        response.read_log_id.map(|log_id| log_id.index).ok_or_else(|| PeerError::Failed {
            node: leader,
            cause: "the answer has no log id".to_owned(),
        })
    }

    /// The digest of another node's state at an index, if it remembers it.
    pub(crate) async fn digest(
        &self,
        node: u64,
        index: u64,
        deadline: Instant,
    ) -> Result<peer::DigestResponse, PeerError> {
        let client = self.client(node)?;
        let request = client.request(peer::DigestRequest { index });
        let mut rpc = client.rpc();
        within(node, deadline, rpc.digest(request)).await
    }

    /// How much of another node's disk is free.
    pub(crate) async fn space(
        &self,
        node: u64,
        deadline: Instant,
    ) -> Result<peer::SpaceResponse, PeerError> {
        let client = self.client(node)?;
        let request = client.request(peer::SpaceRequest {});
        let mut rpc = client.rpc();
        within(node, deadline, rpc.space(request)).await
    }

    /// Who listens at an endpoint.
    pub(crate) async fn hello(
        &self,
        endpoint: &str,
        deadline: Instant,
    ) -> Result<peer::HelloResponse, PeerError> {
        let client = self.dial(endpoint);
        let request = client.request(peer::HelloRequest {});
        let mut rpc = client.rpc();
        within(0, deadline, rpc.hello(request)).await
    }

    /// Opens the stream on which writes travel to the leader. The connection is made first, so
    /// that `NotSent` is certain.
    pub(crate) async fn forward(
        &self,
        leader: u64,
        requests: mpsc::Receiver<peer::ForwardRequest>,
        deadline: Instant,
    ) -> Result<ForwardStream, PeerError> {
        let not_sent = |cause: String| PeerError::NotSent { node: leader, cause };
        let client = self.client(leader)?;
        if let Some(cause) = client.unreached_within(REDIAL_FORWARD_AFTER) {
            return Err(not_sent(cause));
        }
        let connected = match runtime::until(deadline, client.endpoint.connect()).await {
            Some(connected) => connected.map_err(|error| chain(&error)),
            None => Err("no answer".to_owned()),
        };
        let connected = connected.map_err(|cause| {
            client.note_unreached(cause.clone());
            not_sent(cause)
        })?;
        let request = client.request(ReceiverStream::new(requests));
        let mut rpc = limited(connected);
        let opened = within(leader, deadline, rpc.forward(request)).await?;
        Ok(ForwardStream { node: leader, opened })
    }
}

/// Answers of the leader to forwarded writes.
pub(crate) struct ForwardStream {
    node: u64,
    opened: tonic::Streaming<peer::ForwardResponse>,
}

impl ForwardStream {
    /// The next answer; an error once the stream has ended, whoever ended it.
    pub(crate) async fn next(&mut self) -> Result<peer::ForwardResponse, PeerError> {
        let failed = |cause| PeerError::Failed { node: self.node, cause };
        match self.opened.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(failed("the stream ended".to_owned())),
            Err(status) => Err(failed(status.message().to_owned())),
        }
    }
}

async fn within<T>(
    node: u64,
    deadline: Instant,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, PeerError> {
    match runtime::until(deadline, call).await {
        Some(Ok(response)) => Ok(response.into_inner()),
        Some(Err(status)) => Err(PeerError::Failed { node, cause: status.message().to_owned() }),
        None => Err(PeerError::Failed { node, cause: "no answer in time".to_owned() }),
    }
}

/// An error with its causes, which tonic keeps apart.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn limited(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A connection to one node.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    endpoint: Endpoint,
    own: Arc<Own>,
    /// When and why it was last out of reach; clones share it.
    unreached: Arc<Mutex<Option<(Instant, String)>>>,
}

/// The metadata keys of the handshake.
pub(crate) mod keys {
    pub(crate) const CLUSTER: &str = "holdfast-cluster";
    pub(crate) const NODE: &str = "holdfast-node";
    pub(crate) const INCARNATION: &str = "holdfast-incarnation";
    pub(crate) const NONCE: &str = "holdfast-nonce";
}

impl Client {
    pub(crate) fn rpc(&self) -> PeerClient<Channel> {
        limited(self.channel.clone())
    }

    /// Notes that the node cannot be reached now, and why.
    pub(crate) fn note_unreached(&self, cause: String) {
        let mut unreached = self.unreached.lock().expect("no code panics while it holds this lock");
        *unreached = Some((runtime::now(), cause));
    }

    /// Why the node could not be reached, if that was not longer ago than this: then it is pointless
    /// to dial it again.
    pub(crate) fn unreached_within(&self, pause: Duration) -> Option<String> {
        let unreached = self.unreached.lock().expect("no code panics while it holds this lock");
        let (at, cause) = unreached.as_ref()?;
        (runtime::now() < *at + pause).then(|| cause.clone())
    }

    /// A request that says who sends it.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let metadata = request.metadata_mut();
        let cluster = MetadataValue::try_from(&self.own.cluster_id);
        metadata.insert(keys::CLUSTER, cluster.expect("a UUID is plain ASCII"));
        metadata.insert(keys::NODE, MetadataValue::from(self.own.node_id));
        metadata.insert(keys::INCARNATION, MetadataValue::from(self.own.incarnation));
        metadata.insert(keys::NONCE, MetadataValue::from(self.own.nonce));
        request
    }
}

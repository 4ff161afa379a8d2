//! Starting and stopping a node.
//!
//! Order at the start: settings, data directory and its lock, sockets, identity (forming or
//! joining if it is new), proof that syncs are real, stores, consensus, services. Whatever is in
//! the way ends the start with an error that says what to do, before anything is changed that a
//! later step would need undone.
//!
//! Order at the stop: hand over the lead, finish what is in flight, close the services, stop
//! consensus, close the stores; bounded, so that a supervisor never has to kill.

mod error;
mod http;
mod identity;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::{SnapshotPolicy, async_runtime::WatchReceiver as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use error::ServeError;

use crate::alarm::Alarms;
use crate::config::Config;
use crate::forward::Forwarder;
use crate::leadership::{self, Leader};
use crate::measures::Measures;
use crate::node::Node;
use crate::propose::Proposer;
use crate::raft::log::Log;
use crate::raft::machine::StateMachine;
use crate::raft::network::{Factory, Own, Peers, SnapshotCounters};
use crate::raft::types::Raft;
use crate::read::Reads;
use crate::runtime::Pace;
use crate::store::{DataDir, LogStore, StateStore, sync};
use crate::{agree, expire, grpc, members, runtime, trim};

/// Requests in flight on one client connection; more wait in the connection.
const CALLS_PER_CONNECTION_MAX: usize = 256;
/// Pings on client connections: a client that is gone without a word frees its calls.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_MAX: Duration = Duration::from_secs(10);
/// How long handing over the lead may take.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// How long calls in flight may take to finish once the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How long consensus may have stopped by itself before the node stops too.
const FAILURE_WATCH_PAUSE: Duration = Duration::from_millis(250);
/// What one replication message carries at most, in entries; the log bounds its bytes.
const ENTRIES_PER_MESSAGE_MAX: u64 = 1024;

/// Something to wait for. Boxed where it is made, so that a node's code is compiled into this crate
/// and not again into each program that runs one.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs a node until `stop` resolves, or until it must stop by itself.
///
/// # Errors
/// Whatever keeps the node from starting, or made it stop; see [`ServeError::code`].
pub fn serve(config: Config, stop: Boxed<()>) -> Boxed<Result<(), ServeError>> {
    Box::pin(run(config, stop))
}

async fn run(config: Config, mut stop: Boxed<()>) -> Result<(), ServeError> {
    config.validate().map_err(|invalid| ServeError::invalid(&invalid))?;
    sync::set_unsafe_no_sync(config.unsafe_no_sync);
    let (stop_reason, mut stopped_for) = watch::channel(None);
    let on_fault = stop_reason.clone();
    let dir = DataDir::open(
        &config.data_dir,
        Arc::new(move |text| {
            on_fault.send_replace(Some(text.to_owned()));
        }),
    )?;
    let sockets = Sockets::bind(&config).await?;
    let identity = tokio::select! {
        identity = identity::establish(&config, &dir, &sockets) => identity?,
        () = &mut stop => return Ok(()),
    };
    if !config.unsafe_no_sync {
        let path = config.data_dir.clone();
        runtime::blocking(move || sync::prove(&path)).await?;
    } else {
        tracing::warn!("syncs are switched off: a power cut loses acknowledged writes");
    }
    let running = Running::start(config, dir, &identity, &sockets, stop_reason).await?;
    tracing::info!(
        "n{} of cluster {} serves clients at {} and peers at {}",
        identity.own.node_id,
        identity.own.cluster_id,
        sockets.client_endpoint,
        sockets.peer_endpoint
    );
    let servers = Servers::start(&running.node, sockets);
    let cause = tokio::select! {
        () = &mut stop => None,
        text = wait_for_cause(&mut stopped_for) => Some(text),
        error = identity::announce(&running.node, &identity) => {
            running.stop(servers).await;
            return Err(error);
        }
    };
    running.stop(servers).await;
    match cause {
        None => Ok(()),
        Some(text) => Err(ServeError::fault(&text)),
    }
}

async fn wait_for_cause(stopped_for: &mut watch::Receiver<Option<String>>) -> String {
    loop {
        if let Some(text) = stopped_for.borrow_and_update().clone() {
            return text;
        }
        if stopped_for.changed().await.is_err() {
            // The sender lives in the node, which lives in the caller.
            std::future::pending::<()>().await;
        }
    }
}

/// Both listening sockets, and what is told about them.
struct Sockets {
    client: TcpListener,
    peer: TcpListener,
    client_endpoint: String,
    peer_endpoint: String,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Sockets, ServeError> {
        let client = bind(config.client_addr).await?;
        let peer = bind(config.peer_addr).await?;
        let client_endpoint =
            config.client_endpoint(client.local_addr().map_err(ServeError::socket)?);
        let peer_endpoint = config.peer_endpoint(peer.local_addr().map_err(ServeError::socket)?);
        Ok(Sockets { client, peer, client_endpoint, peer_endpoint })
    }
}

async fn bind(addr: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(addr).await.map_err(|error| ServeError::bind(addr, &error))
}

/// A node with everything it owns.
struct Running {
    node: Arc<Node>,
    state: StateStore,
}

impl Running {
    async fn start(
        config: Config,
        dir: DataDir,
        identity: &identity::Established,
        sockets: &Sockets,
        stop_reason: watch::Sender<Option<String>>,
    ) -> Result<Running, ServeError> {
        let opened = dir.clone();
        let (log, log_start, state, rows) = runtime::blocking(move || {
            let (log, log_start) = LogStore::open(&opened)?;
            let (state, rows) = StateStore::open(&opened)?;
            Ok::<_, ServeError>((log, log_start, state, rows))
        })
        .await?;
        let machine = runtime::blocking({
            let state = state.clone();
            move || StateMachine::new(state, rows)
        })
        .await
        .map_err(|fault| ServeError::damaged(&fault))?;
        let applied = machine.applied();
        let peers = Peers::new(identity.own.clone(), config.peer_source_addr);
        let snapshots = Arc::new(SnapshotCounters::default());
        let raft_log =
            Log::new(log.clone(), log_start).map_err(|error| ServeError::damaged(&error))?;
        let pace = Pace::new(
            Duration::from_millis(config.heartbeat_ms),
            Duration::from_millis(config.election_min_ms),
        );
        let factory = Factory {
            peers: peers.clone(),
            counters: Arc::clone(&snapshots),
            pace: Arc::clone(&pace),
        };
        let raft =
            Raft::new(identity.own.node_id, raft_config(&config)?, factory, raft_log, machine);
        let raft = pace.drive(raft).await.map_err(|fatal| ServeError::damaged(&fatal))?;
        if identity.forms {
            form(&raft, &identity.own, sockets).await?;
        }
        let tasks = runtime::Tasks::default();
        follow_members(&raft, &peers, &tasks);
        let lead = leadership::follow(&raft, &applied, &pace, config.election_max_ms, &tasks);
        let reads =
            Reads::start(raft.clone(), Arc::clone(&applied), lead.clone(), peers.clone(), &tasks);
        let proposer = Proposer::start(
            raft.clone(),
            Arc::clone(&applied),
            lead.clone(),
            reads.clone(),
            &tasks,
        );
        let forwarder = Forwarder::start(peers.clone(), &tasks);
        let node = Arc::new(Node {
            config,
            raft,
            applied,
            lead,
            peers,
            proposer,
            forwarder,
            reads,
            snapshots,
            log,
            held: Node::held_calls(),
            measures: Measures::default(),
            changing: tokio::sync::Mutex::new(()),
            pace,
            alarms: Alarms::default(),
            stop_reason,
            tasks,
            _dir: dir,
        });
        background(&node);
        Ok(Running { node, state })
    }

    async fn stop(self, servers: Servers) {
        let node = &self.node;
        if matches!(node.lead.borrow().leader, Leader::Me(_)) && node.raft.voter_ids().count() > 1 {
            let deadline = runtime::now() + HAND_OVER_MAX;
            match node.move_lead(None, deadline).await {
                Ok(()) => {}
                Err(refused) => tracing::warn!("the lead was not handed over: {refused}"),
            }
        }
        node.applied.end_watches();
        servers.stop().await;
        node.tasks.abort();
        if let Err(error) = node.raft.shutdown().await {
            tracing::warn!("stop consensus: {error}");
        }
        let (log, state) = (node.log.clone(), self.state.clone());
        runtime::blocking(move || {
            state.shutdown();
            log.shutdown();
        })
        .await;
        tracing::info!("stopped");
    }
}

fn raft_config(config: &Config) -> Result<Arc<openraft::Config>, ServeError> {
    let raft = openraft::Config {
        cluster_name: "holdfast".to_owned(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: config.election_min_ms,
        election_timeout_max: config.election_max_ms,
        enable_pre_vote: Some(true),
        // A restarted leader stands for election like any other node: its term's first entry is
        // what makes its state, and its clock, good for calls.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every_entries),
        // The log is purged by `trim`, which knows more.
        max_in_snapshot_log_to_keep: u64::MAX,
        // A follower is sent a snapshot only when the log it needs is gone.
        replication_lag_threshold: u64::MAX,
        max_payload_entries: ENTRIES_PER_MESSAGE_MAX,
        ..openraft::Config::default()
    };
    let raft = raft.validate().map_err(|error| ServeError::damaged(&error))?;
    Ok(Arc::new(raft))
}

async fn form(raft: &Raft, own: &Own, sockets: &Sockets) -> Result<(), ServeError> {
    if raft.is_initialized().await.map_err(|fatal| ServeError::damaged(&fatal))? {
        return Ok(());
    }
    let member = identity::member(own, &sockets.client_endpoint, &sockets.peer_endpoint);
    let members = std::collections::BTreeMap::from([(own.node_id, member)]);
    raft.initialize(members).await.map_err(|error| ServeError::damaged(&error))
}

/// Keeps the directory of peers in step with the membership.
fn follow_members(raft: &Raft, peers: &Peers, tasks: &runtime::Tasks) {
    let mut metrics = raft.server_metrics();
    let peers = peers.clone();
    let mut seen = Arc::clone(&metrics.borrow_watched().membership_config);
    peers.set_members(seen.nodes());
    tasks.spawn(async move {
        while metrics.changed().await.is_ok() {
            let membership = Arc::clone(&metrics.borrow_watched().membership_config);
            if !Arc::ptr_eq(&membership, &seen) {
                peers.set_members(membership.nodes());
                seen = membership;
            }
        }
    });
}

/// What runs for the node's life beside the calls.
fn background(node: &Arc<Node>) {
    let ticks = expire::run(node.raft.clone(), Arc::clone(&node.applied), node.lead.clone());
    node.tasks.spawn(ticks);
    let transfers = node.snapshots.transfers.clone();
    let keep = node.config.log_keep_entries;
    node.tasks.spawn(trim::run(node.raft.clone(), node.log.clone(), transfers, keep));
    // These two hold the node weakly through their task's owner: the node aborts them.
    node.tasks.spawn(members::promote(Arc::clone(node), node.lead.clone()));
    let watched = Arc::clone(node);
    node.tasks.spawn(async move {
        let text = agree::watch(Arc::clone(&watched)).await;
        watched.stop_for(text);
    });
    let watched = Arc::clone(node);
    node.tasks.spawn(async move {
        let mut metrics = watched.raft.metrics();
        loop {
            let failure = metrics.borrow_watched().running_state.clone().err();
            if let Some(fatal) = failure {
                watched.stop_for(format!("consensus stopped: {fatal}"));
                return;
            }
            if metrics.changed().await.is_err() {
                return;
            }
            // They change with every tick and entry, and this is looked for once in a node's life.
            runtime::sleep(FAILURE_WATCH_PAUSE).await;
        }
    });
}

/// Both servers.
struct Servers {
    stop: watch::Sender<bool>,
    client: runtime::JoinHandle<()>,
    peer: runtime::JoinHandle<()>,
}

impl Servers {
    fn start(node: &Arc<Node>, sockets: Sockets) -> Servers {
        let (stop, stopping) = watch::channel(false);
        let client = Server::builder()
            .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_MAX))
            .tcp_nodelay(true)
            .accept_http1(true)
            .add_routes(http::client_routes(node));
        let peer = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_MAX))
            .tcp_nodelay(true)
            .add_routes(grpc::peer::peer_routes(node));
        let incoming = |listener| TcpIncoming::from(listener).with_nodelay(Some(true));
        Servers {
            stop,
            client: spawn_server(client, incoming(sockets.client), stopping.clone()),
            peer: spawn_server(peer, incoming(sockets.peer), stopping),
        }
    }

    /// Takes no more calls, lets those in flight finish for a bounded time, then closes. Streams
    /// between nodes never end by themselves, so the peer port is closed without waiting.
    async fn stop(self) {
        self.stop.send_replace(true);
        let mut client = self.client;
        if runtime::until(runtime::now() + DRAIN_MAX, &mut client).await.is_none() {
            client.abort();
        }
        self.peer.abort();
    }
}

fn spawn_server(
    router: tonic::transport::server::Router,
    incoming: TcpIncoming,
    mut stopping: watch::Receiver<bool>,
) -> runtime::JoinHandle<()> {
    runtime::spawn(async move {
        let stop = async move {
            // An error means that the node is gone, which is a stop as well.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stop).await {
            tracing::error!("serve: {error}");
        }
    })
}

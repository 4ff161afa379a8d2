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

use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use error::ServeError;

use crate::assemble::{Parts, assemble};
use crate::config::Config;
use crate::leadership::Leader;
use crate::node::Node;
use crate::runtime::watch;
use crate::store::{DataDir, sync};
use crate::{grpc, runtime, space};

/// Requests in flight on one client connection; more wait in the connection.
const CALLS_PER_CONNECTION_MAX: usize = 256;
/// Pings on client connections: a client that is gone without a word frees its calls.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_MAX: Duration = Duration::from_secs(10);
/// How long handing over the lead may take.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// How long calls in flight may take to finish once the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);
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
}

impl Running {
    async fn start(
        config: Config,
        dir: DataDir,
        identity: &identity::Established,
        sockets: &Sockets,
        stop_reason: watch::Sender<Option<String>>,
    ) -> Result<Running, ServeError> {
        let forms = identity.forms.then(|| {
            identity::member(&identity.own, &sockets.client_endpoint, &sockets.peer_endpoint)
        });
        let parts = Parts { config, dir, own: identity.own.clone(), forms, stop_reason };
        let node = assemble(parts).await?;
        node.tasks.spawn(space::watch(Arc::clone(&node)));
        Ok(Running { node })
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
        node.closing.send_replace(true);
        servers.stop().await;
        node.tasks.abort();
        if let Err(error) = node.raft.shutdown().await {
            tracing::warn!("stop consensus: {error}");
        }
        let (log, store) = (node.log.clone(), node.store.clone());
        runtime::blocking(move || {
            store.shutdown();
            log.shutdown();
        })
        .await;
        tracing::info!("stopped");
    }
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

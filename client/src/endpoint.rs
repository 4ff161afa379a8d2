//! One address of the cluster: its connection, and how it has been behaving.
//!
//! The connection is made as a step of its own, before a request is handed over: what fails there
//! was never sent. Everybody who needs the connection waits for the same attempt. A connection that
//! broke is forgotten, and the next call makes a new one.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::config::ClientConfig;
use crate::error::deepest_cause;
use crate::pipeline::Pipeline;

/// How long an endpoint is passed over after its first failure; doubles with each further one.
const AVOID_FIRST: Duration = Duration::from_secs(1);
/// Longest time that an endpoint is passed over, so that a node that comes back is used again soon.
const AVOID_MAX: Duration = Duration::from_secs(10);

/// How much of one response may be on its way, in bytes: a page of values, the largest of which are
/// 1 MiB, without waiting for a window update.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// How much of all responses of a connection may be on its way, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// A step towards a connection, shared by all who wait for it.
type Connecting = Shared<BoxFuture<'static, Result<Connection, Arc<str>>>>;

/// An open channel, and which of this endpoint's channels it is.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    pub(crate) pipeline: Pipeline,
    generation: u64,
}

pub(crate) struct Endpoint {
    address: Arc<str>,
    /// Told by a node rather than configured.
    is_learned: bool,
    connect_timeout: Duration,
    /// How to connect, or why that cannot be.
    target: Result<tonic::transport::Endpoint, String>,
    // A std lock: held for a few moves, never across an await.
    state: Mutex<State>,
}

struct State {
    slot: Slot,
    generation: u64,
    failures: u32,
    avoid_until: Option<Instant>,
}

enum Slot {
    Idle,
    Connecting(Connecting),
    Connected(Connection),
}

impl Endpoint {
    pub(crate) fn new(address: Arc<str>, is_learned: bool, config: &ClientConfig) -> Endpoint {
        let state = State { slot: Slot::Idle, generation: 0, failures: 0, avoid_until: None };
        Endpoint {
            target: target(&address, config),
            address,
            is_learned,
            connect_timeout: config.connect_timeout,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(crate) fn is_learned(&self) -> bool {
        self.is_learned
    }

    /// Why there never can be a connection, if so.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.target.as_ref().err().map(String::as_str)
    }

    /// The open connection, or the outcome of making one, within the connect time-out.
    pub(crate) async fn connection(&self) -> Result<Connection, Arc<str>> {
        let connecting = {
            let mut state = self.lock();
            match &state.slot {
                Slot::Connected(connection) => return Ok(connection.clone()),
                Slot::Connecting(connecting) => connecting.clone(),
                Slot::Idle => {
                    state.generation += 1;
                    let generation = state.generation;
                    let connecting =
                        connect(self.target.clone(), self.connect_timeout, generation).boxed();
                    let connecting = connecting.shared();
                    state.slot = Slot::Connecting(connecting.clone());
                    connecting
                }
            }
        };
        let result = connecting.clone().await;
        let mut state = self.lock();
        let is_mine =
            matches!(&state.slot, Slot::Connecting(present) if present.ptr_eq(&connecting));
        if is_mine {
            state.slot = match &result {
                Ok(connection) => Slot::Connected(connection.clone()),
                Err(_) => Slot::Idle,
            };
        }
        result
    }

    /// Forgets a connection that broke, unless it has been replaced already.
    pub(crate) fn forget(&self, broken: &Connection) {
        let mut state = self.lock();
        let is_present = matches!(&state.slot, Slot::Connected(present)
            if present.generation == broken.generation);
        if is_present {
            state.slot = Slot::Idle;
        }
    }

    /// It answered: use it again without delay.
    pub(crate) fn mark_good(&self) {
        let mut state = self.lock();
        state.failures = 0;
        state.avoid_until = None;
    }

    /// It failed or did not answer in time: prefer others for a while. Failures within the time in
    /// which it is avoided anyway count once, as they come from calls that had begun before.
    pub(crate) fn mark_bad(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.avoid_until.is_some_and(|until| now < until) {
            return;
        }
        let doublings = state.failures.min(8);
        state.failures = state.failures.saturating_add(1);
        state.avoid_until = Some(now + (AVOID_FIRST * (1 << doublings)).min(AVOID_MAX));
    }

    pub(crate) fn is_avoided(&self) -> bool {
        self.lock().avoid_until.is_some_and(|until| Instant::now() < until)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

fn target(address: &str, config: &ClientConfig) -> Result<tonic::transport::Endpoint, String> {
    let target = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .ok()
        .filter(|target| target.uri().port().is_some())
        .ok_or_else(|| format!("{address:?} is not of the form host:port"))?;
    Ok(target
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(true))
}

async fn connect(
    target: Result<tonic::transport::Endpoint, String>,
    timeout: Duration,
    generation: u64,
) -> Result<Connection, Arc<str>> {
    let target = target?;
    // The channel's own time-out covers the TCP connection only, not name resolution before it.
    match tokio::time::timeout(timeout, target.connect()).await {
        Ok(Ok(channel)) => {
            Ok(Connection { pipeline: Pipeline::new(channel.clone()), channel, generation })
        }
        Ok(Err(error)) => Err(Arc::from(deepest_cause(&error))),
        Err(_) => Err(Arc::from(format!("no connection within {timeout:?}"))),
    }
}

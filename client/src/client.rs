//! The client: what its facades share, and how a call goes through it.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::v1 as proto;

use crate::call::{self, Kind, Run};
use crate::change_sources::ChangeSources;
use crate::cluster::Cluster;
use crate::config::ClientConfig;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::masters::Masters;
use crate::pending::{Pending, Sent};
use crate::pool::Pool;
use crate::rpc::{Call, Write};
use crate::session::{Session, Sessions};
use crate::state::State;
use crate::stm::{Queue, Store};
use crate::watch::{Watch, WatchOptions};

/// A client of one cluster. Clones share connections and session; cloning is cheap.
///
/// Nothing connects before the first call. All calls need a tokio runtime, and a client stays with
/// the runtime of its first call.
///
/// # Calls
///
/// Every call is tried on all endpoints, the leader first, until it is answered or its time-out
/// passes. Reads are linearizable unless their name says `local`. A write is carried out at most
/// once, whatever happened on the way.
///
/// Dropping the future of a write gives it up: nothing more is sent, and if something was, its
/// outcome is unknown. A copy that is still on its way may be applied until a later write, begun
/// with no other one pending, has been answered; from then on the cluster refuses it as stale.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    namespace: Arc<str>,
    call_timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    pool: Arc<Pool>,
    sessions: Sessions,
    /// Transactions stand in line here.
    queue: Arc<Queue>,
}

impl Client {
    /// A client with this configuration. Does no IO and cannot fail: what is wrong with the
    /// configuration, an address that is none for example, comes out of the first call.
    #[must_use]
    pub fn connect(config: ClientConfig) -> Client {
        let namespace = Arc::from(config.namespace.as_str());
        let call_timeout = config.call_timeout;
        let sessions = Sessions::new(config.session_idle);
        let pool = Arc::new(Pool::new(Arc::new(config)));
        let shared = Arc::new(Shared { pool, sessions, queue: Arc::default() });
        Client { shared, namespace, call_timeout }
    }

    /// The same client with another time-out for each call; see [`ClientConfig::call_timeout`].
    #[must_use]
    pub fn with_timeout(&self, call_timeout: Duration) -> Client {
        Client { call_timeout, ..self.clone() }
    }

    /// The same client in another namespace; empty means `default`.
    #[must_use]
    pub fn with_namespace(&self, namespace: &str) -> Client {
        Client { namespace: Arc::from(namespace), ..self.clone() }
    }

    /// The same client with a session that it shares with nobody but its clones.
    pub(crate) fn with_own_session(&self) -> Client {
        let pool = self.shared.pool.clone();
        let sessions = Sessions::new(pool.config().session_idle);
        let queue = self.shared.queue.clone();
        Client { shared: Arc::new(Shared { pool, sessions, queue }), ..self.clone() }
    }

    /// How long a call of this client may take.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// The namespace of this client's calls, as configured.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Addresses of the nodes that the client knows: the configured ones, then those it learned.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.shared.pool.addresses()
    }

    /// Object state.
    #[must_use]
    pub fn state(&self) -> State {
        State::new(self.clone())
    }

    /// Variables with versions.
    #[must_use]
    pub fn stm(&self) -> Store {
        Store::new(self.clone())
    }

    /// Masters and their leases.
    #[must_use]
    pub fn masters(&self) -> Masters {
        Masters::new(self.clone())
    }

    /// Change sources and who owns them.
    #[must_use]
    pub fn change_sources(&self) -> ChangeSources {
        ChangeSources::new(self.clone())
    }

    /// Watches what changes in this client's namespace.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node took the watch in the time that a call may take, and
    /// [`Error::Refused`] as for [`Watch::next`].
    pub async fn watch(&self, options: WatchOptions) -> Result<Watch, Error> {
        Watch::open(self.clone(), options).await
    }

    /// The cluster itself: status and members.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    /// Ends the session, if one was opened, so that the cluster need not keep it until it lapses.
    /// Worth calling at the end of a short-lived program, when all writes have returned; a write
    /// after it opens a new session.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node answered: the session then lapses by itself.
    pub async fn close(&self) -> Result<(), Error> {
        let Some(session) = self.shared.sessions.take() else { return Ok(()) };
        let request = proto::CloseSessionRequest { session_id: session.id };
        match self.read(request).await {
            Err(error) if !error.is_session_gone() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Makes a call that may be repeated at will.
    pub(crate) async fn read<C: Call>(&self, request: C) -> Result<C::Response, Error> {
        self.run(Kind::Read, request).await
    }

    /// Makes a change of the cluster itself, which has no session.
    pub(crate) async fn administer<C: Call>(&self, request: C) -> Result<C::Response, Error> {
        self.run(Kind::Admin, request).await
    }

    async fn run<C: Call>(&self, kind: Kind, request: C) -> Result<C::Response, Error> {
        let deadline = Deadline::after(self.call_timeout);
        call::run(&self.shared.pool, kind, deadline, |_| request.clone()).await
    }

    /// Asks one node, once.
    pub(crate) async fn ask<C: Call>(
        &self,
        address: &str,
        request: C,
    ) -> Result<C::Response, Error> {
        let endpoint = self.shared.pool.at(address);
        let deadline = Deadline::after(self.call_timeout);
        call::run_at(&self.shared.pool, endpoint, deadline, request).await
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.shared.queue
    }

    pub(crate) fn shared_namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    pub(crate) fn pool(&self) -> Arc<Pool> {
        self.shared.pool.clone()
    }

    /// Opens the session if there is none, so that the next write need not wait for that.
    pub(crate) async fn open_session(&self) -> Result<(), Error> {
        self.session(Deadline::after(self.call_timeout)).await.map(drop)
    }

    /// Makes a write, exactly once.
    pub(crate) async fn write<W: Write>(&self, request: W) -> Result<W::Response, Error> {
        let deadline = Deadline::after(self.call_timeout);
        // Dropped with this future, or with an unknown outcome, which gives the seq up.
        let mut pending = Pending::begin(self, request, deadline).await?;
        match pending.send(Run::Only, deadline).await {
            Sent::Decided(result) => result,
            Sent::Open(error) | Sent::Forgotten(error) => Err(error),
        }
    }

    /// A session that outlives any write that begins now.
    pub(crate) async fn session(&self, deadline: Deadline) -> Result<Arc<Session>, Error> {
        self.shared.sessions.current(&self.shared.pool, deadline).await
    }

    /// No further write begins in this session; those that have go on.
    pub(crate) fn leave_session(&self, session: &Arc<Session>) {
        self.shared.sessions.leave(session);
    }
}

//! Objects on a cluster.
//!
//! `location` where a cluster is, from a URI · `save` the way in, `upload` of what does not fit into one
//! request, in `pieces` · `load` the way out · `list` what there is.
//!
//! # Invariants
//! - Nothing is sent before the first call, and each call is tried for as long as the store waits; a cluster
//!   that cannot be reached for longer makes the store *unavailable*, whatever was asked of it.
//! - Connections, sessions and ids belong to one process; a child that inherits them by a fork makes its
//!   own.
//! - What is loaded is true at one revision, level by level: an object that was changed after the root was
//!   read makes the load begin anew.

mod list;
mod load;
mod location;
mod pieces;
mod save;
mod upload;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use holdfast_proto::v1 as proto;
use tokio::time::Instant;

use super::error::Error;
use super::id::Id;
use super::id_blocks::IdBlocks;
use super::per_process::PerProcess;
use super::persistable::Persistable;
use super::store::{Filter, Listed, Store};
use super::tree::Tree;
use super::uri::Uri;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::rpc::Write;

/// How long a store waits for its cluster unless it is told otherwise: longer than an election, a restart or
/// a short failure of a network, so that those who save jobs need not notice.
pub(super) const WAIT: Duration = Duration::from_secs(60);

/// Objects on a cluster. Clones share connections, session and ids.
///
/// While the cluster cannot be reached, calls wait for it, up to [`ClientConfig::call_timeout`] without any
/// progress; then they fail with [`Error::Unavailable`].
#[derive(Debug, Clone)]
pub struct ClusterStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    config: ClientConfig,
    local: PerProcess<Local>,
    progress: Progress,
}

/// What one process has.
#[derive(Debug, Default)]
struct Local {
    // A std lock: held to read or replace a pointer, never across an await.
    session: Mutex<Option<Arc<Session>>>,
}

/// A client, and the ids that were leased through it.
#[derive(Debug)]
struct Session {
    client: Client,
    // A std lock: held to take ids out of memory.
    blocks: Mutex<IdBlocks>,
}

/// How much of what is being transferred has arrived, in bytes of bodies; for progress bars. Calls of one
/// store that run at the same time are counted together.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// What has arrived, and what there is as far as that is known.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    fn expect(&self, bytes: usize) {
        self.total.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    fn arrived(&self, bytes: usize) {
        self.done.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }
}

impl ClusterStore {
    /// The store on a cluster, in the namespace of this configuration. Does no IO and cannot fail: what is
    /// wrong comes out of the first call.
    #[must_use]
    pub fn new(config: ClientConfig) -> ClusterStore {
        let name = location::name_of(&config);
        let (local, progress) = (PerProcess::new(), Progress::default());
        ClusterStore { inner: Arc::new(Inner { name, config, local, progress }) }
    }

    /// As [`ClusterStore::new`], with the connections and the session of a client that is there already,
    /// and its namespace and time-out.
    #[must_use]
    pub fn of_client(client: &Client) -> ClusterStore {
        let mut config = ClientConfig::clone(client.pool().config());
        config.namespace = client.namespace().to_owned();
        config.call_timeout = client.call_timeout();
        let store = ClusterStore::new(config);
        let session = Session { client: client.clone(), blocks: Mutex::default() };
        *store.local().lock() = Some(Arc::new(session));
        store
    }

    /// The store that a URI stands for: `holdfast://HOST:PORT[,HOST:PORT…]/NAMESPACE`. Without a port it is
    /// 7480, without a namespace `default`. One node that answers is enough; the others are learned.
    ///
    /// Parameters: `peers=HOST:PORT,…` further nodes; `timeout_s=SECONDS` how long calls wait for the cluster,
    /// 60 unless it is given.
    ///
    /// # Errors
    /// [`Error::BadUri`].
    pub fn from_uri(uri: &Uri) -> Result<ClusterStore, Error> {
        location::config_of(uri).map(ClusterStore::new)
    }

    /// How far the transfers of this store are.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.inner.progress
    }

    fn local(&self) -> &Local {
        self.inner.local.get(Local::default)
    }

    fn session(&self) -> Arc<Session> {
        let mut session = self.local().lock();
        let made = || {
            let client = Client::connect(self.inner.config.clone());
            Arc::new(Session { client, blocks: Mutex::default() })
        };
        session.get_or_insert_with(made).clone()
    }

    fn namespace(&self) -> String {
        self.inner.config.namespace.clone()
    }

    /// An error of the client, as that of a store.
    fn explain(&self, began: Instant, error: crate::Error) -> Error {
        let store = self.inner.name.clone();
        if let Some(cause) = error.cause() {
            let (waited, reason, applied) = (began.elapsed(), cause.to_string(), error.applied());
            return Error::Unavailable {
                store,
                waited,
                reason,
                applied,
                source: Some(error.into()),
            };
        }
        if let crate::Error::Refused { reason, fields, .. } = &error
            && reason == "UNISSUED_ID"
            && let Some(id) = fields.get("object_id").and_then(|id| id.parse().ok())
        {
            return Error::UnissuedId { id, store };
        }
        Error::Refused { store, source: Box::new(error) }
    }
}

impl Session {
    /// Makes a write that comes before all that is saved: whatever becomes of it, nothing is.
    async fn prepare<W: Write>(&self, request: W) -> Result<W::Response, crate::Error> {
        self.write(request).await.map_err(|error| {
            if let crate::Error::OutcomeUnknown { cause, header } = error {
                return crate::Error::NotApplied { cause, header };
            }
            error
        })
    }

    /// Makes a write, exactly once. One whose session had expired was not carried out, and is made anew.
    async fn write<W: Write>(&self, request: W) -> Result<W::Response, crate::Error> {
        match self.client.write(request.clone()).await {
            Err(crate::Error::SessionExpired { .. }) => self.client.write(request).await,
            made => made,
        }
    }

    fn blocks(&self) -> MutexGuard<'_, IdBlocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Local {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for ClusterStore {
    fn name(&self) -> String {
        self.inner.name.clone()
    }

    fn save<'a>(&'a self, object: &'a dyn Persistable) -> BoxFuture<'a, Result<Id, Error>> {
        Box::pin(self.put(None, object))
    }

    fn replace<'a>(
        &'a self,
        id: Id,
        object: &'a dyn Persistable,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.put(Some(id), object).await.map(drop) })
    }

    fn load(&self, id: Id) -> BoxFuture<'_, Result<Tree, Error>> {
        Box::pin(self.load_tree(id))
    }

    fn remove(&self, id: Id) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let (context, namespace) = (None, self.namespace());
            let request = proto::RemoveObjectsRequest { context, namespace, ids: vec![id.get()] };
            let began = Instant::now();
            let removed = self.session().write(request).await;
            removed.map(drop).map_err(|error| self.explain(began, error))
        })
    }

    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Vec<Id>, Error>> {
        Box::pin(self.list_ids(filter))
    }

    fn ids(&self, filter: Filter) -> BoxStream<'_, Result<Id, Error>> {
        self.stream_ids(filter)
    }

    fn records(&self, filter: Filter) -> BoxStream<'_, Result<Listed, Error>> {
        self.stream_records(filter)
    }

    fn pre_fork(&self) {
        // The ids that are left are forgone; connections end with the last call that uses them.
        *self.local().lock() = None;
    }
}

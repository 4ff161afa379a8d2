//! A node put together from its parts: stores, consensus, and what runs beside the calls.
//!
//! What belongs to a process (settings, lock, sockets, identity, servers, stopping) is not here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openraft::{SnapshotPolicy, async_runtime::WatchReceiver as _};

use crate::alarm::Alarms;
use crate::config::Config;
use crate::forward::Forwarder;
use crate::leadership;
use crate::measures::Measures;
use crate::node::Node;
use crate::propose::Proposer;
use crate::raft::log::Log;
use crate::raft::machine::StateMachine;
use crate::raft::network::{Factory, Peers};
use crate::raft::peer::{Own, SnapshotCounters};
use crate::raft::types::{Member, Raft};
use crate::read::Reads;
use crate::room::Room;
use crate::runtime::{self, Pace, watch};
use crate::store::{DataDir, LogStore, StateStore, StoreError};
use crate::{agree, expire, members, trim};

/// How long consensus may have stopped by itself before the node stops too.
const FAILURE_WATCH_PAUSE: Duration = Duration::from_millis(250);
/// What one replication message carries at most, in entries; the log bounds its bytes.
const ENTRIES_PER_MESSAGE_MAX: u64 = 1024;

/// What a node is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) dir: DataDir,
    pub(crate) own: Own,
    /// This node as the only member of the cluster that it is to form, should that not have
    /// happened yet.
    pub(crate) forms: Option<Member>,
    /// Set once, by whatever makes the node stop by itself.
    pub(crate) stop_reason: watch::Sender<Option<String>>,
}

/// Why a node could not be put together.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// The stores could not be opened.
    Store(StoreError),
    /// What they hold cannot be used.
    Damaged(String),
}

impl Unusable {
    fn damaged(cause: impl fmt::Display) -> Unusable {
        Unusable::Damaged(cause.to_string())
    }
}

impl From<StoreError> for Unusable {
    fn from(error: StoreError) -> Unusable {
        Unusable::Store(error)
    }
}

/// A node at work.
pub(crate) async fn assemble(parts: Parts) -> Result<Arc<Node>, Unusable> {
    let Parts { config, dir, own, forms, stop_reason } = parts;
    let opened = dir.clone();
    let (log, log_start, store, rows) = runtime::blocking(move || {
        let (log, log_start) = LogStore::open(&opened)?;
        let (store, rows) = StateStore::open(&opened)?;
        Ok::<_, StoreError>((log, log_start, store, rows))
    })
    .await?;
    let machine = runtime::blocking({
        let store = store.clone();
        move || StateMachine::new(store, rows)
    })
    .await
    .map_err(Unusable::damaged)?;
    let applied = machine.applied();
    let peers = Peers::new(own.clone(), config.peer_source_addr);
    let snapshots = Arc::new(SnapshotCounters::default());
    let raft_log = Log::new(log.clone(), log_start).map_err(Unusable::damaged)?;
    let pace = Pace::new(
        Duration::from_millis(config.heartbeat_ms),
        Duration::from_millis(config.election_min_ms),
    );
    let factory =
        Factory { peers: peers.clone(), counters: Arc::clone(&snapshots), pace: Arc::clone(&pace) };
    let raft = Raft::new(own.node_id, raft_config(&config)?, factory, raft_log, machine);
    let raft = pace.drive(raft).await.map_err(Unusable::damaged)?;
    if let Some(member) = forms {
        form(&raft, own.node_id, member).await?;
    }
    let tasks = runtime::Tasks::default();
    follow_members(&raft, &peers, &tasks);
    let lead = leadership::follow(&raft, &applied, &pace, config.election_max_ms, &tasks);
    let reads =
        Reads::start(raft.clone(), Arc::clone(&applied), lead.clone(), peers.clone(), &tasks);
    let room = Arc::new(Room::new(config.quota_bytes, config.disk_floor_bytes));
    let proposer = Proposer::start(&raft, &applied, &lead, &reads, &room, &tasks);
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
        store,
        held: Node::held_calls(),
        room,
        attachable: Node::attachable_leases(),
        closing: watch::channel(false).0,
        measures: Measures::default(),
        changing: tokio::sync::Mutex::new(()),
        pace,
        alarms: Alarms::default(),
        stop_reason,
        tasks,
        dir,
    });
    background(&node);
    Ok(node)
}

fn raft_config(config: &Config) -> Result<Arc<openraft::Config>, Unusable> {
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
    Ok(Arc::new(raft.validate().map_err(Unusable::damaged)?))
}

async fn form(raft: &Raft, id: u64, member: Member) -> Result<(), Unusable> {
    if raft.is_initialized().await.map_err(Unusable::damaged)? {
        return Ok(());
    }
    raft.initialize(BTreeMap::from([(id, member)])).await.map_err(Unusable::damaged)
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
    node.tasks.spawn(trim::run(
        node.raft.clone(),
        node.log.clone(),
        node.store.clone(),
        transfers,
        keep,
    ));
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

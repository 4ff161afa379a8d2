//! What a node shows of itself to whoever monitors it, as OpenMetrics text.
//!
//! The model: one registry a node, no globals. What happens is counted where it happens
//! ([`Measures`](crate::measures::Measures), the log's group commits); what *is* is read from the
//! node when it is asked for. `docs/metrics.md` lists every name; a test compares.
//!
//! Names are in base units: `_seconds`, `_bytes`, `_total` for what only rises.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_machine::{Fault, changesources, masters, objects, sessions};
use openraft::async_runtime::WatchReceiver as _;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _, MetricEncoder, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::alarm;
use crate::leadership::Leader;
use crate::members;
use crate::node::Node;
use crate::places::Places;
use crate::store::sync;

/// The metrics of one node.
pub(crate) struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new(node: &Arc<Node>) -> Metrics {
        let mut registry = Registry::with_prefix("holdfast");
        let measures = &node.measures;
        registry.register(
            "writes",
            "Writes that clients asked this node for, by what they were told",
            measures.writes.clone(),
        );
        registry.register_with_unit(
            "write_duration",
            "Time from a write's arrival at this node to its answer",
            Unit::Seconds,
            measures.write_seconds.clone(),
        );
        registry.register(
            "reads",
            "Reads that clients asked this node for, by how they ended",
            measures.reads.clone(),
        );
        let commits = node.log.group_commits();
        registry.register_with_unit(
            "log_sync_duration",
            "Time of one sync of the log",
            Unit::Seconds,
            commits.sync_seconds.clone(),
        );
        registry.register(
            "log_sync_entries",
            "Entries that one sync of the log made durable",
            commits.sync_entries.clone(),
        );
        registry.register_collector(Box::new(Now(Arc::clone(node))));
        Metrics { registry }
    }

    /// All of them, as OpenMetrics text.
    ///
    /// # Errors
    /// If the state is damaged; the node then stops.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What is read from the node when metrics are asked for.
struct Now(Arc<Node>);

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Now").field(&self.0.peers.own().node_id).finish()
    }
}

impl Collector for Now {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.node(&mut page)?;
        self.raft(&mut page)?;
        self.replication(&mut page)?;
        self.writing(&mut page)?;
        self.waiting(&mut page)?;
        self.room(&mut page)?;
        self.state(&mut page)
    }
}

impl Now {
    fn node(&self, page: &mut Page<'_>) -> fmt::Result {
        let node = &self.0;
        page.gauge_by(
            "build_info",
            "The version of this node, as a label",
            [([("version", env!("CARGO_PKG_VERSION").to_owned())], 1_u64)],
        )?;
        let ready = u64::from(node.readiness().is_ok());
        page.gauge("ready", "Whether this node can serve linearizable calls", ready)
    }

    fn raft(&self, page: &mut Page<'_>) -> fmt::Result {
        let node = &self.0;
        let lead = node.lead.borrow().clone();
        let (leads, leader) = match lead.leader {
            Leader::None => (0, 0),
            Leader::Me(_) => (1, node.peers.own().node_id),
            Leader::Other(id) => (0, id),
        };
        let voters = node.raft.voter_ids().count();
        let learners = node.peers.members().len().saturating_sub(voters);
        let metrics = node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |log_id: &Option<crate::raft::types::LogId>| {
            log_id.as_ref().map_or(0, |log_id| log_id.index)
        };
        page.gauge("raft_term", "The term that this node is in", lead.term)?;
        page.gauge("raft_is_leader", "Whether this node leads, ready to take calls", leads)?;
        page.gauge("raft_leader_id", "The leader that this node knows; 0 for none", leader)?;
        page.gauge("raft_voters", "Voters of the cluster", voters)?;
        page.gauge("raft_learners", "Members of the cluster that do not vote", learners)?;
        page.gauge(
            "raft_last_log_index",
            "The last entry in this node's log",
            metrics.last_log_index.unwrap_or(0),
        )?;
        page.gauge(
            "raft_committed_index",
            "The last entry that this node knows to be committed",
            index(&metrics.local_committed),
        )?;
        page.gauge(
            "raft_applied_index",
            "The last entry that this node has applied",
            *node.applied.watch().borrow(),
        )?;
        page.gauge(
            "raft_snapshot_index",
            "The last entry in this node's newest snapshot",
            index(&metrics.snapshot),
        )?;
        page.gauge(
            "raft_purged_index",
            "The last entry that was dropped from this node's log",
            index(&metrics.purged),
        )
    }

    /// What the leader knows of the others; no lines anywhere else.
    fn replication(&self, page: &mut Page<'_>) -> fmt::Result {
        let node = &self.0;
        let own = node.peers.own().node_id;
        let silent = members::silent(&node.raft);
        let silent = silent.into_iter().filter(|(id, _)| *id != own);
        page.gauge_in(
            "raft_peer_silence",
            "Time since the leader heard from another node; shown by the leader",
            &Unit::Seconds,
            silent.map(|(id, silent)| ([("node", id.to_string())], silent.as_secs_f64())),
        )?;
        let metrics = node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != own);
        page.gauge_by(
            "raft_peer_matched_index",
            "The last entry known to be on another node; shown by the leader",
            others.map(|(id, matched)| {
                ([("node", id.to_string())], matched.map_or(0, |log_id| log_id.index))
            }),
        )
    }

    fn writing(&self, page: &mut Page<'_>) -> fmt::Result {
        let node = &self.0;
        let proposed = &node.proposer.counters;
        page.counter(
            "requests_proposed",
            "Requests that this node has proposed as leader",
            proposed.requests.load(Ordering::Relaxed),
        )?;
        page.counter(
            "entries_proposed",
            "Entries that this node has proposed as leader, each with one request or more",
            proposed.entries.load(Ordering::Relaxed),
        )?;
        page.counter(
            "snapshots_sent",
            "Snapshots that this node has sent to others",
            node.snapshots.sent.load(Ordering::Relaxed),
        )?;
        page.counter(
            "snapshots_installed",
            "Snapshots that this node has installed from others",
            node.snapshots.installed.load(Ordering::Relaxed),
        )?;
        page.counter("syncs", "Syncs of all databases of this process", sync::count())
    }

    fn waiting(&self, page: &mut Page<'_>) -> fmt::Result {
        let node = &self.0;
        let places = [
            ("held", &node.held),
            ("proposed", &node.proposer.places),
            ("forwarded", &node.forwarder.places),
        ];
        let by_queue = |value: fn(&Places) -> u64| {
            places.map(|(name, places)| ([("queue", name.to_owned())], value(places)))
        };
        page.gauge_by(
            "waiting_calls",
            "Writes that wait: for a leader, to be put into an entry, for the leader's answer",
            by_queue(|places| places.taken() as u64),
        )?;
        page.bytes_by(
            "waiting",
            "The names and values of those writes",
            by_queue(|places| places.taken_bytes() as u64),
        )?;
        page.counters_by(
            "overloaded",
            "Writes that were refused because too many waited",
            by_queue(Places::turned_away),
        )?;
        page.gauge(
            "reads_waiting",
            "Reads that wait for the next confirmation of the lead",
            node.reads.waiting(),
        )?;
        page.gauge("watches", "Watches open on this node", node.applied.watches())
    }

    fn room(&self, page: &mut Page<'_>) -> fmt::Result {
        let node = &self.0;
        page.bytes("quota", "The most that the state may take", node.room.quota_bytes())?;
        // Nothing before the first look.
        let space = node.room.space();
        page.bytes_by(
            "disk_free",
            "What is free on the disk of the data",
            space.map(|space| ([], space.free_bytes)),
        )?;
        page.bytes_by(
            "disk_floor",
            "What is to stay free on it",
            space.map(|space| ([], space.floor_bytes)),
        )?;
        let (quota, disk) = node.room.refused();
        let refused = [("quota", quota), ("disk", disk)];
        page.counters_by(
            "growth_refused",
            "Writes that this node has refused as leader for want of room",
            refused.map(|(reason, count)| ([("reason", reason.to_owned())], count)),
        )?;
        let raised = |name: &str| u64::from(node.alarms.is_raised(name));
        page.gauge_by(
            "alarm",
            "Whether an alarm is raised on this node",
            alarm::ALL.map(|name| ([("name", name.to_owned())], raised(name))),
        )
    }

    fn state(&self, page: &mut Page<'_>) -> fmt::Result {
        let state = self.0.applied.state();
        let counts = self.checked(changesources::counts(&state))?;
        let leases = self.checked(masters::alive_count(&state))?;
        let sessions = self.checked(sessions::count(&state))?;
        let uploads = self.checked(objects::upload_count(&state))?;
        page.gauge("state_revision", "The revision of the state", state.header().revision)?;
        page.gauge("state_rows", "Rows of the state", state.len())?;
        page.bytes("state", "All rows of the state and bodies of stored objects", state.bytes())?;
        page.gauge_in(
            "cluster_clock",
            "The cluster clock of the state",
            &Unit::Seconds,
            [([], Duration::from_millis(state.header().clock_ms).as_secs_f64())],
        )?;
        page.gauge("sessions", "Sessions of clients", sessions)?;
        page.gauge("leases", "Leases of masters that live", leases)?;
        page.gauge("changesources", "Change sources", counts.total)?;
        page.gauge("claims", "Change sources that a master owns", counts.owned)?;
        page.gauge("queue_places", "Places in the queues of all change sources", counts.places)?;
        page.gauge("uploads", "Uploads of stored objects that are not cleared away", uploads)
    }

    /// A query's result. A fault means that the state is damaged: the node stops.
    fn checked<T>(&self, result: Result<T, Fault>) -> Result<T, fmt::Error> {
        result.map_err(|fault| {
            self.0.stop_for(format!("read the state: {fault}"));
            fmt::Error
        })
    }
}

/// Where metrics are written to, one after the other.
struct Page<'a>(DescriptorEncoder<'a>);

/// A label's name and value.
type Label = (&'static str, String);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        ConstGauge::new(value).encode(self.begin(name, help, None, MetricType::Gauge)?)
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self.begin(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.begin(name, help, None, MetricType::Counter)?)
    }

    /// One line for each set of labels.
    fn gauge_by<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        lines: impl IntoIterator<Item = ([Label; N], u64)>,
    ) -> fmt::Result {
        lines_of(self.begin(name, help, None, MetricType::Gauge)?, lines)
    }

    /// As [`Page::gauge_by`], in bytes.
    fn bytes_by<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        lines: impl IntoIterator<Item = ([Label; N], u64)>,
    ) -> fmt::Result {
        lines_of(self.begin(name, help, Some(&Unit::Bytes), MetricType::Gauge)?, lines)
    }

    /// As [`Page::gauge_by`], for what only rises.
    fn counters_by<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        lines: impl IntoIterator<Item = ([Label; N], u64)>,
    ) -> fmt::Result {
        let mut family = self.begin(name, help, None, MetricType::Counter)?;
        for (labels, value) in lines {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// As [`Page::gauge_by`], in a unit.
    fn gauge_in<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: &Unit,
        lines: impl IntoIterator<Item = ([Label; N], f64)>,
    ) -> fmt::Result {
        lines_of(self.begin(name, help, Some(unit), MetricType::Gauge)?, lines)
    }

    fn begin<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        // As the registry ends those that it knows.
        self.0.encode_descriptor(name, &format!("{help}."), unit, kind)
    }
}

fn lines_of<const N: usize, V: EncodeGaugeValue>(
    mut family: MetricEncoder<'_>,
    lines: impl IntoIterator<Item = ([Label; N], V)>,
) -> fmt::Result {
    for (labels, value) in lines {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

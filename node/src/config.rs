//! What one node is told at its start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The port for clients, unless told otherwise.
pub const CLIENT_PORT: u16 = 7480;
/// The port for other nodes, unless told otherwise.
pub const PEER_PORT: u16 = 7481;

/// The smallest quota, in bytes: one value of the greatest length nearly fills it.
const QUOTA_BYTES_MIN: u64 = 1 << 20;

/// The lowest floor, in bytes: the store's files grow by 8 MiB at a time.
const DISK_FLOOR_BYTES_MIN: u64 = 64 << 20;

/// How a node comes to its cluster. Needed at the first start only: a directory that belongs to a
/// cluster goes on in it, whatever this says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Only go on; an empty directory is refused.
    Existing,
    /// Form a new cluster of this one node.
    Form,
    /// Ask the cluster at one of these client endpoints (host:port) to take this node in.
    Join(Vec<String>),
}

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// One JSON object a line, the fields of an event beside its message.
    Json,
}

impl LogFormat {
    /// As flags and files spell it.
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// The settings of one node; see `docs/operations.md` for each.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything durable is kept. One process at a time.
    pub data_dir: PathBuf,
    /// Where clients are served.
    pub client_addr: SocketAddr,
    /// Where other nodes are served.
    pub peer_addr: SocketAddr,
    /// Where clients reach this node, host:port, if not at `client_addr`.
    pub advertise_client: Option<String>,
    /// Where other nodes reach this node, host:port, if not at `peer_addr`.
    pub advertise_peer: Option<String>,
    /// The address that other nodes are dialled from; none: the system's choice. For machines with
    /// several, and for whoever has to tell nodes on one machine apart.
    pub peer_source_addr: Option<IpAddr>,
    /// The id to form or join with; none: 1 when forming, the cluster's choice when joining.
    pub node_id: Option<u64>,
    /// How the node comes to its cluster.
    pub start: Start,
    /// Accept that the data directory was moved: it is not the one that its identity was written in.
    pub moved: bool,
    /// How often the leader shows life, in milliseconds.
    pub heartbeat_ms: u64,
    /// Followers wait at least this long for a sign of life before they elect, in milliseconds;
    /// more than twice the heartbeat.
    pub election_min_ms: u64,
    /// And at most this long; more than the minimum.
    pub election_max_ms: u64,
    /// A snapshot is taken, and the log behind it dropped, after this many entries.
    pub snapshot_every_entries: u64,
    /// How many entries behind the snapshot are kept, for followers that were away for a moment.
    pub log_keep_entries: u64,
    /// The most that keys and values of the state may take, in bytes: growth beyond it is refused.
    pub quota_bytes: u64,
    /// Growth is refused while less than this is free on the disk of the data directory, in bytes;
    /// the rest is the reserve from which everything else goes on. 0: no floor.
    pub disk_floor_bytes: u64,
    /// How whoever runs the node writes its log; the node itself only speaks to `tracing`.
    pub log_format: LogFormat,
    /// Leave out the syncs that make writes durable. For tests only: a power cut loses
    /// acknowledged writes.
    pub unsafe_no_sync: bool,
}

/// A setting that cannot work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field} is {value}: {rule}")]
pub struct Invalid {
    /// The setting.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

impl Config {
    /// The defaults for a data directory: loopback only, going on in the cluster it belongs to.
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Config {
            data_dir: data_dir.into(),
            client_addr: SocketAddr::new(loopback, CLIENT_PORT),
            peer_addr: SocketAddr::new(loopback, PEER_PORT),
            advertise_client: None,
            advertise_peer: None,
            peer_source_addr: None,
            node_id: None,
            start: Start::Existing,
            moved: false,
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 300,
            snapshot_every_entries: 50_000,
            log_keep_entries: 10_000,
            quota_bytes: 2 << 30,
            disk_floor_bytes: 256 << 20,
            log_format: LogFormat::Text,
            unsafe_no_sync: false,
        }
    }

    /// Checks every setting that has a rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        let invalid = |field, value: String, rule| Err(Invalid { field, value, rule });
        if self.node_id == Some(0) {
            return invalid("node-id", "0".to_owned(), "it must be 1 or more");
        }
        if self.heartbeat_ms == 0 {
            return invalid("heartbeat-ms", "0".to_owned(), "it must be 1 or more");
        }
        if self.election_min_ms <= 2 * self.heartbeat_ms {
            let rule = "it must be more than twice heartbeat-ms";
            return invalid("election-min-ms", self.election_min_ms.to_string(), rule);
        }
        if self.election_max_ms <= self.election_min_ms {
            let rule = "it must be more than election-min-ms";
            return invalid("election-max-ms", self.election_max_ms.to_string(), rule);
        }
        if self.snapshot_every_entries == 0 {
            return invalid("snapshot-every-entries", "0".to_owned(), "it must be 1 or more");
        }
        if self.quota_bytes < QUOTA_BYTES_MIN {
            let rule = "it must be 1048576 (1 MiB) or more";
            return invalid("quota-bytes", self.quota_bytes.to_string(), rule);
        }
        if (1..DISK_FLOOR_BYTES_MIN).contains(&self.disk_floor_bytes) {
            let rule = "it must be 67108864 (64 MiB) or more, or 0 for none";
            return invalid("disk-floor-bytes", self.disk_floor_bytes.to_string(), rule);
        }
        Ok(())
    }

    /// Where clients reach this node, given the address that is really listened on.
    pub(crate) fn client_endpoint(&self, bound: SocketAddr) -> String {
        self.advertise_client.clone().unwrap_or_else(|| bound.to_string())
    }

    /// Where other nodes reach this node, given the address that is really listened on.
    pub(crate) fn peer_endpoint(&self, bound: SocketAddr) -> String {
        self.advertise_peer.clone().unwrap_or_else(|| bound.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_stay_on_loopback() {
        let config = Config::new("/tmp/x");
        assert_eq!(config.validate(), Ok(()));
        assert!(config.client_addr.ip().is_loopback() && config.peer_addr.ip().is_loopback());
    }

    #[test]
    fn a_rule_that_is_broken_names_field_value_and_rule() {
        let mut config = Config::new("/tmp/x");
        config.election_min_ms = 2 * config.heartbeat_ms;
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "election-min-ms is 100: it must be more than twice heartbeat-ms");
        config.election_min_ms += 1;
        assert_eq!(config.validate(), Ok(()));
        config.election_max_ms = config.election_min_ms;
        assert!(config.validate().is_err());
    }

    #[test]
    fn quota_and_floor_have_a_least_size() {
        let config = Config { quota_bytes: (1 << 20) - 1, ..Config::new("/tmp/x") };
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "quota-bytes is 1048575: it must be 1048576 (1 MiB) or more");
        let config = Config { quota_bytes: 1 << 20, disk_floor_bytes: 0, ..config };
        assert_eq!(config.validate(), Ok(()));
        let config = Config { disk_floor_bytes: (64 << 20) - 1, ..config };
        assert!(config.validate().is_err());
        let config = Config { disk_floor_bytes: 64 << 20, ..config };
        assert_eq!(config.validate(), Ok(()));
    }
}

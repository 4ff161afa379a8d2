//! Who a node is to its peers, and how calls between them end; whatever carries the calls.

use std::sync::atomic::AtomicU64;

use super::transfers::Transfers;

/// Who this process is, as it tells its peers.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    pub(crate) incarnation: u64,
    /// Drawn at each start.
    pub(crate) nonce: u64,
}

/// Why a call to another node failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// Nothing was sent.
    #[error("connect to n{node}: {cause}")]
    NotSent { node: u64, cause: String },
    #[error("call n{node}: {cause}")]
    Failed { node: u64, cause: String },
}

/// Counts of snapshots, for status and metrics, and those under way.
#[derive(Default)]
pub(crate) struct SnapshotCounters {
    pub(crate) sent: AtomicU64,
    pub(crate) installed: AtomicU64,
    pub(crate) transfers: Transfers,
}

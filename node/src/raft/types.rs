//! The types that openraft is instantiated with, and the short names the rest of the node uses.
//!
//! A log entry carries a batch of client requests, encoded once by the proposer: the same bytes go
//! to disk and over the wire. One leader a term (as in the Raft paper), so that a term names its
//! leader.

use std::fmt;

use bytes::Bytes;
use holdfast_machine::Response;
use serde::{Deserialize, Serialize};

use super::image::Image;

openraft::declare_raft_types!(
    /// How Holdfast instantiates openraft.
    pub(crate) TypeConfig:
        D = Batch,
        R = Replies,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = crate::runtime::Runtime,
);

/// An encoded [`holdfast_machine::Entry`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Bytes);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The answers to a batch, one a request, in order; empty for entries that carry no requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replies(pub(crate) Vec<Response>);

/// What the cluster knows of one of its nodes; part of the replicated membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where other nodes reach it, host:port.
    pub(crate) peer_endpoint: String,
    /// Where clients reach it, host:port.
    pub(crate) client_endpoint: String,
    /// Drawn when its data directory was made: tells a wiped directory from the old one.
    pub(crate) incarnation: u64,
    /// Whether it is to become a voter once it has caught up.
    pub(crate) promote: bool,
    /// Ids of nodes that were removed from the cluster, so that none is given out again. Kept with
    /// one member or another; the union over all members counts.
    pub(crate) removed: std::collections::BTreeSet<u64>,
}

pub(crate) type Raft = openraft::Raft<TypeConfig, super::machine::StateMachine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Image>;

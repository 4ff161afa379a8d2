//! The cluster itself: what its nodes know, and who its members are.
//!
//! Changes of membership have no session. They are made so that repeating them does no harm, and
//! are sent again while their outcome is unknown; a refusal that follows a lost copy proves nothing
//! and is reported as an unknown outcome.

use std::time::Duration;

use holdfast_proto::v1 as proto;

use crate::client::Client;
use crate::error::{Error, Header};

/// The cluster that a client talks to.
#[derive(Debug, Clone)]
pub struct Cluster {
    client: Client,
}

/// What one node knows, answered without any other node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Who answered; names cluster, node, term and leader.
    pub header: Header,
    /// What the node is in Raft.
    pub role: Role,
    /// Whether it can serve linearizable calls now.
    pub ready: bool,
    /// Raft index of its last log entry.
    pub last_log_index: u64,
    /// Raft index of the last entry it has applied.
    pub applied_index: u64,
    /// Raft index up to which its log has been dropped.
    pub purged_index: u64,
    /// The cluster's clock in its applied state, in milliseconds.
    pub clock_ms: u64,
    /// The members in its applied state.
    pub members: Vec<Member>,
    /// What is wrong, one line each; empty if nothing is.
    pub alarms: Vec<String>,
    /// Change sources over all namespaces.
    pub change_sources: u32,
    /// Those of them that are owned.
    pub change_sources_owned: u32,
    /// Masters with a live lease.
    pub masters_alive: u32,
    /// Version of the program.
    pub version: String,
    /// Digest of the state at `applied_index`, 32 bytes.
    pub state_digest: Vec<u8>,
    /// Wall-clock time since which the leader leads, in milliseconds since 1970; 0 if the node does
    /// not know. For display only.
    pub leader_since_unix_ms: u64,
    /// Syncs of the log since the node started.
    pub log_syncs: u64,
    /// Entries that it appended since it started.
    pub log_entries: u64,
    /// Requests that it proposed since it started.
    pub requests_proposed: u64,
    /// Snapshots that it sent since it started.
    pub snapshots_sent: u64,
    /// Snapshots that it installed since it started.
    pub snapshots_installed: u64,
    /// Watches open on this node.
    pub watches: u32,
}

/// What a node is in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A role that this library does not know.
    Unknown,
    /// Proposes entries.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node_id: u64,
    /// Where clients reach it, as `host:port`.
    pub client_endpoint: String,
    /// Where other nodes reach it, as `host:port`.
    pub peer_endpoint: String,
    /// Whether it has a vote.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// Last log index known to be on it; known to the leader only, 0 elsewhere.
    pub matched_index: u64,
    /// Time since the leader last heard from it; known to the leader only.
    pub silent: Option<Duration>,
}

/// The members of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Who answered; names cluster, term and leader.
    pub header: Header,
    /// In order of their node ids.
    pub members: Vec<Member>,
}

/// A node that wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The id it wants; 0 lets the cluster choose.
    pub node_id: u64,
    /// Random, made once for a data directory: joining again with it changes nothing.
    pub incarnation: u64,
    /// Where clients reach it, as `host:port`.
    pub client_endpoint: String,
    /// Where other nodes reach it, as `host:port`.
    pub peer_endpoint: String,
    /// Whether it stays without a vote.
    pub learner_only: bool,
}

/// A node that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The id that it has.
    pub node_id: u64,
    /// The cluster that it belongs to, a UUID in text form.
    pub cluster_id: String,
}

impl Cluster {
    pub(crate) fn new(client: Client) -> Cluster {
        Cluster { client }
    }

    /// What the node at this address (`host:port`, need not be a known one) says about itself.
    /// Asks it once and nobody else, within the client's call time-out.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason why it did not answer.
    pub async fn status(&self, endpoint: &str) -> Result<NodeStatus, Error> {
        let response = self.client.ask(endpoint, proto::StatusRequest {}).await?;
        Ok(NodeStatus::from(response))
    }

    /// The members. Linearizable, so it needs a quorum.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn members(&self) -> Result<Members, Error> {
        self.members_with(false).await
    }

    /// The members as some node knows them, which may be out of date.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn members_local(&self) -> Result<Members, Error> {
        self.members_with(true).await
    }

    /// Adds a node, first as a learner; it gets its vote when it has caught up, unless it asked for
    /// none.
    ///
    /// # Errors
    /// Those of a write.
    pub async fn join(&self, request: JoinRequest) -> Result<Joined, Error> {
        let request = proto::JoinRequest {
            node_id: request.node_id,
            incarnation: request.incarnation,
            client_endpoint: request.client_endpoint,
            peer_endpoint: request.peer_endpoint,
            learner_only: request.learner_only,
        };
        let response = self.client.administer(request).await?;
        Ok(Joined { node_id: response.node_id, cluster_id: response.cluster_id })
    }

    /// Takes a node out of the cluster.
    ///
    /// # Errors
    /// Those of a write; refused as `QUORUM_AT_RISK` if the rest could not commit.
    pub async fn remove(&self, node_id: u64) -> Result<(), Error> {
        self.client.administer(proto::RemoveMemberRequest { node_id }).await.map(drop)
    }

    /// Moves the lead to this voter, or without one to whoever is most up to date.
    ///
    /// # Errors
    /// Those of a write.
    pub async fn move_lead(&self, node_id: Option<u64>) -> Result<(), Error> {
        let request = proto::MoveLeadRequest { node_id: node_id.unwrap_or(0) };
        self.client.administer(request).await.map(drop)
    }

    async fn members_with(&self, local: bool) -> Result<Members, Error> {
        let request = proto::ListMembersRequest { read: Some(proto::ReadOptions { local }) };
        let response = self.client.read(request).await?;
        Ok(Members {
            header: response.header.as_ref().map(Header::from).unwrap_or_default(),
            members: response.members.into_iter().map(Member::from).collect(),
        })
    }
}

impl From<proto::StatusResponse> for NodeStatus {
    fn from(status: proto::StatusResponse) -> NodeStatus {
        NodeStatus {
            role: Role::from(status.role()),
            header: status.header.as_ref().map(Header::from).unwrap_or_default(),
            ready: status.ready,
            last_log_index: status.last_log_index,
            applied_index: status.applied_index,
            purged_index: status.purged_index,
            clock_ms: status.clock_ms,
            members: status.members.into_iter().map(Member::from).collect(),
            alarms: status.alarms,
            change_sources: status.changesources,
            change_sources_owned: status.changesources_owned,
            masters_alive: status.masters_alive,
            version: status.version,
            state_digest: status.state_digest,
            leader_since_unix_ms: status.leader_since_unix_ms,
            log_syncs: status.log_syncs,
            log_entries: status.log_entries,
            requests_proposed: status.requests_proposed,
            snapshots_sent: status.snapshots_sent,
            snapshots_installed: status.snapshots_installed,
            watches: status.watches,
        }
    }
}

impl From<proto::Role> for Role {
    fn from(role: proto::Role) -> Role {
        match role {
            proto::Role::Unspecified => Role::Unknown,
            proto::Role::Leader => Role::Leader,
            proto::Role::Follower => Role::Follower,
            proto::Role::Candidate => Role::Candidate,
            proto::Role::Learner => Role::Learner,
        }
    }
}

impl From<proto::Member> for Member {
    fn from(member: proto::Member) -> Member {
        Member {
            node_id: member.node_id,
            client_endpoint: member.client_endpoint,
            peer_endpoint: member.peer_endpoint,
            voter: member.voter,
            leader: member.leader,
            matched_index: member.matched_index,
            silent: member.silent_ms.map(Duration::from_millis),
        }
    }
}

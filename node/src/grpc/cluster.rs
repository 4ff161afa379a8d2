//! The service `Cluster`: sessions, what this node knows, and the members.

use std::collections::BTreeMap;

use holdfast_machine::{Command, Reply, changesources, limits, masters, sessions};
use holdfast_proto::v1;
use holdfast_proto::v1::cluster_client::ClusterClient;
use holdfast_proto::v1::cluster_server::Cluster as Service;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::header::deadline;
use super::{Answered, Calls, foreign};
use crate::leadership::Leader;
use crate::members::{self, Joiner};
use crate::raft::machine::applied_index;
use crate::raft::types::Member;
use crate::store::sync;

/// Marks a call that another node has sent on: it is not sent on again.
const FORWARDED: &str = "holdfast-forwarded";

impl Calls {
    /// Carries out a session command, which has no session of its own.
    async fn session<T>(
        &self,
        request: &Request<T>,
        command: sessions::Command,
    ) -> Result<Answered, Status> {
        let request_out =
            holdfast_machine::Request { origin: None, command: Command::Session(command) };
        self.carry_out(request.metadata(), request_out).await
    }

    /// The leader, if it is another node and this call was not sent on already.
    fn leader_elsewhere<T>(&self, request: &Request<T>) -> Option<Member> {
        let Leader::Other(id) = self.0.lead.borrow().leader else { return None };
        if request.metadata().contains_key(FORWARDED) { None } else { self.0.peers.member(id) }
    }

    /// A connection to the leader's client port.
    async fn dial(&self, leader: &Member) -> Result<ClusterClient<Channel>, Status> {
        let unreachable = |error: tonic::transport::Error| {
            let message = format!("reach the leader at {}: {error}", leader.client_endpoint);
            self.0.change_refused(&members::Refused::Failed(message))
        };
        let endpoint = Endpoint::from_shared(format!("http://{}", leader.client_endpoint));
        let channel = endpoint.map_err(unreachable)?.connect().await.map_err(unreachable)?;
        Ok(ClusterClient::new(channel))
    }

    fn members(&self) -> Vec<v1::Member> {
        let node = &self.0;
        let leader = match node.lead.borrow().leader {
            Leader::None => 0,
            Leader::Me(_) => node.peers.own().node_id,
            Leader::Other(id) => id,
        };
        let silent = members::silent(&node.raft);
        let voters: Vec<u64> = node.raft.voter_ids().collect();
        let metrics = node.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched: BTreeMap<u64, u64> = metrics
            .replication
            .iter()
            .flatten()
            .map(|(id, matched)| (*id, matched.map_or(0, |log_id| log_id.index)))
            .collect();
        let member = |(id, member): (u64, Member)| v1::Member {
            node_id: id,
            client_endpoint: member.client_endpoint,
            peer_endpoint: member.peer_endpoint,
            voter: voters.contains(&id),
            leader: id == leader,
            matched_index: matched.get(&id).copied().unwrap_or(0),
            silent_ms: silent
                .get(&id)
                .map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
        };
        node.peers.members().into_iter().map(member).collect()
    }

    fn role(&self) -> v1::Role {
        match self.0.raft.metrics().borrow_watched().state {
            ServerState::Leader => v1::Role::Leader,
            ServerState::Candidate => v1::Role::Candidate,
            ServerState::Learner => v1::Role::Learner,
            ServerState::Follower | ServerState::Shutdown => v1::Role::Follower,
        }
    }
}

/// Sends a call on to the leader, once.
fn forwarded<T>(request: Request<T>) -> Request<T> {
    let (metadata, extensions, message) = request.into_parts();
    let mut request = Request::from_parts(metadata, extensions, message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

#[tonic::async_trait]
impl Service for Calls {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let idle_ms = match request.get_ref().idle_ms {
            0 => limits::SESSION_IDLE_MS_DEFAULT,
            idle_ms => idle_ms,
        };
        let open = sessions::Command::Open { idle_ms };
        let Answered { reply, header } = self.session(&request, open).await?;
        let Reply::Session(sessions::Reply::Opened { session, idle_ms }) = reply else {
            return Err(foreign(&reply));
        };
        let header = Some(header);
        Ok(Response::new(v1::OpenSessionResponse { header, session_id: session, idle_ms }))
    }

    async fn keep_session(
        &self,
        request: Request<v1::KeepSessionRequest>,
    ) -> Result<Response<v1::KeepSessionResponse>, Status> {
        let session = request.get_ref().context.map_or(0, |context| context.session_id);
        if session == 0 {
            return Err(self.0.bad_request("context.session_id is missing".to_owned()));
        }
        let Answered { reply, header } =
            self.session(&request, sessions::Command::Keep { session }).await?;
        let Reply::Session(sessions::Reply::Kept) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::KeepSessionResponse { header: Some(header) }))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let session = request.get_ref().session_id;
        if session == 0 {
            return Err(self.0.bad_request("session_id is missing".to_owned()));
        }
        let Answered { reply, header } =
            self.session(&request, sessions::Command::Close { session }).await?;
        let Reply::Session(sessions::Reply::Closed) = reply else {
            return Err(foreign(&reply));
        };
        Ok(Response::new(v1::CloseSessionResponse { header: Some(header) }))
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let node = &self.0;
        let state = node.applied.state();
        let counts = self.checked(changesources::counts(&state))?;
        let alive = self.checked(masters::alive_count(&state))?;
        let lead = node.lead.borrow().leader.clone();
        let (last_log_index, purged_index) = {
            let metrics = node.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.last_log_index.unwrap_or(0), metrics.purged.map_or(0, |log_id| log_id.index))
        };
        let short = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let counter = |counter: &std::sync::atomic::AtomicU64| {
            counter.load(std::sync::atomic::Ordering::Relaxed)
        };
        Ok(Response::new(v1::StatusResponse {
            header: Some(node.header_of(&state)),
            role: self.role().into(),
            ready: node.readiness().is_ok(),
            last_log_index,
            applied_index: applied_index(&state),
            purged_index,
            clock_ms: state.header().clock_ms,
            members: self.members(),
            alarms: node.alarms.lines(),
            changesources: short(counts.total),
            changesources_owned: short(counts.owned),
            masters_alive: short(alive),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state_digest: state.header().digest.to_bytes().to_vec(),
            leader_since_unix_ms: match lead {
                Leader::Me(epoch) => epoch.since_unix_ms,
                Leader::None | Leader::Other(_) => 0,
            },
            log_syncs: node.log.syncs(),
            log_entries: counter(&node.proposer.counters.entries),
            requests_proposed: counter(&node.proposer.counters.requests),
            snapshots_sent: counter(&node.snapshots.sent),
            snapshots_installed: counter(&node.snapshots.installed),
            process_syncs: sync::count(),
            watches: short(u64::try_from(node.applied.watches()).unwrap_or(u64::MAX)),
        }))
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let state = self.read(&metadata, request.read).await?;
        let header = Some(self.0.header_of(&state));
        Ok(Response::new(v1::ListMembersResponse { header, members: self.members() }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        if let Some(leader) = self.leader_elsewhere(&request) {
            return self.dial(&leader).await?.join(forwarded(request)).await;
        }
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        if request.incarnation == 0 {
            return Err(self.0.bad_request("incarnation is missing".to_owned()));
        }
        let joiner = Joiner {
            node_id: (request.node_id != 0).then_some(request.node_id),
            member: Member {
                peer_endpoint: request.peer_endpoint,
                client_endpoint: request.client_endpoint,
                incarnation: request.incarnation,
                promote: !request.learner_only,
                ..Member::default()
            },
        };
        let joined = self.0.join(joiner, deadline).await;
        let node_id = joined.map_err(|refused| self.0.change_refused(&refused))?;
        Ok(Response::new(v1::JoinResponse {
            header: Some(self.0.header_of(&self.0.applied.state())),
            node_id,
            cluster_id: self.0.peers.own().cluster_id.clone(),
        }))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        if let Some(leader) = self.leader_elsewhere(&request) {
            return self.dial(&leader).await?.remove_member(forwarded(request)).await;
        }
        let deadline = deadline(request.metadata());
        let removed = self.0.remove(request.get_ref().node_id, deadline).await;
        removed.map_err(|refused| self.0.change_refused(&refused))?;
        let header = Some(self.0.header_of(&self.0.applied.state()));
        Ok(Response::new(v1::RemoveMemberResponse { header }))
    }

    async fn move_lead(
        &self,
        request: Request<v1::MoveLeadRequest>,
    ) -> Result<Response<v1::MoveLeadResponse>, Status> {
        if let Some(leader) = self.leader_elsewhere(&request) {
            return self.dial(&leader).await?.move_lead(forwarded(request)).await;
        }
        let deadline = deadline(request.metadata());
        let to = request.get_ref().node_id;
        let moved = self.0.move_lead((to != 0).then_some(to), deadline).await;
        moved.map_err(|refused| self.0.change_refused(&refused))?;
        let header = Some(self.0.header_of(&self.0.applied.state()));
        Ok(Response::new(v1::MoveLeadResponse { header }))
    }
}

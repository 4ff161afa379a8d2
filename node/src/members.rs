//! Changing who belongs to the cluster, on the leader: one change at a time.
//!
//! A node joins as learner and is made a voter once it has caught up; both steps are repeated
//! safely, by whoever leads. A change that would leave the voters that answer without a majority
//! is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};

use crate::leadership::{Lead, Leader};
use crate::node::Node;
use crate::raft::types::{LogId, Member, Membership, Raft, TypeConfig};
use crate::runtime::{self, Instant, watch};

/// A learner counts as caught up when it is at most this many entries behind.
const CAUGHT_UP_ENTRIES: u64 = 1000;
/// How often the leader looks whether a learner has caught up.
const PROMOTE_EVERY: Duration = Duration::from_millis(50);
/// A voter that has not answered for so long does not count as alive.
const ALIVE_MAX: Duration = Duration::from_secs(2);

/// Why a change of the membership was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("this node does not lead")]
    NotLeader(Option<u64>),
    #[error("node id {node} belongs to another data directory (incarnation {incarnation:016x})")]
    OtherIncarnation { node: u64, incarnation: u64 },
    #[error("n{node} is alive at {endpoint}; this directory is a copy of its own")]
    Copy { node: u64, endpoint: String },
    #[error("n{0} is not a member")]
    Unknown(u64),
    #[error("n{0} was removed from this cluster, and ids are never given to a second node")]
    IdUsedBefore(u64),
    #[error("only {alive} of {voters} voters would remain that answer, and {needed} are needed")]
    QuorumAtRisk { alive: usize, voters: usize, needed: usize },
    #[error("another change of the membership is on its way")]
    InProgress,
    #[error("not an endpoint of the form host:port: {0:?}")]
    BadEndpoint(String),
    #[error("{0}")]
    Failed(String),
}

/// A node that asks to be taken in.
#[derive(Clone, Debug)]
pub(crate) struct Joiner {
    /// None: the cluster chooses.
    pub(crate) node_id: Option<u64>,
    /// The nonce of the joining process.
    pub(crate) member: Member,
}

impl Node {
    /// Takes a node in and returns its id. Asking again with the same incarnation changes nothing
    /// but its endpoints.
    pub(crate) async fn join(&self, joiner: Joiner, deadline: Instant) -> Result<u64, Refused> {
        for endpoint in [&joiner.member.peer_endpoint, &joiner.member.client_endpoint] {
            check_endpoint(endpoint)?;
        }
        let _change = self.changing.lock().await;
        self.must_lead()?;
        let members = self.peers.members();
        let same = members.iter().find(|(_, m)| m.incarnation == joiner.member.incarnation);
        let node_id = match (joiner.node_id, same) {
            (Some(asked), Some((id, _))) if asked != *id => {
                return Err(Refused::OtherIncarnation {
                    node: asked,
                    incarnation: joiner.member.incarnation,
                });
            }
            (_, Some((id, old))) => {
                if same_place(old, &joiner.member) {
                    return Ok(*id);
                }
                // At the old peer address the joining process itself may listen: then there is
                // nobody else.
                if old.peer_endpoint != joiner.member.peer_endpoint {
                    self.must_be_gone(*id, old, deadline).await?;
                }
                *id
            }
            (Some(asked), None) => {
                if let Some(old) = members.get(&asked) {
                    let incarnation = old.incarnation;
                    return Err(Refused::OtherIncarnation { node: asked, incarnation });
                }
                if removed_ids(&members).contains(&asked) {
                    return Err(Refused::IdUsedBefore(asked));
                }
                asked
            }
            (None, None) => free_id(&members),
        };
        let mut member = joiner.member;
        if let Some(old) = members.get(&node_id) {
            member.removed.clone_from(&old.removed);
        }
        let nodes = BTreeMap::from([(node_id, member)]);
        self.change(ChangeMembers::SetNodes(nodes), deadline).await?;
        Ok(node_id)
    }

    /// Takes a node out: first its vote, then the node.
    pub(crate) async fn remove(&self, node_id: u64, deadline: Instant) -> Result<(), Refused> {
        let _change = self.changing.lock().await;
        self.must_lead()?;
        let voters: BTreeSet<u64> = self.raft.voter_ids().collect();
        let members = self.peers.members();
        let leaving = members.get(&node_id).ok_or(Refused::Unknown(node_id))?;
        if voters.contains(&node_id) {
            self.must_keep_quorum(&voters, node_id)?;
        }
        if let Some((keeper, member)) = members.iter().find(|(id, _)| **id != node_id) {
            let mut member = member.clone();
            member.removed.extend(leaving.removed.iter().chain([&node_id]));
            let nodes = BTreeMap::from([(*keeper, member)]);
            self.change(ChangeMembers::SetNodes(nodes), deadline).await?;
        }
        if voters.contains(&node_id) {
            let out = BTreeSet::from([node_id]);
            self.change(ChangeMembers::RemoveVoters(out), deadline).await?;
        }
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node_id])), deadline).await
    }

    /// Moves the lead, to the most up-to-date voter if none is named.
    pub(crate) async fn move_lead(
        &self,
        to: Option<u64>,
        deadline: Instant,
    ) -> Result<(), Refused> {
        self.must_lead()?;
        let target = match to {
            Some(target) => target,
            None => best_heir(&self.raft, |_| true).ok_or(Refused::QuorumAtRisk {
                alive: 1,
                voters: 1,
                needed: 2,
            })?,
        };
        if target == self.peers.own().node_id {
            return Ok(());
        }
        if !self.raft.voter_ids().any(|voter| voter == target) {
            return Err(Refused::Unknown(target));
        }
        let mut lead = self.lead.clone();
        let failed = |error: &dyn std::error::Error| Refused::Failed(error.to_string());
        self.raft.trigger().transfer_leader(target).await.map_err(|e| failed(&e))?;
        let moved = lead.wait_for(|lead| matches!(lead.leader, Leader::Other(_)));
        match runtime::until(deadline, moved).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(failed(&error)),
            None => Err(Refused::Failed(format!("n{target} has not taken over in time"))),
        }
    }

    fn must_lead(&self) -> Result<(), Refused> {
        match &self.lead.borrow().leader {
            Leader::Me(_) => Ok(()),
            Leader::Other(id) => Err(Refused::NotLeader(Some(*id))),
            Leader::None => Err(Refused::NotLeader(None)),
        }
    }

    /// A known directory at a new place: fine unless the process at the old place is alive.
    async fn must_be_gone(&self, id: u64, old: &Member, deadline: Instant) -> Result<(), Refused> {
        let deadline = deadline.min(runtime::now() + Duration::from_secs(1));
        match self.peers.hello(&old.peer_endpoint, deadline).await {
            Ok(hello) if hello.node_id == id && hello.incarnation == old.incarnation => {
                Err(Refused::Copy { node: id, endpoint: old.peer_endpoint.clone() })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn must_keep_quorum(&self, voters: &BTreeSet<u64>, out: u64) -> Result<(), Refused> {
        let silent = silent(&self.raft);
        let remaining: Vec<u64> = voters.iter().copied().filter(|voter| *voter != out).collect();
        let needed = remaining.len() / 2 + 1;
        let own = self.peers.own().node_id;
        let alive = remaining
            .iter()
            .filter(|voter| **voter == own || silent.get(voter).is_some_and(|s| *s < ALIVE_MAX))
            .count();
        if alive < needed {
            return Err(Refused::QuorumAtRisk { alive, voters: remaining.len(), needed });
        }
        Ok(())
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, Member>,
        deadline: Instant,
    ) -> Result<(), Refused> {
        match runtime::until(deadline, self.raft.change_membership(change, true)).await {
            None => Err(Refused::Failed("the change was not committed in time".to_owned())),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(refused(error)),
        }
    }
}

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Refused {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            Refused::NotLeader(forward.leader_id)
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => Refused::InProgress,
        RaftError::APIError(_) | RaftError::Fatal(_) => Refused::Failed(error.to_string()),
    }
}

/// The ids that nodes had which were removed. A new node never gets one of them: it would vote
/// and count with an empty log where the old one had acknowledged writes.
fn removed_ids(members: &BTreeMap<u64, Member>) -> BTreeSet<u64> {
    members.values().flat_map(|member| member.removed.iter().copied()).collect()
}

fn free_id(members: &BTreeMap<u64, Member>) -> u64 {
    let highest = members.keys().copied().chain(removed_ids(members)).max();
    highest.map_or(1, |highest| highest + 1)
}

fn same_place(old: &Member, new: &Member) -> bool {
    old.peer_endpoint == new.peer_endpoint && old.client_endpoint == new.client_endpoint
}

fn check_endpoint(endpoint: &str) -> Result<(), Refused> {
    let valid = endpoint.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if valid { Ok(()) } else { Err(Refused::BadEndpoint(endpoint.to_owned())) }
}

/// How long ago each other node last answered; empty unless this node leads.
pub(crate) fn silent(raft: &Raft) -> BTreeMap<u64, Duration> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let Some(heartbeat) = &metrics.heartbeat else { return BTreeMap::new() };
    heartbeat.iter().filter_map(|(id, seen)| seen.map(|seen| (*id, seen.elapsed()))).collect()
}

/// The voter other than this node that has most of the log, among those that are fit for the lead.
pub(crate) fn best_heir(raft: &Raft, is_fit: impl Fn(u64) -> bool) -> Option<u64> {
    let voters: BTreeSet<u64> = raft.voter_ids().collect();
    let silent = silent(raft);
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let replication = metrics.replication.as_ref()?;
    replication
        .iter()
        .filter(|(id, _)| **id != metrics.id && voters.contains(id) && is_fit(**id))
        .filter(|(id, _)| silent.get(id).is_some_and(|silent| *silent < ALIVE_MAX))
        .max_by_key(|(_, matched)| **matched)
        .map(|(id, _)| *id)
}

/// Makes voters of learners that want to be and have caught up. Runs for the node's life; idle
/// unless this node leads.
pub(crate) async fn promote(node: Arc<Node>, mut lead: watch::Receiver<Lead>) {
    // Tells of membership changes, also of one that happens while a look is taken.
    let mut metrics = node.raft.server_metrics();
    loop {
        let leads = matches!(lead.borrow_and_update().leader, Leader::Me(_));
        if leads && matches!(look(&node.raft), Learners::CaughtUp(_)) {
            let _change = node.changing.lock().await;
            // Looked up again: what was waited for may have been its removal.
            let Learners::CaughtUp(learner) = look(&node.raft) else { continue };
            let deadline = runtime::now() + Duration::from_secs(5);
            let voters = ChangeMembers::AddVoterIds(BTreeSet::from([learner]));
            match node.change(voters, deadline).await {
                Ok(()) => tracing::info!("n{learner} is a voter"),
                Err(refused) => tracing::info!("n{learner} is not a voter yet: {refused}"),
            }
        }
        if leads && look(&node.raft) != Learners::None {
            runtime::sleep(PROMOTE_EVERY).await;
        } else {
            runtime::select! {
                changed = lead.changed() => if changed.is_err() { return },
                changed = metrics.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// How the learners stand that want to be voters.
#[derive(Debug, PartialEq, Eq)]
enum Learners {
    /// There are none: nothing is to be done before the membership changes.
    None,
    /// All of them are behind, or nothing was heard of them yet.
    Behind,
    /// This one has caught up.
    CaughtUp(u64),
}

/// Of the membership that the changes are told of, which is there first: the directory of peers and
/// the progress of replication follow it, and may be a moment behind.
fn look(raft: &Raft) -> Learners {
    let membership = Arc::clone(&raft.server_metrics().borrow_watched().membership_config);
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    learners(membership.membership(), metrics.last_log_index, metrics.replication.as_ref())
}

/// `replication` says up to where each node's log is known to match the leader's, which ends with
/// the entry `last`.
fn learners(
    membership: &Membership,
    last: Option<u64>,
    replication: Option<&BTreeMap<u64, Option<LogId>>>,
) -> Learners {
    let has_caught_up = |learner: &u64| {
        let matched = replication.and_then(|matched| matched.get(learner).copied().flatten());
        matched.zip(last).is_some_and(|(matched, last)| matched.index + CAUGHT_UP_ENTRIES >= last)
    };
    let mut willing = membership
        .learner_ids()
        .filter(|id| membership.get_node(id).is_some_and(|member| member.promote))
        .peekable();
    if willing.peek().is_none() {
        return Learners::None;
    }
    willing.find(has_caught_up).map_or(Learners::Behind, Learners::CaughtUp)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// n1 is the voter; the others are learners, each of which wants to be one or not.
    fn membership(learners: &[(u64, bool)]) -> Membership {
        let member = |promote| Member { promote, ..Member::default() };
        let learners = learners.iter().map(|(id, promote)| (*id, member(*promote)));
        let members: BTreeMap<u64, Member> =
            [(1, member(true))].into_iter().chain(learners).collect();
        Membership::new(vec![BTreeSet::from([1])], members).expect("n1 is a member")
    }

    fn replication(matched: &[(u64, Option<u64>)]) -> BTreeMap<u64, Option<LogId>> {
        let log_id = |index| LogId::new_term_index(1, index);
        matched.iter().map(|(id, index)| (*id, index.map(log_id))).collect()
    }

    // A learner that had joined stayed one for good if the leader looked before all it knows of the
    // nodes had followed the membership: it saw none, and did not look again.
    #[test]
    fn learner_of_which_only_the_membership_tells_yet_is_looked_at_again() {
        let joined = membership(&[(2, true)]);
        assert_eq!(learners(&joined, None, None), Learners::Behind);
        assert_eq!(learners(&joined, Some(5), None), Learners::Behind);
        for known in [replication(&[(1, Some(5))]), replication(&[(1, Some(5)), (2, None)])] {
            assert_eq!(learners(&joined, Some(5), Some(&known)), Learners::Behind);
        }
    }

    #[test]
    fn learner_has_caught_up_within_the_last_entries() {
        let joined = membership(&[(2, true), (3, true)]);
        let (last, near) = (5 + CAUGHT_UP_ENTRIES, replication(&[(2, None), (3, Some(5))]));
        assert_eq!(learners(&joined, Some(last), Some(&near)), Learners::CaughtUp(3));
        assert_eq!(learners(&joined, Some(last + 1), Some(&near)), Learners::Behind);
    }

    #[test]
    fn nobody_is_waited_for_where_nobody_wants_to_be_a_voter() {
        let level = replication(&[(1, Some(5)), (2, Some(5))]);
        assert_eq!(learners(&membership(&[]), Some(5), Some(&level)), Learners::None);
        assert_eq!(learners(&membership(&[(2, false)]), Some(5), Some(&level)), Learners::None);
    }
}

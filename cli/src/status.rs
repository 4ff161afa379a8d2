//! One verdict over what the nodes say: healthy, degraded, no quorum, or nobody there.
//!
//! The nodes are asked one by one and never need each other to answer, so that the verdict comes in
//! under a second just when the cluster cannot do anything else. A cluster that has lost its leader
//! a moment ago is looked at again until that second is nearly over, because an election takes half
//! of it. Invariants: the verdict follows from the answers alone ([`assess`] is pure), and each one
//! has its exit code: 0, 6, 4, 3.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::codes::{Code, Exit};
use crate::errors::Failure;
use crate::names::node_name;
use crate::probe::{self, Member, NodeStatus, Probe, Seen};
use crate::roles::{counted, listed};
use crate::units::human;

/// All looks together take no longer.
const LOOK_WITHIN: Duration = Duration::from_millis(850);
/// A voter that the leader has heard within this time counts as alive though it does not answer
/// us. Shorter than [`LOOK_WITHIN`], so that one that died before the first look never does.
const HEARD_WITHIN: Duration = Duration::from_millis(700);

/// What to do when nobody answers.
pub(crate) const UNREACHABLE_HELP: &str =
    "start a local cluster with holdfast up, or say where the cluster is: --endpoints host:port";

/// The verdict, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All members answer, and writes work.
    Healthy,
    /// Writes work, but something is wrong.
    Degraded,
    /// Nodes answer, but the cluster cannot write.
    NoQuorum,
    /// No node answers.
    Unreachable,
}

impl Verdict {
    /// As JSON spells it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::NoQuorum => "no-quorum",
            Self::Unreachable => "unreachable",
        }
    }

    /// What `status` exits with.
    pub(crate) const fn exit(self) -> Exit {
        match self {
            Self::Healthy => Exit::Done,
            Self::Degraded => Exit::Degraded,
            Self::NoQuorum => Exit::CannotWrite,
            Self::Unreachable => Exit::Unreachable,
        }
    }
}

/// A member of the cluster, or an endpoint at which nobody answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeView {
    /// Its number; none if nobody knows who should answer there.
    pub(crate) id: Option<u64>,
    /// Where it was asked.
    pub(crate) endpoint: String,
    /// Whether it votes.
    pub(crate) voter: bool,
    /// What it said.
    pub(crate) status: Option<NodeStatus>,
    /// Why it said nothing.
    pub(crate) reason: Option<String>,
    /// How long the leader has not heard from it, if a leader says so.
    pub(crate) silent: Option<Duration>,
}

/// All that the verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assessment {
    /// In one word.
    pub(crate) verdict: Verdict,
    /// The members in order of their numbers; without any answer, the endpoints that were asked.
    pub(crate) nodes: Vec<NodeView>,
    /// The leader's own status, or that of the node that knows most.
    pub(crate) reference: Option<NodeStatus>,
    /// The leader, if writes work.
    pub(crate) leader: Option<u64>,
    /// How many of those that answer can still fail.
    pub(crate) can_lose: usize,
    /// What nodes complain about: who, and what.
    pub(crate) alarms: Vec<(u64, String)>,
}

/// Asks all nodes and comes to a verdict, in less than a second.
pub(crate) async fn look(probe: &Probe) -> Assessment {
    assess(&probe.until(LOOK_WITHIN, |seen, has_all| has_all && assess(seen).is_settled()).await)
}

/// The verdict over what came back from each endpoint.
pub(crate) fn assess(seen: &BTreeMap<String, Seen>) -> Assessment {
    let answers: Vec<NodeStatus> = seen.values().filter_map(|s| s.as_ref().ok().cloned()).collect();
    let most = |s: &&NodeStatus| (s.header.term, s.applied_index);
    let leader = answers.iter().filter(|s| s.ready).cloned().collect::<Vec<_>>();
    let leader = probe::leader(&leader).cloned();
    let Some(reference) = leader.clone().or_else(|| answers.iter().max_by_key(most).cloned())
    else {
        return nobody(seen);
    };
    let (ours, strangers): (Vec<NodeStatus>, Vec<NodeStatus>) =
        answers.into_iter().partition(|s| s.header.cluster_id == reference.header.cluster_id);
    let mut nodes: Vec<NodeView> =
        reference.members.iter().map(|member| view(member, &ours, seen)).collect();
    nodes.sort_by_key(|node| node.id);
    let mut alarms: Vec<(u64, String)> = ours
        .iter()
        .flat_map(|s| s.alarms.iter().map(|text| (s.header.node_id, text.clone())))
        .collect();
    alarms.extend(strangers.iter().map(|s| {
        (s.header.node_id, format!("answers for another cluster, {}", s.header.cluster_id))
    }));
    let mut assessment = Assessment {
        verdict: Verdict::NoQuorum,
        leader: leader.as_ref().map(|l| l.header.node_id),
        nodes,
        reference: Some(reference),
        can_lose: 0,
        alarms,
    };
    assessment.judge(&ours, leader.is_some());
    assessment
}

impl Assessment {
    /// Fills in the verdict and what can still fail.
    fn judge(&mut self, ours: &[NodeStatus], leader_answers: bool) {
        let quorum = self.quorum();
        let answering = self.voters_answering();
        let alive = self
            .voters()
            .filter(|v| v.status.is_some() || v.silent.is_some_and(|s| s < HEARD_WITHIN))
            .count();
        let works = if leader_answers {
            alive >= quorum
        } else {
            // The leader is out of our reach, but others are sure of it. One that answers and does
            // not say that it leads is none, whatever others believe.
            answering >= quorum && believed_leader(ours).is_some()
        };
        if !works {
            self.leader = None;
            return;
        }
        if self.leader.is_none() {
            self.leader = believed_leader(ours);
        }
        let following = self.voters().filter(|v| v.status.is_some() && !self.is_apart(v)).count();
        self.can_lose = following.saturating_sub(quorum);
        let all_follow =
            self.nodes.iter().all(|node| node.status.is_some() && !self.is_apart(node));
        self.verdict = if all_follow && leader_answers && self.alarms.is_empty() {
            Verdict::Healthy
        } else {
            Verdict::Degraded
        };
    }

    /// Whether looking again could not show something better in a moment.
    fn is_settled(&self) -> bool {
        match self.verdict {
            Verdict::Healthy | Verdict::Unreachable => true,
            Verdict::Degraded => {
                let leader_answers =
                    self.nodes.iter().any(|n| n.id == self.leader && n.status.is_some());
                // A node that has just started, or has just been healed, follows in a moment.
                let all_settled = !self.nodes.iter().any(|node| self.is_apart(node));
                leader_answers && all_settled && self.voters_answering() >= self.quorum()
            }
            // Those that answer may be about to elect; too few of them never will.
            Verdict::NoQuorum => self.voters_answering() < self.quorum(),
        }
    }

    /// The voters.
    pub(crate) fn voters(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|node| node.voter)
    }

    /// How many voters answered.
    pub(crate) fn voters_answering(&self) -> usize {
        self.voters().filter(|node| node.status.is_some()).count()
    }

    /// Whether a node answers us and yet does not follow the leader, which answers us too: they
    /// cannot hear each other, or it has just started.
    fn is_apart(&self, node: &NodeView) -> bool {
        let leads = |view: &&NodeView| view.id == self.leader && view.status.is_some();
        let Some(leader) = self.leader.filter(|_| self.nodes.iter().any(|v| leads(&v))) else {
            return false;
        };
        node.status.as_ref().is_some_and(|s| !s.ready || s.header.leader_id != leader)
    }

    fn quorum(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// The error that this verdict is, if it is one.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self.verdict {
            Verdict::Healthy | Verdict::Degraded => None,
            Verdict::NoQuorum => Some(self.no_quorum()),
            Verdict::Unreachable => Some(self.unreachable()),
        }
    }

    fn no_quorum(&self) -> Failure {
        let failure = Failure::new(Code::NoQuorum, "the cluster cannot commit writes");
        let count = self.voters().count();
        let answering: Vec<String> =
            self.voters().filter(|v| v.status.is_some()).map(NodeView::name).collect();
        let missing: Vec<&NodeView> = self.voters().filter(|v| v.status.is_none()).collect();
        let verb = if answering.len() == 1 { "answers" } else { "answer" };
        let who = answering.join(", ");
        let mut cause = format!("{} of {count} voters {verb} ({who})", answering.len());
        if answering.len() >= self.quorum() {
            cause += "; none of them leads, so an election is under way or they cannot reach each \
                      other";
            return failure
                .cause(cause)
                .help("look again in a second. Nothing is lost; stale reads work with --local.");
        }
        let away: Vec<String> = missing.iter().map(|node| node.unreachable()).collect();
        cause += &format!("; {}", away.join(", "));
        let needed = self.quorum() - answering.len();
        let names: Vec<String> = missing.iter().map(|node| node.name()).collect();
        let whom = match needed {
            1 => listed(&names, "or"),
            all if all == names.len() => listed(&names, "and"),
            some => format!("{some} of {}", listed(&names, "and")),
        };
        failure
            .cause(cause)
            .help(format!("bring back {whom}. Nothing is lost; stale reads work with --local."))
    }

    fn unreachable(&self) -> Failure {
        let tried: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("{}: {}", node.endpoint, node.reason.clone().unwrap_or_default()))
            .collect();
        Failure::new(Code::Unreachable, "no node answered")
            .cause(tried.join("; "))
            .help(UNREACHABLE_HELP)
    }

    /// What makes it degraded, in a few words.
    pub(crate) fn troubles(&self) -> String {
        let mut troubles: Vec<String> = self
            .nodes
            .iter()
            .filter(|node| node.status.is_none())
            .map(NodeView::unreachable)
            .collect();
        let apart = self.nodes.iter().filter(|node| self.is_apart(node));
        troubles.extend(apart.map(|node| format!("{} does not follow the leader", node.name())));
        if !self.alarms.is_empty() {
            troubles.push(counted(self.alarms.len(), "alarm"));
        }
        troubles.join(", ")
    }
}

impl NodeView {
    fn name(&self) -> String {
        self.id.map_or_else(|| self.endpoint.clone(), node_name)
    }

    /// "n2 unreachable 31 s", without the time if no leader tells it.
    fn unreachable(&self) -> String {
        match self.silent {
            Some(silent) => format!("{} unreachable {}", self.name(), human(silent)),
            None => format!("{} unreachable", self.name()),
        }
    }
}

/// Whom nodes follow that does not answer us.
fn believed_leader(ours: &[NodeStatus]) -> Option<u64> {
    let answers = |id| ours.iter().any(|status| status.header.node_id == id);
    let followed = ours.iter().filter(|s| s.ready && s.header.leader_id != 0);
    followed.map(|s| s.header.leader_id).find(|id| !answers(*id))
}

fn view(member: &Member, ours: &[NodeStatus], seen: &BTreeMap<String, Seen>) -> NodeView {
    let status = ours.iter().find(|s| s.header.node_id == member.node_id).cloned();
    let reason = match seen.get(&member.client_endpoint) {
        Some(Err(reason)) => Some(reason.clone()),
        Some(Ok(_)) | None => None,
    };
    NodeView {
        id: Some(member.node_id),
        endpoint: member.client_endpoint.clone(),
        voter: member.voter,
        reason: if status.is_some() { None } else { reason },
        // Time during which it was silent for the leader says nothing once it has answered us.
        silent: if status.is_some() { None } else { member.silent },
        status,
    }
}

fn nobody(seen: &BTreeMap<String, Seen>) -> Assessment {
    let node = |(endpoint, answer): (&String, &Seen)| NodeView {
        id: None,
        endpoint: endpoint.clone(),
        voter: false,
        status: None,
        reason: answer.as_ref().err().cloned(),
        silent: None,
    };
    Assessment {
        verdict: Verdict::Unreachable,
        nodes: seen.iter().map(node).collect(),
        reference: None,
        leader: None,
        can_lose: 0,
        alarms: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    //! The verdict over every kind of answer, and its words.
    use super::*;
    use crate::codes::Exit;
    use crate::probe::Role;
    use crate::testing::{member, node_status};

    /// Three voters of which those in `answering` answer; `leader` leads if it is not 0, and has
    /// not heard the others for 31 s and 45 s.
    fn cluster(answering: &[u64], leader: u64) -> BTreeMap<String, Seen> {
        let silent = |id: u64| match (leader, answering.contains(&id)) {
            (0, _) | (_, true) => None,
            _ => Some(Duration::from_secs(17 + 14 * (id - 1))),
        };
        let members: Vec<Member> =
            (1..=3).map(|id| Member { silent: silent(id), ..member(id, true) }).collect();
        (1..=3)
            .map(|id| {
                let answer = if answering.contains(&id) {
                    Ok(node_status(id, leader, &members))
                } else {
                    Err("connection refused".to_owned())
                };
                (member(id, true).client_endpoint, answer)
            })
            .collect()
    }

    fn plain(assessment: &Assessment) -> String {
        let failure = assessment.failure().unwrap();
        anstream::adapter::strip_str(&failure.to_text()).to_string()
    }

    #[test]
    fn all_answer() {
        let assessment = assess(&cluster(&[1, 2, 3], 2));
        assert_eq!(assessment.verdict, Verdict::Healthy);
        assert_eq!(assessment.verdict.exit(), Exit::Done);
        assert_eq!((assessment.leader, assessment.can_lose), (Some(2), 1));
        assert!(assessment.is_settled());
    }

    #[test]
    fn a_follower_is_away() {
        let assessment = assess(&cluster(&[1, 2], 2));
        assert_eq!(assessment.verdict, Verdict::Degraded);
        assert_eq!(assessment.verdict.exit(), Exit::Degraded);
        assert_eq!(assessment.can_lose, 0);
        assert_eq!(assessment.troubles(), "n3 unreachable 45 s");
        assert!(assessment.is_settled());
    }

    #[test]
    fn a_node_that_answers_and_does_not_follow_is_as_good_as_away() {
        // Cut off, and not aware of it yet: it believes that it leads.
        let mut seen = cluster(&[1, 2, 3], 2);
        let first = seen.values_mut().next().unwrap().as_mut().unwrap();
        (first.role, first.header.leader_id, first.header.term) = (Role::Leader, 1, 6);
        let assessment = assess(&seen);
        assert_eq!(assessment.verdict, Verdict::Degraded);
        assert_eq!((assessment.leader, assessment.can_lose), (Some(2), 0));
        assert_eq!(assessment.troubles(), "n1 does not follow the leader");
        assert!(!assessment.is_settled(), "it may follow in a moment");
        // Cut off, and aware of it.
        let first = seen.values_mut().next().unwrap().as_mut().unwrap();
        (first.role, first.header.leader_id, first.ready) = (Role::Candidate, 0, false);
        assert_eq!(assess(&seen).troubles(), "n1 does not follow the leader");
    }

    #[test]
    fn an_alarm_degrades() {
        let mut seen = cluster(&[1, 2, 3], 2);
        let first = seen.values_mut().next().unwrap().as_mut().unwrap();
        first.alarms.push("diverged: index 9".to_owned());
        let assessment = assess(&seen);
        assert_eq!(assessment.verdict, Verdict::Degraded);
        assert_eq!(assessment.troubles(), "1 alarm");
        assert_eq!(assessment.alarms, [(1, "diverged: index 9".to_owned())]);
    }

    #[test]
    fn the_quorum_is_lost() {
        // The old leader still counts the silence of the others, but cannot commit.
        let mut seen = cluster(&[1], 1);
        let only = seen.values_mut().next().unwrap().as_mut().unwrap();
        only.ready = false;
        let assessment = assess(&seen);
        assert_eq!(assessment.verdict, Verdict::NoQuorum);
        assert_eq!(assessment.verdict.exit(), Exit::CannotWrite);
        assert_eq!(
            plain(&assessment),
            "error[no-quorum]: the cluster cannot commit writes\n  cause: 1 of 3 voters answers \
             (n1); n2 unreachable 31 s, n3 unreachable 45 s\n   help: bring back n2 or n3. Nothing \
             is lost; stale reads work with --local."
        );
    }

    #[test]
    fn a_leader_that_claims_to_be_ready_alone_is_not_believed() {
        assert_eq!(assess(&cluster(&[1], 1)).verdict, Verdict::NoQuorum);
        // Unless it hears the others, which then only we cannot reach.
        let mut seen = cluster(&[1], 1);
        let only = seen.values_mut().next().unwrap().as_mut().unwrap();
        for member in &mut only.members[1..] {
            member.silent = Some(Duration::from_millis(40));
        }
        assert_eq!(assess(&seen).verdict, Verdict::Degraded);
    }

    #[test]
    fn without_a_leader_times_are_left_out_and_it_is_looked_again() {
        let assessment = assess(&cluster(&[1], 0));
        assert_eq!(assessment.verdict, Verdict::NoQuorum);
        assert!(assessment.is_settled(), "one of three cannot elect");
        assert!(plain(&assessment).contains("(n1); n2 unreachable, n3 unreachable\n"));
        let assessment = assess(&cluster(&[1, 2, 3], 0));
        assert_eq!(assessment.verdict, Verdict::NoQuorum);
        assert!(
            plain(&assessment).contains("3 of 3 voters answer (n1, n2, n3); none of them leads")
        );
        assert!(!assessment.is_settled());
    }

    #[test]
    fn a_leader_out_of_reach_is_looked_for_again() {
        let assessment = assess(&cluster(&[1, 3], 2));
        assert_eq!((assessment.verdict, assessment.leader), (Verdict::Degraded, Some(2)));
        assert!(!assessment.is_settled());
    }

    #[test]
    fn a_node_that_does_not_say_that_it_leads_does_not() {
        // After a restart all of them may remember a leader that has not been elected again.
        let mut seen = cluster(&[1, 2, 3], 2);
        for status in seen.values_mut().flatten() {
            status.role = Role::Follower;
        }
        let assessment = assess(&seen);
        assert_eq!((assessment.verdict, assessment.leader), (Verdict::NoQuorum, None));
        assert!(!assessment.is_settled());
    }

    #[test]
    fn nobody_answers() {
        let assessment = assess(&cluster(&[], 0));
        assert_eq!(assessment.verdict.exit(), Exit::Unreachable);
        assert!(assessment.is_settled());
        assert_eq!(
            plain(&assessment),
            "error[unreachable]: no node answered\n  cause: 127.0.0.1:7480: connection refused; \
             127.0.0.1:7490: connection refused; 127.0.0.1:7500: connection refused\n   help: \
             start a local cluster with holdfast up, or say where the cluster is: --endpoints \
             host:port"
        );
    }

    #[test]
    fn a_node_of_another_cluster_is_no_member() {
        let mut seen = cluster(&[1, 2, 3], 2);
        let first = seen.values_mut().next().unwrap().as_mut().unwrap();
        first.header.cluster_id = "another".to_owned();
        let assessment = assess(&seen);
        assert_eq!(assessment.verdict, Verdict::Degraded);
        assert_eq!(assessment.alarms[0].1, "answers for another cluster, another");
    }

    #[test]
    fn a_candidate_is_no_leader() {
        let mut seen = cluster(&[1, 2, 3], 0);
        for status in seen.values_mut().flatten() {
            status.role = Role::Candidate;
        }
        assert_eq!(assess(&seen).verdict, Verdict::NoQuorum);
    }
}

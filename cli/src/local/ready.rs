//! Waiting for a local cluster: until its nodes vote, and until a write has reached all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use holdfast_client::{Client, ClientConfig};

use super::spawn::Started;
use crate::codes::Code;
use crate::connect;
use crate::errors::{Failure, Outcome};
use crate::names::node_name;
use crate::probe::{self, NODE_WITHIN, NodeStatus, Probe, Seen};

/// The namespace of what the local cluster writes itself.
pub(crate) const NAMESPACE: &str = "_local";

/// Waits for nodes that we started, and notices when one of them ends instead.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    /// Asks the nodes.
    pub(crate) probe: Probe,
    /// Those that we have just started.
    pub(crate) started: &'a mut Vec<Started>,
    /// When to give up.
    pub(crate) deadline: Instant,
}

impl Wait<'_> {
    /// Until all of these nodes vote, and all voters answer and follow one leader.
    pub(crate) async fn until_all_vote(&mut self, wanted: &[u64]) -> Outcome<Vec<NodeStatus>> {
        self.until(|seen| all_vote(seen, wanted)).await
    }

    /// Until this node votes and follows whoever leads, whatever the others do.
    pub(crate) async fn until_votes(&mut self, id: u64) -> Outcome<Vec<NodeStatus>> {
        self.until(|seen| follows(seen, leading(seen)?, id)).await
    }

    /// Until this node answers, whatever it knows.
    pub(crate) async fn until_answers(&mut self, id: u64) -> Outcome<Vec<NodeStatus>> {
        self.until(|seen| match seen.iter().any(|s| s.header.node_id == id) {
            true => Ok(()),
            false => Err(format!("{} does not answer yet", node_name(id))),
        })
        .await
    }

    /// Until every voter has applied this revision.
    pub(crate) async fn until_all_applied(&mut self, revision: u64) -> Outcome<Vec<NodeStatus>> {
        self.until(|seen| {
            voters(leading(seen)?).into_iter().try_for_each(|id| has_applied(seen, id, revision))
        })
        .await
    }

    /// Until this node has applied this revision.
    pub(crate) async fn until_applied(
        &mut self,
        id: u64,
        revision: u64,
    ) -> Outcome<Vec<NodeStatus>> {
        self.until(|seen| has_applied(seen, id, revision)).await
    }

    async fn until(
        &mut self,
        is_met: impl Fn(&[NodeStatus]) -> Result<(), String>,
    ) -> Outcome<Vec<NodeStatus>> {
        loop {
            let mut ended = None;
            let seen = self.probe.until(NODE_WITHIN, |seen, _| {
                ended = self.started.iter_mut().find_map(Started::ended);
                ended.is_some() || is_met(&answers(seen)).is_ok()
            });
            let seen = answers(&seen.await);
            if let Some(failure) = ended {
                return Err(failure);
            }
            let missing = match is_met(&seen) {
                Ok(()) => return Ok(seen),
                Err(missing) => missing,
            };
            if Instant::now() >= self.deadline {
                return Err(Failure::new(Code::NotReady, "the local cluster is not ready in time")
                    .cause(missing)
                    .help("look at holdfast logs, or wait longer with --timeout 2m"));
            }
        }
    }
}

fn answers(seen: &BTreeMap<String, Seen>) -> Vec<NodeStatus> {
    seen.values().filter_map(|seen| seen.as_ref().ok().cloned()).collect()
}

/// Writes something that was not there before, and returns its revision.
pub(crate) async fn write(endpoints: &[String], deadline: Instant) -> Outcome<u64> {
    let within = deadline.saturating_duration_since(Instant::now()).max(NODE_WITHIN);
    let client = Client::connect(ClientConfig {
        namespace: NAMESPACE.to_owned(),
        call_timeout: within,
        ..ClientConfig::new(endpoints.iter().cloned())
    });
    let written = write_with(&client).await;
    connect::close(&client).await;
    written.map_err(|error| connect::failure(&error))
}

async fn write_with(client: &Client) -> Result<u64, holdfast_client::Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let object = client.state().get_object_id("local", "cli").await?;
    let value = format!("\"{now}-{}\"", std::process::id());
    let written = client.state().set(object, "up", value.into_bytes()).await?;
    Ok(written.mod_revision)
}

fn all_vote(seen: &[NodeStatus], wanted: &[u64]) -> Result<(), String> {
    let leader = leading(seen)?;
    let voters = voters(leader);
    voters.iter().chain(wanted).try_for_each(|id| follows(seen, leader, *id))
}

/// A leader that can commit.
fn leading(seen: &[NodeStatus]) -> Result<&NodeStatus, String> {
    let leader = probe::leader(seen).ok_or("no node leads yet")?;
    match leader.ready {
        true => Ok(leader),
        false => Err(format!("{} leads, but cannot commit yet", node_name(leader.header.node_id))),
    }
}

fn follows(seen: &[NodeStatus], leader: &NodeStatus, id: u64) -> Result<(), String> {
    let name = node_name(id);
    if !voters(leader).contains(&id) {
        return Err(format!("{name} does not vote yet"));
    }
    match seen.iter().find(|status| status.header.node_id == id) {
        None => Err(format!("{name} does not answer")),
        Some(s) if s.header.leader_id != leader.header.node_id || !s.ready => {
            Err(format!("{name} does not follow the leader yet"))
        }
        Some(_) => Ok(()),
    }
}

fn has_applied(seen: &[NodeStatus], id: u64, revision: u64) -> Result<(), String> {
    match seen.iter().any(|s| s.header.node_id == id && s.header.revision >= revision) {
        true => Ok(()),
        false => Err(format!("{} has not applied revision {revision} yet", node_name(id))),
    }
}

/// The voters as one node knows them.
pub(crate) fn voters(status: &NodeStatus) -> BTreeSet<u64> {
    status.members.iter().filter(|m| m.voter).map(|m| m.node_id).collect()
}

#[cfg(test)]
mod tests {
    //! When a cluster counts as ready.
    use super::*;
    use crate::testing::{member, node_status};

    fn seen(answering: &[u64], leader: u64) -> Vec<NodeStatus> {
        let members: Vec<_> = (1..=3).map(|id| member(id, id < 3)).collect();
        answering.iter().map(|id| node_status(*id, leader, &members)).collect()
    }

    #[test]
    fn all_voters_have_to_follow() {
        assert_eq!(all_vote(&seen(&[1, 2, 3], 2), &[1, 2]), Ok(()));
        assert_eq!(all_vote(&seen(&[1, 2, 3], 2), &[3]), Err("n3 does not vote yet".into()));
        assert_eq!(all_vote(&seen(&[2], 2), &[]), Err("n1 does not answer".into()));
        assert_eq!(all_vote(&seen(&[1, 2], 0), &[]), Err("no node leads yet".into()));
        let mut split = seen(&[1, 2], 2);
        split[0].header.leader_id = 1;
        assert_eq!(all_vote(&split, &[]), Err("n1 does not follow the leader yet".into()));
    }

    #[test]
    fn a_joining_node_does_not_wait_for_those_that_are_away() {
        let seen = seen(&[2], 2);
        assert_eq!(follows(&seen, leading(&seen).unwrap(), 2), Ok(()));
        assert_eq!(has_applied(&seen, 2, 40), Ok(()));
        assert_eq!(has_applied(&seen, 2, 41), Err("n2 has not applied revision 41 yet".into()));
    }
}

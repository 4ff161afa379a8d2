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

    /// Until this node answers, whatever it knows.
    pub(crate) async fn until_answers(&mut self, id: u64) -> Outcome<Vec<NodeStatus>> {
        self.until(|seen| match seen.iter().any(|s| s.header.node_id == id) {
            true => Ok(()),
            false => Err(format!("{} does not answer yet", node_name(id))),
        })
        .await
    }

    /// Until every voter has applied this revision; returns how many have, and of how many.
    pub(crate) async fn until_applied(&mut self, revision: u64) -> Outcome<Vec<NodeStatus>> {
        self.until(|seen| applied_by_all(seen, revision)).await
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
    let leader = probe::leader(seen).ok_or("no node leads yet")?;
    if !leader.ready {
        return Err(format!("{} leads, but cannot commit yet", node_name(leader.header.node_id)));
    }
    let voters = voters(leader);
    if let Some(id) = wanted.iter().find(|id| !voters.contains(id)) {
        return Err(format!("{} does not vote yet", node_name(*id)));
    }
    for id in voters {
        let Some(status) = seen.iter().find(|s| s.header.node_id == id) else {
            return Err(format!("{} does not answer", node_name(id)));
        };
        if status.header.leader_id != leader.header.node_id || !status.ready {
            return Err(format!("{} does not follow the leader yet", node_name(id)));
        }
    }
    Ok(())
}

fn applied_by_all(seen: &[NodeStatus], revision: u64) -> Result<(), String> {
    let leader = probe::leader(seen).ok_or("no node leads")?;
    let behind =
        |id: &u64| !seen.iter().any(|s| s.header.node_id == *id && s.header.revision >= revision);
    match voters(leader).into_iter().find(behind) {
        Some(id) => Err(format!("{} has not applied revision {revision} yet", node_name(id))),
        None => Ok(()),
    }
}

/// The voters as one node knows them.
pub(crate) fn voters(status: &NodeStatus) -> BTreeSet<u64> {
    status.members.iter().filter(|m| m.voter).map(|m| m.node_id).collect()
}

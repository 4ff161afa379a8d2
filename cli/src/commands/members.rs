//! `holdfast members`: who belongs to the cluster, and changing that.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use holdfast_client::{Member, Members};
use serde_json::{Value, json};

use crate::args::{MembersArgs, MembersVerb};
use crate::codes::{Code, Exit};
use crate::connect::Connection;
use crate::endpoints;
use crate::errors::{Failure, Outcome};
use crate::local::signals;
use crate::names::{NodeRef, node_name};
use crate::output::{Output, table};
use crate::probe::{NODE_WITHIN, NodeStatus, Probe, leader};
use crate::roles;
use crate::units::human;

/// Carries out `holdfast members …`.
pub(crate) async fn run(args: &MembersArgs, output: Output) -> Outcome<Exit> {
    let connection = Connection::open(&args.call, output)?;
    let endpoints = endpoints::resolve(&args.call.cluster)?;
    let timeout = args.call.timeout;
    match &args.verb {
        None => list(&connection, &endpoints, false, output).await?,
        Some(MembersVerb::List { local }) => {
            list(&connection, &endpoints, *local, output).await?;
        }
        Some(MembersVerb::Remove { node }) => {
            let removed = remove(&connection, *node).await?;
            let local = endpoints::local(&args.call.cluster)?;
            let retired = match local {
                Some((places, _)) => signals::retire(&places, &removed.endpoint).await?,
                None => None,
            };
            removed.print(retired, output);
        }
        Some(MembersVerb::Lead { node }) => {
            lead(&connection, &endpoints, *node, timeout, output).await?;
        }
    }
    Ok(Exit::Done)
}

async fn list(
    connection: &Connection,
    endpoints: &[String],
    local: bool,
    output: Output,
) -> Outcome<()> {
    let cluster = connection.client.cluster();
    let members = match local {
        true => connection.call(cluster.members_local()).await?,
        false => connection.call(cluster.members()).await?,
    };
    // Each node knows best how far it is; the leader's view stands in for those that are away.
    let seen = Probe::new(endpoints).answering().await;
    let mut rows = table(&["NODE", "ROLE", "VOTER", "ADDRESS", "APPLIED", "SILENT"]);
    for member in &members.members {
        let silent = match is_silent(member, &seen) {
            true => silent_of(member, &seen).map_or("yes".to_owned(), human),
            false => "-".to_owned(),
        };
        rows.add_row([
            node_name(member.node_id),
            role(&members, member).to_owned(),
            if member.voter { "yes" } else { "no" }.to_owned(),
            member.client_endpoint.clone(),
            applied(member, &seen).to_string(),
            silent,
        ]);
    }
    let json = members.members.iter().map(|m| row(&members, m, &seen)).collect();
    output.list("holdfast.members/v1", "members", &rows, json);
    Ok(())
}

/// The role that a member has if the answering node is right about who leads.
fn role(members: &Members, member: &Member) -> &'static str {
    let leads = member.leader || member.node_id == members.header.leader_id;
    roles::of_member(leads, member.voter)
}

fn is_silent(member: &Member, seen: &[NodeStatus]) -> bool {
    !seen.iter().any(|status| status.header.node_id == member.node_id)
}

fn applied(member: &Member, seen: &[NodeStatus]) -> u64 {
    let own = seen.iter().find(|status| status.header.node_id == member.node_id);
    own.map_or_else(|| known(member, seen).matched_index, |status| status.applied_index)
}

fn silent_of(member: &Member, seen: &[NodeStatus]) -> Option<Duration> {
    known(member, seen).silent
}

/// The member as the leader knows it.
fn known<'a>(member: &'a Member, seen: &'a [NodeStatus]) -> &'a Member {
    leader(seen)
        .and_then(|status| status.members.iter().find(|m| m.node_id == member.node_id))
        .unwrap_or(member)
}

fn row(members: &Members, member: &Member, seen: &[NodeStatus]) -> Value {
    json!({
        "node": node_name(member.node_id),
        "role": role(members, member),
        "voter": member.voter,
        "address": member.client_endpoint,
        "peer_address": member.peer_endpoint,
        "applied": applied(member, seen).to_string(),
        "answers": !is_silent(member, seen),
    })
}

/// A member that was taken out.
struct Removed {
    name: String,
    endpoint: String,
    voters_left: usize,
}

impl Removed {
    /// Says so, and what became of its process if it was one of the local cluster.
    fn print(&self, retired: Option<PathBuf>, output: Output) {
        let left = roles::counted(self.voters_left, "voter");
        let then = match &retired {
            Some(data) => format!("it was stopped, and its data stays in {}", data.display()),
            None => "stop its process if it still runs".to_owned(),
        };
        output.answer(&format!("removed {}; {left} left; {then}", self.name), || {
            json!({
                "schema": "holdfast.members.remove/v1",
                "node": self.name,
                "voters": self.voters_left,
                "stopped": retired.is_some(),
            })
        });
    }
}

async fn remove(connection: &Connection, node: NodeRef) -> Outcome<Removed> {
    let members = connection.call(connection.client.cluster().members()).await?;
    let id = match node {
        NodeRef::Id(id) => id,
        NodeRef::Leader => members.header.leader_id,
    };
    let Some(member) = members.members.iter().find(|member| member.node_id == id) else {
        return Err(no_member(&members, id));
    };
    connection.call(connection.client.cluster().remove(id)).await?;
    Ok(Removed {
        name: node_name(id),
        endpoint: member.client_endpoint.clone(),
        voters_left: members.members.iter().filter(|m| m.voter && m.node_id != id).count(),
    })
}

fn no_member(members: &Members, id: u64) -> Failure {
    let names: Vec<String> = members.members.iter().map(|m| node_name(m.node_id)).collect();
    Failure::new(Code::NoSuchNode, format!("{} is no member of the cluster", node_name(id)))
        .help(format!("its members are {}", names.join(", ")))
}

/// Moves the lead, and waits until the nodes know who has it.
async fn lead(
    connection: &Connection,
    endpoints: &[String],
    node: Option<NodeRef>,
    timeout: Duration,
    output: Output,
) -> Outcome<()> {
    let begin = Instant::now();
    let members = connection.call(connection.client.cluster().members()).await?;
    let before = members.header.leader_id;
    let to = match node {
        None => None,
        Some(NodeRef::Leader) => Some(before),
        Some(NodeRef::Id(id)) => Some(id),
    };
    if let Some(id) = to
        && !members.members.iter().any(|member| member.node_id == id)
    {
        return Err(no_member(&members, id));
    }
    connection.call(connection.client.cluster().move_lead(to)).await?;
    let probe = Probe::new(endpoints);
    loop {
        let seen = probe.answering().await;
        let now = leader(&seen).map(|status| (status.header.node_id, status.header.term));
        if let Some((id, term)) = now
            && to.map_or(id != before, |to| to == id)
        {
            let name = node_name(id);
            let took = human(begin.elapsed());
            output.answer(&format!("{name} leads (term {term}), after {took}"), || {
                let term = term.to_string();
                json!({ "schema": "holdfast.members.lead/v1", "leader": name, "term": term })
            });
            return Ok(());
        }
        if begin.elapsed() + NODE_WITHIN > timeout {
            return Err(Failure::new(Code::NotReady, "the lead has not moved in time")
                .cause(format!("{} leads", now.map_or("nobody".into(), |(id, _)| node_name(id))))
                .help("look at holdfast status, and try again"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    //! The rows that scripts read.
    use super::*;
    use crate::testing::{member, node_status};

    #[test]
    fn rows_have_node_role_voter_address_and_applied() {
        let all: Vec<Member> = vec![member(1, true), member(2, true), member(3, false)];
        let status = node_status(2, 2, &all);
        let members = Members { header: status.header.clone(), members: status.members.clone() };
        let seen = [status];
        let row = |i: usize| row(&members, &members.members[i], &seen);
        assert_eq!(
            row(1).to_string(),
            "{\"address\":\"127.0.0.1:7490\",\"answers\":true,\"applied\":\"50\",\"node\":\"n2\",\
             \"peer_address\":\"127.0.0.1:7491\",\"role\":\"leader\",\"voter\":true}"
        );
        assert_eq!(row(0)["role"], "follower");
        assert_eq!(row(0)["answers"], false);
        assert_eq!(row(2)["role"], "learner");
    }
}

//! `holdfast local join`: one more real node, from learner to voter.

use std::time::{Duration, Instant};

use serde_json::json;

use super::network;
use super::places::Places;
use super::ports::{self, Pair};
use super::process::ProcessState;
use super::ready::{self, Wait};
use super::report::NodeLine;
use super::spawn::{Start, Started, spawn};
use super::state_file::{LocalCluster, Lock};
use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::names::node_name;
use crate::output::Output;
use crate::probe::{self, NodeStatus, Probe};
use crate::progress::Progress;
use crate::roles::can_fail;
use crate::units::{human, millis};

/// Adds a node and waits until it votes and has caught up.
pub(crate) async fn run(places: &Places, timeout: Duration, output: Output) -> Outcome<()> {
    let begin = Instant::now();
    let (cluster, id, mut started) = launch(places).await?;
    let waiting = Progress::start(output, format!("waiting for {} to vote", node_name(id)));
    let deadline = begin + timeout;
    let probe = Probe::eager(&cluster.endpoints());
    let mut wait = Wait { probe, started: &mut started, deadline };
    let joined = async {
        wait.until_votes(id).await?;
        let revision = ready::write(&cluster.endpoints(), deadline).await?;
        wait.until_applied(id, revision).await?;
        // All of them, for the count of those that can still fail.
        Ok(wait.probe.answering().await)
    };
    let seen = match joined.await {
        Ok(seen) => seen,
        Err(failure) => {
            take_back(places, id).await?;
            return Err(failure);
        }
    };
    drop(waiting);
    note_joined(places, id).await?;
    let line = NodeLine::of(cluster.node(id)?, &seen);
    let (answering, voters) = count(&seen);
    let can_lose = answering.saturating_sub(voters / 2 + 1);
    let took = begin.elapsed();
    let text = format!(
        "{}\nJoined in {}: {} caught up and votes, {answering} of {voters} voters. {}\n\n  Look    \
         holdfast members{flag}\n  Remove  holdfast members remove {}{flag}",
        line.text(),
        human(took),
        node_name(id),
        can_fail(can_lose, ""),
        node_name(id),
        flag = places.name_flag(),
    );
    output.answer(&text, || {
        json!({
            "schema": "holdfast.join/v1",
            "node": line.json(),
            "joined_ms": millis(took),
            "voters": voters,
            "voters_answering": answering,
            "can_lose": can_lose,
        })
    });
    Ok(())
}

/// How many voters answer, and how many there are.
fn count(seen: &[NodeStatus]) -> (usize, usize) {
    let voters = probe::leader(seen).map(ready::voters).unwrap_or_default();
    let answering = seen.iter().filter(|s| voters.contains(&s.header.node_id)).count();
    (answering, voters.len())
}

/// Starts the new node behind the last one.
async fn launch(places: &Places) -> Outcome<(LocalCluster, u64, Vec<Started>)> {
    let lock = Lock::take(places).await?;
    let mut cluster = LocalCluster::require(places)?;
    let running: Vec<String> = cluster
        .nodes
        .iter()
        .filter(|node| node.state() == ProcessState::Running)
        .map(|node| node.endpoint.clone())
        .collect();
    if running.is_empty() {
        return Err(Failure::new(
            Code::NotRunning,
            format!("no node of the local cluster {} is running", places.name),
        )
        .help(format!("start it first: holdfast up{}", places.name_flag())));
    }
    let (client_port, peer_port) = next_ports(&cluster)?;
    let id = cluster.add(places, client_port, peer_port);
    network::ensure(places, &mut cluster, &lock).await?;
    let links = cluster.links;
    let node = cluster.node_mut(id)?;
    if !node.made_here {
        let dir = node.data_dir.display();
        return Err(Failure::new(Code::ForeignDirectory, format!("{dir} holds something already"))
            .cause("a node that joins begins with an empty directory")
            .help("move it away, and join again"));
    }
    let started = vec![spawn(node, &Start::Join(running), links)?];
    cluster.save(places, &lock)?;
    Ok((cluster, id, started))
}

/// Ten above the last node, as `up` lays them out; anywhere free if those are taken.
fn next_ports(cluster: &LocalCluster) -> Outcome<Pair> {
    let port = |endpoint: &str| endpoint.rsplit_once(':')?.1.parse::<u16>().ok();
    let last = cluster.nodes.iter().filter_map(|node| port(&node.endpoint)).max();
    let behind = last.and_then(|last| ports::behind(last).ok());
    match behind {
        Some(pair) if ports::require_free(&[pair.0, pair.1]).is_ok() => Ok(pair),
        _ => ports::pick_free(1).map(|pairs| pairs[0]),
    }
}

async fn note_joined(places: &Places, id: u64) -> Outcome<()> {
    let lock = Lock::take(places).await?;
    let mut cluster = LocalCluster::require(places)?;
    cluster.node_mut(id)?.joined = true;
    cluster.save(places, &lock)
}

/// A node that ended before it joined is forgotten; one that runs is left to go on joining.
async fn take_back(places: &Places, id: u64) -> Outcome<()> {
    let lock = Lock::take(places).await?;
    let mut cluster = LocalCluster::require(places)?;
    let node = cluster.node(id)?.clone();
    if node.state() != ProcessState::Stopped {
        return Ok(());
    }
    cluster.nodes.retain(|node| node.id != id);
    cluster.save(places, &lock)?;
    // Whatever is left belongs to a number that is never used again.
    let _left = std::fs::remove_dir_all(&node.data_dir);
    Ok(())
}

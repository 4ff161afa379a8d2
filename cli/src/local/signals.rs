//! Breaking and mending single nodes: kill, stop, start, restart, pause, resume.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::down::{ask_to_stop, finish, stop_within, unable};
use super::network;
use super::places::Places;
use super::process::ProcessState;
use super::ready::Wait;
use super::spawn::{Start, Started, spawn};
use super::state_file::{LocalCluster, LocalNode, Lock};
use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::names::{NodeRef, node_name};
use crate::output::Output;
use crate::probe::Probe;
use crate::progress::Progress;

/// How long a killed process may take to be gone, or a started one to answer.
const DONE_WITHIN: Duration = Duration::from_secs(10);

/// Kills a node the hard way.
pub(crate) async fn kill(places: &Places, node: NodeRef, output: Output) -> Outcome<()> {
    let node = running(places, node).await?;
    kill_quietly(places, &node).await?;
    say(output, "killed", &node);
    Ok(())
}

/// Stops a node in good order.
pub(crate) async fn stop(places: &Places, node: NodeRef, output: Output) -> Outcome<()> {
    let node = running(places, node).await?;
    stop_one(&node, output).await?;
    forget(places, node.id).await?;
    say(output, "stopped", &node);
    Ok(())
}

/// Starts a stopped node with its data, and waits until it answers.
pub(crate) async fn start(places: &Places, node: NodeRef, output: Output) -> Outcome<()> {
    let NodeRef::Id(id) = node else {
        return Err(Failure::new(Code::Usage, "leader is no node that could be started")
            .help("name the node, as holdfast ps lists it"));
    };
    let node = start_one(places, id, output).await?;
    say(output, "started", &node);
    Ok(())
}

/// Stops a node in good order and starts it again.
pub(crate) async fn restart(places: &Places, node: NodeRef, output: Output) -> Outcome<()> {
    let node = running(places, node).await?;
    stop_one(&node, output).await?;
    let node = start_one(places, node.id, output).await?;
    say(output, "restarted", &node);
    Ok(())
}

/// Freezes a node.
pub(crate) async fn pause(places: &Places, node: NodeRef, output: Output) -> Outcome<()> {
    let node = running(places, node).await?;
    send(&node, Signal::STOP, "pause")?;
    wait_for(&node, ProcessState::Paused).await;
    say(output, "paused", &node);
    Ok(())
}

/// Lets a frozen node go on; without a name, all of them.
pub(crate) async fn resume(places: &Places, node: Option<NodeRef>, output: Output) -> Outcome<()> {
    let nodes = match node {
        Some(node) => vec![running(places, node).await?],
        None => LocalCluster::require(places)?
            .nodes
            .into_iter()
            .filter(|node| node.state() == ProcessState::Paused)
            .collect(),
    };
    if nodes.is_empty() {
        output.note("no node is paused");
    }
    for node in nodes {
        send(&node, Signal::CONT, "resume")?;
        wait_for(&node, ProcessState::Running).await;
        say(output, "resumed", &node);
    }
    Ok(())
}

/// The node that is meant, which must have a process.
async fn running(places: &Places, node: NodeRef) -> Outcome<LocalNode> {
    let cluster = LocalCluster::require(places)?;
    let id = match node {
        NodeRef::Id(id) => id,
        NodeRef::Leader => leader(&cluster).await?,
    };
    let node = cluster.node(id)?;
    if node.state() == ProcessState::Stopped {
        let flag = places.name_flag();
        return Err(Failure::new(Code::NotRunning, format!("{} is not running", node.name()))
            .help(format!("start it: holdfast local start {}{flag}", node.name())));
    }
    Ok(node.clone())
}

/// Whoever leads, waiting a little for an election that is on its way.
pub(crate) async fn leader(cluster: &LocalCluster) -> Outcome<u64> {
    let probe = Probe::new(&cluster.endpoints());
    let assessment = crate::status::look(&probe).await;
    match (assessment.leader, assessment.failure()) {
        (Some(leader), _) => Ok(leader),
        (None, Some(failure)) => Err(failure),
        (None, None) => Err(Failure::new(Code::NoQuorum, "no node leads")
            .help("look again in a second: holdfast status")),
    }
}

fn send(node: &LocalNode, signal: Signal, verb: &str) -> Outcome<()> {
    match node.process.as_ref().map(|process| process.signal(signal)) {
        Some(Err(error)) => Err(unable(verb, node, &error)),
        Some(Ok(_)) | None => Ok(()),
    }
}

async fn wait_for(node: &LocalNode, state: ProcessState) {
    let begin = Instant::now();
    while node.state() != state && begin.elapsed() < DONE_WITHIN {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn stop_one(node: &LocalNode, output: Output) -> Outcome<()> {
    let _waiting = Progress::start(output, format!("waiting for {} to stop", node.name()));
    ask_to_stop(node)?;
    if finish(node, stop_within()).await? == super::down::Ended::Killed {
        output.note(&format!("{} did not stop in time and was killed", node.name()));
    }
    Ok(())
}

/// Starts a node whose data is there, or that never came to join.
pub(crate) async fn start_one(places: &Places, id: u64, output: Output) -> Outcome<LocalNode> {
    let (node, mut started) = launch(places, id).await?;
    let _waiting = Progress::start(output, format!("waiting for {}", node.name()));
    let probe = Probe::eager(std::slice::from_ref(&node.endpoint));
    let deadline = Instant::now() + DONE_WITHIN;
    Wait { probe, started: &mut started, deadline }.until_answers(id).await?;
    Ok(node)
}

async fn launch(places: &Places, id: u64) -> Outcome<(LocalNode, Vec<Started>)> {
    let lock = Lock::take(places).await?;
    let mut cluster = LocalCluster::require(places)?;
    let others: Vec<String> = cluster
        .nodes
        .iter()
        .filter(|node| node.id != id && node.joined)
        .map(|node| node.endpoint.clone())
        .collect();
    network::ensure(places, &mut cluster, &lock).await?;
    let links = cluster.links;
    let node = cluster.node_mut(id)?;
    if node.state() != ProcessState::Stopped {
        return Err(Failure::new(Code::AlreadyUp, format!("{} is running already", node.name()))
            .help("see it with holdfast ps"));
    }
    let start = match node.joined {
        true => Start::Existing,
        false if others.is_empty() => Start::Form,
        false => Start::Join(others),
    };
    let started = vec![spawn(node, &start, links)?];
    let node = node.clone();
    cluster.save(places, &lock)?;
    Ok((node, started))
}

/// Stops a node that is no member any more, and forgets it; its data stays, and where that is is
/// returned. None if no node of this cluster has that endpoint.
pub(crate) async fn retire(places: &Places, endpoint: &str) -> Outcome<Option<PathBuf>> {
    let cluster = LocalCluster::require(places)?;
    let Some(node) = cluster.nodes.iter().find(|node| node.endpoint == endpoint) else {
        return Ok(None);
    };
    ask_to_stop(node)?;
    finish(node, stop_within()).await?;
    let lock = Lock::take(places).await?;
    let mut fresh = LocalCluster::require(places)?;
    fresh.nodes.retain(|other| other.id != node.id);
    if node.made_here {
        fresh.retired.push(node.data_dir.clone());
    }
    fresh.save(places, &lock)?;
    if fresh.network_runs() {
        network::ensure(places, &mut fresh, &lock).await?;
    }
    Ok(Some(node.data_dir.clone()))
}

/// Notes that a node has no process.
async fn forget(places: &Places, id: u64) -> Outcome<()> {
    let lock = Lock::take(places).await?;
    let mut cluster = LocalCluster::require(places)?;
    let node = cluster.node_mut(id)?;
    if node.state() == ProcessState::Stopped {
        node.process = None;
    }
    cluster.save(places, &lock)
}

/// The leader of the cluster and its process, for whoever wants to break it.
pub(crate) async fn leader_node(places: &Places) -> Outcome<LocalNode> {
    running(places, NodeRef::Leader).await
}

/// Kills a node without a word.
pub(crate) async fn kill_quietly(places: &Places, node: &LocalNode) -> Outcome<()> {
    send(node, Signal::KILL, "kill")?;
    if let Some(process) = &node.process {
        process.wait_gone(DONE_WITHIN).await;
    }
    forget(places, node.id).await
}

fn say(output: Output, did: &str, node: &LocalNode) {
    let pid = node.process.as_ref().map_or(0, |process| process.pid);
    let name = node_name(node.id);
    output.answer(
        &format!("{did} {name} (pid {pid})"),
        || json!({ "schema": "holdfast.local/v1", "did": did, "node": name, "pid": pid }),
    );
}

//! The network between the nodes of a local cluster: a process of its own that cuts and slows on
//! command.
//!
//! The model is [`holdfast_network`]'s: each node has an address of its own, on which it listens for
//! its peers and from which it dials them; where it says that it listens, this process does.
//! `control` orders and answers · `process` the process · `verbs` partition, heal and slow · `text`
//! what is cut, in words. `up --direct` does without: the nodes then reach each other by themselves.
//!
//! Invariants: the process starts before any node and ends after all of them; it keeps nothing, so
//! that one that was killed is replaced by `up`, with everything healed; what is asked of it is in
//! force when the answer comes.

pub(crate) mod control;
pub(crate) mod process;
pub(crate) mod text;
pub(crate) mod verbs;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use holdfast_network::{Route, Rules, host_of};
use rustix::process::Signal;

use super::places::Places;
use super::process::{ProcessId, ProcessState};
use super::state_file::{Links, LocalCluster, LocalNode, Lock};
use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use control::Order;

/// How long the process may take to answer for the first time.
const START_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// How often a process that starts is asked.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Sees to it that the network runs and leads to every node of the cluster. Nothing to do if its
/// nodes reach each other directly.
pub(crate) async fn ensure(
    places: &Places,
    cluster: &mut LocalCluster,
    lock: &Lock,
) -> Outcome<()> {
    if cluster.links == Links::Direct {
        return Ok(());
    }
    let routes = cluster.nodes.iter().map(route).collect::<Outcome<Vec<_>>>()?;
    if !cluster.network_runs() {
        let process = process::spawn(places)?;
        cluster.network = Some(process.clone());
        cluster.save(places, lock)?;
        until_it_answers(places, &process).await?;
    }
    control::ask(places, &Order::Routes(routes)).await.map(|_| ())
}

async fn until_it_answers(places: &Places, process: &ProcessId) -> Outcome<()> {
    let deadline = Instant::now() + START_WITHIN;
    loop {
        let failure = match control::ask(places, &Order::Show).await {
            Ok(_) => return Ok(()),
            Err(failure) => failure,
        };
        if process.state() == ProcessState::Stopped || Instant::now() >= deadline {
            let log = places.network_log();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let cause = said.lines().last().map(str::to_owned).or(failure.cause);
            return Err(Failure::new(Code::NotReady, "the local network did not start")
                .cause(cause.unwrap_or_default())
                .help(format!("read its log, {}, or do without: up --direct", log.display())));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// The rules in force; none if the nodes reach each other directly, or the network does not answer.
pub(crate) async fn rules(places: &Places, cluster: &LocalCluster) -> Option<Rules> {
    if cluster.links == Links::Direct || !cluster.network_runs() {
        return None;
    }
    control::ask(places, &Order::Show).await.ok()
}

/// Ends the network, once the nodes are down.
pub(crate) async fn stop(cluster: &LocalCluster) {
    let Some(process) = &cluster.network else { return };
    // One that cannot be signalled is gone, or not ours any more. A frozen one hears of it only when
    // it goes on.
    let _gone = process.signal(Signal::TERM);
    let _gone = process.signal(Signal::CONT);
    if !process.wait_gone(END_WITHIN).await {
        let _gone = process.signal(Signal::KILL);
        process.wait_gone(END_WITHIN).await;
    }
}

fn route(node: &LocalNode) -> Outcome<Route> {
    let listen: SocketAddr = node.peer.parse().map_err(|_| {
        Failure::bug(format!("the peer address of {} is {}", node.name(), node.peer))
    })?;
    Ok(Route { node: node.id, listen, target: behind(node.id, listen.port())? })
}

/// Where a node listens for its peers if they reach it through the network.
pub(crate) fn behind(id: u64, port: u16) -> Outcome<SocketAddr> {
    match host_of(id) {
        Some(host) => Ok(SocketAddr::new(host, port)),
        None => Err(Failure::new(Code::Usage, format!("node {id} is one too many"))
            .help("begin anew: holdfast down --purge && holdfast up")),
    }
}

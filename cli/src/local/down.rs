//! `holdfast down`: stops every node, politely first, and with `--purge` deletes what they kept.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::network;
use super::places::Places;
use super::process::ProcessState;
use super::state_file::{LocalCluster, LocalNode, Lock};
use crate::errors::{Failure, Outcome};
use crate::output::Output;
use crate::progress::Progress;
use crate::roles::listed;
use crate::units::{human, millis};

/// How long a node may take to hand over and finish, after which it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long a killed process may take to be gone.
const KILL_WITHIN: Duration = Duration::from_secs(2);

/// How a node came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It did not run.
    WasStopped,
    /// It stopped when asked to.
    Stopped,
    /// It had to be killed.
    Killed,
}

impl Ended {
    const fn name(self) -> &'static str {
        match self {
            Self::WasStopped => "was-stopped",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
        }
    }
}

/// Stops the cluster.
pub(crate) async fn run(places: &Places, purge: bool, output: Output) -> Outcome<()> {
    let begin = Instant::now();
    let Some(cluster) = LocalCluster::load(places)? else {
        let text = format!("There is no local cluster called {}: nothing to stop.", places.name);
        output.answer(&text, || {
            json!({
                "schema": "holdfast.down/v1",
                "name": places.name.as_str(),
                "nodes": [],
                "purged": false,
                "data_dir": null,
                "took_ms": 0,
            })
        });
        return Ok(());
    };
    let waiting = Progress::start(output, "waiting for the nodes to stop");
    let ended = stop_all(&cluster).await?;
    network::stop(&cluster).await;
    drop(waiting);
    for (node, how) in &ended {
        if *how == Ended::Killed {
            let within = human(STOP_WITHIN);
            output.note(&format!("{node} did not stop within {within} and was killed"));
        }
    }
    forget_processes(places).await?;
    if purge {
        purge_files(places, &cluster).await?;
        for node in cluster.nodes.iter().filter(|node| !node.made_here) {
            let dir = node.data_dir.display();
            output.note(&format!("{dir} was left: it held something before the cluster was made"));
        }
    }
    let stopped: Vec<String> = ended
        .iter()
        .filter(|(_, how)| *how != Ended::WasStopped)
        .map(|(node, _)| node.clone())
        .collect();
    let data = cluster.data_dir.display();
    let did = match stopped.as_slice() {
        [] => "No node was running.".to_owned(),
        names => format!("Stopped {} in {}.", listed(names, "and"), human(begin.elapsed())),
    };
    let text = if purge {
        format!("{did} Deleted the data in {data}.")
    } else {
        format!("{did} The data stays in {data}; holdfast up{} goes on.", places.name_flag())
    };
    output.answer(&text, || {
        json!({
            "schema": "holdfast.down/v1",
            "name": places.name.as_str(),
            "nodes": ended.iter().map(|(node, how)| {
                json!({ "node": node, "outcome": how.name() })
            }).collect::<Vec<_>>(),
            "purged": purge,
            "data_dir": cluster.data_dir,
            "took_ms": millis(begin.elapsed()),
        })
    });
    Ok(())
}

/// Asks all nodes to stop at once, and kills those that do not.
async fn stop_all(cluster: &LocalCluster) -> Outcome<Vec<(String, Ended)>> {
    let asked: Vec<bool> = cluster.nodes.iter().map(ask_to_stop).collect::<Outcome<_>>()?;
    let deadline = Instant::now() + STOP_WITHIN;
    let mut ended = Vec::new();
    for (node, asked) in cluster.nodes.iter().zip(asked) {
        let within = deadline.saturating_duration_since(Instant::now());
        let how = if asked { finish(node, within).await? } else { Ended::WasStopped };
        ended.push((node.name(), how));
    }
    Ok(ended)
}

/// Asks one node to stop; false if it does not run.
pub(crate) fn ask_to_stop(node: &LocalNode) -> Outcome<bool> {
    let Some(process) = &node.process else { return Ok(false) };
    let asked = process.signal(Signal::TERM).map_err(|error| unable("stop", node, &error))?;
    // A paused node would hear of it only when it goes on.
    if process.state() == ProcessState::Paused {
        process.signal(Signal::CONT).map_err(|error| unable("resume", node, &error))?;
    }
    Ok(asked)
}

/// Waits for a node that was asked to stop, and kills it if it does not.
pub(crate) async fn finish(node: &LocalNode, within: Duration) -> Outcome<Ended> {
    let Some(process) = &node.process else { return Ok(Ended::WasStopped) };
    if process.wait_gone(within).await {
        return Ok(Ended::Stopped);
    }
    process.signal(Signal::KILL).map_err(|error| unable("kill", node, &error))?;
    process.wait_gone(KILL_WITHIN).await;
    Ok(Ended::Killed)
}

/// Ends a cluster that is thrown away, without a word; its directory goes with its owner.
pub(crate) async fn tear_down(places: &Places) {
    let Ok(Some(cluster)) = LocalCluster::load(places) else { return };
    // Whatever cannot be stopped is gone, or not ours any more.
    let _ended = stop_all(&cluster).await;
    network::stop(&cluster).await;
}

/// How long one node is given to stop.
pub(crate) const fn stop_within() -> Duration {
    STOP_WITHIN
}

/// An error about a signal.
pub(crate) fn unable(verb: &str, node: &LocalNode, error: &io::Error) -> Failure {
    let pid = node.process.as_ref().map_or(0, |process| process.pid);
    Failure::new(
        crate::codes::Code::LocalFiles,
        format!("cannot {verb} {} (pid {pid})", node.name()),
    )
    .cause(error.to_string())
    .help("run the command as the user who started the cluster")
}

async fn forget_processes(places: &Places) -> Outcome<()> {
    let lock = Lock::take(places).await?;
    let mut fresh = LocalCluster::require(places)?;
    for node in &mut fresh.nodes {
        if node.state() == ProcessState::Stopped {
            node.process = None;
        }
    }
    if !fresh.network_runs() {
        fresh.network = None;
    }
    fresh.save(places, &lock)
}

/// Deletes what we made: the nodes' directories, and the data directory if nothing else is in it.
async fn purge_files(places: &Places, cluster: &LocalCluster) -> Outcome<()> {
    let _lock = Lock::take(places).await?;
    let ours = cluster.nodes.iter().filter(|node| node.made_here).map(|node| &node.data_dir);
    for dir in ours.chain(&cluster.retired) {
        gone(fs::remove_dir_all(dir), dir)?;
    }
    // Other things may be in there, and then it stays.
    let _stays = fs::remove_dir(&cluster.data_dir);
    gone(fs::remove_dir_all(&places.state_dir), &places.state_dir)
}

fn gone(deleted: io::Result<()>, path: &Path) -> Outcome<()> {
    match deleted {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file("delete", path, &error)),
    }
}

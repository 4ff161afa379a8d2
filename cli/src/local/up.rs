//! `holdfast up`: a cluster of real processes on this machine, new or with its data.
//!
//! A new cluster is formed by its first node; the others join it. A node that has voted once is
//! started without either, so that a wiped directory is noticed and never formed anew.
//! A start that fails leaves nothing behind if there was nothing before; otherwise it leaves what
//! runs running.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::places::Places;
use super::process::ProcessState;
use super::ready::{self, Wait};
use super::report::{NodeLine, Report};
use super::spawn::{Start, Started, spawn};
use super::state_file::{Links, LocalCluster, LocalNode, Lock};
use super::{network, ports};
use crate::codes::Code;
use crate::errors::{Failure, Outcome};
use crate::output::Output;
use crate::probe::Probe;
use crate::progress::Progress;

/// Nodes of a cluster that is told nothing.
const NODES_DEFAULT: u8 = 3;

/// What was asked of `up`; what is none follows from the cluster that there is, else the default.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// How many nodes.
    pub(crate) nodes: Option<u8>,
    /// The first client port; 0 for free ones.
    pub(crate) base_port: Option<u16>,
    /// Where the data goes.
    pub(crate) data_dir: Option<PathBuf>,
    /// How the nodes are to reach each other; a cluster of which something runs stays as it is.
    pub(crate) links: Links,
    /// How long to wait.
    pub(crate) timeout: Duration,
}

/// Starts the cluster and waits until a write has reached all of it.
pub(crate) async fn up(places: &Places, wish: &Wish, output: Output) -> Outcome<Report> {
    let begin = Instant::now();
    let mut launch = Launch::prepare(places, wish).await?;
    let waiting = Progress::start(output, format!("waiting for {}", launch.describe()));
    let deadline = begin + wish.timeout;
    let seen = match launch.run(places, deadline).await {
        Ok(seen) => seen,
        Err(failure) => {
            launch.give_up(places).await;
            return Err(failure);
        }
    };
    drop(waiting);
    Ok(Report {
        name: places.name.clone(),
        name_flag: places.name_flag(),
        data_dir: launch.cluster.data_dir.clone(),
        nodes: launch.cluster.nodes.iter().map(|node| NodeLine::of(node, &seen)).collect(),
        voters: crate::probe::leader(&seen).map_or(0, |leader| ready::voters(leader).len()),
        took: begin.elapsed(),
    })
}

/// A start on its way.
struct Launch {
    cluster: LocalCluster,
    started: Vec<Started>,
    /// There was neither a state file nor data before.
    is_new: bool,
}

impl Launch {
    /// Settles which nodes there are to be, starts those that need nobody else, and notes them.
    async fn prepare(places: &Places, wish: &Wish) -> Outcome<Self> {
        let lock = Lock::take(places).await?;
        let loaded = LocalCluster::load(places)?;
        let mut cluster = match loaded.clone() {
            Some(cluster) => known_cluster(places, cluster, wish)?,
            None => new_cluster(places, wish)?,
        };
        require_ports(&cluster)?;
        network::ensure(places, &mut cluster, &lock).await?;
        let links = cluster.links;
        let is_new = loaded.is_none() && cluster.nodes.iter().all(|node| node.made_here);
        let mut launch = Self { cluster, started: Vec::new(), is_new };
        for node in &mut launch.cluster.nodes {
            let start = match (node.joined, node.id) {
                (true, _) => Start::Existing,
                (false, 1) => Start::Form,
                (false, _) => continue,
            };
            if node.state() == ProcessState::Stopped {
                launch.started.push(spawn(node, &start, links)?);
            }
        }
        launch.cluster.save(places, &lock)?;
        Ok(launch)
    }

    /// The nodes that still have to join do; then all vote, and a write reaches them.
    async fn run(
        &mut self,
        places: &Places,
        deadline: Instant,
    ) -> Outcome<Vec<crate::probe::NodeStatus>> {
        let endpoints = self.cluster.endpoints();
        let probe = Probe::eager(&endpoints);
        let joining: Vec<u64> =
            self.cluster.nodes.iter().filter(|n| !n.joined && n.id != 1).map(|n| n.id).collect();
        let known: Vec<&LocalNode> =
            self.cluster.nodes.iter().filter(|n| !joining.contains(&n.id)).collect();
        let wanted: Vec<u64> = known.iter().filter(|n| !n.joined).map(|n| n.id).collect();
        let entries: Vec<String> = known.iter().map(|n| n.endpoint.clone()).collect();
        let mut wait = Wait { probe, started: &mut self.started, deadline };
        wait.until_all_vote(&wanted).await?;
        if !joining.is_empty() {
            let lock = Lock::take(places).await?;
            let links = self.cluster.links;
            for id in &joining {
                let node = self.cluster.node_mut(*id)?;
                if node.state() == ProcessState::Stopped {
                    wait.started.push(spawn(node, &Start::Join(entries.clone()), links)?);
                }
            }
            self.cluster.save(places, &lock)?;
        }
        wait.until_all_vote(&joining).await?;
        let revision = ready::write(&endpoints, deadline).await?;
        let seen = wait.until_all_applied(revision).await?;
        self.note_joined(places).await?;
        Ok(seen)
    }

    /// From now on these nodes are started with their data only.
    async fn note_joined(&mut self, places: &Places) -> Outcome<()> {
        if self.cluster.nodes.iter().all(|node| node.joined) {
            return Ok(());
        }
        let lock = Lock::take(places).await?;
        // Another command may have changed the file while we waited.
        let mut fresh = LocalCluster::require(places)?;
        for node in &mut fresh.nodes {
            node.joined |= self.cluster.nodes.iter().any(|ours| ours.id == node.id);
        }
        fresh.save(places, &lock)?;
        self.cluster = fresh;
        Ok(())
    }

    /// Takes back a start that failed, if it was the first one.
    async fn give_up(&mut self, places: &Places) {
        if !self.is_new {
            return;
        }
        for started in self.started.drain(..) {
            started.kill();
        }
        network::stop(&self.cluster).await;
        let Ok(_lock) = Lock::take(places).await else { return };
        for node in &self.cluster.nodes {
            // Whatever is left is found by the next start, which says so.
            let _left = fs::remove_dir_all(&node.data_dir);
        }
        let _left = fs::remove_file(places.state_file());
    }

    fn describe(&self) -> String {
        match self.cluster.nodes.len() {
            1 => "one node".to_owned(),
            count => format!("{count} nodes"),
        }
    }
}

/// A cluster that has never been up.
fn new_cluster(places: &Places, wish: &Wish) -> Outcome<LocalCluster> {
    let count = wish.nodes.unwrap_or(NODES_DEFAULT);
    let pairs = match wish.base_port.unwrap_or(ports::BASE_DEFAULT) {
        0 => ports::pick_free(count)?,
        base => ports::from_base(base, count)?,
    };
    let data_dir = match &wish.data_dir {
        None => places.data_dir.clone(),
        Some(dir) => std::path::absolute(dir).map_err(|e| Failure::file("use", dir, &e))?,
    };
    let mut cluster = LocalCluster::new(places, data_dir);
    cluster.links = wish.links;
    for (client_port, peer_port) in pairs {
        cluster.add(places, client_port, peer_port);
    }
    Ok(cluster)
}

/// A cluster that was up before: nothing about it may be asked to be otherwise.
fn known_cluster(places: &Places, mut cluster: LocalCluster, wish: &Wish) -> Outcome<LocalCluster> {
    let name = &places.name;
    let flag = places.name_flag();
    let is_up = |node: &LocalNode| node.state() != ProcessState::Stopped;
    let is_linked = cluster.links == Links::Direct || cluster.network_runs();
    if cluster.nodes.iter().all(is_up) && is_linked {
        return Err(Failure::new(
            Code::AlreadyUp,
            format!("the local cluster {name} is up already"),
        )
        .cause(format!("all of its {} nodes have a process", cluster.nodes.len()))
        .help(format!(
            "see it with holdfast ps{flag}; for a second one: holdfast up --name other \
                 --base-port 0"
        )));
    }
    let nodes = cluster.nodes.len();
    let first = cluster.nodes.first().map_or("", |node| node.endpoint.as_str());
    let runs = cluster.nodes.iter().any(is_up);
    if !runs {
        cluster.links = wish.links;
    }
    let differs = if wish.nodes.is_some_and(|wanted| usize::from(wanted) != nodes) {
        Some(format!("it has {nodes} nodes"))
    } else if wish.base_port.is_some_and(|p| p != 0 && !first.ends_with(&format!(":{p}"))) {
        Some(format!("its first node is at {first}"))
    } else if let Some(dir) = &wish.data_dir
        && std::path::absolute(dir).ok().as_ref() != Some(&cluster.data_dir)
    {
        Some(format!("its data is in {}", cluster.data_dir.display()))
    } else if runs && wish.links == Links::Direct && cluster.links == Links::Network {
        Some("some of its nodes run, and reach each other through a network".to_owned())
    } else {
        None
    };
    match differs {
        None => Ok(cluster),
        Some(cause) => Err(Failure::new(
            Code::ClusterExists,
            format!("the local cluster {name} exists, and is not what was asked for"),
        )
        .cause(cause)
        .help(format!(
            "holdfast up{flag} brings it back as it is; holdfast down --purge{flag} deletes it; \
             another --name makes another one"
        ))),
    }
}

/// The ports of the nodes that do not run must be free.
fn require_ports(cluster: &LocalCluster) -> Outcome<()> {
    let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let stopped = cluster.nodes.iter().filter(|node| node.state() == ProcessState::Stopped);
    let wanted: Vec<u16> = match cluster.links {
        // Each node listens on both of its ports.
        Links::Direct => {
            stopped.flat_map(|node| [&node.endpoint, &node.peer]).flat_map(|a| port(a)).collect()
        }
        // The network listens on all peer ports.
        Links::Network => {
            let peers = cluster.nodes.iter().filter(|_| !cluster.network_runs());
            let peers = peers.map(|node| &node.peer);
            stopped.map(|node| &node.endpoint).chain(peers).flat_map(|a| port(a)).collect()
        }
    };
    ports::require_free(&wanted)
}

#[cfg(test)]
mod tests {
    //! What `up` makes of a wish and of the cluster that there is.
    use super::*;
    use crate::local::process::ProcessId;

    fn wish() -> Wish {
        Wish {
            nodes: None,
            base_port: None,
            data_dir: None,
            links: Links::Network,
            timeout: Duration::from_secs(1),
        }
    }

    fn places() -> Places {
        Places::under(std::path::Path::new("/tmp/holdfast-none"))
    }

    #[test]
    fn a_new_cluster_has_three_nodes_on_the_known_ports() {
        let cluster = new_cluster(&places(), &wish()).unwrap();
        assert_eq!(cluster.endpoints(), ["127.0.0.1:7480", "127.0.0.1:7490", "127.0.0.1:7500"]);
        assert_eq!(cluster.nodes[2].peer, "127.0.0.1:7501");
        assert_eq!(cluster.nodes[0].data_dir, PathBuf::from("/tmp/holdfast-none/data/n1"));
        assert_eq!(cluster.next_node, 4);
    }

    #[test]
    fn a_known_cluster_is_taken_as_it_is_or_refused() {
        let cluster = new_cluster(&places(), &wish()).unwrap();
        let same = Wish { nodes: Some(3), base_port: Some(7480), ..wish() };
        assert_eq!(known_cluster(&places(), cluster.clone(), &same).unwrap(), cluster);
        for other in [
            Wish { nodes: Some(5), ..wish() },
            Wish { base_port: Some(480), ..wish() },
            Wish { data_dir: Some("/elsewhere".into()), ..wish() },
        ] {
            let failure = known_cluster(&places(), cluster.clone(), &other).unwrap_err();
            assert_eq!(failure.code, Code::ClusterExists);
        }
    }

    #[test]
    fn a_cluster_with_all_nodes_running_is_up_already() {
        let mut cluster = new_cluster(&places(), &wish()).unwrap();
        for node in &mut cluster.nodes[..2] {
            node.process = ProcessId::of(std::process::id());
        }
        assert!(known_cluster(&places(), cluster.clone(), &wish()).is_ok());
        cluster.nodes[2].process = ProcessId::of(std::process::id());
        assert!(known_cluster(&places(), cluster.clone(), &wish()).is_ok(), "no network");
        cluster.network = ProcessId::of(std::process::id());
        let failure = known_cluster(&places(), cluster, &wish()).unwrap_err();
        assert_eq!(failure.code, Code::AlreadyUp);
    }

    #[test]
    fn links_change_only_while_nothing_runs() {
        let mut cluster = new_cluster(&places(), &wish()).unwrap();
        let direct = Wish { links: Links::Direct, ..wish() };
        let changed = known_cluster(&places(), cluster.clone(), &direct).unwrap();
        assert_eq!(changed.links, Links::Direct);
        cluster.nodes[0].process = ProcessId::of(std::process::id());
        let failure = known_cluster(&places(), cluster, &direct).unwrap_err();
        assert_eq!(failure.code, Code::ClusterExists);
        let mut direct = changed;
        direct.nodes[0].process = ProcessId::of(std::process::id());
        let kept = known_cluster(&places(), direct, &wish()).unwrap();
        assert_eq!(kept.links, Links::Direct);
    }
}

//! A cluster of real nodes on loopback.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use holdfast_client::{Client, ClientConfig, NodeStatus, Role};
use holdfast_network::{Network, Route, Rules, host_of};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::node::NodeProcess;
use crate::ports::{self, Port};
use crate::wait::wait_for;

/// How long a cluster may take to come up, and to settle after a fault. Far above what it takes:
/// it ends a test that hangs.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// How long a node may take to say how it is.
const STATUS_MAX: Duration = Duration::from_secs(1);
/// How often a start is tried whose ports turned out to be taken.
const STARTS_MAX: usize = 3;
/// How much of each log a failed test prints.
const TAIL_LINES: usize = 60;

/// What is special about a cluster. Start from `Options::default()`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// More arguments for `holdfast serve` on every node, such as `--snapshot-every-entries 500`.
    pub args: Vec<String>,
    /// More environment variables for every node.
    pub env: Vec<(String, String)>,
    /// Where the nodes keep their data, one for each; by default in a directory that goes away.
    pub data_dirs: Option<Vec<PathBuf>>,
    /// Nodes tell clients closed ports instead of their own, so that a client knows no other
    /// endpoints than it was given: for clients behind a [`Proxy`](crate::Proxy), and for clients
    /// that stay with one node.
    pub hide_endpoints: bool,
    /// The nodes reach each other through a [`Network`] that cuts and slows on command: see
    /// [`Cluster::network`], [`Cluster::partition`] and [`Cluster::heal`].
    pub network: bool,
}

/// Nodes that belong together. Index 0 is the node with id 1, and so on. All methods take `&self`,
/// so that it can be shared in an `Arc` with tasks that do things to it.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    nodes: RwLock<Vec<Arc<Node>>>,
    probe: Client,
    network: Option<Network>,
    dir: Option<TempDir>,
    finished: AtomicBool,
}

#[derive(Debug)]
struct Node {
    id: u64,
    client: Port,
    peer: Port,
    /// What clients are told if the real port is hidden; nobody listens there.
    closed: Port,
    data_dir: PathBuf,
    // A std lock: held while a process is started or ended, never across an await.
    process: Mutex<NodeProcess>,
}

impl Cluster {
    /// Starts `size` nodes and waits until all of them vote and a write has reached each.
    ///
    /// # Errors
    /// If a node ends, or they are not ready within 30 s.
    pub async fn start(size: usize, options: Options) -> anyhow::Result<Cluster> {
        let mut attempt = 1;
        loop {
            let cluster = Cluster::prepare(options.clone())?;
            let error = match cluster.bring_up(size).await {
                Ok(()) => return Ok(cluster),
                Err(error) => error,
            };
            if attempt == STARTS_MAX || !format!("{error:#}").contains("port-in-use") {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// As [`Cluster::start`] with three nodes and nothing special.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_three() -> anyhow::Result<Cluster> {
        Cluster::start(3, Options::default()).await
    }

    fn prepare(options: Options) -> anyhow::Result<Cluster> {
        let dir = tempfile::Builder::new().prefix("holdfast-test-").tempdir()?;
        let mut config = ClientConfig::new(Vec::<String>::new());
        config.call_timeout = STATUS_MAX;
        let probe = Client::connect(config);
        let nodes = RwLock::new(Vec::new());
        let network = options.network.then(Network::start).transpose()?;
        let finished = AtomicBool::new(false);
        Ok(Cluster { options, nodes, probe, network, dir: Some(dir), finished })
    }

    async fn bring_up(&self, size: usize) -> anyhow::Result<()> {
        ensure!(size > 0, "a cluster has at least one node");
        self.add(&["--form".to_owned()])?;
        self.start_node(0)?;
        self.wait("the first node leads", || self.leader_now()).await?;
        for _ in 1..size {
            let index = self.add(&["--join".to_owned(), self.endpoint(0)])?;
            self.start_node(index)?;
        }
        self.settled().await
    }

    /// Adds one more node by `--join`, starts it, and returns its index without waiting for
    /// anything; see [`Cluster::settled`]. With given data directories there must be one for it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn join(&self) -> anyhow::Result<usize> {
        let index = self.add(&["--join".to_owned(), self.endpoints().join(",")])?;
        self.start_node(index)?;
        Ok(index)
    }

    /// Waits until all nodes that run agree on a leader, all nodes of this cluster vote, and a
    /// write has reached all that run.
    ///
    /// # Errors
    /// If a node ended by itself, or after 30 s.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let size = self.size();
        self.wait("all nodes vote and agree on a leader", || async {
            let leader = self.leader_now().await?;
            let status = self.status(leader).await.ok()?;
            let voters = status.members.iter().filter(|member| member.voter).count();
            (voters == size).then_some(())
        })
        .await?;
        self.written_everywhere().await
    }

    /// Writes something, and waits until every node that runs has applied that write.
    ///
    /// # Errors
    /// As [`Cluster::settled`].
    pub async fn written_everywhere(&self) -> anyhow::Result<()> {
        let client = self.client_with(|config| config.namespace = "harness".to_owned());
        let state = client.with_timeout(SETTLE_MAX).state();
        let object = state.get_object_id("harness", "probe").await.context("a first write")?;
        let value = rand::random::<u64>().to_string();
        let revision = state.set(object, "ready", value).await.context("a write")?.mod_revision;
        for index in self.running() {
            self.wait(&format!("n{} applies a write", index + 1), || async {
                let status = self.status(index).await.ok()?;
                (status.header.revision >= revision).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// How many nodes there are, running or not.
    #[must_use]
    pub fn size(&self) -> usize {
        self.read().len()
    }

    /// The nodes whose processes were started and not yet ended by a method of this type.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        let nodes = self.read();
        (0..nodes.len()).filter(|index| nodes[*index].lock().pid().is_some()).collect()
    }

    /// Where clients reach node `index`, as `host:port`.
    #[must_use]
    pub fn endpoint(&self, index: usize) -> String {
        self.node(index).client.address()
    }

    /// Where other nodes reach node `index`, as `host:port`.
    #[must_use]
    pub fn peer_endpoint(&self, index: usize) -> String {
        self.node(index).peer.address()
    }

    /// Where clients reach the nodes, in order of the nodes.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.read().iter().map(|node| node.client.address()).collect()
    }

    /// Where node `index` keeps its data.
    #[must_use]
    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.node(index).data_dir.clone()
    }

    /// The process id of node `index`; none while it does not run.
    #[must_use]
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.node(index).lock().pid()
    }

    /// All that node `index` has said since its first start.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn log(&self, index: usize) -> anyhow::Result<String> {
        let node = self.node(index);
        let path = node.lock().log().to_owned();
        Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
    }

    /// A directory that goes away with this cluster, for what else a test needs.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.as_ref().expect("it is taken only when dropped").path().to_owned()
    }

    /// The arguments with which node `index` is started, without those that say how it comes to its
    /// cluster.
    #[must_use]
    pub fn serve_args(&self, index: usize) -> Vec<String> {
        let node = self.node(index);
        serve_args(&node, &self.options)
    }

    /// A new client of all nodes, with default settings and a session of its own.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_with(|_| {})
    }

    /// As [`Cluster::client`], with settings changed by `change`.
    #[must_use]
    pub fn client_with(&self, change: impl FnOnce(&mut ClientConfig)) -> Client {
        let mut config = ClientConfig::new(self.endpoints());
        change(&mut config);
        Client::connect(config)
    }

    /// A new client that begins with node `index` and knows the others too. With
    /// [`Options::hide_endpoints`] it stays there while that node answers; else it soon finds the
    /// leader.
    #[must_use]
    pub fn client_on(&self, index: usize) -> Client {
        let mut endpoints = self.endpoints();
        let size = endpoints.len();
        endpoints.rotate_left(index % size);
        self.client_with(|config| config.endpoints = endpoints)
    }

    /// A new client that is told of node `index` only. Without [`Options::hide_endpoints`] it will
    /// still learn of the leader.
    #[must_use]
    pub fn client_only(&self, index: usize) -> Client {
        let endpoint = self.endpoint(index);
        self.client_with(|config| config.endpoints = vec![endpoint])
    }

    /// What node `index` says about itself; asked within a second.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn status(&self, index: usize) -> anyhow::Result<NodeStatus> {
        let endpoint = self.endpoint(index);
        let asked = self.probe.cluster();
        asked.status(&endpoint).await.with_context(|| format!("status of n{}", index + 1))
    }

    /// The leader, if a node says that it leads and a majority (itself included) of all nodes names
    /// it in that term.
    pub async fn leader_now(&self) -> Option<usize> {
        let size = self.size();
        let asked =
            self.running().into_iter().map(|index| async move { self.status(index).await.ok() });
        let answers: Vec<NodeStatus> =
            futures::future::join_all(asked).await.into_iter().flatten().collect();
        let leads = |status: &&NodeStatus| status.role == Role::Leader && status.ready;
        let leader = answers.iter().filter(leads).max_by_key(|status| status.header.term)?;
        let agree = answers.iter().filter(|status| {
            status.header.term == leader.header.term
                && status.header.leader_id == leader.header.node_id
        });
        let index = usize::try_from(leader.header.node_id).ok()?.checked_sub(1)?;
        (agree.count() > size / 2).then_some(index)
    }

    /// Waits until there is a leader; see [`Cluster::leader_now`].
    ///
    /// # Errors
    /// If a node ended by itself, or after 30 s.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        self.wait("there is a leader", || self.leader_now()).await
    }

    /// A node that runs and does not lead.
    ///
    /// # Errors
    /// As [`Cluster::leader`]; also if only the leader runs.
    pub async fn follower(&self) -> anyhow::Result<usize> {
        let leader = self.leader().await?;
        self.running().into_iter().find(|index| *index != leader).context("only the leader runs")
    }

    /// Starts node `index` again, and waits for nothing.
    ///
    /// # Errors
    /// If it runs, or cannot be started.
    pub fn start_node(&self, index: usize) -> anyhow::Result<()> {
        self.node(index).lock().start()
    }

    /// As [`Cluster::start_node`], with more arguments for this start.
    ///
    /// # Errors
    /// As [`Cluster::start_node`].
    pub fn start_node_with(&self, index: usize, args: &[String]) -> anyhow::Result<()> {
        self.node(index).lock().start_with(args)
    }

    /// SIGKILL; returns when the process is gone. Nothing if it does not run.
    pub fn kill(&self, index: usize) {
        self.node(index).lock().kill();
    }

    /// SIGKILL for all nodes at once; returns when all are gone.
    pub fn kill_all(&self) {
        let running = self.running();
        for index in &running {
            // One that is gone already needs no signal.
            let _ = self.node(*index).lock().signal(Signal::KILL);
        }
        for index in running {
            self.kill(index);
        }
    }

    /// Sends SIGTERM to node `index`; see [`Cluster::wait_end`].
    ///
    /// # Errors
    /// If it does not run.
    pub fn term(&self, index: usize) -> anyhow::Result<()> {
        self.node(index).lock().signal(Signal::TERM)
    }

    /// Waits until node `index` has ended by itself, after [`Cluster::term`].
    ///
    /// # Errors
    /// If it has not within this time.
    pub async fn wait_end(&self, index: usize, within: Duration) -> anyhow::Result<ExitStatus> {
        let node = self.node(index);
        wait_for(&format!("n{} ends", index + 1), within, || async {
            node.lock().try_end().transpose()
        })
        .await?
    }

    /// SIGSTOP: the process stands still, and its connections stay open.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self, index: usize) -> anyhow::Result<()> {
        self.node(index).lock().signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self, index: usize) -> anyhow::Result<()> {
        self.node(index).lock().signal(Signal::CONT)
    }

    /// What the nodes reach each other through; it knows node `index` as `index + 1`.
    ///
    /// # Panics
    /// Without [`Options::network`].
    #[must_use]
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("the cluster was started with a network")
    }

    /// Cuts these nodes off from all the others, in both directions, beside what is cut already.
    ///
    /// # Panics
    /// As [`Cluster::network`].
    pub fn partition(&self, group: &[usize]) {
        let (group, rest) = (0..self.size()).partition(|index| group.contains(index));
        self.network().change(|rules| rules.partition(&[ids(group), ids(rest)]));
    }

    /// Loses all that these nodes send to the others; what the others send arrives.
    ///
    /// # Panics
    /// As [`Cluster::network`].
    pub fn mute(&self, group: &[usize]) {
        let (group, rest) = (0..self.size()).partition(|index| group.contains(index));
        self.network().change(|rules| rules.cut(&ids(group), &ids(rest)));
    }

    /// Lets everything pass again, at once.
    ///
    /// # Panics
    /// As [`Cluster::network`].
    pub fn heal(&self) {
        self.network().change(|rules| *rules = Rules::default());
    }

    /// Waits for a condition as [`wait_for`] does, at most 30 s, and ends early if a node has ended
    /// by itself.
    ///
    /// # Errors
    /// In either case.
    pub async fn wait<T, F: Future<Output = Option<T>>>(
        &self,
        what: &str,
        mut condition: impl FnMut() -> F,
    ) -> anyhow::Result<T> {
        wait_for(what, SETTLE_MAX, || {
            let checked = self.check();
            let looked = condition();
            async {
                match checked {
                    Err(error) => Some(Err(error)),
                    Ok(()) => looked.await.map(Ok),
                }
            }
        })
        .await?
    }

    /// Whether all nodes that should run do.
    ///
    /// # Errors
    /// If one has ended by itself: with what it said last.
    pub fn check(&self) -> anyhow::Result<()> {
        for node in self.read().iter() {
            node.lock().check()?;
        }
        Ok(())
    }

    /// Waits until all nodes that run have applied the same entries and hold the same state.
    ///
    /// # Errors
    /// If they do not within 30 s; also if they disagree.
    pub async fn same_state(&self) -> anyhow::Result<()> {
        self.wait("all nodes have applied the same", || async {
            let asked = self.running().into_iter().map(|index| self.status(index));
            let answers = futures::future::join_all(asked).await;
            let answers: Vec<NodeStatus> = answers.into_iter().collect::<Result<_, _>>().ok()?;
            let first = answers.first()?;
            let is_same = |status: &NodeStatus| status.applied_index == first.applied_index;
            if !answers.iter().all(is_same) {
                return None;
            }
            let agrees = |status: &NodeStatus| status.state_digest == first.state_digest;
            Some(answers.iter().all(agrees))
        })
        .await?
        .then_some(())
        .context("nodes hold different states at the same index")
    }

    /// The good end of a test: all nodes that should run do, hold the same state, and none has
    /// panicked. Without it the logs are printed.
    ///
    /// # Errors
    /// If one of that is not so.
    pub async fn finish(&self) -> anyhow::Result<()> {
        self.check()?;
        if self.running().len() > self.size() / 2 {
            self.leader().await?;
            self.same_state().await?;
        }
        self.no_panics()?;
        self.finished.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn no_panics(&self) -> anyhow::Result<()> {
        for index in 0..self.size() {
            let log = self.log(index)?;
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                bail!("n{} panicked: {line}", index + 1);
            }
        }
        Ok(())
    }

    fn add(&self, start: &[String]) -> anyhow::Result<usize> {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let index = nodes.len();
        let id = u64::try_from(index + 1).expect("there are a few nodes");
        let dir = self.dir();
        let data_dir = match &self.options.data_dirs {
            Some(dirs) => {
                dirs.get(index).with_context(|| format!("no data directory for n{id}"))?.clone()
            }
            None => dir.join(format!("n{id}")),
        };
        let [client, peer, closed]: [Port; 3] =
            ports::reserve(3)?.try_into().expect("three were asked for");
        let log = dir.join(format!("n{id}.log"));
        let process = NodeProcess::new(Vec::new(), self.options.env.clone(), &log)?;
        if let Some(network) = &self.network {
            let listen = peer.address().parse()?;
            network.open(Route { node: id, listen, target: behind_network(id, &peer) })?;
        }
        let node = Node { id, client, peer, closed, data_dir, process: Mutex::new(process) };
        let mut args = serve_args(&node, &self.options);
        args.extend(start.iter().cloned());
        node.lock().set_args(args);
        nodes.push(Arc::new(node));
        Ok(index)
    }

    fn node(&self, index: usize) -> Arc<Node> {
        self.read().get(index).unwrap_or_else(|| panic!("there is no node {index}")).clone()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Node>>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn print_logs(&self) {
        if std::env::var_os("HOLDFAST_KEEP").is_some() {
            eprintln!("----- kept: {}", self.dir().display());
        }
        for node in self.read().iter() {
            eprintln!("----- n{}, end of its log:\n{}", node.id, node.lock().tail(TAIL_LINES));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = !*self.finished.get_mut();
        if failed {
            self.print_logs();
        }
        self.kill_all();
        if failed && std::env::var_os("HOLDFAST_KEEP").is_some() {
            let _kept = self.dir.take().map(TempDir::keep);
        }
    }
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, NodeProcess> {
        // A panic while it was held leaves the handle of the child as it was.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ids of these nodes.
fn ids(indices: Vec<usize>) -> BTreeSet<u64> {
    indices.into_iter().map(|index| u64::try_from(index + 1).expect("a few nodes")).collect()
}

/// Where a node listens for others that reach it through the network.
fn behind_network(id: u64, peer: &Port) -> SocketAddr {
    SocketAddr::new(host_of(id).expect("there are a few nodes"), peer.number())
}

fn serve_args(node: &Node, options: &Options) -> Vec<String> {
    let listen = match options.network {
        true => behind_network(node.id, &node.peer).to_string(),
        false => node.peer.address(),
    };
    let mut args: Vec<String> = [
        "serve",
        "--data-dir",
        &node.data_dir.to_string_lossy(),
        "--client-addr",
        &node.client.address(),
        "--peer-addr",
        &listen,
        "--node-id",
        &node.id.to_string(),
    ]
    .map(str::to_owned)
    .to_vec();
    if options.hide_endpoints {
        args.extend(["--advertise-client".to_owned(), node.closed.address()]);
    }
    if options.network {
        let source = behind_network(node.id, &node.peer).ip().to_string();
        let advertised = node.peer.address();
        args.extend(["--advertise-peer".to_owned(), advertised]);
        args.extend(["--peer-source-addr".to_owned(), source]);
    }
    args.extend(options.args.iter().cloned());
    args
}

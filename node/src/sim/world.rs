//! Machines with disks, the processes that run on them, and the network between them.
//!
//! A machine is known by its node's id. Its disk stays when its process dies; a process dies at
//! once, wherever its tasks are. Clients reach every process over links that are never cut, so that
//! what a client cannot find out is the cluster's doing.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_machine::{Event, Request, Response, State, objects};
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{mpsc, oneshot};

use super::disk::DataDir;
use super::links::{Broken, Links};
use crate::assemble::{Parts, assemble};
use crate::config::Config;
use crate::leadership::Leader;
use crate::members::Joiner;
use crate::node::{Node, WriteFailed};
use crate::raft::peer::Own;
use crate::raft::types::Member;
use crate::runtime::{self, Host, watch};
use crate::watch::{Step, Watch};

/// Clients on the network.
const CLIENTS: u64 = 0;
/// How long a watch waits for changes before it says how far it is.
const IDLE: Duration = Duration::from_millis(500);

/// Everything there is.
pub struct World {
    links: Links,
    machines: Mutex<BTreeMap<u64, Machine>>,
    trace: Mutex<Trace>,
    faults: Mutex<Vec<String>>,
    seed: u64,
}

struct Machine {
    disk: DataDir,
    config: Config,
    clock_rate: u64,
    /// Alive from the start on.
    host: Option<Arc<Host>>,
    /// There once it takes calls.
    process: Option<Process>,
    starts: u64,
}

/// A running process.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) host: Arc<Host>,
    pub(crate) node: Arc<Node>,
}

/// What has happened, as one number.
struct Trace {
    hash: u64,
    events: u64,
    prints: bool,
}

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub enum CallFailed {
    /// It was not carried out and never will be.
    NotApplied(String),
    /// It may have been carried out.
    Unknown(String),
}

/// Who leads, as a node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The term that the node is in.
    pub term: u64,
    /// The leader, if the node knows one; itself only once it is ready for calls.
    pub leader: Option<u64>,
}

/// What a watch has come upon.
#[derive(Clone, Debug)]
pub enum Seen {
    /// All events of one revision.
    Revision {
        /// Its number.
        number: u64,
        /// They, in order.
        events: Vec<Event>,
    },
    /// There is nothing more up to here.
    Through(u64),
    /// What comes behind the cursor is forgotten, up to this revision.
    Compacted {
        /// The first revision from which all are remembered.
        oldest: u64,
    },
}

/// A watch on one node; it ends when the node's process does.
pub struct Watching(mpsc::UnboundedReceiver<Seen>);

impl Watching {
    /// The next it comes upon; None once it has ended.
    pub async fn next(&mut self) -> Option<Seen> {
        self.0.recv().await
    }
}

impl World {
    /// A world without machines. With `prints`, what happens is also printed.
    #[must_use]
    pub fn new(seed: u64, prints: bool) -> Arc<World> {
        Arc::new(World {
            links: Links::new(seed ^ 0x4c69_6e6b),
            machines: Mutex::default(),
            // The offset basis of FNV-1a.
            trace: Mutex::new(Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, prints }),
            faults: Mutex::default(),
            seed,
        })
    }

    /// Adds a machine with an empty disk. Its clock counts `clock_rate` microseconds a second.
    pub fn add_machine(&self, id: u64, clock_rate: u64, configure: impl FnOnce(&mut Config)) {
        let mut config = Config::new("/simulated");
        configure(&mut config);
        let disk = DataDir::new(self.seed.wrapping_mul(31).wrapping_add(id));
        let machine = Machine { disk, config, clock_rate, host: None, process: None, starts: 0 };
        lock(&self.machines).insert(id, machine);
    }

    /// Starts a machine's process; with `forms`, it forms the cluster if there is none on its disk.
    ///
    /// # Errors
    /// If it cannot use what it finds on its disk. To be killed meanwhile is none.
    pub async fn start(self: &Arc<World>, id: u64, forms: bool) -> Result<(), String> {
        let (host, parts, mut stop) = {
            let mut machines = lock(&self.machines);
            let machine = machines.get_mut(&id).expect("a machine of this world");
            assert!(machine.host.is_none(), "n{id} runs already");
            machine.starts += 1;
            let own = Own {
                cluster_id: "simulated".to_owned(),
                node_id: id,
                incarnation: id,
                nonce: machine.starts,
            };
            let (stop_reason, stop) = watch::channel(None);
            let forms = forms.then(|| member(id));
            let (config, dir) = (machine.config.clone(), machine.disk.clone());
            let parts = Parts { config, dir, own, forms, stop_reason };
            let host = Host::start(id, machine.clock_rate, self);
            machine.host = Some(Arc::clone(&host));
            (host, parts, stop)
        };
        self.note(format_args!("n{id} starts"));
        let assembled = host.spawn(assemble(parts)).await;
        let node = match assembled {
            Ok(Ok(node)) => node,
            Ok(Err(unusable)) => return Err(format!("n{id} cannot start: {unusable:?}")),
            // Killed, or a panic that is noted already.
            Err(_) => return Ok(()),
        };
        if let Some(machine) = lock(&self.machines).get_mut(&id)
            && machine.host.as_ref().is_some_and(|present| Arc::ptr_eq(present, &host))
        {
            machine.process = Some(Process { host: Arc::clone(&host), node });
        }
        let world = Arc::clone(self);
        host.spawn(async move {
            if let Ok(reason) = stop.wait_for(Option::is_some).await {
                let reason = reason.clone().unwrap_or_default();
                world.fault(format!("n{id} stopped by itself: {reason}"));
            }
        });
        Ok(())
    }

    /// Ends a machine's process at once. What it had not synced is lost, or not.
    pub fn crash(&self, id: u64) {
        let (host, process, disk) = {
            let mut machines = lock(&self.machines);
            let machine = machines.get_mut(&id).expect("a machine of this world");
            (machine.host.take(), machine.process.take(), machine.disk.clone())
        };
        let Some(host) = host else { return };
        self.note(format_args!("n{id} crashes"));
        host.kill();
        drop(process);
        disk.crash();
    }

    /// Ends every process, so that nothing keeps the world in memory.
    pub fn end(&self) {
        let ids: Vec<u64> = lock(&self.machines).keys().copied().collect();
        for id in ids {
            self.crash(id);
        }
    }

    /// Whether a machine's process runs, ready for calls or not.
    #[must_use]
    pub fn is_running(&self, id: u64) -> bool {
        lock(&self.machines).get(&id).is_some_and(|machine| machine.host.is_some())
    }

    /// The term that a node leads, ready for calls or not; None if it leads none.
    #[must_use]
    pub fn led_term(&self, id: u64) -> Option<u64> {
        let metrics = self.process(id)?.node.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.state.is_leader().then_some(metrics.vote.leader_id.term)
    }

    /// Asks a node, which must lead, to take another one in.
    ///
    /// # Errors
    /// Whatever it says.
    pub async fn join(self: &Arc<World>, leader: u64, joining: u64) -> Result<(), String> {
        let joined = self.call(leader, "join", move |node| async move {
            let joiner = Joiner { node_id: Some(joining), member: member(joining) };
            let deadline = runtime::now() + Duration::from_secs(5);
            node.join(joiner, deadline).await.map_err(|refused| refused.to_string())
        });
        joined.await.map_err(|failed| format!("{failed:?}"))?.map(|_| ())
    }

    /// Asks a node to hand over the lead; whether it does is its affair.
    pub async fn move_lead(self: &Arc<World>, from: u64) {
        let moved = self.call(from, "move", move |node| async move {
            let deadline = runtime::now() + Duration::from_secs(1);
            // A refusal, such as of a node that does not lead, changes nothing.
            let _ = node.move_lead(None, deadline).await;
        });
        // As does a call that is lost.
        let _ = moved.await;
    }

    /// How many voters a node knows of.
    #[must_use]
    pub fn voters(&self, id: u64) -> usize {
        self.process(id).map_or(0, |process| process.node.raft.voter_ids().count())
    }

    /// Who leads, as a node knows it; None if it does not run.
    #[must_use]
    pub fn lead(&self, id: u64) -> Option<Lead> {
        let node = self.process(id)?.node;
        let lead = node.lead.borrow().clone();
        let leader = match lead.leader {
            Leader::None => None,
            Leader::Me(_) => Some(id),
            Leader::Other(other) => Some(other),
        };
        Some(Lead { term: lead.term, leader })
    }

    /// What a node has applied; None if it does not run.
    #[must_use]
    pub fn applied(&self, id: u64) -> Option<State> {
        Some(self.process(id)?.node.applied.state())
    }

    /// Reads all bodies that a node's state names; says which could not be read.
    #[must_use]
    pub fn bodies_missing(&self, id: u64) -> Vec<String> {
        let Some(process) = self.process(id) else { return Vec::new() };
        let (state, _pin) = process.node.applied.pinned();
        let mut missing = Vec::new();
        for chunk in objects::chunks(&state) {
            let read = chunk.map(|(hash, _)| process.node.store.body(&hash.0));
            match read {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => missing.push(format!("n{id}: {error}")),
                Err(fault) => missing.push(format!("n{id}: {fault}")),
            }
        }
        missing
    }

    /// Cuts what one node sends another.
    pub fn cut(&self, from: u64, to: u64) {
        self.note(format_args!("cut n{from} to n{to}"));
        self.links.cut(from, to);
    }

    /// Puts what one node sends another in order.
    pub fn mend(&self, from: u64, to: u64) {
        self.note(format_args!("mend n{from} to n{to}"));
        self.links.mend(from, to);
    }

    /// Slows what one node sends another by about this much; node 0 is all clients.
    pub fn slow(&self, from: u64, to: u64, by: Duration) {
        self.note(format_args!("slow n{from} to n{to} by {by:?}"));
        self.links.slow(from, to, by);
    }

    /// Makes a machine's disk take so many times as long for a sync.
    pub fn slow_disk(&self, id: u64, times: u32) {
        self.note(format_args!("disk of n{id} {times} times slower"));
        if let Some(machine) = lock(&self.machines).get(&id) {
            machine.disk.set_slowness(times);
        }
    }

    /// Puts all links and disks in order.
    pub fn heal(&self) {
        self.note(format_args!("heal"));
        self.links.heal();
        for machine in lock(&self.machines).values() {
            machine.disk.set_slowness(1);
        }
    }

    /// A client's write at a node, tried there for this long.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn write(
        self: &Arc<World>,
        node: u64,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, CallFailed> {
        let written = self.call(node, "write", move |node| async move {
            node.write(request, runtime::now() + share(timeout)).await
        });
        match within(timeout, written).await? {
            Ok(response) => Ok(response),
            Err(WriteFailed::NotApplied { message, .. }) => Err(CallFailed::NotApplied(message)),
            Err(WriteFailed::Unknown(cause)) => Err(CallFailed::Unknown(cause)),
        }
    }

    /// A client's read at a node: a state that is linearizable, or whatever the node has.
    ///
    /// # Errors
    /// If there is no answer; it changed nothing.
    pub async fn read(
        self: &Arc<World>,
        node: u64,
        local: bool,
        timeout: Duration,
    ) -> Result<State, CallFailed> {
        let read = self.call(node, "read", move |node| async move {
            node.read(local, runtime::now() + share(timeout)).await
        });
        within(timeout, read).await?.map_err(|failed| CallFailed::NotApplied(format!("{failed:?}")))
    }

    /// Watches a node from behind a revision on.
    ///
    /// # Errors
    /// If the node does not run.
    pub async fn watch(self: &Arc<World>, node: u64, cursor: u64) -> Result<Watching, CallFailed> {
        let (seen, watching) = mpsc::unbounded_channel();
        let opened = self.call(node, "watch", move |node| async move {
            runtime::spawn(hand_out(Watch::new(&node.applied, cursor), seen));
        });
        opened.await?;
        Ok(Watching(watching))
    }

    /// Takes what has gone wrong inside of nodes since the last call: panics, and nodes that stopped
    /// by themselves.
    #[must_use]
    pub fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.faults))
    }

    /// Adds to what has happened.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let mut trace = lock(&self.trace);
        let line = format!("{:>13.6} {what}", runtime::since_start().as_secs_f64());
        if trace.prints {
            eprintln!("{line}");
        }
        trace.events += 1;
        for byte in line.bytes() {
            // FNV-1a, 64 bits.
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Everything that has happened, as one number, and how much it was.
    #[must_use]
    pub fn trace(&self) -> (u64, u64) {
        let trace = lock(&self.trace);
        (trace.hash, trace.events)
    }

    pub(crate) fn note_panic(&self, node: u64, text: &str) {
        self.fault(format!("n{node} panicked: {text}"));
    }

    /// Notes that something has gone wrong that never may.
    pub fn fault(&self, what: String) {
        self.note(format_args!("{what}"));
        lock(&self.faults).push(what);
    }

    /// The process that runs on a machine, once it takes calls.
    pub(crate) fn process(&self, id: u64) -> Option<Process> {
        lock(&self.machines).get(&id)?.process.clone()
    }

    /// Takes what a message takes; see [`Links::cross`].
    pub(crate) async fn cross(
        &self,
        from: u64,
        to: u64,
        kind: &'static str,
        sent: Duration,
    ) -> Result<(), Broken> {
        let crossed = self.links.cross(from, to, sent).await;
        let how = if crossed.is_ok() { "" } else { " is lost" };
        self.note(format_args!("n{from} to n{to}: {kind}{how}"));
        crossed
    }

    /// A call of a client, carried out in the node's process. It is on its way by itself: a client
    /// that gives up does not take it back.
    async fn call<T, F>(
        self: &Arc<World>,
        to: u64,
        kind: &'static str,
        carry_out: impl FnOnce(Arc<Node>) -> F + Send + 'static,
    ) -> Result<T, CallFailed>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let world = Arc::clone(self);
        runtime::spawn_outside(async move {
            // Nobody waits any more: the client has given up.
            let _ = answer.send(world.carry(to, kind, carry_out).await);
        });
        wait.await.unwrap_or_else(|_| Err(broke(to)))
    }

    async fn carry<T, F>(
        &self,
        to: u64,
        kind: &'static str,
        carry_out: impl FnOnce(Arc<Node>) -> F + Send + 'static,
    ) -> Result<T, CallFailed>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.cross(CLIENTS, to, kind, runtime::since_start()).await.map_err(|_| broke(to))?;
        let Some(Process { host, node }) = self.process(to) else {
            return Err(CallFailed::NotApplied(format!("n{to} is down")));
        };
        let result = host.spawn(async move { carry_out(node).await }).await;
        self.cross(to, CLIENTS, kind, runtime::since_start()).await.map_err(|_| broke(to))?;
        result.map_err(|_| broke(to))
    }
}

fn broke(to: u64) -> CallFailed {
    CallFailed::Unknown(format!("the connection to n{to} broke"))
}

/// How long a node may try, of the time that its client gives it: the answer is to be there in time.
fn share(timeout: Duration) -> Duration {
    timeout - timeout / 10
}

/// A call that its client gives up after this time.
async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, CallFailed>>,
) -> Result<T, CallFailed> {
    let unknown = || Err(CallFailed::Unknown("no answer in time".to_owned()));
    runtime::until(runtime::now() + timeout, call).await.unwrap_or_else(unknown)
}

/// Hands out what a watch comes upon until the client or the node is gone.
async fn hand_out(mut watch: Watch, seen: mpsc::UnboundedSender<Seen>) {
    loop {
        let found = match watch.next(IDLE).await {
            Step::Changes(run) => {
                let mut found = Vec::new();
                for revision in run.revisions {
                    let events = revision.events().expect("rows are whole").to_vec();
                    found.push(Seen::Revision { number: revision.number, events });
                }
                found.push(Seen::Through(run.through));
                found
            }
            Step::Idle => vec![Seen::Through(watch.cursor())],
            Step::Compacted { oldest } => vec![Seen::Compacted { oldest }],
            Step::Stopping => return,
        };
        let over = found.iter().any(|found| matches!(found, Seen::Compacted { .. }));
        for found in found {
            if seen.send(found).is_err() {
                return;
            }
        }
        if over {
            return;
        }
    }
}

fn member(id: u64) -> Member {
    Member {
        peer_endpoint: format!("n{id}:7481"),
        client_endpoint: format!("n{id}:7480"),
        incarnation: id,
        promote: true,
        ..Member::default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

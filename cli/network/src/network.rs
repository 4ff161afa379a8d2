//! The listeners in front of the nodes, and the connections through them.
//!
//! All of it runs on one thread of its own, so that whoever gives orders, busy or not, delays
//! nothing that is carried.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::hosts::node_at;
use crate::relay::{Flow, Lane, carry};
use crate::rules::Rules;

/// How long something may be held before its connection is closed. Longer than nodes wait for a
/// sign of life (3 s where they dialled, 20 s where they were dialled), so that both ends have given
/// up by then, and short enough that a long cut does not pile up connections.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Connections through one network; more wait to be taken. Each needs two descriptors, of which a
/// process mostly has 1,024; nine nodes with five ways to each other need 360.
const CONNECTIONS_MAX: usize = 480;
/// Pause after a connection that could not be taken, for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The way to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The node.
    pub node: u64,
    /// Where others are told to dial it.
    pub listen: SocketAddr,
    /// Where it really listens, or will.
    pub target: SocketAddr,
}

/// The network of some nodes. Dropping it closes everything.
#[derive(Debug)]
pub struct Network {
    rules: watch::Sender<Rules>,
    orders: mpsc::UnboundedSender<Order>,
    // A std lock, held for moments.
    routes: Mutex<BTreeMap<u64, Route>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    Open(Route, StdListener),
    Close(u64),
    /// Answers once all that is being written has been.
    Settle(std::sync::mpsc::Sender<()>),
    End,
}

impl Network {
    /// One without nodes, in which everything passes.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn start() -> io::Result<Network> {
        let (rules, _) = watch::channel(Rules::default());
        let (orders, queue) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seen = rules.subscribe();
        let thread = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || runtime.block_on(run(queue, seen)))?;
        Ok(Network { rules, orders, routes: Mutex::default(), thread: Some(thread) })
    }

    /// Takes connections for a node from now on.
    ///
    /// # Errors
    /// If it cannot listen there, or does so for that node already.
    pub fn open(&self, route: Route) -> io::Result<()> {
        let mut routes = self.lock();
        if routes.contains_key(&route.node) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let listener = StdListener::bind(route.listen)?;
        listener.set_nonblocking(true)?;
        self.order(Order::Open(route, listener))?;
        routes.insert(route.node, route);
        Ok(())
    }

    /// The ways to all nodes.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        self.lock().values().copied().collect()
    }

    /// Takes no more connections for a node, closes those to it, and forgets its rules.
    ///
    /// # Errors
    /// If the network has ended.
    pub fn close(&self, node: u64) -> io::Result<()> {
        self.lock().remove(&node);
        self.rules.send_modify(|rules| rules.forget(node));
        self.order(Order::Close(node))
    }

    /// Changes the rules; they are in force when this returns. Blocks for as long as the network
    /// needs for what it is writing just now, which never waits for anything.
    pub fn change<R>(&self, change: impl FnOnce(&mut Rules) -> R) -> R {
        let mut result = None;
        self.rules.send_modify(|rules| result = Some(change(rules)));
        let (settled, wait) = std::sync::mpsc::channel();
        if self.order(Order::Settle(settled)).is_ok() {
            // An error says that the network has ended, and carries nothing any more.
            let _ = wait.recv();
        }
        result.expect("it has been called")
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules.borrow().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Route>> {
        self.routes.lock().expect("no code panics while it holds this lock")
    }

    fn order(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).map_err(|_| io::Error::other("the network has ended"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.orders.send(Order::End);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by itself.
            let _ = thread.join();
        }
    }
}

async fn run(mut orders: mpsc::UnboundedReceiver<Order>, rules: watch::Receiver<Rules>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut doors = JoinSet::new();
    let mut open = HashMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open(route, listener) => match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let door = Door { route, rules: rules.clone(), slots: Arc::clone(&slots) };
                    open.insert(route.node, doors.spawn(door.stand(listener)));
                }
                Err(error) => eprintln!("network: listen at {}: {error}", route.listen),
            },
            Order::Close(node) => {
                if let Some(door) = open.remove(&node) {
                    door.abort();
                }
            }
            Order::Settle(settled) => drop(settled),
            Order::End => return,
        }
        // Those that were closed.
        while doors.try_join_next().is_some() {}
    }
}

/// Where one node is reached.
struct Door {
    route: Route,
    rules: watch::Receiver<Rules>,
    slots: Arc<Semaphore>,
}

impl Door {
    async fn stand(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await.expect("nobody closes it");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            match accepted {
                Ok((near, source)) => {
                    let (up, down) = self.lanes(node_at(source.ip()));
                    let carried = connect(near, self.route.target, up, down);
                    connections.spawn(async move {
                        carried.await;
                        drop(slot);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Both directions of a connection from there. Whoever is no node is under no rules.
    fn lanes(&self, source: Option<u64>) -> (Lane<Rules>, Lane<Rules>) {
        let node = self.route.node;
        let lane = |flow: Box<dyn Fn(&Rules) -> Flow + Send + Sync>| Lane {
            rules: self.rules.clone(),
            flow,
            deaf: |_| false,
            held: Arc::default(),
            patience: Some(PATIENCE),
        };
        match source {
            Some(source) => (
                lane(Box::new(move |rules| rules.flow(source, node))),
                lane(Box::new(move |rules| rules.flow(node, source))),
            ),
            None => (lane(Box::new(|_| Flow::Pass)), lane(Box::new(|_| Flow::Pass))),
        }
    }
}

/// Carries one connection. It is made once packets could go there and back; one that could not, or
/// that the node does not take, ends.
async fn connect(near: TcpStream, target: SocketAddr, mut up: Lane<Rules>, mut down: Lane<Rules>) {
    if up.wait_to_open().await.is_err() || down.wait_to_open().await.is_err() {
        return;
    }
    if let Ok(far) = TcpStream::connect(target).await {
        carry(near, far, up, down).await;
    }
}
